//! What a bridge lets through: patterns of channels and events.

use alloc::string::{String, ToString as _};
use core::fmt;
use core::str::FromStr;

/// Which events of which channels pass: `CHANNEL` or `CHANNEL@EVENT`, where `*` stands for any text, also none.
///
/// ```
/// use commipc_protocol::bridge::Allow;
///
/// let allow: Allow = "sensors-*@reading".parse()?;
/// assert!(allow.matches("sensors-roof", Some("reading")));
/// assert!(!allow.matches("sensors-roof", Some("reset")));
/// # Ok::<_, commipc_protocol::bridge::AllowError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allow {
    channel: String,
    event: Option<String>,
}

/// Why a text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AllowError {
    /// A pattern of a channel or an event is empty.
    #[error("a pattern must not be empty: CHANNEL or CHANNEL@EVENT, with * for any text")]
    Empty,
    /// There is one `@` at most, since no name has any.
    #[error("a pattern has one '@' at most: CHANNEL@EVENT")]
    TwoEvents,
}

impl Allow {
    /// Whether an event of a channel passes; without an event, whether any of the channel's may.
    #[must_use]
    pub fn matches(&self, channel: &str, event: Option<&str>) -> bool {
        let wanted = self.event.as_deref().zip(event);
        fits(&self.channel, channel) && wanted.is_none_or(|(pattern, event)| fits(pattern, event))
    }
}

impl FromStr for Allow {
    type Err = AllowError;

    fn from_str(text: &str) -> Result<Self, AllowError> {
        let (channel, event) = text.split_once('@').map_or((text, None), |(channel, event)| (channel, Some(event)));
        if channel.is_empty() || event.is_some_and(str::is_empty) {
            return Err(AllowError::Empty);
        }
        if event.is_some_and(|event| event.contains('@')) {
            return Err(AllowError::TwoEvents);
        }
        Ok(Self { channel: channel.to_string(), event: event.map(String::from) })
    }
}

impl fmt::Display for Allow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.channel)?;
        self.event.iter().try_for_each(|event| write!(f, "@{event}"))
    }
}

/// Whether a text is of a form: its parts between the stars in order, the first and last at the ends.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts.filter(|part| !part.is_empty()) {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s77_patterns_stand_for_texts() {
        for (pattern, yes, no) in [
            ("news", &["news"][..], &["new", "newsletter", ""][..]),
            ("news*", &["news", "newsletter"], &["new"]),
            ("*", &["", "anything"], &[]),
            ("a*b*c", &["abc", "a-b-c", "abbcc"], &["ab", "acb", "bc"]),
            ("*ab", &["ab", "aab", "abab"], &["aba"]),
            ("a**b", &["ab", "axb"], &["a"]),
            ("aa*aa", &["aaaa", "aaxaa"], &["aaa"]),
        ] {
            assert!(yes.iter().all(|text| fits(pattern, text)), "{pattern}");
            assert!(!no.iter().any(|text| fits(pattern, text)), "{pattern}");
        }
    }

    #[test]
    fn s77_an_event_may_be_named_too() {
        let allow: Allow = "news@up*".parse().unwrap();
        assert!(allow.matches("news", Some("upper")) && allow.matches("news", None));
        assert!(!allow.matches("news", Some("down")) && !allow.matches("other", Some("up")));
        assert_eq!(allow.to_string(), "news@up*");
        assert_eq!("".parse::<Allow>(), Err(AllowError::Empty));
        assert_eq!("a@".parse::<Allow>(), Err(AllowError::Empty));
        assert_eq!("a@b@c".parse::<Allow>(), Err(AllowError::TwoEvents));
    }
}
