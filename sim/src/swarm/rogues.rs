//! What a client says that nobody should trust: others' words and owners' demands, of which none may have an effect but on
//! its own connection.

use bytes::{Bytes, BytesMut};
use commipc_protocol::Name;
use commipc_protocol::wire::{Control, Protect, Reclaim, Record, Terminate, Unprotect};

use super::{Actor, CHANNELS, Swarm};
use crate::mallory::Field;
use crate::mallory::forgery;
use crate::world::World;

/// Higher than any number of the client itself.
const BEYOND: u64 = 1 << 40;

impl Swarm {
    /// Now and then it says something that is not its own.
    pub(super) fn mutter(&mut self, world: &mut World) {
        let Some(name) = self.rogue.clone() else { return };
        let frame = match self.choose(world).below(7) {
            1 => self.demand(world),
            2 => self.others_words(world, &name, true),
            3 => self.others_words(world, &name, false),
            4 | 6 => self.anothers_answer(world, &name),
            5 => self.strangers_words(world, &name),
            _ => return,
        };
        // A hub believes nobody but bridges that something has been elsewhere.
        if let Some(frame) = frame.and_then(forgery::direct) {
            world.says(&name, &frame);
        }
    }

    /// What only an owner may ask, with a proof that is made up.
    fn demand(&self, world: &mut World) -> Option<Vec<u8>> {
        let mut choose = world.engine.decisions().on(self.work);
        let channel = Name::new(choose.pick(&CHANNELS).copied()?).ok()?;
        let (kind, stored) = (choose.below(4), choose.below(3));
        let (made_up, id, n) = (&[0x5a; 32], BEYOND + choose.below(BEYOND), BEYOND + choose.below(BEYOND));
        let epoch = stored + 1;
        let record = Record { epoch, kdf: 2, salt: &[3; 16], iterations: 0, stored_key: made_up, server_key: made_up };
        match kind {
            0 => control(&Terminate { id, channel, stored, n, proof: made_up }),
            1 => control(&Unprotect { id, channel, stored, n, epoch, proof: made_up }),
            2 => control(&Protect { id, channel, stored, n, record, proof: made_up }),
            _ => control(&Reclaim { id, channel, stored, n, proof: made_up }),
        }
    }

    /// An answer to what somebody else was asked.
    fn anothers_answer(&self, world: &mut World, name: &str) -> Option<Vec<u8>> {
        let rogue = world.rogue_called(name);
        let id = rogue.inside().id().clone();
        let calls = world.watch.overheard.as_ref()?.calls.iter();
        // What it was asked itself it may answer.
        let asked: Vec<Bytes> = calls.filter(|call| !rogue.heard().contains(call)).cloned().collect();
        // Of the calls of late those are not answered yet that are the latest.
        let mut choose = world.engine.decisions().on(self.work);
        let back = usize::try_from(choose.log_uniform(1, asked.len() as u64)).unwrap_or(1);
        let asked = asked.get(asked.len().checked_sub(back)?).cloned()?;
        forgery::answered(&asked, id.as_name())
    }

    /// What a member said, as its own on a channel that it is no member of.
    fn strangers_words(&mut self, world: &mut World, name: &str) -> Option<Vec<u8>> {
        let id = world.rogue_called(name).inside().id().clone();
        let said: Vec<Bytes> = world.watch.overheard.as_ref()?.signed.iter().cloned().collect();
        let said = world.engine.decisions().on(self.work).pick(&said).cloned()?;
        let (_, _, message) = forgery::parts(&said)?;
        let channel = message.header.channel;
        let Actor { open, opening, .. } = self.actors.first()?;
        let names = open.iter().chain(opening.iter().map(|(_, channel)| channel));
        if names.into_iter().any(|open| open.as_name() == channel) {
            return None;
        }
        self.said += 1;
        forgery::as_own(&said, id.as_name(), BEYOND + self.said)
    }

    /// Something that it heard from others, or its own words in another's name.
    fn others_words(&self, world: &mut World, name: &str, own: bool) -> Option<Vec<u8>> {
        let rogue = world.rogue_called(name);
        let id = rogue.inside().id().clone();
        let of =
            |frame: &&Bytes| forgery::parts(frame).is_some_and(|(_, _, it)| (it.header.sender == id.as_name()) == own);
        let known: Vec<Bytes> = if own { rogue.said() } else { rogue.heard() }.iter().filter(of).cloned().collect();
        let frame = world.engine.decisions().on(self.work).pick(&known).cloned()?;
        if own { forgery::altered(&frame, Field::Sender) } else { Some(frame.to_vec()) }
    }
}

fn control<'a, C: Control<'a>>(body: &C) -> Option<Vec<u8>> {
    let mut bytes = BytesMut::new();
    body.encode(&mut bytes);
    forgery::frame(C::TYPE, &bytes)
}
