//! The command line tool `graft`: one file per subcommand under `commands/`, what they share beside it.
//!
//! | module | what |
//! |---|---|
//! | [`args`] | what can be typed, with every help text |
//! | [`context`] | what one run has chosen: devices, data directory, output |
//! | [`output`] | text for people, JSON for programs, progress for both |
//! | [`error`] | what failed, one command to type, and the exit code |
//! | [`interrupt`] | Ctrl-C |
//! | [`files`] | folders of examples |
//! | [`inputs`] | a file becomes a tensor |
//! | [`devices`] | which board |
//! | [`host_store`] | the sets and heads pulled from boards |
//!
//! Commands talk to a board only through `graft-client`, also when it is simulated in this process.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod args;
pub mod commands;
pub mod context;
pub mod devices;
pub mod error;
pub mod export;
pub mod files;
pub mod host_store;
pub mod inputs;
pub mod interrupt;
pub mod output;
#[cfg(test)]
mod test_bundles;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Cli;
use crate::context::Context;

/// Runs the program with the process's arguments and returns its exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output and are no failure.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { error::Exit::Usage.code() } else { 0 });
        }
    };
    interrupt::install();
    let context = match Context::new(&cli.global) {
        Ok(context) => context,
        Err(error) => {
            output::Output::new(&cli.global).error(&error);
            return ExitCode::from(error.exit.code());
        }
    };
    ExitCode::from(commands::run(&context, &cli.command).code())
}
