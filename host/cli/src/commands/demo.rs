//! `graft demo`: the whole story on two simulated boards.
//!
//! Every step is a command line that is printed, parsed and run like a typed one. The backbone and the pictures are
//! inside the program; they are written into a folder that is removed at the end, or kept with `--keep`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Parser;
use serde_json::{Value, json};

use super::{Done, execute};
use crate::args::{Cli, DemoArgs};
use crate::context::Context;
use crate::error::CliError;
use crate::files::{io_text, quoted};
use crate::interrupt;
use crate::output::{Output, percent};

/// The backbone and the pictures: path in the demo's folder, bytes.
const FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/demo_files.rs"));
/// Where state lies in the demo's folder.
const DATA_DIR: &str = "data";

/// Runs `graft demo`.
///
/// # Errors
/// A folder that cannot be used, or whatever stops a step.
pub fn run(context: &Context, args: &DemoArgs) -> Result<Done, CliError> {
    let started = Instant::now();
    let folder = Folder::new(args.keep.as_deref())?;
    let mut story = Story { context, data_dir: folder.path.join(DATA_DIR) };
    let say = |text: &str| context.output.line(text);
    let (taught_b, picture) =
        class_of("board-b").zip(class_of("board-b").and_then(|c| picture_of("test", c))).ok_or_else(|| {
            CliError::failed("this build carries no demo pictures").with_help("build it from a whole checkout")
        })?;

    say("Two boards, one backbone, a few photos of hand-drawn signs. Nothing here has seen these signs before.");
    story.step("The host makes the backbone small: int8, tested against the float original.")?;
    story.type_in("graft quantize model.onnx --calib calib --resize strokes --norm unit -o glyphs.graft")?;
    story.step("Both boards get it. From here on the backbone never changes.")?;
    story.type_in("graft flash glyphs.graft -d sim:board-a -d sim:board-b")?;
    story.step("Each board is shown three signs, a few photos of each; the folder's name is the class.")?;
    story.type_in("graft collect -d sim:board-a --from board-a")?;
    story.type_in("graft collect -d sim:board-b --from board-b")?;
    story.step("Each board learns its own three signs, in milliseconds.")?;
    story.type_in("graft train -d sim:board-a -d sim:board-b")?;
    story.step(&format!("Board A has never been shown {taught_b}, so it can only answer with what it knows."))?;
    story.type_in(&format!("graft predict -d sim:board-a {picture}"))?;
    story.step("New photos of all six signs: board A is right on its own three at best.")?;
    let before = story.type_in("graft eval -d sim:board-a test")?;
    story.step("What the boards know is merged on the host; only embeddings travel, no photos.")?;
    story.type_in("graft sync -d sim:board-a -d sim:board-b")?;
    story.type_in("graft push -d sim:board-a -d sim:board-b")?;
    story.type_in("graft train -d sim:board-a -d sim:board-b")?;
    story.step("The same photos again, on the same board.")?;
    let after = story.type_in("graft eval -d sim:board-a test")?;
    story.type_in(&format!("graft predict -d sim:board-a {picture}"))?;

    let accuracy = |object: &Value| object.get("accuracy").and_then(Value::as_f64).unwrap_or(0.0);
    let n = after.get("n").and_then(Value::as_u64).unwrap_or(0);
    let n_classes = after.get("classes").and_then(Value::as_array).map_or(0, Vec::len);
    let seconds = started.elapsed().as_secs_f64();
    say("");
    say(&format!(
        "Result: on {n} new photos of {n_classes} signs, board A was right on {} before the merge and on {} after it.",
        percent(accuracy(&before)),
        percent(accuracy(&after))
    ));
    say("It learned the other board's signs without seeing one photo of them, and without retraining the backbone.");
    say(&format!("That took {seconds:.0} s, all of it on this computer."));
    say("");
    for line in next_steps(args.keep.is_some().then_some(&folder.path)) {
        say(&line);
    }
    Ok(Done::ok(json!({
        "schema": "graft.demo/1", "accuracy_before": accuracy(&before), "accuracy": accuracy(&after),
        "balanced_accuracy": after.get("balanced_accuracy"), "n": n, "n_classes": n_classes, "seconds": seconds,
        "folder": args.keep.is_some().then(|| folder.path.to_string_lossy()),
    })))
}

/// What to type next, for someone who has photos of their own.
fn next_steps(kept: Option<&PathBuf>) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(path) = kept {
        lines.push("Everything is kept; to type more commands there:".to_owned());
        lines.push(format!("  cd {} && export GRAFT_DATA_DIR=\"$PWD/{DATA_DIR}\"", quoted(path)));
        lines.push("  graft samples ls -d sim:board-a".to_owned());
        lines.push(String::new());
    }
    let own = [
        "Now with your own photos, one folder per class (say photos/cup, photos/key), and an ONNX backbone for photos:",
        "  graft inspect MODEL.onnx",
        "  graft quantize MODEL.onnx --calib photos --norm imagenet -o mine.graft",
        "  graft flash mine.graft -d sim:mine",
        "  graft collect -d sim:mine --from photos",
        "  graft train -d sim:mine",
        "  graft predict -d sim:mine NEW.jpg",
        "On a real board: the same with -d ssh:pi@HOST or -d serial:/dev/ttyUSB0 in place of -d sim:mine.",
    ];
    if kept.is_none() {
        lines.push("The demo's folder is gone; graft demo --keep DIR leaves it for looking around.".to_owned());
    }
    lines.extend(own.iter().map(|line| (*line).to_owned()));
    lines
}

struct Story<'a> {
    context: &'a Context,
    data_dir: PathBuf,
}

impl Story<'_> {
    /// Says what comes next.
    fn step(&mut self, text: &str) -> Result<(), CliError> {
        interrupt::check(|| "the demo's boards were simulated".into())?;
        self.context.output.line("");
        self.context.output.line(text);
        Ok(())
    }

    /// Prints a command line, runs it as if typed, and returns its object.
    fn type_in(&mut self, line: &str) -> Result<Value, CliError> {
        self.context.output.line(format!("$ {line}"));
        let cli = Cli::try_parse_from(line.split_whitespace())
            .map_err(|e| CliError::failed(format!("demo: {line}: {}", e.kind())))?;
        let mut context = self.context.for_command(&cli.global, &self.data_dir);
        // With --json the demo is one object; its commands keep silent.
        let json = self.context.output.json;
        context.output = Output { json: false, silent: json, without_hints: true, ..self.context.output.clone() };
        let done = execute(&context, &cli.command)?;
        done.failure.map_or(Ok(done.object), Err)
    }
}

/// The demo's folder, made the current one; left and, unless kept, removed when dropped.
struct Folder {
    path: PathBuf,
    kept: bool,
    before: Option<PathBuf>,
}

impl Folder {
    fn new(keep: Option<&Path>) -> Result<Self, CliError> {
        let path = match keep {
            Some(dir) => dir.to_owned(),
            None => std::env::temp_dir().join(format!("graft-demo-{}-{:08x}", std::process::id(), random()?)),
        };
        let failed = |e: std::io::Error| {
            CliError::failed(format!("{}: {}", path.display(), io_text(&e))).with_help("graft demo --keep DIR")
        };
        if fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(CliError::usage(format!(
                "{} is not empty; the demo needs a new or empty folder",
                path.display()
            ))
            .with_help("graft demo --keep NEWDIR"));
        }
        fs::create_dir_all(&path).map_err(failed)?;
        let path = fs::canonicalize(&path).map_err(failed)?;
        let mut folder = Self { path: path.clone(), kept: keep.is_some(), before: None };
        if !folder.kept {
            interrupt::remove_at_exit(Some(&path));
        }
        for (name, bytes) in FILES {
            let file = path.join(name);
            fs::create_dir_all(file.parent().unwrap_or(&path)).map_err(failed)?;
            fs::write(&file, bytes).map_err(failed)?;
        }
        // Commands are shown, and can be typed again, with paths relative to this folder.
        folder.before = std::env::current_dir().ok();
        std::env::set_current_dir(&path).map_err(failed)?;
        Ok(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = std::env::set_current_dir(before);
        }
        if !self.kept {
            // What remains lies in the system's folder for such files.
            let _ = fs::remove_dir_all(&self.path);
            interrupt::remove_at_exit(None);
        }
    }
}

fn random() -> Result<u32, CliError> {
    getrandom::u32().map_err(|e| CliError::failed(format!("no random numbers: {e}")))
}

/// The last class that a board of the demo is shown.
fn class_of(board: &str) -> Option<&'static str> {
    FILES
        .iter()
        .rev()
        .find_map(|(name, _)| name.strip_prefix(board)?.strip_prefix('/')?.split_once('/').map(|(c, _)| c))
}

/// The first picture of a class in a folder of the demo.
fn picture_of(folder: &str, class: &str) -> Option<&'static str> {
    let prefix = format!("{folder}/{class}/");
    FILES.iter().map(|(name, _)| *name).find(|name| name.starts_with(&prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn classes(folder: &str) -> BTreeSet<&'static str> {
        let in_folder = |name: &'static str| name.strip_prefix(folder)?.strip_prefix('/')?.split_once('/');
        FILES.iter().filter_map(|(name, _)| in_folder(name)).map(|(class, _)| class).collect()
    }

    #[test]
    fn the_program_carries_model_and_pictures_of_six_classes() {
        assert!(FILES.iter().any(|(name, bytes)| *name == "model.onnx" && bytes.len() > 10_000));
        assert!(FILES.iter().filter(|(name, _)| name.starts_with("calib/")).count() >= 20);
        let (a, b) = (classes("board-a"), classes("board-b"));
        assert_eq!((a.len(), b.len()), (3, 3));
        assert!(a.is_disjoint(&b));
        assert_eq!(classes("test"), &a | &b);
    }

    #[test]
    fn a_folder_that_holds_something_is_refused() {
        let dir = crate::files::tests::TestDir::new("demo");
        dir.file("x", b"");
        let error = Folder::new(Some(&dir.0)).err().unwrap();
        assert_eq!(error.exit.code(), 2);
        assert!(error.what.contains("is not empty"), "{error}");
    }

    #[test]
    fn what_to_type_next_parses() {
        for line in next_steps(None) {
            if let Some(command) = line.strip_prefix("  graft ") {
                let line = format!("graft {command}");
                Cli::try_parse_from(line.split_whitespace()).unwrap_or_else(|e| panic!("{line}: {e}"));
            }
        }
    }
}
