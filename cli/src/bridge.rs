//! `commipc bridge`: joins two hubs until SIGTERM or Ctrl-C.

use std::num::NonZeroU32;
use std::path::PathBuf;

use commipc_tokio::{Bridge, BridgeBuilder, BridgeClosed, BridgeError, Side};

use crate::args::Common;
use crate::failure::{Exit, Failure, Outcome};
use crate::stop::Stop;

const EXAMPLES: &str = "\
Examples:
  commipc bridge unix:/run/user/1000/commipc.sock tcp://host:7117 --secret-file bridge.key
  commipc bridge URL_A URL_B --secret-file-a a.key --secret-file-b b.key --allow 'sensors-*' --allow 'jobs@run'
  commipc bridge URL_A URL_B --secret-file bridge.key --one-way --rate 1000

Both hubs must know its secret:
  commipc keygen --out bridge.key
  commipc hub --listen tcp://0.0.0.0:7117 --secret-file hub.key --bridge-secret-file bridge.key";

/// Join two hubs until SIGTERM or Ctrl-C
///
/// What the clients of one hub provide, say and ask is there for those of the other, with their own names and signatures.
/// Prints `bridged` when each hub knows what the other has, and again after a connection was lost and made anew; a hub that
/// is not there is waited for. Hubs and bridges may form rings: nobody gets a message twice, and nothing goes in circles.
///
/// Each hub must have a secret for bridges (`hub --bridge-secret-file`), which is not the one of its clients.
///
/// A bridge dials Unix sockets and TCP, not TLS. On TCP nobody on the network can change anything, and everybody there can read
/// it: between machines let it run inside a tunnel (`ssh -L 7117:localhost:7117 HOST`, WireGuard) and name the near end of that.
#[derive(clap::Args, Debug)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Args {
    /// The first hub: unix:/path or tcp://host:port
    #[arg(value_name = "URL_A")]
    a: String,
    /// The second hub
    #[arg(value_name = "URL_B")]
    b: String,
    /// What may pass, may be repeated: CHANNEL or CHANNEL@EVENT, with * for any text [default: everything]
    #[arg(long, value_name = "PATTERN")]
    allow: Vec<String>,
    /// Only what the first hub offers is there at the second: its providers are called and its broadcasts are heard there
    #[arg(long)]
    one_way: bool,
    /// How many calls, sends and broadcasts together pass in a second, each way [default: all]
    #[arg(long, value_name = "N")]
    rate: Option<NonZeroU32>,
    /// The bridges' secret of the first hub [default: the common option --secret-file]
    #[arg(long, value_name = "FILE")]
    secret_file_a: Option<PathBuf>,
    /// The bridges' secret of the second hub [default: the common option --secret-file]
    #[arg(long, value_name = "FILE")]
    secret_file_b: Option<PathBuf>,
}

pub(crate) async fn run(args: &Args, common: &Common) -> Outcome {
    let mut stop = Stop::new()?;
    let builder = builder(args, common);
    let bridge = tokio::select! {
        () = stop.requested() => return Ok(()),
        bridge = builder.start() => bridge.map_err(|error| failed(&error))?,
    };
    let outcome = tokio::select! {
        () = stop.requested() => Ok(()),
        failure = watch(&bridge, common.json) => Err(failure),
    };
    bridge.close().await;
    outcome
}

fn builder(args: &Args, common: &Common) -> BridgeBuilder {
    let mut builder = commipc_tokio::bridge(&args.a, &args.b);
    for (side, file) in [(Side::A, &args.secret_file_a), (Side::B, &args.secret_file_b)] {
        if let Some(file) = file.as_ref().or(common.secret_file.as_ref()) {
            builder = builder.secret_file(side, file);
        }
    }
    if let Some(id) = &common.id {
        builder = builder.id(id);
    }
    if let Some(credential) = &common.credential {
        builder = builder.credential(credential);
    }
    for pattern in &args.allow {
        builder = builder.allow(pattern);
    }
    if args.one_way {
        builder = builder.one_way();
    }
    match args.rate {
        Some(rate) => builder.rate(rate),
        None => builder,
    }
}

/// Says how the bridge is, for as long as it is.
async fn watch(bridge: &Bridge, json: bool) -> Failure {
    loop {
        match bridge.bridged().await {
            Ok((a, b)) if json => crate::say(serde_json::json!({ "bridged": [a.as_str(), b.as_str()] })),
            Ok(_) => crate::say("bridged"),
            Err(error) => return failed(&error),
        }
        bridge.parted().await;
        crate::note("a connection was lost and is made again", json);
    }
}

fn failed(error: &BridgeError) -> Failure {
    let exit = if matches!(error, BridgeError::Url(_) | BridgeError::BadName(_) | BridgeError::Allow(_)) {
        Exit::Usage
    } else if matches!(error, BridgeError::Unreachable { .. }) {
        Exit::Unreachable
    } else if matches!(error, BridgeError::Seed(_) | BridgeError::Closed(BridgeClosed::Local)) {
        Exit::Other
    } else {
        Exit::Refused
    };
    let failure = Failure::new(exit, error.to_string()).code(error.code().0);
    if matches!(error, BridgeError::NoSecret(_)) {
        return failure.hint("'commipc bridge --help' shows how the secret of bridges is made and named");
    }
    failure
}
