//! One admitted request: what it is, what has gone each way, and its end, which is recorded once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::limits::Held;
use super::registry::{Registered, Why};
use super::request_info::{RequestInfo, StreamKind};
use crate::domain::member::Member;
use crate::observability::audit::{Actor, Audit, Cause, Kind, Origin, Traffic};
use crate::observability::gateway_metrics::{CutLabels, StreamLabels};
use crate::observability::metrics::Metrics;

/// An admitted request, until the last of its parts is dropped.
pub(super) struct Exchange {
    pub(super) open: Registered,
    pub(super) kind: StreamKind,
    info: RequestInfo,
    member: Arc<Member>,
    origin: Origin,
    /// Whether the audit trail has it.
    is_audited: bool,
    received: AtomicU64,
    sent: AtomicU64,
    audit: Audit,
    metrics: Metrics,
    _held: Held,
}

/// What is known of a request when it is admitted.
pub(super) struct Admitted {
    pub(super) open: Registered,
    pub(super) kind: StreamKind,
    pub(super) info: RequestInfo,
    pub(super) member: Arc<Member>,
    pub(super) origin: Origin,
    pub(super) is_audited: bool,
    pub(super) held: Held,
}

impl Exchange {
    /// Begins the exchange. A stream is in the audit trail twice, when it opens and when it closes.
    pub(super) fn begin(admitted: Admitted, audit: Audit, metrics: Metrics) -> Arc<Self> {
        let Admitted { open, kind, info, member, origin, is_audited, held } = admitted;
        let (received, sent) = Default::default();
        let exchange =
            Self { open, kind, info, member, origin, is_audited, received, sent, audit, metrics, _held: held };
        if exchange.kind.is_stream() {
            exchange.metrics.gateway.streams.get_or_create(&StreamLabels { kind: exchange.kind.label() }).inc();
            exchange.record(Kind::StreamOpened, None);
        }
        Arc::new(exchange)
    }

    /// Whether it may change something, by its verb.
    pub(super) fn is_write(&self) -> bool {
        self.info.is_write()
    }

    /// Counts bytes from the client.
    pub(super) fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts bytes to the client.
    pub(super) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn record(&self, kind: Kind, traffic: Option<Traffic>) {
        if !self.is_audited {
            return;
        }
        let actor = Actor::Member { username: self.member.id.to_string() };
        let cause = Cause { actor: &actor, owner: None, origin: &self.origin };
        let event = cause.event(kind).about_member(&self.member).with_jti(Some(&self.open.pass.id));
        let reason = self.open.reason().map(Why::label);
        self.audit.record(&event.with_call(self.info.audit(), traffic).with_reason(reason));
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(why) = self.open.reason() {
            self.metrics.gateway.cuts.get_or_create(&CutLabels { reason: why.label() }).inc();
        }
        let is_stream = self.kind.is_stream();
        if is_stream {
            self.metrics.gateway.streams.get_or_create(&StreamLabels { kind: self.kind.label() }).dec();
        }
        let (received, sent) = (self.received.load(Ordering::Relaxed), self.sent.load(Ordering::Relaxed));
        let kind = if is_stream { Kind::StreamClosed } else { Kind::RequestForwarded };
        self.record(kind, Some(Traffic { bytes_from_client: received, bytes_to_client: sent }));
    }
}
