//! Request bodies: read after authentication, and refused with the name of the field at fault.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{FromRequest, OptionalFromRequest, Request};
use bytes::Bytes;
use futures::StreamExt as _;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, EXPECT};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Version};
use http_body::{Frame, SizeHint};
use serde::de::DeserializeOwned;

use super::problem::{Code, Problem};
use crate::authn::Connection;

/// The largest body, in bytes. No valid request has a tenth of it.
const MAX_BODY: usize = 64 * 1024;
/// How much of an unread body is received and dropped, in bytes.
const MAX_DISCARDED: usize = 4 * 1024 * 1024;
/// How long a body may take to arrive, or to be dropped. Enough for a slow line.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The mark with which some programs begin UTF-8, PowerShell among them.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

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

/// The text of a body, without a byte order mark (RFC 8259, section 8.1, lets a parser ignore one).
pub(crate) async fn read(request: Request) -> Result<(Parts, Vec<u8>), Problem> {
    let (parts, body) = request.into_parts();
    check_coding(&parts.headers)?;
    let late = || Problem::detailed(Code::MalformedBody, "the body did not arrive within 10 seconds");
    let read = tokio::time::timeout(BODY_TIMEOUT, read_all(body)).await;
    let mut bytes = read.unwrap_or_else(|_| Err(late()))?;
    if bytes.starts_with(BYTE_ORDER_MARK) {
        bytes.drain(..BYTE_ORDER_MARK.len());
    }
    Ok((parts, bytes))
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
        let (parts, bytes) = read(request).await?;
        check_media_type(&parts)?;
        parse(&bytes).map(Self)
    }
}

impl<S: Send + Sync, T: DeserializeOwned> OptionalFromRequest<S> for Json<T> {
    type Rejection = Problem;

    /// `None` for an empty body, whatever its `Content-Type`, and for `null`.
    async fn from_request(request: Request, _: &S) -> Result<Option<Self>, Problem> {
        let (parts, bytes) = read(request).await?;
        if bytes.is_empty() {
            return Ok(None);
        }
        check_media_type(&parts)?;
        let value: Option<T> = parse(&bytes)?;
        Ok(value.map(Self))
    }
}

/// Daypass decodes no content coding, not even one that does not fit the body.
fn check_coding(headers: &HeaderMap) -> Result<(), Problem> {
    let codings =
        headers.get_all(CONTENT_ENCODING).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let mut codings = codings.map(<[u8]>::trim_ascii).filter(|coding| !coding.is_empty());
    if codings.all(|coding| coding.eq_ignore_ascii_case(b"identity")) {
        return Ok(());
    }
    Err(Problem::unsupported_coding())
}

fn check_media_type(parts: &Parts) -> Result<(), Problem> {
    let is_json = |value: &HeaderValue| {
        let media_type = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        media_type.eq_ignore_ascii_case(b"application/json")
            || parts.method == Method::PATCH && media_type.eq_ignore_ascii_case(b"application/merge-patch+json")
    };
    let mut values = parts.headers.get_all(CONTENT_TYPE).iter();
    if values.next().is_some_and(is_json) && values.all(is_json) {
        return Ok(());
    }
    Err(Problem::new(Code::UnsupportedMediaType))
}

pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // PowerShell 5.1 sends ISO-8859-1, and UTF-16 from a file.
    let not_utf8 = |_| Problem::detailed(Code::MalformedBody, "the body must be UTF-8");
    let text = std::str::from_utf8(bytes).map_err(not_utf8)?;
    // serde would accept an array of the fields in order.
    if text.trim_ascii_start().starts_with('[') {
        return Err(not_an_object());
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let value: T = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        problem(&path, error.inner())
    })?;
    json.end().map_err(|error| problem(".", &error))?;
    Ok(value)
}

/// The error for a body, in Daypass's own words. serde gives the kind of an error, the field and what it expected only
/// in its message, which may also quote the client.
fn problem(path: &str, error: &serde_json::Error) -> Problem {
    let message = error.to_string();
    let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message);
    if message == "number out of range" {
        return Problem::field(path, "is a number out of range");
    }
    if error.is_syntax() || error.is_eof() {
        return Problem::detailed(Code::MalformedBody, format!("line {}, column {}", error.line(), error.column()));
    }
    let quoted = |start: &str| message.strip_prefix(start)?.split("`, expected ").next();
    if let Some(field) = quoted("missing field `") {
        return Problem::field(field.trim_end_matches('`'), "is required");
    }
    if let Some(field) = quoted("duplicate field `") {
        return Problem::field(field.trim_end_matches('`'), "is given twice");
    }
    if let Some(field) = quoted("unknown field `") {
        return Problem::field(field, "is not a field of this request");
    }
    if path == "." {
        return not_an_object();
    }
    match message.rsplit_once(", expected ") {
        Some((_, "a sequence")) => Problem::field(path, "must be a list"),
        Some((_, expected)) => Problem::field(path, format_args!("must be {expected}")),
        // A rule of Daypass.
        None => Problem::field(path, message),
    }
}

fn not_an_object() -> Problem {
    Problem::detailed(Code::Validation, "the body must be a JSON object")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::members::CreateMember;
    use crate::api::tokens::CreateToken;

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

    #[test]
    fn refusal_has_no_words_of_the_decoder() {
        let message = |body: &str| {
            let Problem { errors, .. } = parse::<CreateToken>(body.as_bytes()).unwrap_err();
            errors.into_iter().map(|error| format!("{} {}", error.field, error.message)).collect::<String>()
        };
        for (body, expected) in [
            (r#"{"name":7}"#, "name must be a string"),
            (r#"{"name":null}"#, "name must be a string"),
            (r#"{"name":{"a":[]}}"#, "name must be a string"),
            (r#"{"name":1e999}"#, "name is a number out of range"),
            (r#"{"scopes":"members:read, expected a string"}"#, "scopes must be a list"),
            (r#"{"scopes":{}}"#, "scopes must be a list"),
            (r#"{"scopes":[7]}"#, "scopes[0] must be a string"),
            (r#"{"scopes":["x"]}"#, "scopes[0] must be one of members:read, members:write, tokens:read, tokens:write"),
            (r#"{"expiresInDays":true}"#, "expiresInDays must be a whole number of days"),
            (r#"{"expiresInDays":[90]}"#, "expiresInDays must be a whole number of days"),
            (r#"{"expiresInDays":-1}"#, "expiresInDays must be a whole number of days"),
            (r#"{"expiresInDays":-99999999999999999999}"#, "expiresInDays must be a whole number of days"),
            (r#"{"expiresInDays":0.5}"#, "expiresInDays must be a whole number of days"),
            (r#"{"expiresInDays":"9 0"}"#, "expiresInDays must be a whole number of days"),
            (r#"{"expiresInDays":-1e999}"#, "expiresInDays is a number out of range"),
            (r#"{"expiresAt":1796148000}"#, "expiresAt must be a string"),
            (r#"{"expiresAt":"2026-12-31T23:59:60Z"}"#, "expiresAt must not be a leap second (:60)"),
            (r#"{"a`b":1}"#, "a`b is not a field of this request"),
            (r#"{"name":"a","name":"b"}"#, "name is given twice"),
            (r#"{"name":"a","scopes":[]} "#, ""),
            (r#"{"scopes":[]}"#, "name is required"),
        ] {
            if expected.is_empty() {
                assert!(parse::<CreateToken>(body.as_bytes()).is_ok(), "{body}");
            } else {
                assert_eq!(message(body), expected, "{body}");
            }
        }
    }

    #[test]
    fn whole_numbers_are_read_in_every_notation() {
        for days in ["90", "90.0", "9e1", r#""90""#, r#""090""#, "99999999999999999999", r#""99999999999999999999""#] {
            let body = format!(r#"{{"name":"a","scopes":[],"expiresInDays":{days}}}"#);
            assert!(parse::<CreateToken>(body.as_bytes()).is_ok(), "{body}");
        }
    }

    #[test]
    fn content_coding_other_than_identity_is_refused() {
        let check = |values: &[&str]| {
            let value = |value: &&str| (CONTENT_ENCODING, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            check_coding(&values.iter().map(value).collect()).is_ok()
        };
        for accepted in [&[][..], &[""], &["identity"], &["Identity, ,identity"], &["identity", "identity"]] {
            assert!(check(accepted), "{accepted:?}");
        }
        for refused in [&["gzip"][..], &["GZIP"], &["identity, br"], &["identity", "zstd"], &["x"], &["é"]] {
            assert!(!check(refused), "{refused:?}");
        }
    }
}
