//! Ending a channel that is somebody else's: for admins, where a password outlives everybody who knows it, or an owner does
//! harm. What its owner could do by leaving, an admin can do for it, and nothing more: nobody learns the password.

use super::calls::Passing;
use super::changes::Change;
use super::questions::Reply;
use super::registry::{ChannelIx, LinkIx};
use super::session::Session;
use super::system::SYSTEM_CHANNEL;
use super::{Event, Hub};
use crate::error::Refusal;
use crate::machine::LinkId;
use crate::names::{ClientId, Name};
use crate::wire::{Kind, cbor};

/// The event of the hub's own channel that asks for it.
pub(super) const CLEAR: &str = "clear";

/// A call that asks for it. It is answered when that is stored.
#[derive(Clone, Debug)]
pub(super) struct Clearing {
    link: LinkId,
    client: ClientId,
    route: u32,
    request: u64,
}

impl Hub {
    /// An admin asks for the end of a channel.
    pub(super) fn clear(&mut self, ix: LinkIx, call: &Passing<'_>, channel: Name<'_>) {
        let (route, request) = (call.hop.route, call.header.request);
        let found = match self.registry.find(channel) {
            _ if channel.is_reserved() => Err(Refusal::HubOwned),
            None => Err(Refusal::NoSuchChannel),
            // Until that is stored nobody can say what there is to clear.
            Some(found) if self.is_changing(found) => Err(Refusal::Overloaded),
            Some(found) => Ok(found),
        };
        let session = self.links.get(ix);
        match (found, session.and_then(|session| session.member().map(|member| (session.link, member)))) {
            (Ok(channel), Some((link, member))) => {
                let clearing = Clearing { link, client: member.client.clone(), route, request };
                self.change(channel, Change::Clear(clearing));
            }
            (Err(refusal), _) => self.fail(ix, route, refusal),
            (Ok(_), None) => {}
        }
    }

    /// It is stored: the end for everybody, and nothing is left but the number of the last epoch.
    pub(super) fn cleared(&mut self, ix: ChannelIx, clearing: Clearing) {
        let Some(channel) = super::joining::name_of(self, ix) else { return };
        self.abandon(ix);
        self.terminate(ix);
        let Clearing { link, client, route, request } = clearing;
        self.event(Event::Cleared { channel, client });
        if let Some(ix) = self.links.find(link).filter(|ix| self.links.get(*ix).and_then(Session::member).is_some()) {
            let (channel, event) = (Name::known(SYSTEM_CHANNEL), Name::known(CLEAR));
            self.reply(ix, Kind::Answer, Reply { channel, event, route, request }, &[cbor::NULL_BYTE]);
        }
    }

    /// It could not be stored.
    pub(super) fn not_cleared(&mut self, clearing: &Clearing) {
        if let Some(ix) = self.links.find(clearing.link) {
            self.fail(ix, clearing.route, Refusal::StorageFailed);
        }
    }
}
