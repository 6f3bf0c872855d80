//! Tests that written frames are read back, and that no other bytes do harm.

use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::ids::{ID_MAX, NodeId};
use crate::link::hello::VERSIONS;
use crate::link::payload::sample::{Sample, SampleAsk};

type Frame = super::Frame<Sample>;
type Item = super::Item<Sample>;

fn incarnation() -> impl Strategy<Value = Incarnation> {
    (1..=ID_MAX).prop_map(|number| Incarnation::new(number).unwrap())
}

fn item() -> impl Strategy<Value = Item> {
    let hello = (
        vec(any::<u32>(), 0..=VERSIONS_MAX),
        ".{0,64}",
        "[a-z]{1,64}",
        incarnation(),
        any::<u32>(),
        ".{0,20}",
    )
        .prop_map(|(versions, cluster, node, incarnation, shards, hash)| Hello {
            versions,
            cluster,
            node: NodeId::parse(&node).unwrap(),
            incarnation,
            shards,
            hash,
        });
    let ask = (any::<u64>(), ".{0,200}").prop_map(|(number, text)| SampleAsk { number, text });
    let request = (any::<u64>(), 0..=3_600_000_000_u64, ask).prop_map(|(id, micros, ask)| RemoteRequest {
        id,
        remaining: Duration::from_micros(micros),
        ask,
    });
    let numbered =
        || (any::<u64>(), vec(any::<u8>(), 0..200)).prop_map(|(id, content)| Numbered { id, content });
    prop_oneof![
        hello.prop_map(Item::Hello),
        ".{0,100}".prop_map(Item::Refusal),
        request.prop_map(Item::Request),
        (any::<u64>(), any::<u64>()).prop_map(|(id, answer)| Item::Answer(id, answer)),
        numbered().prop_map(Item::Heartbeat),
        numbered().prop_map(Item::HeartbeatAnswer),
        numbered().prop_map(Item::News),
        any::<u64>().prop_map(Item::Acknowledgement),
    ]
}

fn frame() -> impl Strategy<Value = Frame> {
    let header = (
        prop::sample::select(vec![0, VERSIONS[0]]),
        incarnation(),
        incarnation(),
        any::<u64>(),
        any::<u64>(),
    )
        .prop_map(|(version, from, to, generation, number)| Header {
            version,
            from,
            to,
            generation,
            number,
        });
    (header, vec(item(), 0..8)).prop_map(|(header, items)| Frame { header, items })
}

fn write(frame: &Frame) -> Vec<u8> {
    let mut writer = Writer::new(frame.header);
    for item in &frame.items {
        writer.add(&Written::new(item.clone()).unwrap());
    }
    writer.finish()
}

proptest! {
    #[test]
    fn a_frame_is_read_as_it_was_written(frame in frame()) {
        prop_assert_eq!(Frame::read(write(&frame)), Ok(frame));
    }

    #[test]
    fn random_bytes_are_refused_or_read_without_a_panic(bytes in vec(any::<u8>(), 0..2_000)) {
        let _ = Frame::read(bytes);
    }

    #[test]
    fn a_corrupted_frame_is_refused_or_read_within_bounds(
        frame in frame(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..6),
    ) {
        let mut bytes = write(&frame);
        for (at, byte, how) in changes {
            let at = at.index(bytes.len().max(1)).min(bytes.len().saturating_sub(1));
            match how {
                0 if !bytes.is_empty() => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => bytes.truncate(at),
            }
        }
        if let Ok(read) = Frame::read(bytes) {
            // A frame that was read can be written and read again, and no field is lost or changed.
            prop_assert_eq!(Frame::read(write(&read)), Ok(read));
        }
    }
}

fn header() -> Header {
    let [from, to] = [1, 2].map(|number| Incarnation::new(number).unwrap());
    Header {
        version: VERSIONS[0],
        from,
        to,
        generation: 1,
        number: 1,
    }
}

/// Returns the bytes of a frame that has this item `count` times.
fn with_item(count: usize, item: &[u8]) -> Vec<u8> {
    let mut bytes = Writer::new(header()).finish();
    for _ in 0..count {
        bytes.push(6 << 3 | 2);
        prost::encoding::encode_varint(item.len() as u64, &mut bytes);
        bytes.extend_from_slice(item);
    }
    bytes
}

#[test]
fn frames_have_bounds() {
    assert_eq!(
        Frame::read(vec![0; FRAME_BYTES_MAX + 1]),
        Err(FrameError::TooLong(FRAME_BYTES_MAX + 1))
    );
    assert_eq!(
        Frame::read(with_item(ITEMS_MAX + 1, &[])),
        Err(FrameError::TooMany(ITEMS_MAX + 1))
    );
    assert_eq!(
        Frame::read(with_item(1, &vec![0; ITEM_BYTES_MAX + 1])),
        Err(FrameError::TooMany(1))
    );
    assert_eq!(Frame::read(with_item(1, &[])), Err(FrameError::Wrong("item")));
    assert!(
        Written::new(Item::News(Numbered {
            id: 1,
            content: vec![0; MESSAGE_BYTES_MAX]
        }))
        .is_some()
    );
    assert!(
        Written::new(Item::News(Numbered {
            id: 1,
            content: vec![0; ITEM_BYTES_MAX]
        }))
        .is_none()
    );
    let versions = Hello {
        versions: vec![1; VERSIONS_MAX + 1],
        ..Hello::new("c", NodeId::parse("n").unwrap(), header().from)
    };
    let frame = Frame {
        header: header(),
        items: vec![Item::Hello(versions)],
    };
    assert_eq!(
        Frame::read(write(&frame)),
        Err(FrameError::Wrong("list of versions"))
    );
    let longest = |length| RemoteRequest {
        id: 1,
        remaining: REMAINING_MAX,
        ask: SampleAsk {
            number: 1,
            text: "x".repeat(length),
        },
    };
    assert!(Written::new(Item::Request(longest(MESSAGE_BYTES_MAX))).is_some());
    assert!(Written::new(Item::Request(longest(ITEM_BYTES_MAX))).is_none());
}

/// Returns an item with one field, which holds a message of these bytes.
fn message_item(tag: u8, message: &[u8]) -> Vec<u8> {
    let mut item = vec![tag << 3 | 2];
    prost::encoding::encode_varint(message.len() as u64, &mut item);
    item.extend_from_slice(message);
    item
}

#[test]
fn content_that_the_payload_cannot_read_makes_a_frame_unreadable() {
    let request = |content: &[u8]| wire::Request {
        id: 1,
        remaining_micros: 1,
        content: content.to_vec().into(),
    };
    let answer = |content: &[u8]| wire::Content {
        id: 1,
        content: content.to_vec().into(),
    };
    let read = |tag, message: Vec<u8>| Frame::read(with_item(1, &message_item(tag, &message)));
    assert!(read(3, request(&[1; 8]).encode_to_vec()).is_ok());
    assert_eq!(
        read(3, request(&[1; 7]).encode_to_vec()),
        Err(FrameError::Wrong("number"))
    );
    assert_eq!(
        read(3, request(&[0xff; 9]).encode_to_vec()),
        Err(FrameError::Wrong("text"))
    );
    assert!(read(4, answer(&[1; 8]).encode_to_vec()).is_ok());
    assert_eq!(
        read(4, answer(&[1; 9]).encode_to_vec()),
        Err(FrameError::Wrong("answer"))
    );
    let long = wire::Request {
        remaining_micros: 3_600_000_001,
        ..request(&[1; 8])
    };
    assert_eq!(
        read(3, long.encode_to_vec()),
        Err(FrameError::Wrong("remaining time"))
    );
    let long = answer(&vec![0; MESSAGE_BYTES_MAX + 1]);
    assert_eq!(
        read(7, long.encode_to_vec()),
        Err(FrameError::Wrong("length of a message"))
    );
}

#[test]
fn a_full_frame_can_be_read() {
    let largest = Written::new(Item::News(Numbered {
        id: u64::MAX,
        content: vec![7; MESSAGE_BYTES_MAX],
    }))
    .unwrap();
    let mut writer = Writer::new(header());
    while !writer.is_full() {
        writer.add(&largest);
    }
    let bytes = writer.finish();
    assert!(bytes.len() > FRAME_BYTES_TARGET);
    assert!(Frame::read(bytes).is_ok());
}

#[test]
fn versions_that_this_release_does_not_speak_are_refused() {
    for version in [VERSIONS[VERSIONS.len() - 1] - 1, VERSIONS[0] + 1] {
        let frame = Writer::new(Header { version, ..header() });
        assert_eq!(Frame::read(frame.finish()), Err(FrameError::Version(version)));
    }
}

/// Pins the bytes of a request and its answer. Every other release that speaks version 2 must read and write
/// the same bytes.
#[test]
fn version_2_is_pinned() {
    let request = RemoteRequest {
        id: 9,
        remaining: Duration::from_millis(5),
        ask: SampleAsk {
            number: 42,
            text: "alice".to_owned(),
        },
    };
    let frame = Frame {
        header: Header {
            version: 2,
            ..header()
        },
        items: vec![Item::Request(request), Item::Answer(9, 500)],
    };
    let bytes: String = write(&frame).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(bytes, PINNED);
}

const PINNED: &str = concat!(
    "0802100118022001280132161a1408091088271a0d2a00000000000000616c696365",
    "320e220c08091208f401000000000000"
);
