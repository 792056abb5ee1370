//! Endless watches: a list of all objects of a type, then every change.
//!
//! kube's own watcher decodes a list as a whole and drops an event that it cannot decode, so one hostile object could
//! hide changes to others, or its own deletion.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use futures::io::AsyncBufRead;
use futures::{AsyncBufReadExt as _, Stream, stream};
use kube::api::{ListParams, WatchParams};
use kube::core::Request;
use serde::Deserialize;

use super::objects::{Objects, text_of};
use super::{Cluster, Error, ErrorKind};
use crate::crd::{Object, WatchLine};

/// How long one watch request lasts, in seconds. The next one continues where it ended.
const WATCH_SECONDS: u32 = 290;
/// The connection counts as dead if the API server sends nothing for this long. Kubernetes sends a bookmark about once
/// a minute.
const MAX_SILENCE: Duration = Duration::from_secs(150);
/// The longest wait after a failure. Short: until the watch runs again, changes go unseen.
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// An event of a watch.
#[derive(Debug)]
pub enum WatchEvent<T> {
    /// A new list follows. Objects deleted while the watch was down get no event: they are missing from the list.
    Restarted,
    /// The list is complete, and changes follow. A list that fails halfway has no such event: another one follows.
    Listed,
    /// An object that exists: listed, added or changed.
    Present(T),
    /// The last state of a deleted object.
    Deleted(T),
    /// The watch is down: from here on to the next [`Self::Listed`], changes may go unseen.
    Interrupted,
}

impl<T> WatchEvent<T> {
    /// Converts the event's object with `read`.
    pub(crate) fn map<U>(self, read: impl FnOnce(T) -> U) -> WatchEvent<U> {
        match self {
            Self::Restarted => WatchEvent::Restarted,
            Self::Listed => WatchEvent::Listed,
            Self::Present(object) => WatchEvent::Present(read(object)),
            Self::Deleted(object) => WatchEvent::Deleted(read(object)),
            Self::Interrupted => WatchEvent::Interrupted,
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
    metadata_only: bool,
    calls: WatchCalls,
    read: R,
    position: Position,
    /// Events to deliver before the next step.
    pending: VecDeque<WatchEvent<T>>,
    /// The number of failures in a row.
    failures: u32,
    /// How long to wait before the next step, after a failure.
    pause: Option<Duration>,
}

enum Position {
    /// The list is next.
    Start,
    /// The next page of the list, so that it is never held as a whole.
    Listing(ListParams),
    /// All changes up to this version are known; a watch from there is next.
    Version(String),
    /// All changes up to this version are known, and the API server is sending later ones.
    Watching(String, Lines),
}

impl Objects<'_> {
    /// Watches these objects. Skips those for which `read` returns `None`.
    pub(super) fn watch<T, R>(self, calls: WatchCalls, read: R) -> impl Stream<Item = WatchEvent<T>> + use<T, R>
    where
        R: Fn(&Object) -> Option<T>,
    {
        let (cluster, request, metadata_only) = (self.cluster.clone(), self.request, self.metadata_only);
        let (position, pending) = (Position::Start, VecDeque::new());
        let (failures, pause) = (0, None);
        let watch = Watch { cluster, request, metadata_only, calls, read, position, pending, failures, pause };
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
            if let Some(pause) = self.pause.take() {
                tokio::time::sleep(pause).await;
            }
            match self.advance().await {
                Ok(()) if matches!(self.position, Position::Watching(..)) => self.failures = 0,
                // No success yet: if lists work and watches do not, the waits must still grow.
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(%error, "a watch was interrupted; restarting it");
                    self.position = Position::Start;
                    let wait = Duration::from_millis(250).saturating_mul(1 << self.failures.min(10)).min(MAX_BACKOFF);
                    self.failures = self.failures.saturating_add(1);
                    self.pause = Some(wait.mul_f64(0.5 + self.cluster.entropy.fraction() / 2.0));
                    return WatchEvent::Interrupted;
                }
            }
        }
    }

    /// Takes one step: a page of the list, the start of a watch, or one line of it.
    async fn advance(&mut self) -> Result<(), Error> {
        self.position = match std::mem::replace(&mut self.position, Position::Start) {
            Position::Start => {
                self.pending.push_back(WatchEvent::Restarted);
                self.list(ListParams::default()).await?
            }
            Position::Listing(params) => self.list(params).await?,
            Position::Version(version) => {
                let lines = self.open(&version).await?;
                Position::Watching(version, lines)
            }
            Position::Watching(version, mut lines) => match self.next_line(&mut lines).await? {
                Some(line) => Position::Watching(self.take(&line)?.unwrap_or(version), lines),
                None => Position::Version(version),
            },
        };
        Ok(())
    }

    /// Reads a page of the list. Returns the position after it.
    async fn list(&mut self, mut params: ListParams) -> Result<Position, Error> {
        let (cluster, request) = (&self.cluster, self.request.clone());
        let objects = Objects { cluster, request, metadata_only: self.metadata_only };
        let page = objects.page(self.calls.list, "-", &mut params, |object| (self.read)(&object)).await?;
        self.pending.extend(page.found.into_iter().flatten().map(WatchEvent::Present));
        if !page.is_last {
            return Ok(Position::Listing(params));
        }
        self.pending.push_back(WatchEvent::Listed);
        Ok(Position::Version(page.version))
    }

    async fn open(&mut self, version: &str) -> Result<Lines, Error> {
        let watch = if self.metadata_only { Request::watch_metadata } else { Request::watch };
        let request = watch(&self.request, &WatchParams::default().timeout(WATCH_SECONDS), version);
        let client = &self.cluster.watch_client;
        let open = async {
            let lines = client.request_stream(request.map_err(kube::Error::BuildRequest)?).await?;
            Ok(Box::pin(lines) as Lines)
        };
        self.cluster.call(self.calls.watch, "-", open).await
    }

    /// The next line; `None` at the end of the request.
    async fn next_line(&mut self, lines: &mut Lines) -> Result<Option<String>, Error> {
        let mut line = Vec::new();
        match tokio::time::timeout(MAX_SILENCE, lines.read_until(b'\n', &mut line)).await {
            Ok(Ok(_)) if line.ends_with(b"\n") => Ok(Some(text_of(line))),
            // Ignore a partial line: the next request continues after the last complete one.
            Ok(Ok(_)) => Ok(None),
            Ok(Err(error)) => Err(self.failed(ErrorKind::Unreachable, &error.to_string())),
            Err(_) => Err(self.failed(ErrorKind::Timeout, "the API server sent nothing for too long")),
        }
    }

    /// Queues the event in this line and returns its resource version.
    fn take(&mut self, line: &str) -> Result<Option<String>, Error> {
        let malformed = |_| self.failed(ErrorKind::UnreadableAnswer, "malformed watch event");
        let event = WatchLine::parse(line).map_err(malformed)?;
        let object = event.object().map_err(malformed)?;
        match &*event.kind {
            "ADDED" | "MODIFIED" => self.pending.extend((self.read)(&object).map(WatchEvent::Present)),
            "DELETED" => self.pending.extend((self.read)(&object).map(WatchEvent::Deleted)),
            "BOOKMARK" => {}
            // Usually 410 Gone: the version is too old to continue from.
            _ => return Err(self.failed(ErrorKind::Server, &message(&object))),
        }
        Ok(object.resource_version())
    }

    fn failed(&self, kind: ErrorKind, why: &str) -> Error {
        Error::new(self.calls.watch, "-", kind, why)
    }
}

/// The message of a Kubernetes `Status` object.
fn message(object: &Object) -> String {
    #[derive(Default, Deserialize)]
    struct Status {
        message: String,
    }
    object.decode::<Status>().unwrap_or_default().message
}
