//! `graft predict`: one line per input, as soon as it is known.

use std::io::{self, BufRead};
use std::path::{Path, PathBuf};

use graft_client::{Board, CallError, InputRef, PredictionReport};
use graft_wire::{SpaceId, WireError};
use serde_json::{Value, json};

use super::Done;
use crate::args::PredictArgs;
use crate::context::Context;
use crate::devices::{self, Device};
use crate::error::CliError;
use crate::files::{Skipped, find};
use crate::inputs::Preparer;
use crate::interrupt;
use crate::output::{self, count};

/// Longest line of standard input that is taken for a path.
const PATH_BYTES_MAX: usize = 4096;

/// Runs `graft predict`.
///
/// # Errors
/// No head, no usable file, or whatever stops board or link.
pub fn run(context: &Context, args: &PredictArgs) -> Result<Done, CliError> {
    let mut session = Session::open(context)?;
    let mut skipped = Skipped::default();
    let mut n_used = 0;
    let mut n_asked = 0u64;
    for input in &args.inputs {
        if input == Path::new("-") {
            for path in paths_of(io::stdin().lock()) {
                let path = path?;
                n_asked += 1;
                n_used += session.show(context, &path, &mut skipped)?;
                if stop(n_asked)? {
                    break;
                }
            }
            continue;
        }
        // A file that is missing costs its own line only; the others are still wanted.
        let found = match find(input, &mut skipped) {
            Ok(found) => found,
            Err(error) => {
                let prefix = format!("{}: ", input.display());
                let reason = error.what.strip_prefix(&prefix).unwrap_or(&error.what).to_owned();
                session.show_skipped(context, input, &reason);
                skipped.add(input, reason);
                n_asked += 1;
                continue;
            }
        };
        for file in found {
            n_asked += 1;
            n_used += session.show(context, &file.path, &mut skipped)?;
            if stop(n_asked)? {
                break;
            }
        }
    }
    skipped.report(&context.output);
    let searched: Vec<String> = args.inputs.iter().map(|p| p.display().to_string()).collect();
    // No path on standard input is no failure of ours: nothing was asked.
    let from_stdin = args.inputs.iter().any(|input| input == Path::new("-"));
    if n_asked == 0 && from_stdin && skipped.is_empty() {
        return Ok(Done::ok(Value::Null));
    }
    Ok(Done { object: Value::Null, failure: skipped.verdict(n_used, args.strict, &searched.join(" ")).err() })
}

fn stop(n_asked: u64) -> Result<bool, CliError> {
    interrupt::check(|| format!("{} predicted; nothing was changed", count(n_asked, "file")))?;
    Ok(output::closed())
}

/// Paths, one per line; empty lines are ignored.
fn paths_of(mut reader: impl BufRead) -> impl Iterator<Item = Result<PathBuf, CliError>> {
    std::iter::from_fn(move || {
        loop {
            let mut line = Vec::new();
            match io::Read::take(&mut reader, PATH_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line) {
                Ok(0) => return None,
                Err(e) => return Some(Err(CliError::failed(format!("standard input: {e}")))),
                Ok(_) if line.len() > PATH_BYTES_MAX => {
                    let what = format!(
                        "standard input: a line is longer than {PATH_BYTES_MAX} bytes; one path per line is needed"
                    );
                    return Some(Err(CliError::usage(what).with_help("find DIR -name '*.jpg' | graft predict -")));
                }
                Ok(_) => {
                    let text = String::from_utf8_lossy(&line);
                    let text = text.trim_end_matches(['\n', '\r']);
                    if !text.is_empty() {
                        return Some(Ok(PathBuf::from(text)));
                    }
                }
            }
        }
    })
}

/// A board with what is needed to ask it again and again.
pub struct Session {
    /// The board.
    pub device: Device,
    space: SpaceId,
    preparer: Preparer,
}

impl Session {
    /// Connects to the one named board and checks that it has a head.
    ///
    /// # Errors
    /// No device, no bundle, no head, or whatever stops board or link.
    pub fn open(context: &Context) -> Result<Self, CliError> {
        let mut device = devices::one(context)?;
        let space = device.bundle()?.space;
        match &device.info.head {
            None => return Err(devices::refusal(&WireError::NoHead, &device.name)),
            Some(head) if head.stale => context.output.warn(format!(
                "samples have changed since the head was trained; train it again: graft train -d {}",
                device.name
            )),
            Some(_) => {}
        }
        let preparer = Preparer::new(&device.call(Board::manifest)?);
        Ok(Self { device, space, preparer })
    }

    /// Predicts a file; the inner error says in one line what is wrong with the file.
    ///
    /// # Errors
    /// Whatever stops board or link.
    pub fn predict(&mut self, path: &Path) -> Result<Result<PredictionReport, String>, CliError> {
        let prepared = match self.preparer.prepare(path) {
            Ok(prepared) => prepared,
            Err(reason) => return Ok(Err(reason)),
        };
        let space = self.space;
        match self.device.try_call(|board| board.predict(space, InputRef::Tensor(&prepared.tensor))) {
            Ok(report) => Ok(Ok(report)),
            Err(CallError::Refused(refused @ WireError::NoSignal)) => Ok(Err(refused.to_string())),
            Err(error) => Err(devices::call_error(&error, &self.device.name)),
        }
    }

    /// Predicts a file and prints its line; 1 if it was usable.
    fn show(&mut self, context: &Context, path: &Path, skipped: &mut Skipped) -> Result<usize, CliError> {
        match self.predict(path)? {
            Ok(report) => {
                let line = line(path, &report);
                context.output.line(line);
                context.output.object(&self.object(path, Some(&report), None));
                Ok(1)
            }
            Err(reason) => {
                self.show_skipped(context, path, &reason);
                skipped.add(path, reason);
                Ok(0)
            }
        }
    }

    /// With `--json` an input that cannot be used has its line, too.
    fn show_skipped(&self, context: &Context, path: &Path, reason: &str) {
        context.output.object(&self.object(path, None, Some(reason)));
    }

    fn object(&self, path: &Path, report: Option<&PredictionReport>, error: Option<&str>) -> Value {
        let prediction = report.map(|r| &r.prediction);
        json!({
            "schema": "graft.predict/1", "input": path.to_string_lossy(),
            "label": prediction.and_then(|p| p.label.as_ref()).map(|l| l.as_str()),
            "unknown": prediction.and_then(|p| p.unknown),
            "score": prediction.map(|p| p.score),
            "probability": prediction.and_then(|p| p.probability),
            "p_value": prediction.and_then(|p| p.p_value),
            "head": prediction.map(|p| p.head.to_string()),
            "space": self.space.to_string(), "device": self.device.name,
            "ms": prediction.map(|p| f64::from(p.embed_us.saturating_add(p.head_us)) / 1e3),
            "scores": report.map(|r| r.scores.iter()
                .map(|s| json!({"label": s.label.as_str(), "score": s.score})).collect::<Vec<_>>()),
            "error": error,
        })
    }
}

fn line(path: &Path, report: &PredictionReport) -> String {
    let prediction = &report.prediction;
    let label = prediction.label.as_ref().map_or("unknown", |l| l.as_str());
    let sure = match (prediction.probability, prediction.p_value) {
        // What was rejected has no class whose probability could be told.
        (Some(probability), _) if prediction.label.is_some() => format!("probability {probability:.2}"),
        (_, Some(p_value)) => format!("p-value {p_value:.3}"),
        (_, None) => format!("score {:.3}", prediction.score),
    };
    let ms = f64::from(prediction.embed_us.saturating_add(prediction.head_us)) / 1e3;
    format!("{}  {label}  {sure}  {ms:.1} ms", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use graft_wire::message::Prediction;
    use graft_wire::{Digest, Label};

    #[test]
    fn standard_input_is_one_path_per_line() {
        let paths: Result<Vec<_>, _> = paths_of(&b"a b.jpg\n\n/c.npy\r\nlast"[..]).collect();
        assert_eq!(paths.unwrap(), [PathBuf::from("a b.jpg"), "/c.npy".into(), "last".into()]);
        let long = vec![b'x'; PATH_BYTES_MAX + 1];
        assert_eq!(paths_of(&long[..]).next().unwrap().unwrap_err().exit.code(), 2);
    }

    #[test]
    fn a_line_names_class_or_unknown() {
        let prediction = Prediction {
            label: Some(Label::new("bolt").unwrap()),
            unknown: None,
            score: 0.5,
            probability: None,
            p_value: None,
            head: Digest([0; 32]),
            space: SpaceId([0; 32]),
            embed_us: 1500,
            head_us: 500,
        };
        let report = PredictionReport { prediction: prediction.clone(), scores: Vec::new() };
        assert_eq!(line(Path::new("a.jpg"), &report), "a.jpg  bolt  score 0.500  2.0 ms");
        let rejected =
            Prediction { label: None, unknown: Some(true), p_value: Some(0.01), probability: Some(0.9), ..prediction };
        let report = PredictionReport { prediction: rejected, scores: Vec::new() };
        assert_eq!(line(Path::new("a.jpg"), &report), "a.jpg  unknown  p-value 0.010  2.0 ms");
    }
}
