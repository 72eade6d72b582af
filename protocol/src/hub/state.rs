//! What a hub remembers of its channels over a restart, and the bytes it is kept as.
//!
//! ```text
//! file = "CIPCSTA" ‖ u8 version ‖ u32 length ‖ body ‖ SHA-256 of all before it
//! body of a channel = {0: 2, 1: name, 2: epoch, 3: [policy, grace in ms, then], ? 4: OSK,
//!                      ? 5: [kdf, salt, iterations, JSK, JVK, credential], ? 6: the credential the name counts for}
//! body of the hub   = {0: 1, 1: id, 2: its key}
//! ```
//! Bodies are CBOR as strict as on the wire, integers before them big-endian. A file that is cut, longer, or differs in a
//! single bit is refused as a whole. The checksum finds accidents; who may write to the directory may write what it wants.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use bytes::{BufMut as _, BytesMut};
use zeroize::Zeroizing;

use super::guard::Protection;
use crate::auth::{JoinVerifier, Kdf, OwnerVerifier, checksum};
use crate::names::{ChannelName, CredentialId, HubId};
use crate::policy::{EPOCH_MAX, OwnerPolicy};
use crate::wire::Policy;
use crate::wire::cbor::{self, Malformed, Reader};

const MAGIC: [u8; 7] = *b"CIPCSTA";
const VERSION: u8 = 1;
/// Magic, version and length.
const HEAD: usize = 12;
const SUM: usize = 32;
const HUB: u64 = 1;
const CHANNEL: u64 = 2;

/// Why bytes are not what was once stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// It does not begin as such a file does.
    #[error("it is not a file of a hub's state")]
    Foreign,
    /// It was written by a version with another format.
    #[error("it has version {0} of the format, which this version cannot read")]
    Version(u8),
    /// Its length or its checksum is wrong.
    #[error("it is damaged: it is cut short, or some of it has changed")]
    Torn,
    /// It is whole, and says what no hub would write.
    #[error("it holds something that no hub has written")]
    Malformed,
}

impl From<Malformed> for StateError {
    fn from(Malformed: Malformed) -> Self {
        Self::Malformed
    }
}

/// What a hub remembers of itself.
#[derive(Clone)]
pub struct StoredHub {
    /// Its id: owners and joins are bound to it.
    pub id: HubId,
    /// What the salts of credentials are made of, so that they are the same at every start.
    pub key: Zeroizing<[u8; 32]>,
}

/// What a hub remembers of one channel: its epoch, its owner's proof key, its policy, and what checks its password.
#[derive(Clone)]
pub struct StoredChannel {
    pub(super) channel: ChannelName,
    pub(super) epoch: u64,
    pub(super) policy: OwnerPolicy,
    pub(super) owner: Option<OwnerVerifier>,
    pub(super) protection: Option<Protection>,
    pub(super) keeper: Option<CredentialId>,
}

impl StoredHub {
    /// The file.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        sealed(|out| {
            cbor::put_map(out, 3);
            cbor::put_uint(out, 0);
            cbor::put_uint(out, HUB);
            cbor::put_uint(out, 1);
            cbor::put_text(out, &self.id);
            cbor::put_uint(out, 2);
            cbor::put_bytes(out, &*self.key);
        })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When it is anything but what [`StoredHub::encode`] has made.
    pub fn decode(file: &[u8]) -> Result<Self, StateError> {
        let mut body = Reader::new(unsealed(file)?);
        if (body.map()?, body.uint()?, body.uint()?, body.uint()?) != (3, 0, HUB, 1) {
            return Err(StateError::Malformed);
        }
        let id = HubId::new(body.text()?).map_err(|_| Malformed)?;
        if body.uint()? != 2 {
            return Err(StateError::Malformed);
        }
        let key = Zeroizing::new(*fixed(&mut body)?);
        body.finish()?;
        Ok(Self { id, key })
    }
}

impl StoredChannel {
    /// Which channel it is.
    #[must_use]
    pub const fn channel(&self) -> &ChannelName {
        &self.channel
    }

    /// What its file is called, which any name of a channel can be told from: `channel-` and the SHA-256 of the name in hex.
    #[must_use]
    pub fn file_name(channel: &ChannelName) -> String {
        let mut name = String::from("channel-");
        for byte in checksum(channel.as_bytes()) {
            name.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or_default());
            name.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or_default());
        }
        name
    }

    /// The last epoch of its protection; 0 if it never was protected.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether it has a password.
    #[must_use]
    pub const fn is_protected(&self) -> bool {
        self.protection.is_some()
    }

    /// Whether somebody owns it.
    #[must_use]
    pub const fn is_owned(&self) -> bool {
        self.owner.is_some()
    }

    /// The file.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        sealed(|out| {
            let present = [self.owner.is_some(), self.protection.is_some(), self.keeper.is_some()];
            cbor::put_map(out, 4 + present.into_iter().map(u64::from).sum::<u64>());
            cbor::put_uint(out, 0);
            cbor::put_uint(out, CHANNEL);
            cbor::put_uint(out, 1);
            cbor::put_text(out, &self.channel);
            cbor::put_uint(out, 2);
            cbor::put_uint(out, self.epoch);
            let Policy { kind, grace, then } = self.policy.into();
            cbor::put_uint(out, 3);
            cbor::put_array(out, 3);
            [kind, grace, then].into_iter().for_each(|number| cbor::put_uint(out, number));
            if let Some(owner) = &self.owner {
                cbor::put_uint(out, 4);
                cbor::put_bytes(out, owner.as_bytes());
            }
            if let Some(protection) = &self.protection {
                cbor::put_uint(out, 5);
                put_protection(out, protection);
            }
            if let Some(keeper) = &self.keeper {
                cbor::put_uint(out, 6);
                cbor::put_text(out, keeper);
            }
        })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When it is anything but what [`StoredChannel::encode`] has made.
    pub fn decode(file: &[u8]) -> Result<Self, StateError> {
        let mut body = Reader::new(unsealed(file)?);
        let entries = body.map()?;
        if (body.uint()?, body.uint()?, body.uint()?) != (0, CHANNEL, 1) {
            return Err(StateError::Malformed);
        }
        let channel = ChannelName::new(body.text()?).map_err(|_| Malformed)?;
        let epoch = labelled(&mut body, 2, Reader::uint)?;
        let policy = labelled(&mut body, 3, |body| {
            if body.array()? != 3 {
                return Err(Malformed);
            }
            OwnerPolicy::try_from(Policy { kind: body.uint()?, grace: body.uint()?, then: body.uint()? })
        })?;
        let mut stored = Self { channel, epoch, policy, owner: None, protection: None, keeper: None };
        let mut last = 3;
        for _ in 4..entries {
            let label = body.uint()?;
            if label <= last {
                return Err(StateError::Malformed);
            }
            last = label;
            match label {
                4 => stored.owner = Some(OwnerVerifier::from_bytes(*fixed(&mut body)?)),
                5 => stored.protection = Some(protection(&mut body)?),
                6 => stored.keeper = Some(CredentialId::new(body.text()?).map_err(|_| Malformed)?),
                _ => return Err(StateError::Malformed),
            }
        }
        body.finish()?;
        if stored.is_possible() && entries >= 4 { Ok(stored) } else { Err(StateError::Malformed) }
    }

    fn is_possible(&self) -> bool {
        !self.channel.as_name().is_reserved()
            && self.epoch <= EPOCH_MAX
            && (self.protection.is_none() || self.epoch > 0)
            && (self.owner.is_some() || self.epoch > 0)
    }
}

/// Two are the same if they are kept as the same bytes.
impl PartialEq for StoredChannel {
    fn eq(&self, other: &Self) -> bool {
        self.encode() == other.encode()
    }
}

impl Eq for StoredChannel {}

impl fmt::Debug for StoredHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredHub").field("id", &self.id).finish_non_exhaustive()
    }
}

impl fmt::Debug for StoredChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredChannel")
            .field("channel", &self.channel)
            .field("epoch", &self.epoch)
            .field("policy", &self.policy)
            .field("owned", &self.is_owned())
            .field("protected", &self.is_protected())
            .finish()
    }
}

fn put_protection(out: &mut BytesMut, protection: &Protection) {
    let Protection { kdf, salt, iterations, verifier, credential } = protection;
    cbor::put_array(out, 6);
    cbor::put_uint(out, kdf.id());
    cbor::put_bytes(out, salt);
    cbor::put_uint(out, u64::from(*iterations));
    cbor::put_bytes(out, verifier.stored_key());
    cbor::put_bytes(out, verifier.server_key());
    cbor::put_text(out, credential);
}

fn protection(body: &mut Reader<'_>) -> Result<Protection, Malformed> {
    if body.array()? != 6 {
        return Err(Malformed);
    }
    let kdf = Kdf::from_id(body.uint()?).filter(|kdf| *kdf != Kdf::Insecure).ok_or(Malformed)?;
    let salt = *fixed(body)?;
    let iterations = u32::try_from(body.uint()?).ok().filter(|iterations| kdf.allows(*iterations)).ok_or(Malformed)?;
    let verifier = JoinVerifier::from_parts(*fixed(body)?, *fixed(body)?);
    let credential = CredentialId::new(body.text()?).map_err(|_| Malformed)?;
    Ok(Protection { kdf, salt, iterations, verifier, credential })
}

/// The entry that must come next.
fn labelled<'a, T>(
    body: &mut Reader<'a>,
    label: u64,
    read: impl FnOnce(&mut Reader<'a>) -> Result<T, Malformed>,
) -> Result<T, Malformed> {
    if body.uint()? == label { read(body) } else { Err(Malformed) }
}

fn fixed<'a, const N: usize>(body: &mut Reader<'a>) -> Result<&'a [u8; N], Malformed> {
    body.bytes()?.try_into().map_err(|_| Malformed)
}

fn sealed(put: impl FnOnce(&mut BytesMut)) -> Zeroizing<Vec<u8>> {
    let mut body = BytesMut::with_capacity(512);
    put(&mut body);
    let mut file = Zeroizing::new(Vec::with_capacity(HEAD + body.len() + SUM));
    file.put_slice(&MAGIC);
    file.put_u8(VERSION);
    file.put_u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
    file.put_slice(&body);
    let sum = checksum(&file);
    file.put_slice(&sum);
    file
}

fn unsealed(file: &[u8]) -> Result<&[u8], StateError> {
    let rest = file.strip_prefix(&MAGIC).ok_or(StateError::Foreign)?;
    match rest.first() {
        Some(&VERSION) => {}
        Some(&other) => return Err(StateError::Version(other)),
        None => return Err(StateError::Torn),
    }
    let (whole, sum) = file.split_last_chunk::<SUM>().ok_or(StateError::Torn)?;
    let (head, body) = whole.split_at_checked(HEAD).ok_or(StateError::Torn)?;
    let length = head.last_chunk::<4>().map_or(0, |length| u32::from_be_bytes(*length));
    if body.len() as u64 == u64::from(length) && checksum(whole) == *sum { Ok(body) } else { Err(StateError::Torn) }
}
