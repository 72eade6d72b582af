//! The hub's table of links.

use alloc::vec::Vec;

use super::registry::LinkIx;
use super::session::Session;
use super::throttle::Source;
use crate::limits::Limits;
use crate::machine::LinkId;

/// Sessions by the index of their links.
#[derive(Debug, Default)]
pub(crate) struct Links {
    sessions: Vec<Option<Session>>,
    count: usize,
    /// Those that have not proved themselves, oldest first. Bounded by the limit on them.
    strangers: Vec<LinkIx>,
    /// Those that failed and wait to be told, in the order of failing. Bounded by the same limit.
    failed: Vec<LinkIx>,
}

impl Links {
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn get(&self, ix: LinkIx) -> Option<&Session> {
        self.sessions.get(ix)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, ix: LinkIx) -> Option<&mut Session> {
        self.sessions.get_mut(ix)?.as_mut()
    }

    /// The place of a link, if it is the one that has it now.
    pub(crate) fn find(&self, link: LinkId) -> Option<LinkIx> {
        let session = self.get(link.index())?;
        (session.link == link).then(|| link.index())
    }

    /// Keeps a stranger's session; `None` if its place is taken, which a driver that keeps the contract never causes.
    pub(crate) fn insert(&mut self, session: Session) -> Option<LinkIx> {
        let ix = session.link.index();
        if ix >= self.sessions.len() {
            // Indices are dense by contract; a driver that breaks it costs itself memory, bounded here.
            let most = self.sessions.len().saturating_mul(2).saturating_add(1024);
            if ix > most {
                return None;
            }
            self.sessions.resize_with(ix + 1, || None);
        }
        let place = self.sessions.get_mut(ix)?;
        if place.is_some() {
            return None;
        }
        *place = Some(session);
        self.count += 1;
        self.strangers.push(ix);
        Some(ix)
    }

    pub(crate) fn remove(&mut self, ix: LinkIx) -> Option<Session> {
        let session = self.sessions.get_mut(ix)?.take()?;
        self.count -= 1;
        self.acquaint(ix);
        self.failed.retain(|&failed| failed != ix);
        Some(session)
    }

    /// How many have not proved themselves, of one source or of all.
    pub(crate) fn strangers(&self, source: Option<Source>) -> usize {
        self.strangers_of(source).count()
    }

    /// A stranger has failed and waits to be told. If that makes too many, gives the one that has waited longest: of the
    /// same source if there is one, so that whoever guesses much keeps no other's refusal short.
    ///
    /// It is told, which gives nothing away: silence says as much, since whoever is right is let in at once.
    pub(crate) fn set_aside(&mut self, ix: LinkIx, limits: &Limits) -> Option<LinkIx> {
        self.acquaint(ix);
        let source = self.get(ix)?.source;
        let mut own = self.failed.iter().copied().filter(|&it| self.get(it).is_some_and(|it| it.source == source));
        let longest = own.next();
        let of_source = longest.map_or(0, |_| 1 + own.count());
        let oldest = self.failed.first().copied();
        let full = match source {
            Source::Local => false,
            Source::Network(_) => of_source >= limits.unauthenticated_per_source,
        };
        let crowded = self.failed.len() >= limits.unauthenticated;
        self.failed.push(ix);
        longest.or(oldest).filter(|_| full || crowded)
    }

    /// A stranger has proved itself.
    pub(crate) fn acquaint(&mut self, ix: LinkIx) {
        self.strangers.retain(|&stranger| stranger != ix);
    }

    /// Of the older half of those that have not proved themselves, the one that has sent least, then the oldest. Who came
    /// just now has had no time to send as much as others did, and would always be the one to go.
    pub(crate) fn least_deserving_stranger(&self, source: Option<Source>) -> Option<LinkIx> {
        let sent = |ix: &LinkIx| self.get(*ix).map_or(0, |session| session.received);
        self.strangers_of(source).take(self.strangers(source).div_ceil(2)).min_by_key(sent)
    }

    fn strangers_of(&self, source: Option<Source>) -> impl Iterator<Item = LinkIx> {
        let of = move |ix: &LinkIx| source.is_none() || self.get(*ix).map(|session| session.source) == source;
        self.strangers.iter().copied().filter(of)
    }

    pub(crate) fn indices(&self) -> impl Iterator<Item = LinkIx> {
        self.sessions.iter().enumerate().filter_map(|(ix, session)| session.as_ref().map(|_| ix))
    }
}
