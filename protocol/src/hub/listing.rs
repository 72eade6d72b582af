//! What a hub tells of channels and members elsewhere, behind those of its own.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use bytes::BytesMut;

use super::Hub;
use super::questions::Page;
use super::routes::{Goal, Place, Way};
use crate::names::{Address, ChannelName, EventName, HubId, Name};
use crate::wire::cbor;

/// Entries of other hubs are numbered from here, far beyond all of this one.
const ELSEWHERE: u64 = 1 << 40;

/// What is known of a channel at another hub.
#[derive(Debug, Default)]
struct There {
    protected: bool,
    members: u64,
    events: BTreeSet<EventName>,
    path: Vec<HubId>,
}

impl Hub {
    /// Whether there is anything of a channel at another hub.
    pub(super) fn is_elsewhere(&self, channel: Name<'_>) -> bool {
        self.bridges.routes.realms(channel).next().is_some()
    }

    /// One entry for each channel and hub.
    pub(super) fn list_channels_elsewhere(&self, page: &mut Page, after: Option<u64>) {
        if page.is_full() {
            return;
        }
        let mut found: BTreeMap<(ChannelName, HubId), There> = BTreeMap::new();
        for (Place { channel, realm, goal }, _, way) in self.bridges.routes.all() {
            let Some(hub) = way.path.last().cloned() else { continue };
            let there = found.entry((channel, hub)).or_default();
            there.protected |= realm.home.is_some();
            there.path = way.path.to_vec();
            match goal {
                Goal::Member(_) => there.members += 1,
                Goal::Provider(event, _) => {
                    there.events.insert(event);
                }
                Goal::Listener(..) | Goal::Home(_) => {}
            }
        }
        for (((channel, hub), there), number) in found.iter().zip(ELSEWHERE..).filter(|it| Some(it.1) > after) {
            if page.is_full() {
                break;
            }
            page.entry(number, |out| {
                cbor::put_map(out, 7);
                text(out, "name", channel);
                cbor::put_text(out, "owner");
                cbor::put_null(out);
                cbor::put_text(out, "protected");
                cbor::put_bool(out, there.protected);
                cbor::put_text(out, "members");
                cbor::put_uint(out, there.members);
                cbor::put_text(out, "providers");
                cbor::put_uint(out, there.events.len() as u64);
                text(out, "hub", hub);
                put_path(out, &there.path);
            });
        }
    }

    /// Members at other hubs, in the order of their names.
    pub(super) fn list_members_elsewhere(&self, page: &mut Page, channel: Name<'_>, after: Option<u64>) {
        let Some(channel) = ChannelName::new(channel.as_str()).ok().filter(|_| !page.is_full()) else { return };
        let mut found: BTreeMap<Address, (Way, BTreeSet<EventName>)> = BTreeMap::new();
        for (Place { goal, .. }, _, way) in self.bridges.routes.of_channel(&channel) {
            let (member, event) = match goal {
                Goal::Member(member) => (member, None),
                Goal::Provider(event, member) => (member, Some(event)),
                Goal::Listener(..) | Goal::Home(_) => continue,
            };
            let (_, events) = found.entry(member).or_insert_with(|| (way, BTreeSet::new()));
            events.extend(event);
        }
        for ((member, (way, events)), number) in found.iter().zip(ELSEWHERE..).filter(|it| Some(it.1) > after) {
            if page.is_full() {
                break;
            }
            page.entry(number, |out| {
                cbor::put_map(out, 5);
                text(out, "client", &member.client);
                cbor::put_text(out, "owner");
                cbor::put_bool(out, false);
                cbor::put_text(out, "provides");
                cbor::put_array(out, events.len() as u64);
                events.iter().for_each(|event| cbor::put_text(out, event));
                text(out, "hub", &member.hub);
                put_path(out, &way.path);
            });
        }
    }
}

fn text(out: &mut BytesMut, name: &str, value: &str) {
    cbor::put_text(out, name);
    cbor::put_text(out, value);
}

/// The hubs on the way, the nearest first.
fn put_path(out: &mut BytesMut, path: &[HubId]) {
    cbor::put_text(out, "path");
    cbor::put_array(out, path.len() as u64);
    path.iter().for_each(|hub| cbor::put_text(out, hub));
}
