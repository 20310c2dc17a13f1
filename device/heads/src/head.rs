//! A trained head: a pure function of a sample set.

use alloc::vec::Vec;

use graft_wire::message::{ChoiceReason, HeadChoice, HeadKind};
use graft_wire::{Digest, Label, SpaceId};

use crate::auto;
use crate::basis::{Basis, Whole};
use crate::calibration::{CalibrateError, Calibration};
use crate::format::{self, HeadFormatError};
use crate::knn::Knn;
use crate::linear::Linear;
use crate::ncm::Ncm;
use crate::projection::project;
use crate::recipe::Recipe;
use crate::set::SampleSet;
use crate::temperature::probability;
use crate::training::{TrainError, Training};
use crate::vector::argmax;

/// What was learned, and from what.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    pub(crate) space: SpaceId,
    pub(crate) set_digest: Digest,
    pub(crate) n_samples: u32,
    pub(crate) reason: ChoiceReason,
    pub(crate) balanced_accuracy: Option<f64>,
    pub(crate) embedding_len: usize,
    /// Ascending by UTF-8 bytes.
    pub(crate) labels: Vec<Label>,
    pub(crate) model: Model,
    /// None until [`Head::calibrate`].
    pub(crate) calibration: Option<Calibration>,
}

/// The numbers of a head.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Model {
    Ncm(Ncm),
    NcmEuclidean(Linear),
    /// Of trimmed means.
    NcmTrimmed(Ncm),
    Ridge {
        ridge: Linear,
        lambda_rel: f64,
    },
    Lda {
        lda: Linear,
        shrinkage: f64,
    },
    Logistic {
        logistic: Linear,
        lambda_rel: f64,
    },
    Knn(Knn),
    /// On projected embeddings.
    Rp {
        ridge: Linear,
        lambda_rel: f64,
    },
}

impl Model {
    /// How it was made.
    pub fn recipe(&self) -> Recipe {
        match *self {
            Self::Ncm(_) => Recipe::Ncm,
            Self::NcmEuclidean(_) => Recipe::NcmEuclidean,
            Self::NcmTrimmed(_) => Recipe::NcmTrimmed,
            Self::Ridge { lambda_rel, .. } => Recipe::Ridge { lambda_rel },
            Self::Lda { shrinkage, .. } => Recipe::Lda { shrinkage },
            Self::Logistic { lambda_rel, .. } => Recipe::Logistic { lambda_rel },
            Self::Knn(Knn { k, .. }) => Recipe::Knn { k },
            Self::Rp { lambda_rel, .. } => Recipe::Rp { lambda_rel },
        }
    }
}

/// The outcome of [`Head::classify`].
#[derive(Clone, Debug, PartialEq)]
pub struct Classified {
    /// Index into [`Head::classes`]; ties go to the smaller label.
    pub best: usize,
    /// Per class, `[C]`. Nearest class mean: in -1..=1.5, the centred cosine at one shot;
    /// Euclidean: see `euclidean`. Ridge: regression output, which sums
    /// to 1. Discriminant analysis: log likelihood up to what all classes share. Softmax regression: log odds.
    /// Neighbours: share of votes, with nearness to break ties.
    pub scores: Vec<f64>,
}

/// The outcome of [`Head::judge`].
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// Best class and scores.
    pub classified: Classified,
    /// Calibrated probability of the best class; None where none is calibrated.
    pub probability: Option<f64>,
    /// Conformal p-value; None where none is calibrated.
    pub p_value: Option<f64>,
    /// True: rejected, the p-value is not over the stated rate; None where no rate is stated.
    pub unknown: Option<bool>,
}

impl Head {
    /// Trains on the class samples of `set`. The same set gives the same bytes on every CPU.
    ///
    /// # Errors
    /// [`TrainError`] under two classes, over the cap of classes, or if nothing distinguishes them.
    pub fn train(set: &SampleSet, choice: HeadChoice) -> Result<Self, TrainError> {
        let training = Training::of(set)?;
        let whole = Whole::of(&training);
        Self::of(set, &Basis::new(&training, &whole), choice)
    }

    /// [`Self::train`] at a given strength: what [`Self::lambda_rel`] says, or [`Self::n_neighbours`]; nearest class mean has
    /// none, and ignores it.
    ///
    /// # Errors
    /// As [`Self::train`]; [`TrainError::Strength`] for a strength that the kind cannot have.
    pub fn train_at(set: &SampleSet, kind: HeadKind, strength: f64) -> Result<Self, TrainError> {
        let training = Training::of(set)?;
        let whole = Whole::of(&training);
        let basis = Basis::new(&training, &whole);
        let recipe = Recipe::at(kind, strength).ok_or(TrainError::Strength { strength })?;
        let choice = auto::Choice { recipe, reason: ChoiceReason::Named, balanced_accuracy: None };
        Self::chosen(set, &basis, &choice)
    }

    /// [`Self::train`], then [`Self::calibrate`], at less than the cost of both: the inner result is that of calibrating,
    /// and the head is there even if it failed.
    ///
    /// # Errors
    /// As [`Self::train`].
    pub fn train_calibrated(
        set: &SampleSet,
        choice: HeadChoice,
        rate: Option<f64>,
    ) -> Result<(Self, Result<(), CalibrateError>), TrainError> {
        let training = Training::of(set)?;
        let whole = Whole::of(&training);
        let basis = Basis::new(&training, &whole);
        let mut head = Self::of(set, &basis, choice)?;
        let calibrated = head.calibrate_on(set, &basis, rate);
        Ok((head, calibrated))
    }

    fn of(set: &SampleSet, basis: &Basis<'_>, choice: HeadChoice) -> Result<Self, TrainError> {
        let named = |kind| {
            let recipe = Recipe::of(kind, basis)?;
            Ok::<_, TrainError>(auto::Choice { recipe, reason: ChoiceReason::Named, balanced_accuracy: None })
        };
        let choice = match choice.named() {
            Some(kind) => named(kind)?,
            None => auto::choose(basis)?,
        };
        Self::chosen(set, basis, &choice)
    }

    fn chosen(set: &SampleSet, basis: &Basis<'_>, choice: &auto::Choice) -> Result<Self, TrainError> {
        let training = basis.training;
        Ok(Self {
            space: set.space(),
            set_digest: set.digest(),
            n_samples: training.samples.len() as u32,
            reason: choice.reason,
            balanced_accuracy: choice.balanced_accuracy,
            embedding_len: training.embedding_len,
            labels: training.labels.iter().copied().cloned().collect(),
            model: choice.recipe.fit(basis)?,
            calibration: None,
        })
    }

    /// Calibrates rejection and probabilities on the set that the head was trained on. `rate`: false rejects that the
    /// user allows, in 0..1 exclusive; without it p-values are given and nothing is rejected.
    ///
    /// # Errors
    /// [`CalibrateError`]; the head is as before.
    pub fn calibrate(&mut self, set: &SampleSet, rate: Option<f64>) -> Result<(), CalibrateError> {
        let training = Training::of(set)?;
        let whole = Whole::of(&training);
        self.calibrate_on(set, &Basis::new(&training, &whole), rate)
    }

    fn calibrate_on(&mut self, set: &SampleSet, basis: &Basis<'_>, rate: Option<f64>) -> Result<(), CalibrateError> {
        self.calibration = Calibration::of(set, basis, &self.model, rate)?;
        Ok(())
    }

    /// Calibration, if the head has one.
    pub fn calibration(&self) -> Option<&Calibration> {
        self.calibration.as_ref()
    }

    /// [`Self::classify`] with what calibration says about it.
    pub fn judge(&self, embedding: &[i8]) -> Judged {
        let classified = self.classify(embedding);
        let calibration = self.calibration.as_ref();
        let p_value = calibration.map(|calibration| calibration.p_value(embedding));
        let inverse = calibration.and_then(|calibration| calibration.inverse_temperature);
        let rate = calibration.and_then(Calibration::rate);
        Judged {
            probability: inverse.map(|inverse| probability(&classified.scores, inverse)),
            unknown: p_value.zip(rate).map(|(p_value, rate)| p_value <= rate),
            p_value,
            classified,
        }
    }

    /// Scores an int8 `[D]` embedding against every class.
    ///
    /// The caller checks the length against [`Self::embedding_len`]: of a longer slice the rest is ignored, a shorter
    /// one is filled with zeros.
    pub fn classify(&self, embedding: &[i8]) -> Classified {
        let mut filled = Vec::new();
        let embedding = match embedding.get(..self.embedding_len) {
            Some(embedding) => embedding,
            None => {
                filled.extend_from_slice(embedding);
                filled.resize(self.embedding_len, 0);
                &filled
            }
        };
        let scores = match &self.model {
            Model::Ncm(ncm) | Model::NcmTrimmed(ncm) => ncm.scores(embedding),
            Model::NcmEuclidean(linear)
            | Model::Ridge { ridge: linear, .. }
            | Model::Lda { lda: linear, .. }
            | Model::Logistic { logistic: linear, .. } => linear.scores(embedding),
            Model::Knn(knn) => knn.scores(embedding),
            Model::Rp { ridge, .. } => ridge.scores(&project(embedding)),
        };
        Classified { best: argmax(&scores), scores }
    }

    /// The head as bytes; [`format`](mod@crate::format) describes them.
    pub fn encode(&self) -> Vec<u8> {
        format::encode(self)
    }

    /// Reads a head and checks every length and number in it.
    ///
    /// # Errors
    /// [`HeadFormatError`] for anything that [`Self::encode`] would not have written.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeadFormatError> {
        format::decode(bytes)
    }

    /// BLAKE3 of the encoded head: its version.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.encode())
    }

    /// What it is.
    pub fn kind(&self) -> HeadKind {
        self.model.recipe().kind()
    }

    /// Space whose embeddings it takes.
    pub fn space(&self) -> SpaceId {
        self.space
    }

    /// Digest of the set it was trained on, see [`SampleSet::digest`].
    pub fn set_digest(&self) -> Digest {
        self.set_digest
    }

    /// Class samples it was trained on; negatives are not among them.
    pub fn n_samples(&self) -> u32 {
        self.n_samples
    }

    /// Classes it knows, ascending by UTF-8 bytes.
    pub fn classes(&self) -> &[Label] {
        &self.labels
    }

    /// D, the components of an embedding.
    pub fn embedding_len(&self) -> usize {
        self.embedding_len
    }

    /// Relative strength of ridge and softmax regression, shrinkage of discriminant analysis; None for nearest class mean
    /// and neighbours.
    pub fn lambda_rel(&self) -> Option<f64> {
        self.model.recipe().strength()
    }

    /// Neighbours that vote; None for other heads.
    pub fn n_neighbours(&self) -> Option<u32> {
        match &self.model {
            Model::Knn(knn) => Some(knn.k),
            _ => None,
        }
    }

    /// Why it is of this kind.
    pub fn reason(&self) -> ChoiceReason {
        self.reason
    }

    /// Balanced accuracy in 0..=1 behind the choice; None where heads were not compared.
    pub fn balanced_accuracy(&self) -> Option<f64> {
        self.balanced_accuracy
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic;
    use alloc::format;
    use alloc::string::ToString;
    use proptest::prelude::*;

    /// BLAKE3 of the bytes of heads of fixed sets: the same on every CPU, or a head is not a function of its set.
    #[test]
    fn bytes_of_fixed_sets_are_golden() {
        let hashes = |n_classes, shots, d| {
            let set = synthetic::clusters(n_classes, shots, d, 42);
            HeadChoice::all()
                .map(|choice| format!("{:.16}", Head::train(&set, choice).unwrap().digest()))
                .collect::<Vec<_>>()
        };
        // Fewer samples than components, more samples than components, one shot.
        assert_eq!(
            hashes(5, 20, 128),
            [
                "c2edb05ff60dacc6",
                "5073d5c1682725b7",
                "81c93a8641f2632c",
                "9e094b4e81e533ca",
                "7da2ec4c0f20391d",
                "3dcb4cae425a64b9",
                "a5752ee0b3c84a48",
                "4bb493b029a2e282",
                "aad9445f53d8a278"
            ]
        );
        assert_eq!(
            hashes(4, 20, 32),
            [
                "b70df585bdeaf3e5",
                "86f0387dc01eec26",
                "b7125a422675dbf9",
                "e6ddbf336fa151da",
                "6d608fbf5711f75b",
                "e800218692729bc2",
                "4fd95ad0f708f5c4",
                "9dc29d8da0cc73f0",
                "e1299eb2ed16ec9f"
            ]
        );
        assert_eq!(
            hashes(3, 1, 64),
            [
                "e78c862a5e734717",
                "0e5e3e05edc6c495",
                "b170005f518ca2a8",
                "5566323cc02b442b",
                "0234030c4d611630",
                "d2444fb0deae6f0e",
                "fa168a540f8895e4",
                "edb041c374de2fab",
                "0b80c678094d8c2a"
            ]
        );
    }

    #[test]
    fn heads_learn_their_set() {
        let set = synthetic::clusters(4, 10, 64, 3);
        // Nine neighbours can outvote a sample.
        for choice in HeadChoice::all().filter(|choice| *choice != HeadChoice::Knn) {
            let head = Head::train(&set, choice).unwrap();
            let right = |meta: &graft_wire::SampleMeta, x| head.classes()[head.classify(x).best] == meta.label;
            assert!(set.live().all(|(_, meta, embedding)| right(meta, embedding)), "{choice:?}");
        }
    }

    #[test]
    fn primal_and_dual_give_the_same_scores() {
        // 36 samples of 24 components take the primal way; padded with zeros to 64, the same samples take the dual way.
        let rows = synthetic::rows(3, 12, 24, 5);
        let wide: Vec<(u32, Vec<i8>)> =
            rows.iter().map(|(class, row)| (*class, row.iter().copied().chain([0; 40]).collect())).collect();
        let (primal, dual) = (synthetic::set_of(&rows), synthetic::set_of(&wide));
        let (a, b) = (Head::train(&primal, HeadChoice::Ridge).unwrap(), Head::train(&dual, HeadChoice::Ridge).unwrap());
        assert_eq!(a.lambda_rel(), b.lambda_rel());
        for ((_, row), (_, wide)) in rows.iter().zip(&wide) {
            let (a, b) = (a.classify(row).scores, b.classify(wide).scores);
            assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-6), "{a:?} {b:?}");
            assert!((a.iter().sum::<f64>() - 1.0).abs() < 1e-5);
        }
    }

    #[test]
    fn a_given_strength_gives_the_head_that_chose_it() {
        let set = synthetic::clusters(3, 8, 40, 5);
        for choice in HeadChoice::all() {
            let head = Head::train(&set, choice).unwrap();
            let strength = head.lambda_rel().or(head.n_neighbours().map(f64::from)).unwrap_or(1.0);
            let given = Head::train_at(&set, head.kind(), strength).unwrap();
            assert_eq!(given.model, head.model, "{choice:?}");
        }
        for (kind, strength) in [(HeadKind::Ridge, 0.0), (HeadKind::Lda, 1.0), (HeadKind::Knn, 10.0)] {
            let error = Head::train_at(&set, kind, strength).unwrap_err().to_string();
            assert_eq!(error, format!("strength {strength} is not one that this head can have"));
        }
    }

    #[test]
    fn a_single_shot_beside_many_is_still_predicted() {
        let rows = synthetic::rows_with_noise(3, 20, 64, 11, 10);
        let head = Head::train(&synthetic::set_of(&rows[..41]), HeadChoice::Ridge).unwrap();
        let right = rows[41..].iter().filter(|(_, row)| head.classify(row).best == 2).count();
        assert!(right >= 15, "{right} of 19");
    }

    #[test]
    fn auto_says_why() {
        let one_shot = Head::train(&synthetic::clusters(4, 1, 64, 3), HeadChoice::Auto).unwrap();
        assert_eq!((one_shot.kind(), one_shot.reason()), (HeadKind::Ridge, ChoiceReason::OneShot));
        assert_eq!(one_shot.balanced_accuracy(), None);
        let rows = synthetic::rows(3, 10, 64, 3);
        let one_beside_many = Head::train(&synthetic::set_of(&rows[..21]), HeadChoice::Auto).unwrap();
        assert_eq!((one_beside_many.kind(), one_beside_many.reason()), (HeadKind::Ncm, ChoiceReason::OneShot));
        let set = synthetic::clusters(4, 6, 64, 3);
        let by_session = Head::train(&set, HeadChoice::Auto).unwrap();
        assert_eq!(by_session.reason(), ChoiceReason::BestBySession);
        let accuracy = crate::evaluate(&set, HeadChoice::Auto).unwrap().summary.balanced_accuracy;
        assert_eq!(by_session.balanced_accuracy(), Some(accuracy));
    }

    #[test]
    fn auto_breaks_a_tie_by_how_even_the_classes_are() {
        let rows = synthetic::rows_with_noise(2, 12, 64, 1, 1);
        let kind = |n_second: usize| {
            let head = Head::train(&synthetic::set_of(&rows[..12 + n_second]), HeadChoice::Auto).unwrap();
            assert_eq!(head.balanced_accuracy(), Some(1.0));
            head.kind()
        };
        assert_eq!((kind(12), kind(6), kind(5)), (HeadKind::Ridge, HeadKind::Ridge, HeadKind::Ncm));
    }

    #[test]
    fn strengths_without_evidence_are_the_defaults() {
        // Nobody votes; everybody is right everywhere.
        for set in [synthetic::clusters(4, 1, 64, 3), synthetic::set_of(&synthetic::rows_with_noise(3, 6, 64, 1, 1))] {
            let ridge = Head::train(&set, HeadChoice::Ridge).unwrap();
            assert_eq!(ridge.lambda_rel(), Some(crate::ridge::LAMBDA_GRID[3]));
            let lda = Head::train(&set, HeadChoice::Lda).unwrap();
            assert_eq!(lda.lambda_rel(), Some(0.75));
        }
    }

    #[test]
    fn equal_classes_tie_to_the_smaller_label() {
        let rows: Vec<(u32, Vec<i8>)> =
            [(0, [9, 1]), (1, [9, 1]), (2, [1, 9])].map(|(c, row)| (c, row.to_vec())).into();
        for choice in [HeadChoice::Ncm, HeadChoice::Ridge] {
            let classified = Head::train(&synthetic::set_of(&rows), choice).unwrap().classify(&[9, 1]);
            assert_eq!(classified.scores[0], classified.scores[1], "{choice:?}");
            assert_eq!(classified.best, 0);
        }
    }

    #[test]
    fn what_cannot_be_told_apart_is_refused() {
        let one = synthetic::clusters(1, 3, 8, 1);
        let error = Head::train(&one, HeadChoice::Ncm).unwrap_err();
        assert_eq!(error.to_string(), "set has 1 classes with 3 samples; at least 2 classes are needed");
        let same: Vec<(u32, Vec<i8>)> = (0..6).map(|i| (i % 2, [5, 6, 7].to_vec())).collect();
        for choice in HeadChoice::all() {
            let error = Head::train(&synthetic::set_of(&same), choice).unwrap_err();
            let expected = "embeddings of all 2 classes (6 samples) have the same mean; they must differ";
            assert_eq!(error.to_string(), expected, "{choice:?}");
        }
    }

    #[test]
    fn a_wrong_length_does_not_panic() {
        let head = Head::train(&synthetic::clusters(2, 3, 8, 1), HeadChoice::Ncm).unwrap();
        assert_eq!(head.classify(&[1; 9]), head.classify(&[1; 8]));
        assert_eq!(head.classify(&[]), head.classify(&[0; 8]));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        /// The same samples in any order, the same bits.
        #[test]
        fn order_of_arrival_does_not_matter(order in Just((0..18u32).collect::<Vec<_>>()).prop_shuffle(), d in 4usize..40) {
            let rows = synthetic::rows(3, 6, d, 17);
            let mut shuffled = SampleSet::new(synthetic::SPACE, d);
            for number in order {
                let (class, row) = &rows[number as usize];
                shuffled.insert(synthetic::meta(*class, number), row).unwrap();
            }
            let sorted = synthetic::set_of(&rows);
            for choice in HeadChoice::all() {
                let bytes = |set: &SampleSet| Head::train(set, choice).unwrap().encode();
                prop_assert_eq!(bytes(&sorted), bytes(&shuffled));
            }
        }

        /// Two boards merged know what one board that saw everything knows.
        #[test]
        fn merge_equals_training_on_the_union(split in proptest::collection::vec(0..3u8, 18)) {
            let rows = synthetic::rows(3, 6, 20, 17);
            let mut boards = [SampleSet::new(synthetic::SPACE, 20), SampleSet::new(synthetic::SPACE, 20)];
            for (number, ((class, row), to)) in rows.iter().zip(split).enumerate() {
                for (board, set) in boards.iter_mut().enumerate() {
                    if to == 2 || usize::from(to) == board {
                        set.insert(synthetic::meta(*class, number as u32), row).unwrap();
                    }
                }
            }
            let [mut merged, other] = boards;
            merged.merge(&other).unwrap();
            let all = synthetic::set_of(&rows);
            let bytes = |set: &SampleSet| Head::train(set, HeadChoice::Ridge).unwrap().encode();
            prop_assert_eq!(bytes(&merged), bytes(&all));
        }
    }
}
