//! Runs seeds and prints what they found: `hunt [first] [count]`, or `hunt replay SEED`.
use std::time::Instant;

#[expect(clippy::print_stdout, reason = "a tool for people")]
fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |index: usize, default: u64| arguments.get(index).and_then(|text| text.parse().ok()).unwrap_or(default);
    if arguments.first().is_some_and(|first| first == "replay") {
        println!("{}", commipc_sim::replay(commipc_sim::Source::Seed(number(1, 0))).0);
        return;
    }
    let start = Instant::now();
    let tally = commipc_sim::run_seeds(number(0, 0), number(1, 1_000), 10);
    let took = start.elapsed();
    println!("{}", commipc_sim::report(&tally).0);
    println!("{took:?}, {} events/s", u128::from(tally.events) * 1_000 / took.as_millis().max(1));
}
