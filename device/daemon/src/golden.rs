//! Hashes of everything between a file and a head, to compare one CPU with another.

use std::fs;
use std::path::{Path, PathBuf};

use graft_bundle::{Bundle, UncheckedBundle};
use graft_engine::{Engine, detect_isa};
use graft_heads::{Head, SampleSet};
use graft_input::{Limits, prepare};
use graft_wire::message::HeadKind;
use graft_wire::{DeviceId, Digest, Label, LabelKind, Part, SampleMeta, SessionId};

/// Prints per input its name, BLAKE3 of the tensor, and BLAKE3 of the embedding.
pub fn run(bundle: &Path, inputs: &[PathBuf]) -> Result<(), String> {
    let (bundle, mut engine) = load(bundle)?;
    for path in inputs {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        embed(&bundle, &mut engine, path, &name)?;
    }
    Ok(())
}

/// As [`run`] for `DIR/CLASS/*` in the order of names, then trains a head of each kind on them and prints BLAKE3 of their bytes.
///
/// Origin and sessions follow from names alone, so that every CPU trains on the same sample ids.
pub fn golden(bundle: &Path, dir: &Path) -> Result<(), String> {
    let (bundle, mut engine) = load(bundle)?;
    let mut set = SampleSet::new(bundle.manifest().space, engine.embedding_len());
    for folder in entries(dir)?.into_iter().filter(|path| path.is_dir()) {
        let class = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let label = Label::new(&class).map_err(|error| format!("{class}: {error}"))?;
        for path in entries(&folder)?.into_iter().filter(|path| path.is_file()) {
            let name = format!("{class}/{}", path.file_name().unwrap_or_default().to_string_lossy());
            let (digest, embedding) = embed(&bundle, &mut engine, &path, &name)?;
            let meta = SampleMeta {
                label: label.clone(),
                session: SessionId::named(&name),
                origin: DeviceId([0; 16]),
                digest,
                part: Part::Whole,
                kind: LabelKind::Class,
            };
            set.insert(meta, &embedding).map_err(|error| format!("{name}: {error}"))?;
        }
    }
    println!("set {} {}", set.len(), set.digest());
    for kind in HeadKind::ALL {
        let head = Head::train(&set, kind.choice()).map_err(|error| error.to_string())?;
        println!("head {} {}", kind.name(), head.digest());
    }
    Ok(())
}

fn load(path: &Path) -> Result<(Bundle, Engine), String> {
    let file = fs::File::open(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let bundle = UncheckedBundle::open(file).and_then(UncheckedBundle::check);
    let bundle = bundle.map_err(|error| format!("{}: {error}", path.display()))?;
    let isa = detect_isa().map_err(|error| error.to_string())?;
    let mut engine = Engine::load_with(&bundle, isa, 1).map_err(|error| format!("{}: {error}", path.display()))?;
    engine.self_test(&bundle).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok((bundle, engine))
}

/// Prints one input's line; returns the digest of its file and its embedding.
fn embed(bundle: &Bundle, engine: &mut Engine, path: &Path, name: &str) -> Result<(Digest, Vec<i8>), String> {
    let bytes = fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let named = |error: String| format!("{}: {error}", path.display());
    let tensor = prepare(&bytes, &bundle.manifest().input, &Limits::default()).map_err(|e| named(e.to_string()))?;
    let embedding = engine.embed(&tensor).map_err(|error| named(error.to_string()))?;
    println!("{name} {} {}", digest(&tensor), digest(&embedding));
    Ok((Digest::of(&bytes), embedding))
}

fn digest(values: &[i8]) -> Digest {
    Digest::of(&values.iter().map(|value| value.cast_unsigned()).collect::<Vec<u8>>())
}

/// Entries that are not hidden, by name.
fn entries(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let read = |error: std::io::Error| format!("cannot list {}: {error}", dir.display());
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(read)? {
        let entry = entry.map_err(read)?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}
