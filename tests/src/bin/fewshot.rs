//! Few-shot accuracy of a bundle on a folder of classes, int8 against float, with graft's own heads.
//!
//! Embeds every image twice, through the whole int8 path and through the float backbone (whose output is normalised
//! and stored like the other), then runs the episodes that `tests/peers/episodes.py` drew, so that graft, its float
//! twin and the peers' reference see the same ones. Prints one JSON line per head and kind of embedding: mean
//! accuracy in percent with its 95 % interval, and the paired difference to float.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Parser;
use graft_bundle::Bundle;
use graft_engine::Engine;
use graft_heads::{Head, SampleSet};
use graft_input::Limits;
use graft_quantize::{FloatBackbone, ImportOptions};
use graft_tests::read_bundle;
use graft_wire::message::HeadChoice;
use graft_wire::{DeviceId, Digest, Label, LabelKind, Part, SampleMeta, SessionId, SpaceId};
use serde_json::json;

#[derive(Parser)]
#[command(about = "Few-shot accuracy of a bundle: int8 against float on given episodes")]
struct Args {
    /// Bundle made from MODEL.
    bundle: PathBuf,
    /// The float ONNX model, for the float twin.
    model: PathBuf,
    /// Tensor at which the bundle was cut.
    cut: String,
    /// One folder per class.
    data: PathBuf,
    /// Files written by tests/peers/episodes.py for this folder.
    episodes: Vec<PathBuf>,
    /// The float network's value of a u8 pixel v is (v - mean) / std.
    #[arg(long, default_value_t = 127.5)]
    mean: f32,
    /// See --mean.
    #[arg(long, default_value_t = 127.5)]
    std: f32,
}

/// One embedding per image, by index in the episodes file.
type Embeddings = Vec<Vec<i8>>;

/// Image index and class index.
type Item = (usize, usize);

struct Episode {
    support: Vec<Item>,
    query: Vec<Item>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let bundle = read_bundle(&args.bundle)?;
    let first = args.episodes.first().context("give at least one episodes file")?;
    let (images, _) = read_episodes(first)?;
    let paths: Vec<PathBuf> = images.iter().map(|image| args.data.join(image)).collect();
    let (int8, float) = embed_all(&args, &bundle, &paths)?;
    let cosines: Vec<f64> = int8.iter().zip(&float).map(|(a, b)| cosine(a, b)).collect();
    let worst = cosines.iter().copied().fold(1.0, f64::min);
    println!(
        "{}",
        json!({"images": images.len(), "embedding_cosine_mean": mean(&cosines), "embedding_cosine_min": worst})
    );
    for path in &args.episodes {
        let (again, episodes) = read_episodes(path)?;
        if again != images {
            bail!("{} lists other images than {}", path.display(), first.display());
        }
        let shots = episodes.first().map_or(json!(null), |episode| shots_of(&episode.support));
        for (name, choice) in [("ncm", HeadChoice::Ncm), ("ridge", HeadChoice::Ridge), ("auto", HeadChoice::Auto)] {
            let a = accuracies(&int8, &episodes, choice)?;
            let b = accuracies(&float, &episodes, choice)?;
            let difference: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a - b).collect();
            println!(
                "{}",
                json!({
                    "shots": shots, "head": name, "episodes": episodes.len(),
                    "int8": percent(&a), "float": percent(&b), "int8_minus_float": percent(&difference),
                })
            );
        }
    }
    Ok(())
}

/// Reads `# index path` lines and episodes.
fn read_episodes(path: &Path) -> Result<(Vec<String>, Vec<Episode>)> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut images = Vec::new();
    let mut episodes = Vec::new();
    for line in text.lines() {
        if let Some(image) = line.strip_prefix("# ") {
            let (index, image) = image.split_once(' ').context("image line without a path")?;
            if index.parse() != Ok(images.len()) {
                bail!("image {index} stands at place {}", images.len());
            }
            images.push(image.to_owned());
        } else {
            let (support, query) = line.split_once('|').context("episode without `|`")?;
            episodes.push(Episode { support: read_items(support)?, query: read_items(query)? });
        }
    }
    Ok((images, episodes))
}

/// Support samples per class: a number, or a list where classes differ.
fn shots_of(support: &[Item]) -> serde_json::Value {
    let n_classes = support.iter().map(|(_, class)| class + 1).max().unwrap_or(0);
    let counts: Vec<usize> = (0..n_classes).map(|k| support.iter().filter(|(_, class)| *class == k).count()).collect();
    if counts.iter().all(|n| Some(n) == counts.first()) { json!(counts.first()) } else { json!(counts) }
}

fn read_items(text: &str) -> Result<Vec<Item>> {
    text.split_whitespace()
        .map(|item| {
            let (image, class) = item.split_once(':').context("item without `:`")?;
            Ok((image.parse()?, class.parse()?))
        })
        .collect()
}

fn embed_all(args: &Args, bundle: &Bundle, paths: &[PathBuf]) -> Result<(Embeddings, Embeddings)> {
    let mut engine = Engine::load(bundle)?;
    let backbone = FloatBackbone::open(&args.model, &ImportOptions::default(), Some(&args.cut))?;
    let (mut int8, mut float) = (Vec::new(), Vec::new());
    for path in paths {
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        let tensor = graft_input::prepare(&bytes, &bundle.manifest().input, &Limits::default())
            .with_context(|| path.display().to_string())?;
        int8.push(engine.embed(&tensor)?);
        float.push(store(&backbone.embed(&floats(&bytes, bundle, args)?)?, bundle.manifest().inv_scale));
    }
    Ok((int8, float))
}

/// The float network's input `[C, H, W]`: the same pixels as the bundle's, not quantized.
fn floats(bytes: &[u8], bundle: &Bundle, args: &Args) -> Result<Vec<f32>> {
    let spec = bundle.manifest().input.image.as_ref().context("bundle takes no pictures")?;
    let pixels = graft_input::geometry(&graft_input::decode_picture(bytes, &Limits::default())?, spec)?;
    let n_channels = spec.channels.count() as usize;
    let planes = (0..n_channels).flat_map(|c| pixels.iter().skip(c).step_by(n_channels));
    Ok(planes.map(|v| (f32::from(*v) - args.mean) / args.std).collect())
}

/// Normalises a float backbone output and stores it as int8 like a board stores its own.
fn store(features: &[f32], inv_scale: f64) -> Vec<i8> {
    let norm = features.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    features.iter().map(|x| (f64::from(*x) / norm * inv_scale).round_ties_even().clamp(-127.0, 127.0) as i8).collect()
}

/// Accuracy of each episode in 0..1.
fn accuracies(embeddings: &Embeddings, episodes: &[Episode], choice: HeadChoice) -> Result<Vec<f64>> {
    episodes
        .iter()
        .map(|episode| {
            let mut set = SampleSet::new(SpaceId([0; 32]), embeddings[0].len());
            for (image, class) in &episode.support {
                set.insert(meta(*image, *class), &embeddings[*image])?;
            }
            let head = Head::train(&set, choice)?;
            let right = episode.query.iter().filter(|(image, class)| {
                let best = head.classify(&embeddings[*image]).best;
                head.classes()[best].as_str() == label(*class)
            });
            Ok(right.count() as f64 / episode.query.len() as f64)
        })
        .collect()
}

/// Every image is an input and a session of its own.
fn meta(image: usize, class: usize) -> SampleMeta {
    let digest = Digest::of(&(image as u64).to_le_bytes());
    let mut session = [0; 8];
    session.copy_from_slice(&digest.0[..8]);
    SampleMeta {
        label: Label::new(&label(class)).expect("a class number is a label"),
        session: SessionId(session),
        origin: DeviceId([0; 16]),
        digest,
        part: Part::Whole,
        kind: LabelKind::Class,
    }
}

fn label(class: usize) -> String {
    format!("class {class:03}")
}

/// Mean and 95 % interval in percent.
fn percent(values: &[f64]) -> [f64; 2] {
    let centre = mean(values);
    let variance = values.iter().map(|v| (v - centre).powi(2)).sum::<f64>() / values.len() as f64;
    let interval = 1.96 * (variance / values.len() as f64).sqrt();
    [centre, interval].map(|v| (1e4 * v).round() / 100.0)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn cosine(a: &[i8], b: &[i8]) -> f64 {
    let dot = |a: &[i8], b: &[i8]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
