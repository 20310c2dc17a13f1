//! Each call against a board that answers in pages, in part, or wrongly.

mod fake;

use std::sync::{Arc, Mutex};

use fake::{Then, connect, info, serve};
use graft_bundle::input::ArraySpec;
use graft_bundle::{Manifest, graph::Blob, input::InputSpec};
use graft_client::{Board, CallError, InputRef, Merged, NewSample, OwnedRecord};
use graft_wire::message::{
    ChoiceReason, ClassCounts, ConfusionCell, EvaluationSummary, HeadChoice, HeadInfo, HeadKind, Input, Protocol,
    Record, SampleRow, push_item,
};
use graft_wire::{
    Batch, DeviceId, Digest, Label, LabelKind, Part, Request, Response, SampleId, SampleMeta, SessionId, SpaceId,
    WireError,
};
use serde::Serialize;

const SPACE: SpaceId = SpaceId([5; 32]);

fn record(n: u8) -> OwnedRecord {
    let meta = SampleMeta {
        label: Label::new("nut").unwrap(),
        session: SessionId([n; 8]),
        origin: DeviceId([2; 16]),
        digest: Digest([3; 32]),
        part: Part::Whole,
        kind: LabelKind::Class,
    };
    OwnedRecord { meta, embedding: vec![-(n as i8), 127] }
}

/// Records as a board holds them, ascending by id.
fn records(n: u8) -> Vec<OwnedRecord> {
    let mut records: Vec<_> = (0..n).map(record).collect();
    records.sort_by_key(OwnedRecord::id);
    records
}

fn batch<T: Serialize>(items: impl IntoIterator<Item = T>) -> Vec<u8> {
    let mut bytes = Vec::new();
    items.into_iter().for_each(|item| push_item(&mut bytes, &item).unwrap());
    bytes
}

fn encode_record(record: &OwnedRecord) -> Vec<u8> {
    let embedding: Vec<u8> = record.embedding.iter().map(|v| *v as u8).collect();
    batch([Record { meta: record.meta.clone(), embedding: &embedding }])
}

/// A board that holds `records` and answers three at a time.
fn board_with(records: Vec<OwnedRecord>) -> Board {
    connect(serve(move |request, line| {
        let page = |after: Option<SampleId>| records.iter().filter(move |r| after.is_none_or(|a| r.id() > a)).take(3);
        let mut bytes = Vec::new();
        let response = match request.body {
            Request::PullRecords { space: SPACE, after } => {
                page(after).for_each(|r| bytes.extend(encode_record(r)));
                Response::Records { records: Batch::new(&bytes) }
            }
            Request::PullById { space: SPACE, ids } => {
                let asked: Vec<SampleId> = ids.iter().map(Result::unwrap).collect();
                let held = records.iter().filter(|r| asked.contains(&r.id())).take(3);
                held.for_each(|r| bytes.extend(encode_record(r)));
                Response::Records { records: Batch::new(&bytes) }
            }
            Request::ListIds { space: SPACE, after } => {
                bytes = batch(page(after).map(OwnedRecord::id));
                Response::Ids { ids: Batch::new(&bytes) }
            }
            Request::PullTombstones { after } => {
                bytes = batch(page(after).map(OwnedRecord::id));
                Response::Tombstones { ids: Batch::new(&bytes) }
            }
            Request::ListSamples { after } => {
                let row = |r: &OwnedRecord| SampleRow { id: r.id(), meta: r.meta.clone(), stored_s: None };
                bytes = batch(page(after).map(row));
                Response::Samples { samples: Batch::new(&bytes) }
            }
            other => panic!("{other:?}"),
        };
        line.answer(request.request_id, Ok(response));
        Then::GoOn
    }))
    .unwrap()
}

#[test]
fn pages_are_joined() {
    let held = records(8);
    let ids: Vec<SampleId> = held.iter().map(OwnedRecord::id).collect();
    let mut board = board_with(held.clone());
    assert_eq!(board.pull_records(SPACE).unwrap(), held);
    assert_eq!(board.list_ids(SPACE).unwrap(), ids);
    assert_eq!(board.pull_tombstones().unwrap(), ids);
    let rows = board.samples().unwrap();
    assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), ids);
    assert_eq!(board_with(Vec::new()).pull_records(SPACE).unwrap(), []);
}

#[test]
fn records_by_id_leave_out_what_is_not_live() {
    let held = records(9);
    let mut wanted: Vec<SampleId> = held.iter().skip(1).map(OwnedRecord::id).collect();
    wanted.extend((0..100).map(|n| SampleId([n; 16])));
    wanted.extend(wanted.clone());
    let mut board = board_with(held.clone());
    assert_eq!(board.pull_by_id(SPACE, &wanted).unwrap(), held[1..]);
    assert_eq!(board.pull_by_id(SPACE, &[]).unwrap(), []);
}

#[test]
fn records_that_were_not_asked_for_are_refused() {
    let mut board = connect(serve(|request, line| {
        let bytes = encode_record(&record(1));
        line.answer(request.request_id, Ok(Response::Records { records: Batch::new(&bytes) }));
        Then::GoOn
    }))
    .unwrap();
    let error = board.pull_by_id(SPACE, &[SampleId([1; 16])]).unwrap_err();
    assert_eq!(error.to_string(), "board's answer makes no sense: it sends records that were not asked for");
}

#[test]
fn pages_that_do_not_advance_are_refused() {
    let mut board = connect(serve(|request, line| {
        let ids = batch([SampleId([1; 16])]);
        line.answer(request.request_id, Ok(Response::Ids { ids: Batch::new(&ids) }));
        Then::GoOn
    }))
    .unwrap();
    let error = board.list_ids(SPACE).unwrap_err();
    assert_eq!(error.to_string(), "board's answer makes no sense: ids do not ascend");
}

#[test]
fn a_set_is_pushed_in_pages_tombstones_first() {
    let seen = Arc::new(Mutex::new((Vec::new(), Vec::new(), 0)));
    let on_board = Arc::clone(&seen);
    let mut board = connect(serve(move |request, line| {
        let Request::PushRecords { space: SPACE, records, tombstones } = request.body else { panic!("pushes only") };
        let (held, gone, n_pages) = &mut *on_board.lock().unwrap();
        assert!(tombstones.is_empty() || held.is_empty(), "a tombstone came after a record");
        let n_held = held.len();
        held.extend(records.iter().map(|r| OwnedRecord::from(r.unwrap())));
        gone.extend(tombstones.iter().map(Result::unwrap));
        *n_pages += 1;
        let n_added = (held.len() - n_held) as u32;
        line.answer(request.request_id, Ok(Response::Merged { n_added, n_removed: 1, n_set_aside: 0 }));
        Then::GoOn
    }))
    .unwrap();
    let (sent, gone) = (records(40), (0..70).map(|n| SampleId([n; 16])).collect::<Vec<_>>());
    let merged = board.push_records(SPACE, &sent, &gone).unwrap();
    // Pages of 1,000 bytes: 62 ids of 16 bytes, 14 records of 66 to 71 bytes.
    assert_eq!(merged, Merged { n_added: 40, n_removed: 5, n_set_aside: 0 });
    assert_eq!(*seen.lock().unwrap(), (sent, gone, 5));
    assert_eq!(board.push_records(SPACE, &[], &[]).unwrap(), Merged::default());
}

/// A board that keeps an upload, starting with `bytes`; the answer to every `n_lost`-th chunk is lost.
fn uploading(bytes: Vec<u8>, n_lost: usize) -> (Board, Arc<Mutex<Vec<u8>>>) {
    let held = Arc::new(Mutex::new(bytes));
    let on_board = Arc::clone(&held);
    let mut n_chunks = 0;
    let stream = serve(move |request, line| {
        let mut held = on_board.lock().unwrap();
        let mut lost = false;
        let body = match request.body {
            Request::UploadChunk { offset, bytes, .. } => {
                n_chunks += 1;
                let expected = held.len() as u64;
                if offset == expected {
                    held.extend_from_slice(bytes);
                    lost = n_chunks % n_lost == 0;
                    Ok(Response::UploadAt { offset: held.len() as u64 })
                } else {
                    Err(WireError::UploadOffset { found: offset, expected })
                }
            }
            _ => Ok(Response::UploadAt { offset: held.len() as u64 }),
        };
        if !lost {
            line.answer(request.request_id, body);
        }
        Then::GoOn
    });
    (connect(stream).unwrap(), held)
}

#[test]
fn an_upload_goes_on_where_it_ended() {
    let file: Vec<u8> = (0..5500u32).map(|i| (i % 251) as u8).collect();
    let (mut board, held) = uploading(file[..3300].to_vec(), usize::MAX);
    let mut progress = Vec::new();
    let hash = board.upload(&file, &mut |done, total| progress.push((done, total))).unwrap();
    assert_eq!(hash, Digest::of(&file));
    assert_eq!(progress, [(3300, 5500), (4300, 5500), (5300, 5500), (5500, 5500)]);
    assert_eq!(*held.lock().unwrap(), file);
}

#[test]
fn an_upload_survives_lost_answers() {
    let file: Vec<u8> = (0..5500u32).map(|i| (i % 251) as u8).collect();
    let (mut board, held) = uploading(Vec::new(), 2);
    board.upload(&file, &mut |_, _| ()).unwrap();
    assert_eq!(*held.lock().unwrap(), file);
}

#[test]
fn an_upload_that_makes_no_sense_is_refused() {
    for (at_begin, at_chunk, message) in [
        (200, 0, "board's answer makes no sense: it holds more of the upload than there is"),
        (0, 0, "board's answer makes no sense: its upload does not advance"),
        (0, 500, "board's answer makes no sense: it holds more of the upload than there is"),
    ] {
        let mut board = connect(serve(move |request, line| {
            let begin = matches!(request.body, Request::UploadBegin { .. });
            let offset = if begin { at_begin } else { at_chunk };
            line.answer(request.request_id, Ok(Response::UploadAt { offset }));
            Then::GoOn
        }))
        .unwrap();
        assert_eq!(board.upload(&[1; 100], &mut |_, _| ()).unwrap_err().to_string(), message);
    }
    // A board that sends the host back and forth.
    let mut board = connect(serve(|request, line| {
        let body = match request.body {
            Request::UploadChunk { offset, .. } => {
                Err(WireError::UploadOffset { found: offset, expected: u64::from(offset == 0) })
            }
            _ => Ok(Response::UploadAt { offset: 0 }),
        };
        line.answer(request.request_id, body);
        Then::GoOn
    }))
    .unwrap();
    let error = board.upload(&[1; 100], &mut |_, _| ()).unwrap_err();
    assert!(matches!(error, CallError::Refused(WireError::UploadOffset { .. })));
}

/// A board that gives `bytes` in stretches of 700 and announces `total`; its head is named `digest`.
fn giving(bytes: Vec<u8>, total: impl Fn(u32) -> u32 + Send + 'static, digest: Digest) -> Board {
    connect(serve(move |request, line| {
        let body = match request.body {
            Request::DeviceInfo => {
                Response::DeviceInfo(graft_wire::message::DeviceInfo { head: Some(head(digest)), ..info() })
            }
            Request::ReadManifest { offset } | Request::PullHead { offset } => {
                let rest = &bytes[offset as usize..];
                Response::Bytes { total: total(offset), bytes: &rest[..rest.len().min(700)] }
            }
            other => panic!("{other:?}"),
        };
        line.answer(request.request_id, Ok(body));
        Then::GoOn
    }))
    .unwrap()
}

fn head(digest: Digest) -> HeadInfo {
    HeadInfo {
        kind: HeadKind::Ncm,
        digest,
        space: SPACE,
        set_digest: digest,
        n_samples: 2,
        n_classes: 2,
        lambda_rel: None,
        reason: ChoiceReason::Named,
        balanced_accuracy: None,
        stale: false,
        train_us: 0,
    }
}

#[test]
fn a_head_is_read_in_stretches_and_checked() {
    let bytes: Vec<u8> = (0..2000u32).map(|i| (i % 251) as u8).collect();
    let digest = Digest::of(&bytes);
    assert_eq!(giving(bytes.clone(), |_| 2000, digest).pull_head().unwrap(), bytes);
    let changed = "board's answer makes no sense: what was read changed meanwhile; repeat the command";
    let error = |mut board: Board| board.pull_head().unwrap_err().to_string();
    assert_eq!(error(giving(bytes.clone(), |_| 2000, Digest([0; 32]))), changed);
    assert_eq!(error(giving(bytes.clone(), |offset| 2000 - offset, digest)), changed);
    let short = "board's answer makes no sense: its stretch of bytes is empty or too long";
    assert_eq!(error(giving(bytes.clone(), |_| 2001, digest)), short);
    assert_eq!(error(giving(bytes.clone(), |_| 600, digest)), short);
    let long = "board's answer makes no sense: it announces more bytes than this version holds";
    assert_eq!(error(giving(bytes, |_| u32::MAX, digest)), long);
}

#[test]
fn a_manifest_is_read_and_checked() {
    let array = ArraySpec { shape: vec![4], channels_first: false, inv_scale: 1.0, zero_point: 0 };
    let manifest = Manifest {
        name: "net".into(),
        space: SPACE,
        input: InputSpec { array, image: None },
        embedding_len: 8,
        inv_scale: 64.0,
        exact: true,
        ops: vec!["conv".into()],
        graph: Blob { offset: 0, bytes: 64 },
        self_tests: Vec::new(),
        payload_bytes: 64,
        chunks: vec![Digest([1; 32])],
        origin: "o".repeat(900),
        licence: String::new(),
        board_class: String::new(),
        epoch: 1,
        made_by: "graft 0".into(),
    };
    let bytes = postcard::to_allocvec(&manifest).unwrap();
    let total = bytes.len() as u32;
    let none = Digest([0; 32]);
    assert_eq!(giving(bytes.clone(), move |_| total, none).manifest().unwrap(), manifest);
    let cut = giving(bytes[..800].to_vec(), |_| 800, none).manifest().unwrap_err();
    assert_eq!(cut.to_string(), "board's answer cannot be read: message is malformed or from a newer version");
}

#[test]
fn a_sample_arrives_as_given() {
    let sample = NewSample {
        space: SPACE,
        label: Label::new("nut").unwrap(),
        session: SessionId([1; 8]),
        digest: Digest([2; 32]),
        part: Part::Whole,
        kind: LabelKind::Negative,
    };
    let expected = sample.clone();
    let mut board = connect(serve(move |request, line| {
        let Request::Collect { space, label, session, digest, part, kind, input } = request.body else {
            panic!("collects only")
        };
        assert_eq!(NewSample { space, label, session, digest, part, kind }, expected);
        let embed_us = match input {
            Input::Tensor([0x80, 0, 0x7f]) => 1,
            Input::Embedding([0x81]) => 0,
            other => panic!("{other:?}"),
        };
        let id = SampleId([9; 16]);
        line.answer(request.request_id, Ok(Response::Collected { id, added: true, embed_us }));
        Then::GoOn
    }))
    .unwrap();
    assert_eq!(board.collect(&sample, InputRef::Tensor(&[-128, 0, 127])).unwrap().embed_us, 1);
    assert_eq!(board.collect(&sample, InputRef::Embedding(&[-127])).unwrap().embed_us, 0);
}

#[test]
fn a_confusion_matrix_stays_within_its_classes() {
    let evaluated = |predicted: u16| {
        connect(serve(move |request, line| {
            let summary = EvaluationSummary {
                kind: HeadKind::Ncm,
                protocol: Protocol::LeaveOneOut,
                n: 1,
                n_skipped: 0,
                n_folds: 1,
                n_correct: 1,
                accuracy: 1.0,
                accuracy_low: 0.2,
                accuracy_high: 1.0,
                balanced_accuracy: 1.0,
            };
            let label = Label::new("nut").unwrap();
            let classes = batch([ClassCounts { label, n_samples: 2, n_sessions: 1, n: 1, n_correct: 1 }]);
            let cells = batch([ConfusionCell { truth: 0, predicted, count: 1 }]);
            let (classes, confusion) = (Batch::new(&classes), Batch::new(&cells));
            line.answer(request.request_id, Ok(Response::Evaluation { summary, classes, confusion }));
            Then::GoOn
        }))
        .unwrap()
        .evaluate(HeadChoice::Ncm)
    };
    assert_eq!(evaluated(0).unwrap().confusion.len(), 1);
    assert_eq!(
        evaluated(1).unwrap_err().to_string(),
        "board's answer makes no sense: its confusion matrix names classes that it does not list"
    );
}
