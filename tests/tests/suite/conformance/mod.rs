//! What users are promised, over every adapter and transport: hub, provider and consumer on real sockets.
//!
//! ```text
//!   consumer ──┐            ┌── provider          tokio │ smol │ async-std │ threads
//!              ├── hub ─────┤                    ───────┴──────┼───────────┴────────
//!   stranger ──┘            └── listeners               unix   │   tcp
//! ```

mod bridges;
mod calls;
mod clients;
mod connections;
mod draining;
mod endings;
mod handlers;
mod listeners;
mod load;
mod messages;
mod payloads;
mod protection;
mod providers;
mod reconnect;
mod schemas;
mod streams;
mod taps;
