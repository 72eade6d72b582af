//! The end of a world: everybody leaves, and nothing may be left of what they did.

use commipc_protocol::{bridge, client, hub};
use core::time::Duration;

use crate::oracles::{Leaks, Oracle};
use crate::world::{Moment, World};

/// After which a hub has forgotten channels that nobody asks for.
pub(crate) const FORGOTTEN: Duration = Duration::from_secs(25 * 3_600);

impl World {
    /// Lets everybody leave, and a day pass.
    ///
    /// # Panics
    /// When a machine still holds anything of what was asked of it.
    pub fn end(mut self) {
        self.empty();
    }

    /// What the others think of it was said before, or was not asked for.
    fn empty(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.watch.oracles = vec![Box::new(Leaks::default()) as Box<dyn Oracle>];
        self.watch.failures.clear();
        self.engine.heal();
        let (clients, bridges) = (self.clients(), self.bridges());
        for node in &clients {
            self.ask(*node, client::Command::Close);
        }
        for node in &bridges {
            self.ask_bridge(*node, bridge::Command::Close);
        }
        let end = self.now() + FORGOTTEN;
        while self.engine.next_at().is_some_and(|at| at <= end) && self.step() != Moment::Idle {}
        self.engine.advance(end);
        for node in self.hubs() {
            self.judge_empty(node);
            self.ask_hub(node, hub::Command::Shutdown);
        }
        clients.into_iter().chain(bridges).for_each(|node| self.judge_empty(node));
        let leak = self.failures().iter().find(|failure| failure.oracle == Leaks::default().name());
        assert!(
            leak.is_none(),
            "{}; this world followed from {}",
            leak.map_or_else(String::new, ToString::to_string),
            self.origin
        );
    }
}

impl Drop for World {
    #[expect(clippy::print_stderr, reason = "a failing test must tell its seed, whatever it was that failed")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            if let Some(conversation) = self.trace().conversation() {
                eprint!("{}", conversation.text());
            }
            eprintln!("this world followed from {}; its trace is {}", self.origin, self.trace().hash());
        } else {
            self.empty();
        }
    }
}
