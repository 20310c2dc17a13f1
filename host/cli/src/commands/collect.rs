//! `graft collect`: labelled files become samples on a board.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use graft_bundle::UncheckedBundle;
use graft_client::{Board, CallError, InputRef, NewSample};
use graft_engine::Engine;
use graft_wire::{Label, LabelKind, Part, SessionId, SpaceId, WireError};
use serde_json::json;

use super::Done;
use crate::args::{CollectArgs, EmbedArg};
use crate::context::Context;
use crate::devices::{self, Device};
use crate::error::{CliError, Exit, chain};
use crate::files::{Found, Skipped, class_label, find, label_kind};
use crate::inputs::{Prepared, Preparer};
use crate::interrupt;
use crate::output::{Unit, count, plain_table};

/// A file with its label.
struct Example {
    file: Found,
    label: Label,
    kind: LabelKind,
}

/// What happened to the files of one class.
#[derive(Clone, Copy, Default)]
struct Tally {
    n_added: u32,
    n_known: u32,
}

/// Runs `graft collect`.
///
/// # Errors
/// No usable file, or whatever stops board or link; what was stored before stays.
pub fn run(context: &Context, args: &CollectArgs) -> Result<Done, CliError> {
    let mut skipped = Skipped::default();
    let examples = examples(args, &mut skipped)?;
    let searched: Vec<String> = args.from.iter().map(|p| p.display().to_string()).collect();
    let searched = searched.join(" ");
    if examples.is_empty() {
        skipped.report(&context.output);
        skipped.verdict(0, args.strict, &searched)?;
    }
    let mut device = devices::one(context)?;
    let space = device.bundle()?.space;
    let preparer = Preparer::new(&device.call(Board::manifest)?);
    let mut engine = host_engine(args, &device)?;
    let mut sessions = Sessions::new(&args.session)?;

    let mut tallies: BTreeMap<(Label, LabelKind), Tally> = BTreeMap::new();
    let mut n_used = 0usize;
    let mut embed_us = 0u64;
    let mut progress = context.output.progress("collecting", examples.len() as u64, Unit::Items);
    for (i, example) in examples.iter().enumerate() {
        progress.at(i as u64);
        let path = &example.file.path;
        let stored = |n: usize| {
            format!(
                "{} of {} are stored on {}; the same command again goes on",
                n,
                count(examples.len() as u64, "file"),
                device_name(context)
            )
        };
        interrupt::check(|| stored(n_used))?;
        let prepared = match preparer.prepare(path) {
            Ok(prepared) => prepared,
            Err(reason) => {
                skipped.add(path, reason);
                continue;
            }
        };
        let session = sessions.of(&example.file)?;
        match send(&mut device, &mut engine, example, session, &prepared, space) {
            Ok((added, us)) => {
                n_used += 1;
                embed_us += u64::from(us);
                let tally = tallies.entry((example.label.clone(), example.kind)).or_default();
                *(if added { &mut tally.n_added } else { &mut tally.n_known }) += 1;
                let known = if added { "" } else { " (known already)" };
                context.output.detail(format!("{} -> {}{known}", path.display(), example.label));
            }
            Err(Refused::File(reason)) => skipped.add(path, reason),
            Err(Refused::All(mut error)) => {
                error.what = format!("{}; {}", error.what, stored(n_used));
                return Err(error);
            }
        }
    }
    progress.at(examples.len() as u64);
    drop(progress);

    let n_added: u32 = tallies.values().map(|t| t.n_added).sum();
    let n_known: u32 = tallies.values().map(|t| t.n_known).sum();
    print(context, &device, &tallies);
    skipped.report(&context.output);
    let object = json!({
        "schema": "graft.collect/1", "device": device.name, "device_id": device.id().to_string(),
        "space": space.to_string(), "n_added": n_added, "n_known": n_known, "n_skipped": skipped.len(),
        "ms": embed_us as f64 / 1e3, "skipped": skipped.json(),
        "classes": tallies.iter().map(|((label, kind), tally)| json!({
            "label": label.as_str(), "negative": *kind == LabelKind::Negative,
            "n_added": tally.n_added, "n_known": tally.n_known,
        })).collect::<Vec<_>>(),
    });
    Ok(Done { object, failure: skipped.verdict(n_used, args.strict, &searched).err() })
}

fn device_name(context: &Context) -> &str {
    context.devices.first().map_or("the board", |name| name)
}

/// Files with labels, in order; those without one are skipped.
fn examples(args: &CollectArgs, skipped: &mut Skipped) -> Result<Vec<Example>, CliError> {
    let named = args.class.as_deref().map(class_label).transpose()?;
    let mut examples = Vec::new();
    let mut n_loose = 0;
    for root in &args.from {
        for file in find(root, skipped)? {
            let label = match (&named, &file.class) {
                (Some(label), _) => Ok(label.clone()),
                (None, Some(folder)) => Label::new(folder).map_err(|e| format!("folder name is no class: {e}")),
                (None, None) => {
                    n_loose += 1;
                    Err("lies in no class folder, and --class is not given".to_owned())
                }
            };
            match label {
                Ok(label) => examples.push(Example { kind: label_kind(label.as_str()), file, label }),
                Err(reason) => skipped.add(&file.path, reason),
            }
        }
    }
    if examples.is_empty() && n_loose > 0 {
        let what = format!("{} without a class", count(n_loose as u64, "file"));
        return Err(CliError::usage(what).with_help("name it: --class NAME (or make one folder per class)"));
    }
    Ok(examples)
}

/// The sessions of one run.
enum Sessions {
    Each,
    Folder(HashMap<PathBuf, SessionId>),
    Named(SessionId),
}

impl Sessions {
    fn new(option: &str) -> Result<Self, CliError> {
        match option.trim() {
            "each" => Ok(Sessions::Each),
            "folder" => Ok(Sessions::Folder(HashMap::new())),
            "" => Err(CliError::usage("--session is empty; a name, each or folder is needed")),
            name => Ok(Sessions::Named(SessionId::named(name))),
        }
    }

    fn of(&mut self, file: &Found) -> Result<SessionId, CliError> {
        match self {
            Sessions::Each => random_session(),
            Sessions::Named(session) => Ok(*session),
            Sessions::Folder(folders) => match folders.get(&file.folder) {
                Some(session) => Ok(*session),
                None => {
                    let session = random_session()?;
                    folders.insert(file.folder.clone(), session);
                    Ok(session)
                }
            },
        }
    }
}

fn random_session() -> Result<SessionId, CliError> {
    let mut id = [0u8; SessionId::LEN];
    getrandom::fill(&mut id).map_err(|e| CliError::failed(format!("no random numbers: {e}")))?;
    Ok(SessionId(id))
}

/// Who refused: this file is at fault, or nothing more can be sent.
enum Refused {
    File(String),
    All(CliError),
}

/// Sends one example; returns whether it was new and the board's time to embed, in µs.
fn send(
    device: &mut Device,
    engine: &mut Option<Engine>,
    example: &Example,
    session: SessionId,
    prepared: &Prepared,
    space: SpaceId,
) -> Result<(bool, u32), Refused> {
    let embedding: Vec<i8>;
    let input = match engine {
        None => InputRef::Tensor(&prepared.tensor),
        Some(engine) => {
            embedding = engine.embed(&prepared.tensor).map_err(|e| Refused::File(chain(&e)))?;
            InputRef::Embedding(&embedding)
        }
    };
    let sample = NewSample {
        space,
        label: example.label.clone(),
        session,
        digest: prepared.digest,
        part: Part::Whole,
        kind: example.kind,
    };
    let collected = device.try_call(|board| board.collect(&sample, input));
    match collected {
        Ok(collected) => Ok((collected.added, collected.embed_us)),
        Err(CallError::Refused(refused @ (WireError::NoSignal | WireError::Tombstoned))) => {
            Err(Refused::File(refused.to_string()))
        }
        Err(error) => Err(Refused::All(devices::call_error(&error, &device.name))),
    }
}

/// The backbone on this computer, for `--embed host`.
fn host_engine(args: &CollectArgs, device: &Device) -> Result<Option<Engine>, CliError> {
    let (EmbedArg::Host, Some(path)) = (args.embed, &args.bundle) else { return Ok(None) };
    let bundle = read_bundle(path)?;
    let active = device.bundle()?;
    let space = bundle.manifest().space;
    if space != active.space {
        return Err(CliError::new(
            Exit::Incompatible,
            format!("{} is of space {space:.12}, the board works in {:.12}", path.display(), active.space),
        )
        .with_help(format!("graft flash {} -d {}", path.display(), device.name)));
    }
    if !bundle.manifest().exact {
        return Err(CliError::new(
            Exit::Incompatible,
            format!("{} is not exact: this computer and the board may embed differently", path.display()),
        )
        .with_help("leave out --embed host"));
    }
    Engine::load(&bundle).map(Some).map_err(|e| CliError::new(Exit::Incompatible, chain(&e)).at(path.display()))
}

/// Reads and checks a bundle file.
///
/// # Errors
/// Exit code 1 if it is none, 4 if it is of another version, 5 if it is damaged.
pub fn read_bundle(path: &Path) -> Result<graft_bundle::Bundle, CliError> {
    use graft_bundle::BundleError;
    let bytes = crate::files::read_capped(path, graft_wire::limits::BUNDLE_BYTES_MAX).map_err(|e| {
        CliError::failed(format!("{}: {e}", path.display())).with_help("graft quantize MODEL.onnx --calib DIR")
    })?;
    UncheckedBundle::read(bytes).and_then(UncheckedBundle::check).map_err(|e| {
        let (exit, help) = match e {
            BundleError::NotABundle(_) => (Exit::Failed, "make one: graft quantize MODEL.onnx --calib DIR"),
            BundleError::Version { .. } => {
                (Exit::Incompatible, "update graft, or make it again: graft quantize MODEL.onnx --calib DIR")
            }
            _ => (Exit::Unverified, "nothing was sent; copy it again, or: graft quantize MODEL.onnx --calib DIR"),
        };
        CliError::new(exit, format!("{}: {e}", path.display())).with_help(help)
    })
}

fn print(context: &Context, device: &Device, tallies: &BTreeMap<(Label, LabelKind), Tally>) {
    if tallies.is_empty() {
        return;
    }
    let mut table = plain_table(&["class", "added", "known already"], &[1, 2]);
    for ((label, kind), tally) in tallies {
        let name = if *kind == LabelKind::Negative { format!("{label} (no class)") } else { label.to_string() };
        table.add_row([name, tally.n_added.to_string(), tally.n_known.to_string()]);
    }
    context.output.table(&table);
    context.output.hint(format!("graft train -d {}", device.name));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::tests::TestDir;

    fn args(from: &Path, class: Option<&str>) -> CollectArgs {
        CollectArgs {
            from: vec![from.to_owned()],
            class: class.map(str::to_owned),
            session: "each".into(),
            strict: false,
            embed: EmbedArg::Device,
            bundle: None,
        }
    }

    #[test]
    fn folders_name_classes_and_negatives() {
        let dir = TestDir::new("examples");
        for name in ["bolt/1.jpg", "none/2.jpg", "3.jpg"] {
            dir.file(name, b"x");
        }
        let mut skipped = Skipped::default();
        let found = examples(&args(&dir.0, None), &mut skipped).unwrap();
        let labels: Vec<_> = found.iter().map(|e| (e.label.as_str(), e.kind)).collect();
        assert_eq!(labels, [("bolt", LabelKind::Class), ("none", LabelKind::Negative)]);
        assert_eq!(skipped.len(), 1);
        let all = examples(&args(&dir.0, Some("nut")), &mut skipped).unwrap();
        assert!(all.len() == 3 && all.iter().all(|e| e.label.as_str() == "nut"));
    }

    #[test]
    fn files_without_a_class_are_a_usage_error_with_the_option_to_add() {
        let dir = TestDir::new("loose");
        let file = dir.file("3.jpg", b"x");
        let error = examples(&args(&file, None), &mut Skipped::default()).err().unwrap();
        assert_eq!(error.exit, Exit::Usage);
        assert!(error.help.contains("--class NAME"));
        assert_eq!(examples(&args(&file, Some(" ")), &mut Skipped::default()).err().unwrap().exit, Exit::Usage);
    }

    #[test]
    fn sessions_are_per_file_per_folder_or_named() {
        let file = |folder: &str| Found { path: "x".into(), class: None, folder: folder.into() };
        let mut each = Sessions::new("each").unwrap();
        assert_ne!(each.of(&file("a")).unwrap(), each.of(&file("a")).unwrap());
        let mut folder = Sessions::new("folder").unwrap();
        assert_eq!(folder.of(&file("a")).unwrap(), folder.of(&file("a")).unwrap());
        assert_ne!(folder.of(&file("a")).unwrap(), folder.of(&file("b")).unwrap());
        let mut named = Sessions::new("monday").unwrap();
        assert_eq!(named.of(&file("a")).unwrap(), SessionId::named("monday"));
        assert!(Sessions::new(" ").is_err());
    }

    #[test]
    fn what_is_no_bundle_is_named() {
        let dir = TestDir::new("bundle");
        let path = dir.file("photo.jpg", b"\xff\xd8\xff\xe0 and so on");
        let error = read_bundle(&path).err().unwrap();
        assert_eq!(error.exit, Exit::Failed);
        assert!(error.what.contains("photo.jpg: not a graft bundle"), "{error}");
        assert!(read_bundle(&dir.0.join("none")).err().unwrap().what.contains("no such file"));
    }
}
