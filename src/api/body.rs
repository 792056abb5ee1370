//! Request bodies: read after authentication, and refused with the name of the field at fault.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{FromRequest, OptionalFromRequest, Request};
use bytes::Bytes;
use futures::StreamExt as _;
use http::header::{CONTENT_TYPE, EXPECT};
use http::{HeaderMap, Version};
use http_body::{Frame, SizeHint};
use serde::de::DeserializeOwned;

use super::connection::Connection;
use super::problem::{Code, Problem};

/// The largest body, in bytes. No valid request has a tenth of it.
const MAX_BODY: usize = 64 * 1024;
/// How much of an unread body is received and dropped, in bytes.
const MAX_DISCARDED: usize = 4 * 1024 * 1024;
/// How long a body may take to arrive, or to be dropped. Enough for a slow line.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A JSON body.
#[derive(Debug)]
pub(super) struct Json<T>(pub(super) T);

/// The part of a request's body that its handler has not read.
pub(super) struct Rest {
    body: Arc<Mutex<Option<Body>>>,
    /// The client sends the body only after 100 (Continue), which the first read triggers (RFC 9110, section 10.1.1).
    waits: bool,
}

/// A body that goes back to its [`Rest`] when its reader drops it.
struct Lent {
    body: Body,
    back: Arc<Mutex<Option<Body>>>,
}

/// Lends the request its body. A handler that refuses a request without reading its body buffers none of it.
pub(super) fn lend(request: Request) -> (Request, Rest) {
    let waits = request.version() < Version::HTTP_2 && request.headers().contains_key(EXPECT);
    let back = Arc::new(Mutex::new(None));
    let request = request.map(|body| Body::new(Lent { body, back: back.clone() }));
    (request, Rest { body: back, waits })
}

impl Rest {
    /// Receives and drops what was not read. Otherwise a client that is still sending never reads the answer, or finds
    /// its connection closed under its next request. `None` if there is nothing to drop.
    pub(super) fn discard(self, connection: &Connection) -> Option<impl Future<Output = ()> + Send + use<>> {
        let body = self.body.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (body, connection) = (body.filter(|body| !self.waits && !body.is_end_stream())?, connection.clone());
        Some(async move {
            let (mut chunks, mut length) = (body.into_data_stream(), 0);
            let discarded = async {
                while let Some(Ok(chunk)) = chunks.next().await
                    && length <= MAX_DISCARDED
                {
                    length += chunk.len();
                    connection.forget(chunk.len());
                }
            };
            let _in_time = tokio::time::timeout(BODY_TIMEOUT, discarded).await;
        })
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let body = std::mem::take(&mut self.body);
        *self.back.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
    }
}

async fn read(body: Body) -> Result<Vec<u8>, Problem> {
    let late = || Problem::detailed(Code::MalformedBody, "the body did not arrive within 10 seconds");
    tokio::time::timeout(BODY_TIMEOUT, read_all(body)).await.unwrap_or_else(|_| Err(late()))
}

async fn read_all(body: Body) -> Result<Vec<u8>, Problem> {
    let too_large = || Problem::detailed(Code::BodyTooLarge, format!("at most {MAX_BODY} bytes"));
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(too_large());
    }
    let mut chunks = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Problem::new(Code::MalformedBody))?;
        if bytes.len() + chunk.len() > MAX_BODY {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let bytes = read(body).await?;
        check_media_type(&parts.headers)?;
        parse(&bytes).map(Self)
    }
}

impl<S: Send + Sync, T: DeserializeOwned> OptionalFromRequest<S> for Json<T> {
    type Rejection = Problem;

    /// `None` for an empty body, whatever its `Content-Type`, and for `null`.
    async fn from_request(request: Request, _: &S) -> Result<Option<Self>, Problem> {
        let (parts, body) = request.into_parts();
        let bytes = read(body).await?;
        if bytes.is_empty() {
            return Ok(None);
        }
        check_media_type(&parts.headers)?;
        let value: Option<T> = parse(&bytes)?;
        Ok(value.map(Self))
    }
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Problem::new(Code::UnsupportedMediaType))
}

pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // serde would accept an array of the fields in order.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(not_an_object());
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value: T = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        problem(&path, error.inner())
    })?;
    json.end().map_err(|error| problem(".", &error))?;
    Ok(value)
}

/// serde names a missing, unknown or repeated field only in its message, between backticks.
fn problem(path: &str, error: &serde_json::Error) -> Problem {
    if error.is_syntax() || error.is_eof() {
        return Problem::detailed(Code::MalformedBody, format!("line {}, column {}", error.line(), error.column()));
    }
    let message = error.to_string();
    let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message);
    let named = message.split('`').nth(1).unwrap_or_default();
    match message.split(" field `").next() {
        Some("missing") => Problem::field(named, "is required"),
        Some("unknown") => Problem::field(named, "is not a field of this request"),
        Some("duplicate") => Problem::field(named, "is given twice"),
        _ if path == "." => not_an_object(),
        _ => Problem::field(path, message),
    }
}

fn not_an_object() -> Problem {
    Problem::detailed(Code::Validation, "the body must be a JSON object")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::members::CreateMember;

    fn at_fault(body: &str) -> (Code, Vec<String>) {
        let Problem { code, errors, .. } = parse::<CreateMember>(body.as_bytes()).unwrap_err();
        (code, errors.into_iter().map(|error| error.field).collect())
    }

    #[test]
    fn refusal_names_the_field_at_fault() {
        for (body, field) in [
            (r#"{"roleId":"r"}"#, "duration"),
            (r#"{"duration":"1"}"#, "roleId"),
            (r#"{"duration":null,"roleId":"r"}"#, "duration"),
            (r#"{"duration":1e3,"roleId":"r"}"#, "duration"),
            (r#"{"duration":1.5,"roleId":"r"}"#, "duration"),
            (r#"{"duration":"1e3","roleId":"r"}"#, "duration"),
            (r#"{"duration":"49","roleId":"r"}"#, "duration"),
            (r#"{"duration":0,"roleId":"r"}"#, "duration"),
            (r#"{"duration":-1,"roleId":"r"}"#, "duration"),
            (r#"{"duration":["1"],"roleId":"r"}"#, "duration"),
            (r#"{"duration":"1","roleId":7}"#, "roleId"),
            (r#"{"duration":"1","roleId":"r","owner":"x"}"#, "owner"),
            (r#"{"duration":"1","duration":"2","roleId":"r"}"#, "duration"),
            (r#"{"duration":"1","roleId":"r","username":"a\u0007"}"#, "username"),
            (r#"{"duration":"1","roleId":"r","username":{}}"#, "username"),
        ] {
            assert_eq!(at_fault(body), (Code::Validation, vec![field.to_owned()]), "{body}");
        }
        for body in ["", "{", "nonsense", r#"{"duration":"1","roleId":"r"} x"#] {
            assert_eq!(at_fault(body), (Code::MalformedBody, vec![]), "{body}");
        }
        for body in ["[]", "7", "null", r#"["1","r",null,null]"#] {
            assert_eq!(at_fault(body), (Code::Validation, vec![]), "{body}");
        }
    }
}
