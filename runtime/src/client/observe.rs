//! What a hub holds, asked of the hub itself, and what admins may clear.

use commipc_protocol::hub::SYSTEM_CHANNEL;
use serde::{Deserialize, Serialize};

use super::{Client, IntoChannel};
use crate::error::CallError;

/// A channel at a hub.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[non_exhaustive]
pub struct ChannelInfo {
    /// Its name.
    pub name: String,
    /// Who owns it, if somebody who has it open does.
    pub owner: Option<String>,
    /// Whether it has a password, which may outlive its members.
    pub protected: bool,
    /// How many clients have it open.
    pub members: u64,
    /// How many events are provided.
    pub providers: u64,
    /// The hub where that is so, if it is another one: a channel has an entry for each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub: Option<String>,
    /// The hubs on the way there, the nearest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub path: Vec<String>,
}

/// A member of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[non_exhaustive]
pub struct MemberInfo {
    /// Its id.
    pub client: String,
    /// Whether the channel is its own.
    pub owner: bool,
    /// The events it provides there, in alphabetical order.
    pub provides: Vec<String>,
    /// The hub where it is, if it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub: Option<String>,
    /// The hubs on the way there, the nearest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub path: Vec<String>,
}

#[derive(Serialize)]
struct Question<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
    after: Option<u64>,
}

#[derive(Deserialize)]
struct Page<T> {
    #[serde(alias = "channels", alias = "members")]
    entries: Vec<T>,
    next: Option<u64>,
}

impl Client {
    /// All channels of the hub, by name, and behind each those of the same name at hubs that bridges join with it.
    ///
    /// # Errors
    /// As for any call; [`Refusal::NotAllowed`](crate::Refusal::NotAllowed) where the credential lacks the capability
    /// `observer`, [`Refusal::PasswordRequired`](crate::Refusal::PasswordRequired) where the hub's own channels have a
    /// password and [`SYSTEM_CHANNEL`] is not open with it, [`Refusal::TooLarge`](crate::Refusal::TooLarge) where a single
    /// entry is longer than a frame may be, [`Refusal::Overloaded`](crate::Refusal::Overloaded) where the hub's memory is
    /// full, [`CallError::Decode`] where its list is none, or has no end.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub async fn channels(&self) -> Result<Vec<ChannelInfo>, CallError> {
        let mut channels: Vec<ChannelInfo> = self.ask("channels", None).await?;
        channels.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(channels)
    }

    /// The members of a channel, in the order in which they joined, and behind them those at other hubs.
    ///
    /// # Errors
    /// As for any call; [`Refusal::NotAllowed`](crate::Refusal::NotAllowed) where the credential lacks the capability
    /// `observer`, [`Refusal::NoSuchChannel`](crate::Refusal::NoSuchChannel) where nobody has it open,
    /// [`Refusal::PasswordRequired`](crate::Refusal::PasswordRequired),
    /// [`Refusal::TooLarge`](crate::Refusal::TooLarge), [`Refusal::Overloaded`](crate::Refusal::Overloaded) and
    /// [`CallError::Decode`] as for [`Client::channels`].
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub async fn members(&self, channel: impl IntoChannel) -> Result<Vec<MemberInfo>, CallError> {
        self.ask("members", Some(&channel.into_channel()?)).await
    }

    /// Ends a channel of others for all its members, as its owner could, and makes the hub forget its password. For those
    /// who prove a credential with the capability `admin`: where a password has outlived everybody who knows it, or an owner
    /// does harm. Whoever opens the channel next owns it.
    ///
    /// # Errors
    /// As for any call; [`Refusal::NotAllowed`](crate::Refusal::NotAllowed) where the credential lacks the capability,
    /// [`Refusal::NoSuchChannel`](crate::Refusal::NoSuchChannel) where there is nothing to clear,
    /// [`Refusal::HubOwned`](crate::Refusal::HubOwned) for the hub's own channels,
    /// [`Refusal::Overloaded`](crate::Refusal::Overloaded) where a change of it is being stored at the moment,
    /// [`Refusal::StorageFailed`](crate::Refusal::StorageFailed) where this one could not be,
    /// [`Refusal::PasswordRequired`](crate::Refusal::PasswordRequired) as for [`Client::channels`].
    ///
    /// # Cancel safety
    /// Dropped midway, the channel may have ended or not; doing it again is safe.
    pub async fn clear(&self, channel: impl IntoChannel) -> Result<(), CallError> {
        let channel = channel.into_channel()?;
        self.call(SYSTEM_CHANNEL, "clear", &Question { channel: Some(&channel), after: None }).await
    }

    /// All pages of an answer.
    async fn ask<T: for<'de> Deserialize<'de>>(&self, what: &str, channel: Option<&str>) -> Result<Vec<T>, CallError> {
        let (mut entries, mut after) = (Vec::new(), None);
        loop {
            let page: Page<T> = self.call(SYSTEM_CHANNEL, what, &Question { channel, after }).await?;
            // A hub that never came to an end would keep us for ever.
            if page.next.is_some() && (page.entries.is_empty() || page.next <= after) {
                return Err(CallError::Decode("a list goes on and does not advance".to_owned()));
            }
            entries.extend(page.entries);
            after = page.next;
            if after.is_none() {
                return Ok(entries);
            }
        }
    }
}
