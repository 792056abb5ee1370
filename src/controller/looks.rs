//! When the controller looks at a member next, by what the feed knows of it: pure code.

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::member::{Member, Phase};

/// How long a request has to remove what it has marked as ended. Then the leader helps: the request may be cut short.
const REMOVAL: TimeDelta = TimeDelta::seconds(2);

/// When to look at a member.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Looks {
    /// Whether to look at it now.
    pub(super) now: bool,
    /// When to look at it, by the API server's clock, unless it changes before.
    pub(super) at: Option<DateTime<Utc>>,
}

/// When to look at a member. One that needs nothing is due when it ends; the sweep checks its other objects.
pub(super) fn looks(member: &Member, clock_skewed: bool, now: DateTime<Utc>) -> Looks {
    let end = member.expires_at();
    if !member.is_live(now) {
        let is_marked = member.status.phase == Some(Phase::Terminating);
        return Looks { now: !is_marked, at: is_marked.then(|| end.min(now + REMOVAL)) };
    }
    if member.is_recorded(clock_skewed) {
        return Looks { now: false, at: Some(end) };
    }
    let claim = member.claimed_until.filter(|_| member.is_claimed(now));
    Looks { now: claim.is_none(), at: Some(claim.map_or(end, |claim| claim.min(end))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::examples::{HOUR, at, member};
    use crate::domain::member::RecordedStatus;

    fn assert_looks(member: &Member, now: i64, looks_now: bool, looks_at: Option<i64>) {
        assert_eq!(looks(member, false, at(now)), Looks { now: looks_now, at: looks_at.map(at) });
    }

    #[test]
    fn recorded_member_is_looked_at_when_it_ends() {
        let claimed = Member { claimed_until: Some(at(10)), ..member() };
        for member in [member(), claimed] {
            assert_looks(&member, 1, false, Some(HOUR));
        }
        assert_eq!(looks(&member(), true, at(1)), Looks { now: true, at: Some(at(HOUR)) }, "the skew is not recorded");
    }

    #[test]
    fn claimed_member_is_looked_at_when_its_claim_or_its_time_is_over() {
        let fresh = Member { status: RecordedStatus::default(), claimed_until: Some(at(10)), ..member() };
        assert_looks(&fresh, 1, false, Some(10));
        assert_looks(&fresh, 10, true, Some(HOUR));
        assert_looks(&Member { claimed_until: None, ..fresh.clone() }, 1, true, Some(HOUR));
        assert_looks(&Member { not_after: Some(at(5)), ..fresh.clone() }, 1, false, Some(5));
        assert_looks(&Member { claimed_until: Some(at(HOUR)), ..fresh }, 1, true, Some(HOUR));
    }

    #[test]
    fn ended_member_is_looked_at_now_unless_a_request_is_removing_it() {
        assert_looks(&member(), HOUR, true, None);
        assert_looks(&Member { deleting: true, ..member() }, 1, true, None);
        let mut marked = member();
        marked.status.phase = Some(Phase::Terminating);
        assert_looks(&marked, 1, false, Some(3));
        assert_looks(&marked, HOUR - 1, false, Some(HOUR));
        assert_looks(&marked, HOUR + 1, false, Some(HOUR));
    }
}
