//! The status of a Member: its conditions, and how they are written.

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use super::EndReason;
use crate::cluster::StatusUpdate;
use crate::domain::member::Member;
use crate::domain::secret::SecretHash;

/// The status of a live member. Drops the records of kubeconfigs that it may no longer have.
pub(super) fn active<'a>(
    member: &Member,
    credential: Option<&'a SecretHash>,
    role_hash: Option<&'a str>,
    clock_skewed: bool,
    now: DateTime<Utc>,
) -> StatusUpdate<'a> {
    let ready_since = member.status.ready_since.unwrap_or(now);
    let mut conditions = vec![condition("Ready", "True", "Provisioned", "The service account exists", ready_since)];
    if let Some(since) = member.status.role_widened {
        let message = "The role can do more than when the member was created";
        conditions.push(condition("RoleWidened", "True", "RightsAdded", message, since));
    }
    if clock_skewed {
        let message = "The clocks of Daypass and the API server differ by more than 5 s";
        conditions.push(condition("ClockSkewed", "True", "OffsetOverFiveSeconds", message, now));
    }
    let kubeconfigs = match &member.status.kubeconfigs {
        // Without a credential there is no kubeconfig, and of an old credential none stays.
        _ if credential.is_some() || member.status.credential.is_none() => Some(Vec::new()),
        Some(records) => {
            let wanted = records.iter().filter(|record| record.is_wanted(member, now)).cloned().collect();
            Some(wanted).filter(|wanted: &Vec<_>| wanted.len() < records.len())
        }
        // The controller takes the records over from the Secrets.
        None => None,
    };
    StatusUpdate { phase: "Active", credential, role_hash, account_uid: None, kubeconfigs, conditions }
}

/// The status of a member that is being ended.
pub(super) fn terminating(reason: EndReason, now: DateTime<Utc>) -> StatusUpdate<'static> {
    let (reason, message) = match reason {
        EndReason::Expired => ("Expired", "The membership has expired"),
        EndReason::Revoked => ("Revoked", "The membership was ended early"),
    };
    let conditions = vec![condition("Ready", "False", reason, message, now)];
    StatusUpdate {
        phase: "Terminating",
        credential: None,
        role_hash: None,
        account_uid: None,
        // They name the Secrets to delete.
        kubeconfigs: None,
        conditions,
    }
}

fn condition(kind: &str, status: &str, reason: &str, message: &str, since: DateTime<Utc>) -> Condition {
    Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: Time(Timestamp::from_second(since.timestamp()).unwrap_or_default()),
        observed_generation: None,
    }
}
