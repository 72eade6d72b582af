//! Who may be up to what, and what comes of it: every cell of the table of threats is an adversary that fails, or where
//! nothing is promised a demonstration that one succeeds.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test binary")]

mod hubs;
mod members;
mod outsiders;
#[cfg(commipc_canary)]
mod plants;
mod scene;
mod secrets;
mod strangers;
mod table;
