//! All suites, one module per behaviour.
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail as loudly as tests")]
#![allow(clippy::wildcard_enum_match_arm, reason = "what is unexpected fails the test")]

mod conformance;
mod corpus;
mod cose;
mod derivations;
mod guide;
mod hostile;
mod local;
mod loopback;
mod network;
mod packages;
mod puppets;
mod readme;
mod relay;
mod runtimes;
mod scene;
mod simulated;
mod tidy;
mod tls;
mod wiretap;
mod workspace;
