//! What `graft` and `graftd` say to each other, and the types that both sides share.
//!
//! `no_std`, no I/O, no clock. Three layers, each in its own file:
//!
//! - [`ids`], [`label`], [`sample`]: the vocabulary (sample id, label, record), used by `heads` and `store` as well;
//! - [`message`]: requests and responses as postcard enums. Released variants are frozen; a changed shape is a new
//!   variant at the end. [`hello`] is older than any version and has a fixed layout of its own;
//! - [`frame`]: messages cut into COBS frames with CRC-32C for serial lines and pipes.
//!
//! Every length is capped by a constant in [`limits`] and checked inside the decoder.
#![no_std]
#![deny(clippy::unwrap_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

#[cfg(test)]
extern crate alloc;

pub mod error;
pub mod frame;
pub mod hello;
pub mod ids;
pub mod label;
mod learning;
pub mod limits;
pub mod message;
pub mod sample;
mod speed;

pub use error::{DecodeError, WireError};
pub use hello::Hello;
pub use ids::{ClientId, DeviceId, Digest, SampleId, SessionId, SpaceId};
pub use label::{Label, LabelError};
pub use message::{Batch, Request, RequestEnvelope, Response, ResponseEnvelope};
pub use sample::{LabelKind, Part, SampleMeta};
