//! A protected channel has only members that know its current password. Which one that is follows from what its owner
//! asked and the hub carried out; who knows it, from what applications derived their keys from.

use std::collections::{BTreeMap, BTreeSet};

use commipc_protocol::auth::Kdf;
use commipc_protocol::client::{Command, Dropped, Event, Failure, Token};
use commipc_protocol::wire::{FrameType, Hop, Message};
use commipc_protocol::{ChannelName, ClientId, Input, Instant, LinkId, Misuse, Output, Refusal, hub};
use core::time::Duration;

use super::people::People;
use super::{Oracle, Password, Salt, Seen, Verdict, ensure};
use crate::engine::Sight;
use crate::fuzzing::split;
use crate::mallory::Order;
use crate::node::NodeId;
use crate::station::{Asked, Told};

/// Holds that membership, ownership and what members hear are for those who know the password of the moment.
#[derive(Debug, Default)]
pub struct Members {
    people: People,
    rooms: BTreeMap<(NodeId, ChannelName), Room>,
    /// The password behind each protection.
    behind: BTreeMap<Salt, Password>,
    /// What applications derived keys from, each with the salt they were asked to use.
    derived: BTreeSet<(NodeId, ChannelName, Salt, Password)>,
    /// What this client was asked to derive with last.
    challenged: BTreeMap<(NodeId, ChannelName), Salt>,
    /// Openings the hub may not have heard of, and whether they came with a password.
    opens: BTreeMap<(NodeId, ChannelName), Vec<Opening>>,
    /// Changes of protection that owners asked for, in order: with a salt, or without a password from then on.
    asked: Vec<Change>,
    /// Who leaves, or asked to and was not told in time that it has.
    leaving: BTreeSet<(NodeId, Token)>,
    /// Who asked to leave a channel or to end it and was not answered.
    ending: BTreeSet<(End, ChannelName, NodeId, Token)>,
    /// What the next command of a node brings keys for.
    next: Option<(NodeId, ChannelName, Salt, Password)>,
    /// Who says things past its own machine.
    rogues: BTreeSet<NodeId>,
    /// One of them has said something on a protected channel as a member: no hub can tell its signatures from others.
    treason: bool,
    /// What strangers say on protected channels, and how often the channel had changed by then.
    strange: BTreeMap<(NodeId, Token), (NodeId, ChannelName, u64)>,
}

/// What a channel is protected by, or nothing. Which of several changes was made may not be known yet.
type Protection = Vec<Salt>;

/// The hub's end of the connection that something was asked on: what went there counts, whatever the client knows.
type End = Option<LinkId>;

/// What an opening was asked with.
type Opening = (Token, End, Option<Kdf>);

#[derive(Debug)]
struct Change {
    node: NodeId,
    token: Token,
    end: End,
    channel: ChannelName,
    to: Option<Salt>,
}

/// One channel of one hub.
#[derive(Debug, Default)]
struct Room {
    owner: Option<NodeId>,
    protection: Protection,
    /// Given up by its owner, unless a member takes it over.
    fading: Protection,
    willing: bool,
    /// How often its password changed.
    changes: u64,
    /// How often anything changed.
    turns: u64,
    /// Members, each with the change that it joined after.
    members: BTreeMap<NodeId, u64>,
    empty_since: Option<Instant>,
}

impl Room {
    /// Whether it is protected, somebody is in it, and this one is not.
    fn is_closed_to(&self, node: NodeId) -> bool {
        !self.protection.is_empty() && !self.members.is_empty() && !self.members.contains_key(&node)
    }
}

/// After which a hub forgets a channel without members.
const FORGOTTEN: Duration = Duration::from_secs(24 * 3_600 - 1);

impl Oracle for Members {
    fn name(&self) -> &'static str {
        "members"
    }

    fn derived(&mut self, node: NodeId, channel: &ChannelName, salt: Salt, password: Password) {
        self.next = Some((node, channel.clone(), salt, password));
    }

    fn saw(&mut self, at: Instant, node: NodeId, sight: &Seen<'_>) -> Verdict {
        self.people.saw(node, sight);
        match sight {
            Sight::Fed(Input::Command(Asked::Client(command))) => self.asks(node, command),
            // What the hub says to that its machine may take for something else.
            Sight::Fed(Input::Command(Asked::Malice(Order::Say(data)))) => {
                self.rogues.insert(node);
                self.treason |= channels_of(data).any(|channel| self.is_inside(node, channel));
                self.strange.retain(|(who, _), _| *who != node);
            }
            Sight::Gave(Output::Event(Told::Client(event))) => return self.told(node, event),
            Sight::Gave(Output::Event(Told::Hub(event))) => return self.claims(at, node, event),
            Sight::Linked { .. } | Sight::Fed(_) | Sight::Gave(_) | Sight::Drained | Sight::Broke(_) => {}
        }
        Ok(())
    }
}

/// The channels on which the messages in some frames are said.
fn channels_of(frames: &[u8]) -> impl Iterator<Item = &str> {
    split(frames).into_iter().filter_map(|frame| {
        let (&number, body) = frame.split_first()?;
        FrameType::from_number(number)?.message_kind()?;
        let (_, carried) = Hop::split(body).ok()?;
        Some(Message::parse(carried).ok()?.header.channel.as_str())
    })
}

/// What clients ask and are told.
impl Members {
    /// Whether it is a member of a protected channel of this name.
    fn is_inside(&self, node: NodeId, channel: &str) -> bool {
        let inside = |room: &Room| !room.protection.is_empty() && room.members.contains_key(&node);
        self.rooms.iter().any(|((_, name), room)| **name == *channel && inside(room))
    }

    fn asks(&mut self, node: NodeId, command: &Command) {
        let brought = self.next.take().filter(|(who, ..)| *who == node);
        let end = self.people.end_of(node);
        match command {
            Command::Open { token, channel, access } => {
                self.opens.entry((node, channel.clone())).or_default().push((*token, end, access.secret));
            }
            Command::ChannelKeyDerived { .. } => self.derived.extend(brought),
            Command::Protect { token, channel, salt, .. } => {
                self.behind.extend(brought.map(|(_, _, salt, password)| (salt, password)));
                self.changes(node, *token, channel, Some(salt.salt));
            }
            Command::Unprotect { token, channel } => self.changes(node, *token, channel, None),
            Command::Leave { token, channel } => {
                self.leaving.insert((node, *token));
                self.ending.insert((end, channel.clone(), node, *token));
            }
            Command::Terminate { token, channel } => {
                self.ending.insert((end, channel.clone(), node, *token));
            }
            Command::Send { token, outgoing } | Command::Broadcast { token, outgoing }
                if !self.rogues.contains(&node) =>
            {
                let rooms = self.rooms.iter().filter(|((_, channel), _)| *channel == outgoing.channel);
                for ((hub, channel), room) in rooms.filter(|(_, room)| room.is_closed_to(node)) {
                    self.strange.insert((node, *token), (*hub, channel.clone(), room.turns));
                }
            }
            Command::Connect
            | Command::KeyDerived(_)
            | Command::Send { .. }
            | Command::Broadcast { .. }
            | Command::Stream(_)
            | Command::SetSecret(_)
            | Command::SetOwnerKey(_)
            | Command::ChannelKeyFailed { .. }
            | Command::Reclaim { .. }
            | Command::Provide { .. }
            | Command::Withdraw { .. }
            | Command::Listen { .. }
            | Command::Unlisten { .. }
            | Command::Call { .. }
            | Command::Cancel { .. }
            | Command::Answer { .. }
            | Command::Drain(_)
            | Command::Close => {}
        }
    }

    fn changes(&mut self, node: NodeId, token: Token, channel: &ChannelName, to: Option<Salt>) {
        let end = self.people.end_of(node);
        self.asked.push(Change { node, token, end, channel: channel.clone(), to });
    }

    fn told(&mut self, node: NodeId, event: &Event) -> Verdict {
        match event {
            Event::DeriveChannelKey { channel, salt } => {
                self.challenged.insert((node, channel.clone()), salt.salt);
                Ok(())
            }
            Event::Done { token, result } => self.done(node, *token, *result),
            Event::Closed(_) => {
                self.leaving.retain(|(leaver, _)| *leaver != node);
                Ok(())
            }
            Event::Dropped(why) => self.dropped(node, *why),
            Event::Sent { token, result } => {
                let Some((hub, channel, turns)) = self.strange.remove(&(node, *token)) else { return Ok(()) };
                let room = self.rooms.get(&(hub, channel.clone()));
                let same = room.is_some_and(|room| room.turns == turns && room.is_closed_to(node));
                ensure(result.is_err() || !same, || {
                    format!("{token:?} of {node:?} is taken on {channel}, of which it is no member")
                })
            }
            Event::DeriveKey { .. }
            | Event::Stream(_)
            | Event::Reconnect(_)
            | Event::ChannelClosed { .. }
            | Event::OwnerChanged { .. }
            | Event::Gap(_)
            | Event::Draining { .. }
            | Event::PasswordChanged { .. }
            | Event::Ready(_)
            | Event::Answered { .. }
            | Event::Request(_)
            | Event::RequestEnded { .. }
            | Event::Message(_)
            | Event::Violation(_) => Ok(()),
        }
    }

    fn done(&mut self, node: NodeId, token: Token, result: Result<(), Failure>) -> Verdict {
        if matches!(result, Err(Failure::Local(Misuse::Deadline | Misuse::Disconnected | Misuse::Closed))) {
            // The hub may do it all the same.
            return Ok(());
        }
        self.leaving.remove(&(node, token));
        self.ending.retain(|(_, _, who, what)| (*who, *what) != (node, token));
        let ended = self.asked.iter().position(|change| (change.node, change.token) == (node, token));
        if let Some(ended) = ended.map(|index| self.asked.remove(index))
            && result.is_err()
            && let Some(salt) = ended.to
        {
            // It is not what was made.
            self.rooms.values_mut().for_each(|room| room.protection.retain(|other| *other != salt));
        }
        let mut opened = None;
        for ((opener, channel), opens) in self.opens.iter_mut().filter(|((opener, _), _)| *opener == node) {
            if opens.iter().any(|(open, ..)| *open == token) {
                opened = Some((*opener, channel.clone()));
                opens.retain(|(open, ..)| *open != token);
            }
        }
        let Some(opened) = opened.filter(|_| result == Err(Failure::Refused(Refusal::PasswordWrong))) else {
            return Ok(());
        };
        let salt = self.challenged.get(&opened).copied().unwrap_or_default();
        let (node, channel) = opened;
        let tried = self.derived.iter().filter(|(who, of, with, _)| (*who, of, *with) == (node, &channel, salt));
        let wrong = |(.., password): &(NodeId, ChannelName, Salt, Password)| self.behind.get(&salt) != Some(password);
        ensure(tried.clone().any(wrong), || format!("{node:?} is told that the right password of {channel} is wrong"))
    }

    /// What an honest hub hands out fits those who get it.
    fn dropped(&self, node: NodeId, why: Dropped) -> Verdict {
        let fine = match why {
            // On its way while they left.
            Dropped::WrongEpoch => self.leaving.iter().any(|(leaver, _)| *leaver == node),
            Dropped::BadSignature | Dropped::Replayed | Dropped::Stale | Dropped::TooManySenders => self.treason,
            Dropped::Own => false,
            Dropped::EndedRoute | Dropped::Mismatch | Dropped::NoListener => true,
            _ => true,
        };
        ensure(fine, || format!("{node:?} was given what is not for it: {why:?}"))
    }
}

/// What the hub claims.
impl Members {
    fn claims(&mut self, at: Instant, hub: NodeId, event: &hub::Event) -> Verdict {
        self.turns(hub, event);
        match event {
            hub::Event::Joined { channel, client } => self.joins(at, hub, channel, client),
            hub::Event::Left { channel, client } => self.leaves(at, hub, channel, client),
            hub::Event::OwnerChanged { channel, owner } => {
                let node = owner.as_ref().and_then(|owner| self.people.named(hub, owner));
                let room = self.rooms.entry((hub, channel.clone())).or_default();
                room.owner = node;
                room.willing &= node.is_none();
                let joined = node.and_then(|node| room.members.get(&node));
                ensure(node.is_none() || joined == Some(&room.changes), || {
                    format!("{owner:?} owns {channel} without its password: {room:?}")
                })
            }
            hub::Event::ProtectionChanged { channel, protected, .. } => self.rekeyed(hub, channel, *protected),
            hub::Event::Terminated { channel } => {
                let room = self.rooms.entry((hub, channel.clone())).or_default();
                if std::mem::take(&mut room.willing) {
                    room.fading = std::mem::take(&mut room.protection);
                }
                Ok(())
            }
            // Nothing of its password is left.
            hub::Event::Cleared { channel, .. } => {
                let room = self.rooms.entry((hub, channel.clone())).or_default();
                (room.protection, room.fading, room.willing) = (Vec::new(), Vec::new(), false);
                Ok(())
            }
            hub::Event::Disconnected { link, .. } => {
                let gone = Some(*link);
                self.asked.retain(|change| change.end != gone);
                self.ending.retain(|(end, ..)| *end != gone);
                self.opens.values_mut().for_each(|opens| opens.retain(|(_, end, _)| *end != gone));
                Ok(())
            }
            hub::Event::Connected { .. }
            | hub::Event::Rejected { .. }
            | hub::Event::Provided { .. }
            | hub::Event::Withdrawn { .. }
            | hub::Event::Looped { .. }
            | hub::Event::BridgeUp { .. }
            | hub::Event::BridgeDown { .. }
            | hub::Event::BridgeFull { .. }
            | hub::Event::ProtectionConflict { .. }
            | hub::Event::Store { .. }
            | hub::Event::SlowConsumer { .. }
            | hub::Event::Draining { .. }
            | hub::Event::Drained { .. }
            | hub::Event::Stopped => Ok(()),
            _ => Ok(()),
        }
    }

    fn leaves(&mut self, at: Instant, hub: NodeId, channel: &ChannelName, client: &ClientId) -> Verdict {
        let Some(node) = self.people.named(hub, client) else { return Ok(()) };
        let (lost, end) = (self.people.is_over(hub, client), self.people.link_of(hub, client));
        // A late driver shows both at once.
        let asked = self.ending.iter().any(|(of, what, ..)| *of == end && what == channel);
        let room = self.rooms.entry((hub, channel.clone())).or_default();
        room.members.remove(&node);
        if room.members.is_empty() {
            room.empty_since = Some(at);
        }
        if room.owner == Some(node) {
            (room.owner, room.willing) = (None, asked || !lost);
        }
        Ok(())
    }

    /// Something about a channel changes.
    fn turns(&mut self, hub: NodeId, event: &hub::Event) {
        if let hub::Event::Joined { channel, .. }
        | hub::Event::Left { channel, .. }
        | hub::Event::ProtectionChanged { channel, .. }
        | hub::Event::Cleared { channel, .. }
        | hub::Event::Terminated { channel } = event
        {
            self.rooms.entry((hub, channel.clone())).or_default().turns += 1;
        }
    }

    fn joins(&mut self, at: Instant, hub: NodeId, channel: &ChannelName, client: &ClientId) -> Verdict {
        let Some(node) = self.people.named(hub, client) else { return Ok(()) };
        let end = self.people.link_of(hub, client);
        let opens = self.opens.get_mut(&(node, channel.clone()));
        let opens: Vec<_> = opens.into_iter().flat_map(|opens| opens.extract_if(.., |open| open.1 == end)).collect();
        let knows = |salt: &Salt| {
            let password = self.behind.get(salt).copied();
            password.is_some_and(|password| self.derived.contains(&(node, channel.clone(), *salt, password)))
        };
        let room = self.rooms.entry((hub, channel.clone())).or_default();
        if room.members.is_empty() && room.empty_since.is_some_and(|since| at.saturating_since(since) >= FORGOTTEN) {
            *room = Room { turns: room.turns, ..Room::default() };
        }
        // What its owner gave up is protected still if it was about to be given to somebody else.
        let plain = opens.iter().any(|(.., secret)| secret.is_none());
        let fading = std::mem::take(&mut room.fading);
        if !fading.is_empty() && !plain {
            room.protection = fading;
        }
        let fine = if room.protection.is_empty() { plain } else { room.protection.iter().any(knows) };
        ensure(fine, || format!("{client} joined {channel} as {opens:?}, which is {room:?}"))?;
        room.members.insert(node, room.changes);
        room.empty_since = None;
        Ok(())
    }

    fn rekeyed(&mut self, hub: NodeId, channel: &ChannelName, protected: bool) -> Verdict {
        let room = self.rooms.entry((hub, channel.clone())).or_default();
        let owner = room.owner;
        let end = owner.and_then(|owner| self.people.admitted_end(hub, owner));
        let fits =
            |change: &&Change| change.end == end && change.channel == *channel && change.to.is_some() == protected;
        let fitting: Vec<&Change> = self.asked.iter().filter(fits).collect();
        ensure(owner.is_some() && !fitting.is_empty(), || {
            format!("the password of {channel} changed, which its owner did not ask: {room:?}")
        })?;
        room.protection = fitting.iter().filter_map(|change| change.to).collect();
        room.changes += 1;
        let rest: Vec<NodeId> = room.members.keys().copied().filter(|member| Some(*member) != owner).collect();
        room.members = owner.into_iter().map(|owner| (owner, room.changes)).collect();
        ensure(rest.is_empty(), || format!("{rest:?} are members of {channel} after its password changed"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::scene::{HUB, Scene, broadcast, channel, hub_link, id};
    use super::*;
    use commipc_protocol::LinkEnd;
    use commipc_protocol::client::{Access, ChannelSalt};

    const RIGHT: Password = Password(1);

    fn salt(number: u8) -> ChannelSalt {
        ChannelSalt { kdf: Kdf::Key, salt: [number; 16], iterations: 0 }
    }

    fn opens(scene: &mut Scene<Members>, node: u32, secret: Option<Kdf>) {
        let access = Access { secret, ..Access::default() };
        scene.asks(node, Command::Open { token: Token(1), channel: channel(), access }).unwrap();
    }

    fn joined(scene: &mut Scene<Members>, node: u32) -> Verdict {
        scene.hub_tells(hub::Event::Joined { channel: channel(), client: id(node) })
    }

    fn left(scene: &mut Scene<Members>, node: u32) {
        scene.hub_tells(hub::Event::Left { channel: channel(), client: id(node) }).unwrap();
    }

    fn owns(scene: &mut Scene<Members>, node: u32) -> Verdict {
        scene.hub_tells(hub::Event::OwnerChanged { channel: channel(), owner: Some(id(node)) })
    }

    fn derives(scene: &mut Scene<Members>, node: u32, with: u8, password: Password) {
        let (salt, channel) = (salt(with), channel());
        scene.tells(node, Event::DeriveChannelKey { channel: channel.clone(), salt }).unwrap();
        scene.0.derived(NodeId::new(node), &channel, salt.salt, password);
        let master = crate::passwords::master(password, &salt.salt).unwrap();
        scene.asks(node, Command::ChannelKeyDerived { channel, salt, master }).unwrap();
    }

    fn protects(scene: &mut Scene<Members>, number: u8) -> Verdict {
        let (salt, channel) = (salt(number), channel());
        scene.0.derived(NodeId::new(1), &channel, salt.salt, RIGHT);
        let master = crate::passwords::master(RIGHT, &salt.salt).unwrap();
        let epoch = u64::from(number);
        scene.asks(1, Command::Protect { token: Token(5), channel: channel.clone(), salt, master }).unwrap();
        scene.hub_tells(hub::Event::ProtectionChanged { channel, epoch, protected: true })
    }

    /// Node 1 owns the channel and has protected it.
    fn scene() -> Scene<Members> {
        let mut scene = Scene::new(Members::default());
        (1..3).for_each(|node| scene.connects(node).unwrap());
        opens(&mut scene, 1, None);
        joined(&mut scene, 1).unwrap();
        owns(&mut scene, 1).unwrap();
        protects(&mut scene, 1).unwrap();
        scene
    }

    #[test]
    fn s26_bites_on_a_member_without_the_current_password() {
        let join = |secret, with, password| {
            let mut scene = scene();
            opens(&mut scene, 2, secret);
            derives(&mut scene, 2, with, password);
            joined(&mut scene, 2)
        };
        assert!(join(Some(Kdf::Key), 1, RIGHT).is_ok());
        assert!(join(Some(Kdf::Key), 1, Password(2)).is_err(), "another password");
        assert!(join(Some(Kdf::Key), 2, RIGHT).is_err(), "of another time");
        let mut plain = scene();
        opens(&mut plain, 2, None);
        assert!(joined(&mut plain, 2).is_err());
    }

    #[test]
    fn s29_bites_on_a_password_that_opens_an_unprotected_channel() {
        let mut scene = Scene::new(Members::default());
        scene.connects(1).unwrap();
        opens(&mut scene, 1, Some(Kdf::Key));
        assert!(joined(&mut scene, 1).is_err());
    }

    #[test]
    fn s26_v13_bites_on_who_outlives_a_rotation_and_on_an_owner_of_before() {
        let mut stays = scene();
        opens(&mut stays, 2, Some(Kdf::Key));
        derives(&mut stays, 2, 1, RIGHT);
        joined(&mut stays, 2).unwrap();
        assert!(protects(&mut stays, 2).is_err());
        assert!(owns(&mut stays, 2).is_err());
        assert!(
            scene()
                .hub_tells(hub::Event::ProtectionChanged { channel: channel(), epoch: 2, protected: false })
                .is_err()
        );
    }

    #[test]
    fn s34_v12_a_password_stays_unless_its_owner_takes_it_away() {
        let end = |lost| {
            let mut scene = scene();
            if lost {
                scene.fed(HUB, Input::Closed { link: hub_link(1), how: LinkEnd::Reset }).unwrap();
            }
            left(&mut scene, 1);
            scene.hub_tells(hub::Event::Terminated { channel: channel() }).unwrap();
            opens(&mut scene, 2, None);
            joined(&mut scene, 2)
        };
        assert!(end(true).is_err(), "it is waited for");
        assert!(end(false).is_ok(), "it is given up");
    }

    #[test]
    fn bites_on_a_password_that_outlives_a_channel_that_was_cleared() {
        for (secret, fine) in [(None, true), (Some(Kdf::Key), false)] {
            let mut scene = scene();
            left(&mut scene, 1);
            scene.hub_tells(hub::Event::Terminated { channel: channel() }).unwrap();
            scene.hub_tells(hub::Event::Cleared { channel: channel(), client: id(2) }).unwrap();
            opens(&mut scene, 2, secret);
            derives(&mut scene, 2, 1, RIGHT);
            assert_eq!(joined(&mut scene, 2).is_ok(), fine);
        }
    }

    #[test]
    fn s25_bites_on_what_a_stranger_says_and_the_hub_takes() {
        let taken = |says: u32| {
            let mut scene = scene();
            scene.asks(says, broadcast(7, "x")).unwrap();
            scene.tells(says, Event::Sent { token: Token(7), result: Ok(()) })
        };
        assert!(taken(1).is_ok());
        assert!(taken(2).is_err());
        let mut ended = scene();
        ended.asks(2, broadcast(7, "x")).unwrap();
        ended.hub_tells(hub::Event::Terminated { channel: channel() }).unwrap();
        assert!(ended.tells(2, Event::Sent { token: Token(7), result: Ok(()) }).is_ok(), "it may be open by now");
    }

    #[test]
    fn bites_on_a_right_password_that_is_refused() {
        let refused = Err(Failure::Refused(Refusal::PasswordWrong));
        let told = |password| {
            let mut scene = scene();
            opens(&mut scene, 2, Some(Kdf::Key));
            derives(&mut scene, 2, 1, password);
            scene.tells(2, Event::Done { token: Token(1), result: refused })
        };
        assert!(told(Password(2)).is_ok());
        assert!(told(RIGHT).is_err());
    }

    #[test]
    fn bites_on_what_is_handed_to_those_it_is_not_for() {
        let dropped = |scene: &mut Scene<Members>, why| scene.tells(2, Event::Dropped(why));
        let mut scene = scene();
        assert!(dropped(&mut scene, Dropped::BadSignature).is_err());
        assert!(dropped(&mut scene, Dropped::WrongEpoch).is_err());
        scene.asks(2, Command::Leave { token: Token(6), channel: channel() }).unwrap();
        assert!(dropped(&mut scene, Dropped::WrongEpoch).is_ok());
        scene.tells(2, Event::Done { token: Token(6), result: Ok(()) }).unwrap();
        assert!(dropped(&mut scene, Dropped::WrongEpoch).is_err());
        assert!(dropped(&mut scene, Dropped::EndedRoute).is_ok());
    }
}
