//! A listener whose connections end when their client takes nothing for long.
//!
//! A connection that is not read keeps what was written for it, and the server asks for no more of a reply, so that nothing else would
//! notice.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How long a client may take nothing of what is there for it. Longer than any pause of a network that comes back.
const PATIENCE: Duration = Duration::from_secs(60);

/// A listener with such connections.
pub(crate) struct Patient<L>(pub(crate) L);

/// A connection that ends when what is written to it goes nowhere.
pub(crate) struct Connection<T> {
    io: T,
    /// While nothing can be written.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<L: Listener> Listener for Patient<L> {
    type Io = Connection<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (io, addr) = self.0.accept().await;
        (Connection { io, stalled: None }, addr)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

impl<T> Connection<T> {
    /// What came of a write, or an error when none was possible for too long.
    fn written<R>(
        &mut self,
        context: &mut Context<'_>,
        result: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if result.is_ready() {
            self.stalled = None;
            return result;
        }
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(sleep(PATIENCE)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Connection<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Connection<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(context, bytes);
        self.written(context, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(context, slices);
        self.written(context, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::{Instant, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_when_its_client_takes_nothing_for_long_and_not_when_it_is_slow() {
        let (io, mut client) = duplex(8);
        let mut connection = Connection { io, stalled: None };
        let begin = Instant::now();
        let slow = async {
            for _ in 0..10 {
                sleep(PATIENCE / 2).await;
                client.read_u8().await.unwrap();
            }
        };
        let (written, ()) =
            tokio::join!(timeout(PATIENCE * 4, connection.write_all(&[0; 16])), slow);
        assert!(written.is_ok_and(|written| written.is_ok()));
        assert!(begin.elapsed() > PATIENCE * 4);
        let begin = Instant::now();
        let written = timeout(PATIENCE * 2, connection.write_all(&[0; 64])).await;
        let error = written.expect("it ends").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begin.elapsed().as_secs(), PATIENCE.as_secs());
    }
}
