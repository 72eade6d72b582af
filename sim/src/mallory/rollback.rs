//! How a malicious hub takes somebody back to an earlier protection: it has kept what to check that one's proofs with.

use bytes::{Bytes, BytesMut};
use commipc_protocol::auth::{JoinTranscript, JoinVerifier, TranscriptHash};
use commipc_protocol::wire::{Control as _, Done, FrameType, Join, JoinChallenge, MAGIC, Protect};
use commipc_protocol::{ChannelName, LinkId};

use super::{Mallory, Trick, forgery};

/// What is known of a link's handshake, which joins are bound to.
#[derive(Default)]
pub(super) struct Greeting {
    hello: Bytes,
    transcript: Option<TranscriptHash>,
}

/// An earlier protection that somebody was asked to prove.
pub(super) struct Asked {
    channel: ChannelName,
    epoch: u64,
    nonce: [u8; 32],
}

impl Mallory {
    /// Keeps what a client says that is needed later.
    pub(super) fn keeps(&mut self, link: LinkId, kind: FrameType, frame: &Bytes, body: &[u8]) {
        if kind == FrameType::Hello
            && let Some(wire) = self.wires.get_mut(&link)
        {
            wire.greeting.hello = Bytes::from([&MAGIC[..], frame].concat());
        }
        if kind == FrameType::Protect
            && let Ok(Protect { channel, record, .. }) = Protect::parse(body)
            && let Ok(channel) = ChannelName::new(channel.as_str())
        {
            let verifier = JoinVerifier::from_parts(*record.stored_key, *record.server_key);
            self.verifiers.insert((channel, record.epoch), verifier);
        }
    }

    /// Keeps what the hub answers to a greeting.
    pub(super) fn keeps_challenge(&mut self, link: LinkId, frame: &[u8]) {
        if let Some(wire) = self.wires.get_mut(&link) {
            wire.greeting.transcript = Some(TranscriptHash::connection(&wire.greeting.hello, frame, &[]));
        }
    }

    /// Notes that somebody is asked to prove an earlier protection than the channel has.
    pub(super) fn asks_back(&mut self, link: LinkId, channel: ChannelName, challenge: &JoinChallenge<'_>, epoch: u64) {
        if let Some(wire) = self.wires.get_mut(&link) {
            wire.asked_back.insert(challenge.id, Asked { channel, epoch, nonce: *challenge.nonce });
        }
    }

    /// Admits whoever proves an earlier protection, in the hub's name.
    pub(super) fn admits_back(&mut self, link: LinkId, body: &[u8]) -> bool {
        let Ok(join) = Join::parse(body) else { return false };
        let Some(wire) = self.wires.get_mut(&link) else { return false };
        let (Some(asked), Some(transcript), Some(client)) =
            (wire.asked_back.remove(&join.id), wire.greeting.transcript, wire.client.clone())
        else {
            return false;
        };
        let Asked { channel, epoch, nonce } = asked;
        let bound = JoinTranscript::new(&transcript, channel.as_str(), epoch, join.nonce, &nonce, client.as_str());
        let verifier = self.verifiers.get(&(channel, epoch));
        let Some(proven) = bound.zip(verifier).and_then(|(bound, verifier)| verifier.verify(&bound, join.proof)) else {
            return false;
        };
        let mut done = BytesMut::new();
        let (epoch, owner, proof) = (Some(epoch), Some(false), Some(proven.hub_proof()));
        Done { id: join.id, code: 0, epoch, owner, last_epoch: None, owned_by: None, proof }.encode(&mut done);
        let Some(done) = forgery::frame(FrameType::Done, &done) else { return false };
        self.play(Trick::RollBack.name());
        self.emit(link, &done);
        self.flush(link);
        true
    }
}
