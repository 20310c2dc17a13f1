//! The subcommands, one file each. Every one returns its result as an object for `--json` and prints its own text.

use serde_json::Value;

use crate::args::Command;
use crate::context::Context;
use crate::error::{CliError, Exit};

pub mod bench;
pub mod collect;
pub mod demo;
pub mod device;
pub mod eval;
pub mod export;
pub mod flash;
pub mod inspect;
pub mod predict;
pub mod push;
pub mod quantize;
mod review;
pub mod samples;
pub mod sim;
pub mod sync;
pub mod train;

/// What a command has to say at its end.
#[derive(Debug)]
pub struct Done {
    /// The object of `--json`; null if the command has printed its own lines.
    pub object: Value,
    /// Set if the work was done but the verdict is a failure: a missed gate, a device among several.
    pub failure: Option<CliError>,
}

impl Done {
    /// All went well.
    pub fn ok(object: Value) -> Self {
        Self { object, failure: None }
    }
}

/// Runs a command to its exit code; everything is printed.
pub fn run(context: &Context, command: &Command) -> Exit {
    let failure = match execute(context, command) {
        Ok(done) => {
            if !done.object.is_null() {
                context.output.object(&done.object);
            }
            done.failure
        }
        Err(error) => Some(error),
    };
    match failure {
        None => Exit::Ok,
        Some(error) => {
            context.output.error(&error);
            error.exit
        }
    }
}

/// Runs a command; its result is not printed as an object and its error not at all.
///
/// # Errors
/// Whatever stops the command.
pub fn execute(context: &Context, command: &Command) -> Result<Done, CliError> {
    match command {
        Command::Demo(args) => demo::run(context, args),
        Command::Inspect(args) => inspect::run(context, args),
        Command::Quantize(args) => quantize::run(context, args),
        Command::Flash(args) => flash::run(context, args),
        Command::Device(command) => device::run(context, command),
        Command::Collect(args) => collect::run(context, args),
        Command::Samples(command) => samples::run(context, command),
        Command::Train(args) => train::run(context, args),
        Command::Predict(args) => predict::run(context, args),
        Command::Eval(args) => eval::run(context, args),
        Command::Sync(args) => sync::run(context, args),
        Command::Push(args) => push::run(context, args),
        Command::Export(args) => export::run(context, args),
        Command::Bench(args) => bench::run(context, args),
        Command::Sim(args) => sim::run(context, args),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// Keys of `json!` objects: `"key":` and `insert("key".into()`.
    fn keys(code: &str) -> Vec<String> {
        let code = code.split("#[cfg(test)]").next().unwrap_or_default();
        let pieces: Vec<&str> = code.split('"').collect();
        let is_key = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        pieces
            .windows(3)
            .filter(|w| is_key(w[1]) && (w[2].starts_with(": ") || w[0].ends_with("insert(")))
            .map(|w| w[1].to_owned())
            .collect()
    }

    #[test]
    fn every_json_key_is_documented() {
        let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
        let text = fs::read_to_string(crate_dir.join("JSON.md")).unwrap();
        let words: Vec<&str> = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).collect();
        let mut n_keys = 0;
        let sources = fs::read_dir(crate_dir.join("src/commands")).unwrap().map(|e| e.unwrap().path());
        for path in sources.chain([crate_dir.join("src/output.rs"), crate_dir.join("src/devices.rs")]) {
            for key in keys(&fs::read_to_string(&path).unwrap()) {
                assert!(words.contains(&&key[..]), "{key} of {} is not in JSON.md", path.display());
                n_keys += 1;
            }
        }
        assert!(n_keys > 100, "only {n_keys} keys found");
    }
}
