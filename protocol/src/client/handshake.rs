//! The client's side of the handshake: nothing but HELLO and PROOF leaves before the hub has proved itself.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use super::{Client, Due, Event, Welcome};
use crate::auth::{Capabilities, ConnectionKeys, Kdf, MaskKey, RecordTagger, Salted, TakeoverSecret, TranscriptHash};
use crate::canary::Canary;
use crate::error::{CloseReason, Refusal, Violation};
use crate::machine::{Flush, LinkId, Output, Peer};
use crate::names::HubId;
use crate::time::TimerReason;
use crate::wire::{
    self, AuthFailed, Challenge, Control as _, Frame, FrameType, Hello, Inbox, MAGIC, PROOF_ENTRY_LEN, Proof, VERSION,
};

/// How far the connection is.
#[derive(Debug)]
pub(super) enum Phase {
    /// There is none.
    Idle,
    /// The driver connects.
    Dialling,
    /// Our HELLO is out.
    Greeted(Box<Greeted>),
    /// The application derives the key of a password.
    Deriving(Box<Challenged>),
    /// Our PROOF is out.
    Proving(Box<Proving>),
    /// The hub has proved itself. Only [`Proving::verify`] leads here.
    Ready(Box<Ready>),
}

/// What the HELLO was made of.
#[derive(Debug)]
pub(super) struct Greeted {
    /// Magic and frame, as sent.
    opening: Vec<u8>,
    nonce: [u8; 32],
    binding: Option<[u8; 32]>,
    records: bool,
    takeover: TakeoverSecret,
}

/// What the hub asks.
#[derive(Debug)]
pub(super) struct Challenged {
    transcript: TranscriptHash,
    hub: HubId,
    salt: [u8; 16],
    iterations: u32,
    records: bool,
    takeover: TakeoverSecret,
}

/// What was proved, and how the hub can prove that it knew.
#[derive(Debug)]
pub(super) struct Proving {
    keys: ConnectionKeys,
    transcript: TranscriptHash,
    proof: [u8; 32],
    hub: HubId,
    /// For what we send; what we receive is checked from WELCOME on.
    tagger: Option<RecordTagger>,
}

/// A hub that has proved itself.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) hub: HubId,
    /// The largest frame the hub takes.
    pub(super) frame: u32,
    /// The handshake, to which joins and owner operations are bound.
    pub(super) transcript: TranscriptHash,
    /// For keys on a link whose frames are tagged.
    pub(super) mask: Option<MaskKey>,
}

/// A derived key, so that a reconnect costs no second derivation.
#[derive(Debug)]
pub(super) struct Cached {
    hub: HubId,
    salt: [u8; 16],
    iterations: u32,
    salted: Salted,
}

impl Client {
    pub(super) fn handle_connect(&mut self) {
        if !matches!(self.phase, Phase::Idle) {
            return;
        }
        self.stop_redialling();
        self.dials = self.dials.wrapping_add(1);
        let link = LinkId::dialled(0, self.dials);
        self.link = Some(link);
        self.phase = Phase::Dialling;
        let due = self.now.mono + self.config.limits.dial;
        self.handshake_timer = Some(self.timers.insert(due, TimerReason::Handshake, Due::Handshake));
        self.outputs.push_back(Output::Dial { link, to: self.config.hub.clone() });
    }

    pub(super) fn handle_dialled(&mut self, peer: &Peer) {
        if !matches!(self.phase, Phase::Dialling) {
            return;
        }
        self.stop_handshake_timer();
        let due = self.now.mono + self.config.limits.handshake;
        self.handshake_timer = Some(self.timers.insert(due, TimerReason::Handshake, Due::Handshake));
        let nonce = self.nonces.bytes();
        let takeover = TakeoverSecret::new(self.takeover_secrets.bytes());
        let takeover_key = takeover.stored_key();
        let records = !peer.is_private();
        let hello = Hello {
            versions: vec![VERSION],
            kdfs: vec![self.config.secret.kdf().id()],
            credential: self.config.credential.as_name(),
            client: self.id.as_name(),
            instance: &self.instance,
            nonce: &nonce,
            records,
            binding: u64::from(peer.binding.is_some()),
            takeover: &takeover_key,
            features: 0,
        };
        self.outbox.push_raw(&mut self.pool, &MAGIC);
        let sent = self.outbox.push(&mut self.pool, FrameType::Hello, |out| hello.encode(out));
        let opening = [&MAGIC, sent].concat();
        self.inbox = Inbox::new(self.config.limits.handshake_frame);
        self.phase = Phase::Greeted(Box::new(Greeted { opening, nonce, binding: peer.binding, records, takeover }));
    }

    pub(super) fn handle_handshake_frame(&mut self, kind: FrameType, frame: &Frame) -> Result<(), Violation> {
        match (core::mem::replace(&mut self.phase, Phase::Idle), kind) {
            (Phase::Greeted(greeted), FrameType::Challenge) => self.handle_challenge(*greeted, frame),
            (Phase::Proving(proving), FrameType::Welcome) => self.handle_welcome(*proving, frame),
            (Phase::Greeted(_) | Phase::Deriving(_) | Phase::Proving(_), FrameType::AuthFailed) => {
                let AuthFailed { code } = AuthFailed::parse(frame.body()).map_err(|_| Violation::BadControl)?;
                self.refused(code);
                Ok(())
            }
            (_, _) => Err(Violation::UnexpectedFrame),
        }
    }

    fn handle_challenge(&mut self, greeted: Greeted, frame: &Frame) -> Result<(), Violation> {
        let challenge = Challenge::parse(frame.body()).map_err(|_| Violation::BadControl)?;
        let kdf = self.config.secret.kdf();
        let iterations = u32::try_from(challenge.iterations).map_err(|_| Violation::NotOffered)?;
        if challenge.version != VERSION || challenge.kdf != kdf.id() || !kdf.allows(iterations) {
            return Err(Violation::NotOffered);
        }
        if *challenge.nonce == [0; 32] || *challenge.nonce == greeted.nonce {
            return Err(Violation::BadNonce);
        }
        let salt = match kdf {
            Kdf::Pbkdf2 | Kdf::Key => <[u8; 16]>::try_from(challenge.salt).map_err(|_| Violation::BadControl)?,
            Kdf::Insecure if challenge.salt.is_empty() => [0; 16],
            Kdf::Insecure => return Err(Violation::BadControl),
        };
        let hub = HubId::new(challenge.hub.as_str()).map_err(|_| Violation::BadName)?;
        let binding = greeted.binding.as_ref().map_or(&[][..], |binding| binding);
        let transcript = TranscriptHash::connection(&greeted.opening, frame.raw(), binding);
        let records = challenge.records || greeted.records;
        let challenged = Challenged { transcript, hub, salt, iterations, records, takeover: greeted.takeover };
        if kdf == Kdf::Pbkdf2 {
            if let Some(cached) = self.cached.as_ref().filter(|cached| cached.fits(&challenged)) {
                let salted = cached.salted.clone();
                self.prove(challenged, &salted);
                return Ok(());
            }
            self.phase = Phase::Deriving(Box::new(challenged));
            self.event(Event::DeriveKey { salt, iterations });
            return Ok(());
        }
        let salted = self.config.secret.derive(&salt, iterations).map_err(|_| Violation::NotOffered)?;
        self.prove(challenged, &salted);
        Ok(())
    }

    pub(super) fn handle_key_derived(&mut self, salted: Salted) {
        // Otherwise it belongs to a connection that ended meanwhile.
        if let Phase::Deriving(_) = &self.phase
            && let Phase::Deriving(challenged) = core::mem::replace(&mut self.phase, Phase::Idle)
        {
            self.cached = Some(Cached {
                hub: challenged.hub.clone(),
                salt: challenged.salt,
                iterations: challenged.iterations,
                salted: salted.clone(),
            });
            self.prove(*challenged, &salted);
        }
    }

    fn prove(&mut self, challenged: Challenged, salted: &Salted) {
        let Challenged { transcript, hub, records, takeover, .. } = challenged;
        let keys = ConnectionKeys::new(salted);
        let proof = keys.client_proof(&transcript);
        let takeovers = self.takeovers.proofs(&transcript);
        self.takeovers.proved(takeover);
        let body = Proof { takeover: (!takeovers.is_empty()).then(|| takeovers.iter().collect()), proof: &proof };
        self.outbox.push(&mut self.pool, FrameType::Proof, |out| body.encode(out));
        let mut tagger = None;
        if records {
            let keys = keys.record_keys(&transcript);
            self.inbox.set_tagger(keys.h2c);
            tagger = Some(keys.c2h);
        }
        self.phase = Phase::Proving(Box::new(Proving { keys, transcript, proof, hub, tagger }));
        self.outwait_refusal();
    }

    fn handle_welcome(&mut self, proving: Proving, frame: &Frame) -> Result<(), Violation> {
        let welcome = wire::Welcome::parse(frame.body()).map_err(|_| Violation::BadControl)?;
        if !proving.verify(frame.body(), welcome.proof) {
            return Err(Violation::BadServerProof);
        }
        if let Some(code) = welcome.refused {
            self.tries.proved = true;
            self.takeovers.refused();
            self.refused(code);
            return Ok(());
        }
        let insecure = self.config.secret.kdf() == Kdf::Insecure;
        if welcome.client != self.id.as_name() || welcome.insecure != insecure {
            return Err(Violation::NotOffered);
        }
        self.takeovers.admitted();
        let frame = u32::try_from(welcome.frame).unwrap_or(u32::MAX).min(crate::FRAME_CAP);
        let Proving { hub, tagger, keys, transcript, .. } = proving;
        let mask = tagger.is_some().then(|| keys.record_keys(&transcript).mask);
        if let Some(tagger) = tagger {
            self.outbox.set_tagger(tagger);
        }
        self.inbox.set_limit(self.config.limits.frame.max(frame));
        self.stop_handshake_timer();
        let (session, capabilities) = (welcome.session, Capabilities::from_bits(welcome.capabilities));
        let client = self.id.clone();
        self.phase = Phase::Ready(Box::new(Ready { hub: hub.clone(), frame, transcript, mask }));
        self.start_heartbeat();
        self.event(Event::Ready(Welcome { hub, client, session, capabilities, frame, insecure }));
        self.stands();
        Ok(())
    }

    pub(super) fn stop_handshake_timer(&mut self) {
        if let Some(timer) = self.handshake_timer.take() {
            self.timers.cancel(timer);
        }
    }

    fn refused(&mut self, code: u16) {
        self.close_link(Flush::Nothing);
        self.lose(Refusal::from_code(code).map_or(CloseReason::GoodbyeCode(code), CloseReason::Refused));
    }
}

impl Proving {
    /// Whether the hub knows the credential's verifier and saw the same handshake.
    fn verify(&self, welcome: &[u8], proof: &[u8; 32]) -> bool {
        let unproved = welcome.get(..welcome.len().saturating_sub(PROOF_ENTRY_LEN)).unwrap_or_default();
        self.keys.verify_server_proof(&self.transcript, &self.proof, unproved, proof) || Canary::ServerProof.sings()
    }
}

impl Cached {
    fn fits(&self, challenged: &Challenged) -> bool {
        self.hub == challenged.hub && self.salt == challenged.salt && self.iterations == challenged.iterations
    }
}
