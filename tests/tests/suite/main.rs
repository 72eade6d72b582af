//! All suites, one module per behaviour.
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail as loudly as tests")]

mod corpus;
mod packages;
mod tidy;
mod workspace;
