//! What a device id is bound to, so that a cloned card is noticed.
//!
//! A board has a serial number in its device tree, a PC one in its firmware (readable by root only), and most
//! systems a machine id. Which of them was used is stored with the hash of its value: only a readable, different
//! value of the same kind is a clone. A value that cannot be read today proves nothing.

use std::fs;

/// Where the hardware's name comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hardware {
    /// Read from the system.
    Detect,
    /// This text stands for the serial number: simulated boards, tests.
    Fixed(String),
}

/// A hardware name as stored: source and BLAKE3 over source and value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Binding {
    pub source: String,
    pub hash: [u8; 32],
}

const FILES: [(&str, &str); 3] = [
    ("device-tree", "/proc/device-tree/serial-number"),
    ("dmi", "/sys/class/dmi/id/product_uuid"),
    ("machine-id", "/etc/machine-id"),
];

impl Hardware {
    /// The best binding there is; `None` if this system has no name at all.
    pub(crate) fn bind(&self) -> Option<Binding> {
        match self {
            Hardware::Fixed(value) => Some(binding("fixed", value)),
            Hardware::Detect => FILES.iter().find_map(|(source, path)| read(source, path)),
        }
    }

    /// True if the same source now names other hardware than `stored`.
    pub(crate) fn contradicts(&self, stored: &Binding) -> bool {
        let now = match self {
            Hardware::Fixed(value) => Some(binding("fixed", value)),
            Hardware::Detect => {
                FILES.iter().find(|(source, _)| *source == stored.source).and_then(|(source, path)| read(source, path))
            }
        };
        now.is_some_and(|now| now.source == stored.source && now.hash != stored.hash)
    }
}

fn read(source: &str, path: &str) -> Option<Binding> {
    let value = fs::read(path).ok()?;
    let value = String::from_utf8_lossy(&value);
    // Device-tree strings end with a zero byte; a serial of zeros only is none.
    let value = value.trim_matches(['\0', '\n', ' ']);
    (!value.trim_matches(['0', '-']).is_empty()).then(|| binding(source, value))
}

/// The value is hashed because a serial number is nobody's business.
fn binding(source: &str, value: &str) -> Binding {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"graft hardware v1");
    hasher.update(source.as_bytes());
    hasher.update(b"\0");
    hasher.update(value.as_bytes());
    Binding { source: source.to_owned(), hash: *hasher.finalize().as_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_value_of_the_same_source_contradicts() {
        let here = Hardware::Fixed("pi-1".to_owned());
        let stored = here.bind().unwrap();
        assert!(!here.contradicts(&stored));
        assert!(Hardware::Fixed("pi-2".to_owned()).contradicts(&stored));
        // The source cannot be read from here: no proof.
        assert!(!Hardware::Detect.contradicts(&stored));
    }
}
