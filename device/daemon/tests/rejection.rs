//! Promised rates of false rejects, samples that deserve a look, and heads that are not activated for the worse.

mod host;

use graft_wire::message::{
    DoubtfulSample, DuplicatePair, HeadChoice, HeadComparison, HeadInfo, Input, RejectionInfo, ReviewCounts,
};
use graft_wire::{Digest, LabelKind, Part, Request, Response, SessionId, WireError};
use host::{Board, collected, first, label, tensor};

type Trained = (HeadInfo, Option<RejectionInfo>, Option<HeadComparison>);

fn train(board: &mut Board, force: bool, unknown: Option<f64>) -> Result<Trained, WireError> {
    board.call(Request::TrainChecked { head: HeadChoice::Ncm, force, unknown }, |response| match response {
        Response::Trained { head, rejection, comparison } => (head, rejection, comparison),
        other => panic!("{other:?}"),
    })
}

fn review(board: &mut Board) -> (ReviewCounts, Vec<DoubtfulSample>, Vec<DuplicatePair>) {
    board
        .call(Request::Review, |response| match response {
            Response::Review { counts, doubtful, duplicates } => (
                counts,
                doubtful.iter().collect::<Result<_, _>>().unwrap(),
                duplicates.iter().collect::<Result<_, _>>().unwrap(),
            ),
            other => panic!("{other:?}"),
        })
        .unwrap()
}

#[test]
fn a_promise_is_kept_or_refused() {
    let mut board = Board::with(&first());
    board.collect_classes(&[("a", 0), ("b", 1), ("c", 2)], 6);
    let refused = train(&mut board, false, Some(0.05));
    assert_eq!(refused, Err(WireError::TooFewToPromise { n: 18, n_needed: 19 }));
    assert_eq!(train(&mut board, false, Some(0.0)), Err(WireError::BadRate));
    assert_eq!(board.predict(&tensor(0, 9)), Err(WireError::NoHead), "a refused head is not activated");

    let (head, rejection, comparison) = train(&mut board, false, Some(0.1)).unwrap();
    let rejection = rejection.unwrap();
    assert_eq!((rejection.n, rejection.rate, rejection.n_negatives, comparison), (18, Some(0.1), 0, None));
    let (known, _) = board.predict(&tensor(0, 2)).unwrap();
    assert_eq!((known.label.unwrap().as_str(), known.unknown, known.head), ("a", Some(false), head.digest));
    assert!(known.p_value.unwrap() > 0.1 && known.probability.unwrap() > 0.5);
    // Along an axis that no class has.
    let (unknown, scores) = board.predict(&tensor(6, 2)).unwrap();
    assert_eq!((unknown.label, unknown.unknown, scores.len()), (None, Some(true), 3));
    assert!(unknown.p_value.unwrap() <= 0.1);
    board.restart();
    assert_eq!(board.predict(&tensor(6, 2)).unwrap().0.unknown, Some(true), "the promise outlives a restart");

    // Without a promise nothing is rejected, and the p-value is still told.
    train(&mut board, false, None).unwrap();
    let (unknown, _) = board.predict(&tensor(6, 2)).unwrap();
    assert!(unknown.label.is_some() && unknown.unknown.is_none() && unknown.p_value.is_some());
}

#[test]
fn negatives_are_counted() {
    let mut board = Board::with(&first());
    board.collect_classes(&[("a", 0), ("b", 1), ("c", 2)], 6);
    let space = board.space();
    for i in 0..4 {
        let tensor = tensor(6, i);
        let body = Request::Collect {
            space,
            label: label("none"),
            session: SessionId([90 + i; 8]),
            digest: Digest::of(&tensor),
            part: Part::Whole,
            kind: LabelKind::Negative,
            input: Input::Tensor(&tensor),
        };
        board.call(body, collected).unwrap();
    }
    let (head, rejection, _) = train(&mut board, false, Some(0.1)).unwrap();
    let rejection = rejection.unwrap();
    assert_eq!((head.n_classes, rejection.n_negatives, rejection.n_negatives_rejected), (3, 4, 4));
    assert_eq!(rejection.negatives_rate, Some(1.0 / 19.0));
}

#[test]
fn a_new_class_is_welcome() {
    let mut board = Board::with(&first());
    board.collect_classes(&[("a", 0), ("b", 1)], 10);
    train(&mut board, false, None).unwrap();
    board.collect_classes(&[("c", 2)], 5);
    let (_, _, comparison) = train(&mut board, false, None).unwrap();
    assert_eq!(comparison, Some(HeadComparison { n: 20, n_correct_old: 20, n_correct_new: 20 }));
}

#[test]
fn a_worse_head_is_activated_by_force_only() {
    // Classes differ along axes 0 and 1 a little, and along 3 and 4 much, but for two of ten samples: there class means
    // mislead, and regression does not.
    let mut board = Board::with(&first());
    for i in 0..10u8 {
        for (class, axis) in [("a", 0usize), ("b", 1)] {
            let common = if (i < 8) == (axis == 0) { 3 } else { 4 };
            let mut tensor = vec![1 + i % 3; 8];
            (tensor[axis], tensor[common]) = (40, 100 + i);
            board.collect(class, 20 * axis as u8 + i, &tensor).unwrap();
        }
    }
    let with = |board: &mut Board, head, force| {
        board.call(Request::TrainChecked { head, force, unknown: None }, |response| match response {
            Response::Trained { head, .. } => head.digest,
            other => panic!("{other:?}"),
        })
    };
    let good = with(&mut board, HeadChoice::Ridge, false).unwrap();
    let refused = with(&mut board, HeadChoice::Ncm, false);
    assert_eq!(refused, Err(WireError::HeadWorse { n: 20, n_correct_old: 20, n_correct_new: 16 }));
    assert_eq!(board.info().head.unwrap().digest, good, "the head of before stays");
    let forced = with(&mut board, HeadChoice::Ncm, true).unwrap();
    assert_eq!(board.info().head.unwrap().digest, forced);
}

#[test]
fn a_wrong_label_and_a_near_duplicate_are_found() {
    let mut board = Board::with(&first());
    board.collect_classes(&[("a", 0), ("b", 1), ("c", 2)], 5);
    let (wrong, _) = board.collect("b", 77, &tensor(0, 7)).unwrap();
    let (counts, doubtful, _) = review(&mut board);
    assert_eq!((counts.n_assessed, counts.n_doubtful, counts.n_suspected), (16, 1, 1));
    assert_eq!((doubtful[0].id, doubtful[0].looks_like.as_str()), (wrong, "a"));
    let (fixed, _) = board.relabel(wrong, "a").unwrap();
    let mut same = tensor(0, 7);
    same[0] -= 1;
    let (twin, _) = board.collect("c", 78, &same).unwrap();
    let (counts, _, duplicates) = review(&mut board);
    assert_eq!(counts.n_compared, 17);
    assert!(duplicates[0].labels_differ);
    assert!(duplicates.iter().any(|pair| (pair.a, pair.b) == (fixed.min(twin), fixed.max(twin))), "{duplicates:?}");
}

#[test]
fn embeddings_without_a_signal_are_refused_before_they_are_stored() {
    let mut board = Board::with(&first());
    let space = board.space();
    for bytes in [[0u8; 8], [127, 129, 127, 127, 129, 127, 127, 127]] {
        let body = Request::Collect {
            space,
            label: label("a"),
            session: SessionId([1; 8]),
            digest: Digest::of(&bytes),
            part: Part::Whole,
            kind: LabelKind::Class,
            input: Input::Embedding(&bytes),
        };
        assert_eq!(board.call(body, collected), Err(WireError::NoSignal));
    }
    assert_eq!(board.info().n_samples, 0);
}
