//! A link's conversation with the hub itself: handshake, control requests, goodbye.

use super::registry::{Departure, Leaving, LinkIx};
use super::session::{Applicant, HandshakeEnd, Session, State};
use super::throttle::Guesser;
use super::{DisconnectReason, Due, Event, Hub, MUCH};
use crate::client::EventKind;
use crate::error::{Refusal, Violation};
use crate::machine::{Flush, Output};
use crate::names::ClientId;
use crate::time::TimerReason;
use crate::wire::{
    AuthFailed, Control, Done, Frame, FrameType, Goodbye, Leave, Listen, Ping, Pong, Provide, Unlisten, Withdraw,
};

impl From<HandshakeEnd> for DisconnectReason {
    fn from(end: HandshakeEnd) -> Self {
        match end {
            HandshakeEnd::Violation(violation) => Self::Violation(violation),
            HandshakeEnd::Refused(refusal) => Self::Refused(refusal),
        }
    }
}

impl From<Violation> for DisconnectReason {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

impl Hub {
    pub(super) fn handle_frame(&mut self, ix: LinkIx, frame: &Frame) -> Result<(), DisconnectReason> {
        let Some(session) = self.links.get(ix) else { return Ok(()) };
        let ready = matches!(session.state, State::Ready(_));
        let Some(kind) = FrameType::from_number(frame.number()) else {
            if !ready || frame.number() < 128 {
                return Err(Violation::UnknownFrame.into());
            }
            self.counters.skipped += 1;
            return Ok(());
        };
        if !ready {
            return self.handle_stranger(ix, kind, frame);
        }
        match kind {
            FrameType::Ping => self.handle_ping(ix, frame),
            FrameType::Pong => parse::<Pong>(frame).map(drop),
            FrameType::Goodbye => parse::<Goodbye>(frame).and(Err(DisconnectReason::Goodbye)),
            FrameType::Open => self.handle_open(ix, frame),
            FrameType::Join => self.handle_join(ix, frame),
            FrameType::Protect => self.handle_protect(ix, frame),
            FrameType::Unprotect => self.handle_unprotect(ix, frame),
            FrameType::Reclaim => self.handle_reclaim(ix, frame),
            FrameType::Accept => self.handle_accept(ix, frame),
            FrameType::Terminate => self.handle_terminate(ix, frame),
            FrameType::Operate => self.handle_operate(ix, frame),
            FrameType::Leave => self.handle_leave(ix, frame),
            FrameType::Provide => self.handle_provide(ix, frame),
            FrameType::Withdraw => self.handle_withdraw(ix, frame),
            FrameType::Listen => self.handle_listen(ix, frame),
            FrameType::Unlisten => self.handle_unlisten(ix, frame),
            FrameType::Broadcast
            | FrameType::Send
            | FrameType::Call
            | FrameType::Answer
            | FrameType::Fault
            | FrameType::Item
            | FrameType::End
            | FrameType::Cancel
            | FrameType::Beacon => self.handle_message(ix, kind, frame).map_err(DisconnectReason::from),
            FrameType::Credit => self.route_credit(ix, frame),
            FrameType::Attach
            | FrameType::Announce
            | FrameType::Forget
            | FrameType::Remote
            | FrameType::Told
            | FrameType::Fail => self.handle_bridge_frame(ix, kind, frame),
            FrameType::Hello
            | FrameType::Challenge
            | FrameType::Proof
            | FrameType::Welcome
            | FrameType::AuthFailed
            | FrameType::Ack
            | FrameType::Done
            | FrameType::JoinChallenge
            | FrameType::Offer
            | FrameType::Channel => Err(Violation::UnexpectedFrame.into()),
        }
    }

    fn handle_stranger(&mut self, ix: LinkIx, kind: FrameType, frame: &Frame) -> Result<(), DisconnectReason> {
        let nonce = self.nonces.bytes();
        let Some(session) = self.links.get_mut(ix) else { return Ok(()) };
        match (core::mem::replace(&mut session.state, State::Hello), kind) {
            (State::Hello, FrameType::Hello) => {
                let hub = super::Identity {
                    hub: &self.id,
                    boot: &self.boot,
                    credentials: &self.credentials,
                    limits: &self.limits,
                    hash: self.hash,
                };
                session.handle_hello(frame, hub, &nonce, &mut self.pool)?;
                self.mark_ready(ix);
                Ok(())
            }
            (State::Proof(pending), FrameType::Proof) => {
                let guesser = pending.guesser;
                match Session::handle_proof(frame, *pending) {
                    Ok(applicant) => self.admit(ix, applicant),
                    Err(HandshakeEnd::Refused(Refusal::AuthFailed)) => self.login_failed(ix, guesser),
                    Err(end) => Err(end.into()),
                }
            }
            (_, _) => Err(Violation::UnexpectedFrame.into()),
        }
    }

    /// Makes a proved stranger a client, if there is room for it and its id.
    fn admit(&mut self, ix: LinkIx, applicant: Applicant) -> Result<(), DisconnectReason> {
        let holder = self.clients.get(&applicant.client).copied();
        let refused = if !applicant.authenticated.credential().allows(&applicant.client) {
            Some(Refusal::IdNotAllowed)
        } else if holder.is_some_and(|holder| !self.is_same_client(holder, &applicant)) {
            Some(Refusal::IdInUse)
        } else {
            None
        };
        self.throttle.succeeded(applicant.guesser);
        self.sessions += 1;
        let superseded = holder.filter(|_| refused.is_none()).and_then(|holder| self.supersede(holder));
        let lineage = superseded.unwrap_or(self.sessions);
        let Some(session) = self.links.get_mut(ix) else { return Ok(()) };
        session.welcome(&applicant, self.sessions, refused, &self.limits, &mut self.pool);
        let link = session.link;
        if let Some(timer) = session.handshake_timer.take() {
            self.timers.cancel(timer);
        }
        if let Some(refusal) = refused {
            return Err(DisconnectReason::Refused(refusal));
        }
        let (client, credential) = (applicant.client.clone(), applicant.authenticated.credential_id().clone());
        session.become_ready(applicant, lineage, self.hash);
        self.links.acquaint(ix);
        self.clients.insert(client.clone(), ix);
        self.start_heartbeat(ix);
        self.mark_ready(ix);
        self.event(Event::Connected { link, client, credential });
        Ok(())
    }

    /// Says so, or lets it wait, without a place among those who may still prove themselves.
    fn login_failed(&mut self, ix: LinkIx, guesser: Guesser) -> Result<(), DisconnectReason> {
        let wait = self.throttle.failed(guesser, self.now.mono, &self.limits);
        let Some(session) = self.links.get_mut(ix).filter(|_| !wait.is_zero()) else {
            return Err(DisconnectReason::Refused(Refusal::AuthFailed));
        };
        session.state = State::Failing;
        let due = self.timers.insert(self.now.mono + wait, TimerReason::LoginFailed, Due::LoginFailed(session.link));
        if let Some(handshake) = session.handshake_timer.replace(due) {
            self.timers.cancel(handshake);
        }
        if let Some(longest) = self.links.set_aside(ix, &self.limits) {
            self.doomed.push((longest, DisconnectReason::Refused(Refusal::AuthFailed)));
        }
        Ok(())
    }

    fn handle_ping(&mut self, ix: LinkIx, frame: &Frame) -> Result<(), DisconnectReason> {
        let ping = parse::<Ping>(frame)?;
        if let Some(session) = self.links.get_mut(ix) {
            session.outbox.push(&mut self.pool, FrameType::Pong, |out| Pong { number: ping.number }.encode(out));
        }
        self.check_outbox(ix);
        Ok(())
    }

    fn handle_leave(&mut self, ix: LinkIx, frame: &Frame) -> Result<(), DisconnectReason> {
        let leave = parse::<Leave<'_>>(frame)?;
        let Some(member) = self.links.get_mut(ix).and_then(Session::member_mut) else { return Ok(()) };
        let result = self.registry.leave(&mut member.memberships, ix, leave.channel);
        let client = member.client.clone();
        match result {
            Ok(departure) => self.departed(ix, &client, &departure, Leaving::Willing, self.asked(ix, leave.id)),
            Err(refusal) => self.done(ix, leave.id, Err(refusal)),
        }
        Ok(())
    }

    fn handle_provide(&mut self, ix: LinkIx, frame: &Frame) -> Result<(), DisconnectReason> {
        let provide = parse::<Provide<'_>>(frame)?;
        let refused = self.turns_down(ix);
        let Some(member) = self.links.get_mut(ix).and_then(Session::member_mut) else { return Ok(()) };
        let client = member.client.clone();
        let names = (provide.channel, provide.event);
        let result = if provide.channel.is_reserved() {
            Err(Refusal::HubOwned)
        } else if let Some(refusal) = refused
            && !self.registry.provides(&member.memberships, names)
        {
            Err(refusal)
        } else if let Some(kind) = EventKind::from_number(provide.kind) {
            let provided = self.registry.provide(&mut member.memberships, ix, names, kind, &self.limits);
            provided.map(|event| event.map(|event| (event, kind)))
        } else {
            Err(Refusal::WrongKind)
        };
        let result = result.map(|provided| {
            if let (Some((event, kind)), Ok(channel)) = (provided, crate::ChannelName::new(provide.channel.as_str())) {
                self.event(Event::Provided { channel, event, client, kind });
            }
        });
        self.done(ix, provide.id, result);
        Ok(())
    }

    fn handle_withdraw(&mut self, ix: LinkIx, frame: &Frame) -> Result<(), DisconnectReason> {
        let withdraw = parse::<Withdraw<'_>>(frame)?;
        let Some(member) = self.links.get_mut(ix).and_then(Session::member_mut) else { return Ok(()) };
        let client = member.client.clone();
        let result = self.registry.withdraw(&mut member.memberships, withdraw.channel, withdraw.event);
        let result = result.map(|event| {
            if let Ok(channel) = crate::ChannelName::new(withdraw.channel.as_str()) {
                self.event(Event::Withdrawn { channel, event, client });
            }
        });
        self.done(ix, withdraw.id, result);
        Ok(())
    }

    fn handle_listen(&mut self, ix: LinkIx, frame: &Frame) -> Result<(), DisconnectReason> {
        let listen = parse::<Listen<'_>>(frame)?;
        let refused = self.turns_down(ix);
        let Some(member) = self.links.get_mut(ix).and_then(Session::member_mut) else { return Ok(()) };
        let result = if let Some(refusal) = refused {
            Err(refusal)
        } else {
            self.registry.listen(&mut member.memberships, ix, listen.channel, listen.event, &self.limits)
        };
        self.done(ix, listen.id, result);
        Ok(())
    }

    fn handle_unlisten(&mut self, ix: LinkIx, frame: &Frame) -> Result<(), DisconnectReason> {
        let unlisten = parse::<Unlisten<'_>>(frame)?;
        let Some(member) = self.links.get_mut(ix).and_then(Session::member_mut) else { return Ok(()) };
        let result = self.registry.unlisten(&mut member.memberships, ix, unlisten.channel, unlisten.event);
        self.done(ix, unlisten.id, result);
        Ok(())
    }

    pub(super) fn done(&mut self, ix: LinkIx, id: u64, result: Result<(), Refusal>) {
        let done = Done {
            id,
            code: result.map_or_else(Refusal::code, |()| 0),
            epoch: None,
            owner: None,
            last_epoch: None,
            owned_by: None,
            proof: None,
        };
        if let Some(session) = self.links.get_mut(ix) {
            session.outbox.push(&mut self.pool, FrameType::Done, |out| done.encode(out));
        }
        self.check_outbox(ix);
    }

    /// Ends a link from this side: what waits for it goes out first, and a goodbye where one is understood.
    pub(super) fn end_link(&mut self, ix: LinkIx, why: DisconnectReason) {
        let Some(mut session) = self.links.remove(ix) else { return };
        let code = why.code().unwrap_or(0);
        match (&session.state, why) {
            (State::Ready(_), _) => {
                session.outbox.push(&mut self.pool, FrameType::Goodbye, |out| Goodbye { code }.encode(out));
            }
            (State::Hello | State::Proof(_) | State::Failing, DisconnectReason::Refused(refusal))
                if !refusal_was_proved(refusal) =>
            {
                session.outbox.push(&mut self.pool, FrameType::AuthFailed, |out| AuthFailed { code }.encode(out));
            }
            // A stranger that breaks the protocol may not even speak it.
            (State::Hello | State::Proof(_) | State::Failing, _) => {}
        }
        let link = session.link;
        let overloaded = why == DisconnectReason::Refused(Refusal::Overloaded);
        let flush = if overloaded && session.outbox.waiting() > MUCH {
            // Who is ended for want of memory is not to cost more of it until it has read everything.
            Flush::Nothing
        } else if session.member().is_some() {
            Flush::Read
        } else {
            // Strangers are many, and hold their places no longer than it takes to show them out.
            Flush::Written
        };
        if flush != Flush::Nothing {
            let rest = core::mem::take(&mut session.outbox).drain(&mut self.pool);
            self.outputs.extend(rest.map(|data| Output::Transmit { link, data }));
        }
        self.outputs.push_back(Output::Close { link, flush });
        self.forget(ix, session, why);
    }

    /// Undoes everything a link stood for.
    pub(super) fn forget(&mut self, ix: LinkIx, mut session: Session, why: DisconnectReason) {
        if let DisconnectReason::Violation(_) = why {
            self.counters.violations += 1;
        }
        core::mem::take(&mut session.outbox).discard(&mut self.pool);
        self.partials -= session.inbox.retained();
        for timer in [session.handshake_timer, session.partial_timer, session.write_timer].into_iter().flatten() {
            self.timers.cancel(timer);
        }
        let link = session.link;
        let mut member = match session.state {
            State::Ready(member) => member,
            // It failed, whether it waits to hear so or not.
            State::Failing => {
                let why = DisconnectReason::Refused(Refusal::AuthFailed);
                return self.event(Event::Rejected { link, why });
            }
            State::Hello | State::Proof(_) => return self.event(Event::Rejected { link, why }),
        };
        if let Some(timer) = member.heartbeat_timer {
            self.timers.cancel(timer);
        }
        for joining in core::mem::take(&mut member.joins).into_values() {
            if let Some(timer) = joining.timer {
                self.timers.cancel(timer);
            }
        }
        self.abandon_calls(ix, &member);
        self.detach(ix, &member.client);
        self.end_errands(ix);
        self.clients.remove(&member.client);
        let memberships = core::mem::take(&mut member.memberships);
        let leaving = match why {
            DisconnectReason::Refused(Refusal::Superseded) => Leaving::Superseded { lineage: member.lineage },
            DisconnectReason::Goodbye
            | DisconnectReason::Lost
            | DisconnectReason::Refused(_)
            | DisconnectReason::Violation(_) => Leaving::Lost,
        };
        for departure in self.registry.leave_all(memberships, ix) {
            self.departed(ix, &member.client, &departure, leaving, None);
        }
        self.event(Event::Disconnected { link, client: member.client, why });
    }

    fn departed(
        &mut self,
        ix: LinkIx,
        client: &ClientId,
        departure: &Departure,
        leaving: Leaving,
        asked: Option<super::changes::Asked>,
    ) {
        self.tell_departure(client, departure);
        self.member_left(ix, departure.ix, leaving, asked);
    }

    pub(super) fn tell_departure(&mut self, client: &ClientId, departure: &Departure) {
        let Departure { channel, withdrawn, .. } = departure;
        for event in withdrawn {
            let (channel, event) = (channel.clone(), event.clone());
            self.event(Event::Withdrawn { channel, event, client: client.clone() });
        }
        self.event(Event::Left { channel: channel.clone(), client: client.clone() });
    }
}

/// Whether a WELCOME has carried the refusal already.
const fn refusal_was_proved(refusal: Refusal) -> bool {
    matches!(refusal, Refusal::IdInUse | Refusal::IdNotAllowed)
}

pub(super) fn parse<'a, T: Control<'a>>(frame: &'a Frame) -> Result<T, DisconnectReason> {
    T::parse(frame.body()).map_err(|_| Violation::BadControl.into())
}
