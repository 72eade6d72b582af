//! The core without I/O: what a message costs where nothing but the core works on it.
//!
//! Times on a shared machine mean little; for figures that hold, count instructions:
//! `valgrind --tool=callgrind --toggle-collect='*support::feed*' target/release/deps/core-… --bench --profile-time 1 'call of 64'`.
#![allow(clippy::unwrap_used, reason = "a bench may fail loudly")]

use std::hint::black_box;

use bytes::BytesMut;
use commipc_protocol::Name;
use commipc_protocol::auth::SenderKey;
use commipc_protocol::wire::{Flags, Header, Kind, Message, Target};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

#[path = "../../protocol/tests/support/mod.rs"]
mod support;

/// Calls in one routed batch.
const BATCH: u64 = 256;

fn header() -> Header<'static> {
    Header {
        kind: Kind::Call,
        flags: Flags::RAW,
        channel: Name::new("math_operations").unwrap(),
        event: Name::new("sum").unwrap(),
        epoch: 0,
        sender: Name::new("application_client").unwrap(),
        origin: Name::new("hub-0123456789abcdef").unwrap(),
        instance: &[7; 16],
        seq: 12_345,
        bseq: 0,
        sent_at: 1_800_000_000_000,
        time_left: 30_000,
        request: 12_345,
        reference: &[],
        index: 0,
        target: Target::NONE,
        metadata: &[],
    }
}

/// A whole unsigned message around 64 bytes.
fn message() -> Vec<u8> {
    let mut protected = BytesMut::new();
    header().encode(&mut protected);
    let head = [0x58, u8::try_from(protected.len()).unwrap()];
    [&[0x84][..], &head, &protected, &[0xa0, 0x58, 64], &[1; 64], &[0x40]].concat()
}

fn codec(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec");
    let bytes = message();
    group.bench_function("parse a call of 64 B", |b| b.iter(|| Message::parse(black_box(&bytes)).unwrap()));
    let header = header();
    let mut out = BytesMut::with_capacity(1_024);
    group.bench_function("encode its header", |b| {
        b.iter(|| {
            out.clear();
            black_box(&header).encode(&mut out);
        });
    });
    group.finish();
}

fn signing(c: &mut Criterion) {
    let mut group = c.benchmark_group("sign");
    let key = SenderKey::new([5; 32]);
    let mut protected = BytesMut::new();
    header().encode(&mut protected);
    for size in [64, 1_024, 65_536] {
        let payload = vec![1; size];
        let tag = key.tag(&protected, &payload);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(format!("tag {size} B"), |b| b.iter(|| key.tag(&protected, black_box(&payload))));
        group.bench_function(format!("verify {size} B"), |b| {
            b.iter(|| assert!(key.verify(&protected, black_box(&payload), &tag)));
        });
    }
    group.finish();
}

fn routing(c: &mut Criterion) {
    let mut group = c.benchmark_group("hub");
    group.throughput(Throughput::Elements(BATCH));
    for size in [64, 1_024] {
        let (setup, steady) = support::recorded::recorded_calls(1, BATCH, size);
        group.bench_function(format!("route one call of {size} B both ways"), |b| {
            let ready = || (support::fed(setup.clone()), steady.clone());
            b.iter_batched_ref(
                ready,
                |(hub, inputs)| support::feed(hub, std::mem::take(inputs)),
                BatchSize::SmallInput,
            );
        });
    }
    for listeners in [32, 1_000] {
        let (setup, steady) = support::recorded::recorded_broadcasts(listeners, 64, 256);
        group.throughput(Throughput::Elements(64 * listeners as u64));
        group.bench_function(format!("deliver 256 B to one of {listeners}"), |b| {
            let ready = || (support::fed(setup.clone()), steady.clone());
            b.iter_batched_ref(
                ready,
                |(hub, inputs)| support::feed(hub, std::mem::take(inputs)),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, codec, signing, routing);
criterion_main!(benches);
