//! What one application believes: it follows from what it asked and was told alone.

use commipc_protocol::client::{RequestId, Token};
use commipc_protocol::{ChannelName, ClientId, EventName};

use crate::decisions::Stream;
use crate::node::NodeId;

/// What one application believes it has.
#[derive(Default)]
pub(super) struct Actor {
    pub(super) node: Option<NodeId>,
    pub(super) id: Option<ClientId>,
    /// Its streams of decisions: for its work, and for its reactions.
    pub(super) streams: Option<[Stream; 2]>,
    pub(super) ready: bool,
    /// It was told that it has no connection.
    pub(super) closed: bool,
    pub(super) reconnects: u32,
    pub(super) opening: Vec<(Token, ChannelName)>,
    pub(super) protecting: Vec<Token>,
    pub(super) open: Vec<ChannelName>,
    /// What it owned when its connection was lost.
    pub(super) lost: Vec<ChannelName>,
    pub(super) providing: Vec<(Token, ChannelName, EventName)>,
    pub(super) provided: Vec<(Token, ChannelName, EventName)>,
    pub(super) listening: Vec<(Token, ChannelName)>,
    pub(super) calls: Vec<Token>,
    pub(super) requests: Vec<RequestId>,
}

impl Actor {
    pub(super) fn channel_closed(&mut self, channel: &ChannelName) {
        self.open.retain(|open| open != channel);
        self.provided.retain(|(_, provided, _)| provided != channel);
        self.listening.retain(|(_, listening)| listening != channel);
    }

    /// Something that was asked for has ended; gives the channel that it opened.
    pub(super) fn done(&mut self, token: Token, fine: bool) -> Option<ChannelName> {
        let mut opened = None;
        self.protecting.retain(|protecting| *protecting != token);
        if let Some(index) = self.opening.iter().position(|(opening, _)| *opening == token) {
            let (_, channel) = self.opening.swap_remove(index);
            if fine && !self.open.contains(&channel) {
                self.open.push(channel.clone());
            }
            opened = fine.then_some(channel);
        }
        if let Some(index) = self.providing.iter().position(|(providing, ..)| *providing == token) {
            let provided = self.providing.swap_remove(index);
            self.provided.extend(fine.then_some(provided));
        }
        if !fine {
            self.listening.retain(|(listener, _)| *listener != token);
        }
        opened
    }
}
