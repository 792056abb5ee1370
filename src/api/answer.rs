//! A response body that tells its connection when the client takes a piece of it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::authn::Connection;

/// The size of the pieces in which an answer is sent, in bytes. Progress is only seen between two of them.
const PIECE: usize = 16 * 1024;

/// A body that is sent in pieces and tells its connection when the client has taken one.
struct Watched {
    body: Body,
    rest: Bytes,
    connection: Connection,
    id: u64,
}

/// Wraps a body so that the connection sees the client's progress. Otherwise an HTTP/2 client could stall an answer
/// for as long as it answers pings.
pub(super) fn watch(body: Body, connection: &Connection) -> Body {
    if body.is_end_stream() {
        return body;
    }
    let (connection, id) = (connection.clone(), connection.begin_answer());
    Body::new(Watched { body, rest: Bytes::new(), connection, id })
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    /// Called for the next piece once the client has taken the one before.
    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.connection.taken(self.id);
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                end => return Poll::Ready(end),
            }
        }
        let length = self.rest.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.connection.end_answer(self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[tokio::test]
    async fn answer_is_sent_in_pieces_and_counts_until_it_is_dropped() {
        let connection = Connection::default();
        let text = Bytes::from("abcd".repeat(10_000));
        let mut body = watch(Body::from(text.clone()), &connection);
        assert_eq!(body.size_hint().exact(), Some(40_000));
        let begun = Instant::now();
        let untaken = || connection.usage(begun + Duration::from_secs(60)).untaken;
        assert!(untaken() > Duration::from_secs(59));
        let mut sent = Vec::new();
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let piece = frame.unwrap().into_data().unwrap();
            assert!(piece.len() <= PIECE);
            sent.extend_from_slice(&piece);
        }
        assert_eq!(sent, text);
        assert!(body.is_end_stream());
        drop(body);
        assert_eq!(untaken(), Duration::ZERO, "no answer is being sent");
    }
}
