//! Names that cannot be wrong: parsed once where they enter, carried as types from there on.

use alloc::string::{String, ToString as _};
use alloc::sync::Arc;
use core::borrow::Borrow;
use core::fmt;
use core::ops::Deref;

use thiserror::Error;

/// The longest name, in bytes of UTF-8.
pub const NAME_MAX: usize = 128;
/// Names that start so belong to the hub.
pub const RESERVED_PREFIX: &str = "__comm_ipc";

/// What a hub calls itself in what it says.
pub(crate) const SYSTEM_SENDER: &str = "system";

/// Why a text is not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum NameError {
    /// A name has at least one byte.
    #[error("a name must not be empty")]
    Empty,
    /// A name has at most [`NAME_MAX`] bytes.
    #[error("a name has at most {NAME_MAX} bytes of UTF-8")]
    TooLong,
    /// `@` and control characters appear in no name.
    #[error("a name must not hold '@' or control characters")]
    ForbiddenCharacter,
    /// `system`, `server` and everything under the prefix are the hub's.
    #[error("the name is reserved: it is 'system' or 'server', or starts with '{RESERVED_PREFIX}'")]
    Reserved,
}

/// A name borrowed from a message: well-formed, perhaps reserved.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name<'a>(&'a str);

impl<'a> Name<'a> {
    /// Checks length and characters.
    ///
    /// # Errors
    /// When `text` is empty, longer than [`NAME_MAX`] or holds `@` or a control character.
    pub fn new(text: &'a str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > NAME_MAX {
            return Err(NameError::TooLong);
        }
        // Almost every name is plain; without an early exit the compiler looks at many bytes at a time.
        let plain = text.bytes().fold(true, |plain, b| plain & (0x20..0x7f).contains(&b) & (b != b'@'));
        let forbidden = !plain && text.chars().any(|c| c == '@' || c.is_control());
        if forbidden { Err(NameError::ForbiddenCharacter) } else { Ok(Self(text)) }
    }

    /// A text that was checked before, or stands in this library's source.
    pub(crate) const fn known(text: &'a str) -> Self {
        Self(text)
    }

    /// The text.
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// Whether only a hub may use it.
    #[must_use]
    pub fn is_reserved(self) -> bool {
        self.0 == SYSTEM_SENDER || self.0 == "server" || self.0.starts_with(RESERVED_PREFIX)
    }
}

impl fmt::Debug for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.0, f)
    }
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

macro_rules! owned_name {
    ($(#[$meta:meta])* $name:ident, $reserved:expr) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and keeps a name.
            ///
            /// # Errors
            /// When the text is no name, or is reserved where that matters for this kind of name.
            pub fn new(text: &str) -> Result<Self, NameError> {
                let name = Name::new(text)?;
                let reserved: fn(Name<'_>) -> bool = $reserved;
                if reserved(name) { Err(NameError::Reserved) } else { Ok(Self(Arc::from(text))) }
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The name, borrowed.
            #[must_use]
            pub fn as_name(&self) -> Name<'_> {
                Name(&self.0)
            }
        }

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

owned_name! {
    /// A channel's name. The hub's own channels (`__comm_ipc…`) can be named, but not claimed.
    ChannelName, |_| false
}
owned_name! {
    /// An event's name within a channel.
    EventName, |_| false
}
owned_name! {
    /// A client's id, unique among a hub's live clients.
    ClientId, |name| name.is_reserved()
}
owned_name! {
    /// A hub's id.
    HubId, |name| name.is_reserved()
}
owned_name! {
    /// The name of an entry in a hub's table of credentials.
    CredentialId, |_| false
}

impl ClientId {
    /// The hub itself, as the sender of what it says on its own channels.
    pub(crate) fn system() -> Self {
        Self(Arc::from(SYSTEM_SENDER))
    }

    /// A name that the library made up and knows to be one.
    pub(crate) fn made_up(text: &str) -> Self {
        Self(Arc::from(text))
    }
}

impl HubId {
    /// A name that the library made up and knows to be one.
    pub(crate) fn made_up(text: &str) -> Self {
        Self(Arc::from(text))
    }
}

impl CredentialId {
    /// The credential of a hub with one shared secret: `default`.
    #[must_use]
    pub fn shared() -> Self {
        Self(Arc::from("default"))
    }

    /// The credential of a hub's bridges: `bridge`.
    #[must_use]
    pub fn bridges() -> Self {
        Self(Arc::from("bridge"))
    }
}

/// A client as seen from anywhere: `client@hub`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The client.
    pub client: ClientId,
    /// The hub it is connected to.
    pub hub: HubId,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.client, self.hub)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert_eq!(Name::new(""), Err(NameError::Empty));
        assert_eq!(Name::new(&"x".repeat(129)), Err(NameError::TooLong));
        assert_eq!(Name::new("a@b"), Err(NameError::ForbiddenCharacter));
        assert_eq!(Name::new("ü\n"), Err(NameError::ForbiddenCharacter));
        assert_eq!(Name::new("\u{7f}"), Err(NameError::ForbiddenCharacter));
        assert!(Name::new(&"ü".repeat(64)).is_ok());
    }

    #[test]
    fn clients_cannot_be_named_like_the_hub() {
        for name in ["system", "server", "__comm_ipc", "__comm_ipc_logs"] {
            assert_eq!(ClientId::new(name), Err(NameError::Reserved), "{name}");
        }
        assert!(ClientId::new("systems").is_ok());
        assert!(ChannelName::new("__comm_ipc_logs").is_ok());
    }
}
