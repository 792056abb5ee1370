//! Watches: every object of a type, then each change, without end.
//!
//! kube's own watcher decodes a list whole and drops an event that it cannot decode, so one hostile object would hide
//! changes of others, or its own end.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use futures::io::AsyncBufRead;
use futures::{AsyncBufReadExt as _, Stream, stream};
use kube::api::WatchParams;
use kube::core::Request;
use serde::Deserialize;

use super::objects::{Objects, text_of};
use super::{Cluster, Error, ErrorKind};
use crate::crd::{Object, WatchLine};

/// How long one request watches, in seconds; the next begins where it ended.
const WATCH_SECONDS: u32 = 290;
/// How long the API server may send nothing, bookmarks included, until the connection counts as dead. Kubernetes sends a
/// bookmark about once a minute.
const MAX_SILENCE: Duration = Duration::from_secs(150);
/// The longest wait after a failure.
const MAX_BACKOFF: Duration = Duration::from_secs(15);

/// What a watch tells.
#[derive(Debug)]
pub enum WatchEvent<T> {
    /// All objects are told anew. What was deleted while nothing was watched is not.
    Restarted,
    /// An object that is there.
    Present(T),
    /// An object as it was when it was deleted.
    Deleted(T),
}

impl<T> WatchEvent<T> {
    /// The same event about what `read` makes of its object.
    pub(crate) fn map<U>(self, read: impl FnOnce(T) -> U) -> WatchEvent<U> {
        match self {
            Self::Restarted => WatchEvent::Restarted,
            Self::Present(object) => WatchEvent::Present(read(object)),
            Self::Deleted(object) => WatchEvent::Deleted(read(object)),
        }
    }
}

/// The names of the two calls that a watch makes.
#[derive(Debug, Clone, Copy)]
pub(super) struct WatchCalls {
    pub(super) list: &'static str,
    pub(super) watch: &'static str,
}

type Lines = Pin<Box<dyn AsyncBufRead + Send>>;

struct Watch<T, R> {
    cluster: Cluster,
    request: Request,
    calls: WatchCalls,
    read: R,
    at: At,
    pending: VecDeque<WatchEvent<T>>,
    /// How many tries in a row failed.
    failures: u32,
}

enum At {
    /// Nothing is known.
    Start,
    /// What happened up to this version is known.
    Version(String),
    /// The same, and later changes are being sent.
    Watching(String, Lines),
}

impl Objects<'_> {
    /// Watches all of these objects. Those of which `read` makes nothing are passed over.
    pub(super) fn watch<T, R>(self, calls: WatchCalls, read: R) -> impl Stream<Item = WatchEvent<T>> + use<T, R>
    where
        R: Fn(&Object) -> Option<T>,
    {
        let (cluster, request) = (self.cluster.clone(), self.request);
        let watch = Watch { cluster, request, calls, read, at: At::Start, pending: VecDeque::new(), failures: 0 };
        stream::unfold(watch, |mut watch| async move {
            let event = watch.next().await;
            Some((event, watch))
        })
    }
}

impl<T, R: Fn(&Object) -> Option<T>> Watch<T, R> {
    async fn next(&mut self) -> WatchEvent<T> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return event;
            }
            match self.advance().await {
                Ok(()) => self.failures = 0,
                Err(error) => {
                    tracing::warn!(%error, "a watch was interrupted; it is started again");
                    self.at = At::Start;
                    let wait = Duration::from_millis(250).saturating_mul(1 << self.failures.min(10)).min(MAX_BACKOFF);
                    self.failures = self.failures.saturating_add(1);
                    tokio::time::sleep(wait.mul_f64(0.5 + self.cluster.entropy.fraction() / 2.0)).await;
                }
            }
        }
    }

    /// One step: a list, the start of a watch, or a line of it.
    async fn advance(&mut self) -> Result<(), Error> {
        self.at = match std::mem::replace(&mut self.at, At::Start) {
            At::Start => {
                let (cluster, request) = (&self.cluster, self.request.clone());
                let objects = Objects { cluster, request, metadata_only: false };
                let (found, version) =
                    objects.list_at(self.calls.list, "-", None, |object| (self.read)(&object)).await?;
                self.pending.push_back(WatchEvent::Restarted);
                self.pending.extend(found.into_iter().flatten().map(WatchEvent::Present));
                At::Version(version)
            }
            At::Version(version) => {
                let lines = self.open(&version).await?;
                At::Watching(version, lines)
            }
            At::Watching(version, mut lines) => match self.next_line(&mut lines).await? {
                Some(line) => At::Watching(self.take(&line)?.unwrap_or(version), lines),
                None => At::Version(version),
            },
        };
        Ok(())
    }

    async fn open(&mut self, version: &str) -> Result<Lines, Error> {
        let request = self.request.watch(&WatchParams::default().timeout(WATCH_SECONDS), version);
        let client = &self.cluster.watch_client;
        let open = async {
            let lines = client.request_stream(request.map_err(kube::Error::BuildRequest)?).await?;
            Ok(Box::pin(lines) as Lines)
        };
        self.cluster.call(self.calls.watch, "-", open).await
    }

    /// The next line; `None` at the end.
    async fn next_line(&mut self, lines: &mut Lines) -> Result<Option<String>, Error> {
        let mut line = Vec::new();
        match tokio::time::timeout(MAX_SILENCE, lines.read_until(b'\n', &mut line)).await {
            Ok(Ok(_)) if line.ends_with(b"\n") => Ok(Some(text_of(line))),
            // Half a line is none: the watch goes on from the last whole one.
            Ok(Ok(_)) => Ok(None),
            Ok(Err(error)) => Err(self.failed(ErrorKind::Unreachable, &error.to_string())),
            Err(_) => Err(self.failed(ErrorKind::Timeout, "nothing was sent for too long")),
        }
    }

    /// Takes an event in; the version that it tells.
    fn take(&mut self, line: &str) -> Result<Option<String>, Error> {
        let not_expected = |_| self.failed(ErrorKind::UnreadableAnswer, "an event is not of the expected form");
        let event = WatchLine::parse(line).map_err(not_expected)?;
        let object = event.object().map_err(not_expected)?;
        match &*event.kind {
            "ADDED" | "MODIFIED" => self.pending.extend((self.read)(&object).map(WatchEvent::Present)),
            "DELETED" => self.pending.extend((self.read)(&object).map(WatchEvent::Deleted)),
            "BOOKMARK" => {}
            // Most often 410: the version is too old to go on from.
            _ => return Err(self.failed(ErrorKind::Server, &message(&object))),
        }
        Ok(object.resource_version())
    }

    fn failed(&self, kind: ErrorKind, why: &str) -> Error {
        Error::new(self.calls.watch, "-", kind, why)
    }
}

/// The message of a `Status`.
fn message(object: &Object) -> String {
    #[derive(Default, Deserialize)]
    struct Status {
        message: String,
    }
    object.decode::<Status>().unwrap_or_default().message
}
