//! Who owns a channel: passwords that change, owners that go, and members that are asked to follow them.
//!
//! ```text
//!   opened first ─► owner ── goes ──► the earliest member that knows the password is asked ── says yes ──► owner
//!                     │                             └── says nothing in time: the next one
//!                     └── new password: everybody else is out until they prove that one
//! ```

use stateright::{Model, Property};

/// What the hub does.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// A new password ends the memberships of all but the owner.
    pub evicts: bool,
    /// Only the answer to the offer that stands makes an owner.
    pub offers_are_numbered: bool,
    /// An owner that goes loses its key.
    pub forgets: bool,
    /// Who is promoted is asked first.
    pub asks: bool,
}

impl Rules {
    /// As specified.
    pub const WRITTEN: Self = Self { evicts: true, offers_are_numbered: true, forgets: true, asks: true };
    /// The Python library's: those who are put out stay in the list that owners are taken from.
    pub const PYTHON: Self = Self { evicts: false, asks: false, ..Self::WRITTEN };
}

/// One channel of a hub, and its clients.
#[derive(Clone, Debug)]
pub struct Owners {
    /// How many clients.
    pub clients: u8,
    /// What the hub does.
    pub rules: Rules,
    /// How often a client asks to join, all of them together.
    pub opens: u8,
    /// How often the password may change.
    pub rotations: u8,
    /// How much a client asks before the hub has heard it.
    pub in_flight: usize,
}

/// Where everything is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    hub: Hub,
    clients: Vec<Client>,
    opens: u8,
    offers: u8,
    passed_on: bool,
    promoted: bool,
    /// Somebody became owner, or acted as one, while another was.
    usurped: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Hub {
    epoch: u8,
    /// In the order of their joins.
    members: Vec<u8>,
    owner: Option<u8>,
    /// Who proves to be an owner with this key.
    keys: Vec<u8>,
    offer: Option<(u8, u8)>,
    /// Who was asked since the owner went, and did not answer.
    asked: Vec<u8>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Client {
    /// The latest password it knows.
    knows: u8,
    /// The latest that it has proved to know, since it was put out last.
    proved: Option<u8>,
    owns: bool,
    /// It has been an owner, and keeps the key.
    has_key: bool,
    says: Vec<Request>,
    hears: Vec<Notice>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Request {
    Open { knows: u8 },
    Leave,
    Rotate { from: u8 },
    Accept { offer: u8 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Notice {
    Owner,
    Offer(u8),
}

/// What can happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A client asks to join with the latest password that it knows.
    Open(u8),
    /// A client leaves.
    Leave(u8),
    /// Whoever has been an owner gives a new password.
    Rotate(u8),
    /// A client is told the password, on some other way.
    Tell(u8),
    /// The hub hears the next word of a client.
    Hub(u8),
    /// A client hears the next word of the hub.
    Client(u8),
    /// A client's link breaks: what is on the way is lost.
    Break(u8),
    /// Nobody has answered the offer.
    Late,
}

/// Nobody owns what another one owns.
pub const ONE: &str = "one owner";
/// Whoever owns, or is asked to, is a member and knows the password that holds.
pub const PROVED: &str = "no evicted member is promoted";
/// Membership is of those alone who have proved the password that holds.
pub const CURRENT: &str = "members know the password";
/// Who is asked becomes owner.
pub const PROMOTED: &str = "somebody is promoted";
/// Who does not answer is passed over.
pub const PASSED: &str = "an offer passes on";

impl Owners {
    fn hub_hears(&self, state: &mut State, client: u8) {
        let request = state.clients[usize::from(client)].says.remove(0);
        let member = state.hub.members.contains(&client);
        match request {
            Request::Open { knows } => self.join(state, client, knows),
            Request::Leave => {
                // It has left in its own eyes before: what is on the way to it is nothing to it any more.
                state.clients[usize::from(client)].hears.clear();
                if member {
                    self.goes(state, client);
                }
            }
            Request::Rotate { from } if state.hub.keys.contains(&client) && from == state.hub.epoch => {
                self.rotate(state, client);
            }
            Request::Accept { offer } if member && self.may_accept(state, client, offer) => own(state, client),
            Request::Rotate { .. } | Request::Accept { .. } => {}
        }
    }

    fn join(&self, state: &mut State, client: u8, knows: u8) {
        let hub = &mut state.hub;
        let free = hub.members.is_empty() && hub.epoch == 0;
        // Of a channel that has ended with a password, the password is left and nobody who could own it.
        if knows != hub.epoch || (hub.members.is_empty() && !free) {
            return;
        }
        state.clients[usize::from(client)].proved = Some(knows);
        if !hub.members.contains(&client) {
            hub.members.push(client);
        }
        if free {
            own(state, client);
            state.promoted = false;
        }
    }

    fn goes(&self, state: &mut State, client: u8) {
        let hub = &mut state.hub;
        hub.members.retain(|member| *member != client);
        if hub.owner == Some(client) {
            hub.owner = None;
            hub.asked.clear();
            if self.rules.forgets {
                hub.keys.clear();
            }
            self.promote(state);
        } else if hub.offer.is_some_and(|(to, _)| to == client) {
            self.promote(state);
        }
    }

    fn promote(&self, state: &mut State) {
        let hub = &mut state.hub;
        hub.offer = None;
        let next = hub.members.iter().copied().find(|member| !hub.asked.contains(member));
        let Some(next) = next else {
            hub.members.clear();
            return;
        };
        if self.rules.asks {
            state.offers += 1;
            hub.offer = Some((next, state.offers));
            hub.asked.push(next);
            state.clients[usize::from(next)].hears.push(Notice::Offer(state.offers));
        } else {
            own(state, next);
        }
    }

    fn may_accept(&self, state: &State, client: u8, offer: u8) -> bool {
        !self.rules.offers_are_numbered || state.hub.offer == Some((client, offer))
    }

    fn rotate(&self, state: &mut State, client: u8) {
        state.usurped |= state.hub.owner != Some(client);
        state.hub.epoch += 1;
        let epoch = state.hub.epoch;
        let owner = &mut state.clients[usize::from(client)];
        (owner.knows, owner.proved) = (epoch, Some(epoch));
        let others = state.hub.members.iter().copied().filter(|member| *member != client);
        others.for_each(|other| state.clients[usize::from(other)].proved = None);
        if self.rules.evicts {
            state.hub.members.retain(|member| *member == client);
        }
    }

    fn client_hears(state: &mut State, client: u8) {
        let me = &mut state.clients[usize::from(client)];
        let leaves = me.says.contains(&Request::Leave);
        match me.hears.remove(0) {
            Notice::Owner => (me.owns, me.has_key) = (!leaves, true),
            Notice::Offer(offer) => me.says.push(Request::Accept { offer }),
        }
    }

    fn ask(state: &mut State, client: u8, request: Request) {
        let me = &mut state.clients[usize::from(client)];
        me.owns &= request != Request::Leave;
        me.says.push(request);
    }
}

fn own(state: &mut State, client: u8) {
    let hub = &mut state.hub;
    state.usurped |= hub.owner.is_some_and(|owner| owner != client);
    hub.owner = Some(client);
    hub.offer = None;
    hub.keys.push(client);
    state.promoted = true;
    state.clients[usize::from(client)].hears.push(Notice::Owner);
}

impl Model for Owners {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let clients = vec![Client::default(); usize::from(self.clients)];
        let hub = Hub::default();
        vec![State { hub, clients, opens: 0, offers: 0, passed_on: false, promoted: false, usurped: false }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        for (client, me) in (0..self.clients).zip(&state.clients) {
            if me.says.len() < self.in_flight {
                if state.opens < self.opens {
                    steps.push(Step::Open(client));
                }
                if state.hub.members.contains(&client) && !me.says.contains(&Request::Leave) {
                    steps.push(Step::Leave(client));
                }
                if me.has_key && state.hub.epoch < self.rotations {
                    steps.push(Step::Rotate(client));
                }
            }
            if me.knows < state.hub.epoch {
                steps.push(Step::Tell(client));
            }
            if !me.says.is_empty() {
                steps.push(Step::Hub(client));
            }
            if !me.hears.is_empty() {
                steps.push(Step::Client(client));
            }
            if state.hub.members.contains(&client) {
                steps.push(Step::Break(client));
            }
        }
        if state.hub.offer.is_some() {
            steps.push(Step::Late);
        }
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut state = state.clone();
        match step {
            Step::Open(client) => {
                state.opens += 1;
                let knows = state.clients[usize::from(client)].knows;
                Self::ask(&mut state, client, Request::Open { knows });
            }
            Step::Leave(client) => Self::ask(&mut state, client, Request::Leave),
            Step::Rotate(client) => {
                let from = state.clients[usize::from(client)].knows;
                Self::ask(&mut state, client, Request::Rotate { from });
            }
            Step::Tell(client) => state.clients[usize::from(client)].knows = state.hub.epoch,
            Step::Hub(client) => self.hub_hears(&mut state, client),
            Step::Client(client) => Self::client_hears(&mut state, client),
            Step::Break(client) => {
                let me = &mut state.clients[usize::from(client)];
                me.says.clear();
                me.hears.clear();
                me.owns = false;
                self.goes(&mut state, client);
            }
            Step::Late => {
                state.passed_on = true;
                self.promote(&mut state);
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(ONE, |_, state: &State| {
                let believe = state.clients.iter().filter(|client| client.owns).count();
                !state.usurped && believe <= 1
            }),
            Property::always(PROVED, |_, state: &State| {
                let chosen = state.hub.owner.or_else(|| state.hub.offer.map(|(to, _)| to));
                chosen.is_none_or(|chosen| {
                    let proved = state.clients[usize::from(chosen)].proved == Some(state.hub.epoch);
                    proved && state.hub.members.contains(&chosen)
                })
            }),
            Property::sometimes(PROMOTED, |_, state: &State| state.promoted && state.offers > 0),
        ];
        if self.rules.evicts {
            properties.push(Property::always(CURRENT, |_, state: &State| {
                let proved = |member: &u8| state.clients[usize::from(*member)].proved == Some(state.hub.epoch);
                state.hub.members.iter().all(proved)
            }));
        }
        if self.rules.asks {
            properties.push(Property::sometimes(PASSED, |_, state: &State| state.passed_on && state.promoted));
        } else {
            properties.retain(|property| property.name != PROMOTED);
        }
        properties
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{bound, mishap, search};

    #[track_caller]
    fn assert_breaks(rules: Rules, property: &'static str) {
        let found = mishap(Owners { clients: 3, rules, opens: 4, rotations: 1, in_flight: 1 }, property);
        println!("{found:?}");
        assert!(found.is_some());
    }

    #[test]
    fn v13_one_owner_and_no_evicted_member_is_promoted() {
        let clients = bound(5) - 2;
        let (broken, states) = search(Owners { clients, rules: Rules::WRITTEN, opens: 4, rotations: 1, in_flight: 1 });
        assert!(broken.is_empty(), "{broken:?}");
        println!("{states} states");
    }

    #[test]
    fn v13_the_python_library_promotes_evicted_members() {
        assert_breaks(Rules::PYTHON, PROVED);
    }

    #[test]
    fn an_answer_to_another_offer_would_make_a_second_owner() {
        assert_breaks(Rules { offers_are_numbered: false, ..Rules::WRITTEN }, ONE);
    }

    #[test]
    fn an_owners_key_that_outlives_its_ownership_would_make_a_second_owner() {
        assert_breaks(Rules { forgets: false, ..Rules::WRITTEN }, ONE);
    }
}
