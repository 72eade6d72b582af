//! CommIPC on smol.
