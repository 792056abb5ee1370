//! Refuses HTTP/1 requests with an ambiguous length: two Content-Lengths, or one beside Transfer-Encoding.
//!
//! hyper accepts equal Content-Lengths and prefers Transfer-Encoding, and hides both from the handlers. A proxy that
//! decides otherwise takes a part of one body for another request (RFC 9112, sections 6.3 and 11.2).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::authn::Connection;

/// How much of a line is kept, in bytes. A Content-Length and the size of a chunk are shorter.
const MAX_LINE: usize = 128;

/// What hyper reads instead of the rest of an ambiguous request: it answers a NUL in a header with 400 and closes the
/// connection.
const REFUSED: &[u8] = b"\0\r\n\r\n";

/// A connection over which hyper refuses ambiguous requests.
#[derive(Debug)]
pub(super) struct Strict<S> {
    stream: S,
    connection: Connection,
    requests: Requests,
    /// What hyper reads next, before the stream.
    next: &'static [u8],
}

impl<S> Strict<S> {
    pub(super) fn new(stream: S, connection: Connection) -> Self {
        Self { stream, connection, requests: Requests::default(), next: &[] }
    }

    fn give(&mut self, buffer: &mut ReadBuf<'_>) {
        let (now, later) = self.next.split_at(self.next.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.next = later;
    }
}

/// What the next line of a client is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Next {
    /// A request line, possibly after empty lines.
    #[default]
    Request,
    Header,
    ChunkSize,
    Trailer,
    /// No line that matters: HTTP/2, or a request that hyper refuses.
    Nothing,
}

/// The requests of an HTTP/1 connection, as far as their lengths go.
#[derive(Debug, Default)]
struct Requests {
    next: Next,
    /// The start of an incomplete line.
    line: Vec<u8>,
    /// How many bytes of a body or chunk come before the next line.
    skip: u64,
    length: Option<u64>,
    is_chunked: bool,
}

impl Requests {
    /// Reads on. Returns where the header line ends that makes a length ambiguous.
    fn read(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while self.next != Next::Nothing && at < bytes.len() {
            let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len() - at);
            self.skip -= skipped as u64;
            at += skipped;
            let rest = &bytes[at..];
            let end = rest.iter().position(|byte| *byte == b'\n');
            let start = &rest[..end.unwrap_or(rest.len())];
            self.line.extend_from_slice(&start[..start.len().min(MAX_LINE - self.line.len())]);
            let end = end?;
            let mut line = std::mem::take(&mut self.line);
            // hyper takes a bare LF in a head, but not in a chunked body.
            let is_bare = matches!(self.next, Next::ChunkSize | Next::Trailer) && !line.ends_with(b"\r");
            if is_bare || !self.read_line(line.trim_ascii_end()) {
                self.next = Next::Nothing;
                return Some(at + end);
            }
            // The next line has the same memory.
            line.clear();
            self.line = line;
            at += end + 1;
        }
        None
    }

    /// `false` if the line makes the length of its request ambiguous.
    fn read_line(&mut self, line: &[u8]) -> bool {
        match self.next {
            Next::Request if line.is_empty() => {}
            // The preface of HTTP/2 (RFC 9113, section 3.4). Later on a connection hyper refuses it.
            Next::Request if line == b"PRI * HTTP/2.0" => self.next = Next::Nothing,
            Next::Request => (self.next, self.length, self.is_chunked) = (Next::Header, None, false),
            Next::Header if line.is_empty() => {
                self.skip = self.length.unwrap_or_default();
                self.next = if self.is_chunked { Next::ChunkSize } else { Next::Request };
            }
            Next::Header => return self.read_header(line),
            Next::ChunkSize => match chunk_size(line) {
                Some(0) => self.next = Next::Trailer,
                // The data has a line break after it.
                Some(size) => self.skip = size.saturating_add(2),
                // Nor can a proxy tell where the body ends.
                None => return false,
            },
            Next::Trailer if line.is_empty() => self.next = Next::Request,
            Next::Trailer | Next::Nothing => {}
        }
        true
    }

    fn read_header(&mut self, line: &[u8]) -> bool {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        let value = line.get(name.len() + 1..).unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let is_first = self.length.is_none() && !self.is_chunked;
            self.is_chunked = true;
            return is_first && value.eq_ignore_ascii_case(b"chunked");
        }
        if !name.eq_ignore_ascii_case(b"content-length") {
            return true;
        }
        let value = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        let is_first = self.length.is_none() && !self.is_chunked;
        self.length = value;
        is_first && value.is_some() && line.len() < MAX_LINE
    }
}

/// The size of a chunk, before its extensions (RFC 9112, section 7.1).
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let text = std::str::from_utf8(&line[..digits]).ok()?;
    u64::from_str_radix(text, 16).ok().filter(|_| digits < MAX_LINE)
}

impl<S: AsyncRead + Unpin> AsyncRead for Strict<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.next.is_empty() {
            self.give(buffer);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if self.connection.is_upgraded() {
            return Poll::Ready(Ok(()));
        }
        if let Some(end) = self.requests.read(&buffer.filled()[before..]) {
            buffer.set_filled(before + end);
            self.next = REFUSED;
            self.give(buffer);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Strict<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Whether a text has an ambiguous request. It must not matter in which pieces it arrives.
    fn is_ambiguous(text: &str) -> bool {
        let in_pieces = |length: usize| {
            let mut requests = Requests::default();
            text.as_bytes().chunks(length).any(|piece| requests.read(piece).is_some())
        };
        let whole = in_pieces(text.len());
        for length in [1, 2, 3, 7, 50] {
            assert_eq!(in_pieces(length), whole, "{text:?} in pieces of {length}");
        }
        whole
    }

    #[test]
    fn ambiguous_length_is_ambiguous() {
        for headers in [
            "Content-Length: 5\r\nContent-Length: 5",
            "Content-Length: 5\r\nContent-Length: 6",
            "content-length:5\r\nX: y\r\nCONTENT-LENGTH:\t5 ",
            "Content-Length: 5\nContent-Length: 5",
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "Content-Length: 5, 5",
            "Content-Length: 5,6",
            "Content-Length: +5x",
            "Content-Length:",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            &format!("Content-Length: {}5", "0".repeat(MAX_LINE)),
        ] {
            let request = format!("POST /a HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\nhello");
            assert!(is_ambiguous(&request), "{headers:?}");
            for before in [
                "\r\n\r\n",
                "GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
                "GET / HTTP/1.1\r\n\r\n",
                "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\na\r\n\r\n",
                "CONNECT a:1 HTTP/1.1\r\n\r\n",
                "PRI /x HTTP/1.1\r\n\r\n",
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
                5\r\na\r\n\r\n\r\nA;x=y\r\n0123456789\r\n0\r\nT: x\r\n\r\n",
            ] {
                assert!(is_ambiguous(&format!("{before}{request}")), "{headers:?} after {before:?}");
            }
        }
    }

    #[test]
    fn chunks_that_hyper_may_read_in_another_way_are_ambiguous() {
        let zeros = "0".repeat(MAX_LINE + 2);
        for body in [&*format!("{zeros}5\r\nhello\r\n"), "x\r\n", "0\r\nX: y\n\n", "5\nhello\r\n0\r\n\r\n"] {
            let request = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
            assert!(is_ambiguous(&request), "{body:?}");
        }
    }

    #[test]
    fn unambiguous_requests_pass() {
        let (long, lengths) = ("a".repeat(3 * MAX_LINE), "Content-Length: 1\r\nContent-Length: 2\r\n\r\n");
        let requests = [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            format!("GET /{long} HTTP/1.1\r\n{long}: {long}\r\nX-Content-Length: 5\r\nContent-Length: 0\r\n\r\n"),
            // Text in a body or in a trailer is no header.
            format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{lengths}", lengths.len()),
            format!(
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{lengths}\r\n0\r\n{lengths}",
                lengths.len()
            ),
        ];
        for request in &requests {
            assert!(!is_ambiguous(request), "{request:?}");
        }
        assert!(!is_ambiguous(&requests.concat().repeat(2)));
        assert!(!is_ambiguous(&format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{lengths}")));
    }

    /// Parts of requests, in any order.
    fn part() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "POST / HTTP/1.1\r\n",
            "PRI * HTTP/2.0\r\n",
            "Content-Length: 5\r\n",
            "content-length:18446744073709551615\r\n",
            "Transfer-Encoding: chunked\r\n",
            "X: y\r\n",
            "\r\n",
            "\n",
            "hello",
            "5\r\n",
            "ffffffffffffffff\r\n",
            "0\r\n",
            ":",
        ])
    }

    proptest! {
        #[test]
        fn pieces_of_any_requests_do_not_matter(parts in prop::collection::vec(part(), 1..30)) {
            is_ambiguous(&parts.concat());
        }
    }
}
