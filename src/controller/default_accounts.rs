//! Ends the tokens of `default` service accounts that are older than the walls.
//!
//! Whoever has such a token has the role. None can be made while the walls stand, so what is there was made before:
//! while they were disabled, in the seconds of a first install, or in a namespace that was there already. The account
//! is deleted; Kubernetes makes it anew with another UID, which no older token has.

use chrono::{DateTime, TimeDelta, Utc};

use crate::cluster::{Account, Cluster, Error, Walls};
use crate::domain::role::RoleId;

/// How long after a policy was made every API server enforces it. Each has a copy of its own, which follows within a
/// second or two.
const SETTLED: TimeDelta = TimeDelta::seconds(30);

/// What is remembered between two looks. The rest is told by when things were made.
#[derive(Debug, Default)]
pub(super) struct DefaultAccounts {
    /// Whether the walls had a fault at the last look.
    broken: bool,
    /// When they were first seen to stand after that: mending a policy does not change when it was made.
    mended_at: Option<DateTime<Utc>>,
}

impl DefaultAccounts {
    /// Deletes each `default` that is older than the walls, once they are sure to be enforced everywhere: what
    /// Kubernetes then makes is younger, and stays.
    ///
    /// # Errors
    /// When one cannot be deleted; the others are, and the next look finds it again.
    pub(super) async fn check(
        &mut self,
        cluster: &Cluster,
        walls: &Walls,
        defaults: &[(RoleId, Account)],
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        let Some(settled_at) = self.settled_at(walls, now).filter(|settled_at| *settled_at < now) else {
            return Ok(());
        };
        let mut failed = Ok(());
        for (role, account) in defaults.iter().filter(|(_, account)| is_older(account, settled_at)) {
            tracing::info!(%role, "the role's default service account is older than the walls; it is replaced");
            failed = failed.and(cluster.delete_account(role, account).await);
        }
        failed
    }

    /// From when on nobody could make a token; `None` while somebody may.
    fn settled_at(&mut self, walls: &Walls, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        if !walls.stand() {
            self.broken = true;
            return None;
        }
        if std::mem::take(&mut self.broken) {
            self.mended_at = Some(now);
        }
        walls.made_at.max(self.mended_at)?.checked_add_signed(SETTLED)
    }
}

/// One whose age is unknown counts as older.
fn is_older(account: &Account, settled_at: DateTime<Utc>) -> bool {
    !account.deleting && account.created_at.is_none_or(|created_at| created_at <= settled_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    fn standing(made_at: i64) -> Walls {
        Walls { faults: vec![], made_at: Some(at(made_at)) }
    }

    fn default(created_at: Option<DateTime<Utc>>) -> Account {
        Account { name: "default".into(), uid: "d".into(), member_uid: None, created_at, deleting: false }
    }

    #[test]
    fn what_was_made_before_the_walls_are_everywhere_is_old() {
        let settled_at = DefaultAccounts::default().settled_at(&standing(0), at(100)).unwrap();
        for (created_at, old) in
            [(None, true), (Some(at(-100)), true), (Some(at(0)), true), (Some(at(30)), true), (Some(at(31)), false)]
        {
            assert_eq!(is_older(&default(created_at), settled_at), old, "{created_at:?}");
        }
        let going = Account { deleting: true, ..default(Some(at(-100))) };
        assert!(!is_older(&going, settled_at), "its tokens are dead already");
    }

    #[test]
    fn walls_that_were_mended_count_from_then() {
        let mut seen = DefaultAccounts::default();
        assert_eq!(seen.settled_at(&standing(0), at(50)), Some(at(30)), "a new leader starts nothing over");
        let broken = Walls { faults: vec!["daypass-role-tokens: the policy has no binding".into()], ..standing(0) };
        assert_eq!(seen.settled_at(&broken, at(60)), None);
        assert_eq!(seen.settled_at(&standing(0), at(90)), Some(at(120)));
        assert_eq!(seen.settled_at(&standing(0), at(500)), Some(at(120)));
        assert_eq!(seen.settled_at(&standing(600), at(700)), Some(at(630)), "made anew since");
    }

    #[test]
    fn walls_of_unknown_age_delete_nothing() {
        assert_eq!(DefaultAccounts::default().settled_at(&Walls::default(), at(0)), None);
    }
}
