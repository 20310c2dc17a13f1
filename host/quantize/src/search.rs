//! The cheapest set of fallbacks found that keeps the loss within a budget.
//!
//! Each candidate is measured alone; the losses of quantization add up about, so those that win the most for their cost are
//! taken first, as many as the budget asks for. Then every one that is no longer needed is dropped, the dearest first.

use std::collections::HashMap;

use rayon::prelude::*;

use crate::fallback::{Candidate, Fallback};

/// Losses by set of fallbacks; None for a set that cannot be built.
type Measure<'a> = &'a (dyn Fn(&[Fallback]) -> Option<f64> + Sync);

/// What a search ended with.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Found {
    /// In the candidates' order.
    pub kept: Vec<Kept>,
    /// Loss with all of them.
    pub loss: f64,
    /// Loss with none.
    pub loss_int8: f64,
    /// Least loss of the first stage, if that was not enough.
    pub loss_first_stage: Option<f64>,
}

/// A fallback that the budget needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Kept {
    pub fallback: Fallback,
    /// Loss with all others but this; None if that cannot be built.
    pub loss_without: Option<f64>,
}

/// Finds fallbacks whose loss is at most `budget`; earlier stages are used up before later ones are touched.
///
/// # Errors
/// The least loss found, if no set is within the budget; None if nothing can be built at all.
pub(crate) fn search(
    stages: &[Vec<Candidate>],
    budget: f64,
    measure: Measure<'_>,
    progress: &mut dyn FnMut(usize),
) -> Result<Found, Option<f64>> {
    let mut search = Search { measure, losses: HashMap::new(), progress };
    let loss_int8 = search.loss(&[]).ok_or(None)?;
    let (mut taken, mut loss): (Vec<Candidate>, f64) = (vec![], loss_int8);
    let mut loss_first_stage = None;
    for (i, stage) in stages.iter().enumerate() {
        if loss <= budget {
            break;
        }
        (taken, loss) = search.stage(taken, loss, stage, budget);
        if i == 0 && loss > budget {
            loss_first_stage = Some(loss);
        }
    }
    if loss > budget {
        return Err(Some(loss));
    }
    search.drop_needless(&mut taken, budget);
    taken.sort_by_key(|candidate| candidate.fallback);
    let without: Vec<Vec<Candidate>> = (0..taken.len()).map(|i| without(&taken, i)).collect();
    let losses = search.losses(&without);
    let kept = taken.iter().zip(losses).map(|(c, loss_without)| Kept { fallback: c.fallback, loss_without }).collect();
    let loss = search.loss(&taken).unwrap_or(loss);
    Ok(Found { kept, loss, loss_int8, loss_first_stage })
}

struct Search<'a> {
    measure: Measure<'a>,
    losses: HashMap<Vec<Fallback>, Option<f64>>,
    progress: &'a mut dyn FnMut(usize),
}

impl Search<'_> {
    /// Adds of `stage` what brings `taken`, whose loss is `base`, within the budget, or as near as it gets.
    fn stage(&mut self, taken: Vec<Candidate>, base: f64, stage: &[Candidate], budget: f64) -> (Vec<Candidate>, f64) {
        let with = |more: &[Candidate]| -> Vec<Candidate> { taken.iter().chain(more).copied().collect() };
        let alone: Vec<Vec<Candidate>> = stage.iter().map(|candidate| with(&[*candidate])).collect();
        let losses = self.losses(&alone);
        let mut gains: Vec<(f64, Candidate)> =
            stage.iter().zip(losses).filter_map(|(c, loss)| Some(((base - loss?) / c.cost as f64, *c))).collect();
        gains.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.fallback.cmp(&b.1.fallback)));
        let n_useful = gains.iter().filter(|(gain, _)| *gain > 0.0).count();
        let order: Vec<Candidate> = gains.into_iter().map(|(_, candidate)| candidate).collect();
        let prefix = |n: usize| with(order.get(..n).unwrap_or(&order));
        let (mut best, mut least) = (taken.clone(), base);
        // What wins nothing alone may yet beside the others.
        for n in [n_useful, order.len()] {
            let Some(loss) = self.loss(&prefix(n)) else { continue };
            if loss < least {
                (best, least) = (prefix(n), loss);
            }
            if loss > budget {
                continue;
            }
            // The shortest prefix that does; `within` always names one.
            let (mut too_short, mut within) = (0, n);
            while within - too_short > 1 {
                let middle = too_short.midpoint(within);
                match self.loss(&prefix(middle)) {
                    Some(loss) if loss <= budget => within = middle,
                    _ => too_short = middle,
                }
            }
            let loss = self.loss(&prefix(within)).unwrap_or(loss);
            return (prefix(within), loss);
        }
        (best, least)
    }

    /// Drops what the budget does not need, the dearest first, until all that is left is needed.
    fn drop_needless(&mut self, taken: &mut Vec<Candidate>, budget: f64) {
        taken.sort_by_key(|candidate| (std::cmp::Reverse(candidate.cost), candidate.fallback));
        // Losses do not quite add up: what was needed may no longer be when another is gone.
        let mut n_before = usize::MAX;
        while taken.len() < n_before {
            n_before = taken.len();
            let mut at = 0;
            while at < taken.len() {
                let fewer = without(taken, at);
                if self.loss(&fewer).is_some_and(|loss| loss <= budget) {
                    *taken = fewer;
                } else {
                    at += 1;
                }
            }
        }
    }

    fn loss(&mut self, set: &[Candidate]) -> Option<f64> {
        self.losses(&[set.to_vec()]).into_iter().next().flatten()
    }

    /// Losses of several sets, measured on all cores, each once.
    fn losses(&mut self, sets: &[Vec<Candidate>]) -> Vec<Option<f64>> {
        let keys: Vec<Vec<Fallback>> = sets.iter().map(|set| key(set)).collect();
        let mut missing: Vec<&Vec<Fallback>> = keys.iter().filter(|key| !self.losses.contains_key(*key)).collect();
        missing.sort();
        missing.dedup();
        let measure = self.measure;
        let found: Vec<_> = missing.into_par_iter().map(|key| (key.clone(), measure(key))).collect();
        self.losses.extend(found);
        (self.progress)(self.losses.len());
        keys.iter().map(|key| self.losses.get(key).copied().flatten()).collect()
    }
}

fn key(set: &[Candidate]) -> Vec<Fallback> {
    let mut key: Vec<Fallback> = set.iter().map(|candidate| candidate.fallback).collect();
    key.sort_unstable();
    key
}

fn without(set: &[Candidate], at: usize) -> Vec<Candidate> {
    set.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, candidate)| *candidate).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use Fallback::{Float, Wide};

    fn candidate(fallback: Fallback, cost: u64) -> Candidate {
        Candidate { fallback, cost }
    }

    /// Losses that add up: 1.0 less what each fallback wins.
    fn additive(gains: &[(Fallback, f64)]) -> impl Fn(&[Fallback]) -> Option<f64> + Sync + '_ {
        move |set| Some(1.0 - gains.iter().filter(|(f, _)| set.contains(f)).map(|(_, gain)| gain).sum::<f64>())
    }

    #[test]
    fn the_best_for_their_cost_are_taken_and_no_more_than_needed() {
        let gains = [(Wide(1), 0.4), (Wide(2), 0.3), (Wide(3), 0.2), (Wide(4), 0.0), (Float(5), 0.1)];
        let wide = vec![candidate(Wide(1), 100), candidate(Wide(2), 10), candidate(Wide(3), 10), candidate(Wide(4), 1)];
        let stages = [wide, vec![candidate(Float(5), 1)]];
        let measure = additive(&gains);
        let found = |budget: f64| {
            search(&stages, budget, &measure, &mut |_| {}).map(|found| {
                (found.kept.iter().map(|kept| kept.fallback).collect::<Vec<_>>(), (found.loss * 10.0).round())
            })
        };
        assert_eq!(found(1.0), Ok((vec![], 10.0)));
        assert_eq!(found(0.75), Ok((vec![Wide(2)], 7.0)));
        assert_eq!(found(0.55), Ok((vec![Wide(2), Wide(3)], 5.0)));
        assert_eq!(found(0.101), Ok((vec![Wide(1), Wide(2), Wide(3)], 1.0)));
        assert_eq!(found(0.001), Ok((vec![Wide(1), Wide(2), Wide(3), Float(5)], 0.0)));
        let first_stage = |budget| search(&stages, budget, &measure, &mut |_| {}).unwrap().loss_first_stage;
        assert_eq!(first_stage(0.101), None);
        assert!((first_stage(0.001).unwrap() - 0.1).abs() < 1e-9);
        let least = search(&stages, -0.5, &measure, &mut |_| {}).unwrap_err().unwrap();
        assert!(least.abs() < 1e-9, "{least}");
    }

    #[test]
    fn what_became_needless_is_dropped() {
        // The second does all that the first does, and more.
        let measure = |set: &[Fallback]| {
            Some(if set.contains(&Wide(2)) {
                0.1
            } else if set.contains(&Wide(1)) {
                0.5
            } else {
                1.0
            })
        };
        let stages = [vec![candidate(Wide(1), 5), candidate(Wide(2), 50)]];
        let found = search(&stages, 0.2, &measure, &mut |_| {}).unwrap();
        assert_eq!(found.kept, [Kept { fallback: Wide(2), loss_without: Some(1.0) }]);
        assert_eq!((found.loss, found.loss_int8), (0.1, 1.0));
    }

    #[test]
    fn what_is_kept_is_needed_even_where_losses_do_not_add_up() {
        // The first is needed only as long as the second is there.
        let measure = |set: &[Fallback]| {
            let has = |i: usize| set.contains(&Wide(i));
            Some(match (has(1), has(2), has(3)) {
                (true, true, true) | (true, false, true) | (false, false, true) => 0.1,
                _ => 1.0,
            })
        };
        let stages = [vec![candidate(Wide(1), 9), candidate(Wide(2), 8), candidate(Wide(3), 7)]];
        let found = search(&stages, 0.2, &measure, &mut |_| {}).unwrap();
        assert_eq!(found.kept.iter().map(|kept| kept.fallback).collect::<Vec<_>>(), [Wide(3)]);
    }

    #[test]
    fn what_wins_only_together_is_found() {
        let measure = |set: &[Fallback]| Some(if set.len() == 3 { 0.0 } else { 1.0 });
        let stages = [vec![candidate(Wide(1), 1), candidate(Wide(2), 1), candidate(Wide(3), 1)]];
        assert_eq!(search(&stages, 0.5, &measure, &mut |_| {}).unwrap().kept.len(), 3);
    }

    #[test]
    fn sets_that_cannot_be_built_are_left_out() {
        let measure = |set: &[Fallback]| (!set.contains(&Wide(1))).then_some(1.0 - 0.3 * set.len() as f64);
        let stages = [vec![candidate(Wide(1), 1), candidate(Wide(2), 1), candidate(Wide(3), 1)]];
        let found = search(&stages, 0.5, &measure, &mut |_| {}).unwrap();
        assert_eq!(found.kept.iter().map(|kept| kept.fallback).collect::<Vec<_>>(), [Wide(2), Wide(3)]);
        assert_eq!(search(&stages, 0.5, &|_| None, &mut |_| {}), Err(None));
    }

    #[test]
    fn every_set_is_measured_once() {
        let seen = Mutex::new(vec![]);
        let gains = [(Wide(1), 0.4), (Wide(2), 0.3), (Wide(3), 0.2)];
        let losses = additive(&gains);
        let measure = |set: &[Fallback]| {
            seen.lock().unwrap().push(set.to_vec());
            losses(set)
        };
        let stages = [(1..4).map(|i| candidate(Wide(i), 1)).collect()];
        let mut n_measured = 0;
        search(&stages, 0.3, &measure, &mut |n| n_measured = n).unwrap();
        let mut seen = seen.into_inner().unwrap();
        let n = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!((seen.len(), n_measured), (n, n));
    }
}
