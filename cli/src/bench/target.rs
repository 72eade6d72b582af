//! What is measured: a hub or the floor's relay, and how the processes at its ends are started.

use std::path::Path;

use commipc_tokio::{Channel, Client, Secret};

use super::args::{Load, PartCli, Role};
use super::part::Part;
use super::report::Columns;
use super::usage::Usage;
use crate::args::Common;
use crate::connect;
use crate::errors::{self, About};
use crate::failure::{Failure, Outcome};

/// A hub or a relay.
pub(super) struct Target {
    /// Absent when the hub was running already.
    middle: Option<Part>,
    /// The command line of an end: before its role, and after it.
    end: [Vec<String>; 2],
    /// Who has given the channel its password.
    owner: Option<Part>,
}

/// The channel that all ends meet on.
pub(super) const CHANNEL: &str = "bench";
/// The password of a channel with one: what signing costs does not depend on it.
const PASSWORD: [u8; 32] = *b"a key that everybody here knows.";

/// Opens the channel as one of its ends.
pub(super) async fn open(client: &Client, about: &About, load: Load) -> Outcome<Channel> {
    let opening = client.open(&about.channel);
    let opening = if load.protected { opening.secret(Secret::key(PASSWORD)) } else { opening };
    opening.await.map_err(|error| about.failed(error.code(), &error))
}

/// Opens the channel first, gives it a password and stays.
pub(super) async fn owner(common: &Common) -> Outcome {
    let about = About::new(connect::url(common), CHANNEL, "owner")?;
    let client = connect::client(common).await?;
    let channel = client.open(&about.channel).await.map_err(|error| about.failed(error.code(), &error))?;
    let protected = channel.protect_with(Secret::key(PASSWORD)).await;
    protected.map_err(|error| about.failed(error.code(), &error))?;
    crate::say("ready");
    let reason = client.closed().await;
    Err(errors::lost(&about.hub, reason))
}

impl Target {
    /// The floor.
    pub(super) fn raw(dir: &Path) -> Outcome<Self> {
        let socket = dir.join("raw").display().to_string();
        let mut relay = Part::start("raw relay", &[PartCli::COMMAND.into(), "raw-relay".into(), socket.clone()])?;
        relay.line()?;
        Ok(Self {
            middle: Some(relay),
            end: [vec![PartCli::COMMAND.into(), "raw".into(), socket], Vec::new()],
            owner: None,
        })
    }

    /// A hub and what it is compared with: itself on a channel without a password, or the floor.
    pub(super) fn pair(common: &Common, dir: &Path, protected: bool, running: Option<&str>) -> Outcome<[Self; 2]> {
        if !protected {
            return Ok([Self::hub(common, dir, running)?, Self::raw(dir)?]);
        }
        let (one, other) = (dir.join("signed"), dir.join("unsigned"));
        for dir in [&one, &other] {
            std::fs::create_dir(dir).map_err(|error| Failure::io("making a directory", &error))?;
        }
        let (mut signed, unsigned) = (Self::hub(common, &one, None)?, Self::hub(common, &other, None)?);
        let load = Load { size: 0, raw: false, protected, in_flight: 1, clients: 1, seconds: 0.0 };
        signed.owner = Some(signed.start(Role::Owner, load)?);
        Ok([signed, unsigned])
    }

    pub(super) const fn columns(protected: bool) -> Columns {
        if protected { Columns::Signed } else { Columns::Floor }
    }

    /// A hub of its own, unless one is named that runs already.
    pub(super) fn hub(common: &Common, dir: &Path, running: Option<&str>) -> Outcome<Self> {
        let url = running.map_or_else(|| format!("unix:{}", dir.join("hub").display()), str::to_owned);
        let mut options = secrets(common);
        options.extend(["--hub".into(), url]);
        let middle = match running {
            Some(_) => None,
            None => {
                let mut hub = Part::start("hub", &[vec!["hub".into()], options.clone()].concat())?;
                hub.line()?;
                Some(hub)
            }
        };
        Ok(Self { middle, end: [vec![PartCli::COMMAND.into(), "real".into()], options], owner: None })
    }

    /// Starts an end and waits until it is ready.
    pub(super) fn start(&self, role: Role, load: Load) -> Outcome<Part> {
        let [before, after] = &self.end;
        let (name, word) = match role {
            Role::Provider => ("provider", "provider"),
            Role::Consumer => ("consumer", "consumer"),
            Role::Streamer => ("provider of streams", "streamer"),
            Role::Taker => ("consumer of streams", "taker"),
            Role::Broadcaster => ("broadcaster", "broadcaster"),
            Role::Members => ("members", "members"),
            Role::Connector => ("connecting client", "connector"),
            Role::Idle => ("idle clients", "idle"),
            Role::Owner => ("owner", "owner"),
        };
        let load = Load { protected: self.owner.is_some() || load.protected, ..load };
        let mut end = Part::start(name, &[&before[..], &[word.to_owned()], &load.options(), after].concat())?;
        end.line()?;
        Ok(end)
    }

    /// What the hub or relay has used so far.
    pub(super) fn usage(&self) -> Option<Usage> {
        self.middle.as_ref().and_then(Part::usage)
    }

    /// The memory of the hub or relay at the moment, in bytes.
    pub(super) fn memory(&self) -> Option<u64> {
        self.middle.as_ref().and_then(Part::memory)
    }
}

/// Measures the hub and the floor alternately, so that whatever else the machine does meets both alike.
pub(super) fn rounds<T>(
    targets: &[Target; 2],
    count: u32,
    mut measure: impl FnMut(&Target) -> Outcome<T>,
) -> Outcome<Vec<[T; 2]>> {
    let [hub, raw] = targets;
    (0..count).map(|_| Ok([measure(hub)?, measure(raw)?])).collect()
}

/// The options that say how to authenticate, for all processes alike.
pub(super) fn secrets(common: &Common) -> Vec<String> {
    let mut options = Vec::new();
    if let Some(file) = &common.secret_file {
        options.extend(["--secret-file".into(), file.display().to_string()]);
    }
    if let Some(credential) = &common.credential {
        options.extend(["--credential".into(), credential.clone()]);
    }
    options.extend(common.insecure_no_auth.then(|| "--insecure-no-auth".into()));
    options
}
