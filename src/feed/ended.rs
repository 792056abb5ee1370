//! Members that have ended in the last days, as this replica saw it. The audit trail is the record; this is for people
//! who wonder where a member has gone.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::mpsc::UnboundedReceiver;

use super::members::Change;
use crate::clock::Clock;
use crate::domain::member::Member;
use crate::domain::member_id::MemberId;
use crate::domain::role::RoleId;

/// How long an ended member is remembered.
const KEPT: TimeDelta = TimeDelta::days(3);
/// How many are remembered. With the longest names that is one megabyte.
const MOST: usize = 1000;

/// A member that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedMember {
    /// Role and name.
    pub id: MemberId,
    /// Who the membership was for.
    pub username: Option<String>,
    /// When it ended.
    pub ended_at: DateTime<Utc>,
    /// Whether somebody ended it before its time was over.
    pub early: bool,
}

/// The members that have ended, oldest first.
#[derive(Default)]
pub struct EndedMembers(Mutex<VecDeque<Arc<EndedMember>>>);

impl EndedMembers {
    /// Takes in the ends from the changes of Members. Never returns.
    pub(super) async fn follow(&self, mut changes: UnboundedReceiver<Change>, clock: &Clock) -> ! {
        while let Some(change) = changes.recv().await {
            // What vanished while the watch was down is not told with its last state.
            if let Change::Deleted(_, Some(last)) = change {
                self.note(&last, clock.now());
            }
        }
        // The sender lives as long as the feed.
        std::future::pending().await
    }

    fn note(&self, last: &Member, now: DateTime<Utc>) {
        let (username, end) = (last.username.clone(), last.expires_at());
        let ended = EndedMember { id: last.id.clone(), username, ended_at: end.min(now), early: now < end };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push_back(Arc::new(ended));
        while all.len() > MOST || all.front().is_some_and(|first| now - first.ended_at > KEPT) {
            all.pop_front();
        }
    }

    /// Those of these roles, latest first.
    pub fn of(&self, is_asked: impl Fn(&RoleId) -> bool, now: DateTime<Utc>) -> Vec<Arc<EndedMember>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = all.iter().rev().filter(|ended| now - ended.ended_at <= KEPT);
        kept.filter(|ended| is_asked(&ended.id.role)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::examples::{at, member};

    #[test]
    fn latest_ends_are_remembered_and_old_ones_forgotten() {
        let (ended, last) = (EndedMembers::default(), member());
        let all = |now| ended.of(|role| *role == last.id.role, now);
        let end = last.expires_at();
        ended.note(&last, end - TimeDelta::seconds(10));
        ended.note(&last, end + TimeDelta::seconds(1));
        let found: Vec<_> = all(end).iter().map(|ended| (ended.ended_at, ended.early)).collect();
        assert_eq!(found, [(end, false), (end - TimeDelta::seconds(10), true)]);
        assert!(ended.of(|_| false, end).is_empty());
        assert!(all(end + KEPT + TimeDelta::seconds(1)).is_empty());
        for _ in 0..MOST + 5 {
            ended.note(&last, end);
        }
        assert_eq!(all(at(0)).len(), MOST);
    }
}
