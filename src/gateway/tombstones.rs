//! Why tokens are refused that nobody knows any more, so that their users get the exact reason.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::domain::secret::SecretHash;

/// How many tokens are remembered: the oldest go first.
const MAX: usize = 10_000;
/// How long a token is remembered.
const TIME: Duration = Duration::from_secs(3600);

/// The hashes of refused tokens, each with the reason.
#[derive(Debug)]
pub struct Tombstones<R> {
    reasons: HashMap<Arc<str>, R>,
    /// The oldest first.
    order: VecDeque<(Instant, Arc<str>)>,
}

impl<R> Default for Tombstones<R> {
    fn default() -> Self {
        Self { reasons: HashMap::new(), order: VecDeque::new() }
    }
}

impl<R: Clone> Tombstones<R> {
    /// Remembers why a token is refused. A newer reason replaces the older one, and does not make it last longer.
    pub fn add(&mut self, hash: &SecretHash, reason: R, now: Instant) {
        self.forget_old(now);
        if let Some(known) = self.reasons.get_mut(hash.as_hex()) {
            *known = reason;
            return;
        }
        if self.order.len() == MAX {
            self.forget_oldest();
        }
        let hash: Arc<str> = hash.as_hex().into();
        self.reasons.insert(Arc::clone(&hash), reason);
        self.order.push_back((now, hash));
    }

    /// Why the token is refused, if that is still known.
    pub fn get(&mut self, hash: &SecretHash, now: Instant) -> Option<R> {
        self.forget_old(now);
        self.reasons.get(hash.as_hex()).cloned()
    }

    fn forget_old(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(since, _)| now.saturating_duration_since(*since) >= TIME) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, hash)) = self.order.pop_front() {
            self.reasons.remove(&hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hash(number: usize) -> SecretHash {
        SecretHash::from_hex(&format!("{number:064x}")).unwrap()
    }

    #[test]
    fn reason_is_known_for_an_hour() {
        let (mut stones, start) = (Tombstones::default(), Instant::now());
        stones.add(&hash(1), "ended", start);
        assert_eq!(stones.get(&hash(1), start + TIME - Duration::from_nanos(1)), Some("ended"));
        assert_eq!(stones.get(&hash(2), start), None);
        assert_eq!(stones.get(&hash(1), start + TIME), None);
        assert!(stones.reasons.is_empty() && stones.order.is_empty());
    }

    #[test]
    fn newer_reason_replaces_the_older_one_for_the_rest_of_its_time() {
        let (mut stones, start) = (Tombstones::default(), Instant::now());
        stones.add(&hash(1), "replaced", start);
        stones.add(&hash(1), "revoked", start + TIME / 2);
        assert_eq!(stones.get(&hash(1), start + TIME / 2), Some("revoked"));
        assert_eq!(stones.get(&hash(1), start + TIME), None);
        stones.add(&hash(1), "unknown", start + TIME);
        assert_eq!(stones.get(&hash(1), start + TIME * 2 - Duration::from_nanos(1)), Some("unknown"));
    }

    #[test]
    fn oldest_make_room() {
        let (mut stones, now) = (Tombstones::default(), Instant::now());
        (0..MAX + 2).for_each(|number| stones.add(&hash(number), number, now));
        assert_eq!((stones.reasons.len(), stones.order.len()), (MAX, MAX));
        assert_eq!(stones.get(&hash(1), now), None);
        assert_eq!(stones.get(&hash(2), now), Some(2));
        assert_eq!(stones.get(&hash(MAX + 1), now), Some(MAX + 1));
    }

    proptest! {
        #[test]
        fn order_and_reasons_agree(
            steps in proptest::collection::vec((0..20usize, 0..3000u64, any::<bool>()), 0..60),
        ) {
            let (mut stones, mut now) = (Tombstones::default(), Instant::now());
            let mut expected: HashMap<usize, (Instant, u64)> = HashMap::new();
            for (number, seconds, adds) in steps {
                now += Duration::from_secs(seconds);
                expected.retain(|_, (since, _)| now - *since < TIME);
                if adds {
                    stones.add(&hash(number), seconds, now);
                    expected.entry(number).or_insert((now, seconds)).1 = seconds;
                }
                prop_assert_eq!(stones.get(&hash(number), now), expected.get(&number).map(|(_, reason)| *reason));
                prop_assert_eq!((stones.order.len(), stones.reasons.len()), (expected.len(), expected.len()));
            }
        }
    }
}
