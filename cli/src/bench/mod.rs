//! `commipc bench`: load against a hub, with the floor beside it.

pub(crate) mod args;
mod connections;
mod fanout;
mod hops;
mod load;
mod part;
mod raw;
mod raw_connections;
mod raw_fanout;
mod raw_relay;
mod raw_stream;
mod report;
mod rpc;
mod stream;
mod target;
mod usage;

pub(crate) use load::{Samples, Summary};

use crate::args::Common;
use crate::failure::{Failure, Outcome};
use args::{Bench, BenchPart, Role};

/// Runs a benchmark from its beginning to its report.
pub(crate) fn run(bench: &Bench, common: &Common) -> Outcome {
    let dir = tempfile::tempdir().map_err(|error| Failure::io("making a temporary directory", &error))?;
    let report = match bench {
        Bench::Rpc(args) => rpc::run(args, common, dir.path()),
        Bench::Stream(args) => stream::run(args, common, dir.path()),
        Bench::Fanout(args) => fanout::run(args, common, dir.path()),
        Bench::Hops(args) => hops::run(args, common, dir.path()),
        Bench::Connect(args) => connections::connect(args, common, dir.path()),
        Bench::Idle(args) => connections::idle(args, common),
    };
    report.map(|report| report.show(common.json))
}

/// Runs one of the processes.
pub(crate) async fn run_part(part: BenchPart, common: &Common) -> Outcome {
    crate::hub::allow_many_files();
    let failed = |error: std::io::Error| Failure::io("a part of the benchmark", &error);
    match part {
        BenchPart::RawRelay { socket } => raw_relay::relay(&socket).await.map_err(failed),
        BenchPart::Raw { socket, role, load } => {
            let outcome = match role {
                Role::Provider => raw::provider(&socket).await,
                Role::Consumer => raw::consumer(&socket, load).await,
                Role::Streamer => raw_stream::provider(&socket, load).await,
                Role::Taker => raw_stream::consumer(&socket, load).await,
                Role::Broadcaster => raw_fanout::broadcaster(&socket, load).await,
                Role::Members => raw_fanout::members(&socket, load).await,
                Role::Connector => raw_connections::connector(&socket, load).await,
                Role::Idle => raw_connections::idle(&socket, load).await,
                // Only a channel has an owner.
                Role::Owner => Ok(()),
            };
            outcome.map_err(failed)
        }
        BenchPart::Real { role, load } => match role {
            Role::Provider => rpc::provider(common, load).await,
            Role::Consumer => rpc::consumer(common, load).await,
            Role::Streamer => stream::provider(common, load).await,
            Role::Taker => stream::consumer(common, load).await,
            Role::Broadcaster => fanout::broadcaster(common, load).await,
            Role::Members => fanout::members(common, load).await,
            Role::Connector => connections::connector(common, load).await,
            Role::Idle => connections::idle_clients(common, load).await,
            Role::Owner => target::owner(common).await,
        },
    }
}
