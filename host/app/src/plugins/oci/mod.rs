//! Packages in OCI registries: what `nextstate plugin push`, `pull` and `install oci://…` speak.
//!
//! A package is an artifact of image manifest 1.1: an empty config, and one layer that is the package's file. A registry is not
//! trusted: it is asked for bytes, whose digests and sizes are checked, and the package is then looked at as one that came by any other
//! way (its signature, its author's standing, what it asks for). Keeps nothing, and runs none of docker's credential helpers.
//! Read next: `command` for what a person does, `client` for what goes over the wire, `origin` for who is told the password.

mod artifact;
mod challenge;
mod client;
mod command;
mod credentials;
mod digest;
mod origin;
mod reference;
#[cfg(test)]
mod registry;
#[cfg(test)]
mod tests;

pub use artifact::{Artifact, Descriptor};
pub use challenge::{Challenge, challenges};
pub use command::{PullArgs, PushArgs};
pub(super) use command::{fetch, is_reference, pull, push};
pub use digest::Digest;
pub use reference::{Reference, Which};
