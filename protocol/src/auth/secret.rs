//! What people and files hold, and what is derived of it.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use pbkdf2::pbkdf2_hmac;
use sha2::Sha256;
use thiserror::Error;
use zeroize::Zeroizing;

use super::primitives::{Key, extract, same};

/// Fewer PBKDF2 rounds than this are refused: a hub must not be able to make guessing cheap.
pub const MIN_ITERATIONS: u32 = 100_000;
/// More PBKDF2 rounds than this are refused: a hub must not be able to make a login cost minutes.
pub const MAX_ITERATIONS: u32 = 10_000_000;
/// PBKDF2 rounds where nobody chose a number.
pub const DEFAULT_ITERATIONS: u32 = 600_000;

/// How a secret becomes 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kdf {
    /// PBKDF2-HMAC-SHA256 (RFC 8018, 5.2), for passwords.
    Pbkdf2 = 1,
    /// HKDF-Extract (RFC 5869, 2.2), for 32 random bytes.
    Key = 2,
    /// No secret at all.
    Insecure = 3,
}

impl Kdf {
    /// The number on the wire.
    #[must_use]
    pub const fn id(self) -> u64 {
        match self {
            Self::Pbkdf2 => 1,
            Self::Key => 2,
            Self::Insecure => 3,
        }
    }

    /// The kdf with this number.
    #[must_use]
    pub const fn from_id(id: u64) -> Option<Self> {
        match id {
            1 => Some(Self::Pbkdf2),
            2 => Some(Self::Key),
            3 => Some(Self::Insecure),
            _ => None,
        }
    }

    /// Whether this number of rounds fits: within the bounds for passwords, otherwise 0.
    #[must_use]
    pub const fn allows(self, iterations: u32) -> bool {
        match self {
            Self::Pbkdf2 => iterations >= MIN_ITERATIONS && iterations <= MAX_ITERATIONS,
            Self::Key | Self::Insecure => iterations == 0,
        }
    }
}

/// Why a secret cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum SecretError {
    /// A secret file without a secret.
    #[error("the secret is empty")]
    Empty,
    /// `key:` and then something else than a key.
    #[error("after 'key:' exactly 64 hex digits (32 bytes) are expected")]
    MalformedKey,
    /// Something else than the text of an owner key.
    #[error("it is no owner key: 'owner:', 64 hex digits, ':', the channel, '@' and its hub's id are expected")]
    MalformedOwnerKey,
    /// Rounds out of bounds.
    #[error("a password takes {MIN_ITERATIONS} to {MAX_ITERATIONS} iterations, any other secret 0")]
    Iterations,
    /// A channel cannot be protected by nothing.
    #[error("a channel's protection needs a password or a key")]
    Insecure,
}

/// A password, a key, or the decision to do without.
#[derive(Clone)]
pub struct Secret(Kind);

#[derive(Clone)]
enum Kind {
    Password(Zeroizing<Vec<u8>>),
    /// In a place of its own: what is moved leaves copies behind, which nobody wipes.
    Key(Box<Key>),
    Insecure,
}

impl Secret {
    /// A password: any bytes, taken as they are.
    #[must_use]
    pub fn password(password: impl AsRef<[u8]>) -> Self {
        Self(Kind::Password(Zeroizing::new(password.as_ref().to_vec())))
    }

    /// 32 random bytes, which need no slow derivation.
    #[must_use]
    pub fn key(key: [u8; 32]) -> Self {
        Self(Kind::Key(Box::new(Key::new(key))))
    }

    /// No secret: anybody who can reach the hub gets in. Both sides have to say so.
    #[must_use]
    pub const fn insecure() -> Self {
        Self(Kind::Insecure)
    }

    /// Whether both are the same, compared in constant time for their length.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Kind::Password(own), Kind::Password(other)) => same(own, other),
            (Kind::Key(own), Kind::Key(other)) => same(own.bytes(), other.bytes()),
            (Kind::Insecure, Kind::Insecure) => true,
            (Kind::Password(_) | Kind::Key(_) | Kind::Insecure, _) => false,
        }
    }

    /// Reads the text of a secret file: `key:` and 64 hex digits, or else a password. One newline at the end is not
    /// part of the secret.
    ///
    /// # Errors
    /// When nothing is left, or when what follows `key:` is not a key.
    pub fn parse(text: &[u8]) -> Result<Self, SecretError> {
        let text = match text.strip_suffix(b"\n") {
            Some(line) => line.strip_suffix(b"\r").unwrap_or(line),
            None => text,
        };
        if let Some(digits) = text.strip_prefix(b"key:") {
            return parse_hex(digits).map(|key| Self(Kind::Key(key))).ok_or(SecretError::MalformedKey);
        }
        if text.is_empty() { Err(SecretError::Empty) } else { Ok(Self::password(text)) }
    }

    /// A key as [`Secret::parse`] reads it, without a newline. `None` for anything but a key.
    #[must_use]
    pub fn to_key_text(&self) -> Option<Zeroizing<String>> {
        let key = match &self.0 {
            Kind::Key(key) => key,
            Kind::Password(_) | Kind::Insecure => return None,
        };
        // Allocated once at its full size: a string that grows leaves copies behind.
        let mut text = Zeroizing::new(String::with_capacity(4 + 64));
        text.push_str("key:");
        put_hex(&mut text, key.bytes());
        Some(text)
    }

    /// How 32 bytes are derived. This alone decides what a client offers and accepts.
    #[must_use]
    pub const fn kdf(&self) -> Kdf {
        match self.0 {
            Kind::Password(_) => Kdf::Pbkdf2,
            Kind::Key(_) => Kdf::Key,
            Kind::Insecure => Kdf::Insecure,
        }
    }

    /// Derives 32 bytes: `PBKDF2-HMAC-SHA256(password, salt, iterations)` (RFC 8018, 5.2), `Extract(salt, key)`
    /// (RFC 5869, 2.2), or 32 zero bytes without a secret.
    ///
    /// Slow for passwords: 0.1 to 0.2 s at the default rounds. Run it where nothing waits.
    ///
    /// # Errors
    /// When the rounds do not fit the kind of secret.
    pub fn derive(&self, salt: &[u8; 16], iterations: u32) -> Result<Salted, SecretError> {
        if !self.kdf().allows(iterations) {
            return Err(SecretError::Iterations);
        }
        let key = match &self.0 {
            Kind::Password(password) => {
                let mut out = Zeroizing::new([0; 32]);
                pbkdf2_hmac::<Sha256>(password, salt, iterations, &mut *out);
                Key::new(*out)
            }
            Kind::Key(key) => extract(salt, &[key.bytes()]),
            Kind::Insecure => Key::new([0; 32]),
        };
        Ok(Salted { key, kdf: self.kdf() })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

pub(super) fn put_hex(text: &mut String, bytes: &[u8; 32]) {
    for byte in bytes {
        text.extend([byte >> 4, byte & 15].into_iter().filter_map(|digit| char::from_digit(u32::from(digit), 16)));
    }
}

/// Exactly 64 digits. The key is written where it stays.
pub(super) fn parse_hex(digits: &[u8]) -> Option<Box<Key>> {
    let digits: &[u8; 64] = digits.try_into().ok()?;
    let (pairs, _) = digits.as_chunks::<2>();
    let mut key = Box::new(Key::new([0; 32]));
    for (byte, [high, low]) in key.bytes_mut().iter_mut().zip(pairs) {
        *byte = hex_digit(*high)? << 4 | hex_digit(*low)?;
    }
    Some(key)
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// What a secret and a salt become: worth as much as the secret at every hub that uses the same salt.
#[derive(Clone)]
pub struct Salted {
    key: Key,
    kdf: Kdf,
}

impl Salted {
    /// What it was derived by.
    #[must_use]
    pub const fn kdf(&self) -> Kdf {
        self.kdf
    }

    pub(super) const fn key(&self) -> &Key {
        &self.key
    }
}

impl fmt::Debug for Salted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salted(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn secret_files_are_keys_or_passwords() {
        let kind = |text: &[u8]| Secret::parse(text).map(|secret| secret.kdf());
        let key = format!("key:{}", "0aF9".repeat(16));
        assert_eq!(kind(key.as_bytes()), Ok(Kdf::Key));
        assert_eq!(kind(format!("{key}\r\n").as_bytes()), Ok(Kdf::Key));
        assert_eq!(kind(b"pass\n"), Ok(Kdf::Pbkdf2));
        assert_eq!(kind(&[0xff, 0xfe]), Ok(Kdf::Pbkdf2));
        assert_eq!(kind(b"KEY:1"), Ok(Kdf::Pbkdf2));
        for empty in [&b""[..], b"\n", b"\r\n"] {
            assert_eq!(kind(empty), Err(SecretError::Empty));
        }
        for bad in ["key:", "key:12", &key[..67], &format!("{key}0"), &format!("{key}\n\n"), &key.replace('F', "g")] {
            assert_eq!(kind(bad.as_bytes()), Err(SecretError::MalformedKey), "{bad}");
        }
    }

    #[test]
    fn only_one_newline_is_trimmed() {
        let bytes = |text: &[u8]| match Secret::parse(text).unwrap().0 {
            Kind::Password(password) => password.to_vec(),
            Kind::Key(_) | Kind::Insecure => panic!("not a password"),
        };
        assert_eq!(bytes(b" a \r\n"), b" a ");
        assert_eq!(bytes(b"a\n\n"), b"a\n");
        assert_eq!(bytes(b"a\r"), b"a\r");
    }

    #[test]
    fn key_text_reads_back() {
        let text = Secret::key([0xa5; 32]).to_key_text().unwrap();
        assert_eq!(*text, format!("key:{}", "a5".repeat(32)));
        assert_eq!(Secret::parse(text.as_bytes()).unwrap().to_key_text().unwrap(), text);
        assert!(Secret::password("x").to_key_text().is_none());
        assert!(Secret::insecure().to_key_text().is_none());
    }

    #[test]
    fn rounds_are_bounded() {
        let refused = |secret: Secret, rounds| secret.derive(&[0; 16], rounds).err() == Some(SecretError::Iterations);
        for rounds in [0, 1, MIN_ITERATIONS - 1, MAX_ITERATIONS + 1, u32::MAX] {
            assert!(refused(Secret::password("x"), rounds), "{rounds}");
        }
        assert!(refused(Secret::key([1; 32]), 1));
        assert!(refused(Secret::insecure(), DEFAULT_ITERATIONS));
        assert!(!refused(Secret::password("x"), MIN_ITERATIONS));
    }

    #[test]
    fn kdf_numbers_are_those_of_the_wire() {
        for kdf in [Kdf::Pbkdf2, Kdf::Key, Kdf::Insecure] {
            assert_eq!(Kdf::from_id(kdf.id()), Some(kdf));
            assert_eq!(kdf as u64, kdf.id());
        }
        assert_eq!((Kdf::from_id(0), Kdf::from_id(4)), (None, None));
    }
}
