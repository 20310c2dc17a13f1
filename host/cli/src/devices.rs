//! Which board, and what its refusals mean for the user.

use std::fs;
use std::path::Path;

use graft_client::{Address, Board, CallError, ConnectError, ConnectOptions};
use graft_wire::error::BundleFault;
use graft_wire::message::DeviceInfo;
use graft_wire::{DeviceId, WireError};
use serde_json::{Value, json};

use crate::commands::Done;
use crate::context::Context;
use crate::error::{CliError, Exit, chain};
use crate::interrupt;

/// A connected board.
pub struct Device {
    /// As the user named it.
    pub name: String,
    /// What it is and held when the command started.
    pub info: DeviceInfo,
    board: Board,
}

impl Device {
    /// Its random id.
    pub fn id(&self) -> DeviceId {
        self.info.device
    }

    /// Asks the board something; its refusal becomes an error with help.
    ///
    /// # Errors
    /// What the board or the link says.
    pub fn call<T>(&mut self, ask: impl FnOnce(&mut Board) -> Result<T, CallError>) -> Result<T, CliError> {
        ask(&mut self.board).map_err(|e| call_error(&e, &self.name))
    }

    /// The same, where the caller tells refusals apart.
    ///
    /// # Errors
    /// As the client gives them.
    pub fn try_call<T>(&mut self, ask: impl FnOnce(&mut Board) -> Result<T, CallError>) -> Result<T, CallError> {
        ask(&mut self.board)
    }

    /// The active bundle.
    ///
    /// # Errors
    /// Exit code 1 if there is none.
    pub fn bundle(&self) -> Result<&graft_wire::message::BundleInfo, CliError> {
        self.info.bundle.as_ref().ok_or_else(|| refusal(&WireError::NoBundle, &self.name))
    }
}

/// The one device of a command that takes one.
///
/// # Errors
/// Exit code 3 for none or several; whatever stops the connection.
pub fn one(context: &Context) -> Result<Device, CliError> {
    match &context.devices[..] {
        [name] => open(context, name),
        [] => Err(no_device(context)),
        names => Err(CliError::new(
            Exit::Device,
            format!("{} devices are named ({}); this command takes one", names.len(), names.join(", ")),
        )
        .with_help(format!("name one of them, e.g. -d {}", names.first().map_or("", |n| n)))),
    }
}

/// Runs `work` on every named device, going on where one fails. `schema` names the object, whose `devices` holds what
/// `work` returns, or `device`, `error`, `help` and `exit`.
///
/// # Errors
/// Exit code 3 if no device is named; with a single device its own error; 130 after Ctrl-C.
pub fn each(
    context: &Context,
    schema: &str,
    mut work: impl FnMut(&mut Device) -> Result<Value, CliError>,
) -> Result<Done, CliError> {
    if context.devices.is_empty() {
        return Err(no_device(context));
    }
    let mut results = Vec::new();
    let mut errors: Vec<CliError> = Vec::new();
    for name in &context.devices {
        match open(context, name).and_then(|mut device| work(&mut device)) {
            Ok(result) => results.push(result),
            Err(error) if error.exit == Exit::Interrupted || context.devices.len() == 1 => return Err(error),
            Err(error) => {
                let error = if error.what.contains(name.as_str()) { error } else { error.at(name) };
                context.output.error(&error);
                results.push(json!({"device": name, "error": error.what, "help": error.help,
                    "exit": error.exit.code()}));
                errors.push(error);
            }
        }
    }
    let n = context.devices.len();
    let failure = (!errors.is_empty()).then(|| {
        let what = format!("{} of {n} devices failed", errors.len());
        match errors.first() {
            // All failed alike: the reason's own code says more than "some".
            Some(first) if errors.len() == n => CliError::new(first.exit, what),
            _ => CliError::new(Exit::SomeDevices, what),
        }
    });
    Ok(Done { object: json!({"schema": schema, "devices": results}), failure })
}

/// Connects and says so.
///
/// # Errors
/// A name that is no address (exit code 3), or whatever stops the connection.
pub fn open(context: &Context, name: &str) -> Result<Device, CliError> {
    interrupt::check(|| "nothing was sent".into())?;
    let address: Address = name.parse().map_err(|e| {
        CliError::new(Exit::Device, format!("{name:?} is no device: {}", chain(&e)))
            .with_help("sim:NAME, serial:PORT or ssh:USER@HOST, e.g. -d sim:first")
    })?;
    let options = ConnectOptions {
        data_dir: context.data_dir.clone(),
        interrupted: interrupt::flag(),
        ..ConnectOptions::default()
    };
    let mut board = Board::connect(&address, &options).map_err(|e| connect_error(&e, name))?;
    let info = board.info().map_err(|e| call_error(&e, name))?;
    context.output.device(name, &info.device.to_string());
    Ok(Device { name: name.to_owned(), info, board })
}

fn no_device(context: &Context) -> CliError {
    let known = known_devices(&context.data_dir, Path::new("/dev"));
    let help = match known.first() {
        None => "start a simulated one, e.g. graft device info -d sim:first".to_owned(),
        Some(first) => format!("choose one of {}, e.g. graft device info -d {first}", known.join(", ")),
    };
    CliError::new(Exit::Device, "no device is named; neither -d nor GRAFT_DEVICE is set").with_help(help)
}

/// Simulated boards and serial ports by name; nothing is opened.
pub fn known_devices(data_dir: &Path, dev: &Path) -> Vec<String> {
    let names = |dir: &Path| {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
        names.sort();
        names
    };
    let boards = names(&data_dir.join("sim")).into_iter().filter(|n| !n.starts_with('.')).map(|n| format!("sim:{n}"));
    let is_port = |n: &String| ["ttyUSB", "ttyACM", "cu.usb"].iter().any(|prefix| n.starts_with(prefix));
    let ports = names(dev).into_iter().filter(is_port).map(|n| format!("serial:{}", dev.join(n).display()));
    boards.chain(ports).collect()
}

fn connect_error(error: &ConnectError, name: &str) -> CliError {
    let exit = match error {
        ConnectError::Interrupted => return CliError::interrupted("nothing was sent"),
        ConnectError::Incompatible { .. } | ConnectError::UnreadableHello { .. } => Exit::Incompatible,
        _ => Exit::Failed,
    };
    CliError::new(exit, named(chain(error), name)).with_help(error.help().unwrap_or_default())
}

/// What a failed call means for the user.
pub fn call_error(error: &CallError, name: &str) -> CliError {
    match error {
        CallError::Refused(refused) => refusal(refused, name),
        CallError::Interrupted => CliError::interrupted(format!("what {name} has acknowledged is stored")),
        _ => CliError::new(Exit::Failed, named(chain(error), name)).with_help(error.help().unwrap_or_default()),
    }
}

/// An error's text with the device in front, unless it names the device itself.
fn named(text: String, name: &str) -> String {
    if text.contains(name) { text } else { format!("{name}: {text}") }
}

/// What a board's refusal means for the user.
pub fn refusal(error: &WireError, name: &str) -> CliError {
    let exit = match error {
        WireError::Malformed
        | WireError::SpaceMismatch { .. }
        | WireError::InputLength { .. }
        | WireError::EmbeddingLength { .. }
        | WireError::TooManyClasses { .. }
        | WireError::BadHead
        | WireError::BadBundle(BundleFault::Version | BundleFault::Unsupported) => Exit::Incompatible,
        WireError::HashMismatch { .. } | WireError::SelfTest { .. } | WireError::BadBundle(_) => Exit::Unverified,
        _ => Exit::Failed,
    };
    let help = match error {
        WireError::NoBundle | WireError::NoPrevious => format!("graft flash BUNDLE -d {name}"),
        WireError::SpaceMismatch { .. } | WireError::InputLength { .. } => {
            format!("the board's bundle may have changed meanwhile; look: graft device info -d {name}")
        }
        WireError::Malformed => format!("compare versions: graft --version and graft device info -d {name}"),
        WireError::NoHead => format!("graft train -d {name}"),
        WireError::TooFewClasses { .. } => format!("graft collect -d {name} --class NAME --from DIR"),
        WireError::TooManyClasses { .. } => format!("graft samples rm -d {name} --class NAME"),
        WireError::UnknownSample => format!("graft samples ls -d {name}"),
        WireError::Tombstoned => format!("graft collect -d {name} --session each --class NAME --from FILE"),
        WireError::HashMismatch { .. } | WireError::UploadOffset { .. } | WireError::UnknownUpload => {
            format!("send it again: graft flash BUNDLE -d {name}")
        }
        WireError::BadBundle(BundleFault::Version | BundleFault::Unsupported) => {
            format!("update graftd on the board; it is {name}: graft device info -d {name}")
        }
        WireError::BadBundle(_) | WireError::SelfTest { .. } => {
            "make the bundle again: graft quantize MODEL.onnx --calib DIR".into()
        }
        WireError::DiskFull => format!("forgetting works on a full disk: graft samples rm -d {name} --class NAME"),
        WireError::HeadKnowsMore { .. } => {
            format!("send its samples too (graft push -d {name}), or train anyway: graft train -d {name} --force")
        }
        WireError::HeadWorse { .. } => {
            format!("look for wrong labels: graft eval -d {name}; or activate it: graft train -d {name} --force")
        }
        WireError::BadRate => format!("graft train -d {name} --unknown 0.05"),
        WireError::NothingToLeaveOut { .. } | WireError::TooFewToPromise { .. } => {
            format!("graft collect -d {name} --class NAME --from DIR")
        }
        WireError::BadHead => format!("graft push -d {name}"),
        WireError::NoSignal => "try another picture; this one is empty for the backbone".into(),
        WireError::Unsolvable => {
            format!(
                "are pictures of two classes the same? look: graft samples ls -d {name}; then graft train -d {name} --head ridge"
            )
        }
        _ => format!("graft device info -d {name}"),
    };
    CliError::new(exit, format!("{name}: {error}")).with_help(help)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Global;
    use crate::files::tests::TestDir;
    use crate::output::Output;
    use graft_wire::Digest;

    fn context(dir: &Path, devices: &[&str]) -> Context {
        let devices = devices.iter().map(|d| (*d).to_owned()).collect();
        Context { data_dir: dir.to_owned(), devices, output: Output::new(&Global { quiet: true, ..Global::default() }) }
    }

    #[test]
    fn no_device_is_exit_3_and_lists_what_exists() {
        let dir = TestDir::new("known");
        dir.file("sim/desk/x", b"");
        let error = one(&context(&dir.0, &[])).err().unwrap();
        assert_eq!(error.exit, Exit::Device);
        assert!(error.what.contains("neither -d nor GRAFT_DEVICE"), "{error}");
        assert!(error.help.contains("graft device info -d sim:desk"), "{error}");
        let dev = TestDir::new("dev");
        dev.file("ttyUSB0", b"");
        dev.file("tty0", b"");
        let known = known_devices(&dir.0, &dev.0);
        assert_eq!(known, ["sim:desk".to_owned(), format!("serial:{}/ttyUSB0", dev.0.display())]);
    }

    #[test]
    fn two_devices_are_ambiguous_where_one_is_needed() {
        let dir = TestDir::new("two");
        let error = one(&context(&dir.0, &["sim:a", "sim:b"])).err().unwrap();
        assert_eq!(error.exit, Exit::Device);
        assert!(error.what.contains("2 devices are named (sim:a, sim:b)"), "{error}");
    }

    #[test]
    fn what_is_no_address_is_exit_3() {
        let dir = TestDir::new("address");
        for name in ["board", "usb:1", "sim:", "sim:../x"] {
            let error = open(&context(&dir.0, &[]), name).err().unwrap();
            assert_eq!(error.exit, Exit::Device, "{name}");
            assert!(error.what.contains("is no device"), "{error}");
        }
    }

    #[test]
    fn refusals_map_to_exit_codes_and_one_command() {
        let cases = [
            (WireError::NoHead, 1, "graft train -d sim:a"),
            (WireError::NoBundle, 1, "graft flash BUNDLE -d sim:a"),
            (WireError::SelfTest { case: 0, n_bytes: 3 }, 5, "graft quantize"),
            (WireError::BadBundle(BundleFault::Hash), 5, "graft quantize"),
            (WireError::BadBundle(BundleFault::Version), 4, "update graftd"),
            (WireError::InputLength { found: 1, expected: 2 }, 4, "graft device info"),
            (WireError::HashMismatch { found: Digest([0; 32]), expected: Digest([1; 32]) }, 5, "graft flash"),
            (WireError::HeadKnowsMore { head: 9, held: 3 }, 1, "--force"),
            (WireError::HeadWorse { n: 30, n_correct_old: 29, n_correct_new: 20 }, 1, "--force"),
            (WireError::TooFewToPromise { n: 0, n_needed: 19 }, 1, "graft collect"),
            (WireError::DiskFull, 1, "graft samples rm"),
        ];
        for (refused, code, help) in cases {
            let error = refusal(&refused, "sim:a");
            assert_eq!(error.exit.code(), code, "{error}");
            assert!(error.help.contains(help), "{error}");
            assert!(error.what.starts_with("sim:a: "), "{error}");
        }
    }
}
