//! Messages cut into frames for serial lines, pipes and pseudo terminals; a state machine that is fed bytes.
//!
//! ```text
//! message:  0x00 frame 0x00 frame 0x00 ... frame 0x00
//! frame:    COBS( header [5] | payload [0..=2048] | crc u32 )
//! header:   kind u8, bit 7 set on the last fragment | message u16 | fragment u16
//! crc:      CRC-32C of header and payload
//! ```
//! Little-endian. `message` counts the sender's messages and wraps; `fragment` counts from 0 within one. COBS leaves
//! no zero inside a frame, so a zero always ends one: after any damage the decoder drops to the next zero byte, also
//! inside a frame that grew too long, so that nothing within such a frame is ever taken for a frame. The leading zero
//! of a message flushes line noise and half-sent frames before it.
//!
//! A message arrives intact or not at all; asking again is the business of the layer above.
//! Source: Cheshire & Baker 1999, "Consistent Overhead Byte Stuffing".

use crc::{CRC_32_ISCSI, Crc};

use crate::error::DecodeError;
use crate::limits::{FRAME_PAYLOAD_BYTES_MAX, MESSAGE_BYTES_MAX};

/// Bytes of a frame's header before COBS.
const HEADER_BYTES: usize = 5;
/// Bytes of a frame's checksum before COBS.
const CRC_BYTES: usize = 4;
/// Longest frame on the line, without the zeros around it.
pub const FRAME_BYTES_MAX: usize = cobs::max_encoding_length(HEADER_BYTES + FRAME_PAYLOAD_BYTES_MAX + CRC_BYTES);
/// Shortest payload cap a peer may ask for: the longest message still fits 2^16 fragments.
pub const FRAME_PAYLOAD_BYTES_MIN: usize = MESSAGE_BYTES_MAX >> 16;

const LAST: u8 = 0x80;
const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// 1: a [`crate::Hello`], either way.
    Hello,
    /// 2: a [`crate::RequestEnvelope`], host to board.
    Request,
    /// 3: a [`crate::ResponseEnvelope`], board to host.
    Response,
}

impl Kind {
    fn number(self) -> u8 {
        match self {
            Kind::Hello => 1,
            Kind::Request => 2,
            Kind::Response => 3,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Kind::Hello),
            2 => Some(Kind::Request),
            3 => Some(Kind::Response),
            _ => None,
        }
    }
}

/// Cuts one message into frames; see [`Frames::next_frame`].
pub struct Frames<'a> {
    kind: Kind,
    counter: u16,
    rest: Option<&'a [u8]>,
    fragment: u16,
    payload_bytes_max: usize,
    /// A zero, the frame, a zero.
    line: [u8; FRAME_BYTES_MAX + 2],
}

impl<'a> Frames<'a> {
    /// The frames of `message`, the sender's message number `counter`.
    ///
    /// # Errors
    /// [`DecodeError::TooLong`] if `message` is over [`MESSAGE_BYTES_MAX`].
    pub fn new(kind: Kind, counter: u16, message: &'a [u8]) -> Result<Self, DecodeError> {
        if message.len() > MESSAGE_BYTES_MAX {
            return Err(DecodeError::TooLong { what: "message", found: message.len(), limit: MESSAGE_BYTES_MAX });
        }
        let line = [0; FRAME_BYTES_MAX + 2];
        Ok(Self { kind, counter, rest: Some(message), fragment: 0, payload_bytes_max: FRAME_PAYLOAD_BYTES_MAX, line })
    }

    /// Keeps payloads within `bytes_max`, as the peer's hello announced it.
    pub fn with_payload_max(mut self, bytes_max: usize) -> Self {
        self.payload_bytes_max = bytes_max.clamp(FRAME_PAYLOAD_BYTES_MIN, FRAME_PAYLOAD_BYTES_MAX);
        self
    }

    /// The next bytes for the line, zeros included; `None` after the last frame.
    pub fn next_frame(&mut self) -> Option<&[u8]> {
        let message = self.rest?;
        let (payload, rest) = message.split_at_checked(self.payload_bytes_max).unwrap_or((message, &[]));
        let last = rest.is_empty();
        let [counter_low, counter_high] = self.counter.to_le_bytes();
        let [fragment_low, fragment_high] = self.fragment.to_le_bytes();
        let kind = self.kind.number() | if last { LAST } else { 0 };
        let header = [kind, counter_low, counter_high, fragment_low, fragment_high];
        let mut digest = CRC.digest();
        digest.update(&header);
        digest.update(payload);

        // Only a message's first frame needs a zero before it; later ones follow the zero of the one before.
        let first = self.fragment == 0;
        let (_, frame) = self.line.split_first_mut()?;
        let mut encoder = cobs::CobsEncoder::new(frame);
        for part in [&header[..], payload, &digest.finalize().to_le_bytes()] {
            encoder.push(part).expect("FRAME_BYTES_MAX holds header, payload and checksum");
        }
        let n_bytes = encoder.finalize();
        *frame.get_mut(n_bytes)? = 0;

        self.rest = (!last).then_some(rest);
        self.fragment = self.fragment.wrapping_add(1);
        self.line.get(usize::from(!first)..n_bytes + 2)
    }
}

/// A whole message as it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// What it is.
    pub kind: Kind,
    /// The sender's message number.
    pub counter: u16,
    /// Its bytes, at most [`MESSAGE_BYTES_MAX`].
    pub bytes: &'a [u8],
}

/// What a decoder has seen, in saturating counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameStats {
    /// Frames with a right checksum.
    pub n_frames: u32,
    /// Frames with a wrong checksum, wrong COBS, too short, or of an unknown kind.
    pub n_bad: u32,
    /// Frames longer than [`FRAME_BYTES_MAX`].
    pub n_oversized: u32,
    /// Good frames that do not continue the message under assembly.
    pub n_out_of_order: u32,
    /// Messages begun and not finished.
    pub n_dropped: u32,
    /// Messages delivered.
    pub n_messages: u32,
}

/// Finds frames in a byte stream and joins them into messages.
///
/// `Buffer` holds the message under assembly: `vec![0; MESSAGE_BYTES_MAX]` where there is a heap, an array or a
/// borrowed slice elsewhere. Messages longer than it, or than [`MESSAGE_BYTES_MAX`], are dropped.
pub struct Decoder<Buffer> {
    scan: Scan,
    frame: heapless::Vec<u8, FRAME_BYTES_MAX>,
    assembly: Option<Assembly>,
    buffer: Buffer,
    stats: FrameStats,
}

/// Where the decoder stands between two zeros.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scan {
    /// No zero was seen yet: whatever this is (boot text, a prompt, the middle of a frame), it is not counted.
    Hunting,
    /// In a frame.
    Frame,
    /// In a frame that is too long, until its zero.
    Skipping,
}

/// A message of which some fragments have arrived.
#[derive(Clone, Copy)]
struct Assembly {
    kind: Kind,
    counter: u16,
    next_fragment: u16,
    n_bytes: usize,
}

/// A checked frame.
struct Fragment<'a> {
    kind: Kind,
    counter: u16,
    index: u16,
    last: bool,
    payload: &'a [u8],
}

impl<Buffer: AsRef<[u8]> + AsMut<[u8]>> Decoder<Buffer> {
    /// A decoder that assembles messages in `buffer`.
    pub fn new(buffer: Buffer) -> Self {
        let frame = heapless::Vec::new();
        Self { scan: Scan::Hunting, frame, assembly: None, buffer, stats: FrameStats::default() }
    }

    /// Takes bytes up to the end of the next whole message and returns it; `bytes` is left at what follows.
    ///
    /// `None` means that all of `bytes` was taken, so `while let Some(message) = decoder.push(&mut bytes)` sees every
    /// message.
    pub fn push(&mut self, bytes: &mut &[u8]) -> Option<Message<'_>> {
        let done = self.advance(bytes)?;
        let bytes = self.buffer.as_ref().get(..done.n_bytes)?;
        Some(Message { kind: done.kind, counter: done.counter, bytes })
    }

    /// Counts so far.
    pub fn stats(&self) -> FrameStats {
        self.stats
    }

    fn advance(&mut self, bytes: &mut &[u8]) -> Option<Assembly> {
        while !bytes.is_empty() {
            let zero = bytes.iter().position(|byte| *byte == 0);
            let (part, rest) = bytes.split_at_checked(zero.unwrap_or(bytes.len()))?;
            if self.scan == Scan::Frame && self.frame.extend_from_slice(part).is_err() {
                self.scan = Scan::Skipping;
                self.frame.clear();
                count(&mut self.stats.n_oversized);
                self.drop_assembly();
            }
            *bytes = rest.get(1..).unwrap_or(&[]);
            if zero.is_some() {
                self.scan = Scan::Frame;
                let done = self.end_frame();
                self.frame.clear();
                if done.is_some() {
                    return done;
                }
            }
        }
        None
    }

    /// Handles the frame that a zero just ended; nothing lies between two zeros in a row.
    fn end_frame(&mut self) -> Option<Assembly> {
        if self.frame.is_empty() {
            return None;
        }
        let Some(fragment) = open_frame(&mut self.frame) else {
            count(&mut self.stats.n_bad);
            self.drop_assembly();
            return None;
        };
        count(&mut self.stats.n_frames);
        let Fragment { kind, counter, index, last, payload } = fragment;
        let assembly = match self.assembly.take() {
            Some(open) if (open.kind, open.counter, open.next_fragment) == (kind, counter, index) => open,
            open => {
                if open.is_some() {
                    count(&mut self.stats.n_dropped);
                }
                if index != 0 {
                    count(&mut self.stats.n_out_of_order);
                    return None;
                }
                Assembly { kind, counter, next_fragment: 0, n_bytes: 0 }
            }
        };

        // The cap is checked before anything is written: what is too long is dropped, its later fragments with it.
        let n_bytes = assembly.n_bytes + payload.len();
        let room = self.buffer.as_mut().get_mut(assembly.n_bytes..n_bytes).filter(|_| n_bytes <= MESSAGE_BYTES_MAX);
        let next_fragment = if last { Some(0) } else { index.checked_add(1) };
        let (Some(room), Some(next_fragment)) = (room, next_fragment) else {
            count(&mut self.stats.n_dropped);
            return None;
        };
        room.copy_from_slice(payload);
        let assembly = Assembly { next_fragment, n_bytes, ..assembly };
        if !last {
            self.assembly = Some(assembly);
            return None;
        }
        count(&mut self.stats.n_messages);
        Some(assembly)
    }

    fn drop_assembly(&mut self) {
        if self.assembly.take().is_some() {
            count(&mut self.stats.n_dropped);
        }
    }
}

fn count(counter: &mut u32) {
    *counter = counter.saturating_add(1);
}

/// Undoes COBS in place and checks the frame; `None` if anything is wrong with it.
fn open_frame(frame: &mut [u8]) -> Option<Fragment<'_>> {
    let n_bytes = cobs::decode_in_place(frame).ok()?;
    let (checked, crc) = frame.get(..n_bytes)?.split_last_chunk::<CRC_BYTES>()?;
    if CRC.checksum(checked) != u32::from_le_bytes(*crc) {
        return None;
    }
    let (header, payload) = checked.split_first_chunk::<HEADER_BYTES>()?;
    let [kind, counter_low, counter_high, index_low, index_high] = *header;
    if payload.len() > FRAME_PAYLOAD_BYTES_MAX {
        return None;
    }
    Some(Fragment {
        kind: Kind::from_number(kind & !LAST)?,
        counter: u16::from_le_bytes([counter_low, counter_high]),
        index: u16::from_le_bytes([index_low, index_high]),
        last: kind & LAST != 0,
        payload,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn line(kind: Kind, counter: u16, message: &[u8]) -> Vec<u8> {
        let mut frames = Frames::new(kind, counter, message).unwrap();
        let mut line = Vec::new();
        while let Some(bytes) = frames.next_frame() {
            line.extend_from_slice(bytes);
        }
        line
    }

    type Received = Vec<(Kind, u16, Vec<u8>)>;

    fn receive(decoder: &mut Decoder<Vec<u8>>, mut bytes: &[u8]) -> Received {
        let mut received = Vec::new();
        while let Some(message) = decoder.push(&mut bytes) {
            received.push((message.kind, message.counter, message.bytes.to_vec()));
        }
        assert!(bytes.is_empty());
        received
    }

    fn decoder() -> Decoder<Vec<u8>> {
        Decoder::new(vec![0; MESSAGE_BYTES_MAX])
    }

    /// One raw frame with any header, for what [`Frames`] never sends.
    fn raw_frame(kind: u8, counter: u16, index: u16, payload: &[u8]) -> Vec<u8> {
        let mut raw = vec![kind];
        raw.extend_from_slice(&counter.to_le_bytes());
        raw.extend_from_slice(&index.to_le_bytes());
        raw.extend_from_slice(payload);
        raw.extend_from_slice(&CRC.checksum(&raw).to_le_bytes());
        let mut encoded = vec![0; cobs::max_encoding_length(raw.len())];
        let n_bytes = cobs::encode(&raw, &mut encoded);
        encoded.truncate(n_bytes);
        encoded.push(0);
        encoded
    }

    #[test]
    fn bytes_are_golden() {
        // Checksum of 82 01 00 00 00 'a' 00 'b' by the bitwise definition: polynomial 0x82F63B78, reflected.
        assert_eq!(line(Kind::Request, 1, b"a\0b"), [0, 3, 0x82, 1, 1, 1, 2, b'a', 6, b'b', 0x4e, 0xf8, 0xcf, 0x41, 0]);
        assert_eq!(bitwise_crc32c(&[0x82, 1, 0, 0, 0, b'a', 0, b'b']).to_le_bytes(), [0x4e, 0xf8, 0xcf, 0x41]);
        assert_eq!(bitwise_crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(FRAME_BYTES_MAX, 2066);
    }

    fn bitwise_crc32c(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 })
        })
    }

    #[test]
    fn every_length_around_a_frame_border_arrives() {
        let mut decoder = decoder();
        for len in [0, 1, 253, 254, 255, 2047, 2048, 2049, 4096, 4097, 70_000, MESSAGE_BYTES_MAX] {
            for fill in [0u8, 1, 255] {
                let message = vec![fill; len];
                let received = receive(&mut decoder, &line(Kind::Response, 7, &message));
                assert!(received == [(Kind::Response, 7, message)], "length {len}, fill {fill}");
            }
        }
        assert_eq!(decoder.stats().n_bad + decoder.stats().n_dropped + decoder.stats().n_oversized, 0);
    }

    #[test]
    fn a_message_over_the_limit_is_not_sent() {
        let long = vec![0; MESSAGE_BYTES_MAX + 1];
        assert!(matches!(Frames::new(Kind::Request, 0, &long), Err(DecodeError::TooLong { what: "message", .. })));
    }

    #[test]
    fn a_message_over_the_buffer_is_dropped_before_it_is_written() {
        let mut decoder = Decoder::new([0u8; 3000]);
        let mut bytes = &line(Kind::Request, 0, &[9; 3001])[..];
        assert_eq!(decoder.push(&mut bytes), None);
        assert_eq!(decoder.stats().n_dropped, 1);
        let sent = line(Kind::Request, 1, &[8; 3000]);
        assert!(decoder.push(&mut &sent[..]).is_some_and(|message| message.bytes == [8; 3000]));
    }

    #[test]
    fn endless_fragments_never_pass_the_cap() {
        let mut decoder = Decoder::new(vec![0; MESSAGE_BYTES_MAX + 10_000]);
        for index in 0..=2048u16 {
            assert_eq!(receive(&mut decoder, &[&[0], &raw_frame(2, 5, index, &[1; 2048])[..]].concat()), []);
        }
        assert_eq!(decoder.stats().n_dropped, 1);
        assert_eq!(receive(&mut decoder, &raw_frame(2 | LAST, 5, 2049, &[])), []);
    }

    #[test]
    fn a_frame_inside_an_oversized_one_is_never_decoded() {
        let inner = line(Kind::Request, 1, b"remove everything");
        for n_before in [FRAME_BYTES_MAX - 20, FRAME_BYTES_MAX, FRAME_BYTES_MAX + 1, 3 * FRAME_BYTES_MAX] {
            // The inner frame without its leading zero, so that it lies inside the long one; its last zero ends both.
            let stream = [&[0][..], &vec![1; n_before], &inner[1..]].concat();
            for chunk in [1, 7, 2066, 2067, stream.len()] {
                let mut decoder = decoder();
                for part in stream.chunks(chunk) {
                    assert_eq!(receive(&mut decoder, part), [], "{n_before} bytes before, chunks of {chunk}");
                }
                assert_eq!(decoder.stats().n_oversized, 1);
                assert_eq!(receive(&mut decoder, &inner).len(), 1, "the next message arrives");
            }
        }
    }

    #[test]
    fn text_before_the_first_zero_is_not_counted() {
        let mut decoder = decoder();
        let stream = [&b"\r\nraspberrypi login: "[..], &line(Kind::Hello, 0, b"hi")].concat();
        assert_eq!(receive(&mut decoder, &stream), [(Kind::Hello, 0, b"hi".to_vec())]);
        assert_eq!(decoder.stats(), FrameStats { n_frames: 1, n_messages: 1, ..FrameStats::default() });
    }

    #[test]
    fn fragments_out_of_order_drop_their_message_only() {
        let frames: Vec<_> =
            (0..3u16).map(|i| raw_frame(if i == 2 { 2 | LAST } else { 2 }, 9, i, &[i as u8])).collect();
        for order in [[0, 2, 1], [1, 0, 2], [2, 1, 0], [0, 0, 2], [1, 1, 2]] {
            let mut decoder = decoder();
            let stream: Vec<u8> = order.iter().flat_map(|i: &usize| frames[*i].clone()).collect();
            assert_eq!(receive(&mut decoder, &[&[0], &stream[..]].concat()), [], "{order:?}");
            assert_eq!(receive(&mut decoder, &frames.concat()), [(Kind::Request, 9, vec![0, 1, 2])], "{order:?}");
        }
    }

    #[test]
    fn fragments_of_two_messages_never_join() {
        let mut decoder = decoder();
        let stream = [vec![0], raw_frame(2, 9, 0, b"a"), raw_frame(2 | LAST, 10, 1, b"b")].concat();
        assert_eq!(receive(&mut decoder, &stream), []);
        let stream = [raw_frame(2, 9, 0, b"a"), raw_frame(3 | LAST, 9, 1, b"b")].concat();
        assert_eq!(receive(&mut decoder, &stream), []);
        assert_eq!((decoder.stats().n_dropped, decoder.stats().n_out_of_order), (2, 2));
    }

    #[test]
    fn unknown_kinds_and_short_frames_are_counted_and_skipped() {
        let mut decoder = decoder();
        let stream = [vec![0], raw_frame(4 | LAST, 0, 0, b"later version"), vec![1, 0, 5, 1, 2, 3, 4, 0]].concat();
        assert_eq!(receive(&mut decoder, &stream), []);
        assert_eq!(decoder.stats().n_bad, 3);
    }

    #[test]
    fn a_smaller_payload_cap_of_the_peer_is_kept() {
        let message = vec![3; MESSAGE_BYTES_MAX];
        let mut frames = Frames::new(Kind::Request, 0, &message).unwrap().with_payload_max(0);
        let mut decoder = decoder();
        let mut received = Vec::new();
        while let Some(bytes) = frames.next_frame() {
            assert!(bytes.len() <= cobs::max_encoding_length(FRAME_PAYLOAD_BYTES_MIN + 9) + 2);
            received.extend(receive(&mut decoder, bytes));
        }
        assert!(received == [(Kind::Request, 0, message)]);
    }

    #[derive(Clone, Debug)]
    enum Damage {
        Flip { at: prop::sample::Index, mask: u8 },
        Remove { at: prop::sample::Index, n: usize },
        Insert { at: prop::sample::Index, bytes: Vec<u8> },
        Repeat { at: prop::sample::Index, n: usize },
    }

    fn damage() -> impl Strategy<Value = Damage> {
        let at = any::<prop::sample::Index>;
        prop_oneof![
            (at(), 1..=255u8).prop_map(|(at, mask)| Damage::Flip { at, mask }),
            (at(), 1..3000usize).prop_map(|(at, n)| Damage::Remove { at, n }),
            (at(), prop::collection::vec(any::<u8>(), 1..40)).prop_map(|(at, bytes)| Damage::Insert { at, bytes }),
            (at(), 1..3000usize).prop_map(|(at, n)| Damage::Repeat { at, n }),
        ]
    }

    fn apply(stream: &mut Vec<u8>, damage: &Damage) {
        if stream.is_empty() {
            return;
        }
        let len = stream.len();
        match damage {
            Damage::Flip { at, mask } => stream[at.index(len)] ^= mask,
            Damage::Remove { at, n } => drop(stream.drain(at.index(len)..(at.index(len) + n).min(len))),
            Damage::Insert { at, bytes } => drop(stream.splice(at.index(len)..at.index(len), bytes.iter().copied())),
            Damage::Repeat { at, n } => {
                let again = stream[at.index(len)..(at.index(len) + n).min(len)].to_vec();
                drop(stream.splice(at.index(len)..at.index(len), again));
            }
        }
    }

    fn messages() -> impl Strategy<Value = Vec<Vec<u8>>> {
        // Few values make long runs of zeros and of non-zeros; both are corners of COBS.
        let byte = prop_oneof![Just(0u8), Just(1), Just(255), any::<u8>()];
        prop::collection::vec(prop::collection::vec(byte, 0..6000), 1..5)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_cut_of_the_stream_gives_the_same_messages(sent in messages(), cuts in prop::collection::vec(1..700usize, 1..20)) {
            let stream: Vec<u8> = sent.iter().zip(0..).flat_map(|(m, i)| line(Kind::Request, i, m)).collect();
            let mut decoder = decoder();
            let (mut rest, mut received) = (&stream[..], Vec::new());
            for cut in cuts.iter().cycle() {
                let (part, after) = rest.split_at((*cut).min(rest.len()));
                received.extend(receive(&mut decoder, part).into_iter().map(|(_, _, bytes)| bytes));
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(received, sent);
        }

        #[test]
        fn damaged_messages_arrive_intact_or_not_at_all(sent in messages(), damages in prop::collection::vec(damage(), 1..6)) {
            let mut stream: Vec<u8> = sent.iter().zip(0..).flat_map(|(m, i)| line(Kind::Request, i, m)).collect();
            for damage in &damages {
                apply(&mut stream, damage);
            }
            let mut decoder = decoder();
            for (kind, counter, bytes) in receive(&mut decoder, &stream) {
                prop_assert_eq!(kind, Kind::Request);
                prop_assert_eq!(Some(&bytes), sent.get(usize::from(counter)));
            }
            let next = line(Kind::Response, 77, b"next");
            prop_assert_eq!(receive(&mut decoder, &next), [(Kind::Response, 77, b"next".to_vec())]);
        }

        #[test]
        fn noise_is_no_message(noise in prop::collection::vec(any::<u8>(), 0..8000)) {
            prop_assert_eq!(receive(&mut decoder(), &noise), []);
        }
    }
}
