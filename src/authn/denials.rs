//! Slows down an identity that keeps making requests that it has no right to. It counts *denied* requests only;
//! allowed ones are always checked and carried out. So a job that lacks a right does not lock out another job of the
//! same identity.

use std::time::Duration;

use super::digest_cache::{Digest, Recent};
use super::leaky_bucket::{Count, RateLimit};

/// How long a denial may be remembered. A permission never is.
const REMEMBERED: Duration = Duration::from_secs(10);

/// The denials of this replica.
#[derive(Debug)]
pub struct Denials {
    counts: RateLimit<Digest>,
    /// The answers that denials rest on: an identity may do something in no role, or only in another one.
    questions: Recent,
    /// The operations that a credential was denied too often.
    requests: Recent,
}

impl Denials {
    /// Allows each identity this many denials at once, and as many per minute.
    pub fn new(burst: u32) -> Self {
        Self { counts: RateLimit::new(burst), questions: Recent::default(), requests: Recent::default() }
    }

    /// Counts a denial.
    pub fn count(&self, identity: Digest) -> Count {
        self.counts.count(identity)
    }

    /// Remembers an answer that a denial rests on.
    pub fn remember(&self, question: Digest) {
        self.questions.remember(question, REMEMBERED);
    }

    /// Whether this was so a moment ago.
    pub fn remembers(&self, question: &Digest) -> bool {
        self.questions.left(question).is_some()
    }

    /// Refuses such requests without authenticating them until `wait` is over, for at most 10 seconds.
    pub fn block(&self, request: Digest, wait: Duration) {
        self.requests.remember(request, wait.min(REMEMBERED));
    }

    /// How long such a request must still wait.
    pub fn blocked(&self, request: &Digest) -> Option<Duration> {
        self.requests.left(request)
    }
}
