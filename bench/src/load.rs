//! Sends calls in a closed loop or at a fixed rate, bounded in number and time, and keeps how long each took.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

/// How many calls at a fixed rate may be in flight.
const PACED_WORKERS: usize = 16;

/// One call; its argument is the call's number.
pub(crate) type Call<'a> = dyn Fn(usize) -> Result<()> + Sync + 'a;

/// What a turn took.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    /// How long each successful call took.
    pub(crate) taken: Vec<Duration>,
    /// How long all of them took together.
    pub(crate) elapsed: Duration,
    /// How many calls failed, and the first error.
    pub(crate) failed: usize,
    pub(crate) error: Option<String>,
}

impl Samples {
    /// Successful calls a second.
    pub(crate) fn rate(&self) -> f64 {
        self.taken.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// A percentile in milliseconds; NaN without samples.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        percentile(&self.taken, percent)
    }

    fn add(&mut self, result: Result<()>, time: Duration) {
        match result {
            Ok(()) => self.taken.push(time),
            Err(error) => {
                self.failed += 1;
                self.error.get_or_insert_with(|| format!("{error:#}"));
            }
        }
    }
}

/// A percentile of these times in milliseconds; NaN if there are none.
pub(crate) fn percentile(times: &[Duration], percent: usize) -> f64 {
    rank(times.iter().map(|time| time.as_secs_f64() * 1e3).collect(), percent)
}

/// A percentile of these values; NaN if there are none.
pub(crate) fn rank(mut values: Vec<f64>, percent: usize) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return f64::NAN };
    values[last * percent / 100]
}

/// A closed loop: each client sends its next call when the last one has been answered, `count` calls in all at most.
/// After `until` no call starts but each client's first one.
pub(crate) fn closed(clients: usize, count: usize, until: Instant, call: &Call<'_>) -> Samples {
    let due = |number: usize| Some(Instant::now()).filter(|now| number < clients || *now < until);
    run(clients, count, &due, call)
}

/// A fixed rate, in calls a second. A call's time counts from when it was due, so that a slow answer makes those that
/// had to wait for it slow, too. No call starts after `until`.
pub(crate) fn paced(rate: f64, count: usize, until: Instant, call: &Call<'_>) -> Samples {
    let start = Instant::now();
    let due = |number: usize| {
        let due = start + Duration::from_secs_f64(number as f64 / rate);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        Some(due).filter(|_| Instant::now() < until)
    };
    run(PACED_WORKERS, count, &due, call)
}

/// `due` waits until a call may start and says from when its time counts; `None` ends the loop.
fn run(workers: usize, count: usize, due: &(dyn Fn(usize) -> Option<Instant> + Sync), call: &Call<'_>) -> Samples {
    let start = Instant::now();
    let (next, samples) = (AtomicUsize::new(0), Mutex::new(Samples::default()));
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    let Some(since) = due(number) else { break };
                    let result = call(number);
                    let time = since.elapsed();
                    samples.lock().unwrap_or_else(PoisonError::into_inner).add(result, time);
                }
            });
        }
    });
    let samples = samples.into_inner().unwrap_or_else(PoisonError::into_inner);
    Samples { elapsed: start.elapsed(), ..samples }
}

/// The order of turns: A B C, C B A, again and again, so that what changes slowly affects all alike.
pub(crate) fn abba(subjects: usize, times: usize) -> Vec<usize> {
    (0..times).flat_map(|_| (0..subjects).chain((0..subjects).rev())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_alternate() {
        assert_eq!(abba(2, 2), [0, 1, 1, 0, 0, 1, 1, 0]);
    }

    #[test]
    fn loops_are_bounded_and_count_failures() {
        let fail_odd = |number: usize| if number.is_multiple_of(2) { Ok(()) } else { anyhow::bail!("odd") };
        let (now, later) = (Instant::now(), Instant::now() + Duration::from_secs(60));
        let samples = closed(3, 10, later, &fail_odd);
        assert_eq!((samples.taken.len(), samples.failed, samples.error.as_deref()), (5, 5, Some("odd")));
        assert_eq!(closed(3, 10, now, &fail_odd).taken.len(), 2, "each client's first call");
        assert_eq!(paced(1000.0, 4, later, &fail_odd).taken.len(), 2);
        assert_eq!(paced(1000.0, 4, now, &fail_odd).taken.len(), 0);
    }

    #[test]
    fn percentiles_of_nothing_are_not_a_number() {
        assert!(percentile(&[], 50).is_nan());
        let times: Vec<Duration> = (0..=100).map(Duration::from_millis).collect();
        assert_eq!((percentile(&times, 50), percentile(&times, 99)), (50.0, 99.0));
    }
}
