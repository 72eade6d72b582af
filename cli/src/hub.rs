//! `commipc hub`: a hub until SIGTERM or Ctrl-C.

use commipc_tokio::local::LocalError;
use commipc_tokio::{HubError, SecretSourceError};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::args::{Common, Hub};
use crate::connect;
use crate::failure::{Exit, Failure, Outcome};
use crate::stop::Stop;

pub(crate) async fn run(args: Hub, common: &Common) -> Outcome {
    // Before the line that says it is ready: whoever reads it may send a signal at once.
    let mut stop = Stop::new()?;
    allow_many_files();
    let mut builder = commipc_tokio::hub();
    let urls = if args.listen.is_empty() { vec![connect::url(common)] } else { args.listen };
    for url in &urls {
        builder = builder.listen(url);
    }
    if let Some(id) = &common.id {
        builder = builder.id(id);
    }
    if let Some(file) = &common.secret_file {
        builder = builder.secret_file(file);
    }
    if common.insecure_no_auth {
        builder = builder.insecure_no_auth();
    }
    let hub = builder.start().await.map_err(|error| not_started(&error))?;
    for url in hub.urls() {
        if common.json {
            crate::say(serde_json::json!({ "listening": url.to_string() }));
        } else {
            crate::say(format_args!("listening on {url}"));
        }
    }
    stop.requested().await;
    hub.shutdown().await;
    Ok(())
}

/// A hub with many clients needs many files; it takes as many as it is allowed.
fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::debug!(%error, "the limit on open files stays as it is");
    }
}

fn not_started(error: &HubError) -> Failure {
    let key_file = matches!(
        error,
        HubError::Local(LocalError::KeyUnsafe { .. } | LocalError::KeyUnreadable(_) | LocalError::KeyMalformed(_))
    );
    let exit = if matches!(error, HubError::Url(_) | HubError::BadName(_)) {
        Exit::Usage
    } else if key_file || matches!(error, HubError::Secret(_)) {
        Exit::Refused
    } else {
        Exit::Other
    };
    let failure = Failure::new(exit, format!("the hub did not start: {error}")).code(error.code().0);
    if matches!(error, HubError::Secret(SecretSourceError::Needed(_))) {
        return failure.hint("make one with 'commipc keygen --out hub.key' and name it with --secret-file hub.key");
    }
    failure
}
