//! The binary `commipc`.
fn main() {}
