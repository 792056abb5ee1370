//! Slows down an identity that goes on asking for what it has no right to. It counts what was *denied*: whatever
//! is allowed is asked for each time, and done. So a job that keeps trying something it may not do locks out no
//! other job of the same identity.

use std::time::Duration;

use super::rate_limit::{Count, RateLimit};
use super::recent::{Digest, Recent};

/// How long a denial may be remembered. A permission never is.
const REMEMBERED: Duration = Duration::from_secs(10);

/// The denials of this replica.
#[derive(Debug)]
pub struct Denials {
    counts: RateLimit<Digest>,
    /// What denials rest on: that an identity may do something nowhere, or not here but elsewhere.
    questions: Recent,
    /// What a credential was denied too often, whatever else the request says.
    requests: Recent,
}

impl Denials {
    /// Allows each identity this many denials at once, and as many a minute.
    pub fn new(burst: u32) -> Self {
        Self { counts: RateLimit::new(burst), questions: Recent::default(), requests: Recent::default() }
    }

    /// Counts a denial.
    pub fn count(&self, identity: Digest) -> Count {
        self.counts.count(identity)
    }

    /// Remembers what a denial rests on.
    pub fn remember(&self, question: Digest) {
        self.questions.remember(question, REMEMBERED);
    }

    /// Whether that was so a moment ago.
    pub fn remembers(&self, question: &Digest) -> bool {
        self.questions.left(question).is_some()
    }

    /// Answers such requests without authenticating them anew, for as long as they are told to wait.
    pub fn block(&self, request: Digest, wait: Duration) {
        self.requests.remember(request, wait.min(REMEMBERED));
    }

    /// How long such a request is still to wait.
    pub fn blocked(&self, request: &Digest) -> Option<Duration> {
        self.requests.left(request)
    }
}
