//! The `Audit-ID` of the calls that a REST request makes. It joins Daypass's audit trail and the API server's.

use std::cell::Cell;
use std::future::Future;

use http::{HeaderName, HeaderValue};
use uuid::Uuid;

/// The API server takes it as the `auditID` of the call. Its audit log has it whole, its own log the first 64
/// characters (k8s.io/apiserver, `audit.GetAuditIDTruncated`); ours has at most 47.
pub(super) const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

tokio::task_local! {
    /// The request that the running future belongs to. It ends with that future and does not reach tasks spawned by
    /// it, so no call can carry another request's id.
    static REQUEST: Request;
}

struct Request {
    id: Uuid,
    calls: Cell<u32>,
}

/// Runs `work` for the REST request with this id. Each call that it makes carries `Audit-ID: <id>/<n>`, with `n` from
/// 1. The id is a UUID of Daypass's own, so a client cannot choose what the API server logs.
pub async fn with_audit_ids<T>(id: Uuid, work: impl Future<Output = T>) -> T {
    REQUEST.scope(Request { id, calls: Cell::new(0) }, work).await
}

/// The id of the next call; `None` outside of a request: then the API server makes one up.
///
/// A call that is sent again after 401 or 429 gets another id, since the API server logs it as another call.
pub(super) fn next() -> Option<HeaderValue> {
    let count = |request: &Request| {
        let n = request.calls.get().saturating_add(1);
        request.calls.set(n);
        format!("{}/{n}", request.id)
    };
    HeaderValue::try_from(REQUEST.try_with(count).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use futures::future::join;

    use super::*;

    fn next_as_text() -> String {
        next().map_or_else(|| "none".to_owned(), |id| id.to_str().unwrap().to_owned())
    }

    async fn three_calls() -> [String; 3] {
        let first = next_as_text();
        tokio::task::yield_now().await;
        [first, next_as_text(), next_as_text()]
    }

    #[tokio::test]
    async fn calls_of_concurrent_requests_are_counted_apart() {
        let [one, two] = [Uuid::from_u128(1), Uuid::from_u128(2)];
        let calls = join(with_audit_ids(one, three_calls()), with_audit_ids(two, three_calls())).await;
        let expected = |id: Uuid| [1, 2, 3].map(|n| format!("{id}/{n}"));
        assert_eq!(calls, (expected(one), expected(two)));
    }

    #[tokio::test]
    async fn call_outside_of_a_request_has_no_id() {
        assert_eq!(three_calls().await, ["none"; 3]);
        let mut tasks = tokio::task::JoinSet::new();
        with_audit_ids(Uuid::from_u128(1), async { tasks.spawn(three_calls()) }).await;
        assert_eq!(tasks.join_next().await.unwrap().unwrap(), ["none"; 3]);
        assert_eq!(next_as_text(), "none");
    }

    #[tokio::test]
    async fn longest_id_fits_into_the_api_servers_log() {
        let request = Request { id: Uuid::max(), calls: Cell::new(u32::MAX) };
        let id = REQUEST.scope(request, async { next_as_text() }).await;
        assert_eq!(id, format!("{}/{}", Uuid::max(), u32::MAX));
        assert!(id.len() == 47 && id.len() <= 64, "{}", id.len());
    }
}
