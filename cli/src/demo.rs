//! `commipc demo`: hub, provider and consumer in one process, each step explained and checked.

use std::fmt::{Debug, Display};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use commipc_tokio::{Channel, Client, ConnectError, Fault, FaultCode, Hub, Refusal, Request, Secret};
use futures_lite::stream;
use serde::{Deserialize, Serialize};

use crate::failure::{Exit, Failure, Outcome};
use crate::keygen;
use crate::tamper::Tamper;

/// A step that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);
/// What a handler knows and nobody else may.
const PRIVATE: &str = "the database at 10.0.0.7 rejected user 'root'";

#[derive(Deserialize, Serialize)]
struct Sum {
    a: i64,
    b: i64,
}

/// An error that a handler knows the reason of.
struct DatabaseError(&'static str);

impl From<DatabaseError> for Fault {
    /// A handler says what its errors become. This one keeps its reason to itself.
    fn from(DatabaseError(reason): DatabaseError) -> Self {
        tracing::info!(reason, "the handler failed");
        FaultCode::HandlerFailed.into()
    }
}

/// Runs all steps. The first that goes otherwise than expected ends it.
pub(crate) async fn run(json: bool) -> Outcome {
    let dir = tempfile::tempdir().map_err(|error| Failure::io("making a temporary directory", &error))?;
    let demo = Demo { json };
    match tokio::time::timeout(PATIENCE, demo.steps(dir.path())).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::new(Exit::Other, format!("the demonstration hung for {PATIENCE:?}"))),
    }
}

struct Demo {
    json: bool,
}

impl Demo {
    async fn steps(&self, dir: &Path) -> Outcome {
        let url = format!("unix:{}", dir.join("hub.sock").display());
        let key = dir.join("hub.key");
        keygen::write_new(&key, &keygen::generate()?)?;
        self.tell("a key was generated; hub and clients prove to each other that they know it, and never send it");

        let hub =
            commipc_tokio::hub().listen(&url).secret_file(&key).start().await.map_err(|e| wrong("the hub", &e))?;
        self.tell("a hub listens on a Unix socket in a temporary directory");
        let service = connect(&url, &key, "math_service").await.map_err(|e| wrong("the provider's connection", &e))?;
        let consumer = connect(&url, &key, "consumer").await.map_err(|e| wrong("the consumer's connection", &e))?;
        self.tell("math_service and consumer are connected");

        let provided = service.open("math_operations").await.map_err(|e| wrong("opening the channel", &e))?;
        let math = consumer.open("math_operations").await.map_err(|e| wrong("opening the channel", &e))?;
        self.call(&provided, &math).await?;
        self.state(&provided, &math).await?;
        self.stream(&provided, &math).await?;
        self.broadcast(&provided, &math).await?;
        self.private_errors(&provided, &math).await?;
        self.tampered(&service, &key, dir).await?;
        self.wrong_key(&url, dir).await?;
        self.end(hub, service, consumer).await
    }

    /// One request, one answer.
    async fn call(&self, provided: &Channel, math: &Channel) -> Outcome {
        let provider = provided
            .provide("sum", async |r: Request<Sum>| Ok::<_, Fault>(r.a + r.b))
            .await
            .map_err(|e| wrong("providing math_operations/sum", &e))?;
        provider.detach();
        let total: i64 =
            math.call("sum", &Sum { a: 15, b: 25 }).deadline(PATIENCE).await.map_err(|e| wrong("the call", &e))?;
        expect("the sum", &total, &40)?;
        self.tell(&format!("consumer calls math_operations/sum: 15 + 25 = {total}"));
        Ok(())
    }

    /// A handler that remembers.
    async fn state(&self, provided: &Channel, math: &Channel) -> Outcome {
        let counter = Arc::new(AtomicU32::new(0));
        let count =
            async |counter: Arc<AtomicU32>, _: Request<()>| Ok::<_, Fault>(counter.fetch_add(1, Ordering::Relaxed) + 1);
        let provider = provided.provide_with(counter, "count", count).await.map_err(|e| wrong("the counter", &e))?;
        provider.detach();
        let mut counted: Vec<u32> = Vec::new();
        for _ in 0..3 {
            counted.push(math.call("count", &()).await.map_err(|e| wrong("the counter's call", &e))?);
        }
        expect("the counter", &counted, &vec![1, 2, 3])?;
        self.tell(&format!("a handler with state counts its calls: {counted:?}"));
        Ok(())
    }

    /// One request, many items, at the pace of whoever takes them.
    async fn stream(&self, provided: &Channel, math: &Channel) -> Outcome {
        let squares = |_: Request<()>| stream::iter((0_u64..).map(|n| Ok::<_, Fault>(n * n)));
        let provider = provided.provide_stream("squares", squares).await.map_err(|e| wrong("the squares", &e))?;
        provider.detach();
        let mut items = math.stream::<u64>("squares", &()).await.map_err(|e| wrong("asking for the squares", &e))?;
        let mut taken = Vec::new();
        while taken.len() < 5
            && let Some(square) = items.try_next().await.map_err(|e| wrong("the stream of squares", &e))?
        {
            taken.push(square);
        }
        drop(items);
        expect("the squares", &taken, &vec![0, 1, 4, 9, 16])?;
        self.tell(&format!("math_operations/squares is an endless stream; consumer takes {taken:?} and cancels it"));
        Ok(())
    }

    /// One speaks, others listen.
    async fn broadcast(&self, provided: &Channel, math: &Channel) -> Outcome {
        let mut news = math.listen::<String>("news").await.map_err(|e| wrong("listening", &e))?;
        provided.broadcast("news", "pi is still 3.14159").await.map_err(|e| wrong("the broadcast", &e))?;
        let Some(message) = news.next().await else {
            return Err(Failure::new(Exit::Other, "the connection ended before the broadcast came"));
        };
        expect("the broadcast", &message.as_str(), &"pi is still 3.14159")?;
        expect("its sender", &message.sender().client.as_str(), &"math_service")?;
        self.tell(&format!("{} broadcasts on math_operations/news, consumer hears: {}", message.sender(), *message));
        Ok(())
    }

    /// What a handler fails with is its own business.
    async fn private_errors(&self, provided: &Channel, math: &Channel) -> Outcome {
        let fail = async |_: Request<()>| Err::<(), _>(DatabaseError(PRIVATE));
        provided.provide("fail", fail).await.map_err(|e| wrong("the failing handler", &e))?.detach();
        let answer: Result<(), _> = math.call("fail", &()).await;
        let Err(error) = answer else {
            return Err(Failure::new(Exit::Other, "the handler that fails did not fail"));
        };
        expect("the fault's code", &error.code().0, &FaultCode::HandlerFailed.code())?;
        if format!("{error:?} {error}").contains(PRIVATE) {
            return Err(Failure::new(Exit::Other, "the handler's private error text reached the caller"));
        }
        self.tell(&format!("a handler fails with \"{PRIVATE}\", and the caller learns no more than: {error}"));
        Ok(())
    }

    /// What is altered on its way is not believed, whoever altered it.
    async fn tampered(&self, service: &Client, key: &Path, dir: &Path) -> Outcome {
        let password = Secret::parse(keygen::generate()?.as_bytes()).map_err(|e| wrong("the channel's key", &e))?;
        let owned = service.open("vault").await.map_err(|e| wrong("opening the vault", &e))?;
        owned.protect_with(password.clone()).await.map_err(|e| wrong("protecting the vault", &e))?;
        self.tell("math_service gives the channel vault a password, which the hub never hears");

        let line = dir.join("line.sock");
        let tamper = Tamper::start(&line, &dir.join("hub.sock"), "meet at noon", "meet at nine")
            .map_err(|e| Failure::io("putting a stranger on the line", &e))?;
        let url = format!("unix:{}", line.display());
        let member = connect(&url, key, "member").await.map_err(|e| wrong("the member's connection", &e))?;
        let vault = member.open("vault").secret(password).await.map_err(|e| wrong("joining the vault", &e))?;
        let mut news = vault.listen::<String>("news").await.map_err(|e| wrong("listening", &e))?;
        for text in ["meet at dawn", "meet at noon", "meet at dusk"] {
            owned.broadcast("news", text).await.map_err(|e| wrong("the broadcast", &e))?;
        }
        let mut heard = Vec::new();
        for _ in 0..2 {
            let Some(message) = news.next().await else {
                return Err(Failure::new(Exit::Other, "the connection ended with the altered message"));
            };
            heard.push((message.clone(), message.lost()));
        }
        expect("what the member heard", &heard, &vec![("meet at dawn".into(), 0), ("meet at dusk".into(), 1)])?;
        expect("the stranger's work", &tamper.has_changed(), &true)?;
        expect("the altered messages", &member.refused_messages().altered, &1)?;
        self.tell(
            "a stranger between hub and member changes \"meet at noon\" to \"meet at nine\": the member refuses it, \
             because its signature does not fit, and hears from the next message that one is missing",
        );
        member.close().await;
        Ok(())
    }

    /// Who does not know the key stays outside.
    async fn wrong_key(&self, url: &str, dir: &Path) -> Outcome {
        let other = dir.join("other.key");
        keygen::write_new(&other, &keygen::generate()?)?;
        match connect(url, &other, "intruder").await {
            Err(ConnectError::Refused(Refusal::AuthFailed)) => {
                self.tell("a client with another key is refused");
                Ok(())
            }
            Err(error) => Err(wrong("refusing a client with another key", &error)),
            Ok(_) => Err(Failure::new(Exit::Other, "a client with another key was let in")),
        }
    }

    async fn end(&self, hub: Hub, service: Client, consumer: Client) -> Outcome {
        consumer.close().await;
        service.close().await;
        hub.shutdown().await;
        self.tell("all closed; everything went as expected");
        Ok(())
    }

    fn tell(&self, step: &str) {
        if self.json {
            crate::say(serde_json::json!({ "step": step, "ok": true }));
        } else {
            crate::say(format_args!("✓ {step}"));
        }
    }
}

async fn connect(url: &str, key: &Path, id: &str) -> Result<Client, ConnectError> {
    commipc_tokio::client(url).id(id).secret_file(key).connect().await
}

fn expect<T: PartialEq + Debug>(what: &str, got: &T, wanted: &T) -> Outcome {
    if got == wanted {
        return Ok(());
    }
    Err(Failure::new(Exit::Other, format!("{what} should be {wanted:?} and is {got:?}")))
}

fn wrong(step: &str, error: &impl Display) -> Failure {
    Failure::new(Exit::Other, format!("{step} went wrong: {error}"))
}
