//! Machine code that may be loaded: the one place where wasmtime is given code that it did not compile in this process, and the one `unsafe` of
//! the host outside `kernels`.
//!
//! There are two ways to an [`Artefact`], both in this file, and neither takes bytes on anybody's word: a file of the cache whose MAC verifies,
//! as the host's own; and what the process that started this one hands over on standard input.

#![expect(
    unsafe_code,
    reason = "wasmtime cannot know who wrote a compiled component; this module does (decision 0015)"
)]

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    os::fd::AsFd as _,
};

use wasmtime::{Engine, component::Component};

use super::{
    key::Key,
    sealed::{self, Maker, Name, Refusal},
};

/// A compiled component from a maker that this process trusts with itself.
pub struct Artefact(Vec<u8>);

impl fmt::Debug for Artefact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Artefact").field(&self.0.len()).finish()
    }
}

impl Artefact {
    /// What this host itself compiled, kept and can prove to have kept.
    pub(super) fn open(key: &Key, name: &Name, file: Vec<u8>) -> Result<Self, Refusal> {
        if name.maker != Maker::Host {
            return Err(Refusal::Maker);
        }
        sealed::open(key, name, file).map(Self)
    }

    /// Takes so many bytes of standard input, as they are: for a worker process, whose standard input is its host. Whoever started a process
    /// chose its program, too; there is nothing that it could gain by another's code.
    ///
    /// # Errors
    /// The input ends, or cannot be read.
    pub fn handed_over(bytes: u64) -> io::Result<Self> {
        let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        let mut code = Vec::new();
        input.take(bytes).read_to_end(&mut code)?;
        if code.len() as u64 != bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Self(code))
    }

    /// Makes it a component again.
    ///
    /// # Errors
    /// It was compiled for another engine.
    pub(crate) fn component(&self, engine: &Engine) -> wasmtime::Result<Component> {
        #[expect(
            clippy::disallowed_methods,
            reason = "the ban is on code of unknown makers"
        )]
        // SAFETY: the bytes must be what `Component::serialize` gave. Those from `open` are: the MAC over them was made with a key that
        // only this user's processes can read, by `Cache::keep`, which is called with nothing else. Those from `handed_over` come from the
        // process that started this one and decides what this one is; they are such bytes when it is our host, whose worker this is, and
        // what another worker made of them can do here what this worker's guest, the same component, might do by itself. Nobody else
        // holds the vector, and wasmtime copies it before it looks at it.
        unsafe {
            Component::deserialize(engine, &self.0)
        }
    }
}
