//! Follows SPDY/3.1 frames from the API server to the client, and builds the one that ends a command.

use super::{Frames, Purpose, Status, Unreadable, command_error};

const VERSION: u16 = 3;
/// `SYN_STREAM` to `SETTINGS`, and `PING` to `WINDOW_UPDATE`: all that Kubernetes' library, spdystream, knows.
const CONTROL_TYPES: [u16; 8] = [1, 2, 3, 4, 6, 7, 8, 9];
/// In every version of its protocol, client-go opens the error stream of a command first, and a client's first stream
/// is 1. Its headers say so too, but they are compressed.
const ERROR_STREAM: u32 = 1;
const FIN: u8 = 1;

/// SPDY, which kubectl speaks with servers that do not accept its WebSockets. After the ending, close the connection
/// normally: that ends the other streams of the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spdy {
    purpose: Purpose,
    /// The version of the command's protocol.
    protocol: String,
    head: [u8; 8],
    /// How much of the head has arrived; none within a frame's payload.
    head_length: usize,
    /// Payload of the current frame that is still to come.
    left: usize,
    unreadable: bool,
}

impl Spdy {
    /// Follows a new connection. `protocol` is what the server answered as `X-Stream-Protocol-Version`, or empty.
    pub fn new(purpose: Purpose, protocol: &str) -> Self {
        Self { purpose, protocol: protocol.to_owned(), head: [0; 8], head_length: 0, left: 0, unreadable: false }
    }

    /// The payload's length, from a complete head.
    fn read_head(&self) -> Result<usize, Unreadable> {
        let [a, b, c, d, _flags, length @ ..] = self.head;
        let is_control = a & 0x80 != 0;
        let (version, control_type) = (u16::from_be_bytes([a & 0x7f, b]), u16::from_be_bytes([c, d]));
        let stream = u32::from_be_bytes([a, b, c, d]);
        let valid = if is_control { version == VERSION && CONTROL_TYPES.contains(&control_type) } else { stream != 0 };
        let [high, middle, low] = length.map(usize::from);
        if valid { Ok(high << 16 | middle << 8 | low) } else { Err(Unreadable) }
    }
}

impl Frames for Spdy {
    fn step(&mut self, chunk: &[u8]) -> Result<usize, Unreadable> {
        if self.unreadable {
            return Err(Unreadable);
        }
        if self.left > 0 {
            let followed = self.left.min(chunk.len());
            self.left -= followed;
            return Ok(followed);
        }
        let Some(byte) = chunk.first() else { return Ok(0) };
        self.head[self.head_length] = *byte;
        self.head_length += 1;
        if self.head_length == self.head.len() {
            self.head_length = 0;
            self.left = self.read_head().inspect_err(|Unreadable| self.unreadable = true)?;
        }
        Ok(1)
    }

    fn can_insert(&self) -> bool {
        !self.unreadable && self.head_length == 0 && self.left == 0
    }

    fn ending(&self, status: &Status) -> Vec<u8> {
        match self.purpose {
            Purpose::Command => data(ERROR_STREAM, FIN, &command_error(&self.protocol, status)),
            Purpose::Watch | Purpose::Log | Purpose::Other => Vec::new(),
        }
    }
}

/// A data frame. Its payload is shorter than 16 MiB.
fn data(stream: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = (payload.len() as u32).to_be_bytes();
    [&stream.to_be_bytes()[..], &[flags], &length, payload].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;
    use serde_json::Value;

    use super::*;

    /// The first word, flags and payload of each frame. Fails if the last one is not complete.
    fn decode(mut bytes: &[u8]) -> Vec<(u32, u8, Vec<u8>)> {
        let mut frames = Vec::new();
        while !bytes.is_empty() {
            let word = u32::from_be_bytes(bytes[..4].try_into().unwrap());
            let length = u32::from_be_bytes(bytes[4..8].try_into().unwrap()) & 0x00ff_ffff;
            let (payload, rest) = bytes[8..].split_at(length as usize);
            frames.push((word, bytes[4], payload.to_vec()));
            bytes = rest;
        }
        frames
    }

    fn frames() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let word = prop_oneof![
            1..10_u32,
            prop::sample::select(&CONTROL_TYPES[..]).prop_map(|of| 0x8003_0000 | u32::from(of))
        ];
        let length = prop_oneof![4 => 0..300_usize, 1 => 65_530..65_540_usize];
        let frame =
            (word, any::<u8>(), length).prop_map(|(word, flags, length)| data(word, flags, &vec![0x80; length]));
        prop::collection::vec(frame, 0..6)
    }

    proptest! {
        #[test]
        fn ending_fits_in_after_any_frame(frames in frames(), at in any::<Index>()) {
            let stream = frames.concat();
            let gaps: Vec<usize> = (0..=frames.len()).map(|count| frames[..count].concat().len()).collect();
            let at = at.index(stream.len() + 1);
            let mut spdy = Spdy::new(Purpose::Command, "v4.channel.k8s.io");
            prop_assert_eq!(spdy.follow(&stream[..at]), Ok(()));
            prop_assert_eq!(spdy.can_insert(), gaps.contains(&at));
            let gap = at + spdy.follow_to_gap(&stream[at..]).unwrap();
            prop_assert!(spdy.can_insert());
            prop_assert_eq!(Some(&gap), gaps.iter().find(|gap| **gap >= at));

            let ending = spdy.ending(&Status::unauthorized("the membership ended"));
            let shown = decode(&[&stream[..gap], &ending].concat());
            let ((word, flags, payload), before) = shown.split_last().unwrap();
            prop_assert_eq!(before, &decode(&stream)[..before.len()]);
            prop_assert_eq!((*word, *flags), (1, 1));
            let status: Value = serde_json::from_slice(payload).unwrap();
            prop_assert_eq!(&status["message"], "the membership ended");
            prop_assert_eq!(spdy.follow(&ending), Ok(()));
        }
    }

    #[test]
    fn malformed_head_is_unreadable() {
        for head in [[0, 0, 0, 0], [0x80, 2, 0, 1], [0x80, 3, 0, 0], [0x80, 3, 0, 5], [0x80, 3, 0, 10]] {
            let mut spdy = Spdy::new(Purpose::Other, "");
            let frame = [&head[..], &[0; 4]].concat();
            assert_eq!(spdy.follow(&frame), Err(Unreadable), "{head:?}");
        }
    }

    #[test]
    fn protocols_before_v4_are_told_in_text() {
        let status = Status::unauthorized("ended");
        for protocol in ["", "channel.k8s.io", "v2.channel.k8s.io", "v3.channel.k8s.io"] {
            assert_eq!(Spdy::new(Purpose::Command, protocol).ending(&status), b"\0\0\0\x01\x01\0\0\x05ended");
        }
    }

    #[test]
    fn port_forward_is_closed_without_a_word() {
        assert!(Spdy::new(Purpose::Other, "portforward.k8s.io").ending(&Status::unauthorized("ended")).is_empty());
    }
}
