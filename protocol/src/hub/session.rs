//! One link as the hub sees it: deframing, the handshake, and what the client is once it has proved itself.
//!
//! ```text
//!            HELLO                    PROOF verifies             admitted
//!  Hello ──────────────► Proof ──────────────────► (router) ──────────────► Ready
//!    │  CHALLENGE goes out  │                          │ refused: WELCOME with a reason, close
//!    └──── AUTH_FAILED ◄────┘ proof does not verify: at once, or after a wait in Failing
//! ```
//! A session knows no other session. Nothing of the hub is touched before the proof verifies: only
//! [`Session::handle_proof`] makes an [`Applicant`], around an [`Authenticated`], and only that becomes a [`Member`].

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::hash::BuildHasher as _;

use super::registry::Memberships;
use super::throttle::{Guesser, Source};
use crate::auth::{Authenticated, Capabilities, Credentials, Kdf, Lookup, MaskKey, TakeoverSecret, TranscriptHash};
use crate::error::{Refusal, Violation};
use crate::hash::{Keyed, Map};
use crate::limits::Limits;
use crate::machine::{LinkId, Peer};
use crate::names::{ChannelName, ClientId, CredentialId, HubId};
use crate::slots::Key;
use crate::time::Instant;
use crate::timers::TimerId;
use crate::wire::{
    Challenge, Control, Frame, FrameType, Hello, Inbox, MAGIC, Outbox, PROOF_ENTRY_LEN, Pool, Proof, ROUTE_BY_HUB,
    Recent, Refused, VERSION, Welcome,
};

/// Take-over proofs of one PROOF.
const TAKEOVERS_MAX: usize = 4;
/// A PROOF at its longest takes a third of this. Less than a HELLO may have: with a challenge out, a stranger costs more already.
const PROOF_FRAME: u32 = 512;

/// One link.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) link: LinkId,
    pub(crate) peer: Peer,
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Outbox,
    pub(crate) state: State,
    /// Bytes received, for judging who has sent least.
    pub(crate) received: u64,
    /// Whether the link is in the hub's list of those with something to send.
    pub(crate) ready: bool,
    pub(crate) source: Source,
    /// Until it has proved itself; then until it is told that it failed.
    pub(crate) handshake_timer: Option<TimerId>,
    pub(crate) partial_timer: Option<TimerId>,
    /// When the frame began whose rest has not come.
    pub(crate) partial_since: Instant,
    pub(crate) write_timer: Option<TimerId>,
    /// It reads too slowly, and that was told.
    pub(crate) slow: bool,
    /// Since when no byte has left the driver's hands, while it holds any.
    pub(crate) stalled_since: Instant,
}

/// How far the conversation is.
#[derive(Debug)]
pub(crate) enum State {
    /// Nothing was said.
    Hello,
    /// A challenge is out.
    Proof(Box<Pending>),
    /// The proof was wrong, and the answer waits.
    Failing,
    /// Authenticated and admitted.
    Ready(Box<Member>),
}

/// What a challenge was made from.
#[derive(Debug)]
pub(crate) struct Pending {
    client: ClientId,
    identity: Identification,
    credential: Lookup,
    transcript: TranscriptHash,
    records: bool,
    pub(crate) guesser: Guesser,
}

/// Somebody who has proved a credential and wants to be a client.
#[derive(Debug)]
pub(crate) struct Applicant {
    pub(crate) client: ClientId,
    pub(crate) authenticated: Authenticated,
    pub(crate) guesser: Guesser,
    records: bool,
    identity: Identification,
    /// Of the secrets of earlier logins.
    takeovers: Vec<[u8; 32]>,
}

/// By what a client is known again while it is connected.
#[derive(Debug)]
pub(crate) struct Identification {
    instance: [u8; 16],
    /// The stored key of this login's take-over secret.
    takeover: [u8; 32],
}

impl Identification {
    /// Whether an applicant is the same client machine.
    pub(crate) fn is_proved_by(&self, applicant: &Applicant) -> bool {
        let transcript = applicant.authenticated.client().transcript();
        let proves = |proof: &[u8; 32]| TakeoverSecret::verify(&self.takeover, transcript, proof);
        self.instance == applicant.identity.instance && applicant.takeovers.iter().any(proves)
    }
}

/// A client of this hub.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) client: ClientId,
    pub(crate) credential: CredentialId,
    pub(crate) capabilities: Capabilities,
    pub(crate) identity: Identification,
    /// What this link has in common with those that it took over from, and with no other.
    pub(crate) lineage: u64,
    /// The handshake, to which joins and owner operations are bound.
    pub(crate) transcript: TranscriptHash,
    /// For keys on a link whose frames are tagged.
    mask: Option<MaskKey>,
    pub(crate) memberships: Memberships,
    /// Channels it was challenged for, or failed to join, by the numbers of its requests.
    pub(crate) joins: BTreeMap<u64, Joining>,
    /// Its requests that wait until another change of their channel is stored.
    pub(crate) waiting: usize,
    /// The client's own calls, by the route numbers it chose.
    pub(crate) calls: Map<u32, Key>,
    /// How many of them are streams.
    pub(crate) streams: usize,
    /// How its last message began.
    pub(crate) recent: Recent,
    /// The newest call this client is working on as a provider; the others hang on it.
    pub(crate) serving: Option<Key>,
    /// When something was heard last, and when that is looked at.
    pub(crate) heard: Instant,
    /// Whether nothing was heard since it was asked.
    pub(crate) asked: bool,
    pub(crate) heartbeat_timer: Option<TimerId>,
    /// While a frame is handled that has waited: its number, if the link's frames are tagged.
    pub(crate) recalled: Option<u64>,
    /// Message frames taken.
    pub(crate) taken: u64,
    /// Those refused since the last ACK.
    pub(crate) refused: Vec<Refused>,
    /// Whether somebody waits for an ACK.
    pub(crate) ack_due: bool,
}

impl Member {
    /// Whether a call may have this number: of the client's half, and not in use.
    pub(crate) fn may_call_on(&self, route: u32) -> bool {
        route != 0 && route & ROUTE_BY_HUB == 0 && !self.calls.contains_key(&route)
    }
}

/// A join that is not decided, or whose refusal waits.
#[derive(Debug)]
pub(crate) struct Joining {
    pub(crate) channel: ChannelName,
    pub(crate) epoch: u64,
    /// The hub's nonce; `None` once the proof was wrong.
    pub(crate) nonce: Option<[u8; 32]>,
    /// When the challenge is forgotten, or the refusal told.
    pub(crate) timer: Option<TimerId>,
}

/// What the hub is, as a handshake needs to know it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity<'a> {
    pub(crate) hub: &'a HubId,
    pub(crate) boot: &'a [u8; 16],
    pub(crate) credentials: &'a Credentials,
    pub(crate) limits: &'a Limits,
    pub(crate) hash: Keyed,
}

/// The client's offer cannot be met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandshakeEnd {
    /// It broke the protocol.
    Violation(Violation),
    /// It is told no, without proof that it is this hub that says so.
    Refused(Refusal),
}

impl From<Violation> for HandshakeEnd {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

impl From<Refusal> for HandshakeEnd {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Session {
    pub(crate) fn new(link: LinkId, peer: Peer, limits: &Limits) -> Self {
        Self {
            link,
            source: Source::of(&peer),
            peer,
            inbox: Inbox::expecting_magic(limits.handshake_frame),
            outbox: Outbox::default(),
            state: State::Hello,
            received: 0,
            ready: false,
            handshake_timer: None,
            partial_timer: None,
            partial_since: Instant::ZERO,
            write_timer: None,
            slow: false,
            stalled_since: Instant::ZERO,
        }
    }

    pub(crate) fn member(&self) -> Option<&Member> {
        match &self.state {
            State::Ready(member) => Some(member),
            State::Hello | State::Proof(_) | State::Failing => None,
        }
    }

    pub(crate) fn member_mut(&mut self) -> Option<&mut Member> {
        match &mut self.state {
            State::Ready(member) => Some(member),
            State::Hello | State::Proof(_) | State::Failing => None,
        }
    }

    /// Answers the client's opening with a challenge.
    pub(crate) fn handle_hello(
        &mut self,
        frame: &Frame,
        hub: Identity<'_>,
        nonce: &[u8; 32],
        pool: &mut Pool,
    ) -> Result<(), HandshakeEnd> {
        let hello = Hello::parse(frame.body()).map_err(|_| Violation::BadControl)?;
        if !hello.versions.contains(&VERSION) {
            return Err(Refusal::VersionUnsupported.into());
        }
        if *hello.nonce == [0; 32] || *hello.takeover == [0; 32] {
            return Err(Violation::BadNonce.into());
        }
        let client = ClientId::new(hello.client.as_str()).map_err(|_| Violation::BadName)?;
        let binding = match (hello.binding, &self.peer.binding) {
            (0, _) => &[][..],
            (1, Some(binding)) => binding,
            (_, _) => return Err(Violation::NotOffered.into()),
        };
        let credential = hub.credentials.lookup(hello.credential.as_str());
        if !hello.kdfs.contains(&credential.kdf().id()) {
            return Err(Refusal::KdfUnsupported.into());
        }
        // A link under TLS is private to those who have bound the handshake to it.
        let unbound = self.peer.binding.is_some() && hello.binding == 0;
        let records = !self.peer.is_private() || unbound;
        let challenge = Challenge {
            version: VERSION,
            kdf: credential.kdf().id(),
            hub: hub.hub.as_name(),
            boot: hub.boot,
            nonce,
            salt: credential.salt(),
            iterations: u64::from(credential.iterations()),
            records,
            frame: u64::from(hub.limits.frame),
            features: 0,
        };
        self.inbox.set_limit(hub.limits.handshake_frame.min(PROOF_FRAME));
        let sent = self.outbox.push(pool, FrameType::Challenge, |out| challenge.encode(out));
        let opening = [&MAGIC, frame.raw()].concat();
        let transcript = TranscriptHash::connection(&opening, sent, binding);
        let records = records || hello.records;
        let guesser = (self.source, hub.hash.hash_one(hello.credential));
        let identity = Identification { instance: *hello.instance, takeover: *hello.takeover };
        self.state = State::Proof(Box::new(Pending { client, identity, credential, transcript, records, guesser }));
        Ok(())
    }

    /// Verifies the client's proof against the credential it named.
    pub(crate) fn handle_proof(frame: &Frame, pending: Pending) -> Result<Applicant, HandshakeEnd> {
        let body = Proof::parse(frame.body()).map_err(|_| Violation::BadControl)?;
        if body.takeover.as_ref().is_some_and(|proofs| !(1..=TAKEOVERS_MAX).contains(&proofs.len())) {
            return Err(Violation::BadControl.into());
        }
        let Pending { client, identity, credential, transcript, records, guesser } = pending;
        let authenticated = credential.verify_client(&transcript, body.proof).ok_or(Refusal::AuthFailed)?;
        let takeovers = body.takeover.into_iter().flatten().copied().collect();
        Ok(Applicant { client, authenticated, guesser, records, identity, takeovers })
    }

    /// Tells an authenticated client what it is, or why it is refused; from here on frames carry tags where agreed.
    pub(crate) fn welcome(
        &mut self,
        applicant: &Applicant,
        session: u64,
        refused: Option<Refusal>,
        limits: &Limits,
        pool: &mut Pool,
    ) {
        let proven = applicant.authenticated.client();
        let credential = applicant.authenticated.credential();
        if applicant.records {
            let keys = proven.record_keys();
            self.inbox.set_tagger(keys.c2h);
            self.outbox.set_tagger(keys.h2c);
        }
        self.inbox.set_limit(limits.frame);
        let mut welcome = Welcome {
            session,
            client: applicant.client.as_name(),
            capabilities: credential.capabilities().bits(),
            frame: u64::from(limits.frame),
            insecure: credential.verifier().kdf() == Kdf::Insecure,
            refused: refused.map(Refusal::code),
            proof: &[0; 32],
        };
        let mut body = bytes::BytesMut::new();
        welcome.encode(&mut body);
        let unproved = body.get(..body.len().saturating_sub(PROOF_ENTRY_LEN)).unwrap_or_default();
        let proof = proven.server_proof(unproved);
        welcome.proof = &proof;
        self.outbox.push(pool, FrameType::Welcome, |out| welcome.encode(out));
    }

    /// Admits an authenticated client.
    pub(crate) fn become_ready(&mut self, applicant: Applicant, lineage: u64, hash: Keyed) {
        let Applicant { client, authenticated, records, guesser: _, identity, takeovers: _ } = applicant;
        let proven = authenticated.client();
        self.state = State::Ready(Box::new(Member {
            credential: authenticated.credential_id().clone(),
            capabilities: authenticated.credential().capabilities(),
            identity,
            lineage,
            transcript: *proven.transcript(),
            mask: records.then(|| proven.record_keys().mask),
            client,
            memberships: Memberships::default(),
            joins: BTreeMap::new(),
            waiting: 0,
            calls: hash.map(),
            streams: 0,
            recent: Recent::default(),
            serving: None,
            heard: Instant::ZERO,
            asked: false,
            heartbeat_timer: None,
            recalled: None,
            taken: 0,
            refused: Vec::new(),
            ack_due: false,
        }));
    }

    /// The number of the frame that is being handled, on a link whose frames are tagged.
    pub(crate) fn frame_counter(&self) -> u64 {
        self.member().and_then(|member| member.recalled).unwrap_or_else(|| self.inbox.last_counter())
    }

    /// The keys of the frame that is being handled, which are masked where frames are tagged; in the order of the body.
    pub(crate) fn unmasked<const N: usize>(&self, keys: [&[u8; 32]; N]) -> [[u8; 32]; N] {
        let mut keys = keys.map(|key| *key);
        if let Some(mask) = self.member().and_then(|member| member.mask.as_ref()) {
            mask.apply(self.frame_counter(), &mut keys);
        }
        keys
    }
}
