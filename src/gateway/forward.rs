//! Forwards a request whose answer is a body: ordinary ones, watches, followed logs.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::response::Response;
use http::header::WARNING;
use http::{HeaderValue, Request, StatusCode};
use hyper::body::Incoming;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, sleep_until, timeout};
use tokio_util::task::TaskTracker;

use super::body::{AnswerBody, Piece, Source};
use super::cut::Ending;
use super::exchange::Exchange;
use super::failure::NoAnswer;
use super::pieces::{Next, Pieces};
use super::registry::{OnCut, Why};
use super::upstream::{Driver, Upstream};
use super::{Failure, headers};
use crate::authn::Connection;

/// How long the head of an ordinary answer may take: a little longer than the API server gives a request (60 s).
pub(super) const HEAD: Duration = Duration::from_secs(65);
/// How long a client may take for what was sent before the cut.
pub(super) const GRACE: Duration = Duration::from_millis(250);
/// The same when this replica stops, which takes no right from anybody. It must be less than the process waits.
const RESTART_GRACE: Duration = Duration::from_secs(2);
/// The same for a client of HTTP/2, whose other streams end with its connection.
const LINGER: Duration = Duration::from_secs(5);
/// How long the HTTP library gets to write the last piece: it discards what it holds when a body breaks off.
const FLUSH: Duration = Duration::from_millis(100);

/// A request on its way, and what it needs.
pub(super) struct Forward {
    pub(super) upstream: Upstream,
    pub(super) exchange: Arc<Exchange>,
    pub(super) client: Client,
    /// A warning for the answer: the end is near.
    pub(super) warning: Option<HeaderValue>,
}

/// The client's connection.
pub(super) struct Client {
    pub(super) connection: Connection,
    /// Whether it carries one request at a time, so that it may be reset.
    pub(super) is_http1: bool,
}

impl Forward {
    /// Sends the request and passes the answer on. What does not come with its head is left to a task. Dropping this
    /// before the head has come cancels the request.
    pub(super) async fn run(self, request: Request<Body>, tasks: &TaskTracker) -> Result<Response, Failure> {
        let may_change = self.exchange.is_write();
        let sent = async {
            let sending = self.upstream.send(request);
            match self.exchange.kind.is_stream() {
                true => sending.await,
                false => timeout(HEAD, sending).await.map_err(|_| NoAnswer::TooSlow)?,
            }
        };
        let (head, driver) = self.answered(sent, may_change).await?;
        // Nobody has asked for another protocol.
        if head.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Failure::NotUpgraded);
        }
        Ok(self.pass(head, driver, tasks).await)
    }

    /// Passes an answer on. `driver` is its connection, if that is its own.
    pub(super) async fn pass(
        self,
        answer: http::Response<Incoming>,
        driver: Option<Driver>,
        tasks: &TaskTracker,
    ) -> Response {
        let (parts, body) = answer.into_parts();
        let mut ending = Ending::of(self.exchange.kind, parts.status, &parts.headers);
        let mut response = Response::new(Body::empty());
        *response.status_mut() = parts.status;
        *response.headers_mut() = headers::answer(parts.headers);
        if let Some(warning) = &self.warning {
            response.headers_mut().append(WARNING, warning.clone());
        }
        if body.is_end_stream() {
            return response;
        }
        let mut body = Pieces::new(body, !self.exchange.kind.is_stream());
        let (in_use, hint) = (self.client.connection.forward(), body.size_hint());
        let (alive, gone) = oneshot::channel();
        let answer = |pieces| Body::new(AnswerBody::new(pieces, Arc::clone(&self.exchange), hint, in_use, alive));
        // What has arrived with the head leaves with it: a small answer is one packet, and needs no task.
        let arrived = body.arrived().await.filter(|_| self.exchange.open.why().is_none());
        let arrived = arrived.map(|(frame, is_last)| (ending.piece(frame, is_last), is_last));
        if let Some((piece, true)) = arrived {
            *response.body_mut() = answer(Source::Whole(Some(piece)));
            self.see_off(gone, tasks.clone());
            return response;
        }
        let (pieces, receiver) = mpsc::channel(1);
        *response.body_mut() = answer(Source::Task(receiver));
        if let Some((piece, _)) = arrived {
            // The channel is empty.
            let _ = pieces.try_send(piece);
        }
        let rest = tasks.clone();
        tasks.spawn(async move {
            let cut = self.pass_on(body, &pieces, &mut ending).await;
            drop(driver);
            match cut {
                Some(why) => self.cut(why, pieces, &ending, gone).await,
                None => self.see_off(gone, rest),
            }
        });
        response
    }

    /// The head of the answer to what is sent, unless the request is cut before it has come.
    pub(super) async fn answered<T>(
        &self,
        sent: impl Future<Output = Result<T, NoAnswer>>,
        may_change: bool,
    ) -> Result<T, Failure> {
        if let Some(why) = self.exchange.open.why() {
            return Err(Failure::Cut(why));
        }
        let answered = tokio::select! {
            biased;
            why = self.exchange.open.cut() => Err(NoAnswer::Cut(why)),
            answered = sent => answered,
        };
        answered.map_err(|none| Failure::NoAnswer { none, may_change })
    }

    /// Passes on until the answer ends, the client is gone or the answer is cut. Returns why it is cut.
    async fn pass_on(
        &self,
        mut body: Pieces<Incoming>,
        pieces: &mpsc::Sender<Piece>,
        ending: &mut Ending,
    ) -> Option<Why> {
        loop {
            let between = ending.is_at_boundary();
            let next = tokio::select! {
                biased;
                why = self.must_cut(between) => return Some(why),
                () = pieces.closed() => return None,
                next = body.next() => next,
            };
            if let Some(why) = self.exchange.open.why().filter(|why| between || why.is_at_once()) {
                return Some(why);
            }
            let (piece, is_last) = match next {
                Next::Piece(frame, is_last) => (ending.piece(frame, is_last), is_last),
                Next::End => (Piece::End, true),
                // An answer that breaks off must not look whole.
                Next::Broken => return None,
            };
            let _waits = self.exchange.open.waits_for_client();
            tokio::select! {
                biased;
                why = self.must_cut(false) => return Some(why),
                sent = pieces.send(piece) => if sent.is_err() { return None },
            }
            if is_last {
                return None;
            }
        }
    }

    /// Waits until the answer must be cut here. If only this replica stops, the rest of an event that has begun may
    /// follow for a moment, so that the client can go on after it elsewhere.
    async fn must_cut(&self, is_between_events: bool) -> Why {
        let (why, at) = self.exchange.open.cut_at().await;
        if !is_between_events && !why.is_at_once() {
            sleep_until(at + GRACE).await;
        }
        why
    }

    /// Ends the answer with the reason, if it can have one. Discards what the client does not take soon.
    async fn cut(self, why: Why, pieces: mpsc::Sender<Piece>, ending: &Ending, gone: oneshot::Receiver<()>) {
        let told = async {
            // There is room again when it has been taken. The client may be gone already.
            pieces.send(ending.last(why)).await.is_ok() && pieces.reserve().await.is_ok()
        };
        let patience = if why.is_at_once() { GRACE } else { RESTART_GRACE };
        if timeout(patience, told).await.unwrap_or(false) {
            sleep(FLUSH).await;
        }
        drop(pieces);
        self.client.discard(why, gone).await;
    }

    /// Leaves the rest of an answer that has ended to the client. If the request is cut before it has all, discards
    /// what it does not take soon.
    fn see_off(self, gone: oneshot::Receiver<()>, tasks: TaskTracker) {
        let client = self.client;
        self.exchange.open.leave_to_client(OnCut(Box::new(move |why| {
            tasks.spawn(async move { client.discard(why, gone).await });
        })));
    }
}

impl Client {
    /// Resets a connection whose client does not take the rest of an answer soon.
    async fn discard(&self, why: Why, gone: oneshot::Receiver<()>) {
        let patience = match self.is_http1 {
            _ if !why.is_at_once() => RESTART_GRACE,
            true => GRACE,
            false => LINGER,
        };
        let is_over = timeout(patience, gone).await.is_ok();
        if !is_over || self.is_http1 && self.connection.is_blocked() {
            self.connection.reset();
        }
    }
}
