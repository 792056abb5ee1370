//! Answers on their way to the client.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::connection::Connection;

/// The pieces in which an answer is written. Only between two of them can be seen whether the client takes them.
const PIECE: usize = 16 * 1024;

/// A body in pieces, whose connection is told when the client has taken one.
struct Watched {
    body: Body,
    rest: Bytes,
    connection: Connection,
    id: u64,
}

/// A body of the same content whose writing the connection watches. A client of HTTP/2 can hold an answer up for as
/// long as it answers pings.
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

    /// Asked for the next piece when the client has taken the one before.
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
    async fn answer_is_sent_in_pieces_and_seen_to_be_taken() {
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
        assert_eq!(untaken(), Duration::ZERO, "nothing is being sent any more");
    }
}
