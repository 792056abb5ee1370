//! A rate limit for each of many keys: leaky buckets.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The time in which a full bucket drains.
const WINDOW: Duration = Duration::from_secs(60);
/// The maximum number of buckets. An attacker with more keys has no need to use one twice.
const MAX_BUCKETS: usize = 10_000;

/// Allows each key so many events at once, and as many per minute.
#[derive(Debug)]
pub struct RateLimit<K> {
    burst: u32,
    buckets: Mutex<HashMap<K, Bucket>>,
}

/// The result of counting an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// How long to wait, if it was one too many.
    pub wait: Option<Duration>,
    /// Whether to record it. Of a flood, only the events up to the first one too many are recorded; after a pause, a
    /// new flood begins.
    pub record: bool,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// The level at the time `at`.
    level: f64,
    at: Instant,
    flooding: bool,
}

impl<K: Eq + Hash> RateLimit<K> {
    /// Allows each key this many events at once, and as many per minute.
    pub fn new(burst: u32) -> Self {
        Self { burst, buckets: Mutex::default() }
    }

    /// Counts an event.
    pub fn count(&self, key: K) -> Count {
        self.count_at(key, Instant::now())
    }

    /// Whether the next event would be one too many.
    pub fn is_full(&self, key: &K) -> bool {
        let buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.get(key).is_some_and(|bucket| self.level(bucket, Instant::now()) + 1.0 > f64::from(self.burst))
    }

    fn count_at(&self, key: K, now: Instant) -> Count {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_BUCKETS {
            buckets.retain(|_, bucket| self.level(bucket, now) > 0.0);
            // Half, so that not every insertion scans all buckets.
            if buckets.len() > MAX_BUCKETS / 2 {
                buckets.clear();
            }
        }
        let bucket = buckets.entry(key).or_insert(Bucket { level: 0.0, at: now, flooding: false });
        let (burst, level) = (f64::from(self.burst), self.level(bucket, now));
        let was_flooding = bucket.flooding && level > burst / 2.0;
        let is_over = level + 1.0 > burst;
        // Events over the limit are not counted, so that the wait does not grow with them.
        let next = if is_over { level } else { level + 1.0 };
        *bucket = Bucket { level: next, at: now, flooding: was_flooding || is_over };
        let over = level + 1.0 - burst;
        Count { wait: is_over.then(|| WINDOW.mul_f64(over / burst.max(1.0))), record: !was_flooding }
    }

    fn level(&self, bucket: &Bucket, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64() / WINDOW.as_secs_f64();
        (bucket.level - passed * f64::from(self.burst)).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_is_allowed_and_then_as_many_per_minute() {
        let limit = RateLimit::new(10);
        let start = Instant::now();
        let at = |seconds| limit.count_at("a", start + Duration::from_secs(seconds));
        let counted = Count { wait: None, record: true };
        let wait = |seconds| Some(Duration::from_secs(seconds));
        for _ in 0..10 {
            assert_eq!(at(0), counted);
        }
        assert_eq!(at(0), Count { wait: wait(6), record: true }, "the first one too many");
        assert_eq!(at(3), Count { wait: wait(3), record: false });
        assert_eq!(at(6), Count { wait: None, record: false }, "the flood goes on");
        assert_eq!(at(6), Count { wait: wait(6), record: false });
        for _ in 0..10 {
            assert_eq!(at(100), counted, "the bucket has drained");
        }
        assert!(at(100).record, "another flood");
    }

    #[test]
    fn keys_count_separately() {
        let limit = RateLimit::new(1);
        assert!(limit.count("a").wait.is_none() && limit.count("b").wait.is_none());
        assert!(limit.count("a").wait.is_some());
        assert!(limit.is_full(&"a") && !limit.is_full(&"c"));
    }

    #[test]
    fn number_of_buckets_is_bounded() {
        let limit = RateLimit::new(5);
        for number in 0..25_000 {
            limit.count(number);
        }
        assert!(limit.buckets.lock().unwrap().len() <= MAX_BUCKETS);
    }
}
