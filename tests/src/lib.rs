//! Suites by behaviour, conformance over the adapters, benches and house rules.
