//! `commipc demo`: hub, provider and consumer in one process, each step explained and checked.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use commipc_tokio::{Channel, Client, ConnectError, Fault, Hub, Request};
use serde::{Deserialize, Serialize};

use crate::failure::{Exit, Failure, Outcome};
use crate::keygen;

/// A step that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);
/// What a handler knows and nobody else may.
const PRIVATE: &str = "the database at 10.0.0.7 rejected user 'root'";

#[derive(Deserialize, Serialize)]
struct Sum {
    a: i64,
    b: i64,
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

        let hub = commipc_tokio::hub().listen(&url).secret_file(&key).start().await.map_err(|e| wrong("the hub", &e))?;
        self.tell("a hub listens on a Unix socket in a temporary directory");
        let service = connect(&url, &key, "math_service").await.map_err(|e| wrong("the provider's connection", &e))?;
        let consumer = connect(&url, &key, "consumer").await.map_err(|e| wrong("the consumer's connection", &e))?;
        self.tell("math_service and consumer are connected");

        let provided = service.open("math_operations").await.map_err(|e| wrong("opening the channel", &e))?;
        let math = consumer.open("math_operations").await.map_err(|e| wrong("opening the channel", &e))?;
        self.call(&provided, &math).await?;
        self.state(&provided, &math).await?;
        self.broadcast(&provided, &math).await?;
        self.private_errors(&provided, &math).await?;
        self.wrong_key(&url, dir).await?;
        self.end(hub, service, consumer).await
    }
}
