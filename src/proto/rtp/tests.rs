//! Scenarios of receiver and sender, alone and against each other, in virtual time.

use std::time::Duration;

use super::random::Random;
use super::rtcp::{Compound, CompoundWriter, ReportBlock, Rtcp, SenderInfo};
use super::*;
use crate::bus::{Meta, Packet, Pool, PoolLimits};
use crate::proto::fec::{Direction, Encoder, FecPacket, Matrix};
use crate::proto::{Core, Datagram, Event, Port, Surroundings, Transmit};
use crate::units::{Seq, Time};

#[test]
fn packets_in_order_pass_at_once_without_their_header() {
    let mut rig = Rig::new();
    assert_eq!(rig.media(0, 1, 65_534), [65_534]);
    assert_eq!(rig.media(1, 1, 65_535), [65_535]);
    assert_eq!(rig.media(2, 1, 0), [0]);
    rig.receive(3, Port::Media, &rtp(1, 33, 1, b"payload"));
    let packet = rig.receiver.poll_packet().unwrap();
    assert_eq!(*packet, *b"payload");
    let (sequence, rtp_timestamp) = (Some(65_536 + 65_537), Some(1_800));
    let meta = Meta { arrival: ms(3), sequence, rtp_timestamp, ..Meta::default() };
    assert_eq!(packet.meta, meta);
    assert_eq!(rig.receiver.stats().received, 4);
}

#[test]
fn a_gap_waits_for_the_window_and_then_counts_as_lost() {
    let mut rig = Rig::new();
    rig.media(0, 1, 10);
    assert!(rig.media(1, 1, 13).is_empty());
    assert_eq!(rig.receiver.poll_timeout(), Some(ms(26)));
    assert!(rig.media(2, 1, 12).is_empty());
    assert!(rig.timeout(25).is_empty());
    assert_eq!(rig.timeout(26), [12, 13]);
    assert!(rig.media(27, 1, 11).is_empty());
    assert!(rig.media(28, 1, 12).is_empty());
    let stats = rig.receiver.stats();
    assert_eq!((stats.lost, stats.late, stats.duplicate, stats.reordered), (1, 1, 1, 1));
}

#[test]
fn reordered_packets_leave_in_order() {
    let mut rig = Rig::new();
    rig.media(0, 1, 65_534);
    assert!(rig.media(1, 1, 0).is_empty());
    assert_eq!(rig.media(2, 1, 65_535), [65_535, 0]);
    assert_eq!((rig.receiver.stats().reordered, rig.receiver.stats().lost), (1, 0));
}

#[test]
fn other_payload_types_are_taken_only_if_wanted() {
    let mut rig = Rig::new();
    rig.receive(0, Port::Media, &rtp(1, 96, 1, b"dynamic"));
    assert!(rig.receiver.poll_packet().is_none());
    assert_eq!(rig.receiver.stats().unexpected, 1);
    let config = ReceiverConfig { payload_types: PayloadTypes::Any, ..ReceiverConfig::default() };
    rig.receiver = Receiver::new(config, &rig.surroundings);
    rig.receive(0, Port::Media, &rtp(1, 96, 1, b"dynamic"));
    assert_eq!(*rig.receiver.poll_packet().unwrap(), *b"dynamic");
}

#[test]
fn truncated_datagrams_are_counted_and_empty_payloads_keep_their_number() {
    let mut rig = Rig::new();
    let whole = rtp(1, 33, 7, b"");
    for len in 0..whole.len() {
        rig.receive(0, Port::Media, &whole[..len]);
    }
    assert_eq!(rig.receiver.stats().malformed, 12);
    rig.receive(0, Port::Media, &whole);
    assert!(rig.receiver.poll_packet().is_none());
    assert_eq!(rig.media(1, 1, 8), [8]);
}

#[test]
fn a_stray_packet_disturbs_nothing() {
    let mut rig = Rig::new();
    rig.media(0, 1, 10);
    assert!(rig.media(1, 666, 500).is_empty());
    assert_eq!(rig.media(2, 1, 11), [11]);
    assert!(rig.media(3, 666, 501).is_empty());
    assert_eq!(rig.media(4, 1, 12), [12]);
    assert!(rig.media(5, 1, 40_000).is_empty());
    assert_eq!(rig.media(6, 1, 13), [13]);
    assert_eq!((rig.receiver.stats().unexpected, rig.receiver.stats().lost), (3, 0));
    assert_eq!(rig.receiver.poll_event(), None);
}

#[test]
fn a_new_ssrc_is_followed_with_its_second_packet_and_loses_nothing() {
    let mut rig = Rig::new();
    rig.media(0, 1, 10);
    rig.media(1, 1, 12);
    assert!(rig.media(2, 2, 500).is_empty());
    assert_eq!(rig.media(3, 2, 501), [12, 500, 501]);
    assert_eq!(rig.receiver.poll_event(), Some(Event::Restarted { from: 1, to: 2 }));
    assert_eq!(rig.media(4, 2, 502), [502]);
    let stats = rig.receiver.stats();
    assert_eq!((stats.received, stats.lost, stats.unexpected), (5, 1, 0));
}

#[test]
fn the_first_packet_with_a_payload_of_each_run_is_marked_as_a_discontinuity() {
    let mut rig = Rig::new();
    rig.receive(0, Port::Media, &rtp(1, 33, 10, b""));
    for (ssrc, sequence) in [(1, 12), (1, 11), (2, 500), (2, 501)] {
        rig.receive(1, Port::Media, &rtp(ssrc, 33, sequence, b"payload"));
    }
    let marks = rig.packets().iter().map(|packet| packet.meta.discontinuity).collect::<Vec<_>>();
    assert_eq!(marks, [true, false, true, false]);
}

#[test]
fn a_sender_that_starts_over_is_followed_and_numbers_still_grow() {
    for first in [40_000, 0, 9_999, 20_000] {
        let mut rig = Rig::new();
        rig.receive(0, Port::Media, &rtp(1, 33, 12_000, &12_000_u16.to_be_bytes()));
        let before = rig.receiver.poll_packet().unwrap().meta.sequence;
        // Another random timestamp: not the clock of before.
        let restarted = |n: u16| {
            let sequence = Seq::new(u32::from(n));
            let header = Header { payload_type: 33, sequence, timestamp: 0x8000_0000, ssrc: 1, marker: false };
            [&header.to_bytes()[..], &n.to_be_bytes()].concat()
        };
        rig.receive(1, Port::Media, &restarted(first));
        assert!(rig.receiver.poll_packet().is_none());
        rig.receive(2, Port::Media, &restarted(first + 1));
        let after: Vec<Packet> = rig.packets();
        assert_eq!(after.len(), 2, "{first}");
        assert!(after[0].meta.sequence > before);
        assert_eq!(after[0].meta.sequence.map(|sequence| sequence as u16), Some(first));
        assert_eq!(rig.receiver.poll_event(), Some(Event::Restarted { from: 1, to: 1 }));
        assert_eq!(rig.receiver.stats().lost, 0);
    }
}

#[test]
fn a_long_outage_counts_its_losses_and_is_no_restart() {
    let mut rig = Rig::new();
    rig.media(0, 1, 10);
    // 5,000 packets of 20 ms later the clock still fits.
    rig.media(100_000, 1, 5_010);
    rig.media(100_020, 1, 5_011);
    assert_eq!(rig.timeout(100_045), [5_010, 5_011]);
    assert_eq!(rig.receiver.stats().lost, 4_999);
    assert_eq!(rig.receiver.poll_event(), None);
}

#[test]
fn goodbye_is_told_once_until_the_sender_is_back() {
    let mut rig = Rig::new();
    rig.media(0, 1, 10);
    let goodbye = CompoundWriter::default().sender_report(1, &SenderInfo::default(), &[]).goodbye(1).into_bytes();
    let of_another = CompoundWriter::default().goodbye(2).into_bytes();
    rig.receive(1, Port::Control, &of_another);
    assert_eq!(rig.receiver.poll_event(), None);
    rig.receive(1, Port::Control, &goodbye);
    rig.receive(2, Port::Control, &goodbye);
    assert_eq!(rig.receiver.poll_event(), Some(Event::Ended));
    assert_eq!(rig.receiver.poll_event(), None);
    assert_eq!(rig.media(3, 1, 11), [11]);
    rig.receive(4, Port::Control, &goodbye);
    assert_eq!(rig.receiver.poll_event(), Some(Event::Ended));
}

#[test]
fn rtcp_on_the_media_port_is_never_taken_for_media() {
    let mut rig = Rig::new();
    let config = ReceiverConfig { payload_types: PayloadTypes::Any, ..ReceiverConfig::default() };
    rig.receiver = Receiver::new(config, &rig.surroundings);
    rig.media(0, 1, 10);
    let goodbye = CompoundWriter::default().sender_report(1, &SenderInfo::default(), &[]).goodbye(1).into_bytes();
    rig.receive(1, Port::Media, &goodbye);
    assert!(rig.numbers().is_empty());
    assert_eq!(rig.receiver.poll_event(), Some(Event::Ended));
}

#[test]
fn what_nobody_drains_is_bounded_and_counted() {
    let mut rig = Rig::new();
    let mut sender = rig.sender(SenderConfig::default());
    for n in 0..1_100 {
        rig.receive(0, Port::Media, &rtp(1, 33, n, b"payload"));
        sender.handle_packet(ms(0), &rig.packet(0, b"payload"));
    }
    for second in 1..20 {
        rig.receiver.handle_timeout(ms(second * 1_000));
        sender.handle_timeout(ms(second * 1_000));
    }
    assert_eq!(rig.packets().len(), 1_024);
    assert_eq!(std::iter::from_fn(|| rig.receiver.poll_transmit()).count(), 4);
    assert_eq!(rig.receiver.stats().overflow, 76 + 15);
    assert_eq!(std::iter::from_fn(|| sender.poll_transmit()).count(), 1_024 + 4);
    assert_eq!(sender.stats().overflow, 76 + 16);
}

#[test]
fn reports_go_to_the_port_after_the_media_until_rtcp_shows_another() {
    let mut rig = Rig::new();
    rig.media(0, 1, 10);
    rig.media(1, 1, 11);
    rig.timeout(1_000);
    let transmit = rig.receiver.poll_transmit().unwrap();
    assert_eq!((transmit.port, transmit.to), (Port::Control, Some(([192, 0, 2, 1], 5_001).into())));
    let reports = transmit.payload.unwrap();
    let read: Vec<Rtcp<'_>> = Compound::new(&reports).map(Result::unwrap).collect();
    assert!(matches!(read[0], Rtcp::ReceiverReport { reports, .. } if reports.iter().any(|block| block.ssrc == 1)));
    assert!(matches!(read[1], Rtcp::SourceDescription(names) if names.cnames().any(|(_, name)| name == b"anabranch")));

    let report = CompoundWriter::default().sender_report(1, &SenderInfo::default(), &[]).into_bytes();
    let elsewhere = ([192, 0, 2, 1], 777).into();
    let packet = rig.packet(1_100, &report);
    rig.receiver.handle_datagram(ms(1_100), Datagram { port: Port::Control, peer: elsewhere, packet });
    rig.timeout(2_100);
    assert_eq!(rig.receiver.poll_transmit().unwrap().to, Some(elsewhere));
}

#[test]
fn reports_are_never_more_than_a_second_apart() {
    let mut rig = Rig::new();
    rig.media(0, 1, 10);
    let (mut last, mut spans) = (Time::ZERO, Vec::new());
    for _ in 0..100 {
        let now = rig.receiver.poll_timeout().unwrap();
        rig.receiver.handle_timeout(now);
        assert!(rig.receiver.poll_transmit().is_some());
        spans.push(now.since(last));
        last = now;
    }
    assert!(spans.iter().all(|span| (250..=1_000).contains(&span.as_millis())), "{spans:?}");
}

#[test]
fn new_headers_count_up_and_stamp_the_arrival_without_copying() {
    let rig = Rig::new();
    let mut sender = rig.sender(SenderConfig { ssrc: Some(7), ..SenderConfig::default() });
    let mut headers = Vec::new();
    for at in [100, 101, 103] {
        let packet = rig.packet(at, &[0x47; 1_316]);
        sender.handle_packet(ms(at), &packet);
        let transmit = media(&mut sender).remove(0);
        assert_eq!(transmit.payload.as_ref().unwrap().as_ptr(), packet.as_ptr());
        assert_eq!((transmit.port, transmit.to, transmit.len()), (Port::Media, None, 1_328));
        headers.push(RtpPacket::parse(&transmit.header).unwrap().header);
    }
    let first = headers[0];
    assert_eq!((first.ssrc, first.payload_type, first.marker), (7, 33, false));
    for (header, (steps, ticks)) in headers.iter().zip([(0, 0), (1, 90), (2, 270)]) {
        let expected =
            Header { sequence: first.sequence.add(steps), timestamp: first.timestamp.wrapping_add(ticks), ..first };
        assert_eq!(*header, expected);
    }
}

#[test]
fn a_discontinuity_sets_the_marker_of_the_first_part() {
    let rig = Rig::new();
    for header in [HeaderMode::New, HeaderMode::Keep] {
        let mut sender = rig.sender(SenderConfig { header, ..SenderConfig::default() });
        for discontinuity in [false, true, false] {
            let mut packet = rig.packet(0, &[0x47; 188 * 16]);
            packet.meta.discontinuity = discontinuity;
            sender.handle_packet(ms(0), &packet);
        }
        let markers = headers(&media(&mut sender)).iter().map(|header| header.marker).collect::<Vec<_>>();
        assert_eq!(markers, [false, false, false, true, false, false, false, false, false]);
    }
}

#[test]
fn kept_headers_show_the_gaps_of_the_source() {
    let rig = Rig::new();
    let mut sender = rig.sender(SenderConfig { header: HeaderMode::Keep, ..SenderConfig::default() });
    for (sequence, rtp_timestamp) in [(Some(70_000), Some(5)), (Some(70_002), Some(9)), (None, None)] {
        let mut packet = rig.packet(0, b"payload");
        packet.meta = Meta { sequence, rtp_timestamp, ..packet.meta };
        sender.handle_packet(ms(0), &packet);
    }
    let headers = headers(&media(&mut sender));
    assert_eq!(headers[0].sequence.value(), 70_000 - 65_536);
    assert_eq!(headers.iter().map(|header| header.sequence.value() - 4_464).collect::<Vec<_>>(), [0, 2, 3]);
    assert_eq!(headers.iter().take(2).map(|header| header.timestamp).collect::<Vec<_>>(), [5, 9]);
}

#[test]
fn long_packets_are_cut_at_ts_packets_unless_their_number_is_kept() {
    let rig = Rig::new();
    let mut sender = rig.sender(SenderConfig::default());
    let ts = rig.packet(0, &[0x47; 188 * 16]);
    sender.handle_packet(ms(0), &ts);
    sender.handle_packet(ms(0), &rig.packet(0, &[1; 3_000]));
    let transmits = media(&mut sender);
    assert_eq!(
        transmits.iter().map(|transmit| transmit.len() - 12).collect::<Vec<_>>(),
        [1_316, 1_316, 376, 1_456, 1_456, 88]
    );
    let headers = headers(&transmits);
    assert!(headers.windows(2).all(|pair| pair[0].sequence.add(1) == pair[1].sequence));

    let mut sender = rig.sender(SenderConfig { header: HeaderMode::Keep, ..SenderConfig::default() });
    let mut kept = ts;
    kept.meta.sequence = Some(5);
    sender.handle_packet(ms(0), &kept);
    assert_eq!(media(&mut sender).iter().map(Transmit::len).collect::<Vec<_>>(), [188 * 16 + 12]);
}

#[test]
fn the_first_report_goes_before_the_first_packet_and_tells_the_time() {
    let mut rig = Rig::new();
    rig.surroundings.unix_ns_at_zero = 1_700_000_000_000_000_000;
    let mut sender = rig.sender(SenderConfig::default());
    assert_eq!(sender.poll_timeout(), None);
    sender.handle_packet(ms(500), &rig.packet(500, &[0x47; 1_316]));
    let first = sender.poll_transmit().unwrap();
    assert_eq!(first.port, Port::Control);
    let first = sender_info(&first).unwrap();
    assert_eq!((first.ntp >> 32, first.ntp as u32), (1_700_000_000 + 2_208_988_800, 0x8000_0000));
    assert_eq!((first.packets, first.octets), (0, 0));
    let header = headers(&media(&mut sender))[0];
    assert_eq!(first.rtp_timestamp, header.timestamp);

    sender.handle_timeout(ms(1_500));
    let second = sender_info(&sender.poll_transmit().unwrap()).unwrap();
    assert_eq!((second.packets, second.octets), (1, 1_316));
    assert_eq!(second.rtp_timestamp, header.timestamp.wrapping_add(90_000));
    assert_eq!(second.ntp - first.ntp, 1 << 32);

    // Nothing sent since: an empty receiver report with the name.
    sender.handle_timeout(ms(2_500));
    assert_eq!(sender_info(&sender.poll_transmit().unwrap()), None);
}

#[test]
fn a_report_gives_round_trip_and_loss_and_one_about_another_gives_nothing() {
    let rig = Rig::new();
    let mut sender = rig.sender(SenderConfig { ssrc: Some(7), ..SenderConfig::default() });
    sender.handle_packet(ms(1_000), &rig.packet(1_000, b"payload"));
    let last_sr = (sender_info(&sender.poll_transmit().unwrap()).unwrap().ntp >> 16) as u32;
    let block =
        ReportBlock { ssrc: 8, fraction_lost: 64, last_sr, since_last_sr: 65_536 / 2, ..ReportBlock::default() };
    let mut answer = |ssrc| {
        let bytes = CompoundWriter::default().receiver_report(1, &[ReportBlock { ssrc, ..block }]).into_bytes();
        let packet = rig.packet(1_540, &bytes);
        sender.handle_datagram(ms(1_541), Datagram { port: Port::Control, peer: PEER.into(), packet });
        (sender.stats().peer_fraction_lost, sender.stats().round_trip)
    };
    assert_eq!(answer(8), (None, None));
    let (fraction_lost, round_trip) = answer(7);
    assert_eq!(fraction_lost, Some(64));
    let round_trip_us = round_trip.unwrap().as_micros();
    assert!((39_950..=40_050).contains(&round_trip_us), "{round_trip_us}");
}

#[test]
fn an_ended_sender_says_goodbye_after_its_last_packet() {
    let mut rig = Rig::new();
    let mut sender = rig.sender(SenderConfig::default());
    sender.handle_packet(ms(0), &rig.packet(0, b"payload"));
    sender.handle_close(ms(1));
    assert_eq!(sender.poll_timeout(), None);
    while let Some(transmit) = sender.poll_transmit() {
        rig.receive(1, transmit.port, &bytes_of(&transmit));
    }
    assert_eq!(rig.packets().len(), 1);
    assert_eq!(rig.receiver.poll_event(), Some(Event::Ended));
}

#[test]
fn what_the_network_does_not_lose_arrives_once_and_in_order() {
    for seed in 0..60 {
        let mut rig = Rig::new();
        let mut random = Random::new(seed);
        rig.surroundings.seed = random.next();
        let mut sender = rig.sender(SenderConfig::default());
        // Datagrams on their way: arrival in ms, and whether to the receiver.
        let mut wire: Vec<(u64, bool, Port, Vec<u8>)> = Vec::new();
        let (mut sent, mut delivered) = (Vec::new(), Vec::new());
        for now in 0..4_000 {
            if now < 3_900 {
                sender.handle_packet(ms(now), &rig.packet(now, &now.to_be_bytes()));
            }
            sender.handle_timeout(ms(now));
            while let Some(transmit) = sender.poll_transmit() {
                let is_lost = transmit.port == Port::Media && now > 0 && random.below(10) == 0;
                if !is_lost {
                    sent.extend((transmit.port == Port::Media).then_some(now));
                    let copies = 1 + u64::from(random.below(50) == 0);
                    let arrivals = (0..copies).map(|_| now + 20 + random.below(5));
                    wire.extend(arrivals.map(|at| (at, true, transmit.port, bytes_of(&transmit))));
                }
            }
            rig.receiver.handle_timeout(ms(now));
            while let Some(transmit) = rig.receiver.poll_transmit() {
                wire.push((now + 20, false, transmit.port, bytes_of(&transmit)));
            }
            let (arrived, on_its_way) = wire.into_iter().partition(|datagram| datagram.0 <= now);
            wire = on_its_way;
            for (_, to_receiver, port, bytes) in arrived {
                if to_receiver {
                    rig.receive(now, port, &bytes);
                } else {
                    let packet = rig.packet(now, &bytes);
                    sender.handle_datagram(ms(now), Datagram { port, peer: PEER.into(), packet });
                }
            }
            delivered.extend(rig.packets().iter().map(|packet| u64::from_be_bytes((**packet).try_into().unwrap())));
        }
        // The first packets may come in disorder before there is an order.
        let early = rig.receiver.stats().late;
        assert!(early < 5, "seed {seed}: {:?}", rig.receiver.stats());
        assert_eq!(delivered, sent[early as usize..], "seed {seed}");
        assert_eq!(rig.receiver.stats().unexpected + rig.receiver.stats().malformed, 0, "seed {seed}");
        let round_trip = sender.stats().round_trip.unwrap().as_millis();
        assert!((39..=45).contains(&round_trip), "seed {seed}: {round_trip}");
        assert!((1..100).contains(&sender.stats().peer_fraction_lost.unwrap()), "seed {seed}");
    }
}

/// A receiver and the means to feed it.
#[test]
fn a_lost_packet_comes_back_in_its_place() {
    let mut rig = Rig::with_fec(None);
    let sent = fec_rows(12);
    assert_eq!(rig.feed(0, &sent, |n| n == 5), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    let stats = rig.receiver.stats();
    assert_eq!((stats.received, stats.recovered, stats.lost, stats.reordered), (11, 1, 0, 0));
    // It comes after all: no second one.
    rig.receive(240, Port::Media, &sent[6].1);
    assert!(rig.numbers().is_empty());
    assert_eq!(rig.receiver.stats().duplicate, 1);
}

#[test]
fn what_is_rebuilt_has_number_and_timestamp_of_what_was_lost() {
    let mut rig = Rig::with_fec(None);
    for (port, bytes) in fec_rows(8).into_iter().filter(|(_, bytes)| bytes[2..4] != [0, 6]) {
        rig.receive(0, port, &bytes);
    }
    let packets = rig.packets();
    assert_eq!(packets.len(), 8);
    assert!(packets.windows(2).all(|pair| pair[0].meta.sequence.map(|n| n + 1) == pair[1].meta.sequence));
    assert!(packets.windows(2).all(|pair| pair[0].meta.rtp_timestamp.map(|n| n + 1_800) == pair[1].meta.rtp_timestamp));
}

/// Packets of 20 ms: the last column goes out behind packet 12 of the next matrix, 25 packets after its first one.
#[test]
fn gaps_are_held_open_for_as_long_as_fec_takes() {
    for (window, expected) in [(None, 25 + 25 * 20 * 5 / 4), (Some(70), 70)] {
        let mut rig = Rig::with_fec(window.map(Duration::from_millis));
        let sent = fec_sender(1_500);
        rig.feed(0, &sent, |_| false);
        let mut window_ms = 0.0;
        rig.receiver.visit_details(&mut |details| {
            window_ms = details.iter().find(|(name, _)| *name == "window_ms").unwrap().1;
        });
        assert_eq!(window_ms, f64::from(expected));
    }
}

#[test]
fn fec_of_a_sender_before_it_started_over_is_of_no_use() {
    let mut rig = Rig::with_fec(None);
    let sent = fec_rows(8);
    // The last packet is lost, and so is the FEC packet until later.
    sent.iter().take(8).for_each(|(port, bytes)| rig.receive(0, *port, bytes));
    [20_000, 20_001].iter().for_each(|sequence| rig.receive(20, Port::Media, &rtp(9, 33, *sequence, &[0; 2])));
    assert_eq!(rig.receiver.poll_event(), Some(Event::Restarted { from: 1, to: 9 }));
    rig.receive(21, Port::FecRows, &sent[9].1);
    rig.timeout(10_000);
    assert_eq!(rig.receiver.stats().recovered, 0);
}

#[test]
fn who_does_not_want_fec_counts_it_as_unexpected() {
    let mut rig = Rig::new();
    let sent = fec_sender(32);
    let came = sent.iter().filter(|(port, _)| *port != Port::Media).count() as u64;
    sent.iter().for_each(|(port, bytes)| rig.receive(0, *port, bytes));
    assert_eq!((rig.numbers().len(), rig.receiver.stats().unexpected), (32, came));
}

#[test]
fn rebuilt_packets_of_another_payload_type_are_not_let_in() {
    let mut rig = Rig::with_fec(None);
    let mut sent = fec_rows(8);
    // The payload type's recovery field.
    sent[9].1[16] ^= 1;
    assert_eq!(rig.feed(0, &sent, |n| n == 6).len(), 6);
    assert_eq!(rig.receiver.stats().unexpected, 1);
}

#[test]
fn fec_goes_behind_what_it_protects_and_the_rest_before_the_goodbye() {
    let rig = Rig::new();
    let mut sender =
        rig.sender(SenderConfig { ssrc: Some(1), ..SenderConfig::with_fec(Matrix::new(4, 4, true).unwrap()) });
    let mut ports = Vec::new();
    for n in 0..20 {
        sender.handle_packet(ms(n), &rig.packet(n, &[7; 188]));
        while let Some(transmit) = sender.poll_transmit() {
            ports.push(transmit.port);
        }
    }
    use Port::{Control, FecColumns, FecRows, Media};
    let mut expected = vec![Control];
    for row in 0..5 {
        expected.push(Media);
        expected.extend((row == 4).then_some(FecColumns));
        expected.extend([Media, Media, Media, FecRows]);
    }
    assert_eq!(ports, expected);
    sender.handle_close(ms(20));
    let rest: Vec<Port> = std::iter::from_fn(|| sender.poll_transmit()).map(|transmit| transmit.port).collect();
    assert_eq!(rest, [FecColumns, FecColumns, FecColumns, Control]);
    let mut details = Vec::new();
    sender.visit_details(&mut |figures| details.extend_from_slice(figures));
    let expected = [("columns_sent", 4.0), ("rows_sent", 5.0), ("matrix_columns", 4.0), ("matrix_rows", 4.0)];
    assert_eq!(details, expected);
}

/// The same without columns.
fn fec_rows(packets: u16) -> Vec<(Port, Vec<u8>)> {
    fec_sender(packets).into_iter().filter(|(port, _)| *port != Port::FecColumns).collect()
}

/// What a sender with FEC sends of so many packets, whose payload is their number, but for reports.
fn fec_sender(packets: u16) -> Vec<(Port, Vec<u8>)> {
    let mut encoder = Encoder::new(Matrix::new(4, 4, true).unwrap(), Pool::new(PoolLimits::default()), 1);
    let mut sent = Vec::new();
    for n in 0..packets {
        let media = rtp(1, 33, n, &n.to_be_bytes());
        let (fixed, rest) = media.split_first_chunk().unwrap();
        encoder.handle(fixed, rest);
        sent.push((Port::Media, media));
        while let Some(FecPacket { direction, packet }) = encoder.poll() {
            sent.push((if direction == Direction::Row { Port::FecRows } else { Port::FecColumns }, packet.to_vec()));
        }
    }
    sent
}

struct Rig {
    surroundings: Surroundings,
    receiver: Receiver,
}

impl Rig {
    fn new() -> Self {
        let surroundings = Surroundings { pool: Pool::new(PoolLimits::default()), seed: 1, unix_ns_at_zero: 0 };
        let receiver = Receiver::new(ReceiverConfig::default(), &surroundings);
        Self { surroundings, receiver }
    }

    fn with_fec(reorder_window: Option<Duration>) -> Self {
        let mut rig = Self::new();
        let config = ReceiverConfig { fec: true, reorder_window, ..ReceiverConfig::default() };
        rig.receiver = Receiver::new(config, &rig.surroundings);
        rig
    }

    /// Receives what a sender sent, a media packet every 20 ms, but for those media packets that get lost.
    fn feed(&mut self, start_ms: u64, sent: &[(Port, Vec<u8>)], is_lost: impl Fn(u64) -> bool) -> Vec<u16> {
        let mut numbers = Vec::new();
        let mut media = 0;
        for (port, bytes) in sent {
            if *port == Port::Media {
                media += 1;
            }
            if *port != Port::Media || !is_lost(media - 1) {
                let at_ms = start_ms + media * 20;
                numbers.extend(self.timeout(at_ms));
                self.receive(at_ms, *port, bytes);
                numbers.extend(self.numbers());
            }
        }
        numbers
    }

    fn sender(&self, config: SenderConfig) -> Sender {
        Sender::new(config, &self.surroundings)
    }

    fn packet(&self, at_ms: u64, bytes: &[u8]) -> Packet {
        self.surroundings.pool.copy(bytes, Meta { arrival: ms(at_ms), ..Meta::default() }).unwrap()
    }

    fn receive(&mut self, at_ms: u64, port: Port, bytes: &[u8]) {
        let packet = self.packet(at_ms, bytes);
        self.receiver.handle_datagram(ms(at_ms), Datagram { port, peer: PEER.into(), packet });
    }

    /// Receives packet `sequence`, whose payload is that number, and gives the numbers released.
    fn media(&mut self, at_ms: u64, ssrc: u32, sequence: u16) -> Vec<u16> {
        self.receive(at_ms, Port::Media, &rtp(ssrc, 33, sequence, &sequence.to_be_bytes()));
        self.numbers()
    }

    fn timeout(&mut self, at_ms: u64) -> Vec<u16> {
        self.receiver.handle_timeout(ms(at_ms));
        self.numbers()
    }

    fn numbers(&mut self) -> Vec<u16> {
        self.packets().iter().map(|packet| u16::from_be_bytes((**packet).try_into().unwrap())).collect()
    }

    fn packets(&mut self) -> Vec<Packet> {
        std::iter::from_fn(|| self.receiver.poll_packet()).collect()
    }
}

const PEER: ([u8; 4], u16) = ([192, 0, 2, 1], 5_000);

/// A packet of a sender that sends every 20 ms.
fn rtp(ssrc: u32, payload_type: u8, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let timestamp = u32::from(sequence) * 1_800;
    let header = Header { marker: false, payload_type, sequence: Seq::new(u32::from(sequence)), timestamp, ssrc };
    [&header.to_bytes()[..], payload].concat()
}

/// What a sender has to send, reports left out.
fn media(sender: &mut Sender) -> Vec<Transmit> {
    let transmits = std::iter::from_fn(|| sender.poll_transmit());
    transmits.filter(|transmit| transmit.port == Port::Media).collect()
}

fn headers(transmits: &[Transmit]) -> Vec<Header> {
    transmits.iter().map(|transmit| RtpPacket::parse(&transmit.header).unwrap().header).collect()
}

fn bytes_of(transmit: &Transmit) -> Vec<u8> {
    [&transmit.header[..], transmit.payload.as_deref().unwrap_or_default()].concat()
}

fn sender_info(transmit: &Transmit) -> Option<SenderInfo> {
    let compound = transmit.payload.as_ref().unwrap();
    let packets: Vec<Rtcp<'_>> = Compound::new(compound).map(Result::unwrap).collect();
    assert!(matches!(packets[1], Rtcp::SourceDescription(_)));
    if let Rtcp::SenderReport { info, .. } = packets[0] { Some(info) } else { None }
}

fn ms(ms: u64) -> Time {
    Time::ZERO + Duration::from_millis(ms)
}
