//! Compiled components that are kept for the next start, in a folder of machine code that only this host's own compile step wrote.
//!
//! **What is at stake.** A compiled file is native code: whoever writes one that is loaded has the process. So a file is loaded only when its
//! MAC says that this host wrote it: under a key that its owner alone can read, over the code, the component's digest, the engine and who compiled
//! it. What does not verify is removed and compiled again. That the folder and its files are the owner's alone is looked at as well, and
//! is not what the safety rests on.
//!
//! **Two makers.** What the host compiled it loads itself. What a worker compiled goes back to workers of the same component, and to nobody
//! else: a worker that its guest's code took over while compiling would hand out code of the attacker's. [`ForWorkers`] gives such code
//! as bytes, which nothing in this crate loads; only [`Artefact`] can be loaded, and only the two ways that make one.
//!
//! Not here: what is checked of a component, which is checked of its own bytes at every load, kept or not (`load.rs`).
//!
//! Start at [`Cache`]; `sealed.rs` draws the file, `folder.rs` reads and writes, `artefact.rs` has the one `unsafe`.

mod artefact;
mod cache;
mod engine;
mod folder;
mod key;
mod sealed;

pub use artefact::Artefact;
pub use cache::{Cache, ForWorkers};
pub(crate) use engine::EngineDigest;
