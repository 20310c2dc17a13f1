//! What one run has chosen: data directory, devices, output.

use std::path::{Path, PathBuf};

use crate::args::Global;
use crate::error::CliError;
use crate::output::Output;

/// Everything a command needs besides its own arguments.
#[derive(Clone, Debug)]
pub struct Context {
    /// Where simulated boards and pulled sets live.
    pub data_dir: PathBuf,
    /// Devices named by `-d` or else by `GRAFT_DEVICE`, in order, without repetitions.
    pub devices: Vec<String>,
    /// Where results and progress go.
    pub output: Output,
}

impl Context {
    /// From the global options and the environment.
    ///
    /// # Errors
    /// Usage, if there is neither `GRAFT_DATA_DIR` nor a home directory.
    pub fn new(global: &Global) -> Result<Self, CliError> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let data_dir = data_dir(variable)
            .ok_or_else(|| CliError::usage("no data directory: neither GRAFT_DATA_DIR nor HOME is set"))
            .map_err(|e| e.with_help("export GRAFT_DATA_DIR=DIR"))?;
        let from_env = variable("GRAFT_DEVICE").and_then(|v| v.into_string().ok()).unwrap_or_default();
        Ok(Self { data_dir, devices: devices(&global.devices, &from_env), output: Output::new(global) })
    }

    /// The same run in another data directory with the options of `global`; the environment is not read.
    pub fn for_command(&self, global: &Global, data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned(), devices: devices(&global.devices, ""), output: self.output.clone() }
    }
}

/// `GRAFT_DATA_DIR`, or `graft` in the system's place for such data.
fn data_dir(variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Option<PathBuf> {
    if let Some(dir) = variable("GRAFT_DATA_DIR") {
        return Some(dir.into());
    }
    if cfg!(windows) {
        return variable("LOCALAPPDATA").map(|dir| PathBuf::from(dir).join("graft"));
    }
    // The XDG base directory specification: relative paths are to be ignored.
    let xdg = variable("XDG_DATA_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let base = xdg.or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".local").join("share")))?;
    Some(base.join("graft"))
}

/// Devices of the command line; those of the environment (separated by commas) only if there are none.
fn devices(named: &[String], from_env: &str) -> Vec<String> {
    let mut devices = Vec::new();
    let from_env = from_env.split(',').map(|d| d.trim().to_owned());
    let named = named.iter().map(|d| d.trim().to_owned());
    let chosen: Vec<String> = if named.len() > 0 { named.collect() } else { from_env.collect() };
    for device in chosen {
        if !device.is_empty() && !devices.contains(&device) {
            devices.push(device);
        }
    }
    devices
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    #[test]
    fn the_command_line_beats_the_environment() {
        assert_eq!(devices(&["sim:a".into(), "sim:a".into()], "sim:b"), ["sim:a"]);
        assert_eq!(devices(&[], "sim:b, sim:c,"), ["sim:b", "sim:c"]);
        assert!(devices(&[], "").is_empty());
    }

    #[test]
    #[cfg(not(windows))]
    fn the_data_directory_follows_the_environment() {
        let with = |set: &'static [(&str, &str)]| {
            data_dir(move |name| set.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v)))
        };
        assert_eq!(with(&[("GRAFT_DATA_DIR", "/d"), ("HOME", "/h")]), Some("/d".into()));
        assert_eq!(with(&[("XDG_DATA_HOME", "/x"), ("HOME", "/h")]), Some("/x/graft".into()));
        assert_eq!(with(&[("XDG_DATA_HOME", "x"), ("HOME", "/h")]), Some("/h/.local/share/graft".into()));
        assert_eq!(with(&[]), None);
    }
}
