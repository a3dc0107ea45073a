//! The jailed machine behind the plugin interface `shell`: a small Linux system without a network, in which a guest's commands run.
//!
//! A machine is a set of namespaces that bubblewrap makes and a first process holds open (`jail`). Each command enters them as a process of its own
//! (`command`), with limits that are inherited and cannot be raised. `/work` is a stack of overlay layers in memory where the host is root (`layers`),
//! and otherwise a file system in memory whose states are copied (`copies`). Nothing in here knows a guest, an episode or a model.
//!
//! # What is met by what
//!
//! | threat | met by |
//! |---|---|
//! | reads the host's files or environment | own mounts with only `/usr`, a few files of `/etc` and what the operator names, all read only; nothing is inherited |
//! | reaches a network, or a socket of the host | own network namespace without an interface |
//! | sees, signals or traces processes of the host or of another machine | own process, IPC and user namespaces; a user without rights outside |
//! | gains rights | `no_new_privs`, no capability, no set-user-id, no user namespace below its own |
//! | a link or `..` leads the host out of the jail | the kernel resolves below the jail's root, and the open file must lie in the mount of `/work` or `/tmp` (`files`) |
//! | changes what was kept | kept layers are in a folder that only the host's root can enter, copies outside of the jail |
//! | forks without end | limits of processes by user namespace and by control group; on time-out everything dies in one step that no fork escapes (`processes`) |
//! | leaves a process behind by a new session, a double fork, an empty environment | the mark in its limits, which it cannot raise |
//! | takes memory | control group of the whole machine; without one, address space by process (a process can then still fill kernel memory, as by pipes and memory files) |
//! | fills the disk | `/work` and `/tmp` are file systems of a fixed size in memory |
//! | takes the processor | time limit by process, share by control group |
//! | floods its output | pipes are read without blocking, kept up to a cap, then drained at a bounded speed (`stream`) |
//! | keeps output open, never reads, stops itself, sleeps | every wait has a deadline; what is killed need not cooperate |
//! | kills everything, `kill -9 -1` | the first process cannot be signalled or traced from inside |
//! | kills or fakes the shell that waits for the next command | it is replaced, or the command fails: only this machine is worse off |
//! | the host dies | the first process ends when its stdin closes, and all with it; a later host ends what is left by its record (`folder`) |
//! | a bug in the kernel | not met: system calls are not filtered |
//!
//! Start at [`Machines`].

mod cgroup;
mod command;
mod compare;
mod config;
mod copies;
mod fail;
mod files;
mod folder;
mod jail;
mod layers;
mod limits;
mod machine;
mod machines;
mod memory;
mod processes;
mod programs;
mod stream;
mod tree;
mod wait;

pub use config::Config;
pub use machine::{Change, ChangeKind, Ending, Machine, Output};
pub use machines::Machines;
