//! `commipc provide`: an instant provider.

use std::future::ready;
use std::sync::Arc;

use ciborium::Value;
use commipc_tokio::{Channel, EventName, Fault, FaultCode, ProvideError, Provider, Request};

use crate::args::{Answering, Common, Provide};
use crate::connect;
use crate::errors::{self, About};
use crate::exec;
use crate::failure::{Failure, Outcome};
use crate::json;
use crate::stop::Stop;

/// What to answer with, checked before anything is started.
pub(crate) enum Answers {
    Echo,
    Reply(Value),
    Exec(Arc<str>),
}

impl Answers {
    pub(crate) fn of(args: &Answering) -> Outcome<Self> {
        match (&args.reply, &args.exec) {
            (Some(reply), _) => json::parse(reply)
                .map(Self::Reply)
                .map_err(|error| Failure::usage(format!("the value of --reply is {error}"))),
            (None, Some(command)) => Ok(Self::Exec(command.as_str().into())),
            (None, None) => Ok(Self::Echo),
        }
    }
}

pub(crate) async fn run(args: &Provide, answers: Answers, common: &Common) -> Outcome {
    let mut stop = Stop::new()?;
    let about = About::new(connect::url(common), &args.topic.channel, &args.topic.event)?;
    let client = connect::client(common).await?;
    let channel =
        connect::opening(&client, &about.channel, common)?.await.map_err(|error| about.failed(error.code(), &error))?;
    let _provider = provide(&channel, &about.event, answers, common.json)
        .await
        .map_err(|error| about.failed(error.code(), &error))?;
    if common.json {
        crate::say(serde_json::json!({ "providing": about.to_json() }));
    } else {
        crate::say(format_args!("providing {}/{}", about.channel, about.event));
    }
    tokio::select! {
        () = stop.requested() => {
            client.close().await;
            Ok(())
        }
        why = channel.closed() => Err(errors::closed(&about.hub, &about.channel, &client, why).await),
    }
}

async fn provide(channel: &Channel, event: &EventName, answers: Answers, json: bool) -> Result<Provider, ProvideError> {
    match answers {
        Answers::Echo => {
            channel.provide(event, async |request: Request<Value>| Ok::<_, Fault>(request.into_inner())).await
        }
        Answers::Reply(value) => {
            let answer = move |_: Request<Value>| ready(Ok::<_, Fault>(value.clone()));
            channel.provide(event, answer).await
        }
        Answers::Exec(command) => {
            let answer = move |request: Request<Value>| {
                let command = Arc::clone(&command);
                async move { execute(&command, &request, json).await }
            };
            channel.provide(event, answer).await
        }
    }
}

/// Runs the command for one request. Why it failed stays here; the caller learns only that it did.
async fn execute(command: &str, payload: &Value, json: bool) -> Result<Value, Fault> {
    let output = exec::run(command, json::print(payload).as_bytes()).await.map_err(|error| {
        crate::note(&format!("a request failed: {error}"), json);
        FaultCode::HandlerFailed
    })?;
    Ok(answer_of(&output))
}

/// JSON as what it says, nothing as null, anything else as the text it is (bytes where it is none).
fn answer_of(output: &[u8]) -> Value {
    match str::from_utf8(output) {
        Ok(text) if text.trim().is_empty() => Value::Null,
        Ok(text) => json::parse(text).unwrap_or_else(|_| Value::Text(text.strip_suffix('\n').unwrap_or(text).into())),
        Err(_) => Value::Bytes(output.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_becomes_the_answer_it_looks_like() {
        assert_eq!(answer_of(b" [1]\n"), Value::Array(vec![1.into()]));
        assert_eq!(answer_of(b"two words\n"), Value::Text("two words".into()));
        assert_eq!(answer_of(b"two\nlines\n\n"), Value::Text("two\nlines\n".into()));
        assert_eq!(answer_of(b"\n"), Value::Null);
        assert_eq!(answer_of(&[0xff, 0]), Value::Bytes(vec![0xff, 0]));
    }
}
