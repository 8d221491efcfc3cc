//! There and back: what was recorded of publishers, clocks that wrap and jump, codecs that change.

use std::time::Duration;

use super::*;
use crate::bus::{Packet, Pool, PoolLimits};
use crate::proto::mpegts::analysis::{Analyser, Indicator};
use crate::proto::mpegts::mux::Config;
use crate::proto::mpegts::{PesHeader, TsPacket};
use crate::proto::rtmp::Message;
use crate::proto::rtmp::flv::{self, AccessUnit, Codec, Content};
use crate::proto::rtmp::replay::published;
use crate::units::{Ticks90k, Time};

#[test]
fn recorded_publishers_go_there_and_back_unchanged() {
    for (name, uncarried) in [
        ("ffmpeg51-publish", &[][..]),
        ("gst-rtmp2sink", &[]),
        ("gst-rtmpsink", &[]),
        ("ffmpeg9-multitrack", &[]),
        ("ffmpeg9-hevc-ac3", &[]),
        ("ffmpeg9-av1-opus", &[]),
    ] {
        let sent = published(name);
        let mut bench = Bench::new();
        sent.iter().for_each(|message| bench.message(message));
        bench.finish();
        assert_eq!(bench.uncarried, uncarried, "{name}");
        let stats = bench.to_ts.stats();
        assert_eq!((stats.bad_headers, stats.malformed), (0, 0), "{name} {stats:?}");
        let mut back = bench.back;
        // The multiplexer's delay and the two clocks' beginnings move all times alike, by whole milliseconds or not.
        for (codec, track) in [
            (Codec::H264, 0),
            (Codec::H264, 1),
            (Codec::Hevc, 0),
            (Codec::Av1, 0),
            (Codec::Aac, 0),
            (Codec::Aac, 1),
            (Codec::Opus, 0),
        ] {
            let of = |units: &[AccessUnit]| -> Vec<(i64, u64, Content, Vec<u8>)> {
                let units = units.iter().filter(|unit| (unit.codec, unit.track) == (codec, track));
                let units: Vec<_> = units.filter(|unit| unit.content != Content::End).collect();
                let start = units.iter().find(|unit| unit.content != Content::Header).map_or(0, |unit| unit.dts.0);
                let plain = units.into_iter().map(|unit| {
                    let dts = if unit.content == Content::Header { 0 } else { unit.dts.0 as i64 - start as i64 };
                    (dts, unit.pts.0.saturating_sub(unit.dts.0), unit.content, plain(unit))
                });
                plain.collect()
            };
            let (before, after) = (of(&units(&sent)), of(&back));
            assert_eq!(before.len(), after.len(), "{name} {codec:?} {track}");
            for (before, after) in before.iter().zip(&after) {
                assert_eq!(before, after, "{name} {codec:?} {track}");
            }
            back.retain(|unit| (unit.codec, unit.track) != (codec, track));
        }
        assert!(back.is_empty(), "{name}: {back:?}");
    }
}

#[test]
fn what_comes_out_is_clean() {
    for name in ["ffmpeg51-publish", "gst-rtmp2sink", "gst-rtmpsink", "ffmpeg9-multitrack", "ffmpeg9-av1-opus"] {
        let mut bench = Bench::new();
        published(name).iter().for_each(|message| bench.message(message));
        let snapshot = bench.analyser.snapshot();
        assert!(snapshot.stats.sync.packets > 50, "{name}");
        for indicator in Indicator::ALL {
            let seen = snapshot.indicator(indicator);
            assert_eq!((seen.errors, seen.warnings), (0, 0), "{name} {indicator:?} {seen:?}");
        }
        assert!(bench.table_interval_max_ms <= 100, "{name} {}", bench.table_interval_max_ms);
        let mux = bench.to_ts.mux_stats();
        assert_eq!((mux.mended, mux.rebased, mux.late, mux.undecodable, mux.malformed), (0, 0, 0, 0, 0), "{name}");
    }
}

#[test]
fn the_clock_goes_on_where_milliseconds_wrap_and_jump() {
    let recorded = published("ffmpeg51-publish");
    for (what, at) in [("wrap", u32::MAX - 500), ("jump", 5_000_000), ("back", 20)] {
        let mut bench = Bench::new();
        let mut sent = 0;
        for message in &recorded {
            // Half a second after the recording begins, another clock begins.
            let is_before = message.timestamp_ms < 500;
            let moved = match what {
                "wrap" => message.timestamp_ms.wrapping_add(at),
                _ if is_before => message.timestamp_ms + 100_000,
                _ => message.timestamp_ms + at,
            };
            bench.message_at(message.timestamp_ms, &Message { timestamp_ms: moved, ..message.clone() });
            sent += units(std::slice::from_ref(message)).iter().filter(|unit| is_frame(unit)).count();
        }
        bench.finish();
        let stats = bench.to_ts.mux_stats();
        assert_eq!(stats.rebased, u64::from(what != "wrap"), "{what} {stats:?}");
        assert_eq!(bench.from_ts.stats().jumps, 0, "{what}");
        assert_eq!(bench.back.iter().filter(|unit| is_frame(unit)).count(), sent, "{what}");
        for track in [Codec::H264, Codec::Aac] {
            let of_track = bench.back.iter().filter(|unit| unit.codec == track && is_frame(unit));
            let times: Vec<u64> = of_track.map(|unit| unit.dts.0).collect();
            assert!(times.windows(2).all(|pair| pair[1] > pair[0] && pair[1] - pair[0] < 9_000), "{what} {times:?}");
        }
        let snapshot = bench.analyser.snapshot();
        assert_eq!(snapshot.indicator(Indicator::ContinuityCountError).errors, 0);
        assert_eq!(snapshot.indicator(Indicator::PcrDiscontinuityIndicatorError).errors, 0);
    }
}

/// Any tracks of a publisher whose milliseconds wrap and whose clock jumps by up to half a day, and whose messages come late.
#[test]
#[allow(clippy::print_stdout, reason = "a failing test shows its seed")]
fn no_clock_of_a_publisher_harms_the_stream() {
    let recorded = units(&published("ffmpeg51-publish"));
    for seed in 0..20 {
        for rate in [None, Some(crate::units::Bitrate::from_bps(5_000_000))] {
            println!("seed {seed} {rate:?}");
            let mut random = Random(seed);
            let mut bench = Bench::with(Config { rate, ..Config::default() });
            let tracks = random.tracks(&recorded);
            // The clock shows so much more than the milliseconds that have passed.
            let mut ahead_ms =
                [0, u32::MAX - 5_000, random.below(u64::from(u32::MAX)) as u32][random.below(3) as usize];
            let (mut jump_at, mut jumps, mut came_ms, mut sent) = (2_000, 0, 0, 0);
            for ms in 0..20_000 {
                if ms == jump_at {
                    jump_at += 1_000 + random.below(4_000);
                    let by_ms = 20_000 + random.below(12 * 3_600_000) as u32;
                    ahead_ms =
                        if random.below(2) == 0 { ahead_ms.wrapping_add(by_ms) } else { ahead_ms.wrapping_sub(by_ms) };
                    jumps += 1;
                }
                for track in &tracks {
                    let Some(unit) = track.unit(ms) else { continue };
                    came_ms = came_ms.max(ms as u32 + random.below(100) as u32);
                    sent += usize::from(is_frame(&unit));
                    if ms == 0 {
                        bench.message_at(came_ms, &Message { timestamp_ms: ahead_ms, ..flv::write(&track.header) });
                    }
                    let timestamp_ms = ahead_ms.wrapping_add(ms as u32);
                    bench.message_at(came_ms, &Message { timestamp_ms, ..flv::write(&unit) });
                }
            }
            // Behind the last picture sound goes on for a while.
            let snapshot = bench.analyser.snapshot();
            bench.to_ts.end();
            while let Some(due) = bench.to_ts.poll_timeout() {
                bench.to_ts.handle_timeout(due);
                bench.drain();
            }
            bench.finish();
            let mux = bench.to_ts.mux_stats();
            assert_eq!((mux.rebased, mux.late, mux.overflow, mux.stale), (jumps, 0, 0, 0), "{mux:?}");
            assert_eq!(bench.back.iter().filter(|unit| is_frame(unit)).count(), sent);
            assert_eq!((bench.from_ts.stats().jumps, bench.discontinuities), (0, 1));
            for indicator in Indicator::ALL {
                let seen = snapshot.indicator(indicator);
                assert_eq!((seen.errors, seen.warnings), (0, 0), "{indicator:?} {seen:?}");
            }
            assert!(bench.table_interval_max_ms <= 100, "{}", bench.table_interval_max_ms);
            let (least, most) = bench.decoded_after_90k.unwrap();
            assert!(least >= 0 && most <= 90_000, "decoded {least} to {most} ticks after PCR");
        }
    }
}

#[test]
fn a_codec_may_change_midway_and_a_publisher_may_come_back() {
    let (first, mut second) = (published("ffmpeg51-publish"), published("ffmpeg9-hevc-ac3"));
    // It has one picture, which is known to be complete as another begins.
    let picture = second.iter().rfind(|message| message.kind == crate::proto::rtmp::kind::VIDEO).cloned();
    second.extend(picture.map(|picture| later(&picture, 40)));
    let mut bench = Bench::new();
    first.iter().for_each(|message| bench.message(message));
    // On the same connection, then on another after a pause.
    for (pause_ms, is_new) in [(0, false), (4_000, true)] {
        let start_ms = bench.now_ms + pause_ms;
        if is_new {
            bench.to_ts.begin();
            assert_eq!(bench.to_ts.poll_timeout(), None, "silent until the next one");
        }
        for message in if is_new { &first } else { &second } {
            let moved = Message { timestamp_ms: message.timestamp_ms + start_ms, ..message.clone() };
            bench.message_at(message.timestamp_ms + start_ms, &moved);
        }
    }
    bench.finish();
    let headers: Vec<_> = bench.back.iter().filter(|unit| unit.content == Content::Header).collect();
    let codecs: Vec<Codec> = headers.iter().map(|unit| unit.codec).filter(|codec| codec.is_video()).collect();
    assert_eq!(codecs, [Codec::H264, Codec::Hevc, Codec::H264]);
    assert_eq!(bench.discontinuities, 2, "one for each publisher");
    let snapshot = bench.analyser.snapshot();
    assert_eq!(snapshot.indicator(Indicator::ContinuityCountError).errors, 0);
    assert_eq!(bench.uncarried, []);
}

#[test]
fn one_of_picture_and_sound_is_enough() {
    for kind in [crate::proto::rtmp::kind::VIDEO, crate::proto::rtmp::kind::AUDIO] {
        let mut bench = Bench::new();
        let sent: Vec<Message> =
            published("gst-rtmp2sink").into_iter().filter(|message| message.kind == kind).collect();
        sent.iter().for_each(|message| bench.message(message));
        bench.finish();
        let frames = |units: &[AccessUnit]| units.iter().filter(|unit| is_frame(unit)).count();
        assert!(frames(&bench.back) > 20);
        assert_eq!(frames(&bench.back), frames(&units(&sent)));
        assert_eq!(bench.from_ts.pictures().h264, kind == crate::proto::rtmp::kind::VIDEO);
        assert_eq!(bench.from_ts.headers().count(), 1);
    }
}

#[test]
fn what_is_not_carried_is_told_once() {
    let mut bench = Bench::new();
    let (video, audio) = (crate::proto::rtmp::kind::VIDEO, crate::proto::rtmp::kind::AUDIO);
    for _ in 0..3 {
        for (kind, payload) in [
            (video, &b"\x12flv1"[..]),
            (audio, b"\x2fmp3."),
            (video, b"\x91vp09body"),
            (audio, b"\x91fLaCbody"),
            (audio, b"\xaf\x00\x11\x80"),
            (audio, b"\xaf\x01body"),
            (video, b"\x17\x00\x00\x00\x00\x01"),
        ] {
            bench.message(&Message { kind, stream: 1, timestamp_ms: 0, payload: payload.to_vec().into() });
        }
    }
    let configuration = Uncarried::Configuration(Codec::Aac);
    let expected = [
        Uncarried::FlvVideo(2),
        Uncarried::FlvAudio(2),
        Uncarried::Codec(Codec::Vp9),
        Uncarried::FourCc(*b"fLaC"),
        configuration,
    ];
    assert_eq!(bench.uncarried, expected);
    let stats = bench.to_ts.stats();
    assert_eq!((stats.malformed, stats.bad_headers, stats.headerless, stats.units), (9, 6, 6, 0));
    let texts: Vec<String> = bench.uncarried.iter().map(ToString::to_string).collect();
    assert!(texts[3].contains("fLaC") && texts[0].contains("video codec 2"), "{texts:?}");
}

#[test]
fn streams_that_rtmp_has_no_form_for_are_told_once() {
    use crate::proto::mpegts::mux::{Format, Multiplexer};
    let pool = Pool::new(PoolLimits { small_max: 4_096, large_max: 0 });
    let mut mux = Multiplexer::new(Config::default(), pool).unwrap();
    mux.add_track(Format::mpeg_audio(), None).unwrap();
    mux.add_track(Format::h264(), None).unwrap();
    let mut from_ts = FromTs::new();
    for ms in 0..500 {
        mux.handle_timeout(Time::from_ns(ms * 1_000_000));
        while let Some(packet) = mux.poll_packet() {
            from_ts.handle_packet(Time::ZERO, &packet);
        }
    }
    let told: Vec<_> = std::iter::from_fn(|| from_ts.poll_uncarried()).collect();
    let mp2 = Uncarried::Stream { stream_type: 3, codec: Some(crate::proto::mpegts::demux::Codec::MpegAudio) };
    assert_eq!(told, [mp2]);
    assert_ne!(from_ts.pictures(), Pictures::default());
}

#[test]
fn a_source_whose_clock_steps_does_not_stop_the_times() {
    // Told or not; what steps forward untold is a gap.
    for (from_s, to_s, is_told) in [(100, 95, true), (100, 95, false), (95, 100, true), (100, 9, true)] {
        let mut from_ts = FromTs::new();
        let mut back = Vec::new();
        for (start_s, is_first) in [(from_s, false), (to_s, is_told)] {
            for (n, mut packet) in stream(start_s * 90_000, 50).into_iter().enumerate() {
                packet.meta.discontinuity = is_first && n == 0;
                from_ts.handle_packet(Time::ZERO, &packet);
                back.extend(std::iter::from_fn(|| from_ts.poll_unit()));
            }
        }
        assert_eq!(from_ts.stats().jumps, 1, "{from_s} {to_s} {is_told}");
        for codec in [Codec::H264, Codec::Aac] {
            let times = frame_times(&back, codec);
            // The last picture of each is known to be complete only as another begins.
            assert!(times.len() >= 98, "{from_s} {to_s} {is_told} {codec:?} {}", times.len());
            let steps: Vec<u64> = times.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
            assert!(
                steps.iter().all(|step| (1..9_000).contains(step)),
                "{from_s} {to_s} {is_told} {codec:?} {steps:?}"
            );
        }
    }
}

#[test]
fn half_a_picture_before_a_discontinuity_is_not_passed_on() {
    let mut from_ts = FromTs::new();
    let (first, second) = (stream(900_000, 10), stream(900_000, 10));
    // The first packet of a picture has its start, the second one is missing.
    let starts = |packet: &Packet| packet.chunks(188).any(|ts| ts[1] & 0x40 != 0 && ts[1] & 0x1f == 1 && ts[2] == 0);
    let cut = (0..first.len()).filter(|at| starts(&first[*at])).nth(8).unwrap();
    let mut back = Vec::new();
    for (n, mut packet) in first.into_iter().take(cut + 1).chain(second).enumerate() {
        packet.meta.discontinuity = n == cut + 1;
        from_ts.handle_packet(Time::ZERO, &packet);
        back.extend(std::iter::from_fn(|| from_ts.poll_unit()));
    }
    let frames = back.iter().filter(|unit| unit.codec == Codec::H264 && is_frame(unit));
    let lengths: Vec<usize> = frames.map(|unit| unit.bytes.len()).collect();
    assert!(lengths.len() >= 16 && lengths.iter().all(|length| *length == PICTURE_BYTES + 4), "{lengths:?}");
}

#[test]
fn pes_packets_without_times_get_those_that_follow_from_the_ones_before() {
    let mut from_ts = FromTs::new();
    let (mut back, mut count) = (Vec::new(), 0);
    for packet in stream(900_000, 50) {
        let mut bytes = packet.to_vec();
        for ts in bytes.chunks_mut(188).filter(|ts| ts[1] & 0x40 != 0 && ts[1] & 0x1f == 1) {
            let at = ts.windows(4).position(|head| head[..3] == [0, 0, 1] && matches!(head[3], 0xe0 | 0xc0)).unwrap();
            count += 1;
            if count > 4 && count % 5 != 0 {
                // PTS_DTS_flags; the bytes become stuffing.
                ts[at + 7] &= 0x3f;
                ts[at + 9..at + 14].fill(0xff);
            }
        }
        from_ts.handle_packet(Time::ZERO, &pool().copy(&bytes, packet.meta).unwrap());
        back.extend(std::iter::from_fn(|| from_ts.poll_unit()));
    }
    for codec in [Codec::H264, Codec::Aac] {
        let times = frame_times(&back, codec);
        assert!(times.len() >= 49, "{codec:?} {}", times.len());
        // Frames of sound are shorter than what they are apart here.
        let follow = |pair: &[u64]| if codec == Codec::H264 { pair[1] - pair[0] == 3_600 } else { pair[1] > pair[0] };
        assert!(times.windows(2).all(follow), "{codec:?} {times:?}");
        let span = times[times.len() - 1] - times[0];
        assert!(span.abs_diff(3_600 * (times.len() as u64 - 1)) <= 9_000, "{codec:?} {times:?}");
    }
    assert_eq!(from_ts.stats().malformed, 0);
}

#[test]
fn another_publisher_begins_where_the_stream_is() {
    for clock_ms in [8_000_i64, -2_000, 0] {
        let mut bench = Bench::new();
        let sent = published("ffmpeg51-publish");
        sent.iter().for_each(|message| bench.message_at(message.timestamp_ms, &later(message, 100_000)));
        let (end_ms, before) = (bench.now_ms, bench.back.len());
        bench.to_ts.begin();
        for message in &sent {
            let moved = later(message, (100_000 + i64::from(end_ms) + clock_ms) as u32);
            bench.message_at(message.timestamp_ms + end_ms, &moved);
        }
        bench.finish();
        let first = bench.back[..before].iter().filter(|unit| is_frame(unit)).map(|unit| unit.dts.0).max().unwrap();
        let then = bench.back[before..].iter().filter(|unit| is_frame(unit)).map(|unit| unit.dts.0).max().unwrap();
        let took_90k = u64::from(end_ms) * 90;
        assert!((then - first).abs_diff(took_90k) < 45_000, "{clock_ms}: {first} {then} {took_90k}");
        let mux = bench.to_ts.mux_stats();
        assert_eq!((mux.mended, mux.late, mux.rebased), (0, 0, 0), "{clock_ms} {mux:?}");
    }
}

#[test]
fn at_a_constant_rate_the_clock_is_exact_and_a_rate_too_low_is_told() {
    for (bps, is_enough) in [(5_000_000, true), (250_000, false)] {
        let mut bench = Bench::with(Config { rate: Some(crate::units::Bitrate::from_bps(bps)), ..Config::default() });
        let sent = published("ffmpeg51-publish");
        for _ in 0..8 {
            let start_ms = bench.now_ms + 40;
            for message in &sent {
                // Eight times as fast it is more than the lowest rate has room for.
                let timestamp_ms = message.timestamp_ms / if is_enough { 1 } else { 8 } + start_ms;
                bench.message(&Message { timestamp_ms, ..message.clone() });
            }
        }
        let mux = bench.to_ts.mux_stats();
        assert_eq!((mux.stale > 0, bench.uncarried == [Uncarried::Rate]), (!is_enough, !is_enough), "{mux:?}");
        let snapshot = bench.analyser.snapshot();
        for indicator in [Indicator::PcrAccuracyError, Indicator::PcrRepetitionError, Indicator::ContinuityCountError] {
            assert_eq!(snapshot.indicator(indicator).errors, 0, "{bps} {indicator:?}");
        }
        let sent_bps = (mux.ts_packets * 188 * 8 * 1_000) / u64::from(bench.now_ms);
        assert!(sent_bps.abs_diff(bps) < bps / 10, "{sent_bps} {mux:?}");
    }
}

#[test]
fn what_waits_at_a_constant_rate_goes_out_after_the_end() {
    for is_followed in [false, true] {
        let config = Config { rate: Some(crate::units::Bitrate::from_bps(5_000_000)), ..Config::default() };
        let mut bench = Bench::with(config);
        let sent = published("ffmpeg51-publish");
        sent.iter().for_each(|message| bench.message(message));
        let end_ms = bench.now_ms;
        bench.to_ts.end();
        let mut expected = units(&sent).iter().filter(|unit| is_frame(unit)).count();
        if is_followed {
            bench.to_ts.begin();
            sent.iter().for_each(|message| bench.message_at(message.timestamp_ms + end_ms, message));
            bench.to_ts.end();
            expected *= 2;
        }
        while let Some(due) = bench.to_ts.poll_timeout() {
            assert!(due < Time::from_ns(u64::from(bench.now_ms + 2_000) * 1_000_000), "silent at last");
            bench.to_ts.handle_timeout(due);
            bench.drain();
        }
        bench.finish();
        let back = bench.back.iter().filter(|unit| is_frame(unit)).count();
        assert_eq!(back, expected, "{is_followed} {:?}", bench.to_ts.mux_stats());
        assert_eq!(bench.discontinuities, 1, "the stream goes on without a break");
    }
}

#[test]
fn a_publisher_who_brings_nothing_is_silent_until_he_goes_on() {
    for (rate, step_ms) in [(None, 40), (Some(crate::units::Bitrate::from_bps(5_000_000)), 40), (None, 1_000)] {
        let mut bench = Bench::with(Config { rate, ..Config::default() });
        let sent = published("ffmpeg51-publish");
        // Pictures alone, as slow as that.
        let is_video = |message: &&Message| message.kind == crate::proto::rtmp::kind::VIDEO;
        let pictures: Vec<_> = sent.iter().filter(is_video).collect();
        let (header, pictures) = pictures.split_first().unwrap();
        bench.message(header);
        for (n, picture) in (0..).zip(pictures.iter().take(20)) {
            bench.message(&Message { timestamp_ms: n * step_ms, ..(*picture).clone() });
        }
        let end = Time::from_ns(u64::from(bench.now_ms) * 1_000_000);
        let mut last = end;
        while let Some(due) = bench.to_ts.poll_timeout() {
            assert!(due < end + Duration::from_secs(4), "never silent");
            bench.to_ts.handle_timeout(due);
            last = if bench.to_ts.poll_timeout().is_some() { due } else { last };
            bench.drain();
        }
        // What waits at a constant rate goes out before.
        let waited = if rate.is_some() { Duration::from_millis(700) } else { Duration::ZERO };
        let silent_after = last.since(end);
        assert!(
            silent_after <= QUIET_MIN.max(waited).max(Duration::from_millis(2 * u64::from(step_ms))),
            "{silent_after:?}"
        );
        assert_eq!(silent_after >= Duration::from_millis(1_500), step_ms == 1_000, "steps are no silence");
        bench.to_ts.handle_timeout(last + Duration::from_secs(3));
        let again_ms = bench.now_ms + 5_000;
        for (n, picture) in (0..).zip(pictures.iter().take(20)) {
            bench.message(&Message { timestamp_ms: again_ms + n * step_ms, ..(*picture).clone() });
        }
        bench.finish();
        // At a constant rate the end of the last one waits for its time.
        let expected = 40 - usize::from(rate.is_some());
        assert_eq!(bench.back.iter().filter(|unit| is_frame(unit)).count(), expected, "none is lost at {rate:?}");
        assert_eq!(bench.discontinuities, 1, "the same publisher");
        let snapshot = bench.analyser.snapshot();
        assert_eq!(snapshot.indicator(Indicator::ContinuityCountError).errors, 0);
    }
}

#[test]
fn who_was_interrupted_goes_on_without_saying_his_headers_again() {
    let mut bench = Bench::new();
    let sent = published("ffmpeg51-publish");
    sent.iter().for_each(|message| bench.message(message));
    let interrupted = bench.to_ts.interrupt();
    let start_ms = bench.now_ms;
    sent.iter().for_each(|message| bench.message_at(message.timestamp_ms + start_ms, message));
    bench.to_ts.resume(interrupted);
    let (start_ms, before) = (bench.now_ms, bench.back.len());
    let is_header =
        |message: &&Message| units(&[(*message).clone()]).iter().any(|unit| unit.content == Content::Header);
    let media = sent.iter().filter(|message| message.kind != crate::proto::rtmp::kind::DATA);
    let frames: Vec<_> = media.filter(|message| !is_header(message)).collect();
    frames.iter().for_each(|message| bench.message(&later(message, start_ms)));
    bench.finish();
    assert_eq!(bench.to_ts.stats().headerless, 0);
    let back = bench.back[before..].iter().filter(|unit| is_frame(unit)).count();
    assert!(back >= frames.len() - 1, "{back} of {}", frames.len());
}

#[test]
fn what_is_not_carried_is_told_once_however_often_he_stalls() {
    let mut bench = Bench::new();
    let mut sent = published("ffmpeg51-publish");
    let payload = b"\x91vp09body".to_vec().into();
    sent.push(Message { kind: crate::proto::rtmp::kind::VIDEO, stream: 1, timestamp_ms: 0, payload });
    for _ in 0..3 {
        let start_ms = bench.now_ms;
        sent.iter().for_each(|message| bench.message(&later(message, start_ms)));
        let interrupted = bench.to_ts.interrupt();
        bench.to_ts.resume(interrupted);
    }
    assert_eq!(bench.uncarried, [Uncarried::Codec(Codec::Vp9)]);
}

/// Pictures of 25 Hz, every 25th a key frame, and a frame of sound with each, whose first DTS is `start_90k`.
fn stream(start_90k: u64, count: u64) -> Vec<Packet> {
    use crate::proto::mpegts::mux::{AccessUnit, Format, Multiplexer};
    const SETS: &[u8] = &[
        0, 0, 0, 1, 0x67, 0x64, 0, 0x0b, 0xac, 0xd9, 0x42, 0x84, 0xfb, 1, 0x10, 0, 0, 3, 0, 0x10, 0, 0, 3, 3, 0x28,
        0xf1, 0x42, 0x99, 0, 0, 0, 1, 0x68, 0xee, 0x3c, 0x80,
    ];
    let mut mux = Multiplexer::new(Config::default(), pool()).unwrap();
    let video = mux.add_track(Format::h264(), None).unwrap();
    let audio = mux.add_track(Format::aac_adts(), None).unwrap();
    let mut out = Vec::new();
    for n in 0..count {
        let dts = Ticks90k(start_90k + n * 3_600);
        let mut picture = if n % 25 == 0 { SETS.to_vec() } else { Vec::new() };
        picture.extend([0, 0, 0, 1, if n % 25 == 0 { 0x65 } else { 0x41 }]);
        picture.resize(picture.len() + PICTURE_BYTES - 1, 0x55);
        let sound = [&[0xff, 0xf1, 0x4c, 0x80, 0x01, 0x7f, 0xfc][..], &[7; 4]].concat();
        for (track, data) in [(video, &picture), (audio, &sound)] {
            let now = Time::from_ns(n * 40_000_000);
            let unit = AccessUnit { pts: dts, dts, random_access: false, data: data.clone().into() };
            mux.handle_access_unit(now, track, &unit);
            out.extend(std::iter::from_fn(|| mux.poll_packet()));
        }
    }
    out
}

fn frame_times(units: &[AccessUnit], codec: Codec) -> Vec<u64> {
    units.iter().filter(|unit| unit.codec == codec && is_frame(unit)).map(|unit| unit.dts.0).collect()
}

fn later(message: &Message, ms: u32) -> Message {
    Message { timestamp_ms: message.timestamp_ms + ms, ..message.clone() }
}

fn pool() -> Pool {
    Pool::new(PoolLimits { small_max: 4_096, large_max: 0 })
}

/// Of a slice.
const PICTURE_BYTES: usize = 3_000;

/// What a publisher has: a header, and a unit every so often.
struct Publication {
    header: AccessUnit,
    key_frame: AccessUnit,
    frame: AccessUnit,
    every_us: u64,
}

impl Publication {
    /// The unit that is due at that millisecond; the first one at zero.
    fn unit(&self, ms: u64) -> Option<AccessUnit> {
        let n = (ms * 1_000).div_ceil(self.every_us);
        if n * self.every_us / 1_000 != ms {
            return None;
        }
        let unit = if n.is_multiple_of(25) { &self.key_frame } else { &self.frame };
        // Pictures are shown in another order than they are decoded in.
        let shown_after_ms = if unit.codec.is_video() { [40, 120, 0][n as usize % 3] } else { 0 };
        let (dts, pts) = (Ticks90k(ms * 90), Ticks90k((ms + shown_after_ms) * 90));
        Some(AccessUnit { dts, pts, ..unit.clone() })
    }
}

/// The same numbers of the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, max: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) % max
    }

    /// One to four tracks with headers and units that were recorded.
    fn tracks(&mut self, recorded: &[AccessUnit]) -> Vec<Publication> {
        let mut numbers = [0, 0];
        let tracks = (0..1 + self.below(4)).map(|_| {
            let codec = [Codec::H264, Codec::Aac][self.below(2) as usize];
            let number = &mut numbers[usize::from(codec.is_video())];
            let track = std::mem::replace(number, *number + 1);
            let find = |content| {
                let found = recorded.iter().find(|unit| (unit.codec, unit.content) == (codec, content));
                found.map(|unit| AccessUnit { track, ..unit.clone() })
            };
            let (header, key_frame) = (find(Content::Header).unwrap(), find(Content::KeyFrame).unwrap());
            let frame = find(Content::Frame).unwrap_or_else(|| key_frame.clone());
            // Of pictures as large as these no more than their level allows.
            let every_us = if codec.is_video() { [66_667, 80_000][self.below(2) as usize] } else { 21_333 };
            Publication { header, key_frame, frame, every_us }
        });
        tracks.collect()
    }
}

/// Messages in, a transport stream between, units out.
struct Bench {
    to_ts: ToTs,
    from_ts: FromTs,
    analyser: Analyser,
    back: Vec<AccessUnit>,
    uncarried: Vec<Uncarried>,
    now_ms: u32,
    discontinuities: u32,
    /// PAT and PMT.
    last_tables: [Option<Time>; 2],
    table_interval_max_ms: u128,
    pcr_90k: Option<u64>,
    /// Between the last PCR and DTS, the shortest and the longest.
    decoded_after_90k: Option<(i64, i64)>,
}

impl Bench {
    fn new() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        Self {
            to_ts: ToTs::new(config, pool()).unwrap(),
            from_ts: FromTs::new(),
            analyser: Analyser::new(Time::ZERO),
            back: Vec::new(),
            uncarried: Vec::new(),
            now_ms: 0,
            discontinuities: 0,
            last_tables: [None; 2],
            table_interval_max_ms: 0,
            pcr_90k: None,
            decoded_after_90k: None,
        }
    }

    fn message(&mut self, message: &Message) {
        self.message_at(message.timestamp_ms, message);
    }

    /// The message came that late.
    fn message_at(&mut self, ms: u32, message: &Message) {
        self.now_ms = self.now_ms.max(ms);
        let now = Time::from_ns(u64::from(self.now_ms) * 1_000_000);
        while let Some(due) = self.to_ts.poll_timeout().filter(|due| *due < now) {
            self.to_ts.handle_timeout(due);
            self.drain();
        }
        self.to_ts.handle_message(now, message);
        self.drain();
        while let Some(what) = self.to_ts.poll_uncarried() {
            self.uncarried.push(what);
        }
    }

    fn drain(&mut self) {
        while let Some(packet) = self.to_ts.poll_packet() {
            self.look(&packet);
            self.analyser.handle_packet(packet.meta.arrival, &packet, None);
            self.from_ts.handle_packet(packet.meta.arrival, &packet);
            self.back.extend(std::iter::from_fn(|| self.from_ts.poll_unit()));
        }
    }

    fn look(&mut self, packet: &Packet) {
        self.discontinuities += u32::from(packet.meta.discontinuity);
        for ts_packet in packet.chunks(188) {
            let ts_packet = TsPacket::parse(ts_packet).unwrap();
            if let Some(pcr) = ts_packet.adaptation.and_then(|adaptation| adaptation.pcr) {
                self.pcr_90k = Some(pcr.0 / 300);
            }
            let Some(payload) = ts_packet.payload.filter(|_| ts_packet.payload_unit_start) else { continue };
            if let Some(table) = [0, 0x1000].iter().position(|pid| *pid == ts_packet.pid.value()) {
                let at = packet.meta.arrival;
                let since = self.last_tables[table].replace(at).map_or(0, |last| at.since(last).as_millis());
                self.table_interval_max_ms = self.table_interval_max_ms.max(since);
            }
            let stamp = PesHeader::parse(payload).ok().and_then(|header| header.dts.or(header.pts));
            if let Some((stamp, pcr)) = stamp.zip(self.pcr_90k) {
                let after = clock::difference(pcr, stamp.0);
                let (least, most) = self.decoded_after_90k.unwrap_or((after, after));
                self.decoded_after_90k = Some((least.min(after), most.max(after)));
            }
        }
    }

    fn finish(&mut self) {
        self.from_ts.finish();
        self.back.extend(std::iter::from_fn(|| self.from_ts.poll_unit()));
        assert_eq!(std::iter::from_fn(|| self.from_ts.poll_uncarried()).count(), 0);
        let stats = self.from_ts.stats();
        assert_eq!(
            (stats.malformed, stats.overflow, stats.undecodable),
            (0, 0, 0),
            "{stats:?} {:?} {:?}",
            self.from_ts.demux_counts(),
            self.to_ts.mux_stats()
        );
    }
}

fn is_frame(unit: &AccessUnit) -> bool {
    matches!(unit.content, Content::KeyFrame | Content::Frame)
}

/// What of a unit has to stay: of pictures the slices; of headers what decides.
fn plain(unit: &AccessUnit) -> Vec<u8> {
    let codec = match unit.codec {
        Codec::H264 => record::VideoCodec::H264,
        Codec::Hevc => record::VideoCodec::Hevc,
        // Encoders may say the extension's absence in more bytes.
        Codec::Aac if unit.content == Content::Header => return unit.bytes[..2].to_vec(),
        // Its sequence header need not be that of the stream.
        Codec::Av1 if unit.content == Content::Header => return unit.bytes[..4].to_vec(),
        // Delimiters are no part of what FLV has, and some write them.
        Codec::Av1 => return unit.bytes.strip_prefix(&[0x12, 0]).unwrap_or(&unit.bytes).to_vec(),
        // What a decoder is to skip first is not said again.
        Codec::Opus if unit.content == Content::Header => return unit.bytes[..10].to_vec(),
        Codec::Aac | Codec::Ac3 | Codec::Eac3 | Codec::Opus | Codec::Vp9 => return unit.bytes.to_vec(),
    };
    if unit.content == Content::Header {
        // Without what encoders choose: flags of compatibility, number of layers, SEI.
        return match codec {
            record::VideoCodec::H264 => unit.bytes[..4].to_vec(),
            record::VideoCodec::Hevc => unit.bytes[..13].to_vec(),
        };
    }
    let (mut out, mut rest) = (Vec::new(), &unit.bytes[..]);
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let (nal, after) = after.split_at(u32::from_be_bytes(*length) as usize);
        // What is said about pictures may also stand in a header.
        if matches!(codec.role(nal), record::Role::Picture { .. }) {
            out.extend_from_slice(nal);
        }
        rest = after;
    }
    out
}

fn units(messages: &[Message]) -> Vec<AccessUnit> {
    let mut reader = flv::Reader::default();
    let media = messages.iter().filter(|message| message.kind != crate::proto::rtmp::kind::DATA);
    media.flat_map(|message| reader.read(message).map(Result::unwrap).collect::<Vec<_>>()).collect()
}
