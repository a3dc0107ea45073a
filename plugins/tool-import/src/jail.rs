//! What an episode needs of a machine, so that the whole of it also runs natively in tests.
//!
//! Adds nothing to the capability `shell`; see `wit/capabilities.wit` for what each function promises.

use std::fmt;

use sdk::{
    Fault,
    shell::{Machine, Output},
};

/// A machine of the host's, or the stand-in of a test.
pub trait Jail: Sized + fmt::Debug + 'static {
    /// A fresh machine whose `/work` holds the files of an image.
    ///
    /// # Errors
    /// `internal` when there cannot be another one now.
    fn create(image: &str) -> Result<Self, Fault>;

    /// Runs `bash -c command` in `/work`.
    ///
    /// # Errors
    /// Only where the machine itself is broken: a command that fails is an answer.
    fn run(&self, command: &str, timeout_ms: u32) -> Result<Output, Fault>;

    /// Writes a file and the folders above it.
    ///
    /// # Errors
    /// `invalid-input` for a path that leads out of the machine's own folders.
    fn write_file(&self, path: &str, content: &[u8]) -> Result<(), Fault>;

    /// A file's content; none where there is no such file.
    ///
    /// # Errors
    /// `invalid-input` for a file that is too large.
    fn read_file(&self, path: &str) -> Result<Option<Vec<u8>>, Fault>;
}

impl Jail for Machine {
    fn create(image: &str) -> Result<Self, Fault> {
        Machine::create(image)
    }

    fn run(&self, command: &str, timeout_ms: u32) -> Result<Output, Fault> {
        Machine::run(self, command, "/work", timeout_ms)
    }

    fn write_file(&self, path: &str, content: &[u8]) -> Result<(), Fault> {
        Machine::write_file(self, path, content, false)
    }

    fn read_file(&self, path: &str) -> Result<Option<Vec<u8>>, Fault> {
        Machine::read_file(self, path)
    }
}
