//! Time and randomness, the only places where they are read.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use chrono::{DateTime, TimeDelta, Utc};

/// Over this the clocks' disagreement is reported.
pub const SKEW_WARNING: TimeDelta = TimeDelta::seconds(5);
/// Over this Daypass is not ready.
pub const SKEW_LIMIT: TimeDelta = TimeDelta::seconds(30);

/// The API server's clock: the local one plus the offset learnt from the `Date` headers of its answers.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    offset_ms: Arc<AtomicI64>,
}

impl Clock {
    /// Now, by the API server's clock.
    pub fn now(&self) -> DateTime<Utc> {
        let local = self.local();
        local.checked_add_signed(self.offset()).unwrap_or(local)
    }

    /// Now, by the clock of this machine.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    pub fn local(&self) -> DateTime<Utc> {
        Utc::now()
    }

    /// What the API server's clock is ahead of this machine's.
    pub fn offset(&self) -> TimeDelta {
        TimeDelta::milliseconds(self.offset_ms.load(Ordering::Relaxed))
    }

    /// Learns from an answer whose `Date` header said `date` (whole seconds, cut off), by the local times between which it
    /// was stamped. The offset is moved only as far as the answer proves it wrong, so many answers make it exact although
    /// each knows the second only.
    pub fn learn(&self, date: DateTime<Utc>, sent: DateTime<Utc>, received: DateTime<Utc>) {
        let least = (date - received).num_milliseconds();
        let most = (date + TimeDelta::seconds(1) - sent).num_milliseconds();
        let learn = |offset: i64| (least <= most).then(|| offset.clamp(least, most));
        // Err means that there was nothing to learn: the local clock was set back between sending and receiving.
        let _ = self.offset_ms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, learn);
    }
}

/// The source of random bits (the operating system's, by aws-lc).
#[derive(Debug, Clone)]
pub struct Entropy(SystemRandom);

/// The operating system gave no random bits.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gave no random bits")]
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
    /// [`NoEntropy`]; then nothing may be made that should have been random.
    pub fn bytes<const N: usize>(&self) -> Result<[u8; N], NoEntropy> {
        let mut bytes = [0; N];
        self.0.fill(&mut bytes).map_err(|_| NoEntropy)?;
        Ok(bytes)
    }

    /// A random UUID (RFC 9562, version 4).
    ///
    /// # Errors
    /// [`NoEntropy`].
    pub fn uuid(&self) -> Result<uuid::Uuid, NoEntropy> {
        Ok(uuid::Builder::from_random_bytes(self.bytes()?).into_uuid())
    }

    /// A number from zero to one, for jitter; one half where randomness fails, since jitter is no secret.
    pub fn fraction(&self) -> f64 {
        self.bytes().map_or(0.5, |bytes| f64::from(u16::from_be_bytes(bytes)) / f64::from(u16::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// However far off the local clock is, answers from a true server bring the offset to within the round trip.
        #[test]
        fn many_coarse_dates_make_an_exact_offset(truth in -100_000i64..100_000, start in 0i64..1_000_000) {
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
    fn a_right_clock_is_left_alone() {
        let clock = Clock::default();
        for ms in (0..3000).step_by(7) {
            let at = DateTime::from_timestamp_millis(1_800_000_000_000 + ms).unwrap();
            clock.learn(DateTime::from_timestamp(at.timestamp(), 0).unwrap(), at, at + TimeDelta::milliseconds(3));
        }
        assert_eq!(clock.offset(), TimeDelta::zero());
    }
}
