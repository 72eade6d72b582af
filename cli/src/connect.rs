//! From the common options to a hub's URL and a client.

use std::fmt::Display;
use std::os::unix::net::UnixStream;
use std::path::Path;

use commipc_tokio::{
    Channel, ChannelName, Client, ClientBuilder, ConnectError, Misuse, Opening, Refusal, Secret, SecretSourceError,
    local::LocalError,
};

use crate::args::Common;
use crate::errors::{self, About};
use crate::failure::{Exit, Failure, Outcome};

/// The hub that the options or the environment name, or the default one.
pub(crate) fn url(common: &Common) -> String {
    // An empty URL is how a script says "the default".
    common.hub.clone().filter(|url| !url.is_empty()).unwrap_or_else(commipc_tokio::default_url)
}

/// Connects as the options say. A connection that is lost is the end.
pub(crate) async fn client(common: &Common) -> Outcome<Client> {
    connect(common, ClientBuilder::no_reconnect).await
}

/// Connects as the options say. A connection that is lost comes back.
pub(crate) async fn lasting_client(common: &Common) -> Outcome<Client> {
    connect(common, |builder| builder).await
}

async fn connect(common: &Common, set: fn(ClientBuilder) -> ClientBuilder) -> Outcome<Client> {
    let url = url(common);
    let mut builder = set(commipc_tokio::client(&url));
    if let Some(id) = &common.id {
        builder = builder.id(id);
    }
    if let Some(credential) = &common.credential {
        builder = builder.credential(credential);
    }
    if let Some(file) = &common.secret_file {
        builder = builder.secret_file(file);
    }
    if common.insecure_no_auth {
        builder = builder.insecure_no_auth();
    }
    builder.connect().await.map_err(|error| not_connected(&url, common, &error))
}

/// Connects, and opens the channel that a command is about.
pub(crate) async fn channel(about: &About, common: &Common) -> Outcome<(Client, Channel)> {
    let client = client(common).await?;
    let opening = opening(&client, &about.channel, common)?;
    let channel = opening.await.map_err(|error| about.failed(error.code(), &error))?;
    Ok((client, channel))
}

/// Opens a channel as one who comes and goes, with the password that the options name.
pub(crate) fn opening(client: &Client, channel: &ChannelName, common: &Common) -> Outcome<Opening> {
    let opening = client.open(channel).as_member();
    Ok(match channel_secret(common)? {
        Some(secret) => opening.secret(secret),
        None => opening,
    })
}

/// The channel's password that the options name.
pub(crate) fn channel_secret(common: &Common) -> Outcome<Option<Secret>> {
    common.password_file.as_deref().map(read_password).transpose()
}

/// A channel's password.
pub(crate) fn read_password(path: &Path) -> Outcome<Secret> {
    let unreadable = |why: &dyn Display| {
        Failure::new(Exit::Refused, format!("the password file {} cannot be used: {why}", path.display()))
            .hint("write the channel's password, or what 'commipc keygen' makes, to a file that only you can read")
    };
    commipc_tokio::read_secret_file(path).map_err(|error| {
        // Which file it is stands before it anyway.
        if let SecretSourceError::File { source, .. } = &error { unreadable(source) } else { unreadable(&error) }
    })
}

fn not_connected(url: &str, common: &Common, error: &ConnectError) -> Failure {
    // What the library adds to these texts for programs is said here by advice.
    if let ConnectError::Unreachable { detail, .. } = error {
        return errors::connection(url, error.code().0, detail);
    }
    if let ConnectError::Secret(SecretSourceError::Local(LocalError::KeyMissing(_))) = error
        && nobody_listens(url)
    {
        return errors::connection(url, Misuse::Unreachable.code(), "no hub is listening there");
    }
    if let ConnectError::Url(error) = error {
        return Failure::usage(error.to_string());
    }
    if let ConnectError::BadName(error) = error {
        return bad_name(common, &error.to_string());
    }
    if let ConnectError::Secret(error) = error {
        return Failure::new(Exit::Refused, error.to_string()).code(Refusal::AuthFailed.code());
    }
    errors::connection(url, error.code().0, &error.to_string())
}

/// A name on the command line that no name may be.
fn bad_name(common: &Common, why: &str) -> Failure {
    let names: Vec<&str> = [&common.id, &common.credential].into_iter().flatten().map(String::as_str).collect();
    Failure::usage(format!("--id or --credential ({}): {why}", names.join(", "))).code(Misuse::BadName.code())
}

/// Whether a missing key only shows that no hub has been started.
fn nobody_listens(url: &str) -> bool {
    url.strip_prefix("unix:").is_some_and(|path| UnixStream::connect(Path::new(path)).is_err())
}
