//! `commipc hub`: a hub until SIGTERM or Ctrl-C.

use std::future::pending;
use std::path::Path;

use commipc_tokio::local::LocalError;
use commipc_tokio::{CredentialTable, CredentialsError, Hub, HubBuilder, HubError, SecretSourceError};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::{self, Common};
use crate::connect;
use crate::failure::{Exit, Failure, Outcome};
use crate::metrics::Metrics;
use crate::stop::Stop;

pub(crate) async fn run(args: args::Hub, common: &Common) -> Outcome {
    // Before the line that says it is ready: whoever reads it may send a signal at once.
    let mut stop = Stop::new()?;
    let bridges = args.bridge_secret_file.as_deref();
    let mut reloads = args.credentials.as_deref().map(|file| Reloads::new(file, bridges, common)).transpose()?;
    allow_many_files();
    let builder = builder(&args, common, reloads.as_ref())?;
    let metrics = match args.metrics {
        Some(address) => Some(Metrics::listen(address).await?),
        None => None,
    };
    let hub = builder.start().await.map_err(|error| not_started(&error))?;
    for url in hub.urls() {
        if common.json {
            crate::say(serde_json::json!({ "listening": url.to_string() }));
        } else {
            crate::say(format_args!("listening on {url}"));
        }
    }
    if let Some(metrics) = &metrics {
        metrics.announce(common.json);
    }
    let reloading = async {
        match &mut reloads {
            Some(reloads) => reloads.serve(&hub).await,
            None => pending().await,
        }
    };
    let measuring = async {
        match &metrics {
            Some(metrics) => metrics.serve(&hub).await,
            None => pending().await,
        }
    };
    tokio::select! {
        () = stop.requested() => {}
        () = reloading => {}
        () = measuring => {}
    }
    stop.drain(&hub, args.draining.drain, common.json).await
}

fn builder(args: &args::Hub, common: &Common, reloads: Option<&Reloads<'_>>) -> Outcome<HubBuilder> {
    let mut builder = commipc_tokio::hub().on_owner_leave(args.on_owner_leave);
    let urls = if args.listen.is_empty() { vec![connect::url(common)] } else { args.listen.clone() };
    for url in &urls {
        builder = builder.listen(url);
    }
    if let Some(id) = &common.id {
        builder = builder.id(id);
    }
    if let Some(file) = &args.system_password_file {
        builder = builder.system_password_file(file);
    }
    if let Some(dir) = &args.state_dir {
        builder = builder.state_dir(dir);
    }
    if let Some(file) = args.bridge_secret_file.as_deref().filter(|_| reloads.is_none()) {
        builder = builder.bridge_secret_file(file);
    }
    if let Some(reloads) = reloads {
        builder = builder.credentials(reloads.table().map_err(|error| not_started(&error))?);
    } else if let Some(file) = &common.secret_file {
        builder = builder.secret_file(file);
    }
    if common.insecure_no_auth {
        builder = builder.insecure_no_auth();
    }
    Ok(builder)
}

/// A table of credentials, read anew at each SIGHUP.
struct Reloads<'a> {
    file: &'a Path,
    /// The file of the entry `default`, if the table does not have it.
    secret_file: Option<&'a Path>,
    /// The file of the entry `bridge`, if the table does not have it.
    bridges: Option<&'a Path>,
    json: bool,
    asked: Signal,
}

impl<'a> Reloads<'a> {
    /// From now on the signal no longer ends the process.
    fn new(file: &'a Path, bridges: Option<&'a Path>, common: &'a Common) -> Outcome<Self> {
        let asked = signal(SignalKind::hangup()).map_err(|error| Failure::io("taking signals", &error))?;
        Ok(Self { file, secret_file: common.secret_file.as_deref(), bridges, json: common.json, asked })
    }

    fn table(&self) -> Result<CredentialTable, HubError> {
        let table = CredentialTable::read(self.file)?;
        let table = match self.bridges {
            Some(secret) => table.with_bridges_file(secret)?,
            None => table,
        };
        Ok(match self.secret_file {
            Some(secret) => table.with_shared_file(secret)?,
            None => table,
        })
    }

    /// Goes on for ever.
    async fn serve(&mut self, hub: &Hub) {
        while self.asked.recv().await.is_some() {
            match self.reload(hub).await {
                Ok(()) if self.json => crate::say(serde_json::json!({ "reloaded": self.file })),
                Ok(()) => crate::say(format_args!("reloaded {}", self.file.display())),
                Err(error) => {
                    let text = format!("the credentials were not reloaded, the old ones stay in force: {error}");
                    failed(&error, text).tell(self.json);
                }
            }
        }
    }

    async fn reload(&self, hub: &Hub) -> Result<(), HubError> {
        hub.set_credentials(self.table()?).await
    }
}

/// Takes as many open files as the process is allowed: a hub with many clients needs one for each.
pub(crate) fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::debug!(%error, "the limit on open files stays as it is");
    }
}

fn not_started(error: &HubError) -> Failure {
    failed(error, format!("the hub did not start: {error}"))
}

fn failed(error: &HubError, text: String) -> Failure {
    let key_file = matches!(
        error,
        HubError::Local(LocalError::KeyUnsafe { .. } | LocalError::KeyUnreadable(_) | LocalError::KeyMalformed(_))
    );
    let exit = if matches!(error, HubError::Url(_) | HubError::BadName(_)) {
        Exit::Usage
    } else if key_file || matches!(error, HubError::Secret(_) | HubError::Credentials(_)) {
        Exit::Refused
    } else {
        Exit::Other
    };
    let failure = Failure::new(exit, text).code(error.code().0);
    if matches!(error, HubError::Secret(SecretSourceError::Needed(_))) {
        return failure.hint("make one with 'commipc keygen --out hub.key' and name it with --secret-file hub.key");
    }
    if matches!(error, HubError::Secret(SecretSourceError::TwoDefaults)) {
        return failure.hint("take the line 'default' out of the table, or leave --secret-file out");
    }
    if matches!(error, HubError::Credentials(CredentialsError::Line { .. } | CredentialsError::Empty)) {
        return failure.hint("'commipc hub --help' shows how a table is written");
    }
    failure
}
