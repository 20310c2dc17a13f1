//! Executes every console block of the README, so that what a newcomer types works and shows what it shows.
//!
//! Blocks run in order in one fresh folder with `graft` on the path. A line that begins with `$ ` is a command; the
//! lines below it are its output, in order, where `[..]` stands for any text and a line `...` for any lines. Commands
//! that build (`cargo ...`) run their built result instead, and the test command itself is left out.

use std::path::Path;
use std::process::Command;

use graft_tests::{bin_dir, workspace_root};

/// A command with the output the README shows for it.
struct Example {
    line: usize,
    command: String,
    shown: Vec<String>,
}

#[test]
fn every_console_block_does_what_it_shows() {
    let readme = std::fs::read_to_string(workspace_root().join("README.md")).unwrap();
    let examples = examples(&readme);
    assert!(examples.len() >= 2, "the README has the two commands at least");
    let dir = tempfile::tempdir().unwrap();
    let models = workspace_root().join("models");
    std::os::unix::fs::symlink(models, dir.path().join("models")).unwrap();
    for example in &examples {
        check(example, dir.path());
    }
}

fn examples(readme: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut inside = false;
    for (number, line) in readme.lines().enumerate() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if inside && let Some(command) = line.strip_prefix("$ ") {
            examples.push(Example { line: number + 1, command: command.to_owned(), shown: Vec::new() });
        } else if inside && let Some(example) = examples.last_mut() {
            example.shown.push(line.to_owned());
        }
    }
    examples
}

fn check(example: &Example, dir: &Path) {
    let Some(command) = runnable(&example.command) else { return };
    let path = format!("{}:{}", bin_dir().display(), std::env::var("PATH").unwrap_or_default());
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &command])
        .current_dir(dir)
        .env("PATH", path)
        .env("GRAFT_DATA_DIR", dir.join("data"))
        .env_remove("GRAFT_DEVICE")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let at = format!("README.md:{}: {}", example.line, example.command);
    assert!(output.status.success(), "{at}\nends with {}\n{text}", output.status);
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    if let Err(missing) = shows(&lines, &example.shown) {
        panic!("{at}\nthe README shows\n  {missing}\nbut the command printed\n{text}");
    }
}

/// The command as run here; `None` for the test command, which would run itself.
fn runnable(command: &str) -> Option<String> {
    if command.starts_with("cargo test") || command.starts_with("git clone") || command.starts_with("cd ") {
        return None;
    }
    match command.strip_prefix("cargo run -p graft -- ") {
        Some(arguments) => Some(format!("graft {arguments}")),
        None if command.starts_with("cargo install") => None,
        None => Some(command.to_owned()),
    }
}

/// Checks that `shown` appears in `lines` in order; without `...` between two of them they must be neighbours.
fn shows<'a>(lines: &[&str], shown: &'a [String]) -> Result<(), &'a str> {
    let mut at = 0;
    let mut anywhere = true;
    for wanted in shown {
        if wanted == "..." {
            anywhere = true;
            continue;
        }
        let reach = if anywhere { lines.len() } else { (at + 1).min(lines.len()) };
        let found = (at..reach).find(|i| line_matches(lines[*i], wanted.trim_end()));
        at = found.ok_or(wanted.as_str())? + 1;
        anywhere = false;
    }
    Ok(())
}

/// `pattern` may hold `[..]` for any text.
fn line_matches(line: &str, pattern: &str) -> bool {
    let mut parts = pattern.split("[..]");
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let mut open = false;
    for part in parts {
        open = true;
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.is_empty() || (open && pattern.ends_with("[..]"))
}

#[test]
fn patterns_match_whole_lines() {
    assert!(line_matches("accuracy 100.0 % (n 24)", "accuracy [..] % (n 24)"));
    assert!(line_matches("abc", "abc"));
    assert!(!line_matches("abcd", "abc"));
    assert!(line_matches("abcd", "abc[..]"));
    assert!(!line_matches("xabc", "abc"));
    assert!(shows(&["a", "b", "c"], &["a".into(), "...".into(), "c".into()]).is_ok());
    assert!(shows(&["a", "b", "c"], &["a".into(), "c".into()]).is_err());
}
