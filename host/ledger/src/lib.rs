//! The durable, append-only event log: what is not in here did not happen.
//!
//! Records are opaque bytes with a kind, a subject and an optional idempotency key. They are chained by hash, written by
//! one writer in groups, and acknowledged only after the group has reached the disk. A body can be sealed under a key of its
//! subject, and is erased, also from every copy, by destroying the key. Large immutable values (adapters, optimizer state) live beside the records as content-addressed blobs.
//!
//! This crate does not know what an episode, a turn or a reward is; it never interprets a body, with one exception:
//! [`lineage`], the history of a policy's versions. It trusts no clock: order is the sequence number.
//!
//! Start at [`Ledger`]. The bytes on disk are drawn in `FORMAT.md`.

mod blob;
mod build;
mod digest;
pub mod disk;
mod entry;
mod error;
mod frame;
mod handle;
mod index;
mod keys;
pub mod lineage;
mod log;
mod mark;
pub mod mutant;
mod pending;
mod reader;
mod recover;
mod repair;
mod salvage;
mod sealing;
mod segment;
mod shared;
mod spare;
mod v1;
mod verify;
mod writer;

pub use digest::{Digest, ParseDigestError};
pub use entry::{Entry, Receipt, Record, Seq};
pub use error::{Error, Result};
pub use handle::{Clock, Ledger, Options, system_clock};
pub use pending::{Pending, PendingAll};
pub use reader::Records;
pub use repair::{Lost, RepairReport, repair};
pub use sealing::{BlobKey, open_blob, seal_blob};
pub use verify::{Damage, Report, verify, verify_on};
