//! `commipc send` and `commipc broadcast`: messages that nobody answers.

use ciborium::Value;

use crate::args::{Broadcast, Common, Send};
use crate::connect;
use crate::errors::About;
use crate::failure::Outcome;

pub(crate) async fn send(args: &Send, payload: Value, common: &Common) -> Outcome {
    let about = About::new(connect::url(common), &args.topic.channel, &args.topic.event)?;
    let client = connect::client(common).await?;
    let channel =
        connect::opening(&client, &about.channel, common)?.await.map_err(|error| about.failed(error.code(), &error))?;
    channel.send(&about.event, &payload).await.map_err(|error| about.failed(error.code(), &error))?;
    if common.json {
        crate::say(serde_json::json!({ "sent": about.to_json() }));
    }
    client.close().await;
    Ok(())
}

pub(crate) async fn broadcast(args: &Broadcast, payload: Value, common: &Common) -> Outcome {
    let about = About::new(connect::url(common), &args.topic.channel, &args.topic.event)?;
    let client = connect::client(common).await?;
    let channel =
        connect::opening(&client, &about.channel, common)?.await.map_err(|error| about.failed(error.code(), &error))?;
    for _ in 0..args.count {
        channel.broadcast(&about.event, &payload).await.map_err(|error| about.failed(error.code(), &error))?;
    }
    if common.json {
        let mut said = about.to_json();
        said["count"] = args.count.into();
        crate::say(serde_json::json!({ "broadcast": said }));
    }
    client.close().await;
    Ok(())
}
