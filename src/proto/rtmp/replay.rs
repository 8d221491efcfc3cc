//! What real peers said, recorded (`tests/data/rtmp`), said to ours.

use std::collections::{BTreeMap, BTreeSet};

use super::flv::{Codec, Content, Reader};
use super::*;
use crate::proto::StreamCore;
use crate::units::Time;

#[test]
fn publishers_are_understood_at_any_cut() {
    for (name, expected) in [
        ("ffmpeg51-publish", "0 H264: 1 header, 1 key, 24 other; 0 Aac: 1 header, 45 key, 0 other"),
        ("gst-rtmp2sink", "0 H264: 1 header, 1 key, 24 other; 0 Aac: 1 header, 45 key, 0 other"),
        ("gst-rtmpsink", "0 H264: 1 header, 1 key, 24 other; 0 Aac: 1 header, 45 key, 0 other"),
        ("ffmpeg9-av1-opus", "0 Av1: 1 header, 1 key, 24 other; 0 Opus: 1 header, 51 key, 0 other"),
        (
            "ffmpeg9-multitrack",
            "0 H264: 1 header, 1 key, 24 other; 0 Aac: 1 header, 48 key, 0 other; \
                1 H264: 1 header, 1 key, 24 other; 1 Aac: 1 header, 48 key, 0 other",
        ),
        ("ffmpeg9-hevc-ac3", "0 Hevc: 1 header, 1 key, 0 other; 0 Ac3: 1 header, 0 key, 0 other"),
    ] {
        for cut in [1, 13, 60_000] {
            let said = listen(Server::new(Time::ZERO, Config::default(), 1), name, 0, cut, |server, said| {
                if matches!(said, ServerMessage::Publish(_)) {
                    server.accept();
                }
            });
            let [ServerMessage::Publish(request), said @ ..] = &said[..] else {
                panic!("{name} {cut}: {said:?}");
            };
            assert_eq!((request.app.as_str(), request.key.as_str()), ("live", "key"), "{name}");
            let media = said.iter().filter_map(|said| match said {
                ServerMessage::Media(message) => Some(message),
                ServerMessage::Publish(_) | ServerMessage::Play(_) | ServerMessage::Ended(_) => None,
            });
            let media: Vec<&Message> = media.collect();
            assert!(media.iter().any(|message| metadata(message).is_some()), "{name}");
            assert_eq!(summary(&media), expected, "{name} {cut}");
        }
    }
}

#[test]
fn a_server_of_others_lets_us_publish() {
    let said = listen(client(Role::Publisher), "ffmpeg51-publish", 1, 13, |_, _| {});
    assert_eq!(said.first(), Some(&ClientMessage::Ready));
}

#[test]
fn we_play_from_a_server_of_others() {
    for name in ["ffmpeg51-play", "rtmpdump-play"] {
        let said = listen(client(Role::Player), name, 1, 1_000, |_, _| {});
        assert!(said.contains(&ClientMessage::Ready), "{name}");
        let media =
            said.iter().filter_map(|said| if let ClientMessage::Media(media) = said { Some(media) } else { None });
        let units: Vec<_> = units(media).into_iter().filter(|unit| unit.content == Content::Header).collect();
        let codecs: BTreeSet<_> = units.iter().map(|unit| unit.codec).collect();
        assert_eq!(codecs, BTreeSet::from([Codec::H264, Codec::Aac]), "{name}");
    }
}

/// Audio, video and data of a recorded publisher.
pub(in crate::proto) fn published(name: &str) -> Vec<Message> {
    let said = listen(Server::new(Time::ZERO, Config::default(), 1), name, 0, 1_000, |server, said| {
        if matches!(said, ServerMessage::Publish(_)) {
            server.accept();
        }
    });
    let media = said.into_iter().filter_map(|said| match said {
        ServerMessage::Media(message) => Some(message),
        ServerMessage::Publish(_) | ServerMessage::Play(_) | ServerMessage::Ended(_) => None,
    });
    media.collect()
}

/// How many of which units, and that their times go on.
fn summary(media: &[&Message]) -> String {
    let mut tracks: BTreeMap<(u8, Codec), [u32; 3]> = BTreeMap::new();
    let mut last = BTreeMap::new();
    for unit in units(media.iter().copied()) {
        let index = match unit.content {
            Content::Header => 0,
            Content::KeyFrame => 1,
            Content::Frame => 2,
            Content::End => continue,
        };
        tracks.entry((unit.track, unit.codec)).or_default()[index] += 1;
        let before = last.insert((unit.track, unit.codec), unit.dts);
        assert!(before <= Some(unit.dts) && (unit.pts >= unit.dts || index == 0), "{before:?} {unit:?}");
    }
    let track = |((track, codec), [header, key, other]): (&(u8, Codec), &[u32; 3])| {
        format!("{track} {codec:?}: {header} header, {key} key, {other} other")
    };
    tracks.iter().map(track).collect::<Vec<_>>().join("; ")
}

fn units<'a>(media: impl Iterator<Item = &'a Message>) -> Vec<flv::AccessUnit> {
    let mut reader = Reader::default();
    let media = media.filter(|message| message.kind != kind::DATA && !message.payload.is_empty());
    media.flat_map(|message| reader.read(message).map(Result::unwrap).collect::<Vec<_>>()).collect()
}

/// Everything that a core says of what one side of a recording said.
fn listen<C: StreamCore>(
    mut core: C,
    name: &str,
    side: u8,
    cut: usize,
    mut answer: impl FnMut(&mut C, &C::Message),
) -> Vec<C::Message> {
    let mut said = Vec::new();
    for part in recorded(name, side).chunks(cut) {
        assert!(core.is_taking());
        core.handle_bytes(Time::ZERO, part.into());
        while let Some(message) = core.poll_message() {
            answer(&mut core, &message);
            said.push(message);
        }
        while core.poll_transmit().is_some() {}
        if core.is_over() {
            break;
        }
    }
    said
}

fn recorded(name: &str, wanted: u8) -> Vec<u8> {
    let file = std::fs::read(format!("{}/tests/data/rtmp/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let (mut rest, mut bytes) = (&file[..], Vec::new());
    while let Some(([side, l0, l1, l2, l3], after)) = rest.split_first_chunk() {
        let (record, after) = after.split_at(u32::from_be_bytes([*l0, *l1, *l2, *l3]) as usize);
        if *side == wanted {
            bytes.extend_from_slice(record);
        }
        rest = after;
    }
    bytes
}

fn client(role: Role) -> Client {
    let target = Target { tc_url: "rtmp://127.0.0.1/live".into(), app: "live".into(), key: "key".into() };
    Client::new(Time::ZERO, Config::default(), role, target, 1)
}
