//! Embeddings of the asset data sets, as `tests/peers/unknowns.py embed` caches them, and draws from them.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use graft_heads::SampleSet;
use graft_wire::{DeviceId, Digest, Label, LabelKind, Part, SampleMeta, SessionId, SpaceId};

/// A cached data set.
pub struct Embeddings {
    /// Class of each sample; `_unknown` for one of no class.
    pub labels: Vec<String>,
    /// int8 `[N][D]`.
    pub rows: Vec<Vec<i8>>,
}

/// One draw: sample numbers.
pub struct Draw {
    /// What a head is trained on.
    pub support: Vec<usize>,
    /// Other samples of the same classes.
    pub known: Vec<usize>,
    /// Samples of other classes.
    pub unknown: Vec<usize>,
}

/// Names of the data sets in `cache`, ascending.
///
/// # Errors
/// If the folder cannot be read.
pub fn names(cache: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(cache).with_context(|| cache.display().to_string())?;
    let names: BTreeSet<String> =
        entries.filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".emb")?.to_owned())).collect();
    Ok(names.into_iter().collect())
}

impl Embeddings {
    /// Reads `cache/name.emb`.
    ///
    /// # Errors
    /// If it is absent or not what `unknowns.py` writes.
    pub fn read(cache: &Path, name: &str) -> Result<Self> {
        let path = cache.join(format!("{name}.emb"));
        let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
        let mut rest = &bytes[..];
        let mut line = || -> Result<String> {
            let end = rest.iter().position(|byte| *byte == b'\n').context("file ends within a line")?;
            let text = std::str::from_utf8(&rest[..end])?.to_owned();
            rest = &rest[end + 1..];
            Ok(text)
        };
        let header = line()?;
        let size = header.strip_prefix("graft embeddings ").and_then(|size| size.split_once(' '));
        let (n, d) = size.context("not a file of embeddings")?;
        let (n, d): (usize, usize) = (n.parse()?, d.parse()?);
        let labels: Result<Vec<String>> =
            (0..n).map(|_| Ok(line()?.split('\t').next().unwrap_or_default().to_owned())).collect();
        ensure!(
            rest.len() == n * d,
            "{} holds {} bytes of embeddings; {n} x {d} are named",
            path.display(),
            rest.len()
        );
        let rows = rest.chunks_exact(d).map(|row| row.iter().map(|byte| byte.cast_signed()).collect()).collect();
        Ok(Self { labels: labels?, rows })
    }

    /// Sample `i` under `label`, an input and a session of its own.
    ///
    /// # Errors
    /// If `label` is none.
    pub fn meta(&self, i: usize, label: &str) -> Result<SampleMeta> {
        let digest = Digest::of(&(i as u64).to_le_bytes());
        let mut session = [0; 8];
        session.copy_from_slice(&digest.0[..8]);
        Ok(SampleMeta {
            label: Label::new(label)?,
            session: SessionId(session),
            origin: DeviceId([0; 16]),
            digest,
            part: Part::Whole,
            kind: LabelKind::Class,
        })
    }

    /// The set of some samples under their own labels.
    ///
    /// # Errors
    /// If an embedding is none.
    pub fn set(&self, samples: &[usize]) -> Result<SampleSet> {
        self.set_as(samples.iter().map(|i| (*i, &self.labels[*i][..])))
    }

    /// The set of some samples under given labels.
    ///
    /// # Errors
    /// If an embedding or a label is none.
    pub fn set_as<'a>(&self, samples: impl IntoIterator<Item = (usize, &'a str)>) -> Result<SampleSet> {
        let mut set = SampleSet::new(SpaceId([0; 32]), self.rows.first().map_or(0, Vec::len));
        for (i, label) in samples {
            set.insert(self.meta(i, label)?, &self.rows[i])?;
        }
        Ok(set)
    }
}

/// Knuth's MMIX linear congruential generator: the same draws everywhere.
pub struct Random(pub u64);

impl Random {
    /// A number in `0..bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize * bound) >> 31
    }

    /// Brings a slice into random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

/// Reads `cache/name.draws`: per line three lists of sample numbers with `|` between.
///
/// # Errors
/// If it is absent or malformed.
pub fn read_draws(cache: &Path, name: &str) -> Result<Vec<Draw>> {
    let path = cache.join(format!("{name}.draws"));
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let numbers = |part: Option<&str>| -> Result<Vec<usize>> {
        part.context("a draw has three parts")?.split_whitespace().map(|number| Ok(number.parse()?)).collect()
    };
    text.lines()
        .map(|line| {
            let mut parts = line.split('|');
            let mut next = || numbers(parts.next());
            Ok(Draw { support: next()?, known: next()?, unknown: next()? })
        })
        .collect()
}
