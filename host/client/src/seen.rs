//! What came from a port on which no board said hello, and what that means for the user.

use std::collections::VecDeque;
use std::fmt;

/// Bytes kept for a diagnosis.
const RECENT_BYTES: usize = 512;
/// Characters of an excerpt.
const EXCERPT_LEN: usize = 80;

/// What was seen instead of a hello.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Seen {
    /// Not a byte.
    Nothing,
    /// A console asks for a user name or password.
    LoginPrompt,
    /// A console with a shell.
    ShellPrompt,
    /// A boot loader or kernel is talking.
    BootText,
    /// Our own bytes came back.
    Echo,
    /// Bytes that are no text.
    Garbled {
        /// How many, at most the number kept.
        n_bytes: usize,
    },
    /// Some other text; an excerpt of its end.
    Other(String),
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Seen::Nothing => f.write_str("nothing"),
            Seen::LoginPrompt => f.write_str("a login prompt"),
            Seen::ShellPrompt => f.write_str("a shell prompt"),
            Seen::BootText => f.write_str("boot text"),
            Seen::Echo => f.write_str("an echo of what was sent"),
            Seen::Garbled { n_bytes } => write!(f, "{n_bytes} bytes that are no text"),
            Seen::Other(excerpt) => write!(f, "{excerpt:?}"),
        }
    }
}

impl Seen {
    /// One thing to try; `port` is the serial port's path as the host names it.
    pub fn help(&self, port: &str) -> String {
        match self {
            Seen::Nothing => {
                "see that the board is on, RX and TX are crossed, and `graftd serve --port` runs there; on \
                              the board: `systemctl status graftd`"
                    .to_owned()
            }
            Seen::LoginPrompt | Seen::ShellPrompt => {
                "a console runs on this port; on the board: `sudo systemctl disable --now serial-getty@ttyS0.service` \
                 (or serial-getty@ttyAMA0, ttyGS0), or use ssh:[USER@]HOST"
                    .to_owned()
            }
            Seen::BootText => "the board is starting; wait until it is up and repeat the command".to_owned(),
            Seen::Echo => {
                "something returns what is sent: a console with echo, or RX and TX connected to each other".to_owned()
            }
            Seen::Garbled { .. } => {
                format!("the baud rate seems wrong; name the board's own, for example `-d serial:{port}@9600`")
            }
            Seen::Other(_) => "another program speaks on this port; see that it is the board's".to_owned(),
        }
    }
}

/// The last bytes that came, whatever they were.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    bytes: VecDeque<u8>,
}

impl Recent {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        // Only the end counts, however much came at once.
        let end = bytes.get(bytes.len().saturating_sub(RECENT_BYTES)..).unwrap_or(bytes);
        let n_over = (self.bytes.len() + end.len()).saturating_sub(RECENT_BYTES);
        self.bytes.drain(..n_over);
        self.bytes.extend(end);
    }

    pub(crate) fn diagnose(&self) -> Seen {
        diagnose(&self.bytes.iter().copied().collect::<Vec<_>>())
    }
}

fn diagnose(bytes: &[u8]) -> Seen {
    if bytes.is_empty() {
        return Seen::Nothing;
    }
    let text = String::from_utf8_lossy(bytes);
    let lower = text.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if has(&["login:", "password:"]) {
        return Seen::LoginPrompt;
    }
    let n_odd = text.chars().filter(|c| *c == char::REPLACEMENT_CHARACTER || is_odd_control(*c)).count();
    // Text has next to none of them; a wrong baud rate makes most bytes odd.
    if n_odd * 5 > text.chars().count() {
        return Seen::Garbled { n_bytes: bytes.len() };
    }
    if has(&["u-boot", "booting", "linux version", "starting kernel", "systemd[", "[    0.", "[  ok  ]", "grub"]) {
        return Seen::BootText;
    }
    let last_line = text.lines().next_back().unwrap_or("");
    if last_line.contains(['@', ':', '~', '/']) && last_line.trim_end().ends_with(['$', '#', '%']) {
        return Seen::ShellPrompt;
    }
    Seen::Other(excerpt(&text))
}

fn is_odd_control(c: char) -> bool {
    c.is_control() && !"\r\n\t\u{1b}\u{8}".contains(c)
}

fn excerpt(text: &str) -> String {
    let text = text.trim();
    let n_skipped = text.chars().count().saturating_sub(EXCERPT_LEN);
    text.chars().skip(n_skipped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_told_apart_by_what_they_say() {
        let wrong_baud: Vec<u8> = (0..40u8).map(|i| i.wrapping_mul(37) | 0x80).collect();
        for (bytes, seen) in [
            (&b""[..], Seen::Nothing),
            (b"\r\nDebian GNU/Linux 12 raspberrypi ttyS0\r\n\r\nraspberrypi login: ", Seen::LoginPrompt),
            (b"Password: ", Seen::LoginPrompt),
            (b"\r\npi@raspberrypi:~$ ", Seen::ShellPrompt),
            (b"[    0.000000] Linux version 6.6.20", Seen::BootText),
            (b"U-Boot 2023.01 (Jan 01 2023)", Seen::BootText),
            (&wrong_baud, Seen::Garbled { n_bytes: 40 }),
            (b"$GPGGA,123519,4807.038,N\r\n", Seen::Other("$GPGGA,123519,4807.038,N".to_owned())),
        ] {
            assert_eq!(diagnose(bytes), seen);
        }
    }

    #[test]
    fn only_the_end_is_kept_and_shown() {
        let mut recent = Recent::default();
        recent.push(&[b'a'; 10_000]);
        recent.push(b"the end");
        assert_eq!(recent.bytes.len(), RECENT_BYTES);
        let Seen::Other(excerpt) = recent.diagnose() else { panic!("not text") };
        assert_eq!(excerpt.len(), EXCERPT_LEN);
        assert!(excerpt.ends_with("athe end"));
    }
}
