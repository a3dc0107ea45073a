//! A cursor over a file that never reads past the end and never believes a length.
//!
//! Knows GGUF's primitive encodings, not its meaning.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use crate::error::{Problem, Result, field, io};

/// Buffered sequential reading with the position and the file's size at hand.
pub(super) struct Reader<'a> {
    file: BufReader<&'a File>,
    path: &'a Path,
    position: u64,
    size: u64,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a File, path: &'a Path) -> Result<Self> {
        let size = file.metadata().map_err(io("open", path))?.len();
        Ok(Self {
            file: BufReader::with_capacity(1 << 16, file),
            path,
            position: 0,
            size,
        })
    }

    pub(super) fn path(&self) -> &'a Path {
        self.path
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Bytes left in the file.
    pub(super) fn left(&self) -> u64 {
        self.size - self.position
    }

    /// Fails with the field's name unless `bytes` more are there.
    pub(super) fn need(&self, name: &str, bytes: u64) -> Result<()> {
        if bytes <= self.left() {
            return Ok(());
        }
        let end = self.position.saturating_add(bytes);
        Err(field(
            self.path,
            name,
            Problem::PastEnd {
                end,
                limit: self.size,
            },
        ))
    }

    fn fill(&mut self, name: &str, buffer: &mut [u8]) -> Result<()> {
        let bytes = buffer.len() as u64;
        self.need(name, bytes)?;
        self.file
            .read_exact(buffer)
            .map_err(io("read", self.path))?;
        self.position += bytes;
        Ok(())
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self, name: &str) -> Result<[u8; N]> {
        let mut buffer = [0; N];
        self.fill(name, &mut buffer)?;
        Ok(buffer)
    }

    pub(super) fn u32(&mut self, name: &str) -> Result<u32> {
        self.array(name).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, name: &str) -> Result<u64> {
        self.array(name).map(u64::from_le_bytes)
    }

    /// A u64 that may not exceed `limit`.
    pub(super) fn count(&mut self, name: &str, limit: u64) -> Result<u64> {
        let count = self.u64(name)?;
        if count > limit {
            return Err(field(self.path, name, Problem::TooMany { count, limit }));
        }
        Ok(count)
    }

    /// A length of at most `limit` and that many bytes of UTF-8.
    pub(super) fn string(&mut self, name: &str, limit: u64) -> Result<String> {
        let length = self.count(name, limit)?;
        self.need(name, length)?;
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        self.fill(name, &mut bytes)?;
        String::from_utf8(bytes).map_err(|_| field(self.path, name, Problem::Utf8))
    }
}
