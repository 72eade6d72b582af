//! Scratch.
use commipc_sim::*;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let profile = if args[1] == "r" { Profile::Reconnect } else { Profile::Any };
    let from: u64 = args[2].parse().unwrap();
    let count: u64 = args[3].parse().unwrap();
    if count == 0 {
        println!("{}", run_as(Source::Seed(from), profile, true));
        return;
    }
    let started = std::time::Instant::now();
    let tally = run_seeds_as(from, count, args.get(4).map_or(10, |n| n.parse().unwrap()), profile);
    println!("{tally}; {:.0} seeds/s", tally.seeds as f64 / started.elapsed().as_secs_f64());
    for (mark, count) in &tally.marks {
        println!("{count:>8}  {mark}");
    }
}
