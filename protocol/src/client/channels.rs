//! Channels as this client sees them: what is open, provided and listened to, and the requests to the hub about it.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::afar::Afar;
use super::beacons::Said;
use super::guarding::{Guarded, Joining};
use super::owning::Owned;
use super::restore::Return;
use super::{Access, EventKind, Failure, Token};
use crate::error::Refusal;
use crate::hash::{Keyed, Map};
use crate::names::{ChannelName, EventName, Name};

/// A channel's place in the client's table. Channels stay there, closed or not: their numbers go on rising.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ChannelIx(usize);

/// All channels this client ever named.
#[derive(Debug)]
pub(super) struct Channels {
    all: Vec<Channel>,
    by_name: Map<ChannelName, ChannelIx>,
    /// Where each lasting token of a provider or listener belongs.
    pub(super) standing: Map<Token, Standing>,
    /// How often one was opened that was closed.
    openings: u64,
    hash: Keyed,
}

/// One channel.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) name: ChannelName,
    pub(super) state: State,
    /// With what it was opened first.
    pub(super) access: Access,
    /// Which of all openings that was: channels come back in this order.
    pub(super) opening: u64,
    pub(super) coming_back: Return,
    /// Its owner and password.
    pub(super) guarded: Guarded,
    /// What we said lately on it while it was protected.
    pub(super) said: Said,
    /// The last `seq` given to a message.
    pub(super) seq: u64,
    /// The last `bseq` given to a broadcast, by event.
    pub(super) bseqs: Map<EventName, u64>,
    pub(super) providers: Map<EventName, Provided>,
    pub(super) listeners: Map<EventName, Vec<Token>>,
    pub(super) all_events: Vec<Token>,
}

impl Channel {
    /// The name of an event as it stands in our own tables, if we provide it or listen to it.
    pub(super) fn event(&self, name: Name<'_>) -> Option<&EventName> {
        let heard = || self.listeners.get_key_value(name.as_str()).map(|(event, _)| event);
        self.providers.get(name.as_str()).map(|provided| &provided.event).or_else(heard)
    }

    /// Whether it is open for the application, and not (yet) at the hub.
    pub(super) fn is_coming_back(&self) -> bool {
        match &self.state {
            State::Lost { .. } => true,
            State::Opening { times, .. } => *times > 0,
            State::Open(_) => self.coming_back.running,
            State::Closed => false,
        }
    }

    /// What is listened to, each once; `None` stands for all events.
    pub(super) fn listened(&self) -> Vec<Option<EventName>> {
        let all = (!self.all_events.is_empty()).then_some(None);
        self.listeners.keys().cloned().map(Some).chain(all).collect()
    }

    /// Who listens to an event: those of the event first, then those of all events.
    pub(super) fn listeners(&self, event: Name<'_>) -> impl Iterator<Item = Token> {
        let one = self.listeners.get(event.as_str()).into_iter().flatten();
        one.chain(&self.all_events).copied()
    }
}

/// One of our providers.
#[derive(Clone, Debug)]
pub(super) struct Provided {
    pub(super) event: EventName,
    pub(super) token: Token,
    pub(super) kind: EventKind,
    /// Whether it took another's place, to whom the hub may have said yes.
    pub(super) replaces: bool,
}

/// How far a channel is.
#[derive(Debug)]
pub(super) enum State {
    Closed,
    /// The connection went, and the channel comes back with it.
    Lost {
        /// How often it was opened.
        times: usize,
        /// Who has asked to open it since.
        waiting: Vec<Token>,
    },
    Opening {
        /// Who waits for the hub.
        waiting: Vec<Token>,
        /// How often it was opened before the connection went.
        times: usize,
        access: Access,
        /// How far the proof of its password is.
        joining: Option<Joining>,
    },
    /// How often it was opened.
    Open(usize),
}

/// What a lasting token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Provider(ChannelIx, EventName),
    Listener(ChannelIx, Option<EventName>),
}

/// A request to the hub that it has not answered yet.
#[derive(Debug)]
pub(super) enum Control {
    /// Answers everybody who waits in [`State::Opening`].
    Open(ChannelIx),
    /// What an owner asked for.
    Owned(Token, ChannelIx, Owned),
    /// What an owner asked for of a channel that lives at another hub.
    Afar(Token, ChannelIx, Afar),
    /// To own a channel again that has come back.
    Reclaim(ChannelIx),
    /// To provide or hear again in a channel that has come back, for these tokens.
    Standing(ChannelIx, Standing, Vec<Token>),
    /// Becomes a standing provider or listener, or is forgotten.
    Stand(Token),
    /// Undoes something that is forgotten already.
    Undo(Token),
    /// Was given up: what is granted all the same is given back, and what an owner changed all the same holds.
    Late(Option<Late>),
}

impl Control {
    /// Whether it is about what an owner wants of a channel.
    pub(super) fn is_owned(&self, channel: ChannelIx) -> bool {
        matches!(self, Self::Owned(_, ix, _) | Self::Late(Some(Late::Owned(ix, _))) if *ix == channel)
    }

    /// Whether it gives a channel a password, here or from afar.
    pub(super) fn gives_password(&self, channel: ChannelIx) -> bool {
        match self {
            Self::Owned(_, ix, owned) | Self::Late(Some(Late::Owned(ix, owned))) => {
                *ix == channel && matches!(owned, Owned::Protect { .. })
            }
            Self::Afar(_, ix, afar) | Self::Late(Some(Late::Afar(ix, afar))) => *ix == channel && afar.gives_password(),
            Self::Late(None | Some(Late::Open(_) | Late::Stand(_)))
            | Self::Open(_)
            | Self::Reclaim(_)
            | Self::Standing(..)
            | Self::Stand(_)
            | Self::Undo(_) => false,
        }
    }
}

/// What the hub was asked for and nobody waits for any more.
#[derive(Debug)]
pub(super) enum Late {
    Open(ChannelIx),
    Owned(ChannelIx, Owned),
    Afar(ChannelIx, Afar),
    Stand(Standing),
}

impl Channels {
    pub(super) fn new(hash: Keyed) -> Self {
        Self { all: Vec::new(), by_name: hash.map(), standing: hash.map(), openings: 0, hash }
    }

    pub(super) fn find(&self, name: Name<'_>) -> Option<&Channel> {
        self.all.get(self.by_name.get(name.as_str())?.0)
    }

    /// The channel's entry, made where there is none.
    pub(super) fn entry(&mut self, name: &ChannelName) -> Option<&mut Channel> {
        let ix = self.index(name);
        self.all.get_mut(ix.0)
    }

    /// Who listens to an event of a channel.
    pub(super) fn listeners(&self, channel: Name<'_>, event: Name<'_>) -> impl Iterator<Item = Token> {
        self.find(channel).into_iter().flat_map(move |channel| channel.listeners(event))
    }

    pub(super) fn get(&self, ix: ChannelIx) -> Option<&Channel> {
        self.all.get(ix.0)
    }

    pub(super) fn get_mut(&mut self, ix: ChannelIx) -> Option<&mut Channel> {
        self.all.get_mut(ix.0)
    }

    pub(super) fn index_of(&self, name: &ChannelName) -> Option<ChannelIx> {
        self.by_name.get(name).copied()
    }

    pub(super) fn find_mut(&mut self, name: Name<'_>) -> Option<&mut Channel> {
        let ix = self.index_of_name(name)?;
        self.get_mut(ix)
    }

    pub(super) fn index_of_name(&self, name: Name<'_>) -> Option<ChannelIx> {
        self.by_name.get(name.as_str()).copied()
    }

    pub(super) const fn hash(&self) -> Keyed {
        self.hash
    }

    pub(super) fn index(&mut self, name: &ChannelName) -> ChannelIx {
        if let Some(&ix) = self.by_name.get(name) {
            return ix;
        }
        let ix = ChannelIx(self.all.len());
        self.all.push(Channel {
            name: name.clone(),
            state: State::Closed,
            access: Access::default(),
            opening: 0,
            coming_back: Return::default(),
            guarded: Guarded::default(),
            said: Said::new(self.hash),
            seq: 0,
            bseqs: self.hash.map(),
            providers: self.hash.map(),
            listeners: self.hash.map(),
            all_events: Vec::new(),
        });
        self.by_name.insert(name.clone(), ix);
        ix
    }

    /// The places of all channels, in the order in which they were named first.
    pub(super) fn indices(&self) -> impl Iterator<Item = ChannelIx> + use<> {
        (0..self.all.len()).map(ChannelIx)
    }

    pub(super) fn is_lost(&self, ix: ChannelIx) -> bool {
        self.get(ix).is_some_and(|channel| matches!(channel.state, State::Lost { .. }))
    }

    /// Those that were lost, in the order in which they were opened.
    pub(super) fn lost(&self) -> Vec<ChannelIx> {
        let mut lost: Vec<ChannelIx> = self.indices().filter(|ix| self.is_lost(*ix)).collect();
        lost.sort_by_key(|ix| self.get(*ix).map(|channel| channel.opening));
        lost
    }

    /// The number of an opening that begins.
    pub(super) const fn next_opening(&mut self) -> u64 {
        self.openings += 1;
        self.openings
    }

    /// Whether a channel was open before the connection went.
    pub(super) fn is_coming_back(&self, ix: ChannelIx) -> bool {
        self.get(ix).is_some_and(Channel::is_coming_back)
    }

    /// Who stands for the same at the hub.
    pub(super) fn tokens_of(&self, standing: &Standing) -> Vec<Token> {
        match standing {
            Standing::Provider(ix, event) => {
                let provided = self.get(*ix).and_then(|channel| channel.providers.get(event));
                provided.map(|provided| provided.token).into_iter().collect()
            }
            Standing::Listener(ix, None) => self.get(*ix).map(|it| it.all_events.clone()).unwrap_or_default(),
            Standing::Listener(ix, Some(event)) => {
                let tokens = self.get(*ix).and_then(|channel| channel.listeners.get(event));
                tokens.cloned().unwrap_or_default()
            }
        }
    }

    /// A channel that is open, or coming back.
    pub(super) fn held(&mut self, name: &ChannelName) -> Result<(ChannelIx, &mut Channel), Failure> {
        let not_open = Failure::Refused(Refusal::NotMember);
        let ix = self.by_name.get(name).copied().ok_or(not_open)?;
        match self.all.get_mut(ix.0) {
            Some(channel) if matches!(channel.state, State::Open(_)) || channel.is_coming_back() => Ok((ix, channel)),
            Some(_) | None => Err(not_open),
        }
    }

    /// A channel that is open.
    pub(super) fn open(&mut self, name: &ChannelName) -> Result<(ChannelIx, &mut Channel), Failure> {
        let not_open = Failure::Refused(Refusal::NotMember);
        let ix = self.by_name.get(name).copied().ok_or(not_open)?;
        match self.all.get_mut(ix.0) {
            Some(channel) if matches!(channel.state, State::Open(_)) => Ok((ix, channel)),
            Some(_) | None => Err(not_open),
        }
    }

    /// Forgets a provider or listener; true if the hub has to hear of it.
    pub(super) fn remove(&mut self, token: Token) -> Option<(Standing, bool)> {
        let standing = self.standing.remove(&token)?;
        let last = match &standing {
            Standing::Provider(ix, event) => {
                let channel = self.all.get_mut(ix.0)?;
                channel.providers.remove(event);
                true
            }
            Standing::Listener(ix, None) => {
                let channel = self.all.get_mut(ix.0)?;
                channel.all_events.retain(|&listener| listener != token);
                channel.all_events.is_empty()
            }
            Standing::Listener(ix, Some(event)) => {
                let channel = self.all.get_mut(ix.0)?;
                let tokens = channel.listeners.get_mut(event)?;
                tokens.retain(|&listener| listener != token);
                let last = tokens.is_empty();
                if last {
                    channel.listeners.remove(event);
                }
                last
            }
        };
        Some((standing, last))
    }

    /// Closes a channel and forgets every provider and listener of it.
    pub(super) fn clear(&mut self, ix: ChannelIx) {
        let Some(channel) = self.all.get_mut(ix.0) else { return };
        channel.state = State::Closed;
        channel.guarded.close();
        self.forget_standing(ix);
    }

    /// Forgets every provider and listener of a channel.
    pub(super) fn forget_standing(&mut self, ix: ChannelIx) {
        let Some(channel) = self.all.get_mut(ix.0) else { return };
        let tokens: BTreeSet<Token> = channel
            .providers
            .values()
            .map(|provided| provided.token)
            .chain(channel.listeners.values().flatten().copied())
            .chain(channel.all_events.iter().copied())
            .collect();
        channel.providers.clear();
        channel.listeners.clear();
        channel.all_events.clear();
        for token in tokens {
            self.standing.remove(&token);
        }
    }

    /// Whether something stands for the same, or is about to.
    pub(super) fn is_wanted(&self, standing: &Standing) -> bool {
        let at = |ix: &ChannelIx| self.all.get(ix.0);
        match standing {
            Standing::Provider(ix, event) => at(ix).is_some_and(|it| it.providers.contains_key(event)),
            Standing::Listener(ix, Some(event)) => at(ix).is_some_and(|it| it.listeners.contains_key(event)),
            Standing::Listener(ix, None) => at(ix).is_some_and(|it| !it.all_events.is_empty()),
        }
    }

    /// Numbers of broadcasts begin anew with the next listener, where the last one is gone.
    pub(super) fn forget_numbers(&mut self, gone: &Standing) {
        let (Standing::Listener(ix, _) | Standing::Provider(ix, _)) = gone;
        let Some(channel) = self.all.get_mut(ix.0).filter(|channel| channel.all_events.is_empty()) else { return };
        let Some(seal) = &mut channel.guarded.seal else { return };
        match gone {
            Standing::Listener(_, Some(event)) if !channel.listeners.contains_key(event) => {
                seal.forget_event(event.as_name());
            }
            Standing::Listener(_, None) => seal.keep_events(channel.listeners.keys().map(|event| event.as_str())),
            Standing::Listener(_, Some(_)) | Standing::Provider(..) => {}
        }
    }

    pub(super) fn name(&self, ix: ChannelIx) -> Option<ChannelName> {
        self.all.get(ix.0).map(|channel| channel.name.clone())
    }
}
