//! The clock and the source of randomness. Nothing else reads either.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use chrono::{DateTime, TimeDelta, Utc};

/// Daypass warns if its clock and the API server's differ by more than this.
const SKEW_WARNING: TimeDelta = TimeDelta::seconds(5);
/// Daypass is not ready if the clocks differ by more than this.
pub const SKEW_LIMIT: TimeDelta = TimeDelta::seconds(30);

/// The API server's clock: the local clock plus an offset learned from the `Date` headers of its answers.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    offset_ms: Arc<AtomicI64>,
}

impl Clock {
    /// The current time by the API server's clock.
    pub fn now(&self) -> DateTime<Utc> {
        let local = self.local();
        local.checked_add_signed(self.offset()).unwrap_or(local)
    }

    /// The current time by the local clock.
    #[expect(clippy::disallowed_methods, reason = "the only place that reads the clock")]
    pub fn local(&self) -> DateTime<Utc> {
        Utc::now()
    }

    /// How far the API server's clock is ahead of the local one; negative if it is behind.
    pub fn offset(&self) -> TimeDelta {
        TimeDelta::milliseconds(self.offset_ms.load(Ordering::Relaxed))
    }

    /// Whether the clocks of Daypass and the API server differ by enough to warn about.
    pub fn is_skewed(&self) -> bool {
        self.offset().abs() > SKEW_WARNING
    }

    /// Corrects the offset by the `Date` header of an answer (RFC 9110: whole seconds, truncated), which the API
    /// server set between the local times `sent` and `received`. Moves the offset only as far as the answer proves it
    /// wrong: so many answers make it exact, although each only has the second.
    pub fn learn(&self, date: DateTime<Utc>, sent: DateTime<Utc>, received: DateTime<Utc>) {
        let least = (date - received).num_milliseconds();
        let most = (date + TimeDelta::seconds(1) - sent).num_milliseconds();
        let learn = |offset: i64| (least <= most).then(|| offset.clamp(least, most));
        // On Err the local clock was set back between sending and receiving: learn nothing.
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
