//! What differs from run to run before anything happens: who is hostile, and how much room there is.

use commipc_protocol::Limits;

use super::OPS;
use crate::attacker::Assault;
use crate::decisions::Chooser;
use crate::mallory::{Malice, Trick};
use crate::weather::Weather;
use crate::world::World;

/// The most each operation may weigh.
const HEAVIEST: [u64; OPS.len()] = [4, 3, 6, 3, 6, 3, 48, 8, 16, 16, 1, 2, 2, 3, 1, 1, 1];

/// What each weighs where the hub is malicious: members that stay and talk.
const TALKATIVE: [u64; OPS.len()] = [6, 1, 4, 1, 6, 1, 40, 3, 20, 30, 0, 1, 2, 2, 0, 2, 0];

/// The same in a quarter of these runs: passwords change, and members come and go.
const RESTLESS: [u64; OPS.len()] = [32, 16, 4, 0, 4, 0, 8, 0, 4, 8, 0, 1, 2, 12, 0, 2, 0];

/// The place among them of taking a password away.
const UNPROTECT: usize = 14;

/// Whether a run's hub is malicious: one of eight.
pub(crate) fn is_malicious(mut choose: Chooser<'_>) -> bool {
    choose.chance(1, 8)
}

/// What somebody on the path of connections does.
pub(crate) fn assault(choose: &mut Chooser<'_>) -> Assault {
    Assault::default().map(|_| if choose.chance(1, 2) { choose.log_uniform(1, 60) } else { 0 })
}

/// What a malicious hub is up to, and whether it keeps its word to owners back as well. Older records know neither that nor
/// ends of streams that are kept back.
pub(super) fn malice(world: &mut World) -> (Malice, bool) {
    let mut drawn = |name| {
        let stream = world.engine().decisions().stream(name);
        world.engine().decisions().on(stream).chance(1, 2)
    };
    let (late, ends) = (drawn("late"), drawn("ends"));
    let more = [(Trick::Late, 500, late), (Trick::KeepEnd, 200, ends)].into_iter().filter(|(.., plays)| *plays);
    (more.fold(Malice::all(), |malice, (trick, often, _)| malice.and(trick, often)), late)
}

/// How much each operation weighs: about half of them nothing. Where a hub keeps its word back, passwords are taken away as well.
pub(super) fn weights(choose: &mut Chooser<'_>, malicious: bool, late: bool) -> Vec<u64> {
    let drawn = HEAVIEST.map(|most| if choose.chance(1, 2) { 1 + choose.below(most) } else { 0 });
    let mut weights = match (malicious, malicious && choose.chance(1, 4)) {
        (true, true) => RESTLESS,
        (true, false) => TALKATIVE,
        (false, _) => drawn,
    };
    weights[UNPROTECT] += if late { 2 } else { 0 };
    weights.to_vec()
}

/// In one run of sixteen somebody is on the path of all connections, which then are such as know that this can be. In
/// three others a client is to say what is not its own, which it can where nothing is tagged. Gives whether it is.
pub(super) fn besiege(weather: &mut Weather, world: &mut World) -> bool {
    let attack = world.engine().decisions().stream("attack");
    let mut choose = world.engine().decisions().on(attack);
    if choose.chance(1, 16) {
        weather.transports = [0, 1, 0];
        weather.assault = Some(assault(&mut choose));
        return false;
    }
    let rogue = choose.chance(1, 5);
    if rogue {
        weather.transports = [0, 0, 1];
    }
    rogue
}

/// Limits of which some are tight, so that they are met.
pub(super) fn tight(mut choose: Chooser<'_>) -> Limits {
    let mut limits = Limits::default();
    let mut maybe = |limit: &mut usize, low: u64, high: u64| {
        if choose.chance(1, 6) {
            *limit = usize::try_from(choose.log_uniform(low, high)).unwrap_or(usize::MAX);
        }
    };
    maybe(&mut limits.in_flight, 1, 4_096);
    maybe(&mut limits.outbox, 1_024, 65_536);
    maybe(&mut limits.channels, 1, 2);
    maybe(&mut limits.members, 1, 4);
    maybe(&mut limits.providers, 1, 2);
    maybe(&mut limits.listeners, 1, 2);
    maybe(&mut limits.pending_calls, 1, 8);
    maybe(&mut limits.connections, 1, 8);
    maybe(&mut limits.unauthenticated, 1, 4);
    limits
}
