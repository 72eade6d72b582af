//! How what can be reached is named in frames.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::Hub;
use super::registry::LinkIx;
use super::routes::{Goal, Place, Realm, Terms, Way};
use crate::client::EventKind;
use crate::names::{Address, ChannelName, ClientId, EventName, HubId, Name};
use crate::wire::{self, Announce, Control as _, Forget, FrameType};

const PROVIDER: u64 = 0;
const LISTENER: u64 = 1;
const MEMBER: u64 = 2;
const HOME: u64 = 3;

/// What names a goal in a frame: its number, the event, where it is, and who.
fn parts(goal: &Goal) -> (u64, Option<Name<'_>>, &HubId, Option<Name<'_>>) {
    match goal {
        Goal::Provider(event, Address { client, hub }) => {
            (PROVIDER, Some(event.as_name()), hub, Some(client.as_name()))
        }
        Goal::Listener(event, hub) => (LISTENER, event.as_ref().map(EventName::as_name), hub, None),
        Goal::Member(Address { client, hub }) => (MEMBER, None, hub, Some(client.as_name())),
        Goal::Home(hub) => (HOME, None, hub, None),
    }
}

/// What is named; nothing if that makes no sense.
pub(super) fn read_place(
    (goal, channel, event): (u64, Name<'_>, Option<Name<'_>>),
    hub: Name<'_>,
    client: Option<Name<'_>>,
    (epoch, home): (Option<u64>, Option<Name<'_>>),
) -> Option<Place> {
    let hub = HubId::new(hub.as_str()).ok()?;
    let event = event.map(|event| EventName::new(event.as_str())).transpose().ok()?;
    let client = client.map(|client| ClientId::new(client.as_str())).transpose().ok()?;
    let goal = match (goal, event, client) {
        (PROVIDER, Some(event), Some(client)) => Goal::Provider(event, Address { client, hub }),
        (LISTENER, event, None) => Goal::Listener(event, hub),
        (MEMBER, None, Some(client)) => Goal::Member(Address { client, hub }),
        (HOME, None, None) => Goal::Home(hub),
        (_, _, _) => return None,
    };
    let home = home.map(|home| HubId::new(home.as_str())).transpose().ok()?;
    let epoch = epoch.unwrap_or_default();
    if (epoch > 0) != home.is_some() || epoch > crate::policy::EPOCH_MAX {
        return None;
    }
    Some(Place { channel: ChannelName::new(channel.as_str()).ok()?, realm: Realm { home, epoch }, goal })
}

/// What is announced, and on which way it is reached; nothing if that makes no sense.
pub(super) fn read_announced(announced: &Announce<'_>) -> Option<(Place, Way)> {
    let Announce { goal, channel, event, path, client, kind, epoch, home, terms, ended } = announced;
    let place = read_place((*goal, *channel, *event), *path.last()?, *client, (*epoch, *home))?;
    let kind = match (&place.goal, kind) {
        (Goal::Provider(..), Some(kind)) => EventKind::from_number(*kind)?,
        (Goal::Listener(..) | Goal::Member(_) | Goal::Home(_), None) => EventKind::Call,
        (_, _) => return None,
    };
    let terms = terms.map(|terms| Terms { kdf: terms.kdf, salt: *terms.salt, iterations: terms.iterations });
    let fits = match &place.goal {
        Goal::Home(hub) => place.realm.home.as_ref() == Some(hub),
        Goal::Provider(..) | Goal::Listener(..) | Goal::Member(_) => terms.is_none() && ended.is_none(),
    };
    if !fits {
        return None;
    }
    let path = path.iter().map(|hub| HubId::new(hub.as_str())).collect::<Result<Vec<_>, _>>().ok()?;
    Some((place, Way { path: Arc::from(path), kind, terms, ended: *ended }))
}

/// Whether no hub is on a path twice.
pub(super) fn all_differ(path: &[HubId]) -> bool {
    path.iter().collect::<BTreeSet<_>>().len() == path.len()
}

impl Hub {
    /// Tells a bridge of something, with this hub on the way to it.
    pub(super) fn say_announced(&mut self, port: LinkIx, place: &Place, way: &Way) {
        let path = core::iter::once(&self.id).chain(way.path.iter()).map(HubId::as_name).collect();
        let (goal, event, _, client) = parts(&place.goal);
        let provides = matches!(place.goal, Goal::Provider(..));
        let announce = Announce {
            goal,
            channel: place.channel.as_name(),
            event,
            path,
            client,
            kind: provides.then(|| way.kind.number()),
            epoch: (place.realm.epoch > 0).then_some(place.realm.epoch),
            home: place.realm.home.as_ref().map(HubId::as_name),
            terms: way.terms.as_ref().map(|terms| wire::Terms {
                kdf: terms.kdf,
                salt: &terms.salt,
                iterations: terms.iterations,
            }),
            ended: way.ended,
        };
        if let Some(session) = self.links.get_mut(port) {
            session.outbox.push(&mut self.pool, FrameType::Announce, |out| announce.encode(out));
        }
        self.check_outbox(port);
    }

    pub(super) fn say_forgotten(&mut self, port: LinkIx, place: &Place) {
        let (goal, event, hub, client) = parts(&place.goal);
        let forget = Forget {
            goal,
            channel: place.channel.as_name(),
            event,
            hub: hub.as_name(),
            client,
            epoch: (place.realm.epoch > 0).then_some(place.realm.epoch),
            home: place.realm.home.as_ref().map(HubId::as_name),
        };
        if let Some(session) = self.links.get_mut(port) {
            session.outbox.push(&mut self.pool, FrameType::Forget, |out| forget.encode(out));
        }
        self.check_outbox(port);
    }
}
