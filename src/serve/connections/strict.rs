//! Refuses HTTP/1 requests with an ambiguous length: two Content-Lengths, or one beside Transfer-Encoding.
//!
//! hyper accepts equal Content-Lengths and prefers Transfer-Encoding, and hides both from the handlers. A proxy that
//! decides otherwise takes a part of one body for another request (RFC 9112, sections 6.3 and 11.2).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much of a line is kept, in bytes. A Content-Length and the size of a chunk are shorter.
const MAX_LINE: usize = 128;

/// A connection that spoils ambiguous requests, so that hyper answers 400 and closes it.
#[derive(Debug)]
pub(super) struct Strict<S> {
    stream: S,
    requests: Requests,
}

impl<S> Strict<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, requests: Requests::default() }
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
    /// Reads on. Overwrites the end of a header line that makes a length ambiguous.
    fn read(&mut self, mut bytes: &mut [u8]) {
        while self.next != Next::Nothing && !bytes.is_empty() {
            let skipped = bytes.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
            self.skip -= skipped as u64;
            bytes = &mut bytes[skipped..];
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let start = &bytes[..end.unwrap_or(bytes.len())];
            self.line.extend_from_slice(&start[..start.len().min(MAX_LINE - self.line.len())]);
            let Some(end) = end else { return };
            let mut line = std::mem::take(&mut self.line);
            if !self.read_line(line.trim_ascii_end()) {
                bytes[end] = 0;
                self.next = Next::Nothing;
            }
            line.clear();
            self.line = line;
            bytes = &mut bytes[end + 1..];
        }
    }

    /// `false` if the line makes the length of its request ambiguous.
    fn read_line(&mut self, line: &[u8]) -> bool {
        match self.next {
            Next::Request if line.is_empty() => {}
            // What follows is no HTTP/1 request.
            Next::Request if line.starts_with(b"PRI ") || line.starts_with(b"CONNECT ") => self.next = Next::Nothing,
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
                None => self.next = Next::Nothing,
            },
            Next::Trailer if line.is_empty() => self.next = Next::Request,
            Next::Trailer | Next::Nothing => {}
        }
        true
    }

    fn read_header(&mut self, line: &[u8]) -> bool {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.is_chunked = true;
            return self.length.is_none();
        }
        if !name.eq_ignore_ascii_case(b"content-length") {
            return true;
        }
        let value = line.get(name.len() + 1..).unwrap_or_default();
        let value = std::str::from_utf8(value.trim_ascii()).ok().and_then(|text| text.parse().ok());
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
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.requests.read(&mut buffer.filled_mut()[before..]);
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
    use super::*;

    /// Whether a text is spoiled. It must not matter in which pieces it arrives.
    fn is_spoiled(text: &str) -> bool {
        let spoiled = |piece: usize| {
            let (mut requests, mut bytes) = (Requests::default(), text.as_bytes().to_vec());
            bytes.chunks_mut(piece).for_each(|piece| requests.read(piece));
            bytes != text.as_bytes()
        };
        let whole = spoiled(text.len());
        for piece in [1, 2, 3, 7, 50] {
            assert_eq!(spoiled(piece), whole, "{text:?} in pieces of {piece}");
        }
        whole
    }

    #[test]
    fn ambiguous_length_is_spoiled() {
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
            &format!("Content-Length: {}5", "0".repeat(MAX_LINE)),
        ] {
            let request = format!("POST /a HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\nhello");
            assert!(is_spoiled(&request), "{headers:?}");
            for before in [
                "\r\n\r\n",
                "GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
                "GET / HTTP/1.1\r\n\r\n",
                "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\na\r\n\r\n",
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\na\r\n\r\n\r\nA;x=y\r\n0123456789\r\n0\r\nT: x\r\n\r\n",
            ] {
                assert!(is_spoiled(&format!("{before}{request}")), "{headers:?} after {before:?}");
            }
        }
    }

    #[test]
    fn unambiguous_requests_pass() {
        let long = "a".repeat(3 * MAX_LINE);
        let requests = [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            format!("GET /{long} HTTP/1.1\r\n{long}: {long}\r\nX-Content-Length: 5\r\nContent-Length: 0\r\n\r\n"),
            // Text in a body is no header.
            "POST / HTTP/1.1\r\nContent-Length: 42\r\n\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n\r\n\r\n".to_owned(),
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n26\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n0\r\nContent-Length: 5\r\n\r\n"
                .to_owned(),
        ];
        for request in &requests {
            assert!(!is_spoiled(request), "{request:?}");
        }
        assert!(!is_spoiled(&requests.concat().repeat(2)));
        let h2 = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nContent-Length: 1\r\nContent-Length: 2\r\n";
        assert!(!is_spoiled(h2));
    }
}
