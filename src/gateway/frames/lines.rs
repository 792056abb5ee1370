//! Follows bodies that are made of lines, uncompressed: a watch in JSON, and a log.

use serde_json::json;

use super::{Frames, Status, Unreadable};

/// A watch in JSON: one event a line. After its ending, the body ends normally.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WatchLines {
    in_line: bool,
}

impl Frames for WatchLines {
    fn step(&mut self, chunk: &[u8]) -> Result<usize, Unreadable> {
        let line_end = chunk.iter().position(|byte| *byte == b'\n');
        let followed = line_end.map_or(chunk.len(), |end| end + 1);
        self.follow(&chunk[..followed])?;
        Ok(followed)
    }

    fn can_insert(&self) -> bool {
        !self.in_line
    }

    fn ending(&self, status: &Status) -> Vec<u8> {
        let mut line = watch_error(status);
        line.push(b'\n');
        line
    }

    /// Looks at the last byte only.
    fn follow(&mut self, chunk: &[u8]) -> Result<(), Unreadable> {
        if let Some(last) = chunk.last() {
            self.in_line = *last != b'\n';
        }
        Ok(())
    }
}

/// A log. After its ending, abort the body: a normal end would look as if the container had ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogLines {
    in_line: bool,
}

impl Frames for LogLines {
    fn step(&mut self, chunk: &[u8]) -> Result<usize, Unreadable> {
        if let Some(last) = chunk.last() {
            self.in_line = *last != b'\n';
        }
        Ok(chunk.len())
    }

    /// A log can be cut anywhere.
    fn can_insert(&self) -> bool {
        true
    }

    fn ending(&self, status: &Status) -> Vec<u8> {
        log_line(self.in_line, status)
    }
}

/// The event that ends a watch, without a newline.
pub(super) fn watch_error(status: &Status) -> Vec<u8> {
    json!({"type": "ERROR", "object": status.to_json()}).to_string().into_bytes()
}

/// The line that ends a log, on a line of its own.
pub(super) fn log_line(in_line: bool, status: &Status) -> Vec<u8> {
    format!("{}{}\n", if in_line { "\n" } else { "" }, status.message).into_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn ended() -> Status {
        Status::unauthorized("the membership\nended")
    }

    #[test]
    fn watch_can_end_before_its_first_event() {
        assert!(WatchLines::default().can_insert());
    }

    #[test]
    fn watch_is_followed_to_the_end_of_its_line() {
        let mut watch = WatchLines::default();
        watch.follow(b"{\"type\":\"ADD").unwrap();
        assert!(!watch.can_insert());
        assert_eq!(watch.follow_to_gap(b"ED\""), Ok(3));
        assert_eq!(watch.follow_to_gap(b"}\n{}\n"), Ok(2));
        assert_eq!(watch.follow_to_gap(b"{}\n"), Ok(0));
    }

    #[test]
    fn log_ends_with_a_line_of_its_own() {
        let mut log = LogLines::default();
        let status = Status::unauthorized("ended");
        assert_eq!(log.ending(&status), b"ended\n");
        log.follow(b"a\nb").unwrap();
        assert_eq!(log.follow_to_gap(b"c"), Ok(0));
        assert_eq!(log.ending(&status), b"\nended\n");
        log.follow(b"c\n").unwrap();
        assert_eq!(log.ending(&status), b"ended\n");
    }

    proptest! {
        #[test]
        fn watch_with_its_ending_is_events_only(
            events in prop::collection::vec("[ -~]{0,20}", 0..6), at in any::<prop::sample::Index>()
        ) {
            let body: String = events.iter().map(|event| format!("{}\n", Value::from(event.as_str()))).collect();
            let (before, after) = body.as_bytes().split_at(at.index(body.len() + 1));
            let mut watch = WatchLines::default();
            watch.follow(before).unwrap();
            let rest = watch.follow_to_gap(after).unwrap();
            prop_assert!(watch.can_insert());
            let shown = [before, &after[..rest], &watch.ending(&ended())].concat();
            let lines = shown.strip_suffix(b"\n").unwrap().split(|byte| *byte == b'\n');
            let shown: Vec<Value> = lines.map(|line| serde_json::from_slice(line).unwrap()).collect();
            let (last, shown) = shown.split_last().unwrap();
            prop_assert!(shown.iter().zip(&events).all(|(shown, event)| shown == event));
            prop_assert_eq!(&last["type"], "ERROR");
            prop_assert_eq!(&last["object"], &ended().to_json());
        }
    }
}
