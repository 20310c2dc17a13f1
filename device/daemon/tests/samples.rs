//! Collecting, removing and relabelling, and what repeats of a request do.

mod host;

use graft_wire::message::{HeadChoice, Input};
use graft_wire::{Digest, LabelKind, Part, Request, ResponseEnvelope, SampleId, SessionId, SpaceId, WireError};
use host::{Board, D, collected, first, label, tensor};

#[test]
fn an_input_that_is_live_under_the_same_label_is_skipped() {
    let mut board = Board::with(&first());
    let (id, added) = board.collect("a", 1, &tensor(0, 0)).unwrap();
    assert!(added);
    assert_eq!(board.collect("a", 2, &tensor(0, 0)), Ok((id, false)));
    let (other, added) = board.collect("b", 2, &tensor(0, 0)).unwrap();
    assert!(added && other != id);
    board.restart();
    let rows = board.samples();
    assert_eq!(rows.len(), 2);
    assert!(rows[0].id < rows[1].id);
    let row = rows.iter().find(|row| row.id == id).unwrap();
    assert_eq!((row.meta.session, row.stored_s), (SessionId([1; 8]), Some(1_800_000_000)));
    assert_eq!(row.meta.origin, board.info().device);
}

#[test]
fn a_removed_sample_stays_removed_and_its_input_comes_back_in_a_new_session() {
    let mut board = Board::with(&first());
    let (id, _) = board.collect("a", 1, &tensor(0, 0)).unwrap();
    let digest = board.info().set_digest;
    assert_eq!(board.remove(&[id, SampleId([5; 16])]), (1, 2));
    assert_eq!(board.remove(&[id]), (0, 0));
    assert_eq!(board.collect("a", 1, &tensor(0, 0)), Err(WireError::Tombstoned));
    let (new, added) = board.collect("a", 2, &tensor(0, 0)).unwrap();
    assert!(added && new != id);
    let info = board.info();
    assert_eq!((info.n_samples, info.n_tombstones), (1, 2));
    assert_ne!(info.set_digest, digest);
}

#[test]
fn relabelling_moves_a_sample_and_moves_it_back() {
    let mut board = Board::with(&first());
    let (a, _) = board.collect("a", 1, &tensor(0, 0)).unwrap();
    assert_eq!(board.relabel(a, "a"), Ok((a, false)));
    let (b, added) = board.relabel(a, "b").unwrap();
    assert!(added && a != b);
    assert_eq!(board.relabel(a, "c"), Err(WireError::Tombstoned));
    assert_eq!(board.relabel(SampleId([9; 16]), "c"), Err(WireError::UnknownSample));
    // The tombstone of `a` is final, so the sample that is an "a" again has another id.
    let (back, added) = board.relabel(b, "a").unwrap();
    assert!(added && back != a);
    let (records, tombstones) = board.pull();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].0.label, label("a"));
    let mut expected = vec![a, b];
    expected.sort();
    assert_eq!(tombstones, expected);
    board.restart();
    assert_eq!(board.pull().0, records);
}

#[test]
fn relabelling_onto_a_live_twin_leaves_one_sample() {
    let mut board = Board::with(&first());
    let (a, _) = board.collect("a", 1, &tensor(0, 0)).unwrap();
    let (b, _) = board.collect("b", 2, &tensor(0, 0)).unwrap();
    assert_eq!(board.relabel(a, "b"), Ok((b, false)));
    assert_eq!(board.samples().iter().map(|row| row.id).collect::<Vec<_>>(), [b]);
}

#[test]
fn inputs_that_cannot_be_samples_are_refused_and_leave_nothing() {
    let mut board = Board::with(&first());
    assert_eq!(board.collect("a", 1, &[0; D]), Err(WireError::NoSignal));
    assert_eq!(board.collect("a", 1, &[1; 3]), Err(WireError::InputLength { found: 3, expected: D as u32 }));
    let space = board.space();
    let embedding = |space, bytes| Request::Collect {
        space,
        label: label("a"),
        session: SessionId([1; 8]),
        digest: Digest([1; 32]),
        part: Part::Whole,
        kind: LabelKind::Class,
        input: Input::Embedding(bytes),
    };
    let length = |found| Err(WireError::EmbeddingLength { found, expected: D as u32 });
    assert_eq!(board.call(embedding(space, &[1; 7]), collected), length(7));
    assert_eq!(board.call(embedding(space, &[0x80; D]), collected), length(D as u32));
    assert_eq!(board.call(embedding(space, &[0; D]), collected), Err(WireError::NoSignal));
    let other = SpaceId([9; 32]);
    let mismatch = WireError::SpaceMismatch { active: space, requested: other };
    assert_eq!(board.call(embedding(other, &[1; D]), collected), Err(mismatch));
    assert_eq!(board.info().n_samples, 0);
    assert!(board.call(embedding(space, &[1; D]), collected).unwrap().1);
}

#[test]
fn a_tensor_and_its_embedding_make_the_same_sample() {
    let (mut a, mut b) = (Board::with(&first()), Board::with(&first()));
    a.collect("a", 1, &[3, 4, 0, 0, 0, 0, 0, 0]).unwrap();
    let (records, _) = a.pull();
    assert_eq!(records[0].1, [60, 80, 0, 0, 0, 0, 0, 0]);
    let space = b.space();
    assert_eq!(b.push(space, &records, &[]), Ok((1, 0, 0)));
    assert_eq!(b.pull().0, records);
}

#[test]
fn a_repeated_request_is_answered_from_the_log_also_after_a_restart() {
    let mut board = Board::with(&first());
    let space = board.space();
    let body = |class| Request::Collect {
        space,
        label: label(class),
        session: SessionId([1; 8]),
        digest: Digest([1; 32]),
        part: Part::Whole,
        kind: LabelKind::Class,
        input: Input::Tensor(&[1, 2, 3, 4, 5, 6, 7, 8]),
    };
    let request = board.encode(body("a"));
    let answer = board.send(&request);
    assert_eq!(board.send(&request), answer);
    board.restart();
    assert_eq!(board.send(&request), answer);
    assert_eq!(board.info().n_samples, 1);

    // `info` took an id, too: the next call repeats the id of the collection.
    board.request_id -= 2;
    assert_eq!(board.call(body("b"), collected), Err(WireError::RequestReused));
    board.request_id = 10_000;
    board.collect("c", 1, &tensor(0, 0)).unwrap();
    board.request_id = 3;
    assert_eq!(board.call(body("d"), collected), Err(WireError::RequestTooOld));
    assert_eq!(board.info().n_samples, 2);
}

#[test]
fn a_repeated_training_is_not_run_again() {
    let mut board = Board::with(&first());
    board.collect_classes(&[("a", 0), ("b", 1)], 2);
    let request = board.encode(Request::Train { head: HeadChoice::Ridge, force: false });
    let answer = board.send(&request);
    board.collect("c", 1, &tensor(3, 0)).unwrap();
    assert_eq!(board.send(&request), answer);
    assert!(board.info().head.unwrap().stale);
}

#[test]
fn bytes_that_are_no_request_are_answered() {
    let mut board = Board::with(&first());
    for bytes in [&b""[..], b"login:", &[0xff; 300], &[0; 9]] {
        let response = board.send(bytes);
        let envelope = ResponseEnvelope::decode(&response).unwrap();
        if bytes.len() != 9 {
            assert_eq!((envelope.request_id, envelope.body), (0, Err(WireError::Malformed)));
        }
    }
    let mut request = board.encode(Request::DeviceInfo);
    for i in 0..request.len() {
        for bit in 0..8 {
            request[i] ^= 1 << bit;
            let response = board.send(&request);
            ResponseEnvelope::decode(&response).unwrap();
            request[i] ^= 1 << bit;
        }
    }
}
