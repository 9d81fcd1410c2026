//! Measurement of times. Other processes disturb the measurement. So the compared runners take turns, and
//! the shortest time of each counts, as the least disturbed one.

use std::time::{Duration, Instant};

/// A piece of work to be timed.
pub type Runner<'a> = Box<dyn FnMut() + 'a>;

/// Runs each runner in turn for `rounds` rounds, after one round that does not count. Returns the shortest
/// time of each in seconds.
pub fn shortest(rounds: usize, runners: &mut [Runner<'_>]) -> Vec<f64> {
    let mut best = vec![f64::INFINITY; runners.len()];
    for round in 0..=rounds {
        for (runner, best) in runners.iter_mut().zip(&mut best) {
            let start = Instant::now();
            runner();
            let elapsed = start.elapsed().as_secs_f64();
            if round > 0 {
                *best = best.min(elapsed);
            }
        }
    }
    best
}

/// Runs each runner in turn for `rounds` rounds. Returns the median of the values of each.
pub fn medians<'a>(rounds: usize, runners: &mut [Box<dyn FnMut() -> f64 + 'a>]) -> Vec<f64> {
    let mut all = vec![Vec::new(); runners.len()];
    for _ in 0..rounds {
        for (runner, values) in runners.iter_mut().zip(&mut all) {
            values.push(runner());
        }
    }
    all.into_iter().map(median).collect()
}

/// The median time of `run` in seconds, repeated for `duration`.
pub fn latency(duration: Duration, mut run: impl FnMut()) -> f64 {
    let end = Instant::now() + duration;
    let mut times = Vec::new();
    while Instant::now() < end {
        let start = Instant::now();
        run();
        times.push(start.elapsed().as_secs_f64());
    }
    median(times)
}

/// The median of the values.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
