//! Folders of examples: which files count, and what their folders say.
//!
//! A file named by the user is always taken; a folder is walked, sorted, hidden names ignored. The folder right under
//! the named one is the class; what lies deeper still belongs to it, and its own folder is a group (`--session
//! folder`).

use std::collections::HashSet;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use graft_wire::{Label, LabelKind};
use serde_json::{Value, json};

use crate::error::CliError;
use crate::output::{Output, count};

/// Folders with these names hold what shows none of the classes.
pub const NEGATIVE_NAMES: [&str; 3] = ["none", "unknown", "_negative"];
/// Deepest folder below the named one; deeper ones are a mistake or a loop.
const DEPTH_MAX: usize = 32;
/// Skipped files that are named without `--verbose`.
const NAMED_MAX: usize = 10;

/// A file that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it lies, as the user's path leads there.
    pub path: PathBuf,
    /// Name of the folder right under the named folder; `None` for a file that was named or lies in the named folder.
    pub class: Option<String>,
    /// The folder it lies in.
    pub folder: PathBuf,
}

/// The label that `--class` names.
///
/// # Errors
/// Usage, with what is wrong with the name.
pub fn class_label(name: &str) -> Result<Label, CliError> {
    Label::new(name).map_err(|e| {
        CliError::usage(format!("--class {name:?}: {e}"))
            .with_help("a short name without tabs and line breaks, e.g. --class cup")
    })
}

/// What a label's name says about its samples.
pub fn label_kind(name: &str) -> LabelKind {
    if NEGATIVE_NAMES.contains(&name) { LabelKind::Negative } else { LabelKind::Class }
}

/// Files under `root` in a fixed order, or `root` itself if it is a file.
///
/// # Errors
/// A path that does not exist or cannot be read; an unreadable folder below `root` is put into `skipped` instead.
pub fn find(root: &Path, skipped: &mut Skipped) -> Result<Vec<Found>, CliError> {
    let unreadable = |e: io::Error| {
        let folder = root.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        CliError::failed(format!("{}: {}", root.display(), io_text(&e)))
            .with_help(format!("see what is there: ls -la {}", quoted(folder)))
    };
    let metadata = fs::metadata(root).map_err(unreadable)?;
    if !metadata.is_dir() {
        let folder = root.parent().unwrap_or(Path::new("")).to_owned();
        return Ok(vec![Found { path: root.to_owned(), class: None, folder }]);
    }
    let mut walk = Walk { found: Vec::new(), seen: HashSet::new(), skipped };
    walk.folder(root, None, 0).map_err(unreadable)?;
    Ok(walk.found)
}

struct Walk<'a> {
    found: Vec<Found>,
    /// Folders by their real path: a link back up is walked once.
    seen: HashSet<PathBuf>,
    skipped: &'a mut Skipped,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &Path, class: Option<&str>, depth: usize) -> io::Result<()> {
        if depth > DEPTH_MAX {
            return Err(io::Error::other(format!("more than {DEPTH_MAX} folders deep")));
        }
        if !self.seen.insert(fs::canonicalize(folder)?) {
            return Ok(());
        }
        let mut names = fs::read_dir(folder)?.map(|e| Ok(e?.file_name())).collect::<io::Result<Vec<_>>>()?;
        names.sort();
        for name in names {
            let name_text = name.to_string_lossy();
            if name_text.starts_with('.') {
                continue;
            }
            let path = folder.join(&name);
            match fs::metadata(&path) {
                Ok(m) if m.is_dir() => {
                    let inner = class.unwrap_or(&name_text).to_owned();
                    if let Err(e) = self.folder(&path, Some(&inner), depth + 1) {
                        self.skipped.add(&path, io_text(&e));
                    }
                }
                Ok(m) if m.is_file() => {
                    self.found.push(Found { path, class: class.map(str::to_owned), folder: folder.to_owned() });
                }
                Ok(_) => self.skipped.add(&path, "not a regular file"),
                Err(e) => self.skipped.add(&path, io_text(&e)),
            }
        }
        Ok(())
    }
}

/// Reads a file of at most `bytes_max` bytes.
///
/// # Errors
/// The reason as one line without the path.
pub fn read_capped(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    let file = fs::File::open(path).map_err(|e| io_text(&e))?;
    let metadata = file.metadata().map_err(|e| io_text(&e))?;
    if metadata.is_dir() {
        return Err("a folder, not a file".into());
    }
    let mut bytes = Vec::new();
    // One byte more than allowed tells a longer file, also where its length cannot be asked for.
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| io_text(&e))?;
    if bytes.len() as u64 > bytes_max {
        return Err(format!("longer than {bytes_max} bytes"));
    }
    Ok(bytes)
}

/// An I/O error without the system's number.
pub fn io_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or folder".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        io::ErrorKind::StorageFull => "disk is full".into(),
        _ => {
            let text = error.to_string();
            text.split(" (os error").next().unwrap_or_default().to_lowercase()
        }
    }
}

/// Files that could not be used, with the reason for each.
#[derive(Debug, Default)]
pub struct Skipped {
    files: Vec<(PathBuf, String)>,
}

impl Skipped {
    /// One more.
    pub fn add(&mut self, path: &Path, reason: impl Into<String>) {
        self.files.push((path.to_owned(), reason.into()));
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// True if none was skipped.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Names them, the first ten unless verbose.
    pub fn report(&self, output: &Output) {
        if self.is_empty() {
            return;
        }
        let n_named = if output.verbose || output.json { self.len() } else { NAMED_MAX };
        output.warn(format!("{} skipped", count(self.len() as u64, "file")));
        for (path, reason) in self.files.iter().take(n_named) {
            output.warn(format!("skipped {}: {reason}", path.display()));
        }
        if self.len() > n_named {
            output.warn(format!("and {} more; -v names them all", self.len() - n_named));
        }
    }

    /// The list for `--json`: `[{"path", "reason"}]`.
    pub fn json(&self) -> Value {
        self.files.iter().map(|(path, reason)| json!({"path": path.to_string_lossy(), "reason": reason})).collect()
    }

    /// The verdict after the work: fails if nothing was usable, or with `strict` if anything was skipped.
    ///
    /// # Errors
    /// Exit code 1 with the first reason.
    pub fn verdict(&self, n_used: usize, strict: bool, searched: &str) -> Result<(), CliError> {
        match self.files.first() {
            Some((path, reason)) if n_used == 0 || strict => {
                let n = count(self.len() as u64, "file");
                let what = if n_used == 0 { "no file can be used" } else { "not every file can be used" };
                Err(CliError::failed(format!("{what}: {n} skipped; first {}: {reason}", path.display()))
                    .with_help(format!("look at it: ls -la {}", quoted(path))))
            }
            None if n_used == 0 => {
                Err(CliError::failed(format!("{searched} holds no files; images, .npy or .npz wanted"))
                    .with_help(format!("look for them: find {searched} -type f")))
            }
            _ => Ok(()),
        }
    }
}

/// A path as one word of a shell.
pub fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_alphanumeric() || "/._-+:@,=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A folder that is removed at the end of a test.
    pub(crate) struct TestDir(pub PathBuf);

    impl TestDir {
        pub(crate) fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("graft-cli-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }

        pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
            let path = self.0.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, bytes).unwrap();
            path
        }
    }

    impl Drop for TestDir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_folder_under_the_root_is_the_class() {
        let dir = TestDir::new("class");
        for name in ["b/2.jpg", "a/day1/1.jpg", "a/0.jpg", "top.jpg", ".hidden/x.jpg", "a/.x.jpg"] {
            dir.file(name, b"x");
        }
        let mut skipped = Skipped::default();
        let found = find(&dir.0, &mut skipped).unwrap();
        let short: Vec<_> = found
            .iter()
            .map(|f| (f.path.strip_prefix(&dir.0).unwrap().to_str().unwrap(), f.class.as_deref()))
            .collect();
        assert_eq!(
            short,
            [("a/0.jpg", Some("a")), ("a/day1/1.jpg", Some("a")), ("b/2.jpg", Some("b")), ("top.jpg", None)]
        );
        assert!(found[1].folder.ends_with("day1"));
        assert!(skipped.is_empty());
    }

    #[test]
    #[cfg(unix)]
    fn a_link_back_up_ends() {
        let dir = TestDir::new("loop");
        dir.file("a/1.jpg", b"x");
        std::os::unix::fs::symlink(&dir.0, dir.0.join("a/up")).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.0.join("a/gone.jpg")).unwrap();
        let mut skipped = Skipped::default();
        assert_eq!(find(&dir.0, &mut skipped).unwrap().len(), 1);
        assert_eq!(skipped.len(), 1);
    }

    #[test]
    fn a_named_file_is_taken_and_a_missing_one_refused() {
        let dir = TestDir::new("named");
        let path = dir.file(".photo.jpg", b"x");
        let mut skipped = Skipped::default();
        assert_eq!(find(&path, &mut skipped).unwrap()[0].class, None);
        let error = find(&dir.0.join("nope"), &mut skipped).unwrap_err();
        assert!(error.what.ends_with("nope: no such file or folder"), "{}", error.what);
    }

    #[test]
    fn long_files_are_refused_before_they_fill_memory() {
        let dir = TestDir::new("long");
        let path = dir.file("x", &[0; 11]);
        assert_eq!(read_capped(&path, 10), Err("longer than 10 bytes".into()));
        assert_eq!(read_capped(&path, 11).unwrap().len(), 11);
        assert_eq!(read_capped(&dir.0, 11), Err("a folder, not a file".into()));
    }

    #[test]
    fn the_verdict_depends_on_what_was_usable() {
        let mut skipped = Skipped::default();
        assert!(skipped.verdict(1, true, "x").is_ok());
        assert_eq!(skipped.verdict(0, false, "x").unwrap_err().exit.code(), 1);
        skipped.add(Path::new("a.txt"), "not an image");
        assert!(skipped.verdict(1, false, "x").is_ok());
        assert!(skipped.verdict(1, true, "x").unwrap_err().what.contains("1 file skipped; first a.txt: not an image"));
        assert!(skipped.verdict(0, false, "x").unwrap_err().what.starts_with("no file can be used"));
    }

    #[test]
    fn negatives_are_known_by_name() {
        assert_eq!(label_kind("none"), LabelKind::Negative);
        assert_eq!(label_kind("_negative"), LabelKind::Negative);
        assert_eq!(label_kind("nonesuch"), LabelKind::Class);
    }

    #[test]
    fn paths_become_one_shell_word() {
        assert_eq!(quoted(Path::new("a/b.jpg")), "a/b.jpg");
        assert_eq!(quoted(Path::new("a b's")), r"'a b'\''s'");
    }
}
