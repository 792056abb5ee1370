//! Leader election by a Lease: one replica reaps.
//!
//! As in client-go, the holder's record is judged by when this process saw it change, never by the time written in it, so that
//! clocks need not agree. The loser of a race gets a conflict, since every write names the version that it replaces.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;

use super::objects::{Objects, decode};
use super::{Cluster, Error, ErrorKind};

/// How long a holder is believed after its last renewal. A dead leader is replaced within this and one renewal.
pub const LEASE_DURATION: Duration = Duration::from_secs(10);
/// How often the holder renews and the others look.
pub const RENEW_INTERVAL: Duration = Duration::from_secs(2);

const NAME: &str = "daypass";

/// What this process knows of the Lease.
#[derive(Debug)]
pub struct LeaseState {
    identity: String,
    seen: Option<(String, Instant)>,
    /// The Lease as this process last wrote it: while nobody else writes it, one call renews it.
    written: Option<Lease>,
}

impl LeaseState {
    /// For a process of this identity, unique among the replicas.
    pub fn new(identity: String) -> Self {
        Self { identity, seen: None, written: None }
    }

    /// Whether the record may be taken over: nobody's, or unchanged for its whole duration.
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

    /// Takes or renews the Lease where that is possible; whether this process holds it now.
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
            let lease = Lease { metadata, spec: Some(self.held(state, None)) };
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

    /// Writes this process into exactly this version of the Lease; whether nobody else was faster.
    async fn write_lease(&self, state: &mut LeaseState, mut lease: Lease) -> Result<bool, Error> {
        lease.spec = Some(self.held(state, lease.spec.as_ref()));
        let written = won(self.leases().replace("update_lease", NAME, NAME, &lease).await)?;
        state.written = written.map(|lease| decode("update_lease", NAME, &lease)).transpose()?;
        Ok(state.written.is_some())
    }

    /// Gives the Lease up, so that the next replica need not wait for it to run out.
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

    fn held(&self, state: &LeaseState, before: Option<&LeaseSpec>) -> LeaseSpec {
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

/// Losing a race is an answer, not an error.
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
    fn a_holder_is_believed_until_its_record_stood_still_for_the_whole_duration() {
        let mut state = LeaseState::new("me".into());
        let held = LeaseSpec { holder_identity: Some("other".into()), ..LeaseSpec::default() };
        let start = Instant::now();
        assert!(!state.is_free(&held, "1", start), "first seen now, whatever its times say");
        assert!(!state.is_free(&held, "1", start + LEASE_DURATION));
        assert!(!state.is_free(&held, "2", start + LEASE_DURATION * 2), "renewed meanwhile");
        assert!(state.is_free(&held, "2", start + LEASE_DURATION * 4));
        assert!(state.is_free(&LeaseSpec::default(), "3", start));
    }
}
