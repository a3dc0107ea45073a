//! Waiting with an end: every read, answer and death that this module waits for has a deadline.

use std::{
    io::Read,
    os::fd::{AsFd, BorrowedFd},
    process::{Child, ExitStatus},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

/// Waits until something of `fds` is ready or the time is over, and never longer.
pub(super) fn ready(fds: &mut [PollFd<'_>], until: Instant) -> Result<usize, Errno> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        // Rounded up: a poll of less than what is left would spin.
        let left =
            Timespec::try_from(left + Duration::from_micros(50)).map_err(|_| Errno::INVAL)?;
        match poll(fds, Some(&left)) {
            Err(Errno::INTR) if Instant::now() < until => {}
            Err(Errno::INTR) => return Ok(0),
            outcome => return outcome,
        }
    }
}

/// Waits for one descriptor to be readable, or closed at its other end.
pub(super) fn readable(fd: BorrowedFd<'_>, until: Instant) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    ready(&mut fds, until).is_ok_and(|n| n > 0)
}

/// Lets a moment pass.
pub(super) fn moment(length: Duration) {
    // Nothing is there to be interrupted by: a failure only makes the moment shorter.
    let _ = ready(&mut [], Instant::now() + length);
}

/// Reads until `done` says that it is enough, the other end is closed, or the time is over. At most `most` bytes.
pub(super) fn read_until(
    from: &mut (impl Read + AsFd),
    most: usize,
    until: Instant,
    done: impl Fn(&[u8]) -> bool,
) -> Vec<u8> {
    let mut read = Vec::new();
    let mut chunk = [0; 4_096];
    while read.len() < most && !done(&read) && readable(from.as_fd(), until) {
        match from.read(&mut chunk) {
            Ok(n) if n > 0 => read.extend(chunk.iter().take(n)),
            _ => break,
        }
    }
    read
}

/// How a child ended, once `ended` (its pidfd) says so; `None` when it has not in time.
pub(super) fn end_of(
    child: &mut Child,
    ended: BorrowedFd<'_>,
    until: Instant,
) -> Option<ExitStatus> {
    readable(ended, until);
    child.try_wait().ok().flatten()
}
