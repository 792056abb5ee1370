//! The clock and the source of randomness. Nothing else reads either.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use chrono::{DateTime, TimeDelta, Utc};
use rustix::time::{ClockId, clock_gettime};

/// Daypass warns if its clock and the API server's differ by more than this.
const SKEW_WARNING: TimeDelta = TimeDelta::seconds(5);
/// Daypass is not ready if the clocks differ by more than this.
pub const SKEW_LIMIT: TimeDelta = TimeDelta::seconds(30);

/// A clock that goes on while the machine sleeps, and that nobody sets (clock_gettime(2)).
#[cfg(target_os = "linux")]
const STEADY: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const STEADY: ClockId = ClockId::Monotonic;

/// The API server's clock: the local time plus an offset learned from the `Date` headers of its answers.
///
/// The local time is this machine's at the start of the process, and what has passed since. Whoever sets the machine's
/// clock afterwards, NTP among them, neither ends a member nor keeps one.
#[derive(Debug, Clone)]
pub struct Clock {
    offset_ms: Arc<AtomicI64>,
    /// This machine's clock and the steady one at the same moment.
    start: (DateTime<Utc>, TimeDelta),
}

impl Default for Clock {
    fn default() -> Self {
        Self { offset_ms: Arc::default(), start: (machine_time(), steady_time()) }
    }
}

/// What this machine's clock shows.
#[expect(clippy::disallowed_methods, reason = "the only place that reads the clock")]
fn machine_time() -> DateTime<Utc> {
    Utc::now()
}

/// The time since some moment before.
fn steady_time() -> TimeDelta {
    let since = clock_gettime(STEADY);
    TimeDelta::seconds(since.tv_sec) + TimeDelta::nanoseconds(since.tv_nsec)
}

impl Clock {
    /// The current time by the API server's clock.
    pub fn now(&self) -> DateTime<Utc> {
        let local = self.local();
        local.checked_add_signed(self.offset()).unwrap_or(local)
    }

    /// The current local time.
    pub fn local(&self) -> DateTime<Utc> {
        let (at_start, steady) = self.start;
        at_start + (steady_time() - steady)
    }

    /// How far the API server's clock is ahead of the local time; negative if it is behind.
    fn offset(&self) -> TimeDelta {
        TimeDelta::milliseconds(self.offset_ms.load(Ordering::Relaxed))
    }

    /// How far the API server's clock is ahead of this machine's, as that is now; negative if it is behind.
    pub fn skew(&self) -> TimeDelta {
        self.now() - machine_time()
    }

    /// Whether the clocks of this machine and the API server differ by enough to warn about.
    pub fn is_skewed(&self) -> bool {
        self.skew().abs() > SKEW_WARNING
    }

    /// Corrects the offset by the `Date` header of an answer (RFC 9110: whole seconds, truncated), which the API
    /// server set between the local times `sent` and `received`. Moves the offset only as far as the answer proves it
    /// wrong: so many answers make it exact, although each only has the second.
    pub fn learn(&self, date: DateTime<Utc>, sent: DateTime<Utc>, received: DateTime<Utc>) {
        let least = (date - received).num_milliseconds();
        let most = (date + TimeDelta::seconds(1) - sent).num_milliseconds();
        let learn = |offset: i64| (least <= most).then(|| offset.clamp(least, most));
        // An Err cannot be while the local time goes forward.
        let _ = self.offset_ms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, learn);
    }
}

/// The operating system's random number generator, through aws-lc.
#[derive(Debug, Clone)]
pub struct Entropy(SystemRandom);

/// The operating system's random number generator failed.
#[derive(Debug, thiserror::Error)]
#[error("the operating system's random number generator failed")]
pub struct NoEntropy;

impl Default for Entropy {
    fn default() -> Self {
        Self(SystemRandom::new())
    }
}

impl Entropy {
    /// `N` random bytes.
    ///
    /// # Errors
    /// [`NoEntropy`] if the generator fails. Never fall back to a fixed value for anything secret.
    pub fn bytes<const N: usize>(&self) -> Result<[u8; N], NoEntropy> {
        let mut bytes = [0; N];
        self.0.fill(&mut bytes).map_err(|_| NoEntropy)?;
        Ok(bytes)
    }

    /// A random UUID (RFC 9562, version 4).
    ///
    /// # Errors
    /// [`NoEntropy`] if the generator fails.
    pub fn uuid(&self) -> Result<uuid::Uuid, NoEntropy> {
        Ok(uuid::Builder::from_random_bytes(self.bytes()?).into_uuid())
    }

    /// A random number from 0 to 1, for jitter; 0.5 if the generator fails, since jitter is not secret.
    pub fn fraction(&self) -> f64 {
        self.bytes().map_or(0.5, |bytes| f64::from(u16::from_be_bytes(bytes)) / f64::from(u16::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// However wrong the local clock is, the answers bring the offset close to the truth.
        #[test]
        fn many_dates_in_seconds_give_a_precise_offset(truth in -100_000i64..100_000, start in 0i64..1_000_000) {
            let clock = Clock::default();
            let local = |ms| DateTime::from_timestamp_millis(1_800_000_000_000 + start + ms).unwrap();
            for step in 0..200 {
                let sent = local(step * 137);
                let server = sent + TimeDelta::milliseconds(truth + 2);
                let date = DateTime::from_timestamp(server.timestamp(), 0).unwrap();
                clock.learn(date, sent, sent + TimeDelta::milliseconds(4));
            }
            prop_assert!((clock.offset().num_milliseconds() - truth).abs() <= 20, "{} {truth}", clock.offset());
        }
    }

    #[test]
    fn correct_local_clock_has_no_offset() {
        let clock = Clock::default();
        for ms in (0..3000).step_by(7) {
            let at = DateTime::from_timestamp_millis(1_800_000_000_000 + ms).unwrap();
            clock.learn(DateTime::from_timestamp(at.timestamp(), 0).unwrap(), at, at + TimeDelta::milliseconds(3));
        }
        assert_eq!(clock.offset(), TimeDelta::zero());
    }
}
