//! `commipc bench`: load against a hub, with the floor beside it.

pub(crate) mod args;
mod load;
mod part;
mod raw;
mod report;
mod rpc;
mod usage;

pub(crate) use load::{Samples, Summary};

use crate::args::Common;
use crate::failure::{Failure, Outcome};
use args::{Bench, BenchPart, Load, PartCli};
use part::Part;
use report::{Figures, Phase, Report, Round};

/// Runs a benchmark from its beginning to its report.
pub(crate) fn run(bench: &Bench, common: &Common) -> Outcome {
    let Bench::Rpc(args) = bench;
    let dir = tempfile::tempdir().map_err(|error| Failure::io("making a temporary directory", &error))?;
    let mut raw = Target::raw(dir.path())?;
    let mut hub = rpc::target(args, common, dir.path())?;
    let mut rounds = Vec::new();
    for _ in 0..args.rounds {
        // Alternately, so that whatever else the machine does meets both alike.
        rounds.push(Round { hub: hub.round(args)?, raw: raw.round(args)? });
    }
    let report = Report::of(args, &rounds);
    if common.json {
        crate::say(report.json());
    } else {
        crate::say_raw(&report.table());
    }
    Ok(())
}

/// Runs one of the processes.
pub(crate) async fn run_part(part: BenchPart, common: &Common) -> Outcome {
    let failed = |error: std::io::Error| Failure::io("a part of the benchmark", &error);
    match part {
        BenchPart::RawRelay { socket } => raw::relay(&socket).await.map_err(failed),
        BenchPart::RawProvider { socket } => raw::provider(&socket).await.map_err(failed),
        BenchPart::RawConsumer { socket, load } => raw::consumer(&socket, load).await.map_err(failed),
        BenchPart::Provider { raw } => rpc::provider(common, raw).await,
        BenchPart::Consumer { raw, load } => rpc::consumer(common, raw, load).await,
    }
}

/// Something that carries calls: its processes, and how to start a consumer.
struct Target {
    /// Absent when the hub was running already.
    hub: Option<Part>,
    provider: Part,
    consumer: Vec<String>,
}

impl Target {
    fn raw(dir: &std::path::Path) -> Outcome<Self> {
        let socket = dir.join("raw").display().to_string();
        let args = |part: &str| vec![PartCli::COMMAND.into(), part.into(), socket.clone()];
        let mut hub = Part::start("raw relay", &args("raw-relay"))?;
        hub.line()?;
        let mut provider = Part::start("raw provider", &args("raw-provider"))?;
        provider.line()?;
        Ok(Self { hub: Some(hub), provider, consumer: args("raw-consumer") })
    }

    fn round(&mut self, args: &args::BenchRpc) -> Outcome<Figures> {
        let load = Load { size: args.size, in_flight: 1, clients: 1, seconds: args.seconds };
        let latency = self.phase(load)?;
        let load = self.phase(Load { in_flight: args.in_flight, clients: args.clients, ..load })?;
        Ok(Figures { latency, load })
    }

    /// Runs one consumer and counts what all three used meanwhile.
    fn phase(&mut self, load: Load) -> Outcome<Phase> {
        let mut args = self.consumer.clone();
        let options = [
            ("--size", load.size.to_string()),
            ("--in-flight", load.in_flight.to_string()),
            ("--clients", load.clients.to_string()),
            ("--seconds", load.seconds.to_string()),
        ];
        args.extend(options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]));
        let mut consumer = Part::start("consumer", &args)?;
        consumer.line()?;
        let before = [self.hub.as_ref().and_then(Part::usage), self.provider.usage(), consumer.usage()];
        consumer.go()?;
        let summary = consumer.summary()?;
        let after = [self.hub.as_ref().and_then(Part::usage), self.provider.usage(), consumer.usage()];
        let used = |part: usize| Some(after[part]?.since(before[part]?));
        Ok(Phase { summary, hub: used(0), provider: used(1), consumer: used(2) })
    }
}
