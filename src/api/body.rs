//! Bodies and queries, refused with the name of the field at fault.

use std::time::Duration;

use axum::body::Body;
use axum::body::HttpBody as _;
use axum::extract::{FromRequest, OptionalFromRequest, Request};
use futures::StreamExt as _;
use http::header::CONTENT_TYPE;
use serde::de::DeserializeOwned;

use super::problem::{Code, Problem};

/// The largest body; the largest that means anything is a tenth of it.
const MAX_BODY: usize = 64 * 1024;
/// What is larger is read, and forgotten, up to here.
const MAX_DISCARDED: usize = 4 * 1024 * 1024;
/// As long as a slow line takes for that; who is slower holds nothing up for longer.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A JSON body.
#[derive(Debug)]
pub(super) struct Json<T>(pub(super) T);

/// Why a body could not be received.
#[derive(Clone)]
struct Unreceived(Problem);

/// Reads the body to its end, whatever becomes of the request: a client that is still sending does not get to read the answer, and
/// one that has sent what nobody reads finds its connection closed under its next request.
pub(super) async fn receive(request: Request) -> Request {
    let (mut parts, body) = request.into_parts();
    let late = || Problem::detailed(Code::MalformedBody, "the body did not arrive within 10 seconds");
    let read = tokio::time::timeout(BODY_TIMEOUT, read(body)).await;
    let bytes = read.unwrap_or_else(|_| Err(late())).unwrap_or_else(|problem| {
        parts.extensions.insert(Unreceived(problem));
        Vec::new()
    });
    Request::from_parts(parts, Body::from(bytes))
}

async fn read(body: Body) -> Result<Vec<u8>, Problem> {
    let mut chunks = body.into_data_stream();
    let (mut bytes, mut length) = (Vec::new(), 0);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Problem::new(Code::MalformedBody))?;
        length += chunk.len();
        if length <= MAX_BODY {
            bytes.extend_from_slice(&chunk);
        } else if length > MAX_DISCARDED {
            break;
        }
    }
    if length > MAX_BODY {
        return Err(Problem::detailed(Code::BodyTooLarge, format!("at most {MAX_BODY} bytes")));
    }
    Ok(bytes)
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        if let Some(Unreceived(problem)) = parts.extensions.remove() {
            return Err(problem);
        }
        let content_type = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        if !media_type.eq_ignore_ascii_case("application/json") {
            return Err(Problem::new(Code::UnsupportedMediaType));
        }
        parse(&read(body).await?).map(Self)
    }
}

impl<S: Send + Sync, T: DeserializeOwned> OptionalFromRequest<S> for Json<T> {
    type Rejection = Problem;

    /// Nothing where nothing was sent, whatever was said of its type, or `null`.
    async fn from_request(request: Request, state: &S) -> Result<Option<Self>, Problem> {
        let is_empty = request.body().size_hint().exact() == Some(0);
        if is_empty && request.extensions().get::<Unreceived>().is_none() {
            return Ok(None);
        }
        let Json(value) = <Json<Option<T>> as FromRequest<S>>::from_request(request, state).await?;
        Ok(value.map(Self))
    }
}

pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // serde would read an array as the fields in their order.
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

/// serde names a missing, unknown or repeated field in its message only, between backticks.
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

    fn at_fault(body: &str) -> (Code, String) {
        let problem = parse::<CreateMember>(body.as_bytes()).unwrap_err();
        let text = format!("{problem:?}");
        let field = text.split("field: \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
        (problem.code, field.to_owned())
    }

    #[test]
    fn every_refusal_names_its_field() {
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
            assert_eq!(at_fault(body), (Code::Validation, field.to_owned()), "{body}");
        }
        for body in ["", "{", "nonsense", r#"{"duration":"1","roleId":"r"} x"#] {
            assert_eq!(at_fault(body).0, Code::MalformedBody, "{body}");
        }
        for body in ["[]", "7", "null", r#"["1","r",null,null]"#] {
            assert_eq!(at_fault(body).0, Code::Validation, "{body}");
        }
    }
}
