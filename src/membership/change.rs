//! Changing a member: its duration, its credential, and the recorded rights of its role.

use super::create::{CLAIM, Written};
use super::{Membership, status};
use crate::cluster::{Error, ErrorKind};
use crate::domain::kubeconfig::KubeconfigRecord;
use crate::domain::lifetime::MembershipDuration;
use crate::domain::member::{Credential, Member};
use crate::domain::secret::SecretHash;
use crate::observability::audit::{Cause, Kind};

impl Membership {
    /// Changes the duration of exactly this version of a member. When this succeeds, no kubeconfig outlives the new
    /// end.
    ///
    /// # Errors
    /// A conflict if the member has changed since it was read.
    pub async fn change_duration(
        &self,
        member: &Member,
        duration: MembershipDuration,
        cause: Cause<'_>,
    ) -> Result<Member, Error> {
        let changed = self.seen(self.cluster.set_duration(member, duration, self.clock.now() + CLAIM).await?);
        // The change of the spec is the decision: from now on, whoever issues a kubeconfig sees the new end. So these
        // are all.
        let mut outliving = self.kubeconfigs_of(&changed).await?;
        outliving.retain(|record| record.outlives(changed.expires_at()));
        let provisioned = self.provision(&changed, None, cause).await;
        self.delete_kubeconfigs(&changed.id, &outliving).await?;
        let refused = provisioned.as_ref().is_err_and(|error| error.kind == ErrorKind::RefusedByPolicy);
        if refused && changed.expires_at() > member.expires_at() {
            // The caller is told that its request was refused, so nobody stays longer. A shorter time stays in force.
            self.seen(self.cluster.set_duration(&changed, member.duration, self.clock.now() + CLAIM).await?);
        }
        provisioned.map(|written| written.after)
    }

    /// Gives a member a new credential. The old one and all kubeconfigs issued for it stop working.
    pub async fn renew_credential(
        &self,
        member: &Member,
        credential: &Credential,
        cause: Cause<'_>,
    ) -> Result<Member, Error> {
        let hash = credential.hash();
        let Written { before, after } = self.provision(member, Some(&hash), cause).await?;
        let old = self.kubeconfigs_of(&before).await?;
        self.delete_kubeconfigs(&after.id, &old).await?;
        self.report(Kind::CredentialIssued, &after, cause, None);
        Ok(after)
    }

    /// Writes these records of kubeconfigs into exactly this version of a live member. After a conflict, the next
    /// sweep does this.
    pub async fn record_kubeconfigs(&self, member: &Member, records: &[KubeconfigRecord]) -> Result<(), Error> {
        match self.cluster.write_kubeconfigs(member, records, None).await {
            Err(error) if error.is_conflict() || error.is_gone() => Ok(()),
            written => written.map(|recorded| drop(self.seen(recorded))),
        }
    }

    /// Records that a member's credential was used, the first time. After a conflict, the next use does this.
    pub async fn record_credential_use(&self, member: &Member, credential: &SecretHash) -> Result<(), Error> {
        if member.status.used_credential.as_deref() == Some(credential.fingerprint()) {
            return Ok(());
        }
        match self.cluster.write_used_credential(member, credential).await {
            Err(error) if error.is_conflict() || error.is_gone() => Ok(()),
            written => written.map(|recorded| drop(self.seen(recorded))),
        }
    }

    /// Records that the rights of a live member's role have changed. After a conflict, the next sweep does this.
    pub async fn record_role_change(
        &self,
        member: &Member,
        hash: &str,
        widened: bool,
        cause: Cause<'_>,
    ) -> Result<(), Error> {
        let mut changed = member.clone();
        if widened {
            changed.status.role_widened = Some(self.clock.now());
        }
        let update = status::active(&changed, None, Some(hash), self.clock.is_skewed(), self.clock.now());
        match self.cluster.write_status(member, &update).await {
            Ok(_) if widened => self.report(Kind::RoleWidened, member, cause, None),
            Err(error) if !error.is_conflict() && !error.is_gone() => return Err(error),
            _ => {}
        }
        Ok(())
    }
}
