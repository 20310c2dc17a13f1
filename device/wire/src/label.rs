//! Labels: NFC, trimmed, no control characters, at most 64 bytes.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use unicode_normalization::UnicodeNormalization;

use crate::limits::LABEL_BYTES_MAX;

/// The name of a class, in the one form in which labels are stored and compared.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Label(heapless::String<LABEL_BYTES_MAX>);

/// Why a text is not a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LabelError {
    /// Nothing is left after trimming.
    #[error("label is empty")]
    Empty,
    /// Longer than 64 bytes of UTF-8 after normalisation.
    #[error("label is longer than {LABEL_BYTES_MAX} bytes of UTF-8")]
    TooLong,
    /// A line break, tab or other control character.
    #[error("label holds the control character U+{0:04X}")]
    Control(u32),
    /// Not in the stored form: found on the link or in a file, where every label must already be.
    #[error("label is not NFC or not trimmed")]
    NotCanonical,
}

impl Label {
    /// Brings `text` into the stored form: NFC, without white space around.
    ///
    /// # Errors
    /// [`LabelError`] if nothing is left, it is too long, or it holds control characters.
    pub fn new(text: &str) -> Result<Self, LabelError> {
        let mut label = heapless::String::new();
        for c in text.trim().nfc() {
            if c.is_control() {
                return Err(LabelError::Control(c as u32));
            }
            label.push(c).map_err(|_| LabelError::TooLong)?;
        }
        // Composition can bring white space to an end only if it was there before, so one trim is enough.
        if label.is_empty() { Err(LabelError::Empty) } else { Ok(Self(label)) }
    }

    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Label {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        Self::new(text)
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl<'de> Deserialize<'de> for Label {
    /// Refuses what [`Label::new`] would have changed, so that two spellings never become two classes.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        let label = Self::new(text).map_err(serde::de::Error::custom)?;
        if label.as_str() == text { Ok(label) } else { Err(serde::de::Error::custom(LabelError::NotCanonical)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn composed_and_decomposed_spellings_are_one_label() {
        assert_eq!(Label::new("Mu\u{308}ller"), Label::new(" M\u{fc}ller "));
    }

    #[test]
    fn bad_labels_are_refused_with_the_reason() {
        assert_eq!(Label::new("  "), Err(LabelError::Empty));
        assert_eq!(Label::new("a\nb"), Err(LabelError::Control(10)));
        assert_eq!(Label::new(&"x".repeat(65)), Err(LabelError::TooLong));
        assert!(Label::new(&"x".repeat(64)).is_ok());
    }

    #[test]
    fn the_decoder_refuses_what_is_not_canonical() {
        let bytes = postcard::to_allocvec(" a").unwrap();
        assert!(postcard::from_bytes::<Label>(&bytes).is_err());
        let bytes = postcard::to_allocvec("a").unwrap();
        assert_eq!(postcard::from_bytes::<Label>(&bytes).unwrap().as_str(), "a");
    }
}
