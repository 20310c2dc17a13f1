//! Ctrl-C: commands stop at the next safe point; a second one ends the process at once.
//!
//! Where nothing has been written yet (quantizing, waiting at a prompt) the first one ends the process, too: see
//! [`ExitAtOnce`]. Boards survive that as they survive a pulled cable: every effect is one transaction.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{CliError, Exit};

static STOP: AtomicBool = AtomicBool::new(false);
/// What to say when the process ends at the first Ctrl-C.
static AT_ONCE: Mutex<Option<&'static str>> = Mutex::new(None);
/// A temporary folder that goes when the process ends there.
static FOLDER: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Takes over Ctrl-C, SIGTERM and SIGHUP for the whole process.
pub fn install() {
    // A second installation fails and changes nothing; that happens only in tests.
    let _ = ctrlc::set_handler(|| {
        let at_once = AT_ONCE.lock().ok().and_then(|text| *text);
        if STOP.swap(true, Ordering::SeqCst) {
            exit();
        }
        if let Some(text) = at_once {
            eprintln!("error: interrupted; {text}");
            exit();
        }
        eprintln!("stopping at the next safe point; press Ctrl-C again to stop at once");
    });
}

fn exit() -> ! {
    if let Some(folder) = FOLDER.lock().ok().and_then(|folder| folder.clone()) {
        // What cannot be removed lies in the system's folder for such files.
        let _ = std::fs::remove_dir_all(folder);
    }
    std::process::exit(i32::from(Exit::Interrupted.code()))
}

/// Names the temporary folder that goes when Ctrl-C ends the process; `None` when it is gone already.
pub fn remove_at_exit(folder: Option<&Path>) {
    if let Ok(mut slot) = FOLDER.lock() {
        *slot = folder.map(Path::to_owned);
    }
}

/// The flag itself, for loops of other crates.
pub fn flag() -> &'static AtomicBool {
    &STOP
}

/// True after the first Ctrl-C.
pub fn stopped() -> bool {
    STOP.load(Ordering::SeqCst)
}

/// Fails with exit code 130 after a Ctrl-C; `stored` says what is kept.
///
/// # Errors
/// [`Exit::Interrupted`].
pub fn check(stored: impl FnOnce() -> String) -> Result<(), CliError> {
    if stopped() { Err(CliError::interrupted(stored())) } else { Ok(()) }
}

/// While this lives, the first Ctrl-C ends the process with exit code 130.
pub struct ExitAtOnce(());

impl ExitAtOnce {
    /// `text` says what is kept, e.g. "nothing was written".
    pub fn new(text: &'static str) -> Self {
        if let Ok(mut slot) = AT_ONCE.lock() {
            *slot = Some(text);
        }
        Self(())
    }
}

impl Drop for ExitAtOnce {
    fn drop(&mut self) {
        if let Ok(mut slot) = AT_ONCE.lock() {
            *slot = None;
        }
    }
}
