//! Both sides against each other, and each against what real peers say.

use std::time::Duration;

use proptest::prelude::*;

use super::amf::Value;
use super::check::Pair;
use super::*;
use crate::proto::StreamCore;
use crate::units::Time;

#[test]
fn a_publisher_is_let_in_and_what_it_sends_comes_unchanged() {
    let mut pair = Pair::new(Role::Publisher, Config::default());
    pair.settle();
    assert!(pair.is_ready);
    let request = &pair.requests[0];
    assert_eq!((request.app.as_str(), request.key.as_str(), request.query.as_str()), ("live", "key", "token=t"));
    assert!(request.capabilities.fourccs.iter().any(|fourcc| fourcc == "hvc1"));
    assert!(pair.client.capabilities().is_enhanced());
    [0, 10, 200_000, 60_000].into_iter().for_each(|len| pair.send(len));
    pair.settle();
    assert_eq!(pair.came.iter().map(|message| message.payload.len()).collect::<Vec<_>>(), [0, 10, 200_000, 60_000]);
    pair.client.handle_close(pair.now);
    pair.settle();
    assert_eq!(pair.ends, [End::Left, End::Closed]);
    assert!(pair.server.is_over() && pair.client.is_over());
}

#[test]
fn a_player_gets_what_the_server_sends() {
    let mut pair = Pair::new(Role::Player, Config::default());
    pair.settle();
    assert!(pair.is_ready);
    [5, 70_000].into_iter().for_each(|len| pair.send(len));
    pair.settle();
    assert_eq!(pair.came.len(), 2);
    pair.server.handle_close(pair.now);
    pair.settle();
    assert_eq!(pair.ends, [End::Closed, End::Left]);
}

#[test]
fn a_refusal_is_told_and_ends_both_sides() {
    for (role, verdict, code) in [
        (Role::Publisher, Refusal::InUse, "NetStream.Publish.BadName"),
        (Role::Publisher, Refusal::Denied, "NetStream.Publish.Denied"),
        (Role::Player, Refusal::NotFound, "NetStream.Play.StreamNotFound"),
    ] {
        let mut pair = Pair::new(role, Config::default());
        pair.verdict = Some(verdict);
        pair.settle();
        let [End::NotLetIn, End::Refused { code: told, .. }] = &pair.ends[..] else {
            panic!("{:?}", pair.ends);
        };
        assert_eq!((told.as_str(), pair.is_ready), (code, false));
    }
}

#[test]
fn the_slow_and_the_silent_are_sent_away() {
    let config = Config::default();
    let mut server = Server::new(Time::ZERO, config, 1);
    assert_eq!(server.poll_timeout(), Some(Time::ZERO + config.setup_timeout));
    server.handle_timeout(Time::ZERO + config.setup_timeout - Duration::from_nanos(1));
    assert!(!server.is_over());
    server.handle_timeout(Time::ZERO + config.setup_timeout);
    assert_eq!(server.poll_message(), Some(ServerMessage::Ended(End::Slow)));
    let mut pair = Pair::new(Role::Publisher, config);
    pair.settle();
    let at = pair.server.poll_timeout().unwrap();
    assert!(at > Time::ZERO + config.idle_timeout);
    pair.server.handle_timeout(at);
    assert_eq!(pair.server.poll_message(), Some(ServerMessage::Ended(End::Silent)));
}

#[test]
fn who_takes_no_answers_is_not_listened_to() {
    let mut pair = Pair::new(Role::Player, Config::default());
    pair.settle();
    let (mut writer, mut pieces) = (chunk::Writer::default(), std::collections::VecDeque::new());
    // Pings (RTMP 7.1.7), as many as fit into a packet.
    let ping = Message { kind: kind::USER_CONTROL, payload: vec![0, 6, 0, 0, 0, 0].into(), ..Message::default() };
    (0..50).for_each(|_| writer.write(&ping, &mut pieces));
    let bytes: Vec<u8> = pieces.iter().flat_map(|piece| [&piece.header[..], &piece.payload].concat()).collect();
    let pings = |server: &mut Server| {
        let mut fed = 0;
        while server.is_taking() && fed < 1_000 {
            server.handle_bytes(Time::ZERO, bytes[..].into());
            assert_eq!(server.poll_message(), None);
            fed += 1;
        }
        fed
    };
    // Some more wait unread.
    assert!(pings(&mut pair.server) < 20);
    let answers = std::iter::from_fn(|| pair.server.poll_transmit()).count();
    assert!((100..=150).contains(&answers), "{answers}");
    assert!(pings(&mut pair.server) > 0, "answered as there is room");
    assert!(!pair.server.is_over());
}

#[test]
fn what_nobody_gets_to_see_leaves_others_their_turn() {
    let mut pair = Pair::new(Role::Player, Config::default());
    pair.settle();
    // Empty messages of a type that is not known, each a byte after the first.
    let mut bytes = vec![4, 0, 0, 0, 0, 0, 0, 99, 1, 0, 0, 0];
    bytes.resize(2_000, 0xc4);
    pair.server.handle_bytes(Time::ZERO, bytes.into());
    let (mut turns, before) = (0, pair.server.stats().unexpected);
    loop {
        let seen = pair.server.stats().unexpected;
        assert_eq!(pair.server.poll_message(), None);
        assert!(pair.server.stats().unexpected - seen <= link::SKIPPED_MAX as u64);
        turns += 1;
        if !pair.server.is_behind() {
            break;
        }
    }
    assert!(turns > 5, "{turns}");
    assert_eq!(pair.server.stats().unexpected - before, 1_989);
}

#[test]
fn media_before_the_servers_word_counts_as_it() {
    let target = Target { tc_url: "rtmp://there/live".into(), app: "live".into(), key: "key".into() };
    let mut client = Client::new(Time::ZERO, Config::default(), Role::Player, target, 1);
    let (mut writer, mut pieces) = (chunk::Writer::default(), std::collections::VecDeque::new());
    let empty = || Value::Object(Vec::new());
    for values in [[Value::Number(1.0), empty(), empty()], [Value::Number(2.0), Value::Null, Value::Number(1.0)]] {
        let payload = amf::encode(&[&[Value::text("_result")][..], &values].concat()).into();
        writer.write(&Message { kind: kind::COMMAND, payload, ..Message::default() }, &mut pieces);
    }
    let picture = Message { kind: kind::VIDEO, stream: 1, timestamp_ms: 5, payload: vec![7; 20].into() };
    writer.write(&picture, &mut pieces);
    let said = pieces.iter().flat_map(|piece| [&piece.header[..], &piece.payload].concat());
    let bytes: Vec<u8> = [vec![3], vec![0; 2 * 1_536]].concat().into_iter().chain(said).collect();
    let mut told = Vec::new();
    for part in bytes.chunks(1_000) {
        client.handle_bytes(Time::ZERO, part.into());
        told.extend(std::iter::from_fn(|| client.poll_message()));
    }
    assert_eq!(told, [ClientMessage::Ready, ClientMessage::Media(picture)]);
}

#[test]
fn who_sends_only_what_is_no_media_is_silent() {
    for role in [Role::Publisher, Role::Player] {
        let config = Config::default();
        let mut pair = Pair::new(role, config);
        pair.settle();
        let until = pair.now + config.idle_timeout;
        while pair.now < until {
            pair.now += Duration::from_secs(1);
            let data = Message { kind: kind::DATA, payload: vec![2, 0, 0].into(), ..Message::default() };
            match role {
                Role::Publisher => pair.client.send(&data).unwrap(),
                Role::Player => pair.server.send(&data).unwrap(),
            }
            pair.settle();
            pair.server.handle_timeout(pair.now);
            pair.client.handle_timeout(pair.now);
        }
        pair.settle();
        assert!(pair.ends.contains(&End::Silent), "{role:?} {:?}", pair.ends);
    }
}

#[test]
fn a_server_that_waits_for_a_verdict_listens_no_more() {
    let mut pair = Pair::new(Role::Publisher, Config::default());
    pair.settle();
    // A second request on the same connection is refused, and the stream goes on.
    let publish = amf::encode(&[Value::text("publish"), Value::Number(9.0), Value::Null, Value::text("other")]);
    let message = Message { kind: kind::COMMAND, stream: 1, timestamp_ms: 0, payload: publish.into() };
    pair.client.send(&message).unwrap();
    pair.settle();
    assert_eq!(pair.requests.len(), 1);
}

#[test]
fn more_than_may_wait_is_refused_and_counted() {
    let mut pair = Pair::new(Role::Player, Config { send_bytes_max: 10_000, ..Config::default() });
    pair.settle();
    let message = Message { kind: kind::VIDEO, payload: vec![0; 4_000].into(), ..Message::default() };
    let sent: Vec<_> = (0..3).map(|_| pair.server.send(&message)).collect();
    assert_eq!(sent, [Ok(()), Ok(()), Err(Unsent::Full)]);
    assert_eq!((pair.server.stats().sent, pair.server.stats().overflow), (2, 1));
    assert!(pair.server.waiting_bytes() >= 8_000);
    assert_eq!(pair.client.send(&message), Err(Unsent::NotReady));
}

#[test]
fn a_peer_is_asked_to_connect_anew_if_it_knows_how() {
    let long = "x".repeat(error::WORDS_BYTES_MAX + 1);
    for role in [Role::Publisher, Role::Player] {
        let mut pair = Pair::new(role, Config::default());
        assert!(!pair.server.request_reconnect(None), "nobody is there");
        pair.settle();
        assert!(!pair.server.request_reconnect(Some(&long)));
        assert!(
            pair.server.request_reconnect(Some("rtmp://other.example/live")) && pair.server.request_reconnect(None)
        );
        pair.settle();
        assert_eq!(pair.reconnects, [Some("rtmp://other.example/live".to_owned()), None]);
        // Until the peer leaves, everything goes on.
        pair.send(10);
        pair.settle();
        assert_eq!((pair.came.len(), pair.ends.len()), (1, 0));
    }
}

#[test]
fn metadata_is_found_with_and_without_its_envelope() {
    let fields = vec![("width".to_owned(), Value::Number(1_920.0))];
    let message = set_data_frame(7, fields.clone());
    assert_eq!(metadata(&message), Some(fields.clone()));
    assert_eq!(metadata(&on_metadata(7, fields.clone())), Some(fields));
    let other = amf::encode(&[Value::text("onTextData"), Value::Null]);
    assert_eq!(metadata(&Message { kind: kind::DATA, payload: other.into(), ..Message::default() }), None);
}

#[test]
fn secrets_are_not_in_what_is_logged() {
    let pair = Pair::new(Role::Publisher, Config::default());
    let mut told = format!("{:?}", pair.client);
    let mut pair = pair;
    pair.settle();
    told += &format!("{:?} {:?}", pair.server, pair.requests);
    assert!(!told.contains("token") && !told.contains("\"key"), "{told}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_path_brings_everything_or_ends(script: Vec<u8>, first: u8) {
        check_any_path(&[&[first][..], &[200; 40], &script].concat());
    }

    #[test]
    fn any_peer_is_survived(first: u8, values: Vec<u8>, bytes: Vec<u8>) {
        check_any_peer(&[&[first][..], &bytes].concat());
        // Commands that are ones, about anything.
        let names = ["connect", "createStream", "publish", "play", "deleteStream", "_result", "_error", "onStatus", "x"];
        let (mut writer, mut pieces) = (chunk::Writer::default(), std::collections::VecDeque::new());
        for value in values {
            let name = Value::text(names[usize::from(value) % names.len()]);
            let number = Value::Number(f64::from(value / 16));
            let object = Value::object([("app", Value::text("a")), ("level", Value::text("status"))]);
            let payload = amf::encode(&[name, number.clone(), object, number]).into();
            writer.write(&Message { kind: kind::COMMAND, payload, ..Message::default() }, &mut pieces);
        }
        let bytes: Vec<u8> = pieces.iter().flat_map(|piece| [&piece.header[..], &piece.payload].concat()).collect();
        check_any_peer(&[&[first][..], &bytes].concat());
    }
}
