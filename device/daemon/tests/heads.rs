//! Training, predicting, evaluating, and syncing what two boards know.

mod host;

use graft_wire::message::{ChoiceReason, HeadChoice, HeadKind, Protocol};
use graft_wire::{Request, Response, WireError};
use host::{Board, first, head_info, second, space_of, tensor};

#[test]
fn a_trained_head_predicts_and_says_when_its_set_has_changed() {
    let mut board = Board::with(&first());
    assert_eq!(board.train(HeadChoice::Ncm, false), Err(WireError::TooFewClasses { n_classes: 0, n_samples: 0 }));
    board.collect_classes(&[("a", 0), ("b", 1), ("c", 2)], 3);
    assert_eq!(board.predict(&tensor(0, 9)), Err(WireError::NoHead));
    let head = board.train(HeadChoice::Ridge, false).unwrap();
    assert_eq!((head.kind, head.n_samples, head.n_classes, head.stale), (HeadKind::Ridge, 9, 3, false));
    assert_eq!(head.reason, ChoiceReason::Named);
    for (class, axis) in [("a", 0), ("b", 1), ("c", 2)] {
        let (prediction, scores) = board.predict(&tensor(axis, 9)).unwrap();
        assert_eq!(prediction.label.unwrap().as_str(), class);
        assert_eq!((prediction.head, scores.len(), scores[0].as_str()), (head.digest, 3, class));
    }
    let id = board.samples()[0].id;
    board.remove(&[id]);
    assert!(board.info().head.unwrap().stale);
    assert!(board.predict(&tensor(0, 9)).is_ok());
    board.restart();
    assert!(board.info().head.unwrap().stale);
    let head = board.train(HeadChoice::Ridge, false).unwrap();
    assert_eq!((head.n_samples, head.stale), (8, false));
    board.restart();
    let info = board.info();
    assert_eq!((info.head.as_ref().unwrap().digest, info.head.unwrap().stale), (head.digest, false));
}

#[test]
fn forgetting_is_equal_to_never_having_seen() {
    let (mut never, mut once) = (Board::with(&first()), Board::with(&first()));
    once.collect_classes(&[("a", 0), ("b", 1)], 3);
    let (records, _) = once.pull();
    let space = never.space();
    never.push(space, &records, &[]).unwrap();
    let (id, _) = once.collect("c", 77, &tensor(5, 0)).unwrap();
    once.train(HeadChoice::Ridge, false).unwrap();
    once.remove(&[id]);
    let (a, b) = (never.train(HeadChoice::Ridge, false).unwrap(), once.train(HeadChoice::Ridge, false).unwrap());
    assert_eq!(a.digest, b.digest);
}

#[test]
fn evaluation_leaves_sessions_out_and_says_when_it_cannot() {
    let mut board = Board::with(&first());
    board.collect_classes(&[("a", 0), ("b", 1)], 1);
    let refused = board.call(Request::Evaluate { head: HeadChoice::Ncm }, |_| ());
    assert_eq!(refused, Err(WireError::NothingToLeaveOut { n_samples: 2, n_sessions: 2 }));
    for i in 1..4 {
        board.collect("a", i, &tensor(0, i)).unwrap();
        board.collect("b", 20 + i, &tensor(1, i)).unwrap();
    }
    let (summary, classes, n_cells) = board
        .call(Request::Evaluate { head: HeadChoice::Ncm }, |response| match response {
            Response::Evaluation { summary, classes, confusion } => {
                let classes: Vec<_> = classes.iter().collect::<Result<_, _>>().unwrap();
                (summary, classes, confusion.iter().count())
            }
            other => panic!("{other:?}"),
        })
        .unwrap();
    assert_eq!((summary.protocol, summary.n, summary.n_correct), (Protocol::LeaveOneSessionOut, 8, 8));
    assert_eq!(classes.iter().map(|class| (class.label.as_str(), class.n)).collect::<Vec<_>>(), [("a", 4), ("b", 4)]);
    assert_eq!(n_cells, 2);
}

#[test]
fn two_boards_merged_know_all_classes_and_agree_to_the_bit() {
    let (mut left, mut right) = (Board::with(&first()), Board::with(&first()));
    left.collect_classes(&[("a", 0), ("b", 1)], 3);
    right.collect_classes(&[("c", 2), ("d", 3)], 3);
    let gone = right.samples()[0].id;
    right.remove(&[gone]);
    let space = left.space();
    let (from_left, from_right) = (left.pull(), right.pull());
    assert_eq!(left.push(space, &from_right.0, &from_right.1), Ok((5, 0, 0)));
    assert_eq!(right.push(space, &from_left.0, &from_left.1), Ok((6, 0, 0)));
    assert_eq!(left.push(space, &from_right.0, &from_right.1), Ok((0, 0, 0)));
    assert_eq!(left.info().set_digest, right.info().set_digest);
    let heads = (left.train(HeadChoice::Auto, false).unwrap(), right.train(HeadChoice::Auto, false).unwrap());
    assert_eq!(heads.0.digest, heads.1.digest);
    assert_eq!((heads.0.n_classes, heads.0.n_samples), (4, 11));
    for (class, axis) in [("a", 0), ("b", 1), ("c", 2), ("d", 3)] {
        assert_eq!(left.predict(&tensor(axis, 8)).unwrap().0.label.unwrap().as_str(), class);
    }
    // What one board forgets, the other forgets with the next sync.
    let id = left.samples()[0].id;
    left.remove(&[id]);
    let (records, tombstones) = left.pull();
    assert_eq!(right.push(space, &records, &tombstones), Ok((0, 1, 0)));
    assert_eq!(left.info().set_digest, right.info().set_digest);
    // Nor does it come back from a board that still has it.
    assert_eq!(left.push(space, &from_left.0, &[]), Ok((0, 0, 0)));
}

#[test]
fn contradictions_are_set_aside_alike_whatever_came_first() {
    let (mut left, mut right) = (Board::with(&first()), Board::with(&first()));
    left.collect("a", 1, &tensor(0, 0)).unwrap();
    let mut ours = left.pull().0;
    let theirs = ours.clone();
    ours[0].1[0] ^= 1;
    let space = left.space();
    assert_eq!(left.push(space, &ours, &[]), Ok((0, 0, 1)));
    assert_eq!(left.push(space, &ours, &[]), Ok((0, 0, 0)));
    right.push(space, &ours, &[]).unwrap();
    assert_eq!(right.push(space, &theirs, &[]), Ok((0, 0, 1)));
    assert_eq!(left.pull().0, right.pull().0);
    assert_eq!((left.info().n_set_aside, right.info().n_set_aside), (1, 1));
    left.restart();
    assert_eq!(left.pull().0, right.pull().0);
}

#[test]
fn a_pushed_head_predicts_and_is_not_trained_away() {
    let (mut teacher, mut pupil) = (Board::with(&first()), Board::with(&first()));
    teacher.collect_classes(&[("a", 0), ("b", 1)], 3);
    teacher.train(HeadChoice::Ncm, false).unwrap();
    let head = teacher.pull_head();
    let info = pupil.call(Request::PushHead { head: &head }, head_info).unwrap();
    assert_eq!((info.reason, info.stale, info.n_samples), (ChoiceReason::Pushed, false, 6));
    assert_eq!(pupil.predict(&tensor(1, 9)).unwrap().0.label.unwrap().as_str(), "b");
    pupil.collect_classes(&[("c", 2), ("d", 3)], 1);
    assert!(pupil.info().head.unwrap().stale);
    assert_eq!(pupil.train(HeadChoice::Ncm, false), Err(WireError::HeadKnowsMore { head: 6, held: 2 }));
    pupil.restart();
    assert_eq!(pupil.train(HeadChoice::Ncm, false), Err(WireError::HeadKnowsMore { head: 6, held: 2 }));
    let info = pupil.train(HeadChoice::Ncm, true).unwrap();
    assert_eq!((info.reason, info.n_samples), (ChoiceReason::Named, 2));

    assert_eq!(pupil.call(Request::PushHead { head: &head[..20] }, |_| ()), Err(WireError::BadHead));
    pupil.flash(&second(), true).unwrap();
    let refused = pupil.call(Request::PushHead { head: &head }, |_| ());
    let (active, requested) = (space_of(&second()), space_of(&first()));
    assert_eq!(refused, Err(WireError::SpaceMismatch { active, requested }));
}

#[test]
fn pages_are_bounded_and_complete() {
    let mut board = Board::with(&first());
    let space = board.space();
    let template = {
        board.collect("a", 1, &tensor(0, 0)).unwrap();
        board.pull().0.remove(0)
    };
    let records: Vec<_> = (0..6000u32)
        .map(|n| {
            let mut record = template.clone();
            record.0.digest = graft_wire::Digest::of(&n.to_le_bytes());
            record
        })
        .collect();
    for part in records.chunks(3000) {
        board.push(space, part, &[]).unwrap();
    }
    let request = board.encode(Request::PullRecords { space, after: None });
    let page = board.send(&request);
    assert!((200 << 10..300 << 10).contains(&page.len()), "a page of {} bytes", page.len());
    assert_eq!(board.pull().0.len(), 6001);
    assert_eq!(board.samples().len(), 6001);
    let ids: Vec<_> = board.samples().iter().map(|row| row.id).collect();
    let listed = board.call(Request::ListIds { space, after: Some(ids[5000]) }, |response| match response {
        Response::Ids { ids } => ids.iter().collect::<Result<Vec<_>, _>>().unwrap(),
        other => panic!("{other:?}"),
    });
    assert_eq!(listed.unwrap(), ids[5001..]);
}
