//! `commipc protect`: gives a channel a password and stays as its owner, also when the hub is started anew.

use std::fmt::Display;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use commipc_tokio::{
    AfterGrace, Channel, ChannelName, Client, Code, ConnectionState, Opening, OwnerKey, OwnerPolicy, Refusal, Secret,
    SecretSourceError, read_owner_key_file,
};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{Common, Protect};
use crate::errors::{self, channel_name};
use crate::failure::{Exit, Failure, Outcome};
use crate::stop::Stop;
use crate::{connect, keygen};

/// A channel whose owner has kept its key goes on without it for so long.
const HELD: OwnerPolicy = OwnerPolicy::Hold { grace: Duration::from_secs(24 * 3_600), then: AfterGrace::Terminate };

pub(crate) async fn run(args: &Protect, common: &Common) -> Outcome {
    let mut stop = Stop::new()?;
    let mut reload = signal(SignalKind::hangup()).map_err(|error| Failure::io("taking signals", &error))?;
    let hub = connect::url(common);
    let name = channel_name(&args.channel)?;
    let secret = next_password(args, common)?;
    let key = args.owner_key_file.as_deref().map(read_key).transpose()?.flatten();
    let client = connect::lasting_client(common).await?;
    let (mut states, mut away) = (client.states(), false);
    let vault = Vault { args, common, client: &client, hub: &hub, name: &name };
    let channel = match key {
        Some(key) => vault.own(key, secret).await?,
        None => vault.make(client.open(&name), secret).await?,
    };
    tell(args, common.json, "protecting");
    loop {
        tokio::select! {
            () = stop.requested() => break,
            why = channel.closed() => return Err(errors::closed(&hub, &name, &client, why).await),
            Some(state) = states.next() => tell_state(state, &mut away, common.json),
            _ = reload.recv() => match rotate(&channel, args, common).await {
                Ok(()) => tell(args, common.json, "rekeyed"),
                Err(failure) => failure.tell(common.json),
            },
        }
    }
    if args.owner_key_file.is_some() {
        // Whoever has the key comes back to it.
        client.close().await;
        return Ok(());
    }
    // Gives it up, rather than being lost: then nobody could own the name for a day.
    drop(channel);
    client.close().await;
    Ok(())
}

/// The channel, and how it is come by.
struct Vault<'a> {
    args: &'a Protect,
    common: &'a Common,
    client: &'a Client,
    hub: &'a str,
    name: &'a ChannelName,
}

impl Vault<'_> {
    /// Opens the channel as its first member, without the password, which is a new one.
    async fn make(&self, mut opening: Opening, secret: Secret) -> Outcome<Channel> {
        let file = self.args.owner_key_file.as_deref();
        if file.is_some() {
            opening = opening.on_owner_leave(HELD);
        }
        let channel = opening.await.map_err(|error| {
            let failure = self.failed(error.code(), &error);
            if error.code().0 == Refusal::PasswordRequired.code() {
                return failure.hint(format!(
                    "it has a password already, and whoever set it owns it: stop that, take another name, wait for a \
                     day after its last member, or let an admin clear it: commipc clear {}",
                    self.name
                ));
            }
            failure
        })?;
        if let Some(file) = file.filter(|file| !file.exists()) {
            let not_owner = Refusal::NotOwner;
            let key = channel.owner_key().ok_or_else(|| self.failed(Code(not_owner.code()), &not_owner))?;
            // Before the password is in force: without its key nobody could change it from elsewhere.
            keygen::write_new(file, &key.to_text())?;
        }
        channel.protect_with(secret).await.map_err(|error| self.failed(error.code(), &error))?;
        Ok(channel)
    }

    /// Owns the channel by its key, here or at another hub.
    async fn own(&self, key: OwnerKey, secret: Secret) -> Outcome<Channel> {
        let at_home = key.hub() == self.client.hub_id();
        let opening = self.client.open(self.name).owner_key(key.clone()).secret(password(self.common)?);
        let channel = match opening.await {
            Ok(channel) => channel,
            // It has ended meanwhile, and can be made anew where it was.
            Err(error) if at_home && error.code().0 == Refusal::NotProtected.code() => {
                return self.make(self.client.open(self.name).owner_key(key), secret).await;
            }
            Err(error) => {
                let failure = self.failed(error.code(), &error);
                return Err(if error.code().0 == Refusal::PasswordWrong.code() {
                    failure.hint("--password-file is to hold the password that the channel has; name the file of a new one with --new-password-file")
                } else {
                    failure
                });
            }
        };
        if self.args.new_password_file.is_some() {
            channel.protect_with(secret).await.map_err(|error| self.failed(error.code(), &error))?;
            tell(self.args, self.common.json, "rekeyed");
        }
        Ok(channel)
    }

    fn failed(&self, code: Code, error: &impl Display) -> Failure {
        errors::operation(self.hub, self.name, None, code, &error.to_string())
    }
}

/// The owner's key; none where the file has yet to be written.
fn read_key(path: &Path) -> Outcome<Option<OwnerKey>> {
    match read_owner_key_file(path) {
        Ok(key) => Ok(Some(key)),
        Err(SecretSourceError::File { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => {
            let text = format!("the owner key file {} cannot be used: {error}", path.display());
            Err(Failure::new(Exit::Refused, text).hint("name a file that this command has written, or a new one"))
        }
    }
}

async fn rotate(channel: &Channel, args: &Protect, common: &Common) -> Outcome {
    let secret = next_password(args, common)?;
    channel.protect_with(secret).await.map_err(|error| {
        let failure = Failure::usage(format!("the password stays as it was: {error}"));
        failure.code(error.code().0)
    })
}

/// What the password is to be.
fn next_password(args: &Protect, common: &Common) -> Outcome<Secret> {
    match &args.new_password_file {
        Some(file) => connect::read_password(file),
        None => password(common),
    }
}

fn password(common: &Common) -> Outcome<Secret> {
    connect::channel_secret(common)?.ok_or_else(|| {
        Failure::usage("the new password is missing").hint("write it to a file and name that with --password-file FILE")
    })
}

/// Says when a connection goes and when it is back.
fn tell_state(state: ConnectionState, away: &mut bool, json: bool) {
    if let ConnectionState::Lost { reason, .. } = state
        && !*away
    {
        *away = true;
        crate::note(&format!("{reason}; the hub is tried again until it is back"), json);
    } else if state == ConnectionState::Ready && *away {
        *away = false;
        crate::note("the hub is back", json);
    }
}

fn tell(args: &Protect, json: bool, what: &str) {
    if json {
        crate::say(serde_json::json!({ what: args.channel }));
    } else {
        crate::say(format_args!("{what} {}", args.channel));
    }
}
