//! Taking times. The machine is noisy: what is compared is run in turns, and of each the shortest
//! time counts, which is the one that others have disturbed least.

use std::time::{Duration, Instant};

/// Something to be timed.
pub type Runner<'a> = Box<dyn FnMut() + 'a>;

/// Runs each in turn, `rounds` times after a first one for nothing; the shortest time of each in
/// seconds.
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

/// Runs each in turn, `rounds` times; the median of what each returns.
pub fn medians<'a>(rounds: usize, runners: &mut [Box<dyn FnMut() -> f64 + 'a>]) -> Vec<f64> {
    let mut all = vec![Vec::new(); runners.len()];
    for _ in 0..rounds {
        for (runner, values) in runners.iter_mut().zip(&mut all) {
            values.push(runner());
        }
    }
    all.into_iter().map(median).collect()
}

/// The median time in seconds that something takes, repeated for `duration`.
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

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
