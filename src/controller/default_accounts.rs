//! Invalidates the tokens of `default` service accounts that are older than the walls.
//!
//! A token of a role's `default` account carries the rights of the role. The walls prevent new ones, but older ones
//! may exist: from a time without walls, from the seconds of a first install, or from a namespace that existed before.
//! Deleting the account invalidates them: Kubernetes recreates it with another UID.

use chrono::{DateTime, TimeDelta, Utc};

use crate::cluster::{Account, Cluster, Error, Walls};
use crate::domain::role::RoleId;

/// How long after its creation every API server is sure to enforce a policy. Each keeps its own copy, which lags by a
/// second or two.
const SETTLED: TimeDelta = TimeDelta::seconds(30);

/// The state kept between checks. Everything else follows from creation times.
#[derive(Debug, Default)]
pub(super) struct DefaultAccounts {
    /// Whether the walls had a fault at the last check.
    broken: bool,
    /// When the walls were first found intact after a fault. Repairing a policy does not change its creation time.
    mended_at: Option<DateTime<Utc>>,
}

impl DefaultAccounts {
    /// Deletes each `default` account that is older than the walls, once every API server enforces them. Kubernetes
    /// recreates it, and the new account is younger and stays. Takes what it has deleted out of `defaults`.
    ///
    /// # Errors
    /// The first deletion that failed. The others are still carried out, and the next check retries.
    pub(super) async fn check(
        &mut self,
        cluster: &Cluster,
        walls: &Walls,
        defaults: &mut Vec<(RoleId, Account)>,
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        let Some(settled_at) = self.settled_at(walls, now).filter(|settled_at| *settled_at < now) else {
            return Ok(());
        };
        let mut failed = Ok(());
        let old: Vec<_> = defaults.extract_if(.., |(_, account)| is_older(account, settled_at)).collect();
        for (role, account) in old {
            tracing::info!(%role, "replacing the role's default service account: it is older than the walls");
            let deleted = cluster.delete_account(&role, &account).await;
            if deleted.is_err() {
                defaults.push((role, account));
            }
            failed = failed.and(deleted);
        }
        failed
    }

    /// The time since when nobody can create a token; `None` while the walls have a fault or their age is unknown.
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

/// Treats an account of unknown age as older.
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
    fn account_created_before_walls_settled_is_older() {
        let settled_at = DefaultAccounts::default().settled_at(&standing(0), at(100)).unwrap();
        for (created_at, old) in
            [(None, true), (Some(at(-100)), true), (Some(at(0)), true), (Some(at(30)), true), (Some(at(31)), false)]
        {
            assert_eq!(is_older(&default(created_at), settled_at), old, "{created_at:?}");
        }
        let going = Account { deleting: true, ..default(Some(at(-100))) };
        assert!(!is_older(&going, settled_at), "its tokens are invalid already");
    }

    #[test]
    fn repaired_walls_settle_after_the_repair() {
        let mut seen = DefaultAccounts::default();
        assert_eq!(seen.settled_at(&standing(0), at(50)), Some(at(30)), "a new leader does not start over");
        let broken = Walls { faults: vec!["daypass-role-tokens: the policy has no binding".into()], ..standing(0) };
        assert_eq!(seen.settled_at(&broken, at(60)), None);
        assert_eq!(seen.settled_at(&standing(0), at(90)), Some(at(120)));
        assert_eq!(seen.settled_at(&standing(0), at(500)), Some(at(120)));
        assert_eq!(seen.settled_at(&standing(600), at(700)), Some(at(630)), "recreated since");
    }

    #[test]
    fn walls_of_unknown_age_delete_nothing() {
        assert_eq!(DefaultAccounts::default().settled_at(&Walls::default(), at(0)), None);
    }
}
