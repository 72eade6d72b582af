//! One owner a channel at most, by what the hub claims and by what owners were confirmed. Nobody owns, protects or ends a
//! channel without a cause, and an owner that goes is followed by what the channel's policy says.
//!
//! ```text
//!   first to open ──► owner ──► goes: Terminated, or offered to members, or held until the grace is over
//!                       ▲                              │                   │
//!                       └───────── takes it ◄──────────┘    Reclaim ◄──────┘
//! ```
//! An owner that takes over from its own old link is waited for whatever the policy says, and needs no Reclaim.

use std::collections::{BTreeMap, BTreeSet};

use commipc_protocol::client::{Access, Command, DrainCommand, Event, Failure, Token};
use commipc_protocol::{
    AfterGrace, ChannelName, ClientId, Input, Instant, LinkId, Misuse, Output, OwnerPolicy, Refusal, hub,
};
use core::time::Duration;

use super::clears::{Clears, Ended};
use super::people::People;
use super::rooms::{Due, Room};
use super::{Oracle, Resident, Seen, Verdict, ensure, is_hubs_own};
use crate::engine::Sight;
use crate::node::NodeId;
use crate::station::{Asked, Told};

/// Holds that ownership is one client's, and comes and goes with a cause.
#[derive(Debug, Default)]
pub struct Owners {
    people: People,
    ids: BTreeMap<NodeId, ClientId>,
    policies: BTreeMap<NodeId, OwnerPolicy>,
    rooms: BTreeMap<(NodeId, ChannelName), Room>,
    /// Openings that the hub may not have heard of, and the policies they carry.
    opens: BTreeMap<(NodeId, ChannelName), Vec<Opening>>,
    /// What was asked about channels, in order.
    asked: Vec<Op>,
    /// How often the hub said that such a thing was done, beyond what was confirmed.
    pub(super) claimed: BTreeMap<(End, ChannelName, What), usize>,
    /// How many Reclaims may be confirmed of which the hub says nothing more: it said that their client owns the channel, and
    /// by which of several causes cannot be told.
    spare: BTreeMap<(End, ChannelName), usize>,
    /// Who gave a channel up without being asked, since what it had asked for came too late.
    excused: BTreeSet<(End, ChannelName)>,
    /// What is opened by what is not answered yet, though the hub may have said that it is open.
    openings: BTreeMap<(NodeId, Token), ChannelName>,
    /// Owners by their confirmations, while nothing speaks against it.
    certain: BTreeSet<(NodeId, ChannelName)>,
    /// Owners whose links were lost since the hub's outputs were drained last.
    lost: BTreeMap<(NodeId, ChannelName), NodeId>,
    /// Those of them that are waited for though no policy says so: the hub must say that they took over.
    held: BTreeMap<(NodeId, ChannelName), NodeId>,
    /// Channels of which something must be said before the hub's outputs are drained.
    due: BTreeSet<(NodeId, ChannelName)>,
    /// Hubs that come to their end: what becomes of channels there is for nobody to hear any more.
    ending: BTreeSet<NodeId>,
    /// What admins ask.
    clears: Clears,
}

/// The hub's end of the connection that something was asked on: what went there counts, whatever the client knows.
pub(super) type End = Option<LinkId>;

/// What an opening was asked with.
type Opening = (Token, End, Access);

#[derive(Debug)]
struct Op {
    node: NodeId,
    token: Token,
    end: End,
    channel: ChannelName,
    what: What,
    /// There may be nothing to do.
    idle: bool,
    /// It has ended a membership.
    used: bool,
    /// Asked before something that ends ownership, so its confirmation tells nothing of now.
    stale: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    Protect,
    Unprotect,
    Reclaim,
    Terminate,
    Leave,
}

/// How long an owner that took over is waited for.
const TAKEOVER: Duration = Duration::from_secs(10);
/// After which a hub forgets a channel without members.
const FORGOTTEN: Duration = Duration::from_secs(24 * 3_600 - 1);

impl Oracle for Owners {
    fn name(&self) -> &'static str {
        "owners"
    }

    fn joined(&mut self, node: NodeId, who: &Resident) {
        self.ids.extend(who.id.clone().map(|id| (node, id)));
        self.policies.extend(who.policy.map(|policy| (node, policy)));
        self.clears.admins.extend(who.admin.then_some(node));
    }

    fn saw(&mut self, at: Instant, node: NodeId, sight: &Seen<'_>) -> Verdict {
        if let Some(lost) = self.people.saw(node, sight) {
            self.certain.retain(|(owner, _)| *owner != lost);
        }
        match sight {
            Sight::Fed(Input::Command(Asked::Client(command))) => self.asks(node, command),
            Sight::Fed(Input::Command(Asked::Hub(hub::Command::Shutdown))) => {
                self.ending.insert(node);
            }
            Sight::Gave(Output::Event(Told::Client(event))) => return self.told(node, event),
            Sight::Gave(Output::Event(Told::Hub(event))) => return self.claims(at, node, event),
            Sight::Drained => return self.drained(node),
            Sight::Linked { .. } | Sight::Fed(_) | Sight::Gave(_) | Sight::Broke(_) => {}
        }
        Ok(())
    }
}

/// What clients ask and are told.
impl Owners {
    fn asks(&mut self, node: NodeId, command: &Command) {
        let end = self.people.end_of(node);
        let (token, channel, what) = match command {
            Command::Open { token, channel, access } => {
                self.opens.entry((node, channel.clone())).or_default().push((*token, end, *access));
                self.openings.insert((node, *token), channel.clone());
                return;
            }
            Command::Drain(DrainCommand::Provider { .. } | DrainCommand::Finished) => return,
            Command::Close | Command::Drain(DrainCommand::Client { .. }) => {
                self.certain.retain(|(owner, _)| *owner != node);
                return;
            }
            Command::Protect { token, channel, .. } => (token, channel, What::Protect),
            Command::Unprotect { token, channel } => (token, channel, What::Unprotect),
            Command::Reclaim { token, channel } => (token, channel, What::Reclaim),
            Command::Terminate { token, channel } => (token, channel, What::Terminate),
            Command::Leave { token, channel } => (token, channel, What::Leave),
            Command::Call { token, outgoing, .. } => {
                return self.clears.asks(node, *token, (self.people.hub_of(node), end), outgoing);
            }
            Command::Connect
            | Command::KeyDerived(_)
            | Command::Stream(_)
            | Command::SetSecret(_)
            | Command::SetOwnerKey(_)
            | Command::ChannelKeyDerived { .. }
            | Command::ChannelKeyFailed { .. }
            | Command::Provide { .. }
            | Command::Withdraw { .. }
            | Command::Listen { .. }
            | Command::Unlisten { .. }
            | Command::Cancel { .. }
            | Command::Send { .. }
            | Command::Broadcast { .. }
            | Command::Answer { .. } => return,
        };
        if matches!(what, What::Terminate | What::Leave) {
            self.certain.remove(&(node, channel.clone()));
            let before = self.asked.iter_mut().filter(|op| op.node == node && op.channel == *channel);
            before.for_each(|op| op.stale = true);
        }
        let (token, channel) = (*token, channel.clone());
        let room = self.people.hub_of(node).and_then(|hub| self.rooms.get(&(hub, channel.clone())));
        let idle = what == What::Unprotect && room.is_none_or(|room| !room.protected);
        self.asked.push(Op { node, token, end, channel, what, idle, used: false, stale: false });
    }

    fn told(&mut self, node: NodeId, event: &Event) -> Verdict {
        match event {
            Event::Done { token, result } => self.done(node, *token, *result),
            Event::Answered { token, result } => self.clears.answered(node, *token, result),
            Event::ChannelClosed { channel, .. } => {
                self.certain.remove(&(node, channel.clone()));
                Ok(())
            }
            Event::OwnerChanged { channel, owner } => {
                let certain = self.certain.contains(&(node, channel.clone()));
                ensure(!certain || owner.as_ref() == self.ids.get(&node), || {
                    format!("{node:?} is told that {owner:?} owns {channel}, which it owns for certain")
                })
            }
            Event::DeriveKey { .. }
            | Event::Stream(_)
            | Event::Reconnect(_)
            | Event::DeriveChannelKey { .. }
            | Event::Gap(_)
            | Event::Draining { .. }
            | Event::PasswordChanged { .. }
            | Event::Closed(_)
            | Event::Ready(_)
            | Event::Sent { .. }
            | Event::Request(_)
            | Event::RequestEnded { .. }
            | Event::Message(_)
            | Event::Violation(_)
            | Event::Dropped(_) => Ok(()),
        }
    }

    fn done(&mut self, node: NodeId, token: Token, result: Result<(), Failure>) -> Verdict {
        let late = is_unknown(result);
        if let Some(channel) = self.openings.remove(&(node, token))
            && late
        {
            self.excused.insert((self.people.end_of(node), channel));
        }
        for ((opener, channel), opens) in &mut self.opens {
            if *opener == node && opens.iter().any(|(open, ..)| *open == token) {
                if late {
                    self.excused.insert((self.people.end_of(node), channel.clone()));
                } else {
                    opens.retain(|(open, ..)| *open != token);
                }
            }
        }
        let Some(index) = self.asked.iter().position(|op| op.node == node && op.token == token) else { return Ok(()) };
        if late {
            // The hub may do it all the same.
            self.excused.insert((self.asked[index].end, self.asked[index].channel.clone()));
            return Ok(());
        }
        let op = self.asked.remove(index);
        match result {
            Ok(()) => self.confirmed(op),
            Err(Failure::Refused(_) | Failure::RefusedCode(_)) => {
                let (open, claimed) = self.open_and_claimed(op.end, &op.channel, op.what);
                ensure(claimed <= open, || format!("{op:?} was refused, and done all the same"))
            }
            Err(Failure::Local(_)) => Ok(()),
        }
    }

    /// How many of these are not answered, and how many of them the hub said were done: which ones cannot be told.
    fn open_and_claimed(&self, end: End, channel: &ChannelName, what: What) -> (usize, usize) {
        let open = self.asked.iter().filter(|op| op.end == end && op.channel == *channel && op.what == what);
        let claimed = self.claimed.get(&(end, channel.clone(), what)).copied().unwrap_or(0);
        (open.count(), claimed)
    }

    /// The hub says that something was done; false if nobody asked.
    fn claim_if_open(&mut self, end: End, channel: &ChannelName, what: What) -> bool {
        let (open, claimed) = self.open_and_claimed(end, channel, what);
        if claimed < open {
            self.claimed.insert((end, channel.clone(), what), claimed + 1);
        }
        claimed < open
    }

    fn confirmed(&mut self, op: Op) -> Verdict {
        let Some(hub) = self.people.hub_of(op.node) else { return Ok(()) };
        let room = self.rooms.get(&(hub, op.channel.clone()));
        let again = match op.what {
            // Once more without a change.
            What::Unprotect => op.idle,
            What::Reclaim => room.is_some_and(|room| room.unknown),
            What::Protect | What::Terminate | What::Leave => false,
        };
        let claims = self.claimed.get_mut(&(op.end, op.channel.clone(), op.what));
        let claimed = claims.filter(|claims| **claims > 0).map(|claims| *claims -= 1).is_some();
        let spare = self.spare.get_mut(&(op.end, op.channel.clone())).filter(|_| op.what == What::Reclaim && !claimed);
        let spared = spare.filter(|spare| **spare > 0).map(|spare| *spare -= 1).is_some();
        ensure(claimed || again || spared || op.what == What::Leave, || {
            format!("{op:?} is confirmed, and the hub did not say so")
        })?;
        let lasts = matches!(op.what, What::Protect | What::Unprotect | What::Reclaim);
        if !lasts || op.stale || self.people.is_cut_off(op.node) {
            return Ok(());
        }
        let other = self.other_owner(hub, op.node, &op.channel);
        let channel = op.channel;
        ensure(other.is_none(), || format!("{:?} and {other:?} were both confirmed as owners of {channel}", op.node))?;
        self.certain.insert((op.node, channel));
        Ok(())
    }

    fn other_owner(&self, hub: NodeId, but: NodeId, channel: &ChannelName) -> Option<NodeId> {
        let mut owners = self.certain.iter().filter(|(owner, owned)| *owner != but && owned == channel);
        owners.find(|(owner, _)| self.people.hub_of(*owner) == Some(hub)).map(|(owner, _)| *owner)
    }
}

/// What the hub claims.
impl Owners {
    fn claims(&mut self, at: Instant, hub: NodeId, event: &hub::Event) -> Verdict {
        let ended = self.clears.ended.take();
        match event {
            hub::Event::Joined { channel, client } if !is_hubs_own(channel) => self.joins(at, hub, channel, client),
            hub::Event::Left { channel, client } if !is_hubs_own(channel) => self.left(at, hub, channel, client),
            hub::Event::OwnerChanged { channel, owner: Some(owner) } => self.owned(at, hub, channel, owner),
            hub::Event::OwnerChanged { channel, owner: None } => self.unowned(at, hub, channel),
            hub::Event::ProtectionChanged { channel, epoch, protected } => {
                self.rekeyed(hub, channel, *epoch, *protected)
            }
            hub::Event::Terminated { channel } => self.terminated(at, hub, channel),
            hub::Event::Disconnected { link, client, why } => {
                self.left_for_good(at, hub, client, *why);
                let gone = Some(*link);
                self.asked.retain(|op| op.end != gone);
                self.claimed.retain(|(end, ..), _| *end != gone);
                self.spare.retain(|(end, _), _| *end != gone);
                self.excused.retain(|(end, _)| *end != gone);
                self.opens.values_mut().for_each(|opens| opens.retain(|(_, end, _)| *end != gone));
                self.clears.gone(hub, gone);
                Ok(())
            }
            hub::Event::Cleared { channel, client } => self.cleared(hub, channel, client, ended),
            hub::Event::Drained { .. } => {
                self.ending.insert(hub);
                Ok(())
            }
            hub::Event::Joined { .. }
            | hub::Event::Left { .. }
            | hub::Event::Connected { .. }
            | hub::Event::Rejected { .. }
            | hub::Event::Provided { .. }
            | hub::Event::Withdrawn { .. }
            | hub::Event::Looped { .. }
            | hub::Event::Stopped
            | _ => Ok(()),
        }
    }

    fn joins(&mut self, at: Instant, hub: NodeId, channel: &ChannelName, client: &ClientId) -> Verdict {
        let Some(node) = self.people.named(hub, client) else { return Ok(()) };
        let end = self.people.link_of(hub, client);
        let opens = self.opens.get_mut(&(node, channel.clone()));
        let opens: Vec<_> = opens.into_iter().flat_map(|opens| opens.extract_if(.., |open| open.1 == end)).collect();
        ensure(!opens.is_empty(), || format!("{client} joined {channel}, which it did not ask to open"))?;
        let room = self.rooms.entry((hub, channel.clone())).or_default();
        if room.members.is_empty() && room.empty_since.is_some_and(|since| at.saturating_since(since) >= FORGOTTEN) {
            *room = Room::default();
        }
        room.members.insert(node);
        room.empty_since = None;
        if room.is_free(node) {
            // Which matters if it becomes the owner by this.
            let (first, rest) = (opens.first().map(|open| open.2).unwrap_or_default(), opens.iter().skip(1));
            let policy = first.policy.or_else(|| self.policies.get(&hub).copied());
            (room.policy, room.plain) = (policy.unwrap_or_default(), first.plain);
            room.unknown = rest.into_iter().any(|open| open.2 != first);
        }
        Ok(())
    }

    fn left(&mut self, at: Instant, hub: NodeId, channel: &ChannelName, client: &ClientId) -> Verdict {
        let Some(node) = self.people.named(hub, client) else { return Ok(()) };
        let lost = self.people.is_over(hub, client);
        let key = (hub, channel.clone());
        let Some(room) = self.rooms.get_mut(&key) else { return Ok(()) };
        room.members.remove(&node);
        if room.members.is_empty() {
            room.empty_since = Some(at);
        }
        if room.owner != Some(node) {
            return Ok(());
        }
        room.owner = None;
        let end = self.people.link_of(hub, client);
        let ends = |op: &&mut Op| op.end == end && op.channel == *channel && !op.used && op.ends_membership();
        let mut cause = None;
        if let Some(op) = self.asked.iter_mut().find(ends) {
            op.used = true;
            cause = Some(op.what);
        }
        if lost && cause.is_some() {
            // A late driver shows both at once: which came first cannot be told from outside.
            room.drifts(node);
            return Ok(());
        }
        let excused = lost || cause.is_some() || self.excused.contains(&(end, channel.clone()));
        if cause == Some(What::Terminate) {
            room.due = Some(Due::Terminated { returns: None });
            *self.claimed.entry((end, channel.clone(), What::Terminate)).or_default() += 1;
            self.clears.blamed = Some(end);
        } else if !excused && self.clears.explain(hub, channel) {
            room.due = Some(Due::Terminated { returns: None });
        } else {
            ensure(excused, || format!("{client} is no longer a member of {channel}, which it owns"))?;
            room.owner_went(at, node, lost);
            if lost {
                self.lost.insert(key.clone(), node);
            }
        }
        if room.due.is_some() && !self.ending.contains(&hub) {
            self.due.insert(key);
        }
        Ok(())
    }

    /// A channel is held for its owner: by its policy, or because the owner takes over.
    fn unowned(&mut self, at: Instant, hub: NodeId, channel: &ChannelName) -> Verdict {
        let key = (hub, channel.clone());
        let lost = self.lost.get(&key).copied();
        let room = self.rooms.entry(key.clone()).or_default();
        let due = room.due.take();
        self.due.remove(&key);
        if due == Some(Due::Unowned) || room.adrift {
            return Ok(());
        }
        let Some(owner) = lost else { return Err(format!("{channel} lost its owner: {room:?}")) };
        (room.away, room.offered) = (Some((owner, Some(at + TAKEOVER))), false);
        self.held.insert(key, owner);
        Ok(())
    }

    /// A link of a client is over, and with it, unless it took over, what was kept for it.
    fn left_for_good(&mut self, at: Instant, hub: NodeId, client: &ClientId, why: hub::DisconnectReason) {
        let Some(node) = self.people.named(hub, client) else { return };
        let superseded = why == hub::DisconnectReason::Refused(Refusal::Superseded);
        if superseded {
            self.held.retain(|(at, _), owner| *at != hub || *owner != node);
        }
        for ((at_hub, channel), room) in &mut self.rooms {
            let Some((away, Some(until))) = room.away else { continue };
            if *at_hub != hub || away != node {
                continue;
            }
            let now = self.lost.get(&(hub, channel.clone())) == Some(&node);
            if superseded && now {
                (room.away, room.heir) = (Some((node, Some(until.max(at + TAKEOVER)))), Some(node));
            } else if !superseded {
                room.heir = None;
            }
        }
    }

    fn owned(&mut self, at: Instant, hub: NodeId, channel: &ChannelName, owner: &ClientId) -> Verdict {
        let Some(node) = self.people.named(hub, owner) else { return Ok(()) };
        ensure(!is_hubs_own(channel), || format!("{owner} owns {channel}, which is the hub's own"))?;
        let end = self.people.link_of(hub, owner);
        let room = self.rooms.get(&(hub, channel.clone()));
        let returns = room.is_some_and(|room| {
            [room.owner, room.drifted].contains(&Some(node)) || room.away.is_some_and(|away| away.0 == node)
        });
        let offered = room.is_some_and(|room| room.adrift || room.is_offered(at, AfterGrace::Promote));
        let opened = room.is_some_and(|room| room.is_free(node) && !room.plain);
        let inherits = room.is_some_and(|room| room.heir == Some(node) && room.owner.is_none());
        let back = returns && !(offered || opened) && (inherits || self.claim_if_open(end, channel, What::Reclaim));
        if returns && (offered || opened) {
            // By what it asked, by what it was asked or by opening cannot be told from outside.
            let (open, claimed) = self.open_and_claimed(end, channel, What::Reclaim);
            let spare = self.spare.entry((end, channel.clone())).or_default();
            *spare = (*spare + 1).min(open.saturating_sub(claimed));
        }
        let room = self.rooms.entry((hub, channel.clone())).or_default();
        let fine = back || offered || opened;
        let member = room.members.contains(&node);
        let alone = room.owner.is_none_or(|before| before == node) && (fine && member);
        ensure(alone, || format!("{owner} became the owner of {channel} without a reason: {room:?}"))?;
        (room.owner, room.away, room.heir, room.drifted) = (Some(node), None, None, None);
        (room.offered, room.adrift) = (false, false);
        let other = self.other_owner(hub, node, channel);
        ensure(other.is_none(), || format!("{owner} became the owner of {channel}, which {other:?} owns for certain"))
    }

    fn rekeyed(&mut self, hub: NodeId, channel: &ChannelName, epoch: u64, protected: bool) -> Verdict {
        let room = self.rooms.entry((hub, channel.clone())).or_default();
        let what = if protected { What::Protect } else { What::Unprotect };
        let owner = room.owner;
        let end = owner.and_then(|owner| self.people.admitted_end(hub, owner));
        let room = self.rooms.get(&(hub, channel.clone()));
        let alone =
            room.is_some_and(|room| epoch == room.epoch + 1 && room.members.iter().all(|it| Some(*it) == owner));
        let fine = alone && self.claim_if_open(end, channel, what);
        let room = self.rooms.entry((hub, channel.clone())).or_default();
        ensure(fine, || {
            format!("the protection of {channel} changed to {what:?} {epoch}, which its owner did not ask: {room:?}")
        })?;
        (room.epoch, room.protected, room.blurred) = (epoch, protected, false);
        let again = |op: &&mut Op| op.end == end && op.channel == *channel && op.what == What::Unprotect;
        self.asked.iter_mut().filter(again).for_each(|op| op.idle |= !protected);
        Ok(())
    }

    fn terminated(&mut self, at: Instant, hub: NodeId, channel: &ChannelName) -> Verdict {
        self.due.remove(&(hub, channel.clone()));
        let room = self.rooms.entry((hub, channel.clone())).or_default();
        let (fine, returns, abandoned) = match (room.due.take(), room.away) {
            (Some(Due::Terminated { returns }), _) => (true, returns, returns.is_none()),
            (Some(Due::Unowned), _) => (false, None, false),
            (None, Some((away, Some(_)))) if room.is_offered(at, AfterGrace::Terminate) => (true, Some(away), false),
            (None, _) => (room.adrift || room.is_offered(at, AfterGrace::Promote), None, false),
        };
        let fine = fine || self.clears.explain(hub, channel);
        self.clears.ended = Some((hub, channel.clone(), self.clears.blamed.take()));
        ensure(fine && room.members.is_empty() && room.owner.is_none(), || {
            format!("{channel} ended without a reason, or not for all: {room:?}")
        })?;
        room.blurred = room.protected && room.adrift || room.blurred && !abandoned;
        room.protected &= !(abandoned || room.adrift);
        room.away = returns.filter(|_| room.protected || room.blurred).map(|owner| (owner, None));
        room.heir = None;
        (room.offered, room.adrift) = (false, false);
        Ok(())
    }

    /// An admin has ended it, and not its owner, whatever that one has asked for meanwhile.
    fn cleared(&mut self, hub: NodeId, channel: &ChannelName, client: &ClientId, ended: Option<Ended>) -> Verdict {
        self.clears.claimed(hub, channel, self.people.named(hub, client), self.people.link_of(hub, client))?;
        let Some((_, _, blamed)) = ended.filter(|ended| ended.0 == hub && ended.1 == *channel) else {
            return Err(format!("{channel} was cleared, and has not ended"));
        };
        if let Some(claims) = blamed.and_then(|end| self.claimed.get_mut(&(end, channel.clone(), What::Terminate))) {
            *claims = claims.saturating_sub(1);
        }
        self.rooms.entry((hub, channel.clone())).or_default().cleared();
        // What is confirmed later of what was asked before tells nothing of now.
        self.asked.iter_mut().filter(|op| op.channel == *channel).for_each(|op| op.stale = true);
        let people = &self.people;
        self.certain.retain(|(owner, owned)| owned != channel || people.hub_of(*owner) != Some(hub));
        Ok(())
    }

    fn drained(&mut self, node: NodeId) -> Verdict {
        self.clears.drained(node)?;
        self.lost.retain(|(hub, _), _| *hub != node);
        let held = self.held.iter().find(|((hub, _), _)| *hub == node).map(|(key, _)| key.1.clone());
        self.held.retain(|(hub, _), _| *hub != node);
        ensure(held.is_none(), || format!("{held:?} lost its owner, who has not taken over"))?;
        let due = self.due.iter().find(|(hub, _)| *hub == node).cloned();
        self.due.retain(|(hub, _)| *hub != node);
        let Some(key) = due else { return Ok(()) };
        let room = self.rooms.get(&key);
        Err(format!("the owner of {} went, and what follows from it was not said: {room:?}", key.1))
    }
}

/// Whether the hub may do, or have done, what ended so.
fn is_unknown(result: Result<(), Failure>) -> bool {
    matches!(result, Err(Failure::Local(Misuse::Deadline | Misuse::Disconnected | Misuse::Closed)))
}

impl Op {
    const fn ends_membership(&self) -> bool {
        matches!(self.what, What::Terminate | What::Leave)
    }
}
