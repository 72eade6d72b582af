//! What a request must look like, where no type says it: checked before a handler sees it.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use ciborium::Value;
use commipc_protocol::client::Payload;
use commipc_protocol::{Fault, FaultCode};

use crate::payload::{self, DecodeError};

/// The parameters of an event, for handlers of dynamic values: a map with certain keys, each of certain types.
///
/// Without parameters it takes anything at all. With some, a request must be a map that has each key, unless `null` is one of
/// its types; a key may be absent then, or `null`. What keys it has beyond is not looked at, nor what lists and maps hold. As
/// in many languages `true` and `false` are numbers too, and a whole number is not a [`Type::Float`]. What does not fit is
/// refused with [`FaultCode::BadPayload`] and the parameter's name, and never reaches the handler.
///
/// A typed handler needs none: what is no `T` is refused as well.
///
/// ```
/// use commipc_runtime::{Channel, Fault, ProvideError, Provider, Request, Schema, Type};
///
/// async fn serve(channel: &Channel) -> Result<Provider, ProvideError> {
///     let schema = Schema::new()
///         .parameter("name", Type::Text)
///         .parameter("limit", Type::Int | Type::Float)
///         .parameter("since", Type::Text | Type::Null)
///         .returns(Type::List);
///     let find = async |query: Request<ciborium::Value>| Ok::<_, Fault>(vec![query.into_inner()]);
///     channel.provide("find", find).schema(schema).await
/// }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schema {
    parameters: BTreeMap<String, Types>,
    returns: Option<Types>,
}

impl Schema {
    /// One that takes anything.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One more parameter, or another type of one that is there.
    #[must_use]
    pub fn parameter(mut self, name: &str, types: impl Into<Types>) -> Self {
        self.parameters.insert(name.to_owned(), types.into());
        self
    }

    /// What is answered. It is kept, for people, and not checked.
    #[must_use]
    pub fn returns(mut self, types: impl Into<Types>) -> Self {
        self.returns = Some(types.into());
        self
    }

    /// The parameters and their types, by name.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, Types)> {
        self.parameters.iter().map(|(name, types)| (name.as_str(), *types))
    }

    /// What is answered, where that is said.
    #[must_use]
    pub const fn returned(&self) -> Option<Types> {
        self.returns
    }

    /// Whether a request is as it must be; if not, what its caller is told.
    pub(crate) fn check(&self, payload: &Payload) -> Result<(), Fault> {
        if self.parameters.is_empty() {
            return Ok(());
        }
        let value: Value = payload::decode(payload).map_err(|error| match error {
            DecodeError::WrongContent => FaultCode::WrongContent,
            DecodeError::Malformed(_) => FaultCode::BadPayload,
        })?;
        self.check_value(&value).map_err(bad)
    }

    fn check_value(&self, value: &Value) -> Result<(), String> {
        let Value::Map(entries) = untagged(value) else {
            return Err(format!("expected a map of parameters, got {}", name_of(type_of(value))));
        };
        for (name, types) in &self.parameters {
            let mut given = entries.iter().filter(|(key, _)| key.as_text() == Some(name)).peekable();
            if given.peek().is_none() && !types.has(Type::Null) {
                return Err(format!("missing required parameter: {name}"));
            }
            // All of them, where a map says one key twice: nobody knows which of them the handler reads.
            given.try_for_each(|(_, value)| check_parameter(name, *types, value))?;
        }
        Ok(())
    }
}

fn check_parameter(name: &str, types: Types, value: &Value) -> Result<(), String> {
    let given = type_of(value);
    if given.is_some_and(|given| types.has(given) || (given == Type::Bool && types.has(Type::Int))) {
        Ok(())
    } else if given == Some(Type::Null) {
        Err(format!("parameter {name} cannot be null"))
    } else {
        Err(format!("parameter {name} expected {types}, got {}", name_of(given)))
    }
}

fn bad(message: String) -> Fault {
    Fault { code: FaultCode::BadPayload.code(), message, details: Bytes::new(), retryable: false }
}

/// A number too long for 64 bits is a tagged byte string.
const BIG_NUMBERS: [u64; 2] = [2, 3];

/// `None` for what is of no type that a schema can ask for.
fn type_of(value: &Value) -> Option<Type> {
    Some(match value {
        Value::Null => Type::Null,
        Value::Bool(_) => Type::Bool,
        Value::Integer(_) => Type::Int,
        Value::Float(_) => Type::Float,
        Value::Text(_) => Type::Text,
        Value::Bytes(_) => Type::Bytes,
        Value::Array(_) => Type::List,
        Value::Map(_) => Type::Map,
        Value::Tag(tag, inner) if BIG_NUMBERS.contains(tag) && inner.is_bytes() => Type::Int,
        Value::Tag(_, inner) => return type_of(inner),
        _ => return None,
    })
}

const fn name_of(given: Option<Type>) -> &'static str {
    match given {
        Some(given) => given.name(),
        None => "something else",
    }
}

/// What is tagged is of its own type.
fn untagged(mut value: &Value) -> &Value {
    while let Value::Tag(_, inner) = value {
        value = inner;
    }
    value
}

/// What a parameter may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// `null`, or nothing at all.
    Null,
    /// `true` or `false`.
    Bool,
    /// A whole number, however long; `true` and `false` pass.
    Int,
    /// A number with a fraction; whole numbers are none.
    Float,
    /// Text.
    Text,
    /// Bytes.
    Bytes,
    /// A list, of whatever.
    List,
    /// A map, of whatever.
    Map,
}

impl Type {
    const ALL: [Self; 8] =
        [Self::Null, Self::Bool, Self::Int, Self::Float, Self::Text, Self::Bytes, Self::List, Self::Map];

    /// The name in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Float => "float",
            Self::Text => "text",
            Self::Bytes => "bytes",
            Self::List => "list",
            Self::Map => "map",
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One of several types: `Type::Int | Type::Text`. With [`Type::Null`] a parameter may be absent.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Types(u8);

impl Types {
    /// Anything but nothing: the parameter must be there, whatever it is.
    pub const ANY: Self = Self(!(1 << Type::Null as u8));

    /// Whether this type is one of them.
    #[must_use]
    pub const fn has(self, one: Type) -> bool {
        self.0 & (1 << one as u8) != 0
    }
}

impl From<Type> for Types {
    fn from(one: Type) -> Self {
        Self(1 << one as u8)
    }
}

impl<T: Into<Types>> std::ops::BitOr<T> for Type {
    type Output = Types;

    fn bitor(self, other: T) -> Types {
        Types::from(self) | other
    }
}

impl<T: Into<Self>> std::ops::BitOr<T> for Types {
    type Output = Self;

    fn bitor(self, other: T) -> Self {
        Self(self.0 | other.into().0)
    }
}

impl fmt::Display for Types {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (count, one) in Type::ALL.into_iter().filter(|one| self.has(*one)).enumerate() {
            let before = if count == 0 { "" } else { " or " };
            write!(f, "{before}{one}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Types {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
