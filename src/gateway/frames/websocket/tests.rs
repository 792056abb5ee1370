use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;

use super::*;

/// The opcode and payload of each message, read by the rules of RFC 6455. Fails if one is broken, or not complete.
fn decode(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut messages = Vec::new();
    let mut open: Option<(u8, Vec<u8>)> = None;
    while let [first, length, rest @ ..] = bytes {
        let (length, rest) = match length {
            0..126 => (u64::from(*length), rest),
            126 => (u64::from(u16::from_be_bytes(rest[..2].try_into().unwrap())), &rest[2..]),
            127 => (u64::from_be_bytes(rest[..8].try_into().unwrap()), &rest[8..]),
            _ => panic!("masked"),
        };
        let (payload, rest) = rest.split_at(usize::try_from(length).unwrap());
        let last = first >> 7 == 1;
        match first & 0x7f {
            0 => open.as_mut().expect("a message to continue").1.extend(payload),
            opcode @ 1..=2 => assert!(open.replace((opcode, payload.to_vec())).is_none(), "between fragments"),
            opcode @ 8..=10 => messages.push((opcode, payload.to_vec())),
            other => panic!("reserved: {other}"),
        }
        if first & 8 == 0 && last {
            messages.extend(open.take());
        }
        bytes = rest;
    }
    assert!(bytes.is_empty() && open.is_none(), "not complete");
    messages
}

/// Whole messages as a server sends them, with control frames between fragments.
fn messages() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let length = prop_oneof![4 => 0..126_usize, 2 => 126..300_usize, 1 => 65_530..65_540_usize];
    let data = (1..3_u8, prop::collection::vec((length, any::<bool>()), 1..4)).prop_map(|(opcode, fragments)| {
        let count = fragments.len();
        let frames = fragments.into_iter().enumerate().map(|(index, (length, ping_after))| {
            let mut bytes = frame(if index == 0 { opcode } else { CONTINUATION }, &vec![0x81; length]);
            if index + 1 < count {
                bytes[0] &= 0x7f;
                bytes.extend(if ping_after { frame(PING, b"ping") } else { Vec::new() });
            }
            bytes
        });
        frames.collect::<Vec<_>>().concat()
    });
    let control = (9..11_u8, 0..126_usize).prop_map(|(opcode, length)| frame(opcode, &vec![0x82; length]));
    prop::collection::vec(prop_oneof![3 => data, 1 => control], 0..5)
}

proptest! {
    #[test]
    fn ending_fits_in_after_any_message(messages in messages(), at in any::<Index>()) {
        let stream = messages.concat();
        let gaps: Vec<usize> = (0..=messages.len()).map(|count| messages[..count].concat().len()).collect();
        let at = at.index(stream.len() + 1);
        let mut socket = WebSocket::new(Purpose::Command, "v5.channel.k8s.io");
        prop_assert_eq!(socket.follow(&stream[..at]), Ok(()));
        // A control frame between fragments is no gap, since a message may not go there.
        let gap = at + socket.follow_to_gap(&stream[at..]).unwrap();
        prop_assert!(socket.can_insert());
        prop_assert_eq!(Some(&gap), gaps.iter().find(|gap| **gap >= at));

        let ending = socket.ending(&Status::unauthorized("the membership ended"));
        let shown = decode(&[&stream[..gap], &ending].concat());
        let [before @ .., error, close] = &shown[..] else { panic!("{shown:?}") };
        prop_assert_eq!(before, &decode(&stream)[..before.len()]);
        let (BINARY, [ERROR_CHANNEL, status @ ..]) = (error.0, &error.1[..]) else { panic!("{error:?}") };
        let status: Value = serde_json::from_slice(status).unwrap();
        prop_assert_eq!(&status["message"], "the membership ended");
        prop_assert_eq!(close, &(CLOSE, vec![3, 232]));
        prop_assert_eq!(socket.follow(&ending), Ok(()));
        prop_assert!(!socket.can_insert(), "closed");
    }

    #[test]
    fn frame_of_any_length_is_readable(length in prop_oneof![0..300_usize, 65_530..65_540_usize]) {
        prop_assert_eq!(decode(&frame(TEXT, &vec![b'x'; length])), vec![(TEXT, vec![b'x'; length])]);
    }
}

#[test]
fn malformed_frame_is_unreadable() {
    let heads: [(&str, &[u8]); 9] = [
        ("masked", &[0x81, 0x80]),
        ("reserved opcode for data", &[0x83, 0]),
        ("reserved opcode for control", &[0x8b, 0]),
        ("top bit of a length", &[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        ("continuation of nothing", &[0x80, 0]),
        ("message between fragments", &[0x01, 0, 0x81, 0]),
        ("fragmented control frame", &[0x09, 0]),
        ("long control frame", &[0x89, 126, 0, 126]),
        ("masked after a good frame", &[0x81, 1, b'x', 0x81, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]),
    ];
    for (case, bytes) in heads {
        let mut socket = WebSocket::new(Purpose::Other, "");
        assert_eq!(socket.follow(bytes), Err(Unreadable), "{case}");
        assert!(!socket.can_insert(), "{case}");
    }
}

#[test]
fn longest_frame_is_followed_without_a_gap() {
    let mut socket = WebSocket::new(Purpose::Other, "");
    socket.follow(&[0x82, 127, 0x7f, 255, 255, 255, 255, 255, 255, 255]).unwrap();
    assert_eq!(socket.follow_to_gap(&[0; 4096]), Ok(4096));
}

#[test]
fn nothing_is_inserted_after_the_server_closed() {
    let mut socket = WebSocket::new(Purpose::Command, "v5.channel.k8s.io");
    socket.follow(&frame(CLOSE, &[3, 232])).unwrap();
    assert!(!socket.can_insert());
}

/// The messages that end a stream.
fn told(purpose: Purpose, subprotocol: &str) -> Vec<(u8, Vec<u8>)> {
    decode(&WebSocket::new(purpose, subprotocol).ending(&Status::unauthorized("ended")))
}

#[test]
fn command_is_told_in_the_encoding_of_its_subprotocol() {
    let status = Status::unauthorized("ended").to_command_json().to_string().into_bytes();
    let close = (CLOSE, vec![3, 232]);
    for (subprotocol, said) in [
        ("", b"ended".to_vec()),
        ("channel.k8s.io", b"ended".to_vec()),
        ("v4.channel.k8s.io", status.clone()),
        ("v5.channel.k8s.io", status.clone()),
    ] {
        let message = (BINARY, [&[3], &said[..]].concat());
        assert_eq!(told(Purpose::Command, subprotocol), [message, close.clone()], "{subprotocol}");
    }
    for (subprotocol, said) in [("base64.channel.k8s.io", b"ended".to_vec()), ("v4.base64.channel.k8s.io", status)] {
        let message = (TEXT, format!("3{}", STANDARD.encode(said)).into_bytes());
        assert_eq!(told(Purpose::Command, subprotocol), [message, close.clone()], "{subprotocol}");
    }
}

#[test]
fn watch_ends_with_an_error_event_in_text() {
    let [(TEXT, event), (CLOSE, code)] = &told(Purpose::Watch, "")[..] else { panic!("not an event and a close") };
    let event: Value = serde_json::from_slice(event).unwrap();
    assert_eq!((&event["type"], &event["object"]["code"]), (&"ERROR".into(), &401.into()));
    assert_eq!(code, &[3, 232]);
}

#[test]
fn watch_in_protobuf_is_only_closed() {
    let mut socket = WebSocket::new(Purpose::Watch, "");
    socket.follow(&frame(BINARY, b"k8s\0")).unwrap();
    assert_eq!(decode(&socket.ending(&Status::unauthorized("ended"))), [(CLOSE, vec![3, 232])]);
}

#[test]
fn log_ends_with_a_line_and_not_normally() {
    let close = (CLOSE, vec![3, 240]);
    assert_eq!(told(Purpose::Log, "binary.k8s.io"), [(BINARY, b"\nended\n".to_vec()), close.clone()]);
    let line = STANDARD.encode("\nended\n").into_bytes();
    assert_eq!(told(Purpose::Log, "base64.binary.k8s.io"), [(TEXT, line), close]);
}

#[test]
fn port_forward_is_only_closed() {
    for subprotocol in ["v4.channel.k8s.io", "SPDY/3.1+portforward.k8s.io"] {
        assert_eq!(told(Purpose::Other, subprotocol), [(CLOSE, vec![3, 232])], "{subprotocol}");
    }
}
