//! Somebody who passes on what a hub and one client say, on sockets of either kind, until the line is cut or goes dead.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// Takes one connection.
pub(crate) struct Relay {
    url: String,
    ends: Ends,
    /// Nothing gets through any more.
    hushed: Arc<AtomicBool>,
}

/// What cuts the client off, and what the hub.
type Ends = Arc<Mutex<Option<[Cut; 2]>>>;
type Cut = Box<dyn Fn() + Send>;

/// Both kinds of sockets alike.
trait Socket: Read + Write + Send + Sized + 'static {
    fn again(&self) -> Self;
    fn end(&self);
}

impl Socket for UnixStream {
    fn again(&self) -> Self {
        self.try_clone().unwrap()
    }

    fn end(&self) {
        // It may be gone already.
        let _ = self.shutdown(Shutdown::Both);
    }
}

impl Socket for TcpStream {
    fn again(&self) -> Self {
        self.try_clone().unwrap()
    }

    fn end(&self) {
        let _ = self.shutdown(Shutdown::Both);
    }
}

impl Relay {
    /// In front of the hub at this URL; at the path if that is a Unix socket.
    pub(crate) fn start(hub: &str, path: &Path) -> Self {
        let ends = Ends::default();
        let hushed = Arc::<AtomicBool>::default();
        let (connected, dead) = (Arc::clone(&ends), Arc::clone(&hushed));
        let url = match hub.split_once("://") {
            Some((_, hub)) => {
                let (hub, listener) = (hub.to_owned(), TcpListener::bind("127.0.0.1:0").unwrap());
                let url = format!("tcp://{}", listener.local_addr().unwrap());
                thread::spawn(move || {
                    join(&connected, &dead, listener.accept().unwrap().0, TcpStream::connect(hub).unwrap());
                });
                url
            }
            None => {
                let (hub, listener) =
                    (hub.strip_prefix("unix:").unwrap().to_owned(), UnixListener::bind(path).unwrap());
                thread::spawn(move || {
                    join(&connected, &dead, listener.accept().unwrap().0, UnixStream::connect(hub).unwrap());
                });
                format!("unix:{}", path.display())
            }
        };
        Self { url, ends, hushed }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Both sides see their connection end, at any byte.
    pub(crate) fn cut(&self) {
        self.ends.lock().unwrap().as_ref().expect("a connection").iter().for_each(|cut| cut());
    }

    /// Both connections stand, and nothing comes on either.
    pub(crate) fn hush(&self) {
        self.hushed.store(true, Ordering::SeqCst);
    }

    /// The hub sees its connection end. Nothing gets to the client any more, which is not told.
    pub(crate) fn cut_from_hub(&self) {
        self.ends.lock().unwrap().as_ref().expect("a connection")[1]();
    }
}

fn join<S: Socket>(ends: &Ends, hushed: &Arc<AtomicBool>, client: S, hub: S) {
    let cuts = [client.again(), hub.again()].map(|end| Box::new(move || end.end()) as Cut);
    *ends.lock().unwrap() = Some(cuts);
    let (up, down) = ((client.again(), hub.again()), (hub, client));
    for way in [up, down] {
        let hushed = Arc::clone(hushed);
        thread::spawn(move || pass(way, &hushed));
    }
}

/// What comes from one goes to the other; an end does not.
fn pass<S: Socket>((mut from, mut to): (S, S), hushed: &AtomicBool) {
    let mut bytes = [0; 4_096];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if !hushed.load(Ordering::SeqCst) && to.write_all(&bytes[..count]).is_err() {
            return;
        }
    }
}
