//! Installing, activating and going back, and what a bad or interrupted bundle leaves behind.

mod host;

use graft_wire::error::BundleFault;
use graft_wire::message::{HeadChoice, LayerCost};
use graft_wire::{Digest, Request, Response, WireError};
use host::{Board, failing, first, installed, second, space_of, tensor};

#[test]
fn a_bundle_is_tested_before_it_is_active_and_survives_a_restart() {
    let mut board = Board::new();
    assert_eq!(board.info().bundle, None);
    let outcome = board.flash(&first(), true).unwrap();
    assert_eq!((outcome.n_cases, outcome.active, outcome.has_head), (1, true, false));
    board.restart();
    let info = board.info();
    let bundle = info.bundle.unwrap();
    assert_eq!((bundle.hash, bundle.space, bundle.name.as_str()), (Digest::of(&first()), space_of(&first()), "tiny"));
    assert_eq!((bundle.bytes, bundle.exact, info.previous), (first().len() as u64, true, None));
}

#[test]
fn a_failing_self_test_keeps_the_previous_bundle() {
    let mut board = Board::with(&first());
    assert_eq!(board.flash(&failing(), true), Err(WireError::SelfTest { case: 0, n_bytes: 2 }));
    assert_eq!(board.info().bundle.unwrap().hash, Digest::of(&first()));
    board.collect("a", 1, &tensor(0, 0)).unwrap();
    board.restart();
    assert_eq!(board.info().bundle.unwrap().hash, Digest::of(&first()));
}

#[test]
fn what_is_no_bundle_is_refused_by_its_fault() {
    let mut board = Board::with(&first());
    let fault = |board: &mut Board, bytes: &[u8]| board.flash(bytes, true).unwrap_err();
    assert_eq!(fault(&mut board, b"no bundle at all"), WireError::BadBundle(BundleFault::Format));
    let mut newer = first();
    newer[8] = 9;
    assert_eq!(fault(&mut board, &newer), WireError::BadBundle(BundleFault::Version));
    let mut damaged = first();
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(fault(&mut board, &damaged), WireError::BadBundle(BundleFault::Hash));
    let unknown = board.call(Request::BundleInstall { hash: Digest([9; 32]), activate: true }, installed);
    assert_eq!(unknown, Err(WireError::UnknownUpload));
    assert_eq!(board.info().bundle.unwrap().hash, Digest::of(&first()));
}

#[test]
fn an_upload_with_other_bytes_than_announced_is_refused() {
    let mut board = Board::new();
    let hash = Digest([7; 32]);
    board.call(Request::UploadBegin { bytes: 3, hash }, |_| ()).unwrap();
    board.call(Request::UploadChunk { hash, offset: 0, bytes: b"abc" }, |_| ()).unwrap();
    let outcome = board.call(Request::BundleInstall { hash, activate: true }, |_| ());
    assert_eq!(outcome, Err(WireError::HashMismatch { found: Digest::of(b"abc"), expected: hash }));
}

#[test]
fn an_upload_resumes_after_a_restart() {
    let mut board = Board::new();
    let (bundle, hash) = (first(), Digest::of(&first()));
    let begin = Request::UploadBegin { bytes: bundle.len() as u64, hash };
    board.call(begin.clone(), |_| ()).unwrap();
    board.call(Request::UploadChunk { hash, offset: 0, bytes: &bundle[..100] }, |_| ()).unwrap();
    board.restart();
    let at = board.call(begin, |response| response == Response::UploadAt { offset: 100 });
    assert_eq!(at, Ok(true));
    assert!(board.flash(&bundle, true).unwrap().active);
}

#[test]
fn each_space_keeps_its_samples_and_its_head_across_activation_and_rollback() {
    let mut board = Board::with(&first());
    board.collect_classes(&[("a", 0), ("b", 1)], 3);
    let head = board.train(HeadChoice::Ncm, false).unwrap();

    let standby = board.flash(&second(), false).unwrap();
    assert_eq!((standby.active, standby.n_samples), (false, 0));
    assert_eq!(board.info().bundle.unwrap().hash, Digest::of(&first()));
    let outcome = board.call(Request::BundleActivate { hash: Digest::of(&second()) }, installed).unwrap();
    assert_eq!((outcome.active, outcome.n_samples, outcome.has_head), (true, 0, false));
    let info = board.info();
    assert_eq!((info.n_samples, info.n_other_space, info.head), (0, 6, None));
    assert_eq!(info.previous.unwrap().hash, Digest::of(&first()));
    assert_eq!(board.predict(&tensor(0, 0)), Err(WireError::NoHead));

    let outcome = board.call(Request::BundleRollback, installed).unwrap();
    assert_eq!((outcome.bundle.hash, outcome.n_samples, outcome.has_head), (Digest::of(&first()), 6, true));
    let info = board.info();
    assert_eq!(info.head.unwrap().digest, head.digest);
    assert_eq!(info.previous.unwrap().hash, Digest::of(&second()));
}

#[test]
fn an_input_collected_again_in_another_space_keeps_its_id() {
    let mut board = Board::with(&first());
    let (id, _) = board.collect("a", 1, &tensor(0, 0)).unwrap();
    board.flash(&second(), true).unwrap();
    assert_eq!(board.collect("a", 2, &tensor(0, 0)), Ok((id, true)));
    assert_eq!(board.collect("a", 3, &tensor(0, 0)), Ok((id, false)));
    let info = board.info();
    assert_eq!((info.n_samples, info.n_other_space), (1, 0));
    // Forgotten in one space is forgotten in all.
    assert_eq!(board.remove(&[id]), (1, 1));
    board.call(Request::BundleRollback, installed).unwrap();
    assert_eq!((board.info().n_samples, board.samples()), (0, vec![]));
}

#[test]
fn without_a_bundle_and_without_a_previous_one_requests_say_so() {
    let mut board = Board::new();
    let none = board.call(Request::Train { head: HeadChoice::Ncm, force: false }, |_| ());
    assert_eq!(none, Err(WireError::NoBundle));
    assert_eq!(board.call(Request::ListSamples { after: None }, |_| ()), Err(WireError::NoBundle));
    assert_eq!(board.call(Request::BundleRollback, |_| ()), Err(WireError::NoPrevious));
    let unknown = board.call(Request::BundleActivate { hash: Digest([1; 32]) }, |_| ());
    assert_eq!(unknown, Err(WireError::UnknownBundle));
}

#[test]
fn a_damaged_active_bundle_gives_way_to_the_previous_one() {
    let mut board = Board::with(&first());
    board.flash(&second(), true).unwrap();
    let path = board.dir.join("bundles").join(format!("{}.graft", Digest::of(&second())));
    board.daemon = None;
    std::fs::write(&path, b"rot").unwrap();
    board.restart();
    let info = board.info();
    assert_eq!(info.bundle.unwrap().hash, Digest::of(&first()));
    assert_eq!(info.previous, None);
}

#[test]
fn the_manifest_is_read_in_stretches() {
    let mut board = Board::with(&first());
    let read = |board: &mut Board, offset| {
        board
            .call(Request::ReadManifest { offset }, |response| match response {
                Response::Bytes { total, bytes } => (total, bytes.to_vec()),
                other => panic!("{other:?}"),
            })
            .unwrap()
    };
    let (total, whole) = read(&mut board, 0);
    assert_eq!(total as usize, whole.len());
    assert_eq!(read(&mut board, 10).1, whole[10..]);
    assert_eq!(read(&mut board, total + 5).1, Vec::<u8>::new());
    let manifest: graft_bundle::Manifest = postcard::from_bytes(&whole).unwrap();
    assert_eq!(manifest.space, space_of(&first()));
}

#[test]
fn a_board_times_its_bundle() {
    let mut board = Board::new();
    let request = Request::Bench { n_runs: 3, n_threads: 2 };
    assert_eq!(board.call(request.clone(), |_| ()), Err(WireError::NoBundle));
    board.flash(&first(), true).unwrap();
    let read = |response: Response<'_>| match response {
        Response::Bench { summary, layers } => {
            let layer = |layer: LayerCost<'_>| (layer.name.to_owned(), layer.op.to_owned(), layer.n_macs);
            (summary, layers.iter().map(|item| layer(item.unwrap())).collect::<Vec<_>>())
        }
        other => panic!("{other:?}"),
    };
    let (summary, layers) = board.call(request, read).unwrap();
    assert_eq!((summary.n_runs, summary.n_threads, summary.bundle_bytes), (3, 2, first().len() as u64));
    assert!(0 < summary.min_ns && summary.min_ns <= summary.median_ns && summary.median_ns <= summary.p99_ns);
    assert_eq!(layers, [("sum".to_owned(), "GlobalSum".to_owned(), 0)]);
    // More than a board does for one request is cut to that, and a timing changes nothing.
    let (summary, _) = board.call(Request::Bench { n_runs: 0, n_threads: 0 }, read).unwrap();
    assert_eq!((summary.n_runs, summary.n_threads), (1, 1));
    assert_eq!(board.info().bundle.unwrap().hash, Digest::of(&first()));
}
