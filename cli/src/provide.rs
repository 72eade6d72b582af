//! `commipc provide`: an instant provider.

use std::future::ready;
use std::sync::Arc;

use ciborium::Value;
use commipc_tokio::{Channel, EventName, Fault, FaultCode, ProvideError, Provider, Request};
use futures_lite::stream::{self, StreamExt as _};

use crate::args::{Common, Provide};
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
    EchoItem,
    Items(Arc<[Value]>),
    ExecLines(Arc<str>),
}

impl Answers {
    pub(crate) fn of(Provide { with, stream, .. }: &Provide) -> Outcome<Self> {
        let wrong = |error| Failure::usage(format!("the value of --reply is {error}"));
        let reply = with.reply.as_deref().map(json::parse).transpose().map_err(wrong)?;
        Ok(match (reply, &with.exec, stream) {
            (Some(Value::Array(items)), _, true) => Self::Items(items.into()),
            (Some(item), _, true) => Self::Items([item].into()),
            (Some(reply), _, false) => Self::Reply(reply),
            (None, Some(command), true) => Self::ExecLines(command.as_str().into()),
            (None, Some(command), false) => Self::Exec(command.as_str().into()),
            (None, None, true) => Self::EchoItem,
            (None, None, false) => Self::Echo,
        })
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
        () = stop.requested() => {}
        why = channel.closed() => {
            return Err(errors::closed(&about.hub, &about.channel, &client, why).await);
        }
    }
    stop.drain(&client, args.draining.drain, common.json).await
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
        Answers::EchoItem => {
            let answer = |request: Request<Value>| stream::once(Ok::<_, Fault>(request.into_inner()));
            channel.provide_stream(event, answer).await
        }
        Answers::Items(items) => {
            let answer = move |_: Request<Value>| {
                let items = Arc::clone(&items);
                stream::iter((0..items.len()).map(move |n| Ok::<_, Fault>(items[n].clone())))
            };
            channel.provide_stream(event, answer).await
        }
        Answers::ExecLines(command) => {
            let answer = move |request: Request<Value>| {
                let lines = exec::lines(Arc::clone(&command), json::print(&request).into_bytes());
                lines.map(move |line| line.map(|line| answer_of(&line)).map_err(|error| failed(&error, json)))
            };
            channel.provide_stream(event, answer).await
        }
    }
}

/// Runs the command for one request. Why it failed stays here; the caller learns only that it did.
async fn execute(command: &str, payload: &Value, json: bool) -> Result<Value, Fault> {
    let output = exec::run(command, json::print(payload).as_bytes()).await.map_err(|error| failed(&error, json))?;
    Ok(answer_of(&output))
}

fn failed(error: &std::io::Error, json: bool) -> Fault {
    crate::note(&format!("a request failed: {error}"), json);
    FaultCode::HandlerFailed.into()
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
