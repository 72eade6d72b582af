//! Any stream of bytes as a transport: pipes, TLS, whatever a program has.

use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use commipc_protocol::{Peer, Transport as Kind};
use futures_io::{AsyncRead, AsyncWrite};

use crate::buffers;
use crate::runtime::{Connection, Transport};
use crate::sync::lock;

/// Pieces below this are copied together, so that many of them are one write, and one record of TLS.
const GATHERED: usize = 16 << 10;

impl Connection {
    /// A connection over any stream of bytes, for [`Hub::attach`](crate::Hub::attach) and
    /// [`ClientBuilder::dialer`](crate::ClientBuilder::dialer). Adapters have a function `stream` of their own, for the streams
    /// of their runtime.
    ///
    /// The stream is flushed after each batch of messages. Its bytes carry record tags, as those on TCP do, unless it is
    /// [bound](Self::bound_to).
    #[must_use]
    pub fn over(stream: impl AsyncRead + AsyncWrite + Send + 'static) -> Self {
        let notice = Arc::new(Notice::default());
        let waker = Waker::from(Arc::clone(&notice));
        let stream = Mutex::new(Stream { stream: Box::pin(stream), unflushed: 0, closed: false });
        Self { transport: Arc::new(Wrapped { stream, notice, waker }), peer: Peer::unknown(Kind::Stream) }
    }

    /// A connection over two streams of bytes, one for each direction: standard input and output, pipes of a child.
    #[must_use]
    pub fn over_halves(reader: impl AsyncRead + Send + 'static, writer: impl AsyncWrite + Send + 'static) -> Self {
        Self::over(Halves { reader: Box::pin(reader), writer: Box::pin(writer) })
    }

    /// Binds what is proved at the login to the secure channel below: 32 bytes that only its two ends have, such as the
    /// exporter value of RFC 9266 for TLS 1.3 (label `EXPORTER-Channel-Binding`, empty context).
    ///
    /// Who ends two such channels in between cannot pass the login on, and record tags are left out. Both sides must say
    /// so, or both not.
    #[must_use]
    pub fn bound_to(mut self, binding: [u8; 32]) -> Self {
        self.peer.binding = Some(binding);
        self
    }

    /// Where it comes from: a hub bounds strangers and failed logins by address. Without one all such connections together
    /// are one source, in which whoever guesses passwords slows down everybody.
    #[must_use]
    pub const fn from_source(mut self, address: IpAddr) -> Self {
        self.peer.source = Some(address);
        self
    }
}

trait Duplex: AsyncRead + AsyncWrite {}

impl<S: AsyncRead + AsyncWrite> Duplex for S {}

struct Halves<R, W> {
    reader: Pin<Box<R>>,
    writer: Pin<Box<W>>,
}

impl<R: AsyncRead, W> AsyncRead for Halves<R, W> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        self.reader.as_mut().poll_read(cx, into)
    }
}

impl<R, W: AsyncWrite> AsyncWrite for Halves<R, W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.writer.as_mut().poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer.as_mut().poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer.as_mut().poll_close(cx)
    }
}

/// A stream that is polled from any task, always with the waker of its link's task.
struct Wrapped {
    stream: Mutex<Stream>,
    notice: Arc<Notice>,
    waker: Waker,
}

struct Stream {
    stream: Pin<Box<dyn Duplex + Send>>,
    /// Bytes that the stream has taken, but not passed on. They count as refused until it has: the driver comes again with
    /// the same ones first.
    unflushed: usize,
    closed: bool,
}

/// Whether the stream has something to tell, and whom to tell it.
struct Notice {
    readable: AtomicBool,
    writable: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Default for Notice {
    fn default() -> Self {
        Self { readable: AtomicBool::new(true), writable: AtomicBool::new(true), task: Mutex::default() }
    }
}

impl Notice {
    /// Waits for a wake-up that came after `flag` was taken down.
    fn poll(&self, flag: &AtomicBool, cx: &Context<'_>) -> Poll<()> {
        {
            let mut task = lock(&self.task);
            if !task.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
                *task = Some(cx.waker().clone());
            }
        }
        if flag.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Wake for Notice {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Streams of one waker for both directions are as common as those of two.
        self.readable.store(true, Ordering::Release);
        self.writable.store(true, Ordering::Release);
        // It stays registered: the other direction may wait as well.
        let task = lock(&self.task).clone();
        if let Some(task) = task {
            task.wake();
        }
    }
}

/// What `Pending` means to a driver that tries.
fn tried<T>(poll: Poll<io::Result<T>>, flag: &AtomicBool) -> io::Result<T> {
    match poll {
        Poll::Ready(result) => {
            flag.store(true, Ordering::Release);
            result
        }
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl Stream {
    /// Writes what fits, and passes it on as far as that goes.
    fn write(&mut self, from: &[IoSlice<'_>], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.unflushed == 0 {
            let Poll::Ready(count) = self.write_some(from, cx)? else { return Poll::Pending };
            self.unflushed = count;
        }
        let Poll::Ready(()) = self.stream.as_mut().poll_flush(cx)? else { return Poll::Pending };
        Poll::Ready(Ok(std::mem::take(&mut self.unflushed)))
    }

    fn write_some(&mut self, from: &[IoSlice<'_>], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match from {
            [] => Poll::Ready(Ok(0)),
            [first, ..] if from.len() == 1 || first.len() >= GATHERED => self.stream.as_mut().poll_write(cx, first),
            many => {
                let mut gathered = buffers::take();
                let mut length = 0;
                for slice in many {
                    let fits = slice.len().min(gathered.len() - length);
                    gathered[length..length + fits].copy_from_slice(&slice[..fits]);
                    length += fits;
                }
                let written = self.stream.as_mut().poll_write(cx, &gathered[..length]);
                buffers::give(gathered);
                written
            }
        }
    }
}

impl Transport for Wrapped {
    fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        let mut stream = lock(&self.stream);
        self.notice.readable.store(false, Ordering::Release);
        tried(stream.stream.as_mut().poll_read(&mut Context::from_waker(&self.waker), into), &self.notice.readable)
    }

    fn try_write_vectored(&self, from: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut stream = lock(&self.stream);
        self.notice.writable.store(false, Ordering::Release);
        tried(stream.write(from, &mut Context::from_waker(&self.waker)), &self.notice.writable)
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.notice.poll(&self.notice.readable, cx).map(Ok)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.notice.poll(&self.notice.writable, cx).map(Ok)
    }

    fn shutdown(&self) {
        let mut stream = lock(&self.stream);
        if !stream.closed {
            // Where it cannot be said at once it is said with the link's next turn, if there is one.
            stream.closed = stream.stream.as_mut().poll_close(&mut Context::from_waker(&self.waker)).is_ready();
        }
    }
}
