//! Reads an answer in pieces that are worth passing on.

use std::future::poll_fn;
use std::pin::Pin;

use axum::body::HttpBody;
use bytes::{Bytes, BytesMut};
use futures::FutureExt as _;
use http_body::{Frame, SizeHint};
use tokio::task::yield_now;

/// How many bytes are put together at most. A larger frame stays whole.
const PIECE: usize = 32 * 1024;

type Received<E> = Option<Result<Frame<Bytes>, E>>;

/// An answer from the API server.
pub(super) struct Pieces<B: HttpBody> {
    body: B,
    /// Came after what was put together last.
    held: Option<Received<B::Error>>,
    /// Whether more is worth a moment's wait.
    patient: bool,
}

/// What comes next.
pub(super) enum Next {
    /// A piece, and whether it is the last one.
    Piece(Frame<Bytes>, bool),
    /// The answer ended before.
    End,
    /// It broke off.
    Broken,
}

impl<B: HttpBody<Data = Bytes> + Unpin> Pieces<B> {
    /// Of a `patient` reader, the HTTP library gets the chance to hand over more before a piece is passed on.
    pub(super) fn new(body: B, patient: bool) -> Self {
        Self { body, held: None, patient }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    /// Waits for the next piece: all that has arrived, as far as it fits. The API server's lists come in thousands of
    /// small chunks, and each costs a switch between tasks, a frame of HTTP/2, a record of TLS and a system call.
    ///
    /// Cancelling this loses what was received, unless the reader is not patient.
    pub(super) async fn next(&mut self) -> Next {
        let received = match self.held.take() {
            Some(held) => held,
            None => receive(&mut self.body).await,
        };
        match received {
            Some(Ok(frame)) => {
                let (frame, is_last) = self.piece(frame).await;
                Next::Piece(frame, is_last)
            }
            Some(Err(_)) => Next::Broken,
            None => Next::End,
        }
    }

    /// The next piece and whether it is the last one, if some of it has arrived.
    pub(super) async fn arrived(&mut self) -> Option<(Frame<Bytes>, bool)> {
        match self.more().await? {
            Some(Ok(frame)) => Some(self.piece(frame).await),
            other => {
                self.held = Some(other);
                None
            }
        }
    }

    async fn piece(&mut self, frame: Frame<Bytes>) -> (Frame<Bytes>, bool) {
        let frame = match frame.into_data() {
            Ok(data) => Frame::data(self.fill(data).await),
            Err(trailers) => trailers,
        };
        (frame, matches!(self.held, Some(None)))
    }

    /// Adds to `data` what has arrived.
    async fn fill(&mut self, data: Bytes) -> Bytes {
        let mut filled: Option<BytesMut> = None;
        let mut length = data.len();
        while length < PIECE {
            let received = match self.more().await {
                Some(Some(Ok(frame))) => frame.into_data().map_err(|frame| Some(Ok(frame))),
                Some(other) => Err(other),
                None => break,
            };
            match received {
                Ok(more) if length + more.len() <= PIECE => {
                    length += more.len();
                    filled.get_or_insert_with(|| BytesMut::from(&*data)).extend_from_slice(&more);
                }
                Ok(more) => {
                    self.held = Some(Some(Ok(Frame::data(more))));
                    break;
                }
                Err(other) => {
                    self.held = Some(other);
                    break;
                }
            }
        }
        filled.map_or(data, BytesMut::freeze)
    }

    /// What has arrived; `None` if nothing has.
    async fn more(&mut self) -> Option<Received<B::Error>> {
        if self.body.is_end_stream() {
            return Some(None);
        }
        let received = receive(&mut self.body).now_or_never();
        if received.is_some() || !self.patient {
            return received;
        }
        yield_now().await;
        receive(&mut self.body).now_or_never()
    }
}

async fn receive<B: HttpBody<Data = Bytes> + Unpin>(body: &mut B) -> Received<B::Error> {
    poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use futures::stream::{self, Stream, StreamExt as _};
    use http::HeaderMap;
    use http_body_util::StreamBody;

    use super::*;

    type Frames = Vec<Result<Frame<Bytes>, &'static str>>;

    fn data(bytes: usize) -> Result<Frame<Bytes>, &'static str> {
        Ok(Frame::data(Bytes::from(vec![7; bytes])))
    }

    /// What is read of these frames: the length of each piece, and `!` behind the last one.
    async fn read(frames: impl Stream<Item = Result<Frame<Bytes>, &'static str>> + Unpin, patient: bool) -> String {
        let (mut pieces, mut read) = (Pieces::new(StreamBody::new(frames), patient), Vec::new());
        loop {
            match pieces.next().await {
                Next::Piece(frame, is_last) => {
                    let length = frame.data_ref().map_or("trailers".to_owned(), |data| data.len().to_string());
                    read.push(format!("{length}{}", if is_last { "!" } else { "" }));
                }
                Next::End => read.push("end".to_owned()),
                Next::Broken => read.push("broken".to_owned()),
            }
            if read.last().is_some_and(|last| last.ends_with(['!', 'd', 'n'])) {
                return read.join(" ");
            }
        }
    }

    #[tokio::test]
    async fn what_has_arrived_is_put_together_as_far_as_it_fits() {
        let trailers = || Ok(Frame::trailers(HeaderMap::new()));
        let cases: [(Frames, &str); 8] = [
            (vec![], "end"),
            (vec![data(1)], "1!"),
            (vec![data(1), data(2), data(3)], "6!"),
            (vec![data(PIECE - 1), data(1), data(1)], "32768 1!"),
            (vec![data(PIECE - 1), data(2)], "32767 2!"),
            (vec![data(3 * PIECE), data(1)], "98304 1!"),
            (vec![data(1), data(2), Err("reset")], "3 broken"),
            (vec![data(1), trailers()], "1 trailers end"),
        ];
        for (frames, expected) in cases {
            assert_eq!(read(stream::iter(frames), true).await, expected);
        }
    }

    /// Each frame comes when the reader has waited once for it.
    #[tokio::test]
    async fn patient_reader_waits_once_for_each_frame() {
        let slow = |frames: Frames| {
            let (mut frames, mut waits) = (frames.into_iter(), false);
            stream::poll_fn(move |cx| {
                waits = !waits;
                cx.waker().wake_by_ref();
                if waits { Poll::Pending } else { Poll::Ready(frames.next()) }
            })
        };
        assert_eq!(read(slow(vec![data(1), data(2), data(3)]), true).await, "6!");
        assert_eq!(read(slow(vec![data(1), data(2), data(3)]), false).await, "1 2 3 end");
        let stuck = stream::iter([data(1)]).chain(stream::pending());
        let mut pieces = Pieces::new(StreamBody::new(stuck), true);
        assert!(matches!(pieces.next().await, Next::Piece(_, false)), "it does not wait for more");
    }
}
