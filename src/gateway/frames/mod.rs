//! Follows a stream of the API server's, to find where a last message fits in, and builds that message.
//!
//! No I/O: a pump shows each chunk to the stream's [`Frames`] before it passes the chunk on. To cut the stream, it
//! passes on as much as [`Frames::follow_to_gap`] says, then [`Frames::ending`]. If no gap comes in time, it aborts.

mod lines;
mod spdy;
mod websocket;

pub use lines::{LogLines, WatchLines};
pub use spdy::Spdy;
pub use websocket::WebSocket;

use super::status::Status;

/// The stream breaks the rules of its protocol, so nothing can be inserted any more. It stays unreadable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream breaks the rules of its protocol")]
pub struct Unreadable;

/// What a request asked for, as far as the end of its answer depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// exec and attach.
    Command,
    /// A watch.
    Watch,
    /// A log that is followed.
    Log,
    /// Port-forward, and everything else that Kubernetes defines no last message for.
    Other,
}

/// Where a stream stands, between the chunks that it arrives in. How it is split into chunks makes no difference.
pub trait Frames: Send + Sync {
    /// Follows the beginning of a chunk: at least one byte, if there is one, and never past a gap. Returns how much.
    fn step(&mut self, chunk: &[u8]) -> Result<usize, Unreadable>;

    /// Whether [`Self::ending`] fits in here.
    fn can_insert(&self) -> bool;

    /// What tells the client why its stream ends, for a gap. Empty if the protocol has no way to say so.
    fn ending(&self, status: &Status) -> Vec<u8>;

    /// The same without a reason, as the API server ends it.
    fn clean_ending(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Follows a whole chunk.
    fn follow(&mut self, chunk: &[u8]) -> Result<(), Unreadable> {
        let mut followed = 0;
        while followed < chunk.len() {
            followed += self.step(&chunk[followed..])?;
        }
        Ok(())
    }

    /// Follows a chunk only to the next gap, and returns how much of it that is: nothing at a gap, and all of it if
    /// there is no gap yet.
    fn follow_to_gap(&mut self, chunk: &[u8]) -> Result<usize, Unreadable> {
        let mut followed = 0;
        while followed < chunk.len() && !self.can_insert() {
            followed += self.step(&chunk[followed..])?;
        }
        Ok(followed)
    }
}

/// What the error stream of a command says under this version of its protocol, like `v4.channel.k8s.io`: a `Status`
/// since version 4, a text before.
fn command_error(protocol: &str, status: &Status) -> Vec<u8> {
    if protocol.starts_with("v4.") || protocol.starts_with("v5.") {
        status.to_command_json().to_string().into_bytes()
    } else {
        status.message.clone().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use proptest::prelude::*;

    use super::*;

    /// Follows the bytes in pieces of these sizes, the last one repeated.
    fn in_pieces(frames: &mut impl Frames, mut bytes: &[u8], sizes: &[usize]) -> Result<(), Unreadable> {
        let mut sizes = sizes.iter().chain(sizes.last().into_iter().cycle());
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(bytes.len().min(*sizes.next().expect("a size")));
            frames.follow(piece)?;
            bytes = rest;
        }
        Ok(())
    }

    fn splitting_changes_nothing(new: impl Frames + Clone + PartialEq + Debug, bytes: &[u8], sizes: &[usize]) {
        let (mut whole, mut pieces) = (new.clone(), new);
        assert_eq!(whole.follow(bytes), in_pieces(&mut pieces, bytes, sizes));
        assert_eq!(whole, pieces);
        if whole.follow(bytes).is_err() {
            assert!(!whole.can_insert());
            assert_eq!(whole.follow(b"\0\0"), Err(Unreadable), "it stays unreadable");
        }
    }

    /// Heads of frames are likelier than in random bytes.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![any::<u8>(), Just(0), Just(3), Just(0x80), Just(0x81), Just(126), Just(b'\n')];
        prop::collection::vec(byte, 0..400)
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_the_same_in_any_pieces(
            bytes in bytes(), sizes in prop::collection::vec(1..9_usize, 1..9)
        ) {
            splitting_changes_nothing(WebSocket::new(Purpose::Other, ""), &bytes, &sizes);
            splitting_changes_nothing(Spdy::new(Purpose::Other, ""), &bytes, &sizes);
            splitting_changes_nothing(WatchLines::default(), &bytes, &sizes);
            splitting_changes_nothing(LogLines::default(), &bytes, &sizes);
        }
    }
}
