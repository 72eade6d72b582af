//! SIGTERM and SIGINT, for the commands that run until told to stop, and what they finish first.

use std::pin::pin;
use std::time::Duration;

use clap::Args;
use commipc_tokio::{Client, DrainError, Hub};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::parse_duration;
use crate::failure::{Exit, Failure, Outcome};

/// How long what runs may take to finish.
#[derive(Args, Debug)]
pub(crate) struct Draining {
    /// How long what runs may take to finish after SIGTERM or Ctrl-C, 0s for no time; a second signal ends it at once
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse)]
    pub(crate) drain: Duration,
}

fn parse(text: &str) -> Result<Duration, String> {
    if text == "0s" { Ok(Duration::ZERO) } else { parse_duration(text) }
}

/// Both signals. From its making on they no longer end the process by themselves.
pub(crate) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

/// What can come to its end.
pub(crate) trait Drains {
    /// Finishes what runs.
    async fn finish(&self, within: Duration) -> Result<(), DrainError>;
    /// How much runs.
    fn running(&self) -> Option<usize>;
    /// Ends what runs.
    async fn end(&self);
}

impl Drains for Hub {
    async fn finish(&self, within: Duration) -> Result<(), DrainError> {
        self.drain(within).await
    }

    fn running(&self) -> Option<usize> {
        self.draining()
    }

    async fn end(&self) {
        self.shutdown().await;
    }
}

impl Drains for Client {
    async fn finish(&self, within: Duration) -> Result<(), DrainError> {
        self.drain(within).await
    }

    fn running(&self) -> Option<usize> {
        self.draining()
    }

    async fn end(&self) {
        self.close().await;
    }
}

impl Stop {
    pub(crate) fn new() -> Outcome<Self> {
        let on = |kind| signal(kind).map_err(|error| Failure::io("taking signals", &error));
        Ok(Self { terminate: on(SignalKind::terminate())?, interrupt: on(SignalKind::interrupt())? })
    }

    /// Waits for either.
    pub(crate) async fn requested(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Finishes what runs, and says that it does if that takes more than a moment. Another signal ends it.
    pub(crate) async fn drain(&mut self, what: &impl Drains, within: Duration, json: bool) -> Outcome {
        if within.is_zero() {
            what.end().await;
            return Ok(());
        }
        let mut finishing = pin!(what.finish(within));
        tokio::select! {
            result = &mut finishing => return finished(result),
            () = tokio::time::sleep(MOMENT) => {}
        }
        let running = what.running().unwrap_or_default();
        if json {
            crate::say_beside(serde_json::json!({ "draining": running, "at_most_ms": within.as_millis() }));
        } else {
            crate::say_beside(format_args!(
                "commipc: draining: {running} still running, for at most {within:?}; a second signal stops at once"
            ));
        }
        tokio::select! {
            result = &mut finishing => finished(result),
            () = self.requested() => {
                what.end().await;
                if let Err(DrainError::Cut(cut)) = finishing.await {
                    return Err(Failure::new(Exit::Other, format!("stopped at once: {} cut off", requests(cut))));
                }
                Ok(())
            }
        }
    }
}

fn finished(result: Result<(), DrainError>) -> Outcome {
    let Err(error) = result else { return Ok(()) };
    let failure = if let DrainError::Cut(cut) = error {
        let text = format!("the time to finish was over: {} cut off", requests(cut));
        Failure::new(Exit::Deadline, text).hint("give it more time with --drain")
    } else {
        Failure::new(Exit::Unreachable, format!("the hub was lost before all was finished: {error}"))
    };
    Err(failure.code(error.code().0))
}

fn requests(count: usize) -> String {
    if count == 1 { "1 request was".into() } else { format!("{count} requests were") }
}

/// What takes no longer is not worth a line.
const MOMENT: Duration = Duration::from_millis(100);
