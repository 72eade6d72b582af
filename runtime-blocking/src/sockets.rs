//! Sockets of the standard library, and how connections are made.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use commipc_runtime::local::{deepen_backlog, shutdown_write, tcp_endpoint, tcp_peer, unix_peer};
use commipc_runtime::{Acceptor, BoxFuture, Connection, Endpoint, Instant, Runtime, offload};
use futures_io::{AsyncRead, AsyncWrite};

use crate::reactor::{Direction, Reactor, Source};
use crate::waiting::start;

impl Runtime for Reactor {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        Self::spawn(self, task);
    }

    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        start(work);
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        Self::sleep_until(self, at)
    }

    fn dial(&self, to: Endpoint) -> BoxFuture<'static, io::Result<Connection>> {
        let me = self.clone();
        Box::pin(async move {
            let reactor = me.clone();
            // Connecting, and looking a name up, blocks.
            let dialled = offload(start, move || match &to {
                Endpoint::Unix(path) => unix_connection(&reactor, UnixStream::connect(path)?),
                Endpoint::Tcp { host, port } => tcp_connection(&reactor, TcpStream::connect((host.as_str(), *port))?),
                Endpoint::Memory(_) => Err(to.unsupported()),
            });
            dialled.await.unwrap_or_else(|| Err(io::ErrorKind::Interrupted.into()))
        })
    }

    fn listen(&self, at: Endpoint) -> BoxFuture<'static, io::Result<Box<dyn Acceptor>>> {
        let me = self.clone();
        Box::pin(async move {
            let acceptor: Box<dyn Acceptor> = match &at {
                Endpoint::Unix(path) => {
                    let listener = UnixListener::bind(path)?;
                    listener.set_nonblocking(true)?;
                    let accept = |me: &Self, listener: &UnixListener| unix_connection(me, listener.accept()?.0);
                    Box::new(Accepting { listener: Socket::new(&me, listener), accept, local: at })
                }
                Endpoint::Tcp { host, port } => {
                    let address = (host.clone(), *port);
                    let bound = offload(start, move || TcpListener::bind(address)).await;
                    let listener = bound.unwrap_or_else(|| Err(io::ErrorKind::Interrupted.into()))?;
                    deepen_backlog(&listener)?;
                    listener.set_nonblocking(true)?;
                    let local = tcp_endpoint(listener.local_addr());
                    let accept = |me: &Self, listener: &TcpListener| tcp_connection(me, listener.accept()?.0);
                    Box::new(Accepting { listener: Socket::new(&me, listener), accept, local })
                }
                Endpoint::Memory(_) => return Err(at.unsupported()),
            };
            Ok(acceptor)
        })
    }
}

fn unix_connection(reactor: &Reactor, stream: UnixStream) -> io::Result<Connection> {
    stream.set_nonblocking(true)?;
    Ok(Connection { peer: unix_peer(&stream), ..Connection::over(Socket::new(reactor, stream)) })
}

fn tcp_connection(reactor: &Reactor, stream: TcpStream) -> io::Result<Connection> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    Ok(Connection { peer: tcp_peer(stream.peer_addr()?), ..Connection::over(Socket::new(reactor, stream)) })
}

/// A socket that never blocks, and the thread that waits for it.
struct Socket<S: Source + AsRawFd> {
    socket: Arc<S>,
    reactor: Reactor,
}

impl<S: Source + AsRawFd> Socket<S> {
    fn new(reactor: &Reactor, socket: S) -> Self {
        Self { socket: Arc::new(socket), reactor: reactor.clone() }
    }

    fn poll<T>(
        &self,
        direction: Direction,
        cx: &Context<'_>,
        mut attempt: impl FnMut(&S) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            match attempt(&self.socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.reactor.wait(&self.socket, direction, cx.waker());
                    return Poll::Pending;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

impl<S: Source + AsRawFd> Drop for Socket<S> {
    fn drop(&mut self) {
        self.reactor.forget(self.socket.as_raw_fd());
    }
}

impl<S: Source + AsRawFd> AsyncRead for Socket<S>
where
    for<'a> &'a S: Read,
{
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll(Direction::In, cx, |mut socket| socket.read(into))
    }
}

impl<S: Source + AsRawFd> AsyncWrite for Socket<S>
where
    for<'a> &'a S: Write,
{
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(Direction::Out, cx, |mut socket| socket.write(from))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        shutdown_write(&self.socket);
        Poll::Ready(Ok(()))
    }
}

struct Accepting<S: Source + AsRawFd> {
    listener: Socket<S>,
    accept: fn(&Reactor, &S) -> io::Result<Connection>,
    local: Endpoint,
}

impl<S: Source + AsRawFd> Acceptor for Accepting<S> {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Connection>> {
        let listener = &self.listener;
        listener.poll(Direction::In, cx, |socket| (self.accept)(&listener.reactor, socket))
    }

    fn local(&self) -> Endpoint {
        self.local.clone()
    }
}
