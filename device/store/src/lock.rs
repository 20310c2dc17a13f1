//! One daemon per state directory: an exclusive lock that says who holds it.
//!
//! The operating system's file lock, not the file's existence, is the lock: it goes with the process, however that
//! ends. The file's text is only for people.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::OpenError;

/// A held lock; dropped with the store.
pub(crate) struct Lock {
    _file: File,
}

/// Takes the lock in `dir`, waiting up to `wait` for another holder to finish.
///
/// # Errors
/// [`OpenError::Locked`] names the holder; [`OpenError::Io`] if the file cannot be used.
pub(crate) fn take(dir: &Path, program: &str, wait: Duration) -> Result<Lock, OpenError> {
    let path = dir.join("lock");
    let io = |what| OpenError::io(what, &path);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(io("open lock file"))?;
    let deadline = Instant::now() + wait;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(POLL),
            Err(TryLockError::WouldBlock) => {
                let holder = read_holder(&mut file);
                return Err(OpenError::Locked { dir: dir.to_path_buf(), holder, waited_s: wait.as_secs() });
            }
            Err(TryLockError::Error(source)) => return Err(io("lock")(source)),
        }
    }
    // On a full disk the text may stay empty or old: the lock itself holds all the same.
    let text = format!("{program} (process {})\n", std::process::id());
    let _ = file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0))).and_then(|_| file.write_all(text.as_bytes()));
    Ok(Lock { _file: file })
}

const POLL: Duration = Duration::from_millis(50);

/// Who wrote the lock file; where a lock also keeps readers out (Windows), nobody can tell.
fn read_holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.take(256).read_to_string(&mut text));
    match (read, text.trim()) {
        (Ok(_), holder) if !holder.is_empty() => holder.to_owned(),
        _ => "another program".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    #[test]
    fn second_opener_is_told_who_holds_it() {
        let dir = TestDir::new();
        let held = take(dir.path(), "graftd", Duration::ZERO).ok().unwrap();
        let error = take(dir.path(), "graft", Duration::from_millis(120)).err().unwrap();
        let expected = format!(
            "state in {} is in use by graftd (process {}); waited 0 s",
            dir.path().display(),
            std::process::id()
        );
        assert_eq!(error.to_string(), expected);
        drop(held);
        assert!(take(dir.path(), "graft", Duration::ZERO).is_ok());
    }

    #[test]
    fn second_opener_gets_the_lock_when_the_first_lets_go() {
        let dir = TestDir::new();
        let held = take(dir.path(), "graftd", Duration::ZERO).ok().unwrap();
        let waiter = {
            let path = dir.path().to_path_buf();
            thread::spawn(move || take(&path, "graft", Duration::from_secs(5)).is_ok())
        };
        thread::sleep(Duration::from_millis(150));
        drop(held);
        assert!(waiter.join().unwrap());
    }
}
