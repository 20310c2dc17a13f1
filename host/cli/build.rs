//! Lists the files that `graft demo` carries, so that an installed program needs none beside it.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    // Cargo sets both for every build script.
    let crate_dir = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let root = fs::canonicalize(crate_dir)?.join("../../models/glyphs");
    println!("cargo:rerun-if-changed={}", root.join("model.onnx").display());
    println!("cargo:rerun-if-changed={}", root.join("demo").display());
    let mut files = Vec::new();
    if root.join("model.onnx").is_file() {
        files.push(root.join("model.onnx"));
    }
    if root.join("demo").is_dir() {
        list(&root.join("demo"), &mut files)?;
    }
    let mut code = String::from("&[\n");
    for path in &files {
        // Names as they will lie in the demo's folder: `model.onnx`, `board-a/CLASS/1.jpg`, ...
        let name = path.strip_prefix(&root).unwrap_or(path);
        let name = name.strip_prefix("demo").unwrap_or(name).to_string_lossy().replace('\\', "/");
        code.push_str(&format!("({name:?}, include_bytes!({:?}) as &[u8]),\n", path.to_string_lossy()));
    }
    code.push_str("]\n");
    fs::write(out_dir.join("demo_files.rs"), code)
}

fn list(dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut paths = fs::read_dir(dir)?.map(|e| Ok(e?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
        if path.is_dir() {
            list(&path, files)?;
        } else if !hidden && path.extension().is_some_and(|e| e == "jpg" || e == "png" || e == "json") {
            files.push(path);
        }
    }
    Ok(())
}
