//! A daemon behind a byte stream: standard streams under ssh, a serial line, a pseudo terminal.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use graft_wire::Hello;
use graft_wire::frame::{Decoder, Frames, Kind};
use graft_wire::limits::{FRAME_PAYLOAD_BYTES_MAX, MESSAGE_BYTES_MAX};

use crate::daemon::Daemon;

/// Answers hellos and requests until the stream ends or `stop` is set. `stop` is looked at between messages and
/// whenever a read gives up (`TimedOut`, `WouldBlock`, `Interrupted`), so a reader that can wait for ever cannot be
/// stopped that way.
///
/// Whatever is no frame is passed over; a host that hears nothing asks again.
///
/// # Errors
/// Any other error of the stream. Everything that was acknowledged is stored by then.
pub fn serve(daemon: &mut Daemon, mut reader: impl Read, mut writer: impl Write, stop: &AtomicBool) -> io::Result<()> {
    let mut decoder = Decoder::new(vec![0u8; MESSAGE_BYTES_MAX]);
    let mut line = vec![0u8; 64 << 10];
    let mut payload_bytes_max = FRAME_PAYLOAD_BYTES_MAX;
    let mut counter = 0u16;
    while !stop.load(Ordering::Relaxed) {
        let n_bytes = match reader.read(&mut line) {
            Ok(0) => return Ok(()),
            Ok(n_bytes) => n_bytes,
            Err(error) if is_pause(error.kind()) => continue,
            Err(error) => return Err(error),
        };
        let mut bytes = line.get(..n_bytes).unwrap_or_default();
        while let Some(message) = decoder.push(&mut bytes) {
            let (kind, answer) = match message.kind {
                Kind::Hello => {
                    // A host of another version gets our hello, too: it is the one that explains.
                    if let Ok(host) = Hello::decode(message.bytes) {
                        payload_bytes_max = host.frame_payload_bytes_max as usize;
                    }
                    (Kind::Hello, daemon.hello().encode().to_vec())
                }
                Kind::Request => (Kind::Response, daemon.handle(message.bytes)),
                Kind::Response => continue,
            };
            send(&mut writer, kind, counter, &answer, payload_bytes_max)?;
            counter = counter.wrapping_add(1);
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
    }
    Ok(())
}

fn is_pause(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Interrupted | ErrorKind::TimedOut | ErrorKind::WouldBlock)
}

fn send(writer: &mut impl Write, kind: Kind, counter: u16, message: &[u8], payload_bytes_max: usize) -> io::Result<()> {
    // Responses are bounded pages; one that was over the cap would not be sent, and the host would ask again in vain.
    let frames = Frames::new(kind, counter, message).map_err(|error| io::Error::other(error.to_string()))?;
    let mut frames = frames.with_payload_max(payload_bytes_max);
    while let Some(bytes) = frames.next_frame() {
        writer.write_all(bytes)?;
    }
    writer.flush()
}
