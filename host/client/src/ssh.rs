//! A board behind the system's `ssh`, which runs `graftd connect` there and carries its standard streams.
//!
//! Keys, agents, jump hosts and known hosts are the user's own ssh configuration; we add no authentication.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::framed::{ByteStream, Owner};

/// Bytes of standard error kept for an error's text.
const STDERR_BYTES: usize = 1000;
/// Time in which a process that ended its output must be gone and its last words read.
const LAST_WORDS_WAIT: Duration = Duration::from_millis(500);
/// Bytes worth one message.
const CHUNK_BYTES: usize = 64 << 10;

/// Starts `ssh host graftd connect`.
///
/// # Errors
/// What starting the program gave.
pub(crate) fn open(program: &Path, host: &str) -> io::Result<ByteStream> {
    let mut child = Command::new(program)
        // A network that went silent ends the link within a minute instead of never.
        .args(["-T", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3", "--", host, "graftd connect"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let process = Process { child, words: Arc::default() };
    let (Some(stdin), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) else {
        return Err(io::Error::other("its standard streams are missing"));
    };
    process.listen(stderr);
    Ok(ByteStream {
        reader: Box::new(stdout),
        writer: Box::new(stdin),
        owner: Some(Box::new(process)),
        // A shared ssh connection may keep the pipe open after the child has ended.
        ends_by_itself: false,
        chunk_bytes: CHUNK_BYTES,
    })
}

/// The ssh process; ends with this value.
struct Process {
    child: Child,
    words: Arc<Mutex<VecDeque<u8>>>,
}

impl Process {
    fn listen(&self, mut stderr: ChildStderr) {
        let words = Arc::clone(&self.words);
        thread::spawn(move || {
            let mut buffer = [0u8; 256];
            while let Ok(n_bytes @ 1..) = stderr.read(&mut buffer) {
                let mut words = words.lock().unwrap_or_else(PoisonError::into_inner);
                words.extend(buffer.iter().take(n_bytes));
                let n_over = words.len().saturating_sub(STDERR_BYTES);
                words.drain(..n_over);
            }
        });
    }
}

impl Owner for Process {
    fn last_words(&mut self) -> Option<String> {
        let end = Instant::now() + LAST_WORDS_WAIT;
        let status = loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < end => thread::sleep(Duration::from_millis(10)),
                status => break status.ok().flatten(),
            }
        };
        // The process is gone, its words may still be in the pipe.
        thread::sleep(Duration::from_millis(50));
        let words: Vec<u8> = self.words.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        let words = String::from_utf8_lossy(&words);
        let lines: Vec<&str> = words.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let status = status.map_or("ssh ended its output".to_owned(), |status| format!("ssh ended with {status}"));
        Some(if lines.is_empty() { status } else { format!("{status}: {}", lines.join("; ")) })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
