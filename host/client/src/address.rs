//! How a user names a board: `sim:NAME`, `serial:PATH[@BAUD]`, `ssh:[USER@]HOST`.

use std::fmt;
use std::str::FromStr;

/// Speed of a serial line where none is named, in bits per second.
pub const BAUD_DEFAULT: u32 = 115_200;
/// Slowest and fastest speed taken.
pub const BAUD_RANGE: std::ops::RangeInclusive<u32> = 1_200..=12_000_000;
/// Longest name of a simulated board, in characters.
pub const SIM_NAME_LEN_MAX: usize = 64;

/// Where a board is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// A board in this process; its state lies under the data directory.
    Sim(String),
    /// A serial port or pseudo terminal.
    Serial {
        /// Device file, or `COM3`.
        path: String,
        /// Bits per second.
        baud: u32,
    },
    /// A board that the system's `ssh` reaches.
    Ssh {
        /// Host or alias, with `user@` if given.
        host: String,
    },
}

/// Why a text is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// No known kind in front.
    #[error("device {found:?} is of no known kind; sim:NAME, serial:PATH[@BAUD] and ssh:[USER@]HOST are")]
    Kind {
        /// The text.
        found: String,
    },
    /// A simulated board's name that cannot be a folder name everywhere.
    #[error(
        "name of a simulated board is {found:?}; 1 to {SIM_NAME_LEN_MAX} of a-z A-Z 0-9 . _ - are allowed, not \
         beginning with a dot"
    )]
    SimName {
        /// The name.
        found: String,
    },
    /// No path.
    #[error("serial device has no path; serial:/dev/ttyUSB0 is an example")]
    NoPath,
    /// A speed that is no number or out of range.
    #[error("baud rate is {found:?}; {} to {} is allowed", BAUD_RANGE.start(), BAUD_RANGE.end())]
    Baud {
        /// The text after the `@`.
        found: String,
    },
    /// A host that ssh would not take for one.
    #[error("ssh host is {found:?}; HOST or USER@HOST without spaces, not beginning with '-', is allowed")]
    Host {
        /// The text.
        found: String,
    },
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text.split_once(':') {
            Some(("sim", name)) => sim(name),
            Some(("serial", place)) => serial(place),
            Some(("ssh", host)) => ssh(host),
            _ => Err(AddressError::Kind { found: text.to_owned() }),
        }
    }
}

/// True for a name that is one plain folder name everywhere and cannot leave its parent folder.
pub(crate) fn is_sim_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=SIM_NAME_LEN_MAX).contains(&name.len()) && !name.starts_with('.') && name.chars().all(plain)
}

fn sim(name: &str) -> Result<Address, AddressError> {
    if is_sim_name(name) {
        Ok(Address::Sim(name.to_owned()))
    } else {
        Err(AddressError::SimName { found: name.to_owned() })
    }
}

fn serial(place: &str) -> Result<Address, AddressError> {
    // An `@` before the last `/` belongs to the path, as in some names under /dev/serial/by-path.
    let (path, baud) = match place.rsplit_once('@') {
        Some((path, baud)) if !baud.contains('/') => {
            let speed = baud.parse().ok().filter(|speed| BAUD_RANGE.contains(speed));
            (path, speed.ok_or_else(|| AddressError::Baud { found: baud.to_owned() })?)
        }
        _ => (place, BAUD_DEFAULT),
    };
    if path.is_empty() { Err(AddressError::NoPath) } else { Ok(Address::Serial { path: path.to_owned(), baud }) }
}

fn ssh(host: &str) -> Result<Address, AddressError> {
    // A leading '-' would be an option to ssh, and options can run commands.
    let name = host.rsplit_once('@').map_or(host, |(_, name)| name);
    let odd = |c: char| c.is_whitespace() || c.is_control();
    if name.is_empty() || host.starts_with(['-', '@']) || name.starts_with('-') || host.contains(odd) {
        return Err(AddressError::Host { found: host.to_owned() });
    }
    Ok(Address::Ssh { host: host.to_owned() })
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Sim(name) => write!(f, "sim:{name}"),
            Address::Serial { path, baud: BAUD_DEFAULT } if !path.contains('@') => write!(f, "serial:{path}"),
            Address::Serial { path, baud } => write!(f, "serial:{path}@{baud}"),
            Address::Ssh { host } => write!(f, "ssh:{host}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip() {
        let serial = |path: &str, baud| Address::Serial { path: path.to_owned(), baud };
        for (text, address) in [
            ("sim:left", Address::Sim("left".to_owned())),
            ("serial:/dev/ttyUSB0", serial("/dev/ttyUSB0", 115_200)),
            ("serial:/dev/ttyUSB0@921600", serial("/dev/ttyUSB0", 921_600)),
            ("serial:COM3", serial("COM3", 115_200)),
            ("serial:/dev/a@b/c", serial("/dev/a@b/c", 115_200)),
            ("ssh:pi@raspberrypi.local", Address::Ssh { host: "pi@raspberrypi.local".to_owned() }),
            ("ssh:board", Address::Ssh { host: "board".to_owned() }),
        ] {
            assert_eq!(text.parse(), Ok(address.clone()), "{text}");
            assert_eq!(address.to_string().parse(), Ok(address), "{text}");
        }
    }

    #[test]
    fn wrong_addresses_say_what_is_allowed() {
        for (text, message) in [
            ("left", "device \"left\" is of no known kind; sim:NAME, serial:PATH[@BAUD] and ssh:[USER@]HOST are"),
            ("usb:1", "device \"usb:1\" is of no known kind; sim:NAME, serial:PATH[@BAUD] and ssh:[USER@]HOST are"),
            (
                "sim:../x",
                "name of a simulated board is \"../x\"; 1 to 64 of a-z A-Z 0-9 . _ - are allowed, not beginning with \
                 a dot",
            ),
            ("serial:", "serial device has no path; serial:/dev/ttyUSB0 is an example"),
            ("serial:/dev/tty@fast", "baud rate is \"fast\"; 1200 to 12000000 is allowed"),
            ("serial:/dev/tty@0", "baud rate is \"0\"; 1200 to 12000000 is allowed"),
            (
                "ssh:-oProxyCommand=x",
                "ssh host is \"-oProxyCommand=x\"; HOST or USER@HOST without spaces, not beginning with '-', is allowed",
            ),
        ] {
            assert_eq!(text.parse::<Address>().unwrap_err().to_string(), message);
        }
        for text in ["sim:", "sim:.", "sim:..", "sim:a/b", "ssh:", "ssh:pi@", "ssh:a b", "ssh:pi@-x"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
