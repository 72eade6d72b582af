//! What proves to a hub that a later connection is this client machine's too, while an earlier one lingers there.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::auth::{TakeoverSecret, TranscriptHash};

/// As many proofs as one PROOF takes.
const MAX: usize = 4;

/// The secrets of which the hub may keep the stored key: that of the last login it has confirmed, and of those since whose
/// outcome is not known. They outlive the link.
#[derive(Debug, Default)]
pub(super) struct Takeovers {
    confirmed: Option<TakeoverSecret>,
    /// The one of the handshake at hand comes last.
    unconfirmed: VecDeque<TakeoverSecret>,
}

impl Takeovers {
    /// A proof for each secret that the hub may know of.
    pub(super) fn proofs(&self, transcript: &TranscriptHash) -> Vec<[u8; 32]> {
        self.confirmed.iter().chain(&self.unconfirmed).map(|secret| secret.proof(transcript)).collect()
    }

    /// A PROOF goes out: the hub may admit us by it, whether we hear of it or not.
    pub(super) fn proved(&mut self, secret: TakeoverSecret) {
        self.unconfirmed.push_back(secret);
        let most = MAX - usize::from(self.confirmed.is_some());
        if self.unconfirmed.len() > most {
            self.unconfirmed.pop_front();
        }
    }

    /// The hub has admitted us, and keeps what came with this handshake alone.
    pub(super) fn admitted(&mut self) {
        if let Some(secret) = self.unconfirmed.pop_back() {
            self.confirmed = Some(secret);
        }
        self.unconfirmed.clear();
    }

    /// The hub has proved itself and refused us: it keeps nothing of this handshake.
    pub(super) fn refused(&mut self) {
        self.unconfirmed.pop_back();
    }
}
