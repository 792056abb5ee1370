//! Checks the walls: compares each admission policy with what this version ships, and tests one with a dry run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Resource;
use kube::core::ObjectMeta;
use tokio::sync::Mutex;

use super::{Cluster, Error, ErrorKind};
use crate::crd::Object;
use crate::domain::role::RoleId;
use crate::domain::walls::{OwnAccount, WALLS};

/// In a refusal by an admission policy, but in none by a webhook.
const BY_POLICY: &str = " is forbidden: ValidatingAdmissionPolicy '";

/// The result of a check of the walls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Walls {
    /// What is wrong, with the policy's name in each entry. Empty if all walls are in force.
    pub faults: Vec<String>,
    /// When the newest policy or binding was created, by the API server's clock.
    pub made_at: Option<DateTime<Utc>>,
}

impl Walls {
    /// Whether all walls are in force.
    pub fn stand(&self) -> bool {
        self.faults.is_empty()
    }

    fn note(&mut self, name: &str, fault: impl std::fmt::Display) {
        self.faults.push(format!("{name}: {fault}"));
    }
}

/// The last check and its time. The lock makes everyone who wants a check wait for the running one.
pub(super) type LastCheck = Arc<Mutex<Option<(Instant, Walls)>>>;

impl Cluster {
    /// Checks the walls, or returns the last check if it is younger than `max_age`. A check takes two calls per policy
    /// and two more, so concurrent callers share it. Treats an unreadable policy as a fault.
    pub async fn walls(&self, role: &RoleId, max_age: Duration) -> Walls {
        let mut last = self.last_wall_check.lock().await;
        if let Some((at, walls)) = last.as_ref()
            && at.elapsed() < max_age
        {
            return walls.clone();
        }
        let found = match self.own_account().await {
            Some(own) => {
                let own = OwnAccount { namespace: self.namespace.clone(), name: own.name };
                self.look_at_walls(&own, role).await
            }
            None => Ok(Walls { faults: vec!["could not find out Daypass's own account".to_owned()], made_at: None }),
        };
        let walls = found.unwrap_or_else(|error| Walls { faults: vec![error.to_string()], made_at: None });
        if !walls.stand() && last.as_ref().is_none_or(|(_, before)| before.faults != walls.faults) {
            tracing::warn!(faults = walls.faults.join("; "), "the walls are not in force");
        }
        *last = Some((Instant::now(), walls.clone()));
        walls
    }

    /// Reads every policy and its binding and compares them with what this version ships. If all match, tests by a dry
    /// run that one of them refuses what it should, which shows that the API server enforces policies at all.
    ///
    /// # Errors
    /// If a policy or binding is unreadable, or the dry run fails for another reason.
    pub async fn look_at_walls(&self, own: &OwnAccount, role: &RoleId) -> Result<Walls, Error> {
        let mut walls = Walls::default();
        for wall in WALLS {
            let policy = self.read_wall::<ValidatingAdmissionPolicy>("get_policy", wall.name).await?;
            let binding = self.read_wall::<ValidatingAdmissionPolicyBinding>("get_policy_binding", wall.name).await?;
            for object in [&policy, &binding].into_iter().flatten() {
                walls.made_at = walls.made_at.max(object.created_at());
            }
            // An unreadable spec counts as one that differs.
            let spec = |object: &Option<Object>| object.as_ref().map(|it| it.part("spec").unwrap_or_default());
            if let Some(fault) = wall.fault(own, spec(&policy).as_ref(), spec(&binding).as_ref()) {
                walls.note(wall.name, fault);
            }
        }
        if walls.stand() && !self.is_stray_account_refused(role).await? {
            walls.note("daypass-role-serviceaccounts", "the API server does not enforce it");
        }
        Ok(walls)
    }

    /// Reads a policy or a binding; `None` if it does not exist or is being deleted.
    async fn read_wall<K>(&self, call: &'static str, name: &str) -> Result<Option<Object>, Error>
    where
        K: Resource<DynamicType = ()>,
    {
        Ok(self.objects::<K>(None).get(call, name, name).await?.filter(|object| !object.is_deleting()))
    }

    /// Whether the walls refuse a service account that belongs to no member.
    async fn is_stray_account_refused(&self, role: &RoleId) -> Result<bool, Error> {
        let metadata = ObjectMeta { name: Some("walls-probe".to_owned()), ..ObjectMeta::default() };
        let stray = ServiceAccount { metadata, ..ServiceAccount::default() };
        let accounts = self.objects::<ServiceAccount>(Some(&role.namespace()));
        match accounts.dry_run("probe_walls", role.as_str(), &stray).await {
            Ok(_) => Ok(false),
            Err(error) if error.kind == ErrorKind::Forbidden && error.detail.contains("Daypass (policy ") => Ok(true),
            // The API server evaluates all policies, and names one of those that refuse.
            Err(error) if error.kind == ErrorKind::RefusedByPolicy && error.detail.contains(BY_POLICY) => Ok(true),
            Err(error) => Err(error),
        }
    }
}
