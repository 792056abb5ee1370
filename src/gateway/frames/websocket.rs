//! Follows the WebSocket frames (RFC 6455) from the API server to the client, and builds those that end the stream.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::lines::{log_line, watch_error};
use super::{Frames, Purpose, Status, Unreadable, command_error};

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// The channel of a command's error stream.
const ERROR_CHANNEL: u8 = 3;

/// To a client of exec, any other code is an error that hides the `Status`.
const NORMAL_CLOSURE: u16 = 1000;
/// Closes a log, since a normal closure would look as if the container had ended.
const POLICY_VIOLATION: u16 = 1008;

/// A WebSocket. After the ending, close the connection normally.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebSocket {
    purpose: Purpose,
    subprotocol: String,
    head: [u8; 10],
    /// How much of the head has arrived; none within a frame's payload.
    head_length: usize,
    /// Payload of the current frame that is still to come.
    left: u64,
    /// More fragments of the current message follow. Only control frames may come between them.
    fragmented: bool,
    /// The last message is, or was, binary.
    binary: bool,
    /// The server has closed the WebSocket. Clients ignore what follows.
    closed: bool,
    unreadable: bool,
}

impl WebSocket {
    /// Follows a new connection. `subprotocol` is what the server answered as `Sec-WebSocket-Protocol`, or empty.
    pub fn new(purpose: Purpose, subprotocol: &str) -> Self {
        Self {
            purpose,
            subprotocol: subprotocol.to_owned(),
            head: [0; 10],
            head_length: 0,
            left: 0,
            fragmented: false,
            binary: false,
            closed: false,
            unreadable: false,
        }
    }

    /// How long the head is, as far as its first bytes say so.
    fn head_size(&self) -> usize {
        match (self.head_length, self.head[1] & 0x7f) {
            (0 | 1, _) => 2,
            (_, 126) => 4,
            (_, 127) => 10,
            _ => 2,
        }
    }

    /// Begins the frame of a complete head.
    fn begin_frame(&mut self) -> Result<(), Unreadable> {
        let [first, second, length @ ..] = self.head;
        // Extensions use the three bits in between. They do not change how long a frame is.
        let (is_last, opcode, is_masked) = (first & 0x80 != 0, first & 0x0f, second & 0x80 != 0);
        let left = match second & 0x7f {
            126 => u64::from(u16::from_be_bytes([length[0], length[1]])),
            127 => u64::from_be_bytes(length),
            short => u64::from(short),
        };
        if is_masked || left > i64::MAX as u64 {
            return Err(Unreadable);
        }
        match opcode {
            CONTINUATION if self.fragmented => self.fragmented = !is_last,
            TEXT | BINARY if !self.fragmented => {
                self.fragmented = !is_last;
                self.binary = opcode == BINARY;
            }
            CLOSE | PING | PONG if is_last && left <= 125 => self.closed |= opcode == CLOSE,
            _ => return Err(Unreadable),
        }
        self.left = left;
        Ok(())
    }

    fn is_base64(&self) -> bool {
        self.subprotocol.contains("base64.")
    }

    /// The message of a command's error stream: the channel, then what it says.
    fn channel_message(&self, status: &Status) -> Vec<u8> {
        let error = command_error(&self.subprotocol, status);
        if self.is_base64() {
            let channel = char::from(b'0' + ERROR_CHANNEL);
            frame(TEXT, format!("{channel}{}", STANDARD.encode(error)).as_bytes())
        } else {
            frame(BINARY, &[&[ERROR_CHANNEL], &error[..]].concat())
        }
    }

    fn log_message(&self, status: &Status) -> Vec<u8> {
        // Where the last line ended is not known.
        let line = log_line(true, status);
        if self.is_base64() { frame(TEXT, STANDARD.encode(line).as_bytes()) } else { frame(BINARY, &line) }
    }
}

impl Frames for WebSocket {
    fn step(&mut self, chunk: &[u8]) -> Result<usize, Unreadable> {
        if self.unreadable {
            return Err(Unreadable);
        }
        if self.left > 0 {
            let followed = chunk.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.left -= followed as u64;
            return Ok(followed);
        }
        let Some(byte) = chunk.first() else { return Ok(0) };
        self.head[self.head_length] = *byte;
        self.head_length += 1;
        if self.head_length == self.head_size() {
            self.head_length = 0;
            self.begin_frame().inspect_err(|Unreadable| self.unreadable = true)?;
        }
        Ok(1)
    }

    fn can_insert(&self) -> bool {
        let in_frame = self.head_length > 0 || self.left > 0;
        !(in_frame || self.fragmented || self.closed || self.unreadable)
    }

    fn ending(&self, status: &Status) -> Vec<u8> {
        let (message, code) = match self.purpose {
            Purpose::Command => (self.channel_message(status), NORMAL_CLOSURE),
            // Events in JSON are text. The others are protobuf or CBOR.
            Purpose::Watch if !self.binary => (frame(TEXT, &watch_error(status)), NORMAL_CLOSURE),
            Purpose::Log => (self.log_message(status), POLICY_VIOLATION),
            Purpose::Watch | Purpose::Other => (Vec::new(), NORMAL_CLOSURE),
        };
        [message, frame(CLOSE, &code.to_be_bytes())].concat()
    }

    fn clean_ending(&self) -> Vec<u8> {
        frame(CLOSE, &NORMAL_CLOSURE.to_be_bytes())
    }
}

/// A message in one frame.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len();
    let mut frame = vec![0x80 | opcode];
    match length {
        0..=125 => frame.push(length as u8),
        126..=0xffff => {
            frame.push(126);
            frame.extend((length as u16).to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(payload);
    frame
}

#[cfg(test)]
mod tests;
