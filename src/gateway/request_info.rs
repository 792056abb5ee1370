//! What a request asks of the API server, for audit and metrics. Nothing is decided by it.
//!
//! Names are those of Kubernetes' `RequestInfoFactory` (k8s.io/apiserver, `pkg/endpoints/request`), so that both audit
//! trails agree.

use http::Method;
use http::uri::PathAndQuery;
use percent_encoding::percent_decode_str;
use url::form_urlencoded::parse;

use crate::domain::text::escape_hidden;
use crate::observability::audit::ApiCall;

/// The longest name, in bytes. Kubernetes' own have at most 253 characters.
const MAX_NAME: usize = 256;
/// The longest path or command, in bytes.
const MAX_TEXT: usize = 1024;

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestInfo {
    call: ApiCall,
    kind: StreamKind,
}

/// How long an answer lasts, and what it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// An answer that ends by itself, and begins within a minute.
    Ordinary,
    /// A watch.
    Watch,
    /// A log that is followed.
    LogFollow,
    /// `exec` and `cp`.
    Exec,
    /// `attach`.
    Attach,
    /// `port-forward`.
    PortForward,
    /// What a pod, a service or a node says, or another cluster, over HTTP; and a profile of the API server.
    Proxy,
    /// Any other upgraded connection.
    Upgrade,
}

impl StreamKind {
    /// The names of all streams.
    pub const STREAMS: [&'static str; 7] =
        ["watch", "log_follow", "exec", "attach", "port_forward", "proxy", "upgrade"];

    /// Whether it lasts as long as the client wants.
    pub fn is_stream(self) -> bool {
        self != Self::Ordinary
    }

    /// Its name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ordinary => "ordinary",
            Self::Watch => "watch",
            Self::LogFollow => "log_follow",
            Self::Exec => "exec",
            Self::Attach => "attach",
            Self::PortForward => "port_forward",
            Self::Proxy => "proxy",
            Self::Upgrade => "upgrade",
        }
    }
}

impl RequestInfo {
    /// Reads a request. `is_upgrade`: it asks for another protocol.
    pub fn of(method: &Method, asked: &PathAndQuery, is_upgrade: bool) -> Self {
        let path = percent_decode_str(asked.path()).decode_utf8_lossy();
        let query = asked.query().unwrap_or_default();
        let resource = Resource::of(method, &path, query);
        let kind = match &resource {
            Some(resource) => resource.kind(query, is_upgrade),
            // A profile lasts as long as its `seconds` say.
            None if path.starts_with("/debug/pprof/") => StreamKind::Proxy,
            None => StreamKind::Ordinary,
        };
        let kind = if is_upgrade && kind == StreamKind::Ordinary { StreamKind::Upgrade } else { kind };
        let call = resource.map_or_else(
            || ApiCall { verb: http_verb(method).to_owned(), path: named(&path, MAX_TEXT), ..ApiCall::default() },
            |resource| resource.call(query),
        );
        Self { call, kind }
    }

    /// For the audit trail.
    pub fn audit(&self) -> &ApiCall {
        &self.call
    }

    /// How it is cut.
    pub fn kind(&self) -> StreamKind {
        self.kind
    }

    /// Whether it may change something, by its verb. `exec` over WebSocket is a `get`.
    pub fn is_write(&self) -> bool {
        !matches!(self.call.verb.as_str(), "get" | "list" | "watch" | "head" | "options")
    }
}

/// A request for a resource, as Kubernetes reads it.
struct Resource<'a> {
    verb: &'static str,
    group: &'a str,
    version: &'a str,
    namespace: &'a str,
    resource: &'a str,
    name: &'a str,
    subresource: &'a str,
    /// Whether a field selector may name the one object.
    selects: bool,
}

impl<'a> Resource<'a> {
    /// `None`: the path is not a resource's.
    fn of(method: &Method, path: &'a str, query: &str) -> Option<Self> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, version, rest) = match &parts[..] {
            ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
            ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
            _ => return None,
        };
        let (verb, rest) = match rest {
            ["watch", rest @ ..] if !rest.is_empty() => ("watch", rest),
            ["proxy", rest @ ..] if !rest.is_empty() => ("proxy", rest),
            _ => (api_verb(method), rest),
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace] | ["namespaces", namespace, "status" | "finalize", ..] => (*namespace, rest),
            ["namespaces", namespace, rest @ ..] => (*namespace, rest),
            _ => ("", rest),
        };
        let part = |index: usize| rest.get(index).copied().unwrap_or_default();
        let name = part(1);
        let selects = verb == "get" && name.is_empty();
        let verb = match verb {
            "get" if name.is_empty() && flag(query, "watch") => "watch",
            "get" if name.is_empty() => "list",
            "delete" if name.is_empty() => "deletecollection",
            verb => verb,
        };
        let subresource = if verb == "proxy" { "" } else { part(2) };
        Some(Self { verb, group, version, namespace, resource: part(0), name, subresource, selects })
    }

    fn kind(&self, query: &str, is_upgrade: bool) -> StreamKind {
        match (self.group, self.resource, self.subresource) {
            ("", "pods", "exec") if is_upgrade => StreamKind::Exec,
            ("", "pods", "attach") if is_upgrade => StreamKind::Attach,
            ("", "pods", "portforward") if is_upgrade => StreamKind::PortForward,
            // The API server gives these all the time they want, in each group: builds have logs, clusters a proxy.
            (_, _, "proxy") if is_upgrade => StreamKind::Upgrade,
            (_, _, "proxy") => StreamKind::Proxy,
            (_, _, "log") if flag(query, "follow") => StreamKind::LogFollow,
            _ if self.verb == "watch" => StreamKind::Watch,
            _ => StreamKind::Ordinary,
        }
    }

    fn call(&self, query: &str) -> ApiCall {
        let short = |text: &str| named(text, MAX_NAME);
        let is_of_container =
            matches!((self.group, self.resource, self.subresource), ("", "pods", "exec" | "attach" | "log"));
        let selected = || value(query, "fieldSelector").as_deref().and_then(selected_name).and_then(short);
        ApiCall {
            verb: self.verb.to_owned(),
            path: None,
            api_group: short(self.group),
            api_version: short(self.version),
            resource: short(self.resource),
            subresource: short(self.subresource),
            namespace: short(self.namespace),
            name: short(self.name).or_else(|| if self.selects { selected() } else { None }),
            container: value(query, "container").filter(|_| is_of_container).and_then(|name| named(&name, MAX_NAME)),
            command: if is_of_container && self.subresource == "exec" { command(query) } else { Vec::new() },
        }
    }
}

fn api_verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::GET | Method::HEAD => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "other",
    }
}

fn http_verb(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::OPTIONS => "options",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "other",
    }
}

/// The first value of a parameter, the one that Kubernetes takes.
fn value(query: &str, name: &str) -> Option<String> {
    parse(query.as_bytes()).find(|(found, _)| found == name).map(|(_, value)| value.into_owned())
}

/// Whether a switch is on. Kubernetes takes anything but `0` and `false` for yes, nothing included.
fn flag(query: &str, name: &str) -> bool {
    value(query, name).is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
}

/// The one object that a field selector asks for.
fn selected_name(selector: &str) -> Option<&str> {
    let name = selector.split(',').find_map(|term| term.strip_prefix("metadata.name="))?;
    let name = name.strip_prefix('=').unwrap_or(name);
    (!matches!(name, "." | "..") && !name.contains(['/', '%'])).then_some(name)
}

/// The command of an exec, a word each.
fn command(query: &str) -> Vec<String> {
    let (mut words, mut left) = (Vec::new(), MAX_TEXT);
    for (_, word) in parse(query.as_bytes()).filter(|(name, _)| name == "command") {
        if left == 0 {
            words.push("…".to_owned());
            break;
        }
        let word = shown(&word, left);
        // An empty word counts, too.
        left = left.saturating_sub(word.len() + 1);
        words.push(word);
    }
    words
}

fn named(text: &str, max: usize) -> Option<String> {
    if text.is_empty() { None } else { Some(shown(text, max)) }
}

/// The text with hidden characters escaped. What is longer than `max` bytes is cut off, and ends in `…`.
fn shown(text: &str, max: usize) -> String {
    let mut shown = escape_hidden(&text[..text.floor_char_boundary(max)]);
    let is_whole = text.len() <= max && shown.len() <= max;
    if !is_whole {
        shown.truncate(shown.floor_char_boundary(max));
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests;
