//! Programs that reach for a real runtime are told so, instead of waiting for what never comes.
//!
//! Two things give them away: a panic that says that there is no reactor, and a waker that is woken on another thread.

use std::cell::{Cell, RefCell};
use std::sync::Once;
use std::thread::{self, ThreadId};

/// What to do about it.
pub(super) const INSTEAD: &str = "In a simulation there is only virtual time: take time and tasks from the request \
    (`Request::sleep`, `Request::spawn`) or from the node (`Process::sleep`, `Process::spawn`), and connections from the \
    node's `ClientBuilder`. The same code then runs on a real runtime as well.";

/// Tasks that were woken, and by whom.
#[derive(Default)]
pub(super) struct Woken {
    tasks: Vec<u64>,
    home: Option<ThreadId>,
    foreign: Option<String>,
}

impl Woken {
    pub(super) fn is_home(&mut self) {
        self.home = Some(thread::current().id());
    }

    pub(super) fn add(&mut self, task: u64) {
        let thread = thread::current();
        if self.home.is_some_and(|home| home != thread.id()) {
            let name = thread.name().unwrap_or("without a name");
            self.foreign.get_or_insert_with(|| format!("a task was woken by another thread, '{name}'"));
        }
        self.tasks.push(task);
    }

    /// The tasks; or who woke one that may not.
    pub(super) fn take(&mut self) -> Result<Vec<u64>, String> {
        match self.foreign.take() {
            Some(foreign) => Err(foreign),
            None => Ok(std::mem::take(&mut self.tasks)),
        }
    }
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
    static WATCHED: Cell<u32> = const { Cell::new(0) };
    static REACHED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Panics of this thread are looked at while it lives.
pub(super) struct Watch(());

/// Looks at the panics of this thread: those of handlers are caught where nobody sees their text.
pub(super) fn watch() -> Watch {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let payload = panic.payload();
            let text = payload.downcast_ref::<String>().map(String::as_str);
            if WATCHED.get() > 0
                && let Some(text) = text.or_else(|| payload.downcast_ref::<&str>().copied())
                && (text.contains("no reactor running") || text.contains("Tokio 1.x"))
            {
                REACHED.set(Some(format!("it says: {text}")));
            }
            if !QUIET.get() {
                previous(panic);
            }
        }));
    });
    REACHED.set(None);
    WATCHED.set(WATCHED.get() + 1);
    Watch(())
}

impl Drop for Watch {
    fn drop(&mut self) {
        WATCHED.set(WATCHED.get() - 1);
    }
}

/// Does something again whose panics were printed before.
pub(super) fn quietly<T>(act: impl FnOnce() -> T) -> T {
    QUIET.set(true);
    let output = act();
    QUIET.set(false);
    output
}

/// What a panic of this thread said of a real runtime.
pub(super) fn reached() -> Option<String> {
    REACHED.take()
}

/// Threads of real runtimes in this process, where the system tells: somebody waits for them, maybe.
pub(super) fn threads() -> Vec<String> {
    let known = ["tokio", "async-io", "async-std", "smol", "blocking-"];
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    let mut names: Vec<_> = names.map(|name| name.trim().to_owned()).collect();
    names.retain(|name| known.iter().any(|known| name.starts_with(known)));
    names.sort();
    names.dedup();
    names
}
