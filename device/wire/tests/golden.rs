//! Exact bytes of every request, response and error. Released ones never change: a test that fails here means that
//! old boards and new hosts no longer understand each other.

use std::fmt::Debug;

use graft_wire::error::BundleFault;
use graft_wire::message::{
    BenchSummary, BundleInfo, BundleInstalled, ChoiceReason, ClassCounts, ClassScore, ConfusionCell, DeviceInfo,
    DoubtfulSample, DuplicatePair, EvaluationSummary, HeadChoice, HeadComparison, HeadInfo, HeadKind, Input, LayerCost,
    Prediction, Protocol, Record, RejectionInfo, ReviewCounts, SampleRow, push_item,
};
use graft_wire::{
    Batch, ClientId, DeviceId, Digest, Label, LabelKind, Part, Request, RequestEnvelope, Response, ResponseEnvelope,
    SampleId, SampleMeta, SessionId, SpaceId, WireError,
};
use serde::Serialize;

const SPACE: SpaceId = SpaceId([0x5a; 32]);
const HASH: Digest = Digest([0xd1; 32]);
const SET: Digest = Digest([0xd2; 32]);
const ID: SampleId = SampleId([0x1d; 16]);
const SESSION: SessionId = SessionId([0x5e; 8]);

fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

fn meta() -> SampleMeta {
    let part = Part::Box { x: 1, y: 2, width: 300, height: 4 };
    let origin = DeviceId([0x0d; 16]);
    SampleMeta { label: label("nut"), session: SESSION, origin, digest: HASH, part, kind: LabelKind::Class }
}

fn bundle() -> BundleInfo {
    let name = "net".try_into().unwrap();
    BundleInfo { name, hash: HASH, space: SPACE, embedding_len: 1280, bytes: 3_500_000, exact: true }
}

fn head() -> HeadInfo {
    HeadInfo {
        kind: HeadKind::Ridge,
        digest: HASH,
        space: SPACE,
        set_digest: SET,
        n_samples: 300,
        n_classes: 5,
        lambda_rel: Some(1.0),
        reason: ChoiceReason::BestByOne,
        balanced_accuracy: Some(0.5),
        stale: true,
        train_us: 1500,
    }
}

fn items<T: Serialize>(items: &[T]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for item in items {
        push_item(&mut bytes, item).unwrap();
    }
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

/// `{name}` in a golden text stands for the bytes of an id above, repeated bytes being unreadable otherwise.
fn expand(golden: &str) -> String {
    let ids = [("{space}", "5a", 32), ("{hash}", "d1", 32), ("{set}", "d2", 32), ("{id}", "1d", 16)];
    let more = [("{session}", "5e", 8), ("{device}", "0d", 16), ("{client}", "c1", 8)];
    let text: String = golden.split_whitespace().collect();
    ids.iter().chain(&more).fold(text, |text, (name, byte, n)| text.replace(name, &byte.repeat(*n)))
}

fn check_request(body: Request<'_>, golden: &str) {
    let envelope = RequestEnvelope { client: ClientId([0xc1; 8]), request_id: 300, body };
    let golden = format!("{{client}} ac02 {golden}");
    assert_eq!(hex(&postcard::to_allocvec(&envelope).unwrap()), expand(&golden), "{:?}", envelope.body);
    assert_eq!(RequestEnvelope::decode(&unhex(&expand(&golden))), Ok(envelope));
}

fn check_response(body: Result<Response<'_>, WireError>, golden: &str) {
    let envelope = ResponseEnvelope { request_id: 300, body };
    let golden = format!("ac02 {golden}");
    assert_eq!(hex(&postcard::to_allocvec(&envelope).unwrap()), expand(&golden), "{:?}", envelope.body);
    assert_eq!(ResponseEnvelope::decode(&unhex(&expand(&golden))), Ok(envelope));
}

#[test]
fn requests_about_bundles_are_golden() {
    check_request(Request::DeviceInfo, "00");
    check_request(Request::ReadManifest { offset: 65536 }, "01 808004");
    check_request(Request::UploadBegin { bytes: 3_500_000, hash: HASH }, "02 e0cfd501 {hash}");
    check_request(Request::UploadChunk { hash: HASH, offset: 128, bytes: &[9, 0, 8] }, "03 {hash} 8001 03 090008");
    check_request(Request::BundleInstall { hash: HASH, activate: true }, "04 {hash} 01");
    check_request(Request::BundleActivate { hash: HASH }, "05 {hash}");
    check_request(Request::BundleRollback, "06");
}

#[test]
fn requests_about_samples_are_golden() {
    let collect = |part, kind, input| Request::Collect {
        space: SPACE,
        label: label("Mütter"),
        session: SESSION,
        digest: HASH,
        part,
        kind,
        input,
    };
    check_request(
        collect(Part::Whole, LabelKind::Class, Input::Tensor(&[0x80, 0x7f])),
        "07 {space} 07 4dc3bc74746572 {session} {hash} 00 00 00 02 807f",
    );
    check_request(
        collect(Part::Window { start_ms: 1000, len_ms: 960 }, LabelKind::Negative, Input::Embedding(&[0x81])),
        "07 {space} 07 4dc3bc74746572 {session} {hash} 01 e807 c007 01 01 01 81",
    );
    check_request(Request::ListSamples { after: None }, "08 00");
    check_request(Request::ListSamples { after: Some(ID) }, "08 01 {id}");
    let ids = items(&[ID, SampleId([2; 16])]);
    check_request(Request::RemoveSamples { ids: Batch::new(&ids) }, &format!("09 20 {{id}} {}", "02".repeat(16)));
    check_request(Request::Relabel { id: ID, label: label("nut"), kind: LabelKind::Class }, "0a {id} 03 6e7574 00");
}

#[test]
fn requests_about_heads_are_golden() {
    check_request(Request::Train { head: HeadChoice::Auto, force: true }, "0b 02 01");
    check_request(Request::Predict { space: SPACE, input: Input::Tensor(&[1]) }, "0c {space} 00 01 01");
    check_request(Request::Evaluate { head: HeadChoice::Ncm }, "0d 00");
    check_request(Request::Evaluate { head: HeadChoice::Ridge }, "0d 01");
    check_request(Request::Evaluate { head: HeadChoice::Lda }, "0d 03");
    check_request(Request::Evaluate { head: HeadChoice::Logistic }, "0d 04");
    check_request(Request::Evaluate { head: HeadChoice::Knn }, "0d 05");
    check_request(Request::Evaluate { head: HeadChoice::Rp }, "0d 06");
    check_request(Request::Evaluate { head: HeadChoice::NcmEuclidean }, "0d 07");
    check_request(Request::Evaluate { head: HeadChoice::NcmTrimmed }, "0d 08");
    check_request(Request::PullHead { offset: 0 }, "11 00");
    check_request(Request::PushHead { head: &[1, 2, 3] }, "12 03 010203");
    let train = |unknown| Request::TrainChecked { head: HeadChoice::Auto, force: false, unknown };
    check_request(train(None), "15 02 00 00");
    check_request(train(Some(0.5)), "15 02 00 01 000000000000e03f");
    check_request(Request::Review, "16");
    check_request(Request::Bench { n_runs: 300, n_threads: 2 }, "17 ac02 02");
}

#[test]
fn requests_about_sets_are_golden() {
    check_request(Request::PullRecords { space: SPACE, after: Some(ID) }, "0e {space} 01 {id}");
    check_request(Request::PullTombstones { after: None }, "0f 00");
    let records = items(&[Record { meta: meta(), embedding: &[1, 0xff] }]);
    let ids = items(&[ID]);
    let push = Request::PushRecords { space: SPACE, records: Batch::new(&records), tombstones: Batch::new(&ids) };
    // 70 bytes of records: label 4, session 8, origin 16, digest 32, part 6, kind 1, embedding 3; 16 of tombstones.
    check_request(push, "10 {space} 46 03 6e7574 {session} {device} {hash} 02 01 02 ac02 04 00 02 01ff 10 {id}");
    check_request(Request::ListIds { space: SPACE, after: None }, "13 {space} 00");
    check_request(Request::PullById { space: SPACE, ids: Batch::new(&ids) }, "14 {space} 10 {id}");
}

#[test]
fn responses_about_bundles_are_golden() {
    let name = |text: &str| text.try_into().unwrap();
    let info = DeviceInfo {
        device: DeviceId([0x0d; 16]),
        name: name("pi"),
        version: name("0.1.0"),
        arch: name("arm"),
        isa: name("scalar"),
        bundle: Some(bundle()),
        previous: None,
        head: Some(head()),
        n_samples: 300,
        n_classes: 5,
        n_other_space: 1,
        n_tombstones: 2,
        n_set_aside: 3,
        set_digest: SET,
        free_bytes: 1 << 30,
    };
    check_response(
        Ok(Response::DeviceInfo(info)),
        "00 00 {device} 02 7069 05 302e312e30 03 61726d 06 7363616c6172
         01 03 6e6574 {hash} {space} 800a e0cfd501 01
         00
         01 01 {hash} {space} {set} ac02 05 01 000000000000f03f 02 01 000000000000e03f 01 dc0b
         ac02 05 01 02 03 {set} 8080808004",
    );
    check_response(Ok(Response::Bytes { total: 70_000, bytes: &[1, 0] }), "00 01 f0a204 02 0100");
    check_response(Ok(Response::UploadAt { offset: 65_536 }), "00 02 808004");
    let installed = BundleInstalled { bundle: bundle(), n_cases: 4, active: true, n_samples: 300, has_head: false };
    check_response(
        Ok(Response::BundleInstalled(installed)),
        "00 03 03 6e6574 {hash} {space} 800a e0cfd501 01 04 01 ac02 00",
    );
}

#[test]
fn responses_about_samples_are_golden() {
    check_response(Ok(Response::Collected { id: ID, added: true, embed_us: 128 }), "00 04 {id} 01 8001");
    let rows = items(&[SampleRow { id: ID, meta: meta(), stored_s: Some(1) }]);
    check_response(
        Ok(Response::Samples { samples: Batch::new(&rows) }),
        "00 05 55 {id} 03 6e7574 {session} {device} {hash} 02 01 02 ac02 04 00 01 01",
    );
    check_response(Ok(Response::Removed { n_removed: 1, n_tombstones: 2 }), "00 06 01 02");
    let records = items(&[Record { meta: meta(), embedding: &[1, 0xff] }]);
    check_response(
        Ok(Response::Records { records: Batch::new(&records) }),
        "00 0a 46 03 6e7574 {session} {device} {hash} 02 01 02 ac02 04 00 02 01ff",
    );
    let ids = items(&[ID]);
    check_response(Ok(Response::Tombstones { ids: Batch::new(&ids) }), "00 0b 10 {id}");
    check_response(Ok(Response::Merged { n_added: 1, n_removed: 2, n_set_aside: 3 }), "00 0c 01 02 03");
    check_response(Ok(Response::Ids { ids: Batch::empty() }), "00 0d 00");
}

#[test]
fn responses_about_heads_are_golden() {
    check_response(
        Ok(Response::Head(head())),
        "00 07 01 {hash} {space} {set} ac02 05 01 000000000000f03f 02 01 000000000000e03f 01 dc0b",
    );
    let pushed = HeadInfo {
        kind: HeadKind::Ncm,
        lambda_rel: None,
        reason: ChoiceReason::Pushed,
        balanced_accuracy: None,
        stale: false,
        ..head()
    };
    check_response(Ok(Response::Head(pushed)), "00 07 00 {hash} {space} {set} ac02 05 00 04 00 00 dc0b");
    let prediction = Prediction {
        label: Some(label("nut")),
        unknown: Some(false),
        score: 2.0,
        probability: None,
        p_value: Some(0.5),
        head: HASH,
        space: SPACE,
        embed_us: 128,
        head_us: 7,
    };
    let scores = items(&[ClassScore { label: label("nut"), score: 2.0 }]);
    check_response(
        Ok(Response::Prediction { prediction, scores: Batch::new(&scores) }),
        "00 08 01 03 6e7574 01 00 0000000000000040 00 01 000000000000e03f {hash} {space} 8001 07
         0c 03 6e7574 0000000000000040",
    );
    let summary = EvaluationSummary {
        kind: HeadKind::Ridge,
        protocol: Protocol::LeaveOneOut,
        n: 4,
        n_skipped: 1,
        n_folds: 4,
        n_correct: 3,
        accuracy: 0.75,
        accuracy_low: 0.25,
        accuracy_high: 1.0,
        balanced_accuracy: 0.5,
    };
    let classes = items(&[ClassCounts { label: label("nut"), n_samples: 5, n_sessions: 2, n: 4, n_correct: 3 }]);
    let cells = items(&[ConfusionCell { truth: 0, predicted: 300, count: 2 }]);
    check_response(
        Ok(Response::Evaluation { summary, classes: Batch::new(&classes), confusion: Batch::new(&cells) }),
        "00 09 01 01 04 01 04 03 000000000000e83f 000000000000d03f 000000000000f03f 000000000000e03f
         08 03 6e7574 05 02 04 03
         04 00 ac02 02",
    );
    let rejection =
        RejectionInfo { n: 300, rate: Some(0.5), n_negatives: 3, n_negatives_rejected: 2, negatives_rate: Some(0.75) };
    let comparison = HeadComparison { n: 300, n_correct_old: 2, n_correct_new: 1 };
    check_response(
        Ok(Response::Trained { head: head(), rejection: Some(rejection), comparison: Some(comparison) }),
        "00 0e 01 {hash} {space} {set} ac02 05 01 000000000000f03f 02 01 000000000000e03f 01 dc0b
         01 ac02 01 000000000000e03f 03 02 01 000000000000e83f
         01 ac02 02 01",
    );
    let counts = ReviewCounts { n_assessed: 300, n_doubtful: 1, n_suspected: 1, n_compared: 301, n_duplicates: 1 };
    let doubtful =
        DoubtfulSample { id: ID, label: label("nut"), looks_like: label("bolt"), margin: 0.5, suspected: true };
    let duplicate = DuplicatePair { a: ID, b: SampleId([2; 16]), cosine: 1.0, labels_differ: true };
    let (doubtful, duplicates) = (items(&[doubtful]), items(&[duplicate]));
    let duplicates = Batch::new(&duplicates);
    check_response(
        Ok(Response::Review { counts, doubtful: Batch::new(&doubtful), duplicates }),
        &format!(
            "00 0f ac02 01 01 ad02 01 22 {{id}} 03 6e7574 04 626f6c74 000000000000e03f 01
             29 {{id}} {} 000000000000f03f 01",
            "02".repeat(16)
        ),
    );
    let summary = BenchSummary {
        isa: "neon".try_into().unwrap(),
        n_threads: 2,
        n_runs: 300,
        load_ns: 1,
        first_ns: 2,
        min_ns: 3,
        median_ns: 4,
        p95_ns: 5,
        p99_ns: 300,
        bundle_bytes: 6,
        packed_bytes: 7,
        arena_bytes: 8,
    };
    let layers = items(&[LayerCost { name: "c", op: "conv", n_macs: 300, median_ns: 9 }]);
    check_response(
        Ok(Response::Bench { summary, layers: Batch::new(&layers) }),
        "00 10 04 6e656f6e 02 ac02 01 02 03 04 05 ac02 06 07 08 0a 01 63 04 636f6e76 ac02 09",
    );
}

#[test]
fn errors_are_golden() {
    let errors = [
        (WireError::Malformed, "00"),
        (WireError::NoBundle, "01"),
        (WireError::SpaceMismatch { active: SPACE, requested: SpaceId([1; 32]) }, "02 {space} {ones}"),
        (WireError::InputLength { found: 1, expected: 2 }, "03 01 02"),
        (WireError::NoSignal, "04"),
        (WireError::NoHead, "05"),
        (WireError::TooFewClasses { n_classes: 1, n_samples: 2 }, "06 01 02"),
        (WireError::TooManyClasses { found: 1, limit: 2 }, "07 01 02"),
        (WireError::UnknownSample, "08"),
        (WireError::Tombstoned, "09"),
        (WireError::HashMismatch { found: HASH, expected: SET }, "0a {hash} {set}"),
        (WireError::UploadOffset { found: 1, expected: 2 }, "0b 01 02"),
        (WireError::UnknownUpload, "0c"),
        (WireError::BadBundle(BundleFault::Format), "0d 00"),
        (WireError::BadBundle(BundleFault::Version), "0d 01"),
        (WireError::BadBundle(BundleFault::Hash), "0d 02"),
        (WireError::BadBundle(BundleFault::Unsupported), "0d 03"),
        (WireError::SelfTest { case: 1, n_bytes: 2 }, "0e 01 02"),
        (WireError::NoPrevious, "0f"),
        (WireError::DiskFull, "10"),
        (WireError::Storage, "11"),
        (WireError::RequestReused, "12"),
        (WireError::RequestTooOld, "13"),
        (WireError::HeadKnowsMore { head: 1, held: 2 }, "14 01 02"),
        (WireError::TooLong, "15"),
        (WireError::BadHead, "16"),
        (WireError::NothingToLeaveOut { n_samples: 1, n_sessions: 2 }, "17 01 02"),
        (WireError::EmbeddingLength { found: 1, expected: 2 }, "18 01 02"),
        (WireError::Unsolvable, "19"),
        (WireError::UnknownBundle, "1a"),
        (WireError::TooFewToPromise { n: 1, n_needed: 19 }, "1b 01 13"),
        (WireError::BadRate, "1c"),
        (WireError::HeadWorse { n: 3, n_correct_old: 2, n_correct_new: 1 }, "1d 03 02 01"),
    ];
    for (error, golden) in errors {
        check_response(Err(error), &format!("01 {}", golden.replace("{ones}", &"01".repeat(32))));
    }
}

#[test]
fn variants_of_a_later_version_are_refused() {
    let request = unhex(&expand("{client} ac02 17"));
    assert!(RequestEnvelope::decode(&request).is_err());
    assert!(ResponseEnvelope::decode(&unhex("ac020010")).is_err());
    assert!(ResponseEnvelope::decode(&unhex("ac02011e")).is_err());
}

#[test]
fn every_truncation_is_refused() {
    fn refused<T: Debug, E>(bytes: &[u8], decode: impl Fn(&[u8]) -> Result<T, E>) {
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end]).is_err(), "{end} of {} bytes", bytes.len());
        }
    }
    let ids = items(&[ID]);
    let body = Request::PullById { space: SPACE, ids: Batch::new(&ids) };
    let request = RequestEnvelope { client: ClientId([1; 8]), request_id: 1, body };
    refused(&postcard::to_allocvec(&request).unwrap(), |bytes| RequestEnvelope::decode(bytes).map(drop));
    let response = ResponseEnvelope { request_id: 1, body: Ok(Response::Head(head())) };
    refused(&postcard::to_allocvec(&response).unwrap(), |bytes| ResponseEnvelope::decode(bytes).map(drop));
}
