//! Caps on everything whose length comes from the other side.

/// Longest message, request or response, in bytes; a 1080 x 1080 RGB tensor fits.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Longest payload of one frame before COBS, in bytes, header and CRC not counted.
pub const FRAME_PAYLOAD_BYTES_MAX: usize = 2048;
/// Longest label in bytes of UTF-8.
pub const LABEL_BYTES_MAX: usize = 64;
/// Longest name of a device or a bundle in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 64;
/// Longest embedding, in components (one byte each).
pub const EMBEDDING_LEN_MAX: usize = 8192;
/// Most classes a set may hold.
pub const CLASSES_MAX: usize = 4096;
/// Most bytes of a bundle in one chunk.
pub const CHUNK_BYTES_MAX: usize = 64 << 10;
/// Largest bundle in bytes.
pub const BUNDLE_BYTES_MAX: u64 = 1 << 30;
/// Requests per client whose outcome a board remembers.
pub const REQUEST_LOG_LEN: u64 = 4096;
