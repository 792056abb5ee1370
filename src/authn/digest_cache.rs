//! Results of a moment ago, by digest: no credential and no name is kept.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

/// The maximum number of entries. A dropped result is looked up again.
const MAX_ENTRIES: usize = 10_000;

/// Identifies a credential, an identity or a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of these parts. Another split of the same bytes has another digest.
    pub fn of<const N: usize>(parts: [&[u8]; N]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }

    /// The digest of this and one more part.
    pub fn and(&self, part: &str) -> Self {
        Self::of([&self.0, part.as_bytes()])
    }
}

/// Digests, each with the time until which it is remembered.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<HashMap<Digest, Instant>>);

impl Recent {
    /// Remembers it for this long from now.
    pub(super) fn remember(&self, digest: Digest, time: Duration) {
        let now = Instant::now();
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= MAX_ENTRIES {
            entries.retain(|_, end| *end > now);
            // Half, so that not every insertion scans all entries.
            if entries.len() > MAX_ENTRIES / 2 {
                entries.clear();
            }
        }
        entries.insert(digest, now + time);
    }

    /// Forgets it.
    pub(super) fn forget(&self, digest: &Digest) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(digest);
    }

    /// How long it is still remembered.
    pub(super) fn left(&self, digest: &Digest) -> Option<Duration> {
        let end = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(digest).copied()?;
        end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_expire_and_are_bounded() {
        let recent = Recent::default();
        let digest = |n: u32| Digest::of([&n.to_be_bytes()]);
        recent.remember(digest(0), Duration::ZERO);
        recent.remember(digest(1), Duration::from_secs(3600));
        assert_eq!((recent.left(&digest(0)), recent.left(&digest(2))), (None, None));
        assert!(recent.left(&digest(1)).is_some_and(|left| left > Duration::from_secs(3000)));
        (0..25_000).for_each(|n| recent.remember(digest(n), Duration::from_secs(3600)));
        assert!(recent.0.lock().unwrap().len() <= MAX_ENTRIES);
    }

    #[test]
    fn parts_are_kept_apart() {
        assert_ne!(Digest::of([b"ab", b"c"]), Digest::of([b"a", b"bc"]));
        assert_ne!(Digest::of([b"a"]).and("b"), Digest::of([b"a"]).and("c"));
    }
}
