//! A bridge that is not honest: its machine is a real one, and of what that says to hubs it makes something else.
//!
//! ```text
//!   bridge ──► frames ──► (path stripped, changed, repeated, flooded, made up, kept back) ──► hub
//! ```
//! It is one of its hubs' bridges and says whole frames, so that nothing ends its links but what it says.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use commipc_protocol::Name;
use commipc_protocol::wire::{Announce, Control, FrameType, Hop, Terms, Told};

use crate::attacker::next;
use crate::decisions::Chooser;

/// Frames that are remembered.
const SEEN: usize = 256;
/// Copies of one message in a flood.
const FLOOD: usize = 50;
/// Of a thousand announcements and answers of homes, to how many something is done. To messages, which are rarer, it always is.
const OFTEN: u64 = 400;
/// Whose names it takes: clients of worlds, and one that is nowhere.
const IDS: [&str; 4] = ["c0", "c1", "c2", "nobody"];

/// What comes in a frame's place; nothing if it is not one that this can be done to.
type Lie = fn(&Liar, &Said<'_>, &mut Chooser<'_>) -> Option<Vec<Bytes>>;

const LIES: [(&str, Lie); 8] = [
    ("lie: a path is stripped", Liar::strips),
    ("lie: a message is changed", Liar::alters),
    ("lie: something is said again", Liar::repeats),
    ("lie: doubles are flooded", Liar::floods),
    ("lie: somebody is announced in another's name", Liar::poses),
    ("lie: a protection is made up", Liar::protects),
    ("lie: a home's word is made up", Liar::is_home),
    ("lie: something is kept back", Liar::keeps_back),
];

/// What a lying bridge knows.
#[derive(Debug, Default)]
pub(crate) struct Liar {
    flows: BTreeMap<(usize, usize), (BytesMut, bool)>,
    seen: VecDeque<Bytes>,
    played: BTreeMap<&'static str, u64>,
}

/// A frame that can be lied about.
struct Said<'a> {
    kind: u8,
    body: &'a [u8],
    whole: &'a Bytes,
}

impl Liar {
    /// How often it told each lie.
    pub(crate) const fn played(&self) -> &BTreeMap<&'static str, u64> {
        &self.played
    }

    /// What a hub hears in place of what has come from a side of a wire, if anything.
    pub(crate) fn pass(&mut self, flow: (usize, usize), data: &Bytes, mut choose: Chooser<'_>) -> Option<Bytes> {
        let (partial, greeted) = self.flows.entry(flow).or_default();
        partial.extend_from_slice(data);
        let mut frames = Vec::new();
        while let Some(frame) = next(partial, flow.1 == 0 && !*greeted, false) {
            // What begins a link is said as it is.
            frames.push((std::mem::replace(greeted, true), frame));
        }
        let mut passing = BytesMut::new();
        for (lies, frame) in frames {
            let told = if lies { self.tell(&frame, &mut choose) } else { None };
            match told {
                Some(instead) => instead.iter().for_each(|frame| passing.extend_from_slice(frame)),
                None => passing.extend_from_slice(&frame),
            }
        }
        Some(passing.freeze()).filter(|passing| !passing.is_empty())
    }

    fn tell(&mut self, whole: &Bytes, choose: &mut Chooser<'_>) -> Option<Vec<Bytes>> {
        let (kind, body) = (*whole.get(4)?, whole.get(5..)?);
        let said = Said { kind, body, whole };
        let control = [FrameType::Announce, FrameType::Told, FrameType::Remote];
        if !said.is_message() && !control.iter().any(|it| it.number() == kind) {
            return None;
        }
        let lies = said.is_message() || choose.chance(OFTEN, 1_000);
        let told = lies.then(|| {
            // The first that can be told of this.
            let from = choose.index(LIES.len());
            let (late, early) = LIES.split_at(from);
            early.iter().chain(late).find_map(|(name, lie)| Some((*name, lie(self, &said, choose)?)))
        });
        self.seen.push_back(whole.clone());
        if self.seen.len() > SEEN {
            self.seen.pop_front();
        }
        let (name, instead) = told??;
        *self.played.entry(name).or_default() += 1;
        Some(instead)
    }

    fn strips(&self, said: &Said<'_>, choose: &mut Chooser<'_>) -> Option<Vec<Bytes>> {
        let message = said.message()?;
        let path = *choose.pick(&[&b"\0\0"[..], b"\x01\x01\x02h9", b"\x02\x02\x02h9\x02h8"])?;
        let route = said.body.get(..4)?;
        Some(vec![framed(said.kind, &[route, path, message].concat())])
    }

    fn alters(&self, said: &Said<'_>, choose: &mut Chooser<'_>) -> Option<Vec<Bytes>> {
        let message = said.message()?;
        Some(vec![said.flipped(said.body.len() - message.len() + choose.index(message.len()), choose)])
    }

    fn repeats(&self, said: &Said<'_>, choose: &mut Chooser<'_>) -> Option<Vec<Bytes>> {
        let seen: Vec<&Bytes> = self.seen.iter().collect();
        let earlier = choose.pick(&seen).map_or_else(|| said.whole.clone(), |frame| Bytes::clone(frame));
        Some(vec![said.whole.clone(), earlier])
    }

    fn floods(&self, said: &Said<'_>, choose: &mut Chooser<'_>) -> Option<Vec<Bytes>> {
        let message = said.message()?;
        // The end of the payload, and of the tag where there is one.
        let copy = |_| said.flipped(said.body.len() - 1 - choose.index(message.len().min(48)), choose);
        let copies = (0..FLOOD).map(copy);
        Some(copies.chain([said.whole.clone()]).collect())
    }

    fn poses(&self, said: &Said<'_>, choose: &mut Chooser<'_>) -> Option<Vec<Bytes>> {
        let announced = said.announced()?;
        let client = announced.client.and(Name::new(choose.pick(&IDS)?).ok());
        let (mut path, away) = (announced.path.clone(), Name::new(choose.pick(&["h0", "h1", "h9"])?).ok()?);
        if choose.chance(1, 2) {
            path.push(away);
        }
        Some(vec![control(FrameType::Announce, &Announce { client, path, ..announced }), said.whole.clone()])
    }

    fn protects(&self, said: &Said<'_>, choose: &mut Chooser<'_>) -> Option<Vec<Bytes>> {
        let announced = said.announced()?;
        let salt = [9; 16];
        let home = announced.path.last().copied();
        let (epoch, ended) = (1 + choose.below(9), choose.below(3));
        let channel = Name::new(choose.pick(&["a", "b", "k"])?).ok()?;
        let made_up = Announce {
            goal: 3,
            channel,
            event: None,
            client: None,
            kind: None,
            epoch: Some(epoch),
            home,
            terms: choose.chance(3, 4).then_some(Terms { kdf: 1 + choose.below(3), salt: &salt, iterations: 0 }),
            ended: (ended > 0).then_some(ended),
            ..announced
        };
        Some(vec![control(FrameType::Announce, &made_up), said.whole.clone()])
    }

    fn is_home(&self, said: &Said<'_>, choose: &mut Chooser<'_>) -> Option<Vec<Bytes>> {
        let told = (said.kind == FrameType::Told.number()).then(|| Told::parse(said.body).ok())??;
        let id = told.id;
        let lie = match choose.below(9) {
            0 => Told { epoch: Some(choose.below(9)), ..told },
            1 => Told { kdf: Some(choose.below(5)), ..told },
            2 => Told { iterations: Some(choose.below(2) << 40), ..told },
            3 => Told { nonce: Some(&[0; 32]), ..told },
            4 => Told { proof: Some(&[1; 32]), ..Told::bare(id, 0) },
            5 => Told { salt: None, ..told },
            6 => Told { boot: Some(&[2; 16]), ..told },
            7 => Told { ended: Some(choose.below(9)), ..told },
            _ => Told::bare(id, 200 + u16::try_from(choose.below(120)).unwrap_or(0)),
        };
        let lie = control(FrameType::Told, &lie);
        Some(if choose.chance(1, 2) { vec![lie] } else { vec![said.whole.clone(), lie] })
    }

    fn keeps_back(&self, said: &Said<'_>, _: &mut Chooser<'_>) -> Option<Vec<Bytes>> {
        said.is_message().then(Vec::new)
    }
}

impl<'a> Said<'a> {
    const fn is_message(&self) -> bool {
        matches!(self.kind, 0x21..=0x29)
    }

    /// What is signed in it, where anything is.
    fn message(&self) -> Option<&'a [u8]> {
        let (_, message) = self.is_message().then(|| Hop::split(self.body).ok())??;
        (message.len() > 1).then_some(message)
    }

    fn announced(&self) -> Option<Announce<'a>> {
        (self.kind == FrameType::Announce.number()).then(|| Announce::parse(self.body).ok())?
    }

    fn flipped(&self, at: usize, choose: &mut Chooser<'_>) -> Bytes {
        let mut body = self.body.to_vec();
        let bit = 1 << choose.below(8);
        if let Some(byte) = body.get_mut(at) {
            *byte ^= bit;
        }
        framed(self.kind, &body)
    }
}

fn framed(kind: u8, body: &[u8]) -> Bytes {
    let length = u32::try_from(body.len() + 1).unwrap_or(u32::MAX).to_be_bytes();
    [&length[..], &[kind], body].concat().into()
}

fn control<'a>(kind: FrameType, control: &impl Control<'a>) -> Bytes {
    let mut body = BytesMut::new();
    control.encode(&mut body);
    framed(kind.number(), &body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decisions::Decisions;

    #[test]
    fn it_says_whole_frames_however_they_come_and_lies_about_some() {
        let announce = Announce {
            goal: 2,
            channel: Name::new("a").unwrap(),
            event: None,
            path: vec![Name::new("h0").unwrap()],
            client: Some(Name::new("c").unwrap()),
            kind: None,
            epoch: None,
            home: None,
            terms: None,
            ended: None,
        };
        let frame = control(FrameType::Announce, &announce);
        let mut decisions = Decisions::seeded(1);
        let stream = decisions.stream("lies");
        let mut liar = Liar::default();
        let mut heard = BytesMut::new();
        for byte in frame.iter().cycle().take(400 * frame.len()) {
            let said = liar.pass((0, 1), &Bytes::copy_from_slice(&[*byte]), decisions.on(stream));
            heard.extend_from_slice(&said.unwrap_or_default());
        }
        let mut frames = 0;
        while let Some(frame) = next(&mut heard, false, false) {
            assert!(Announce::parse(&frame[5..]).is_ok());
            frames += 1;
        }
        let lies: u64 = liar.played().values().sum();
        assert!(heard.is_empty() && lies > 10 && frames == 400 + lies, "{frames} frames with {lies} lies");
    }
}
