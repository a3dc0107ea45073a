//! What a command writes: read without ever blocking, kept up to a cap, and drained beyond it at a bounded speed.

use std::{
    io::Read,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags},
    io::ioctl_fionbio,
};

use super::limits::LONGEST_TEXT;

/// Bytes that are read at once.
const CHUNK: usize = 65_536;
/// A stream that is only drained gets this many bytes read, and then rests: a flood costs a host little.
const DRAINED: usize = 1 << 20;
const REST: Duration = Duration::from_millis(10);

/// One end of a pipe from a jail.
#[derive(Debug)]
pub(super) struct Stream {
    pipe: Option<std::fs::File>,
    kept: Vec<u8>,
    /// How much is kept.
    most: usize,
    /// Whether more came than is kept.
    cut: bool,
    rests_until: Option<Instant>,
}

impl Stream {
    /// Takes over the reading end of a pipe.
    pub(super) fn new(pipe: OwnedFd) -> std::io::Result<Self> {
        ioctl_fionbio(&pipe, true)?;
        Ok(Self {
            pipe: Some(pipe.into()),
            kept: Vec::new(),
            most: LONGEST_TEXT,
            cut: false,
            rests_until: None,
        })
    }

    /// What to wait for; nothing while it rests or when it is closed.
    pub(super) fn interest(&self, now: Instant) -> Option<PollFd<'_>> {
        let rests = self.rests_until.is_some_and(|until| now < until);
        let pipe = self.pipe.as_ref().filter(|_| !rests)?;
        Some(PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN))
    }

    /// When it will be looked at again though it rests now.
    pub(super) fn wakes(&self) -> Option<Instant> {
        self.rests_until.filter(|_| self.pipe.is_some())
    }

    /// Whether someone in the jail can still write to it.
    pub(super) fn is_open(&self) -> bool {
        self.pipe.is_some()
    }

    /// Reads what is there.
    pub(super) fn read(&mut self, now: Instant) {
        if self.rests_until.is_some_and(|until| now < until) {
            return;
        }
        self.rests_until = None;
        let mut chunk = vec![0; CHUNK];
        let mut drained = 0;
        while let Some(pipe) = &mut self.pipe {
            match pipe.read(&mut chunk) {
                Ok(0) => self.pipe = None,
                Ok(n) => {
                    let room = self.most.saturating_sub(self.kept.len());
                    self.kept.extend(chunk.iter().take(n.min(room)));
                    self.cut |= n > room;
                    drained += n;
                    if drained >= DRAINED {
                        self.rests_until = Some(now + REST);
                        return;
                    }
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(_) => self.pipe = None,
            }
        }
    }

    /// The text so far, whether it was cut, and the stream itself if it is still open; from now on it keeps nothing.
    pub(super) fn finish(&mut self) -> (String, bool, Option<Self>) {
        // A last look, even at one that rests: what the command wrote before its end is there by now.
        self.rests_until = None;
        self.read(Instant::now());
        let (text, shortened) = text(&std::mem::take(&mut self.kept), self.cut);
        let pipe = self.pipe.take();
        let left = pipe.map(|pipe| Self {
            pipe: Some(pipe),
            kept: Vec::new(),
            most: 0,
            cut: false,
            rests_until: None,
        });
        (text, self.cut || shortened, left)
    }
}

/// Bytes as text of at most [`LONGEST_TEXT`] bytes, and whether that cost anything.
fn text(bytes: &[u8], cut: bool) -> (String, bool) {
    let mut text = String::new();
    let mut chunks = bytes.utf8_chunks().peekable();
    while let Some(chunk) = chunks.next() {
        text.push_str(chunk.valid());
        // A character that the cap itself split is left out, not shown as broken.
        let split = cut && chunks.peek().is_none();
        if !chunk.invalid().is_empty() && !split {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    let end = text.floor_char_boundary(LONGEST_TEXT);
    let shortened = end < text.len();
    text.truncate(end);
    (text, shortened)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_that_the_cap_splits_is_left_out() {
        let bytes = "aé".as_bytes().get(..2).unwrap();
        assert_eq!(text(bytes, true), ("a".to_owned(), false));
        assert_eq!(text(bytes, false), ("a\u{fffd}".to_owned(), false));
    }

    #[test]
    fn bytes_that_are_no_text_do_not_make_it_longer_than_the_contract_says() {
        let (text, shortened) = text(&[0xff; LONGEST_TEXT], false);
        assert!(shortened);
        assert!(text.len() <= LONGEST_TEXT && text.len() > LONGEST_TEXT - 3);
        assert!(text.chars().all(|c| c == char::REPLACEMENT_CHARACTER));
    }
}
