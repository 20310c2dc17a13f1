//! What a user reads when a command fails: what was seen and allowed, one command to type, and the exit code.

use std::fmt;

/// Exit codes of `graft`; listed in `--help`, never renumbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok,
    /// Failed.
    Failed,
    /// The command line is wrong.
    Usage,
    /// No device, or more than one where one is needed.
    Device,
    /// Host and board, or bundle and board, do not fit together.
    Incompatible,
    /// A check of a bundle failed; the board keeps the previous one.
    Unverified,
    /// A quality gate was missed.
    Gate,
    /// Some devices failed, others did not.
    SomeDevices,
    /// Ctrl-C; both sides are usable.
    Interrupted,
}

impl Exit {
    /// The process's exit code.
    pub fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Device => 3,
            Exit::Incompatible => 4,
            Exit::Unverified => 5,
            Exit::Gate => 6,
            Exit::SomeDevices => 7,
            Exit::Interrupted => 130,
        }
    }
}

/// A failed command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CliError {
    /// What failed; what was seen, what was allowed. One line, lower case, no full stop.
    pub what: String,
    /// What to do, with one command to type; empty where nothing helps.
    pub help: String,
    /// The exit code.
    pub exit: Exit,
}

impl CliError {
    /// A failure without help.
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { what: what.into(), help: String::new(), exit }
    }

    /// A failure of the work itself (exit code 1).
    pub fn failed(what: impl Into<String>) -> Self {
        Self::new(Exit::Failed, what)
    }

    /// A wrong command line (exit code 2).
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(Exit::Usage, what)
    }

    /// Stopped by Ctrl-C at a safe point (exit code 130); `stored` says what is kept.
    pub fn interrupted(stored: impl fmt::Display) -> Self {
        Self::new(Exit::Interrupted, format!("interrupted; {stored}"))
    }

    /// The same with `help`.
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }

    /// The same with `where_` in front, e.g. a path or a device.
    pub fn at(mut self, where_: impl fmt::Display) -> Self {
        self.what = format!("{where_}: {}", self.what);
        self
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what)?;
        if !self.help.is_empty() {
            write!(f, "\nhelp: {}", self.help)?;
        }
        Ok(())
    }
}

impl std::error::Error for CliError {}

/// An error with all its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some errors already show their cause.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_the_published_ones() {
        let codes = [
            (Exit::Ok, 0),
            (Exit::Failed, 1),
            (Exit::Usage, 2),
            (Exit::Device, 3),
            (Exit::Incompatible, 4),
            (Exit::Unverified, 5),
            (Exit::Gate, 6),
            (Exit::SomeDevices, 7),
            (Exit::Interrupted, 130),
        ];
        for (exit, code) in codes {
            assert_eq!(exit.code(), code, "{exit:?}");
        }
    }

    #[test]
    fn errors_print_what_and_help() {
        let error = CliError::failed("folder is empty").with_help("graft collect --from DIR").at("x");
        assert_eq!(error.to_string(), "error: x: folder is empty\nhelp: graft collect --from DIR");
        assert_eq!(CliError::usage("no file").to_string(), "error: no file");
    }
}
