//! CommIPC on tokio.
