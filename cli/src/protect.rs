//! `commipc protect`: gives a channel a password and stays as its owner.

use commipc_tokio::{Channel, Secret};
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
    let client = connect::client(common).await?;
    // The password is the new one: the channel is opened without, as its first member.
    let channel = client.open(&name).await.map_err(|error| failed(error.code(), error.to_string()))?;
    channel.protect_with(secret).await.map_err(|error| failed(error.code(), error.to_string()))?;
    tell(args, common.json, "protecting");
    loop {
        tokio::select! {
            () = stop.requested() => break,
            why = channel.closed() => return Err(errors::closed(&hub, &name, &client, why).await),
            _ = reload.recv() => match rotate(&channel, common).await {
                Ok(()) => tell(args, common.json, "rekeyed"),
                Err(failure) => failure.tell(common.json),
            },
        }
    }
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

fn tell(args: &Protect, json: bool, what: &str) {
    if json {
        crate::say(serde_json::json!({ what: args.channel }));
    } else {
        crate::say(format_args!("{what} {}", args.channel));
    }
}
