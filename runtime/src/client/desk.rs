//! Where a client's events find those who wait for them.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use commipc_protocol::auth::Secret;
use commipc_protocol::client::{
    ChannelSalt, Command, Event, Failure, ReconnectEvent, Request, RequestId, StreamEvent, StreamId, Unrestored,
    Welcome,
};
use commipc_protocol::{ChannelName, ClientId, CloseReason, Instant};
use commipc_protocol::{Fault, Misuse, Refusal, client};

use super::brake::Brake;
use super::drain::{self, Drains, SendGuard};
use super::errors::Troubles;
use super::items;
use super::life::{Derived, Life};
use super::opening;
use super::passwords::Passwords;
use super::provide::{self, Job, ProviderCell, Tracked};
use super::refused::Refusals;
use super::states::ConnectionState;
use super::tap::Taps;
use super::tickets::{Target, Tickets, Undo};
use crate::driver::{Driver, Sink};
use crate::endpoint::Endpoint;
use crate::inside::STANDING;
use crate::runtime::Runtime;
use crate::secret::SecretSource;
use crate::sync::lock;

/// The driver of a client's machine.
pub(crate) type ClientDriver = Driver<client::Client, Desk>;

/// The client's side of the driver: tickets for what was asked, and handlers and queues for what comes.
pub(crate) struct Desk {
    tickets: Mutex<Tickets>,
    /// Requests whose handlers wait, to be dropped when their callers give up.
    running: Mutex<HashMap<RequestId, Tracked>>,
    connection: Mutex<Connection>,
    dial_error: Mutex<Option<io::Error>>,
    /// What is proved: read anew where it comes from a file.
    secret: Mutex<Secret>,
    source: (SecretSource, Endpoint),
    lives: Mutex<HashMap<ChannelName, Weak<Life>>>,
    passwords: Passwords,
    brake: Arc<Brake>,
    taps: Taps,
    troubles: Troubles,
    refusals: Refusals,
    drains: Drains,
    /// No handle is left.
    let_go: AtomicBool,
}

struct Connection {
    state: State,
    /// How often it changed.
    changes: u64,
    wakers: Vec<Waker>,
}

/// How far the connection is.
#[derive(Clone)]
pub(super) enum State {
    Connecting,
    Ready(Arc<Welcome>),
    Lost(CloseReason, Duration),
    Restoring(Arc<Welcome>, usize, usize),
    Closed(CloseReason),
}

impl State {
    pub(super) const fn public(&self) -> ConnectionState {
        match self {
            Self::Connecting => ConnectionState::Connecting,
            Self::Ready(_) => ConnectionState::Ready,
            Self::Lost(reason, retry) => ConnectionState::Lost { reason: *reason, retry: *retry },
            Self::Restoring(_, done, of) => ConnectionState::Restoring { done: *done, of: *of },
            Self::Closed(reason) => ConnectionState::Closed(*reason),
        }
    }
}

impl Desk {
    pub(super) fn new(secret: Secret, source: (SecretSource, Endpoint)) -> Self {
        Self {
            tickets: Mutex::default(),
            running: Mutex::default(),
            connection: Mutex::new(Connection { state: State::Connecting, changes: 0, wakers: Vec::new() }),
            dial_error: Mutex::default(),
            secret: Mutex::new(secret),
            source,
            lives: Mutex::default(),
            passwords: Passwords::default(),
            brake: Arc::default(),
            taps: Taps::default(),
            troubles: Troubles::default(),
            refusals: Refusals::default(),
            drains: Drains::default(),
            let_go: AtomicBool::new(false),
        }
    }

    /// Its last handle is gone.
    pub(super) fn let_go(&self) {
        self.let_go.store(true, Ordering::Release);
    }

    pub(crate) fn has_handles(&self) -> bool {
        !self.let_go.load(Ordering::Acquire)
    }

    /// How much is held beside the machine, by kind.
    pub(crate) fn held_here(&self) -> [(&'static str, usize); 6] {
        let (open, standing) = lock(&self.tickets).count();
        [
            ("open tickets", open),
            (STANDING, standing),
            ("handlers", lock(&self.running).len()),
            ("channels", lock(&self.lives).values().filter(|life| life.strong_count() > 0).count()),
            ("full listeners", self.brake.count()),
            ("taps", self.taps.count()),
        ]
    }

    pub(super) const fn lives(&self) -> &Mutex<HashMap<ChannelName, Weak<Life>>> {
        &self.lives
    }

    /// What lets the connection wait for listeners.
    pub(super) const fn brake(&self) -> &Arc<Brake> {
        &self.brake
    }

    pub(super) const fn taps(&self) -> &Taps {
        &self.taps
    }

    pub(super) const fn troubles(&self) -> &Troubles {
        &self.troubles
    }

    pub(super) const fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    pub(super) const fn drains(&self) -> &Drains {
        &self.drains
    }

    pub(super) const fn passwords(&self) -> &Passwords {
        &self.passwords
    }

    /// Keeps what a channel is to be opened with.
    pub(super) fn give_secret(&self, name: &ChannelName, secret: Secret) -> Result<(), Failure> {
        let open = self.current_life(name).is_some_and(|life| life.is_guarded());
        if self.passwords.give(name, secret, open) { Ok(()) } else { Err(Failure::Refused(Refusal::PasswordWrong)) }
    }

    fn current_life(&self, name: &ChannelName) -> Option<Arc<Life>> {
        lock(&self.lives).get(name).and_then(Weak::upgrade)
    }

    pub(super) fn tickets(&self) -> &Mutex<Tickets> {
        &self.tickets
    }

    /// Waits until the state is more than `Connecting`, or with `closed`, until it is `Closed`.
    pub(super) fn poll_state(&self, cx: &Context<'_>, closed: bool) -> Poll<State> {
        let mut connection = lock(&self.connection);
        match (&connection.state, closed) {
            (State::Closed(_), _) | (State::Ready(_), false) => Poll::Ready(connection.state.clone()),
            (State::Ready(_), true) | (State::Connecting | State::Lost(..) | State::Restoring(..), _) => {
                if !connection.wakers.iter().any(|known| known.will_wake(cx.waker())) {
                    connection.wakers.push(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }

    /// Waits for a state other than that of this number.
    pub(super) fn poll_changed(&self, cx: &Context<'_>, seen: Option<u64>) -> Poll<(u64, State)> {
        let mut connection = lock(&self.connection);
        if seen != Some(connection.changes) {
            return Poll::Ready((connection.changes, connection.state.clone()));
        }
        if !connection.wakers.iter().any(|known| known.will_wake(cx.waker())) {
            connection.wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// How far the connection is now.
    pub(super) fn state(&self) -> State {
        lock(&self.connection).state.clone()
    }

    /// The own id, once the hub has confirmed it.
    pub(super) fn own_id(&self) -> Option<ClientId> {
        match &lock(&self.connection).state {
            State::Ready(welcome) | State::Restoring(welcome, ..) => Some(welcome.client.clone()),
            State::Connecting | State::Lost(..) | State::Closed(_) => None,
        }
    }

    pub(super) fn take_dial_error(&self) -> Option<io::Error> {
        lock(&self.dial_error).take()
    }

    pub(super) fn track(&self, request: RequestId, tracked: Tracked) {
        lock(&self.running).insert(request, tracked);
    }

    /// Looks at a request that is running or waiting.
    pub(super) fn tracked<T>(&self, request: RequestId, look: impl FnOnce(&Tracked) -> Option<T>) -> Option<T> {
        lock(&self.running).get(&request).and_then(look)
    }

    pub(super) fn untrack(&self, request: RequestId) {
        // Dropped after the lock: it may hold the last piece of a handler.
        let gone = lock(&self.running).remove(&request);
        drop(gone);
    }

    fn set_state(&self, state: State) {
        let wakers = {
            let mut connection = lock(&self.connection);
            connection.state = state;
            connection.changes += 1;
            mem::take(&mut connection.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    fn connected(driver: &ClientDriver, welcome: Welcome) {
        tracing::debug!(hub = %welcome.hub, client = %welcome.client, "connected");
        if welcome.insecure {
            tracing::warn!(hub = %welcome.hub, "the hub asks for no secret: anybody who reaches it gets in");
        }
        let (desk, welcome) = (driver.sink(), Arc::new(welcome));
        match desk.state() {
            // What was open comes back first.
            State::Lost(..) => desk.set_state(State::Restoring(welcome, 0, 0)),
            State::Connecting | State::Ready(_) | State::Restoring(..) | State::Closed(_) => {
                desk.set_state(State::Ready(welcome));
            }
        }
    }

    /// What concerns a connection that comes back.
    fn reconnecting(driver: &Arc<ClientDriver>, event: ReconnectEvent) {
        match event {
            ReconnectEvent::Lost { reason, retry } => Self::lost(driver, reason, retry),
            ReconnectEvent::Restoring { done, of } => Self::restored(driver, Some((done, of))),
            ReconnectEvent::Restored { .. } => Self::restored(driver, None),
            ReconnectEvent::Returned { channel } => tracing::debug!(%channel, "restored"),
            ReconnectEvent::Unrestored { what, why } => Self::unrestored(driver, &what, why),
        }
    }

    /// The connection is away. What is to be proved at the next try is read anew, where it comes from a file.
    fn lost(driver: &Arc<ClientDriver>, reason: CloseReason, retry: Duration) {
        tracing::debug!(%reason, ?retry, "connection lost");
        driver.sink().set_state(State::Lost(reason, retry));
        if !driver.sink().source.0.is_file(&driver.sink().source.1) {
            return;
        }
        let me = Arc::clone(driver);
        driver.runtime().spawn_blocking(Box::new(move || {
            let (source, endpoint) = me.sink().source.clone();
            match source.for_client(&endpoint) {
                Ok(secret) => {
                    *lock(&me.sink().secret) = secret.clone();
                    me.issue(Command::SetSecret(secret));
                }
                Err(error) => tracing::debug!(%error, "the secret could not be read again"),
            }
        }));
    }

    /// So many of the channels that were open are again.
    fn restored(driver: &ClientDriver, progress: Option<(usize, usize)>) {
        let desk = driver.sink();
        if let (State::Restoring(welcome, ..), progress) = (desk.state(), progress) {
            desk.set_state(match progress {
                Some((done, of)) => State::Restoring(welcome, done, of),
                None => State::Ready(welcome),
            });
        }
    }

    /// Something that was there before the connection went is not any more.
    fn unrestored(driver: &ClientDriver, what: &Unrestored, why: Failure) {
        tracing::warn!(?what, %why, "not restored");
        if let Unrestored::Listener { token, .. } = what {
            let target = lock(&driver.sink().tickets).target(*token);
            if let Some(Target::Listener(queue)) = target {
                queue.close(why);
            }
        }
    }

    fn closed(driver: &ClientDriver, reason: CloseReason) {
        let desk = driver.sink();
        let targets = lock(&desk.tickets).take_targets();
        for target in &targets {
            match target {
                Target::Listener(queue) => queue.close(Failure::Local(Misuse::NotConnected)),
                // Each stream has had its own end before.
                Target::Provider(_) | Target::Items(_) | Target::Asked(_) => {}
            }
        }
        let lives = mem::take(&mut *lock(&desk.lives));
        // In which order cannot be seen.
        lives.into_values().filter_map(|life| life.upgrade()).for_each(|life| {
            life.close(Failure::Local(Misuse::NotConnected));
        });
        let running = mem::take(&mut *lock(&desk.running));
        #[expect(clippy::iter_over_hash_type, reason = "every request is ended; in which order cannot be seen")]
        for tracked in running.values() {
            tracked.end();
        }
        desk.taps.close();
        desk.troubles.close();
        desk.drains.closed();
        desk.set_state(State::Closed(reason));
        driver.stop();
        tracing::debug!(%reason, "connection closed");
    }

    fn request(driver: &Arc<ClientDriver>, request: Request, replies: &mut Vec<Command>) {
        let target = lock(&driver.sink().tickets).provider(request.provider);
        match target {
            Some(cell) => provide::take(driver, &cell, Job::request(request), &mut |command| replies.push(command)),
            // Withdrawn while the request was on its way.
            None => replies.push(Command::Answer { request: request.id, result: Err(refused(Refusal::NoProvider)) }),
        }
    }

    /// Hands on a message, together with those right behind it that are for the same listener.
    fn message(
        driver: &Arc<ClientDriver>,
        message: client::Message,
        more: &mut VecDeque<Event>,
        replies: &mut Vec<Command>,
    ) {
        let target = lock(&driver.sink().tickets).target(message.to);
        match target {
            Some(Target::Listener(queue)) => queue.push(message, more, || driver.runtime().now()),
            Some(Target::Provider(cell)) => {
                provide::take(driver, &cell, Job::send(message.message, SendGuard::new(driver)), &mut |command| {
                    replies.push(command)
                });
            }
            Some(Target::Items(_) | Target::Asked(_)) | None => {
                tracing::debug!(channel = %message.message.channel, event = %message.message.event, "nobody listens any more")
            }
        }
    }

    /// What concerns streams: those we asked for by their tokens, those we serve by their requests. An item is handed on
    /// together with those right behind it.
    fn streamed(driver: &ClientDriver, event: StreamEvent, more: &mut VecDeque<Event>) {
        let desk = driver.sink();
        let queue = |token| match lock(&desk.tickets).target(token) {
            Some(Target::Items(queue)) => Some(queue),
            Some(Target::Provider(_) | Target::Listener(_) | Target::Asked(_)) | None => None,
        };
        let served = |request| desk.tracked(request, Tracked::stream);
        match event {
            StreamEvent::Item { stream, payload, cost } => {
                let queue = match stream {
                    StreamId::Call(token) => queue(token),
                    StreamId::Request(request) => served(request).and_then(|(_, input)| input),
                };
                if let Some(queue) = queue {
                    queue.push(stream, (payload, cost), more);
                }
            }
            StreamEvent::Demand { stream: StreamId::Call(token), amount } => {
                if let Some(queue) = queue(token) {
                    queue.demand(amount);
                }
            }
            StreamEvent::Demand { stream: StreamId::Request(request), amount } => {
                if let Some((feed, _)) = served(request) {
                    feed.demand(amount);
                }
            }
            StreamEvent::Finished { request, result } => {
                if let Some((_, Some(input))) = served(request) {
                    input.end(items::caller_ended(result));
                }
            }
            StreamEvent::Accepted { token } => {
                if let Some(queue) = queue(token) {
                    queue.accept();
                }
            }
            StreamEvent::Ended { token, result } => {
                let target = lock(&desk.tickets).ended(token);
                if let Some(Target::Items(queue)) = target {
                    queue.end(result);
                }
            }
        }
    }

    /// The hub asks for the proof of a channel's password.
    fn derive_channel(driver: &Arc<ClientDriver>, channel: ChannelName, salt: ChannelSalt) {
        let desk = driver.sink();
        let known = desk
            .passwords
            .derived(&channel, |derived| (derived.salt == salt).then(|| derived.master.clone()))
            .flatten();
        if let Some(master) = known {
            return driver.issue(Command::ChannelKeyDerived { channel, salt, master });
        }
        let secret = desk.passwords.secret(&channel);
        let me = Arc::clone(driver);
        driver.runtime().spawn_blocking(Box::new(move || {
            let derived = secret.and_then(|secret| Some((opening::derive(&secret, salt).ok()?, secret)));
            let Some((master, secret)) = derived else {
                return me.issue(Command::ChannelKeyFailed { channel });
            };
            me.sink().passwords.remember(&channel, Derived { secret, salt, master: master.clone() });
            me.issue(Command::ChannelKeyDerived { channel, salt, master });
        }));
    }

    fn derive(driver: &Arc<ClientDriver>, salt: [u8; 16], iterations: u32) {
        let me = Arc::clone(driver);
        let secret = lock(&me.sink().secret).clone();
        driver.runtime().spawn_blocking(Box::new(move || match secret.derive(&salt, iterations) {
            Ok(salted) => me.issue(Command::KeyDerived(salted)),
            // The machine has checked the rounds, so this is not reached; if it is, there is nothing to prove with.
            Err(_) => me.issue(Command::Close),
        }));
    }

    fn channel_closed(&self, channel: &ChannelName, why: Failure) {
        tracing::debug!(%channel, %why, "channel closed");
        let life = lock(&self.lives).remove(channel);
        if let Some(life) = life.and_then(|life| life.upgrade()) {
            life.close(why);
        }
    }

    fn owner_changed(&self, channel: &ChannelName, owner: Option<ClientId>) {
        tracing::debug!(%channel, ?owner, "owner changed");
        if let Some(life) = self.current_life(channel) {
            life.set_owner(owner);
        }
    }

    fn password_changed(&self, channel: &ChannelName, salt: Option<ChannelSalt>) {
        tracing::debug!(%channel, protected = salt.is_some(), "password changed");
        self.passwords.changed(channel, salt);
        if let Some(life) = self.current_life(channel) {
            life.set_guarded(salt.is_some());
        }
    }

    /// What nobody waits for with a token, messages and streams aside.
    fn told(driver: &Arc<ClientDriver>, event: Event, replies: &mut Vec<Command>) {
        match event {
            Event::Request(request) => {
                Self::request(driver, request, replies);
            }
            Event::RequestEnded { request, why } => {
                tracing::trace!(?request, %why, "request ended");
                let tracked = lock(&driver.sink().running).remove(&request);
                if let Some(tracked) = tracked {
                    tracked.end();
                }
            }
            Event::Draining { provider, running, cut } => {
                drain::told(driver, provider, running, cut);
            }
            Event::DeriveKey { salt, iterations } => {
                Self::derive(driver, salt, iterations);
            }
            Event::DeriveChannelKey { channel, salt } => {
                Self::derive_channel(driver, channel, salt);
            }
            Event::ChannelClosed { channel, why } => driver.sink().channel_closed(&channel, why),
            Event::OwnerChanged { channel, owner } => driver.sink().owner_changed(&channel, owner),
            Event::PasswordChanged { channel, salt } => driver.sink().password_changed(&channel, salt),
            Event::Gap(gap) => {
                let (channel, event, sender) = (&gap.channel, &gap.event, &gap.sender);
                tracing::warn!(%channel, %event, %sender, gap.first, gap.last, "broadcasts are missing");
                let target = lock(&driver.sink().tickets).target(gap.to);
                if let Some(Target::Listener(queue)) = target {
                    queue.lost(gap.last - gap.first + 1);
                }
            }
            Event::Ready(welcome) => Self::connected(driver, welcome),
            Event::Reconnect(event) => Self::reconnecting(driver, event),
            Event::Closed(reason) => {
                Self::closed(driver, reason);
            }
            Event::Violation(violation) => {
                tracing::warn!(%violation, "the hub broke the protocol");
            }
            Event::Dropped(why) => {
                driver.sink().refusals.note(why);
            }
            // Handed on already.
            Event::Answered { .. } | Event::Done { .. } | Event::Sent { .. } | Event::Message(_) | Event::Stream(_) => {
            }
        }
    }
}

/// A refusal as a provider can say it: a fault with the refusal's number.
pub(super) fn refused(refusal: Refusal) -> Fault {
    Fault {
        code: refusal.code(),
        message: refusal.to_string(),
        details: bytes::Bytes::new(),
        retryable: refusal.is_retryable(),
    }
}

impl Sink<client::Client> for Desk {
    const HAS_CALLERS: bool = true;

    fn deliver(driver: &Arc<ClientDriver>, events: &mut VecDeque<Event>, replies: &mut Vec<Command>) -> usize {
        let mut served = 0;
        let desk = driver.sink();
        let mut alone = VecDeque::new();
        while let Some(event) = events.pop_front() {
            let watched = desk.taps.are_wanted();
            if watched {
                desk.taps.copy(desk, &event);
            }
            if desk.troubles.are_wanted() {
                desk.troubles.note(&event);
            }
            // What is copied is looked at one by one.
            let more = if watched { &mut alone } else { &mut *events };
            let completed = if let Event::Answered { token, result } = event {
                lock(&driver.sink().tickets).answered(token, result)
            } else if let Event::Done { token, result } | Event::Sent { token, result } = event {
                lock(&driver.sink().tickets).done(token, result)
            } else if let Event::Message(message) = event {
                Self::message(driver, message, more, replies);
                continue;
            } else if let Event::Stream(event) = event {
                Self::streamed(driver, event, more);
                continue;
            } else {
                Self::told(driver, event, replies);
                continue;
            };
            served += completed.finish(replies);
        }
        served
    }

    fn held(&self, runtime: &dyn Runtime, waker: &Waker) -> Option<Instant> {
        self.brake.held(waker, || runtime.now())
    }

    fn dial_failed(&self, error: io::Error) {
        *lock(&self.dial_error) = Some(error);
    }
}

/// Kept here so that a handle can be dropped from any thread without waiting.
pub(super) fn withdraw(driver: &ClientDriver, provider: client::Token, cell: Option<Arc<ProviderCell>>) {
    let token = lock(driver.sink().tickets()).abandoned(Undo::Release(provider));
    let target = lock(driver.sink().tickets()).disconnect(provider);
    driver.issue(Command::Withdraw { token, provider });
    drop((target, cell));
}
