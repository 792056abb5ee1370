//! How a stream is ended early, so that its user sees why.

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderName, StatusCode};
use http_body::Frame;

use super::body::Piece;
use super::frames::{Frames, LogLines, Purpose, Spdy, WatchLines, WebSocket};
use super::registry::Why;
use super::request_info::StreamKind;
use super::status::Status;

const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// The end of an answer's body.
pub(super) struct Ending {
    /// Where a message fits in; `None` if there is none.
    frames: Option<Box<dyn Frames>>,
    /// The body of a watch ends as if it were whole: its client begins again, and is refused then.
    is_watch: bool,
}

impl Ending {
    /// The end of an answer with these headers.
    pub(super) fn of(kind: StreamKind, status: StatusCode, headers: &HeaderMap) -> Self {
        // A refusal has a length, and no place for anything else.
        let kind = if status == StatusCode::OK { kind } else { StreamKind::Ordinary };
        let is_plain = !headers.contains_key(CONTENT_ENCODING);
        let is = |wanted: &str| {
            let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
            text.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case(wanted))
        };
        let is_watch = kind == StreamKind::Watch;
        let frames: Option<Box<dyn Frames>> = match kind {
            StreamKind::Watch if is_plain && is("application/json") => Some(Box::new(WatchLines::default())),
            StreamKind::LogFollow if is_plain && is("text/plain") => Some(Box::new(LogLines::default())),
            _ => None,
        };
        Self { frames, is_watch }
    }

    /// Takes in what is passed on.
    pub(super) fn piece(&mut self, frame: Frame<Bytes>, is_last: bool) -> Piece {
        if let (Some(frames), Some(data)) = (&mut self.frames, frame.data_ref()) {
            // After a chunk that breaks the rules, nothing fits in any more.
            let _ = frames.follow(data);
        }
        Piece::Frame { frame, may_follow: self.is_at_boundary(), is_last }
    }

    /// Whether a message fits in now.
    pub(super) fn is_at_boundary(&self) -> bool {
        self.frames.as_ref().is_none_or(|frames| frames.can_insert())
    }

    /// The last piece of the body.
    pub(super) fn last(&self, why: Why) -> Piece {
        let message = match &self.frames {
            Some(frames) => last_words(&**frames, self.is_watch, why),
            None => Vec::new(),
        };
        Piece::Last(message.into(), self.is_watch)
    }
}

/// Follows an upgraded connection.
pub(super) fn frames(kind: StreamKind, headers: &HeaderMap) -> Box<dyn Frames> {
    let purpose = match kind {
        StreamKind::Exec | StreamKind::Attach => Purpose::Command,
        StreamKind::Watch => Purpose::Watch,
        StreamKind::LogFollow => Purpose::Log,
        _ => Purpose::Other,
    };
    let value = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if value(&UPGRADE).eq_ignore_ascii_case("websocket") {
        Box::new(WebSocket::new(purpose, value(&SEC_WEBSOCKET_PROTOCOL)))
    } else {
        Box::new(Spdy::new(purpose, value(&STREAM_PROTOCOL)))
    }
}

/// What tells the client why its stream ends.
pub(super) fn last_words(frames: &dyn Frames, is_watch: bool, why: Why) -> Vec<u8> {
    // Informers go on at another replica.
    if is_watch && why == Why::Restarting { frames.clean_ending() } else { frames.ending(&status(why)) }
}

/// What the user is told.
pub(super) fn status(why: Why) -> Status {
    let code = match why {
        Why::Refused(_) => StatusCode::UNAUTHORIZED,
        Why::Stale | Why::Restarting => StatusCode::SERVICE_UNAVAILABLE,
        Why::Unread => StatusCode::TOO_MANY_REQUESTS,
    };
    Status::new(code, format!("{why}{}", why.advice()))
}
