//! What the black-box tests and evaluation programs share: where things are, and how to run the tools.

pub mod embeddings;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

use anyhow::{Context, Result, anyhow, ensure};
use graft_bundle::{Bundle, UncheckedBundle};

/// Root of the workspace.
pub fn workspace_root() -> PathBuf {
    // This crate's folder is `tests` in the root.
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap_or_else(|_| PathBuf::from(".."))
}

/// A file or folder of the shared assets (`GRAFT_ASSETS`, else `../shared/assets` beside the workspace), or `None`
/// with one line that says what is skipped.
pub fn asset(path: &str) -> Option<PathBuf> {
    let root = match std::env::var_os("GRAFT_ASSETS") {
        Some(root) => PathBuf::from(root),
        None => workspace_root().join("../shared/assets"),
    };
    let path = root.join(path);
    if path.exists() {
        Some(path)
    } else {
        eprintln!("skipped: {} is absent (set GRAFT_ASSETS)", path.display());
        None
    }
}

/// Folder that holds the binaries `graft` and `graftd` of the profile that runs now; builds them the first time,
/// because cargo does not build other packages' binaries for a test.
///
/// # Panics
/// If they cannot be built.
pub fn bin_dir() -> PathBuf {
    let exe = std::env::current_exe().expect("a running program has a path");
    // target/<profile>/deps/<test> or target/<profile>/<program>
    let dir = exe.parent().expect("an executable lies in a folder");
    let dir = if dir.ends_with("deps") { dir.parent().expect("deps lies in a folder") } else { dir };
    static BUILT: Once = Once::new();
    BUILT.call_once(|| {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "--locked", "-p", "graft", "-p", "graftd"]).current_dir(workspace_root());
        if dir.ends_with("release") {
            cargo.arg("--release");
        }
        if let Some(target) = dir.parent() {
            cargo.arg("--target-dir").arg(target);
        }
        let status = cargo.status().expect("cargo can be started");
        assert!(status.success(), "cargo build of graft and graftd failed");
    });
    dir.to_owned()
}

/// Resident set of this process in bytes.
///
/// # Errors
/// Where there is no `/proc`.
pub fn resident_bytes() -> Result<f64> {
    status_bytes("VmRSS:")
}

/// The part of [`resident_bytes`] that is pages of files: the program itself and its libraries.
///
/// # Errors
/// Where there is no `/proc`.
pub fn resident_file_bytes() -> Result<f64> {
    status_bytes("RssFile:")
}

/// Its peak in bytes.
///
/// # Errors
/// Where there is no `/proc`.
pub fn peak_bytes() -> Result<f64> {
    status_bytes("VmHWM:")
}

fn status_bytes(name: &str) -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let value = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
    Ok(1024.0 * value.trim().trim_end_matches("kB").trim().parse::<f64>()?)
}

/// The numbers that this program prints when it is run with `args` in a process of its own, so that its memory is its own.
///
/// # Errors
/// If it fails, or prints anything else than N numbers.
pub fn in_own_process<const N: usize>(args: &[&OsStr]) -> Result<[f64; N]> {
    numbers_of(std::env::current_exe()?.as_os_str(), args)
}

/// The numbers that `program` prints.
///
/// # Errors
/// If it fails, or prints anything else than N numbers.
pub fn numbers_of<const N: usize>(program: &OsStr, args: &[&OsStr]) -> Result<[f64; N]> {
    let output = Command::new(program).args(args).output().with_context(|| program.display().to_string())?;
    ensure!(output.status.success(), "{args:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let numbers: Result<Vec<f64>, _> = text.split_whitespace().map(str::parse).collect();
    numbers?.try_into().map_err(|_| anyhow!("{args:?} prints {text}"))
}

/// A `graft` command with its state in `data_dir` and no devices from the environment.
pub fn graft(data_dir: &Path) -> Command {
    let mut command = Command::new(bin_dir().join("graft"));
    command.env("GRAFT_DATA_DIR", data_dir).env_remove("GRAFT_DEVICE").current_dir(workspace_root());
    command
}

/// Reads a bundle and checks it.
///
/// # Errors
/// A file that cannot be read or is no sound bundle.
pub fn read_bundle(path: &Path) -> Result<Bundle> {
    let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
    Ok(UncheckedBundle::open(file)?.check()?)
}

/// Quantizes the glyph encoder into `path` as the demo does, but for `norm`.
///
/// # Panics
/// If `graft quantize` fails.
pub fn quantize_glyphs(path: &Path, norm: &str) {
    let models = workspace_root().join("models/glyphs");
    let output = Command::new(bin_dir().join("graft"))
        .args(["-q", "quantize", "--resize", "strokes", "--channels", "grey", "--norm", norm, "--calib"])
        .args([models.join("demo/calib"), "-o".into(), path.to_owned(), models.join("model.onnx")])
        .output()
        .expect("graft can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
