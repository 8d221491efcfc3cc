//! Between RTMP and transport streams: what real publishers sent and what ffmpeg writes goes to a transport stream and
//! back.

use std::process::Command;
use std::time::Duration;

use anabranch::bus::{Meta, Pool, PoolLimits};
use anabranch::proto::StreamCore;
use anabranch::proto::bridge::{Feed, FromTs, Takes, ToTs};
use anabranch::proto::mpegts::mux::Config;
use anabranch::proto::rtmp::flv::{AccessUnit, Codec, Content, Reader};
use anabranch::proto::rtmp::{self, Capabilities, Message, Role, Server, ServerMessage, flv, kind};
use anabranch::units::Time;

use super::tools::{PICTURE, SOUND, frames, make, pcrs, tools, warnings, write};

#[test]
fn frames_of_recorded_publishers_stay_the_same() {
    let Some(folder) = tools(&["ffmpeg"]) else { return };
    for (name, tracks) in
        [("ffmpeg51-publish", 1), ("gst-rtmp2sink", 1), ("gst-rtmpsink", 1), ("ffmpeg9-multitrack", 2)]
    {
        let sent = recorded(name);
        let stream = write(&folder, "out.ts", &to_ts(&sent));
        assert_eq!(warnings(&stream), NONE, "{name}");
        for track in 0..tracks {
            // ffmpeg 5.1 reads one track of a kind from FLV.
            let flv = write(&folder, "source.flv", &flv_file(&of_track(&sent, track)));
            for (from, to) in [("0:v", format!("0:v:{track}")), ("0:a", format!("0:a:{track}"))] {
                let (before, after) = (frames(&flv, from), frames(&stream, &to));
                assert!(before.len() >= 25, "{name} {track} {} frames", before.len());
                assert_eq!(before, after, "{name} {track} {to}");
            }
        }
    }
}

#[test]
fn ten_seconds_with_reordering_go_there_and_back() {
    let Some(folder) = tools(&["ffmpeg", "tsreport"]) else { return };
    let source = folder.path().join("source.flv");
    make(&[PICTURE, SOUND, "-c:v libx264 -preset veryfast -g 25 -bf 3 -b:v 2M -c:a aac -ar 48000 -ac 2"], &source);
    let sent = messages(&std::fs::read(&source).unwrap());
    let stream = write(&folder, "out.ts", &to_ts(&sent));
    assert_eq!(warnings(&stream), NONE);
    pcrs(&stream);
    let back = write(&folder, "back.flv", &flv_file(&from_ts(&std::fs::read(&stream).unwrap())));
    assert_eq!(warnings(&back), NONE);
    for track in ["0:v", "0:a"] {
        let before = frames(&source, track);
        assert!(before.len() >= 250);
        assert_eq!(before, frames(&stream, track), "{track}");
        assert_eq!(before, frames(&back, track), "{track} back");
    }
}

#[test]
fn streams_that_ffmpeg_multiplexed_become_flv() {
    let Some(folder) = tools(&["ffmpeg"]) else { return };
    let source = folder.path().join("source.ts");
    make(&[PICTURE, SOUND, "-c:v libx264 -preset veryfast -g 25 -bf 3 -b:v 2M -c:a aac -ar 44100 -ac 1"], &source);
    let back = write(&folder, "back.flv", &flv_file(&from_ts(&std::fs::read(&source).unwrap())));
    assert_eq!(warnings(&back), NONE);
    for track in ["0:v", "0:a"] {
        let before = frames(&source, track);
        assert!(before.len() >= 250);
        assert_eq!(before, frames(&back, track), "{track}");
    }
}

#[test]
fn pictures_of_av1_stay_the_same_there_and_back() {
    let Some(folder) = tools(&["ffmpeg"]) else { return };
    let sent = recorded("ffmpeg9-av1-opus");
    let back = passed_on(&to_ts(&sent), &Capabilities { fourccs: vec!["*".into()], extended: 0 });
    let file = |name, messages: &[Message]| write(&folder, name, &pictures_of(messages));
    let (before, after) = (frames(&file("source.obu", &sent), "0:v"), frames(&file("back.obu", &back), "0:v"));
    assert!(before.len() >= 25, "{} frames", before.len());
    assert_eq!(before, after);
}

#[test]
fn packets_of_opus_are_those_that_ffmpeg_finds_in_its_own_stream() {
    let Some(folder) = tools(&["ffmpeg"]) else { return };
    for (channels, codec) in [(1, "-c:a libopus"), (2, "-c:a libopus"), (6, "-c:a libopus -mapping_family 1")] {
        let source = folder.path().join("source.ts");
        make(&[SOUND, codec, &format!("-ac {channels}")], &source);
        let back =
            passed_on(&std::fs::read(&source).unwrap(), &Capabilities { fourccs: vec!["*".into()], extended: 0 });
        let (headers, packets): (Vec<_>, Vec<_>) =
            units(&back).into_iter().partition(|unit| unit.content == Content::Header);
        assert_eq!((headers.len(), headers[0].bytes[9]), (1, channels));
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg.args(["-v", "error", "-i"]).arg(&source).args("-map 0:a -c copy -f data -".split(' '));
        let found = ffmpeg.output().unwrap().stdout;
        let bytes: Vec<u8> = packets.iter().flat_map(|unit| unit.bytes.to_vec()).collect();
        assert!(packets.len() >= 500 && found == bytes, "{channels} {}", packets.len());
        let times: Vec<u64> = packets.iter().map(|unit| unit.dts.0).collect();
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] == 1_800), "20 ms each: {times:?}");
    }
}

/// The stream as it would be made live.
fn to_ts(sent: &[Message]) -> Vec<u8> {
    let mut bridge = ToTs::new(Config::default(), Pool::new(PoolLimits::default())).unwrap();
    let mut out = Vec::new();
    let mut now = Time::ZERO;
    for message in sent {
        now = now.max(Time::ZERO + Duration::from_millis(message.timestamp_ms.into()));
        while let Some(due) = bridge.poll_timeout().filter(|due| *due < now) {
            bridge.handle_timeout(due);
            drain(&mut bridge, &mut out);
        }
        bridge.handle_message(now, message);
        drain(&mut bridge, &mut out);
    }
    assert_eq!(bridge.poll_uncarried(), None);
    let (stats, mux) = (bridge.stats(), bridge.mux_stats());
    assert_eq!((stats.headerless, stats.bad_headers, stats.malformed), (0, 0, 0), "{stats:?}");
    assert_eq!((mux.malformed, mux.mended, mux.rebased, mux.late, mux.undecodable), (0, 0, 0, 0, 0), "{mux:?}");
    out
}

fn drain(bridge: &mut ToTs, out: &mut Vec<u8>) {
    while let Some(packet) = bridge.poll_packet() {
        out.extend_from_slice(&packet);
    }
}

/// What a peer that knows nothing of enhanced RTMP would get.
fn from_ts(stream: &[u8]) -> Vec<Message> {
    passed_on(stream, &Capabilities::default())
}

/// What media a peer would get.
fn passed_on(stream: &[u8], peer: &Capabilities) -> Vec<Message> {
    let pool = Pool::new(PoolLimits::default());
    let (mut bridge, mut messages) = (FromTs::new(), Vec::new());
    let mut feed = Feed::new(Role::Player, Takes::new(peer), std::iter::empty());
    let pass = |bridge: &mut FromTs, feed: &mut Feed, messages: &mut Vec<Message>| {
        while let Some(unit) = bridge.poll_unit() {
            feed.handle_unit(&unit, bridge.pictures(), |message| {
                messages.extend((message.kind != kind::DATA).then(|| message.clone()));
                Ok(())
            });
        }
    };
    for part in stream.chunks(1_316) {
        bridge.handle_packet(Time::ZERO, &pool.copy(part, Meta::default()).unwrap());
        pass(&mut bridge, &mut feed, &mut messages);
    }
    bridge.finish();
    pass(&mut bridge, &mut feed, &mut messages);
    assert_eq!((bridge.poll_uncarried(), feed.poll_uncarried()), (None, None));
    let stats = bridge.stats();
    assert_eq!((stats.malformed, stats.undecodable, stats.overflow, stats.jumps), (0, 0, 0, 0), "{stats:?}");
    messages
}

/// One track of each kind, as if it were the only one.
fn of_track(sent: &[Message], track: u8) -> Vec<Message> {
    let units = units(sent).into_iter();
    units.filter(|unit| unit.track == track).map(|unit| flv::write(&AccessUnit { track: 0, ..unit })).collect()
}

fn units(messages: &[Message]) -> Vec<AccessUnit> {
    let mut reader = Reader::default();
    let media = messages.iter().filter(|message| message.kind != kind::DATA);
    media.flat_map(|message| reader.read(message).map(Result::unwrap).collect::<Vec<_>>()).collect()
}

/// A file of AV1's low overhead format, in which each temporal unit begins with a delimiter (AV1 7.5).
fn pictures_of(messages: &[Message]) -> Vec<u8> {
    let units = units(messages).into_iter();
    let pictures =
        units.filter(|unit| unit.codec == Codec::Av1 && matches!(unit.content, Content::KeyFrame | Content::Frame));
    pictures
        .flat_map(|unit| [&[0x12, 0][..], unit.bytes.strip_prefix(&[0x12, 0]).unwrap_or(&unit.bytes)].concat())
        .collect()
}

/// A file of FLV (FLV annex E.2 and E.4.1).
fn flv_file(messages: &[Message]) -> Vec<u8> {
    let mut file = b"FLV\x01\x05\x00\x00\x00\x09\x00\x00\x00\x00".to_vec();
    for message in messages {
        let size = message.payload.len() as u32;
        let [high, rest @ ..] = message.timestamp_ms.to_be_bytes();
        file.push(message.kind);
        file.extend(&size.to_be_bytes()[1..]);
        file.extend(rest);
        file.extend([high, 0, 0, 0]);
        file.extend_from_slice(&message.payload);
        file.extend((size + 11).to_be_bytes());
    }
    file
}

/// Audio and video of a file of FLV.
pub(crate) fn messages(file: &[u8]) -> Vec<Message> {
    let (mut rest, mut messages) = (&file[13..], Vec::new());
    while rest.len() >= 11 {
        let size = u32::from_be_bytes([0, rest[1], rest[2], rest[3]]) as usize;
        let timestamp_ms = u32::from_be_bytes([rest[7], rest[4], rest[5], rest[6]]);
        if matches!(rest[0], kind::AUDIO | kind::VIDEO) {
            let payload = rest[11..11 + size].to_vec().into();
            messages.push(Message { kind: rest[0], stream: 1, timestamp_ms, payload });
        }
        rest = &rest[11 + size + 4..];
    }
    messages
}

/// Audio, video and data of a recorded publisher.
fn recorded(name: &str) -> Vec<Message> {
    let file = std::fs::read(format!("{}/tests/data/rtmp/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let mut server = Server::new(Time::ZERO, rtmp::Config::default(), 1);
    let (mut rest, mut media) = (&file[..], Vec::new());
    while let Some(([side, l0, l1, l2, l3], after)) = rest.split_first_chunk() {
        let (bytes, after) = after.split_at(u32::from_be_bytes([*l0, *l1, *l2, *l3]) as usize);
        for part in if *side == 0 { bytes } else { &[] }.chunks(1_000) {
            server.handle_bytes(Time::ZERO, part.into());
            while let Some(said) = server.poll_message() {
                match said {
                    ServerMessage::Publish(_) => server.accept(),
                    ServerMessage::Media(message) => media.push(message),
                    ServerMessage::Play(_) | ServerMessage::Ended(_) => {}
                }
            }
            while server.poll_transmit().is_some() {}
        }
        rest = after;
    }
    media
}

const NONE: [&str; 0] = [];
