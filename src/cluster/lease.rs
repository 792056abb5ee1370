//! Leader election with a Lease: only the holder runs the controller.
//!
//! As in client-go, a replica judges the holder by when it last saw the record change on its own clock, never by the
//! times in the record, so clocks need not agree. Every write names the version that it replaces, so the loser of a
//! race gets a conflict.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;

use super::objects::{Objects, decode};
use super::{Cluster, Error, ErrorKind};

/// How long a holder keeps the Lease after its last renewal. Another replica replaces a dead leader within this plus
/// one [`RENEW_INTERVAL`].
pub const LEASE_DURATION: Duration = Duration::from_secs(10);
/// How often the holder renews the Lease and the other replicas check it.
pub const RENEW_INTERVAL: Duration = Duration::from_secs(2);

const NAME: &str = "daypass";

/// What this process knows about the Lease.
#[derive(Debug)]
pub struct LeaseState {
    identity: String,
    /// The last version seen, and when this process first saw it.
    seen: Option<(String, Instant)>,
    /// The Lease as this process last wrote it. While nobody else writes it, renewing takes one call.
    written: Option<Lease>,
}

impl LeaseState {
    /// For the process with this identity, which must be unique among the replicas.
    pub fn new(identity: String) -> Self {
        Self { identity, seen: None, written: None }
    }

    /// Whether this process may take the Lease: it has no holder, or has not changed for longer than
    /// [`LEASE_DURATION`].
    fn is_free(&mut self, spec: &LeaseSpec, version: &str, now: Instant) -> bool {
        if spec.holder_identity.as_deref().is_none_or(str::is_empty) {
            return true;
        }
        match &self.seen {
            Some((seen, since)) if seen == version => now.duration_since(*since) > LEASE_DURATION,
            _ => {
                self.seen = Some((version.to_owned(), now));
                false
            }
        }
    }
}

impl Cluster {
    fn leases(&self) -> Objects<'_> {
        self.objects::<Lease>(Some(&self.namespace))
    }

    async fn lease(&self) -> Result<Option<Lease>, Error> {
        let found = self.leases().get("get_lease", NAME, NAME).await?;
        found.map(|lease| decode("get_lease", NAME, &lease)).transpose()
    }

    /// Takes or renews the Lease if possible; `true` if this process holds it now.
    pub async fn acquire_lease(&self, state: &mut LeaseState) -> Result<bool, Error> {
        if let Some(lease) = state.written.take() {
            match self.write_lease(state, lease.clone()).await {
                Ok(false) => {}
                Err(error) if error.kind == ErrorKind::Busy => {
                    state.written = Some(lease);
                    return Err(error);
                }
                result => return result,
            }
        }
        let Some(lease) = self.lease().await? else {
            let owner_references = self.own_account().await.map(|owner| vec![owner]);
            let metadata = ObjectMeta { name: Some(NAME.to_owned()), owner_references, ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.held_spec(state, None)) };
            return won(self.leases().create("create_lease", NAME, &lease).await).map(|made| made.is_some());
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let own = spec.holder_identity.as_deref() == Some(&state.identity);
        if !own && !state.is_free(&spec, &version, Instant::now()) {
            return Ok(false);
        }
        self.write_lease(state, lease).await
    }

    /// Makes this process the holder in exactly this version of the Lease; `false` if another replica was faster.
    async fn write_lease(&self, state: &mut LeaseState, mut lease: Lease) -> Result<bool, Error> {
        lease.spec = Some(self.held_spec(state, lease.spec.as_ref()));
        let written = won(self.leases().replace("update_lease", NAME, NAME, &lease).await)?;
        state.written = written.map(|lease| decode("update_lease", NAME, &lease)).transpose()?;
        Ok(state.written.is_some())
    }

    /// Releases the Lease, so that the next replica need not wait for it to expire.
    pub async fn release_lease(&self, state: &LeaseState) -> Result<(), Error> {
        let Some(mut lease) = self.lease().await? else {
            return Ok(());
        };
        if let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_deref() == Some(&state.identity))
        {
            spec.holder_identity = None;
            won(self.leases().replace("update_lease", NAME, NAME, &lease).await)?;
        }
        Ok(())
    }

    /// A Lease record with this process as the holder.
    fn held_spec(&self, state: &LeaseState, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = Timestamp::from_microsecond(self.clock.now().timestamp_micros()).ok().map(MicroTime);
        let kept = before.filter(|spec| spec.holder_identity.as_deref() == Some(&state.identity));
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(state.identity.clone()),
            lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
            acquire_time: kept.map_or(now.clone(), |spec| spec.acquire_time.clone()),
            renew_time: now,
            lease_transitions: Some(if kept.is_some() { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        }
    }
}

/// Turns a lost race into `None`.
fn won<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(written) => Ok(Some(written)),
        Err(error) if matches!(error.kind, ErrorKind::Conflict | ErrorKind::AlreadyExists) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unchanged_lease_is_free_after_its_duration() {
        let mut state = LeaseState::new("me".into());
        let held = LeaseSpec { holder_identity: Some("other".into()), ..LeaseSpec::default() };
        let start = Instant::now();
        assert!(!state.is_free(&held, "1", start), "first seen now, whatever times it contains");
        assert!(!state.is_free(&held, "1", start + LEASE_DURATION));
        assert!(!state.is_free(&held, "2", start + LEASE_DURATION * 2), "renewed since");
        assert!(state.is_free(&held, "2", start + LEASE_DURATION * 4));
        assert!(state.is_free(&LeaseSpec::default(), "3", start), "no holder");
    }
}
