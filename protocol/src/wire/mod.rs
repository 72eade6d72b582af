//! The only room that knows bytes.
