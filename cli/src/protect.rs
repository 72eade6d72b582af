//! `commipc protect`: gives a channel a password and stays as its owner, also when the hub is started anew.

use commipc_tokio::{Channel, ConnectionState, Refusal, Secret};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{Common, Protect};
use crate::connect;
use crate::errors::{self, channel_name};
use crate::failure::{Failure, Outcome};
use crate::stop::Stop;

pub(crate) async fn run(args: &Protect, common: &Common) -> Outcome {
    let mut stop = Stop::new()?;
    let mut reload = signal(SignalKind::hangup()).map_err(|error| Failure::io("taking signals", &error))?;
    let hub = connect::url(common);
    let name = channel_name(&args.channel)?;
    let secret = password(common)?;
    let failed = |code, text: String| errors::operation(&hub, &name, None, code, &text);
    let client = connect::lasting_client(common).await?;
    let (mut states, mut away) = (client.states(), false);
    // The password is the new one: the channel is opened without, as its first member.
    let channel = client.open(&name).await.map_err(|error| {
        let failure = failed(error.code(), error.to_string());
        if error.code().0 == Refusal::PasswordRequired.code() {
            return failure.hint(format!(
                "it has a password already, and whoever set it owns it: stop that, take another name, wait for a day \
                 after its last member, or let an admin clear it: commipc clear {name}"
            ));
        }
        failure
    })?;
    channel.protect_with(secret).await.map_err(|error| failed(error.code(), error.to_string()))?;
    tell(args, common.json, "protecting");
    loop {
        tokio::select! {
            () = stop.requested() => break,
            why = channel.closed() => return Err(errors::closed(&hub, &name, &client, why).await),
            Some(state) = states.next() => tell_state(state, &mut away, common.json),
            _ = reload.recv() => match rotate(&channel, common).await {
                Ok(()) => tell(args, common.json, "rekeyed"),
                Err(failure) => failure.tell(common.json),
            },
        }
    }
    // Gives it up, rather than being lost: then nobody could own the name for a day.
    drop(channel);
    client.close().await;
    Ok(())
}

async fn rotate(channel: &Channel, common: &Common) -> Outcome {
    let secret = password(common)?;
    channel.protect_with(secret).await.map_err(|error| {
        let failure = Failure::usage(format!("the password stays as it was: {error}"));
        failure.code(error.code().0)
    })
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
