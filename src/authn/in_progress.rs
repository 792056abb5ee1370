//! Counts the requests in progress of each identity, so that nobody's slow requests take every place of a replica.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Digest;

/// The most requests in progress of one identity: a quarter of all places.
const MAX: usize = 64;

/// The requests in progress, by identity.
#[derive(Debug, Clone, Default)]
pub(super) struct InProgress(Arc<Mutex<HashMap<Digest, usize>>>);

/// A request in progress. It counts until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    requests: InProgress,
    identity: Digest,
}

impl InProgress {
    /// Counts one more request of this identity; `None` if it has too many.
    pub(super) fn begin(&self, identity: Digest) -> Option<Place> {
        let mut counts = self.counts();
        let count = counts.entry(identity).or_default();
        if *count == MAX {
            return None;
        }
        *count += 1;
        Some(Place { requests: self.clone(), identity })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<Digest, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The identity that it counts for.
    pub(super) fn identity(&self) -> Digest {
        self.identity
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.requests.counts();
        if let Some(count) = counts.get_mut(&self.identity) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.identity);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_identity_has_its_own_places_and_nothing_is_kept_of_the_idle() {
        let requests = InProgress::default();
        let (greedy, modest) = (Digest::of([b"greedy"]), Digest::of([b"modest"]));
        let mut places: Vec<_> = (0..MAX).map(|_| requests.begin(greedy).unwrap()).collect();
        assert!(requests.begin(greedy).is_none());
        assert!(requests.begin(modest).is_some());
        places.pop();
        assert!(requests.begin(greedy).is_some());
        drop(places);
        assert!(requests.counts().is_empty());
    }
}
