//! Names where users write them: a text is checked each time, a name of the right type is taken as it is.

use commipc_protocol::{ChannelName, EventName, NameError};

/// What can name an event: a text, or an [`EventName`], which costs no check and no allocation.
pub trait IntoEvent: Sealed {
    /// The checked name.
    ///
    /// # Errors
    /// When the text is no name.
    fn into_event(self) -> Result<EventName, NameError>;
}

/// What can name a channel: a text, or a [`ChannelName`], which costs no check and no allocation.
pub trait IntoChannel: Sealed {
    /// The checked name.
    ///
    /// # Errors
    /// When the text is no name.
    fn into_channel(self) -> Result<ChannelName, NameError>;
}

#[expect(unnameable_types, reason = "sealed: nobody else implements what names are")]
pub trait Sealed {}

macro_rules! into_name {
    ($trait:ident, $method:ident, $name:ident) => {
        impl $trait for &str {
            fn $method(self) -> Result<$name, NameError> {
                $name::new(self)
            }
        }
        impl $trait for &String {
            fn $method(self) -> Result<$name, NameError> {
                $name::new(self)
            }
        }
        impl $trait for $name {
            fn $method(self) -> Result<$name, NameError> {
                Ok(self)
            }
        }
        impl $trait for &$name {
            fn $method(self) -> Result<$name, NameError> {
                Ok(self.clone())
            }
        }
        impl Sealed for $name {}
        impl Sealed for &$name {}
    };
}

impl Sealed for &str {}
impl Sealed for &String {}
into_name!(IntoEvent, into_event, EventName);
into_name!(IntoChannel, into_channel, ChannelName);
