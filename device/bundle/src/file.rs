//! The bundle file: fixed header, manifest, payload. Written once, never changed.
//!
//! Header, 128 bytes, little-endian: magic `[8]`, version u16, zero u16, manifest_len u32, key_id `[16]`,
//! signature `[64]`, zeros `[32]`. Then the manifest (postcard), zeros up to a multiple of 64, the payload: weights,
//! then the graph (postcard), then self-test cases, each blob 64-byte aligned. An unsigned bundle has key_id and
//! signature zero; the signature covers magic, version, manifest_len and the manifest, so that it can be checked
//! before the manifest is parsed.

use std::borrow::Cow;
use std::fs::File;
use std::ops::Range;

use graft_wire::limits::BUNDLE_BYTES_MAX;
pub use graft_wire::limits::{EMBEDDING_LEN_MAX, NAME_BYTES_MAX};
use graft_wire::{Digest, SpaceId};

use crate::graph::{Blob, Graph};
use crate::input::InputSpec;
use crate::manifest::{Manifest, SelfTest, SelfTestInput, SpaceHasher, seeded_bytes, space_id};
use crate::source::Source;

/// First bytes of every bundle.
pub const MAGIC: &[u8; 8] = b"graft\0b\n";
/// Version written, and the oldest and newest one read.
pub const VERSION: u16 = 1;
/// Length of the header.
pub const HEADER_BYTES: usize = 128;
/// Longest manifest.
pub const MANIFEST_BYTES_MAX: u32 = 4 << 20;
/// Stretch of payload under one hash in the manifest.
pub const PAYLOAD_CHUNK_BYTES: usize = 64 << 10;
/// Every blob starts at a multiple of this.
pub const BLOB_ALIGN: u64 = 64;
/// Payload whose two hashes are computed side by side: below, a thread costs more than it saves.
const TWO_THREADS_MIN: u64 = 4 << 20;
/// Most self-test cases.
pub const SELF_TESTS_MAX: usize = 64;

/// Why bytes are not a bundle this code can use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// No bundle at all.
    #[error("not a graft bundle: {0}")]
    NotABundle(&'static str),
    /// Made by another version.
    #[error("bundle has format version {found}; this graft reads version {VERSION}")]
    Version {
        /// Version in the header.
        found: u16,
    },
    /// Shorter or longer than it says.
    #[error("bundle has {found} bytes; its header says {expected}")]
    Length {
        /// Bytes seen.
        found: u64,
        /// Bytes announced.
        expected: u64,
    },
    /// A manifest that cannot be read or contradicts itself.
    #[error("bundle's manifest is malformed: {0}")]
    Manifest(&'static str),
    /// A part of the payload is damaged.
    #[error("bundle is damaged: payload chunk {chunk} does not match its hash")]
    ChunkHash {
        /// Index of the chunk.
        chunk: usize,
    },
    /// The space id does not follow from the content.
    #[error("bundle is damaged: its space id does not follow from its content")]
    Space,
    /// A blob that is not there.
    #[error("blob at byte {offset} with {bytes} bytes is not aligned or leaves the payload")]
    Blob {
        /// In the payload.
        offset: u64,
        /// Its length.
        bytes: u64,
    },
    /// The file cannot be read, or no longer.
    #[error("bundle cannot be read: {0}")]
    Read(String),
    /// A part is over its cap; when writing.
    #[error("{what} of {found} is over the bundle's limit of {limit}")]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// Seen.
        found: u64,
        /// Allowed.
        limit: u64,
    },
}

/// A bundle whose header has been read and nothing else believed.
#[derive(Debug)]
pub struct UncheckedBundle {
    source: Source,
    /// Header and manifest.
    head: Vec<u8>,
}

/// A bundle whose hashes match and whose manifest and graph could be read.
///
/// Ops, shapes and blob ranges of the graph are the engine's to check.
#[derive(Debug)]
pub struct Bundle {
    source: Source,
    /// Header and manifest.
    head: Vec<u8>,
    manifest: Manifest,
    graph: Graph,
}

impl UncheckedBundle {
    /// Reads the header of a bundle in memory.
    ///
    /// # Errors
    /// [`BundleError`] for a wrong magic, version or manifest length.
    pub fn read(bytes: Vec<u8>) -> Result<Self, BundleError> {
        Self::of(Source::Memory(bytes))
    }

    /// Reads the header of a bundle file, whose payload stays there: what reads a blob later gets what the file then holds.
    /// Bundle files are written once and never changed.
    ///
    /// # Errors
    /// As [`Self::read`]; [`BundleError::Read`].
    pub fn open(file: File) -> Result<Self, BundleError> {
        Self::of(Source::of_file(file)?)
    }

    fn of(source: Source) -> Result<Self, BundleError> {
        let len = source.len();
        if len > BUNDLE_BYTES_MAX {
            return Err(BundleError::TooLarge { what: "file", found: len, limit: BUNDLE_BYTES_MAX });
        }
        let header = source.read(0..len.min(HEADER_BYTES as u64))?;
        let header =
            header.first_chunk::<HEADER_BYTES>().ok_or(BundleError::NotABundle("shorter than a bundle's header"))?;
        if !header.starts_with(MAGIC) {
            return Err(BundleError::NotABundle("does not begin with a bundle's magic"));
        }
        let version = u16::from_le_bytes([header[8], header[9]]);
        if version != VERSION {
            return Err(BundleError::Version { found: version });
        }
        let manifest_len = u32::from_le_bytes([header[12], header[13], header[14], header[15]]);
        if manifest_len > MANIFEST_BYTES_MAX {
            let (found, limit) = (manifest_len.into(), MANIFEST_BYTES_MAX.into());
            return Err(BundleError::TooLarge { what: "manifest", found, limit });
        }
        let expected = HEADER_BYTES as u64 + u64::from(manifest_len);
        if len < expected {
            return Err(BundleError::Length { found: len, expected });
        }
        let head = source.read(0..expected)?.into_owned();
        Ok(Self { source, head })
    }

    /// What the signature covers: magic, version, manifest length and manifest.
    pub fn signed_bytes(&self) -> [&[u8]; 2] {
        [self.head.get(..16).unwrap_or_default(), manifest_of(&self.head)]
    }

    /// Key id and ed25519 signature; zeros if unsigned.
    pub fn signature(&self) -> ([u8; 16], [u8; 64]) {
        let part = |from: usize, to: usize| self.head.get(from..to).unwrap_or_default();
        (part(16, 32).try_into().unwrap_or([0; 16]), part(32, 96).try_into().unwrap_or([0; 64]))
    }

    /// Parses manifest and graph and checks every hash.
    ///
    /// # Errors
    /// [`BundleError`] naming the first part that is malformed or damaged.
    pub fn check(self) -> Result<Bundle, BundleError> {
        let manifest = decode_manifest(manifest_of(&self.head))?;
        let Self { source, head } = self;
        let start = payload_start(&head);
        let (found, expected) = (source.len(), start.saturating_add(manifest.payload_bytes));
        if found != expected {
            return Err(BundleError::Length { found, expected });
        }
        let stretches = || (start..found).step_by(PAYLOAD_CHUNK_BYTES);
        if stretches().count() != manifest.chunks.len() {
            return Err(BundleError::Manifest("it has another number of chunk hashes than its payload has chunks"));
        }
        let blob = |blob: Blob| blob_of(&source, start, blob);
        let graph_bytes = blob(manifest.graph).map_err(|error| match error {
            BundleError::Blob { .. } => BundleError::Manifest("graph outside the payload"),
            error => error,
        })?;
        let stretch = |from: u64, end: u64| source.read(from..end.min(from + PAYLOAD_CHUNK_BYTES as u64));
        let check_chunks = || {
            for (chunk, (from, expected)) in stretches().zip(&manifest.chunks).enumerate() {
                if Digest::of(&stretch(from, found)?) != *expected {
                    return Err(BundleError::ChunkHash { chunk });
                }
            }
            Ok(())
        };
        // Weights lie before the graph, which is in the file.
        let weights_len = manifest.graph.offset;
        let space = || {
            let mut hasher = SpaceHasher::new(&manifest.input, manifest.inv_scale, &graph_bytes, weights_len);
            let end = start + weights_len;
            for from in (start..end).step_by(PAYLOAD_CHUNK_BYTES) {
                hasher.update(&stretch(from, end)?);
            }
            Ok(hasher.finish())
        };
        let (chunks_match, space) = both(manifest.payload_bytes >= TWO_THREADS_MIN, check_chunks, &space);
        chunks_match?;
        let space: SpaceId = space?;
        let graph: Graph = match postcard::take_from_bytes(&graph_bytes) {
            Ok((graph, [])) => graph,
            _ => return Err(BundleError::Manifest("its graph cannot be decoded")),
        };
        if space != manifest.space {
            return Err(BundleError::Space);
        }
        for case in &manifest.self_tests {
            let matches = |at: Blob, hash: Digest| blob(at).is_ok_and(|bytes| Digest::of(&bytes) == hash);
            let stored_matches = match case.input {
                SelfTestInput::Stored(input) => matches(input, case.input_hash),
                SelfTestInput::Seeded(_) => true,
            };
            if !matches(case.expected, case.expected_hash) || !stored_matches {
                return Err(BundleError::Manifest("a self-test case does not match its hash"));
            }
        }
        drop(graph_bytes);
        Ok(Bundle { source, head, manifest, graph })
    }
}

/// Reads a manifest and checks its caps, as a host does with the one that a board sends.
///
/// # Errors
/// [`BundleError::Manifest`] or [`BundleError::TooLarge`].
pub fn decode_manifest(bytes: &[u8]) -> Result<Manifest, BundleError> {
    let manifest: Manifest = match postcard::take_from_bytes(bytes) {
        Ok((manifest, [])) => manifest,
        _ => return Err(BundleError::Manifest("it cannot be decoded")),
    };
    check_manifest(&manifest)?;
    Ok(manifest)
}

impl Bundle {
    /// What the bundle says about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The manifest as encoded.
    pub fn manifest_bytes(&self) -> &[u8] {
        manifest_of(&self.head)
    }

    /// What is computed.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// A stretch of the payload.
    ///
    /// # Errors
    /// [`BundleError::Blob`] if it leaves the payload or is not aligned, [`BundleError::Read`].
    pub fn blob(&self, blob: Blob) -> Result<Cow<'_, [u8]>, BundleError> {
        blob_of(&self.source, payload_start(&self.head), blob)
    }

    /// The same with a buffer of the caller's, for one after another.
    ///
    /// # Errors
    /// As [`Self::blob`].
    pub fn blob_with<'a>(&'a self, blob: Blob, buffer: &'a mut Vec<u8>) -> Result<&'a [u8], BundleError> {
        self.source.read_with(range_of(&self.source, payload_start(&self.head), blob)?, buffer)
    }

    /// Bytes of the whole file.
    pub fn file_len(&self) -> u64 {
        self.source.len()
    }

    /// The whole file.
    ///
    /// # Errors
    /// [`BundleError::Read`].
    pub fn file_bytes(&self) -> Result<Cow<'_, [u8]>, BundleError> {
        self.source.read(0..self.source.len())
    }

    /// BLAKE3 of the whole file: its name in transfer and on disk.
    ///
    /// # Errors
    /// [`BundleError::Read`].
    pub fn file_hash(&self) -> Result<Digest, BundleError> {
        Ok(Digest::of(&self.file_bytes()?))
    }

    /// Input tensor of a self-test case, as bytes.
    pub fn self_test_input(&self, case: &SelfTest) -> Option<Vec<u8>> {
        match case.input {
            SelfTestInput::Stored(blob) => self.blob(blob).ok().map(Cow::into_owned),
            SelfTestInput::Seeded(seed) => {
                let tensor = self.graph.tensors.get(self.graph.input.0 as usize)?;
                // A crafted shape must not make us allocate without bound.
                (tensor.bytes() <= BUNDLE_BYTES_MAX).then(|| seeded_bytes(seed).take(tensor.bytes() as usize).collect())
            }
        }
    }
}

/// What the maker of a bundle states about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// Name of the bundle.
    pub name: String,
    /// How inputs are prepared.
    pub input: InputSpec,
    /// Length D of the embedding.
    pub embedding_len: u32,
    /// Integer steps per unit of the normalised embedding.
    pub inv_scale: f64,
    /// Same bits on every CPU.
    pub exact: bool,
    /// Where the backbone came from.
    pub origin: String,
    /// Licence of the weights.
    pub licence: String,
    /// Smallest class of board.
    pub board_class: String,
    /// Counts releases of one backbone.
    pub epoch: u64,
}

/// A self-test case to be written: its input, and the embedding it must give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// The input tensor.
    pub input: CaseInput,
    /// int8 `[D]`.
    pub expected: Vec<i8>,
}

/// Input of a [`Case`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaseInput {
    /// Written into the payload.
    Stored(Vec<i8>),
    /// Generated, see [`seeded_bytes`].
    Seeded(u32),
}

/// Builds a bundle: weights first, then [`BundleWriter::finish`]. Cloning it allows finishing twice: once to run the
/// bundle, once more with the self-test cases that the run gave.
#[derive(Clone, Debug, Default)]
pub struct BundleWriter {
    payload: Vec<u8>,
}

impl BundleWriter {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a blob of weights, biases, multipliers or a table.
    pub fn push(&mut self, bytes: &[u8]) -> Blob {
        self.payload.resize(align(self.payload.len() as u64) as usize, 0);
        let blob = Blob { offset: self.payload.len() as u64, bytes: bytes.len() as u64 };
        self.payload.extend_from_slice(bytes);
        blob
    }

    /// Appends i16 values, little-endian.
    pub fn push_i16(&mut self, values: &[i16]) -> Blob {
        self.push(&values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())
    }

    /// Appends i32 values, little-endian.
    pub fn push_i32(&mut self, values: &[i32]) -> Blob {
        self.push(&values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())
    }

    /// Appends u32 values, little-endian.
    pub fn push_u32(&mut self, values: &[u32]) -> Blob {
        self.push(&values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())
    }

    /// Appends f32 values, little-endian.
    pub fn push_f32(&mut self, values: &[f32]) -> Blob {
        self.push(&values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())
    }

    /// Appends i8 values.
    pub fn push_i8(&mut self, values: &[i8]) -> Blob {
        self.push(&to_bytes(values))
    }

    /// The unsigned file.
    ///
    /// # Errors
    /// [`BundleError::TooLarge`] or [`BundleError::Manifest`] if the draft itself breaks the format's rules.
    pub fn finish(mut self, draft: &Draft, graph: &Graph, cases: &[Case]) -> Result<Vec<u8>, BundleError> {
        let graph_bytes = encode(graph)?;
        let graph_blob = self.push(&graph_bytes);
        let weights = self.payload.get(..graph_blob.offset as usize).unwrap_or_default();
        let space = space_id(&draft.input, draft.inv_scale, &graph_bytes, weights);
        let input_len = graph.tensors.get(graph.input.0 as usize).map_or(0, |t| t.bytes());
        let self_tests = cases.iter().map(|case| self.push_case(case, input_len)).collect();
        let mut ops: Vec<String> = graph.steps.iter().map(|step| step.op.name().to_owned()).collect();
        ops.sort();
        ops.dedup();
        let manifest = Manifest {
            name: draft.name.clone(),
            space,
            input: draft.input.clone(),
            embedding_len: draft.embedding_len,
            inv_scale: draft.inv_scale,
            exact: draft.exact,
            ops,
            graph: graph_blob,
            self_tests,
            payload_bytes: self.payload.len() as u64,
            chunks: self.payload.chunks(PAYLOAD_CHUNK_BYTES).map(Digest::of).collect(),
            origin: draft.origin.clone(),
            licence: draft.licence.clone(),
            board_class: draft.board_class.clone(),
            epoch: draft.epoch,
            made_by: concat!("graft ", env!("CARGO_PKG_VERSION")).to_owned(),
        };
        check_manifest(&manifest)?;
        let manifest_bytes = encode(&manifest)?;
        let manifest_len = u32::try_from(manifest_bytes.len()).unwrap_or(u32::MAX);
        if manifest_len > MANIFEST_BYTES_MAX {
            let (found, limit) = (manifest_len.into(), MANIFEST_BYTES_MAX.into());
            return Err(BundleError::TooLarge { what: "manifest", found, limit });
        }
        let mut file = Vec::with_capacity(HEADER_BYTES + manifest_bytes.len() + 64 + self.payload.len());
        file.extend_from_slice(MAGIC);
        file.extend_from_slice(&VERSION.to_le_bytes());
        file.extend_from_slice(&[0; 2]);
        file.extend_from_slice(&manifest_len.to_le_bytes());
        file.resize(HEADER_BYTES, 0);
        file.extend_from_slice(&manifest_bytes);
        file.resize(align(file.len() as u64) as usize, 0);
        file.extend_from_slice(&self.payload);
        if file.len() as u64 > BUNDLE_BYTES_MAX {
            let (found, limit) = (file.len() as u64, BUNDLE_BYTES_MAX);
            return Err(BundleError::TooLarge { what: "file", found, limit });
        }
        Ok(file)
    }

    fn push_case(&mut self, case: &Case, input_len: u64) -> SelfTest {
        let (input, input_hash) = match &case.input {
            CaseInput::Stored(tensor) => (SelfTestInput::Stored(self.push_i8(tensor)), Digest::of(&to_bytes(tensor))),
            CaseInput::Seeded(seed) => {
                let tensor: Vec<u8> = seeded_bytes(*seed).take(input_len as usize).collect();
                (SelfTestInput::Seeded(*seed), Digest::of(&tensor))
            }
        };
        let expected_hash = Digest::of(&to_bytes(&case.expected));
        SelfTest { input, expected: self.push_i8(&case.expected), input_hash, expected_hash }
    }
}

fn check_manifest(manifest: &Manifest) -> Result<(), BundleError> {
    if manifest.name.is_empty() || manifest.name.len() > NAME_BYTES_MAX {
        return Err(BundleError::Manifest("its name is empty or longer than 64 bytes"));
    }
    if manifest.embedding_len == 0 || manifest.embedding_len as usize > EMBEDDING_LEN_MAX {
        return Err(BundleError::Manifest("its embedding length is zero or over 8192"));
    }
    if !(manifest.inv_scale.is_finite() && manifest.inv_scale > 0.0) {
        return Err(BundleError::Manifest("its embedding scale is not a positive number"));
    }
    if manifest.self_tests.len() > SELF_TESTS_MAX {
        return Err(BundleError::Manifest("it has more than 64 self-test cases"));
    }
    if !(manifest.input.array.inv_scale.is_finite() && manifest.input.array.inv_scale > 0.0) {
        return Err(BundleError::Manifest("its input scale is not a positive number"));
    }
    match &manifest.input.image {
        Some(image) if image.table.len() as u64 != 256 * u64::from(image.channels.count()) => {
            Err(BundleError::Manifest("its input table has not 256 values per channel"))
        }
        _ => Ok(()),
    }
}

/// What two functions give; side by side if that `pays` and the system gives a thread.
fn both<A, B: Send>(pays: bool, a: impl FnOnce() -> A, b: &(impl Fn() -> B + Sync)) -> (A, B) {
    std::thread::scope(|scope| {
        let thread = if pays { std::thread::Builder::new().spawn_scoped(scope, b).ok() } else { None };
        let a = a();
        // A thread that panicked is as good as none.
        let b = thread.and_then(|thread| thread.join().ok()).unwrap_or_else(b);
        (a, b)
    })
}

fn manifest_of(head: &[u8]) -> &[u8] {
    head.get(HEADER_BYTES..).unwrap_or_default()
}

fn payload_start(head: &[u8]) -> u64 {
    align(head.len() as u64)
}

fn blob_of(source: &Source, payload_start: u64, blob: Blob) -> Result<Cow<'_, [u8]>, BundleError> {
    source.read(range_of(source, payload_start, blob)?)
}

/// Where a blob lies in the file.
fn range_of(source: &Source, payload_start: u64, blob: Blob) -> Result<Range<u64>, BundleError> {
    let Blob { offset, bytes } = blob;
    let start = payload_start.checked_add(offset);
    let end = start.and_then(|start| start.checked_add(bytes)).filter(|end| *end <= source.len());
    match start.zip(end) {
        Some((start, end)) if offset.is_multiple_of(BLOB_ALIGN) => Ok(start..end),
        _ => Err(BundleError::Blob { offset, bytes }),
    }
}

fn encode<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, BundleError> {
    postcard::to_allocvec(value).map_err(|_| BundleError::Manifest("it cannot be encoded"))
}

fn align(n: u64) -> u64 {
    n.saturating_add(BLOB_ALIGN - 1) / BLOB_ALIGN * BLOB_ALIGN
}

fn to_bytes(values: &[i8]) -> Vec<u8> {
    values.iter().map(|v| *v as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{DataType, Op, Step, Tensor, TensorId};
    use crate::input::ArraySpec;
    use proptest::prelude::*;

    fn draft() -> Draft {
        Draft {
            name: "tiny".into(),
            input: InputSpec {
                array: ArraySpec { shape: vec![2, 1, 1], channels_first: true, inv_scale: 1.0, zero_point: 0 },
                image: None,
            },
            embedding_len: 2,
            inv_scale: 100.0,
            exact: true,
            origin: "test".into(),
            licence: "MIT".into(),
            board_class: String::new(),
            epoch: 1,
        }
    }

    fn graph() -> Graph {
        let tensor = |data_type| Tensor { shape: [1, 1, 2], data_type, scale: 1.0, zero_point: 0 };
        Graph {
            tensors: vec![tensor(DataType::I8), tensor(DataType::I32)],
            steps: vec![Step {
                name: "pool".into(),
                op: Op::GlobalSum,
                inputs: vec![TensorId(0)],
                output: TensorId(1),
            }],
            input: TensorId(0),
            output: TensorId(1),
        }
    }

    fn file() -> Vec<u8> {
        let mut writer = BundleWriter::new();
        writer.push_i32(&[1, -2, 3]);
        let cases = [
            Case { input: CaseInput::Stored(vec![3, 4]), expected: vec![60, 80] },
            Case { input: CaseInput::Seeded(7), expected: vec![1, 2] },
        ];
        writer.finish(&draft(), &graph(), &cases).unwrap()
    }

    #[test]
    fn what_is_written_can_be_read() {
        let bundle = UncheckedBundle::read(file()).unwrap().check().unwrap();
        assert_eq!(bundle.graph(), &graph());
        assert_eq!(bundle.manifest().ops, ["GlobalSum"]);
        assert_eq!(bundle.blob(Blob { offset: 0, bytes: 4 }).unwrap()[..], [1, 0, 0, 0]);
        for (offset, bytes) in [(1, 4), (0, u64::MAX), (u64::MAX - 63, 4), (1 << 20, 0)] {
            assert_eq!(bundle.blob(Blob { offset, bytes }), Err(BundleError::Blob { offset, bytes }));
        }
        assert_eq!(bundle.self_test_input(&bundle.manifest().self_tests[0]), Some(vec![3, 4]));
        let seeded = bundle.self_test_input(&bundle.manifest().self_tests[1]).unwrap();
        assert_eq!(Digest::of(&seeded), bundle.manifest().self_tests[1].input_hash);
    }

    #[test]
    fn a_file_is_read_as_memory_is() {
        let path = std::env::temp_dir().join(format!("graft-bundle-{}", std::process::id()));
        let open = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            File::open(&path).map_err(unread).and_then(UncheckedBundle::open).and_then(UncheckedBundle::check)
        };
        fn unread(error: std::io::Error) -> BundleError {
            BundleError::Read(error.to_string())
        }
        let (bytes, memory) = (file(), UncheckedBundle::read(file()).unwrap().check().unwrap());
        let bundle = open(&bytes).unwrap();
        assert_eq!((bundle.manifest(), bundle.graph()), (memory.manifest(), memory.graph()));
        assert_eq!(bundle.blob(bundle.manifest().graph), memory.blob(memory.manifest().graph));
        assert_eq!(bundle.file_bytes().unwrap()[..], bytes);
        // Cut while it is open.
        std::fs::write(&path, &bytes[..200]).unwrap();
        assert!(matches!(bundle.blob(bundle.manifest().graph), Err(BundleError::Read(_))));
        for at in [0, 8, 12, payload_start(&bundle.head) as usize, bytes.len() - 1] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 64;
            let expected = UncheckedBundle::read(damaged.clone()).and_then(UncheckedBundle::check).unwrap_err();
            assert_eq!(open(&damaged).unwrap_err(), expected);
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn file_is_golden() {
        let bundle = UncheckedBundle::read(file()).unwrap().check().unwrap();
        let file = bundle.file_bytes().unwrap();
        assert_eq!(file[..12], *b"graft\0b\n\x01\0\0\0");
        // All but the version of graft, which changes with every release.
        let manifest = Manifest { made_by: String::new(), ..bundle.manifest().clone() };
        let payload = &file[payload_start(&bundle.head) as usize..];
        let hashes = [Digest::of(&encode(&manifest).unwrap()).to_string(), Digest::of(payload).to_string()];
        assert_eq!(
            hashes,
            [
                "77d1ba3d47c2723cba711a5156d4e195553bd2f6e712998d13dfc144be52f55c",
                "6c5eff7e71df1fdaa09b8647c990ce169eed6bd0dc18946aa3eabc6f26219cf5",
            ]
        );
    }

    #[test]
    fn self_tests_and_texts_do_not_change_the_space_but_weights_do() {
        let space = |writer: BundleWriter, draft: &Draft, cases: &[Case]| {
            let bytes = writer.finish(draft, &graph(), cases).unwrap();
            UncheckedBundle::read(bytes).unwrap().check().unwrap().manifest().space
        };
        let plain = space(BundleWriter::new(), &draft(), &[]);
        let renamed = Draft { name: "other".into(), epoch: 9, ..draft() };
        let case = Case { input: CaseInput::Seeded(1), expected: vec![0, 1] };
        assert_eq!(space(BundleWriter::new(), &renamed, &[case]), plain);
        let mut writer = BundleWriter::new();
        writer.push(&[1]);
        assert_ne!(space(writer, &draft(), &[]), plain);
        assert_ne!(space(BundleWriter::new(), &Draft { inv_scale: 99.0, ..draft() }, &[]), plain);
    }

    #[test]
    fn other_files_are_refused_with_the_reason() {
        let error = |bytes| UncheckedBundle::read(bytes).and_then(UncheckedBundle::check).unwrap_err().to_string();
        assert_eq!(error(b"PK".to_vec()), "not a graft bundle: shorter than a bundle's header");
        assert_eq!(error(vec![0; 200]), "not a graft bundle: does not begin with a bundle's magic");
        let mut newer = file();
        newer[8] = 2;
        assert_eq!(error(newer), "bundle has format version 2; this graft reads version 1");
        let mut cut = file();
        let len = cut.len();
        cut.pop();
        assert_eq!(error(cut), format!("bundle has {} bytes; its header says {len}", len - 1));
        let mut damaged = file();
        *damaged.last_mut().unwrap() ^= 1;
        assert_eq!(error(damaged), "bundle is damaged: payload chunk 0 does not match its hash");
    }

    proptest! {
        #[test]
        fn damage_anywhere_is_found_or_harmless(at in 0..1000usize, flip in 1..=255u8) {
            let mut bytes = file();
            let at = at % bytes.len();
            bytes[at] ^= flip;
            // Key id, signature and reserved bytes are not hashed; everything else is refused or changes the manifest.
            let original = UncheckedBundle::read(file()).unwrap().check().unwrap();
            if let Ok(bundle) = UncheckedBundle::read(bytes).and_then(UncheckedBundle::check) {
                prop_assert_eq!(bundle.graph(), original.graph());
                prop_assert_eq!(bundle.manifest().space, original.manifest().space);
            }
        }
    }
}
