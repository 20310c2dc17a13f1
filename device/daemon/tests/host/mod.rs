//! A host in miniature: a board in a folder of its own, a bundle small enough to reckon by hand, typed calls.
#![allow(dead_code)] // Each test file uses a part of it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use graft_bundle::file::{Case, CaseInput, Draft};
use graft_bundle::graph::{DataType, Graph, Op, Step, Tensor, TensorId};
use graft_bundle::{ArraySpec, BundleWriter, InputSpec, UncheckedBundle};
use graft_wire::message::{
    BundleInstalled, DeviceInfo, HeadChoice, HeadInfo, Input, Prediction, Record, SampleRow, push_item,
};
use graft_wire::{
    Batch, ClientId, Digest, Label, LabelKind, Part, Request, RequestEnvelope, Response, ResponseEnvelope, SampleId,
    SampleMeta, SessionId, SpaceId, WireError,
};
use graftd::{Daemon, DaemonOptions, Hardware};

/// Components of a tensor and of an embedding.
pub const D: usize = 8;

/// A bundle whose backbone passes its input on: the embedding is the normalised input. `inv_scale` makes the space.
pub fn bundle(inv_scale: f64, expected: [i8; D]) -> Vec<u8> {
    let tensor = |data_type| Tensor { shape: [1, 1, D as u32], data_type, scale: 1.0, zero_point: 0 };
    let graph = Graph {
        tensors: vec![tensor(DataType::I8), tensor(DataType::I32)],
        steps: vec![Step { name: "sum".into(), op: Op::GlobalSum, inputs: vec![TensorId(0)], output: TensorId(1) }],
        input: TensorId(0),
        output: TensorId(1),
    };
    let draft = Draft {
        name: "tiny".into(),
        input: InputSpec {
            array: ArraySpec { shape: vec![D as u32, 1, 1], channels_first: true, inv_scale: 1.0, zero_point: 0 },
            image: None,
        },
        embedding_len: D as u32,
        inv_scale,
        exact: true,
        origin: "test".into(),
        licence: "MIT".into(),
        board_class: String::new(),
        epoch: 1,
    };
    let case = Case { input: CaseInput::Stored(vec![3, 4, 0, 0, 0, 0, 0, 0]), expected: expected.to_vec() };
    BundleWriter::new().finish(&draft, &graph, &[case]).unwrap()
}

/// A sound bundle.
pub fn first() -> Vec<u8> {
    bundle(100.0, [60, 80, 0, 0, 0, 0, 0, 0])
}

/// A sound bundle of another space.
pub fn second() -> Vec<u8> {
    bundle(50.0, [30, 40, 0, 0, 0, 0, 0, 0])
}

/// A bundle whose self-test expects two wrong bytes.
pub fn failing() -> Vec<u8> {
    bundle(100.0, [61, 81, 0, 0, 0, 0, 0, 0])
}

pub fn space_of(bundle: &[u8]) -> SpaceId {
    UncheckedBundle::read(bundle.to_vec()).unwrap().check().unwrap().manifest().space
}

pub fn label(name: &str) -> Label {
    Label::new(name).unwrap()
}

/// An input tensor that points along `axis`, a little off by `n`.
pub fn tensor(axis: usize, n: u8) -> Vec<u8> {
    let mut tensor = vec![(n % 5) + 1; D];
    tensor[axis] = 100;
    tensor[(axis + usize::from(n) + 1) % D] += n % 9;
    tensor
}

/// A board and the host that talks to it.
pub struct Board {
    pub daemon: Option<Daemon>,
    pub dir: PathBuf,
    pub request_id: u64,
    hardware: String,
}

impl Board {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("graftd-{}-{n}", std::process::id()));
        let hardware = format!("board {n}");
        let mut board = Self { daemon: None, dir, request_id: 0, hardware };
        board.restart();
        board
    }

    /// A board that runs `bundle`.
    pub fn with(bundle: &[u8]) -> Self {
        let mut board = Self::new();
        board.flash(bundle, true).unwrap();
        board
    }

    /// Stops the daemon without ceremony and starts it on the same state.
    pub fn restart(&mut self) {
        self.daemon = None;
        let options = DaemonOptions {
            name: Some("test".into()),
            hardware: Hardware::Fixed(self.hardware.clone()),
            clock: || Some(1_800_000_000),
            ..DaemonOptions::default()
        };
        self.daemon = Some(Daemon::open(&self.dir, options).unwrap());
    }

    pub fn state(&self) -> &Path {
        &self.dir
    }

    /// The request as bytes, under the next id.
    pub fn encode(&mut self, body: Request<'_>) -> Vec<u8> {
        self.request_id += 1;
        let envelope = RequestEnvelope { client: ClientId([1; 8]), request_id: self.request_id, body };
        postcard::to_allocvec(&envelope).unwrap()
    }

    pub fn send(&mut self, request: &[u8]) -> Vec<u8> {
        self.daemon.as_mut().unwrap().handle(request)
    }

    pub fn call<T>(&mut self, body: Request<'_>, read: impl FnOnce(Response<'_>) -> T) -> Result<T, WireError> {
        let request = self.encode(body);
        let response = self.send(&request);
        let envelope = ResponseEnvelope::decode(&response).unwrap();
        assert_eq!(envelope.request_id, self.request_id);
        envelope.body.map(read)
    }

    pub fn flash(&mut self, bundle: &[u8], activate: bool) -> Result<BundleInstalled, WireError> {
        self.upload(bundle)?;
        self.call(Request::BundleInstall { hash: Digest::of(bundle), activate }, installed)
    }

    pub fn upload(&mut self, bundle: &[u8]) -> Result<(), WireError> {
        let (hash, bytes) = (Digest::of(bundle), bundle.len() as u64);
        let mut offset = self.call(Request::UploadBegin { bytes, hash }, upload_at)?;
        while offset < bytes {
            let rest = &bundle[offset as usize..];
            let chunk = &rest[..rest.len().min(700)];
            offset = self.call(Request::UploadChunk { hash, offset, bytes: chunk }, upload_at)?;
        }
        Ok(())
    }

    pub fn info(&mut self) -> DeviceInfo {
        self.call(Request::DeviceInfo, |response| match response {
            Response::DeviceInfo(info) => info,
            other => panic!("{other:?}"),
        })
        .unwrap()
    }

    pub fn space(&mut self) -> SpaceId {
        self.info().bundle.unwrap().space
    }

    pub fn collect(&mut self, class: &str, session: u8, tensor: &[u8]) -> Result<(SampleId, bool), WireError> {
        let space = self.space();
        let body = Request::Collect {
            space,
            label: label(class),
            session: SessionId([session; 8]),
            digest: Digest::of(tensor),
            part: Part::Whole,
            kind: LabelKind::Class,
            input: Input::Tensor(tensor),
        };
        self.call(body, collected)
    }

    /// Three classes with `n` samples each, every one in a session of its own.
    pub fn collect_classes(&mut self, classes: &[(&str, usize)], n: u8) {
        for (class, axis) in classes {
            for i in 0..n {
                assert!(self.collect(class, 10 * *axis as u8 + i, &tensor(*axis, i)).unwrap().1);
            }
        }
    }

    pub fn samples(&mut self) -> Vec<SampleRow> {
        let mut rows: Vec<SampleRow> = Vec::new();
        loop {
            let after = rows.last().map(|row| row.id);
            let page: Vec<SampleRow> = self
                .call(Request::ListSamples { after }, |response| match response {
                    Response::Samples { samples } => samples.iter().collect::<Result<_, _>>().unwrap(),
                    other => panic!("{other:?}"),
                })
                .unwrap();
            if page.is_empty() {
                return rows;
            }
            rows.extend(page);
        }
    }

    pub fn remove(&mut self, ids: &[SampleId]) -> (u32, u32) {
        let mut bytes = Vec::new();
        ids.iter().for_each(|id| push_item(&mut bytes, id).unwrap());
        self.call(Request::RemoveSamples { ids: Batch::new(&bytes) }, |response| match response {
            Response::Removed { n_removed, n_tombstones } => (n_removed, n_tombstones),
            other => panic!("{other:?}"),
        })
        .unwrap()
    }

    pub fn relabel(&mut self, id: SampleId, class: &str) -> Result<(SampleId, bool), WireError> {
        self.call(Request::Relabel { id, label: label(class), kind: LabelKind::Class }, collected)
    }

    pub fn train(&mut self, head: HeadChoice, force: bool) -> Result<HeadInfo, WireError> {
        self.call(Request::Train { head, force }, head_info)
    }

    pub fn predict(&mut self, tensor: &[u8]) -> Result<(Prediction, Vec<String>), WireError> {
        let space = self.space();
        self.call(Request::Predict { space, input: Input::Tensor(tensor) }, |response| match response {
            Response::Prediction { prediction, scores } => {
                (prediction, scores.iter().map(|score| score.unwrap().label.as_str().to_owned()).collect())
            }
            other => panic!("{other:?}"),
        })
    }

    pub fn pull(&mut self) -> (Vec<(SampleMeta, Vec<u8>)>, Vec<SampleId>) {
        let space = self.space();
        let mut records: Vec<(SampleMeta, Vec<u8>)> = Vec::new();
        loop {
            let after = records.last().map(|(meta, _)| meta.sample_id());
            let page: Vec<_> = self
                .call(Request::PullRecords { space, after }, |response| match response {
                    Response::Records { records } => {
                        records.iter().map(|record| record.map(|r| (r.meta, r.embedding.to_vec())).unwrap()).collect()
                    }
                    other => panic!("{other:?}"),
                })
                .unwrap();
            if page.is_empty() {
                break;
            }
            records.extend(page);
        }
        let tombstones = self
            .call(Request::PullTombstones { after: None }, |response| match response {
                Response::Tombstones { ids } => ids.iter().collect::<Result<_, _>>().unwrap(),
                other => panic!("{other:?}"),
            })
            .unwrap();
        (records, tombstones)
    }

    /// (added, removed, set aside).
    pub fn push(
        &mut self,
        space: SpaceId,
        records: &[(SampleMeta, Vec<u8>)],
        tombstones: &[SampleId],
    ) -> Result<(u32, u32, u32), WireError> {
        let (mut bytes, mut ids) = (Vec::new(), Vec::new());
        for (meta, embedding) in records {
            push_item(&mut bytes, &Record { meta: meta.clone(), embedding }).unwrap();
        }
        tombstones.iter().for_each(|id| push_item(&mut ids, id).unwrap());
        let body = Request::PushRecords { space, records: Batch::new(&bytes), tombstones: Batch::new(&ids) };
        self.call(body, |response| match response {
            Response::Merged { n_added, n_removed, n_set_aside } => (n_added, n_removed, n_set_aside),
            other => panic!("{other:?}"),
        })
    }

    pub fn pull_head(&mut self) -> Vec<u8> {
        self.call(Request::PullHead { offset: 0 }, |response| match response {
            Response::Bytes { total, bytes } => {
                assert_eq!(total as usize, bytes.len());
                bytes.to_vec()
            }
            other => panic!("{other:?}"),
        })
        .unwrap()
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        self.daemon = None;
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

pub fn installed(response: Response<'_>) -> BundleInstalled {
    match response {
        Response::BundleInstalled(installed) => installed,
        other => panic!("{other:?}"),
    }
}

pub fn collected(response: Response<'_>) -> (SampleId, bool) {
    match response {
        Response::Collected { id, added, .. } => (id, added),
        other => panic!("{other:?}"),
    }
}

pub fn head_info(response: Response<'_>) -> HeadInfo {
    match response {
        Response::Head(info) => info,
        other => panic!("{other:?}"),
    }
}

fn upload_at(response: Response<'_>) -> u64 {
    match response {
        Response::UploadAt { offset } => offset,
        other => panic!("{other:?}"),
    }
}
