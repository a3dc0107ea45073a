//! A socket whose reads and writes end at one moment, however they are cut: a time-out for each of them is none against a peer that drips.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

/// A socket until a moment. Its own time-outs are changed.
pub(crate) struct Until<'a> {
    socket: &'a UnixStream,
    end: Instant,
}

impl<'a> Until<'a> {
    pub(crate) fn within(socket: &'a UnixStream, time: Duration) -> Self {
        // Some time-outs mean for ever.
        let time = time.min(Duration::from_secs(1 << 30));
        Self {
            socket,
            end: Instant::now() + time,
        }
    }

    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(Some(left))
    }
}

impl Read for Until<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(self.left()?)?;
        self.socket.read(buffer)
    }
}

impl Write for Until<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(self.left()?)?;
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn who_drips_and_who_takes_nothing_are_both_late() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let drip = thread::spawn(move || {
            while (&theirs).write(b".").is_ok() {
                thread::park_timeout(Duration::from_millis(20));
            }
        });
        let mut buffer = [0; 1 << 10];
        let mut until = Until::within(&ours, Duration::from_millis(200));
        let late = until.read_exact(&mut buffer).unwrap_err();
        assert!(matches!(
            late.kind(),
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
        ));
        let mut until = Until::within(&ours, Duration::from_millis(200));
        let late = until.write_all(&vec![0; 16 << 20]).unwrap_err();
        assert!(matches!(
            late.kind(),
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
        ));
        drop(ours);
        drip.join().unwrap();
    }
}
