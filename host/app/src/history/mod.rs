//! The weights' history as a person works with it: log, show, diff, revert, names, blame, bisect, forget, export.
//!
//! One [`Request`] a command, one [`Response`]; [`run`] answers both a live host's API ([`live`]) and a command on a folder
//! ([`Workbench::offline`]). How versions are made, replayed and forgotten is [`loops`]'s; what is printed is
//! [`crate::commands`]'. Start at [`Request`], then [`run`].

mod bisect;
mod blame;
mod check;
mod episode;
mod graph;
pub mod live;
mod log;
mod moves;
mod names;
mod probes;
mod records;
pub mod render;
mod request;
mod response;
mod run;
mod show;
mod stage;
mod transfer;
mod weights;
mod workbench;

pub use probes::{CANARIES, parse_probes};
pub use request::{Behaviour, BlameMethod, Hex, Probe, Request, Selector, Test};
pub use response::*;
pub use run::run;
pub use stage::REQUEST_TOKENS;
pub use workbench::{Control, Workbench};
