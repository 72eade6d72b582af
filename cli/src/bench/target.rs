//! What is measured: a hub or the floor's relay, and how the processes at its ends are started.

use std::path::Path;

use super::args::{Load, PartCli, Role};
use super::part::Part;
use super::usage::Usage;
use crate::args::Common;
use crate::failure::Outcome;

/// A hub or a relay.
pub(super) struct Target {
    /// Absent when the hub was running already.
    middle: Option<Part>,
    /// The command line of an end: before its role, and after it.
    end: [Vec<String>; 2],
}

impl Target {
    /// The floor.
    pub(super) fn raw(dir: &Path) -> Outcome<Self> {
        let socket = dir.join("raw").display().to_string();
        let mut relay = Part::start("raw relay", &[PartCli::COMMAND.into(), "raw-relay".into(), socket.clone()])?;
        relay.line()?;
        Ok(Self { middle: Some(relay), end: [vec![PartCli::COMMAND.into(), "raw".into(), socket], Vec::new()] })
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
        Ok(Self { middle, end: [vec![PartCli::COMMAND.into(), "real".into()], options] })
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
        };
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
fn secrets(common: &Common) -> Vec<String> {
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
