//! Where results, remarks and progress go.
//!
//! Results go to standard output: text for people, or with `--json` one object (one per input in `predict`). All else
//! goes to standard error: remarks and progress, as text or with `--json` as one object per line, so that a pipe of
//! results stays clean. Keys are documented in `JSON.md`.

use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use comfy_table::{CellAlignment, Table};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use crate::args::Global;
use crate::error::CliError;

/// Set once a write to standard output failed: nobody reads any more.
static CLOSED: AtomicBool = AtomicBool::new(false);

/// True if nobody reads standard output any more, e.g. after `| head`.
pub fn closed() -> bool {
    CLOSED.load(Ordering::Relaxed)
}

/// How a run speaks.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// Objects instead of text.
    pub json: bool,
    /// Results and errors only.
    pub quiet: bool,
    /// More detail.
    pub verbose: bool,
    /// Nothing at all; errors are returned to the caller. For commands that `graft demo --json` runs.
    pub silent: bool,
    /// No hints at what to type next; in the demo the next command follows anyway.
    pub without_hints: bool,
}

/// Plain progress lines come no faster than this; what is done earlier needs none.
const LINE_EVERY: Duration = Duration::from_secs(2);
/// The same for lines of JSON.
const JSON_LINE_EVERY: Duration = Duration::from_millis(250);

impl Output {
    /// As the global options say.
    pub fn new(global: &Global) -> Self {
        Self { json: global.json, quiet: global.quiet, verbose: global.verbose, ..Self::default() }
    }

    /// A line of the result, for people.
    pub fn line(&self, text: impl AsRef<str>) {
        if !self.json && !self.silent {
            write_out(text.as_ref());
        }
    }

    /// A table of the result, for people.
    pub fn table(&self, table: &Table) {
        for line in table.lines() {
            self.line(line.trim_end());
        }
    }

    /// The result, for programs.
    pub fn object(&self, object: &Value) {
        if self.json && !self.silent {
            write_out(&object.to_string());
        }
    }

    /// A remark.
    pub fn note(&self, text: impl AsRef<str>) {
        if !self.quiet {
            self.event(text.as_ref(), || json!({"event": "note", "text": text.as_ref()}));
        }
    }

    /// What to type next.
    pub fn hint(&self, command: impl AsRef<str>) {
        if !self.without_hints {
            self.note(format!("next: {}", command.as_ref()));
        }
    }

    /// A remark for `--verbose`.
    pub fn detail(&self, text: impl AsRef<str>) {
        if self.verbose {
            self.note(text);
        }
    }

    /// Something that may be wrong; also shown with `--quiet`.
    pub fn warn(&self, text: impl AsRef<str>) {
        let human = format!("warning: {}", text.as_ref());
        self.event(&human, || json!({"event": "warning", "text": text.as_ref()}));
    }

    /// A failed command.
    pub fn error(&self, error: &CliError) {
        self.event(
            &error.to_string(),
            || json!({"event": "error", "text": error.what, "help": error.help, "exit": error.exit.code()}),
        );
    }

    /// The chosen device.
    pub fn device(&self, address: &str, id: &str) {
        if !self.quiet {
            let human = format!("device: {address} (id {})", id.get(..8).unwrap_or(id));
            self.event(&human, || json!({"event": "device", "device": address, "id": id}));
        }
    }

    fn event(&self, human: &str, object: impl FnOnce() -> Value) {
        if self.silent {
            return;
        }
        let text = if self.json { object().to_string() } else { human.to_owned() };
        // Standard error may be closed; there is nobody left to tell.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// Shows how far `what` is; `total` in `unit`.
    pub fn progress(&self, what: &str, total: u64, unit: Unit) -> Progress {
        let sink = if self.silent || self.quiet {
            Sink::Off
        } else if self.json {
            Sink::Json
        } else if io::stderr().is_terminal() {
            Sink::Bar(bar(what, total, unit))
        } else {
            Sink::Plain
        };
        let now = Instant::now();
        Progress { what: what.to_owned(), total, unit, sink, started: now, done: 0, shown: 0, shown_at: now }
    }

    /// Asks a question that is answered by y or n; `None` if there is nobody to ask.
    pub fn confirm(&self, question: &str) -> Option<bool> {
        if self.json || self.silent || !io::stdin().is_terminal() {
            return None;
        }
        let _ = write!(io::stderr().lock(), "{question} [y/N] ");
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer).ok()?;
        Some(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
    }
}

fn write_out(text: &str) {
    let mut out = io::stdout().lock();
    // Flushed line by line: whoever reads a pipe gets each prediction as it is made.
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        CLOSED.store(true, Ordering::Relaxed);
    }
}

/// What progress counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Files and the like.
    Items,
}

/// Progress of one piece of work.
pub struct Progress {
    what: String,
    total: u64,
    unit: Unit,
    sink: Sink,
    started: Instant,
    done: u64,
    shown: u64,
    shown_at: Instant,
}

enum Sink {
    Off,
    Json,
    Plain,
    Bar(ProgressBar),
}

impl Progress {
    /// `done` of the total are done.
    pub fn at(&mut self, done: u64) {
        self.at_of(done, self.total);
    }

    /// The same, where the total became known late.
    pub fn at_of(&mut self, done: u64, total: u64) {
        self.total = total;
        self.done = done.min(total);
        match &self.sink {
            Sink::Off => {}
            Sink::Bar(bar) => {
                bar.set_length(total);
                bar.set_position(self.done);
            }
            Sink::Json | Sink::Plain => self.line_if_due(),
        }
    }

    /// `done` are done of nobody knows how many.
    pub fn so_far(&mut self, done: u64) {
        (self.total, self.done) = (0, done);
        match &self.sink {
            Sink::Off => {}
            Sink::Bar(bar) => {
                bar.set_style(style("{msg} {pos} {elapsed}"));
                bar.set_position(done);
            }
            Sink::Json | Sink::Plain => self.line_if_due(),
        }
    }

    /// A new step of the work with its own count.
    pub fn step(&mut self, what: &str) {
        if self.what == what {
            return;
        }
        self.what = what.to_owned();
        self.shown = 0;
        self.started = Instant::now();
        self.shown_at = self.started;
        if let Sink::Bar(bar) = &self.sink {
            bar.set_message(what.to_owned());
            bar.reset_eta();
        }
    }

    /// A line every few seconds, and one at the end of what took longer or went over the link.
    fn line_if_due(&mut self) {
        let every = if matches!(self.sink, Sink::Json) { JSON_LINE_EVERY } else { LINE_EVERY };
        let is_end = self.done == self.total && (self.shown > 0 || self.unit == Unit::Bytes);
        if self.done == self.shown || !(is_end || self.shown_at.elapsed() > every) {
            return;
        }
        self.shown = self.done;
        self.shown_at = Instant::now();
        let seconds = self.started.elapsed().as_secs_f64().max(1e-6);
        let rate = self.done as f64 / seconds;
        // An unknown total is 0.
        let total = Some(self.total).filter(|total| *total > 0);
        let eta_s = total.map(|total| total.saturating_sub(self.done) as f64 / rate.max(1e-9));
        let text = match self.sink {
            Sink::Json => json!({"event": "progress", "what": self.what, "done": self.done, "total": total,
                "unit": if self.unit == Unit::Bytes { "bytes" } else { "items" }, "per_s": rate, "eta_s": eta_s})
            .to_string(),
            _ => {
                let done = amount(self.done, self.unit);
                let of = total.map_or(String::new(), |total| format!(" of {}", amount(total, self.unit)));
                let rate = match self.unit {
                    Unit::Bytes => format!(", {}/s", amount(rate as u64, self.unit)),
                    Unit::Items => String::new(),
                };
                let eta = eta_s.filter(|_| self.done < self.total);
                let eta = eta.map_or(String::new(), |eta_s| format!(", {eta_s:.0} s left"));
                format!("{}: {done}{of}{rate}{eta}", self.what)
            }
        };
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Sink::Bar(bar) = &self.sink {
            bar.finish_and_clear();
        }
    }
}

/// The templates are ours; a wrong one would fall back to the default look.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn bar(what: &str, total: u64, unit: Unit) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    let template = match unit {
        Unit::Bytes => "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta} left",
        Unit::Items => "{msg} [{bar:30}] {pos}/{len} {eta} left",
    };
    bar.set_style(style(template).progress_chars("=> "));
    bar.set_message(what.to_owned());
    bar
}

/// `done` for people: `1.4 MB`, or the number itself.
pub fn amount(n: u64, unit: Unit) -> String {
    match (unit, n) {
        (Unit::Items, _) => n.to_string(),
        (Unit::Bytes, 0..=999) => format!("{n} B"),
        (Unit::Bytes, 1_000..=999_999) => format!("{:.1} kB", n as f64 / 1e3),
        (Unit::Bytes, 1_000_000..=999_999_999) => format!("{:.1} MB", n as f64 / 1e6),
        (Unit::Bytes, _) => format!("{:.2} GB", n as f64 / 1e9),
    }
}

/// A count with its noun: `1 sample`, `2 samples`.
pub fn count(n: impl Into<u64>, noun: &str) -> String {
    let n = n.into();
    let plural = match noun {
        "class" => "classes",
        "is" => "are",
        _ => return if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") },
    };
    if n == 1 { format!("1 {noun}") } else { format!("{n} {plural}") }
}

/// A fraction as per cent for people: `87.5 %`.
pub fn percent(fraction: f64) -> String {
    format!("{:.1} %", 100.0 * fraction)
}

/// A table without borders; columns in `right` are right-aligned.
pub fn plain_table(header: &[&str], right: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(header.iter().copied());
    for (i, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if right.contains(&i) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_and_counts_read_well() {
        assert_eq!(amount(999, Unit::Bytes), "999 B");
        assert_eq!(amount(1_450_000, Unit::Bytes), "1.4 MB");
        assert_eq!(amount(7, Unit::Items), "7");
        assert_eq!(count(1u32, "sample"), "1 sample");
        assert_eq!(count(2u32, "class"), "2 classes");
        assert_eq!(count(0u32, "file"), "0 files");
        assert_eq!(percent(0.875), "87.5 %");
    }

    #[test]
    fn nobody_is_asked_where_nobody_can_answer() {
        let output = Output { json: true, ..Output::default() };
        assert_eq!(output.confirm("sure?"), None);
    }

    #[test]
    fn tables_have_aligned_columns_without_borders() {
        let mut table = plain_table(&["class", "n"], &[1]);
        table.add_row(["bolt", "7"]).add_row(["washer", "12"]);
        let lines: Vec<String> = table.lines().map(|l| l.trim_end().to_owned()).collect();
        assert_eq!(lines, ["class    n", "bolt     7", "washer  12"]);
    }
}
