//! The bodies of a forwarded request and of its answer. Once the request is cut, neither passes on anything more.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tower::BoxError;

use super::exchange::Exchange;
use super::registry::Why;
use crate::authn::Forwarding;

/// A request's body, on its way to the API server.
pub(super) struct RequestBody {
    body: Body,
    /// Wakes whoever waits for a client that sends nothing.
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    exchange: Arc<Exchange>,
}

impl RequestBody {
    pub(super) fn new(body: Body, exchange: Arc<Exchange>) -> Self {
        Self { body, cut: Box::pin(exchange.open.when_cut()), exchange }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err("cut".into())));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(why) = self.exchange.open.why() {
            return Poll::Ready(Some(Err(why.into())));
        }
        Poll::Ready(frame.map(|frame| {
            let frame = frame?;
            self.exchange.received(frame.data_ref().map_or(0, Bytes::len));
            Ok(frame)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A piece of an answer.
pub(super) enum Piece {
    /// From the API server. Something of ours may follow it or not, and it may be the last.
    Frame { frame: Frame<Bytes>, may_follow: bool, is_last: bool },
    /// The API server has sent all of it.
    End,
    /// Ours: it says why the answer is cut here, and whether it may end as if it were whole.
    Last(Bytes, bool),
}

/// How an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// Not known yet. If nothing more comes, it is broken off.
    Open,
    /// It is whole.
    Whole,
    /// It is broken off, and nobody may take it for whole.
    Broken,
}

/// An answer's body, on its way to the client.
pub(super) struct AnswerBody {
    pieces: Source,
    answer: Arc<Answer>,
    hint: SizeHint,
    /// Whether something of ours may follow what was passed on.
    at_boundary: bool,
    ends: Ends,
}

/// Where the pieces come from.
pub(super) enum Source {
    /// The answer is whole; `None` when it has been passed on.
    Whole(Option<Piece>),
    /// From the task that reads from the API server, so that a client that reads nothing does not delay the cut.
    Task(mpsc::Receiver<Piece>),
}

impl Source {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Piece>> {
        match self {
            Self::Whole(piece) => Poll::Ready(piece.take()),
            Self::Task(pieces) => pieces.poll_recv(cx),
        }
    }
}

/// An answer, as long as a piece of it is in this process.
struct Answer {
    exchange: Arc<Exchange>,
    _in_use: Forwarding,
    /// Tells whoever would cut it when all of it is gone.
    _gone: oneshot::Sender<()>,
}

/// A piece that the HTTP library holds until the client takes it. With a window of one byte, that may be for long, and
/// the request's place is taken until then.
struct Untaken {
    bytes: Bytes,
    _answer: Arc<Answer>,
}

impl AsRef<[u8]> for Untaken {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AnswerBody {
    pub(super) fn new(
        pieces: Source,
        exchange: Arc<Exchange>,
        hint: SizeHint,
        in_use: Forwarding,
        gone: oneshot::Sender<()>,
    ) -> Self {
        let answer = Arc::new(Answer { exchange, _in_use: in_use, _gone: gone });
        Self { pieces, answer, hint, at_boundary: true, ends: Ends::Open }
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            if self.ends == Ends::Whole {
                return Poll::Ready(None);
            }
            match ready!(self.pieces.poll_next(cx)) {
                // Received before the cut, but not passed on yet.
                Some(Piece::Frame { .. }) if self.answer.exchange.open.why().is_some_and(Why::is_at_once) => {
                    self.ends = Ends::Broken;
                }
                Some(Piece::Frame { frame, may_follow, is_last }) => {
                    self.at_boundary = may_follow;
                    if is_last && self.ends == Ends::Open {
                        self.ends = Ends::Whole;
                    }
                    self.answer.exchange.sent(frame.data_ref().map_or(0, Bytes::len));
                    let answer = Arc::clone(&self.answer);
                    let frame = frame.map_data(|bytes| Bytes::from_owner(Untaken { bytes, _answer: answer }));
                    return Poll::Ready(Some(Ok(frame)));
                }
                Some(Piece::End) if self.ends == Ends::Open => self.ends = Ends::Whole,
                Some(Piece::Last(bytes, is_whole)) if self.ends == Ends::Open && self.at_boundary => {
                    self.ends = if is_whole { Ends::Whole } else { Ends::Broken };
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Some(Piece::End | Piece::Last(..)) => self.ends = Ends::Broken,
                None => return Poll::Ready(Some(Err("cut".into()))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ends == Ends::Whole
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}
