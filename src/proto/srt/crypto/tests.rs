//! Against libsrt's captures, and both ends against each other.
//!
//! The captures are excerpts: the caller's CONCLUSION, what was said about keys later, and a few data packets. The
//! `kmrefresh200` ones have the packets on both sides of each change of keys, with `kmrefreshrate=200`. Their names end
//! in libsrt's version.

use super::super::capture;
use super::super::handshake::{Extension, Handshake};
use super::super::packet::{ControlKind, DataHeader, Header};
use super::*;
use crate::units::Seq;

/// Bytes from hexadecimal digits; whatever else is left out.
pub(super) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

const ROUND_TRIP: Duration = Duration::from_millis(100);
const SMALL: Refresh = Refresh { every: 20, announce: 5 };

fn passphrase() -> Passphrase {
    "thelocalmanager".parse().unwrap()
}

fn entropy(seed: u8) -> Entropy {
    Entropy::new([seed; 32])
}

fn at(ms: u64) -> Time {
    Time::from_ns(ms * 1_000_000)
}

/// A caller and a listener that have the same first key.
/// A caller's, with the derivation done on the spot.
fn initiate(
    passphrase: &Passphrase,
    length: KeyLength,
    mode: CipherMode,
    refresh: Refresh,
    entropy: &mut Entropy,
) -> Option<(Crypto, Vec<u8>)> {
    let kek = Derivation::draw(passphrase, length, entropy).run();
    Crypto::initiate(passphrase, kek, mode, refresh, entropy)
}

/// A listener's, with the derivation done on the spot.
fn respond(
    passphrase: &Passphrase,
    mode: impl Into<Option<CipherMode>>,
    refresh: Refresh,
    request: &[u8],
) -> Result<Crypto, Rejection> {
    let mode = mode.into();
    let kek = Derivation::answer(passphrase, mode, request)?.run();
    Crypto::respond(passphrase, kek, mode, refresh, request)
}

fn pair(length: KeyLength, mode: CipherMode, refresh: Refresh) -> (Crypto, Crypto) {
    let (mut caller, request) =
        initiate(&passphrase(), length, mode, refresh, &mut entropy(length.bytes() as u8)).unwrap();
    let listener = respond(&passphrase(), mode, refresh, &request).unwrap();
    assert_eq!((caller.send_state(), listener.send_state()), (KmState::Securing, KmState::Secured));
    assert_eq!(caller.settle(Some(&request)), Ok(()));
    assert_eq!((caller.send_state(), caller.receive_state()), (KmState::Secured, KmState::Secured));
    (caller, listener)
}

struct Sealed {
    header: DataHeader,
    payload: Vec<u8>,
}

/// Seals packet number `number`.
fn seal(from: &mut Crypto, now: Time, number: u32) -> Sealed {
    let header = DataHeader { key: from.in_use(), ..DataHeader::whole(Seq::new(number), number, number, 9) };
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(4 + from.overhead(), 0);
    from.seal(now, &header.bytes(), &mut payload, &mut entropy(number as u8));
    Sealed { header, payload }
}

/// Whether it opens, and to what it was.
fn opens(to: &mut Crypto, sealed: &Sealed) -> bool {
    let mut payload = sealed.payload.clone();
    let length = to.open(sealed.header.key, &sealed.header.bytes(), &mut payload);
    length == Some(4) && payload[..4] == sealed.header.sequence.value().to_be_bytes()
}

struct Replayed {
    crypto: Crypto,
    /// Keys of the data packets, in order.
    keys: Vec<KeyFlag>,
    requests: usize,
}

/// Plays a capture to a listener of ours: every packet must open to what libsrt was given to send.
fn replay(name: &str, mode: Option<CipherMode>) -> Replayed {
    let mut crypto = None;
    let (mut keys, mut requests) = (Vec::new(), 0);
    for mut recorded in capture::read(&format!("crypto-{name}")) {
        let (head, body) = recorded.bytes.split_at_mut(HEADER_BYTES);
        match (Header::parse(head).unwrap(), &mut crypto) {
            (Header::Control(header), None) if header.kind == ControlKind::Handshake => {
                let mut extensions = Handshake::parse(body).unwrap().1;
                let request = extensions.find_map(|extension| match extension {
                    Ok(Extension::KeyRequest(request)) => Some(request),
                    _ => None,
                });
                let refresh = Refresh { every: 0, announce: 0 };
                crypto = Some(respond(&passphrase(), mode, refresh, request.unwrap()).unwrap());
            }
            (Header::Control(header), Some(crypto)) if header.kind == ControlKind::KeyRequest => {
                requests += 1;
                assert_eq!(crypto.handle_request(body).as_deref(), Some(&*body));
            }
            (Header::Control(header), _) => assert_eq!(header.kind, ControlKind::KeyResponse),
            (Header::Data(header), Some(crypto)) => {
                let length = crypto.open(header.key, &header.bytes(), body).unwrap();
                assert_eq!(length, body.len() - crypto.overhead());
                assert!(body[..8].starts_with(&[0; 6]), "a counter");
                assert!(body[16..length].iter().all(|byte| *byte == 0x47), "{name} {}", header.sequence.value());
                keys.push(header.key);
            }
            (Header::Data(_), None) => unreachable!("a capture starts with its CONCLUSION"),
        }
    }
    Replayed { crypto: crypto.unwrap(), keys, requests }
}

#[test]
fn packets_of_libsrt_open_in_every_mode_and_length() {
    let cases = [
        ("aes128ctr-151", CipherMode::Ctr, KeyLength::Aes128),
        ("aes128ctr-155", CipherMode::Ctr, KeyLength::Aes128),
        ("aes192ctr-155", CipherMode::Ctr, KeyLength::Aes192),
        ("aes256ctr-155", CipherMode::Ctr, KeyLength::Aes256),
        ("aes128gcm-155", CipherMode::Gcm, KeyLength::Aes128),
        ("aes256gcm-155", CipherMode::Gcm, KeyLength::Aes256),
    ];
    for (name, mode, length) in cases {
        for asked in [None, Some(mode)] {
            let replayed = replay(name, asked);
            assert_eq!((replayed.crypto.mode(), replayed.crypto.length()), (mode, length), "{name}");
            assert_eq!(replayed.keys, [KeyFlag::Even], "{name}");
        }
    }
}

#[test]
fn packets_of_libsrt_open_on_both_sides_of_each_change_of_keys() {
    use KeyFlag::{Even, Odd};
    let one = replay("kmrefresh200-155", None);
    assert_eq!((one.keys, one.requests), (vec![Even, Odd], 1));
    for name in ["kmrefresh200-aes128ctr-151", "kmrefresh200-aes256ctr-151"] {
        let four = replay(name, None);
        assert_eq!(four.keys, [Even, Odd, Odd, Even, Even, Odd, Odd, Even], "{name}");
        assert_eq!(four.requests, 4, "{name}");
        assert_eq!(four.crypto.counts().keys_received, 4);
        assert_eq!((four.crypto.counts().undecryptable, four.crypto.counts().refused), (0, 0));
    }
}

#[test]
fn a_wrong_passphrase_or_mode_is_refused_with_its_reason() {
    let (_, request) = initiate(&passphrase(), KeyLength::Aes192, CipherMode::Ctr, SMALL, &mut entropy(1)).unwrap();
    let answer = |passphrase: &str, mode, request: &[u8]| {
        respond(&passphrase.parse().unwrap(), mode, SMALL, request).map(|crypto| crypto.mode())
    };
    assert_eq!(answer("somethingelse", CipherMode::Ctr, &request), Err(Rejection::BAD_SECRET));
    assert_eq!(answer("thelocalmanager", CipherMode::Gcm, &request), Err(Rejection::CRYPTO));
    assert_eq!(answer("thelocalmanager", CipherMode::Ctr, &request[..20]), Err(Rejection::ROGUE));
    assert_eq!(answer("thelocalmanager", CipherMode::Ctr, &request), Ok(CipherMode::Ctr));
}

/// The words as libsrt 1.5.1 sends them with `enforcedencryption=0`.
#[test]
fn a_caller_learns_from_the_answer_why_there_are_no_keys() {
    let settle = |answer: Option<&[u8]>| {
        let made = initiate(&passphrase(), KeyLength::Aes128, CipherMode::Ctr, SMALL, &mut entropy(1));
        let mut crypto = made.unwrap().0;
        let settled = crypto.settle(answer);
        assert_ne!(crypto.send_state(), KmState::Secured);
        settled
    };
    assert_eq!(settle(None), Err(Rejection::UNSECURE));
    assert_eq!(settle(Some(&[3, 0, 0, 0])), Err(Rejection::UNSECURE));
    assert_eq!(settle(Some(&[4, 0, 0, 0])), Err(Rejection::BAD_SECRET));
    assert_eq!(settle(Some(&[0, 0, 0, 4])), Err(Rejection::BAD_SECRET));
    assert_eq!(settle(Some(&[5, 0, 0, 0])), Err(Rejection::CRYPTO));
    assert_eq!(settle(Some(&[2, 0, 0, 0])), Err(Rejection::UNSECURE));
    assert_eq!(settle(Some(&[0; 72])), Err(Rejection::BAD_SECRET));
    assert_eq!(settle(Some(&[])), Err(Rejection::UNSECURE));
}

#[test]
fn both_ends_read_each_other_in_every_mode_and_length_through_many_keys() {
    for length in [KeyLength::Aes128, KeyLength::Aes192, KeyLength::Aes256] {
        for mode in [CipherMode::Ctr, CipherMode::Gcm] {
            let (mut caller, mut listener) = pair(length, mode, SMALL);
            for number in 0..200 {
                let sealed = seal(&mut caller, at(number), number as u32);
                assert!(opens(&mut listener, &sealed), "{number}");
                if let Some(request) = caller.poll_announcement(at(number), ROUND_TRIP) {
                    caller.handle_response(&listener.handle_request(&request).unwrap());
                }
                let back = seal(&mut listener, at(number), number as u32);
                assert!(opens(&mut caller, &back), "{number}");
                if let Some(request) = listener.poll_announcement(at(number), ROUND_TRIP) {
                    listener.handle_response(&caller.handle_request(&request).unwrap());
                }
            }
            assert_eq!((caller.counts().keys_changed, listener.counts().keys_changed), (10, 10));
            assert_eq!(caller.counts(), listener.counts());
        }
    }
}

#[test]
fn keys_change_where_libsrt_changes_them() {
    let (mut caller, mut listener) = pair(KeyLength::Aes128, CipherMode::Ctr, Refresh { every: 200, announce: 50 });
    let mut announced = Vec::new();
    let mut changed = Vec::new();
    for number in 0..700 {
        let before = caller.in_use();
        seal(&mut caller, at(0), number);
        if let Some(request) = caller.poll_announcement(at(0), ROUND_TRIP) {
            assert_eq!(KeyMaterial::parse(&request).unwrap().keys(), KeyFlag::Both);
            announced.push(number + 1);
            caller.handle_response(&listener.handle_request(&request).unwrap());
        }
        if caller.in_use() != before {
            changed.push(number + 1);
        }
    }
    assert_eq!(announced, [150, 350, 550]);
    assert_eq!(changed, [200, 400, 600]);
}

#[test]
fn keys_change_by_new_numbers_and_never_before_the_peer_has_been_told() {
    let announced_and_changed = |after: u32, refresh: Refresh, is_answered: bool| {
        let (mut caller, mut listener) = pair(KeyLength::Aes128, CipherMode::Ctr, Refresh { every: 200, announce: 50 });
        let (mut announced, mut changed) = (0, 0);
        for number in 1..=1_000 {
            let before = caller.in_use();
            let sealed = seal(&mut caller, at(0), number);
            assert!(!is_answered || opens(&mut listener, &sealed), "{number}");
            if let Some(request) = caller.poll_announcement(at(0), ROUND_TRIP).filter(|_| announced == 0) {
                announced = number;
                let answer = listener.handle_request(&request).unwrap();
                if is_answered {
                    caller.handle_response(&answer);
                }
            }
            if caller.in_use() != before {
                changed = number;
                break;
            }
            if number == after {
                caller.set_refresh(refresh);
            }
        }
        (announced, changed)
    };
    let sooner = Refresh { every: 20, announce: 5 };
    let later = Refresh { every: 500, announce: 100 };
    assert_eq!(announced_and_changed(7, sooner, true), (15, 20));
    assert_eq!(announced_and_changed(120, sooner, true), (121, 126), "as soon as may be");
    assert_eq!(announced_and_changed(120, sooner, false), (121, 146), "and without an answer a whole key later");
    assert_eq!(announced_and_changed(120, later, true), (400, 500));
    assert_eq!(announced_and_changed(170, later, true), (150, 400), "an announced one waits for the new numbers");
}

#[test]
fn an_announcement_is_sent_until_it_is_answered_and_the_key_waits_for_that() {
    let (mut caller, mut listener) = pair(KeyLength::Aes256, CipherMode::Gcm, SMALL);
    let mut number = 0;
    let mut send = |caller: &mut Crypto, packets| {
        for _ in 0..packets {
            seal(caller, at(1), number);
            number += 1;
        }
    };
    send(&mut caller, 14);
    assert_eq!(caller.poll_timeout(), None);
    send(&mut caller, 1);
    assert_eq!(caller.poll_timeout(), Some(at(1)));
    let first = caller.poll_announcement(at(1), ROUND_TRIP).unwrap();
    assert_eq!(caller.poll_timeout(), Some(at(151)));
    assert_eq!(caller.poll_announcement(at(150), ROUND_TRIP), None);
    assert_eq!(caller.poll_announcement(at(151), ROUND_TRIP), Some(first.clone()));
    send(&mut caller, 15);
    assert_eq!(caller.in_use(), KeyFlag::Even, "ten packets later than planned");
    let answer = listener.handle_request(&first).unwrap();
    caller.handle_response(&answer);
    assert_eq!(caller.poll_timeout(), None);
    send(&mut caller, 1);
    assert_eq!(caller.in_use(), KeyFlag::Odd);
    let sealed = seal(&mut caller, at(1), 99);
    assert!(opens(&mut listener, &sealed));
}

#[test]
fn a_peer_that_never_answers_does_not_keep_the_old_key_for_ever() {
    let (mut caller, mut listener) = pair(KeyLength::Aes128, CipherMode::Ctr, SMALL);
    let mut requests = Vec::new();
    for number in 0..40 {
        assert_eq!(caller.in_use(), KeyFlag::Even);
        seal(&mut caller, at(0), number);
        requests.extend(caller.poll_announcement(at(0), ROUND_TRIP));
    }
    assert_eq!((caller.in_use(), requests.len()), (KeyFlag::Odd, 1));
    // What it can do is ask on, quickly at first, then once a second.
    let mut times = Vec::new();
    for ms in 0..5_000 {
        times.extend(caller.poll_announcement(at(ms), ROUND_TRIP).map(|_| ms));
    }
    assert_eq!(times, [150, 300, 450, 600, 750, 900, 1_050, 1_200, 1_350, 1_500, 2_500, 3_500, 4_500]);
    let sealed = seal(&mut caller, at(5_000), 41);
    assert!(!opens(&mut listener, &sealed));
    assert!(listener.handle_request(&requests[0]).is_some());
    assert!(opens(&mut listener, &sealed));
    assert_eq!(listener.counts().undecryptable, 1);
}

#[test]
fn a_held_back_request_is_answered_but_brings_no_old_key_back() {
    let (mut caller, mut listener) = pair(KeyLength::Aes128, CipherMode::Gcm, SMALL);
    let mut requests = Vec::new();
    for number in 0..60 {
        seal(&mut caller, at(0), number);
        if let Some(request) = caller.poll_announcement(at(0), ROUND_TRIP) {
            caller.handle_response(&listener.handle_request(&request).unwrap());
            requests.push(request);
        }
    }
    assert_eq!(requests.len(), 3);
    for old in &requests {
        assert_eq!(listener.handle_request(old).as_ref(), Some(old));
    }
    assert_eq!(listener.counts().keys_received, 3);
    let sealed = seal(&mut caller, at(0), 60);
    assert!(opens(&mut listener, &sealed));
}

#[test]
fn late_packets_under_the_previous_key_still_open() {
    let (mut caller, mut listener) = pair(KeyLength::Aes128, CipherMode::Gcm, SMALL);
    let mut held = Vec::new();
    for number in 0..35 {
        held.push(seal(&mut caller, at(0), number));
        if let Some(request) = caller.poll_announcement(at(0), ROUND_TRIP) {
            caller.handle_response(&listener.handle_request(&request).unwrap());
        }
    }
    // The third key has just come, in the place of the first.
    assert!(held[20..].iter().all(|sealed| opens(&mut listener, sealed)));
    assert!(!held[..20].iter().any(|sealed| opens(&mut listener, sealed)));
    assert_eq!(listener.counts().undecryptable, 20);
}

#[test]
fn strangers_requests_change_nothing_and_are_not_answered() {
    let (mut caller, mut listener) = pair(KeyLength::Aes128, CipherMode::Gcm, SMALL);
    let request = |passphrase: &str, mode, seed| {
        let passphrase = passphrase.parse().unwrap();
        initiate(&passphrase, KeyLength::Aes128, mode, SMALL, &mut entropy(seed)).unwrap().1
    };
    assert_eq!(listener.handle_request(&request("thelocalmanager", CipherMode::Ctr, 1)), None);
    assert_eq!(listener.handle_request(&[0; 4]), None);
    assert_eq!(listener.handle_request(&[]), None);
    let mut derivations = 0;
    for seed in 0..20 {
        if let Answer::Derive(derivation) = listener.take_request(&request("somethingelse", CipherMode::Gcm, seed)) {
            derivations += 1;
            assert!(matches!(listener.handle_derived(&derivation.run()), Answer::Nothing));
        }
    }
    assert_eq!(derivations, FAILURES_MAX);
    assert_eq!(listener.receive_state(), KmState::Secured);
    let mut changed = false;
    for number in 0..40 {
        let sealed = seal(&mut caller, at(0), number);
        assert!(opens(&mut listener, &sealed));
        if let Some(request) = caller.poll_announcement(at(0), ROUND_TRIP) {
            caller.handle_response(&listener.handle_request(&request).unwrap());
            changed = true;
        }
    }
    assert!(changed, "our peer's own are taken all the same");
}

#[test]
fn a_derivation_can_be_done_elsewhere_and_only_once_for_a_salt() {
    fn elsewhere(derivation: Derivation) -> Kek {
        std::thread::spawn(move || derivation.run()).join().unwrap()
    }
    let mut random = entropy(3);
    let kek = elsewhere(Derivation::draw(&passphrase(), KeyLength::Aes256, &mut random));
    let (_, request) = Crypto::initiate(&passphrase(), kek, CipherMode::Gcm, SMALL, &mut random).unwrap();
    let kek = elsewhere(Derivation::answer(&passphrase(), None, &request).unwrap());
    let mut listener = Crypto::respond(&passphrase(), kek, None, SMALL, &request).unwrap();

    // Another salt: the peer has started anew.
    let (_, again) = initiate(&passphrase(), KeyLength::Aes128, CipherMode::Gcm, SMALL, &mut random).unwrap();
    let Answer::Derive(derivation) = listener.take_request(&again) else { panic!("a new salt") };
    assert!(matches!(listener.take_request(&again), Answer::Nothing), "already at it");
    let answer = listener.handle_derived(&elsewhere(derivation));
    assert!(matches!(answer, Answer::Respond(message) if message.as_slice() == again));
    assert!(matches!(
        listener.handle_derived(&Kek::new([0; 16], StreamKey::new(&[0; 16], KeyLength::Aes128).unwrap())),
        Answer::Nothing
    ));

    // New keys under either salt are taken at once.
    for (salt, length) in [(request, KeyLength::Aes256), (again, KeyLength::Aes128)] {
        let kek = Derivation::answer(&passphrase(), None, &salt).unwrap().run();
        let keys = StreamKeys { even: None, odd: StreamKey::new(&[8; 32], length) };
        let fresh = KeyMaterial::wrap(&keys, CipherMode::Gcm, &kek).unwrap();
        assert!(matches!(listener.take_request(fresh.message()), Answer::Respond(_)));
    }
}

#[test]
fn the_old_form_of_gcm_is_found_out_and_spoken_to_old_peers() {
    let (mut caller, mut listener) = pair(KeyLength::Aes128, CipherMode::Gcm, SMALL);
    caller.set_peer_version(0x01_05_03);
    let sealed = seal(&mut caller, at(0), 7);
    assert!(opens(&mut listener, &sealed), "found out");
    let mut forged = Sealed { header: sealed.header, payload: sealed.payload.clone() };
    forged.payload[0] ^= 1;
    assert!(!opens(&mut listener, &forged));
    caller.set_peer_version(0x01_05_04);
    let sealed = seal(&mut caller, at(0), 8);
    assert!(!opens(&mut listener, &sealed), "a peer does not change it");
}

#[test]
fn a_refusal_is_shown_and_an_answer_takes_it_back() {
    let (mut caller, mut listener) = pair(KeyLength::Aes128, CipherMode::Ctr, SMALL);
    for number in 0..16 {
        seal(&mut caller, at(0), number);
    }
    let request = caller.poll_announcement(at(0), ROUND_TRIP).unwrap();
    caller.handle_response(&KmState::BadSecret.message());
    assert_eq!((caller.send_state(), caller.receive_state()), (KmState::BadSecret, KmState::Secured));
    assert_eq!(caller.poll_announcement(at(150), ROUND_TRIP).as_ref(), Some(&request));
    caller.handle_response(&[0; 72]);
    assert_eq!(caller.send_state(), KmState::BadSecret);
    caller.handle_response(&listener.handle_request(&request).unwrap());
    assert_eq!(caller.send_state(), KmState::Secured);
    assert_eq!(caller.counts().refused, 2);
}

#[test]
fn bounds_of_the_refresh_hold_for_any_configuration() {
    for every in [0, 1, 2, 3, 4, 100, 1 << 40] {
        for announce in [0, 1, 50, 1 << 40] {
            let (mut caller, mut listener) = pair(KeyLength::Aes128, CipherMode::Ctr, Refresh { every, announce });
            for number in 0..300 {
                let sealed = seal(&mut caller, at(0), number);
                assert!(opens(&mut listener, &sealed), "{every} {announce} {number}");
                if let Some(request) = caller.poll_announcement(at(0), ROUND_TRIP) {
                    caller.handle_response(&listener.handle_request(&request).unwrap());
                }
            }
            let changes = if (1..=100).contains(&every) { 300 / every.max(2) } else { 0 };
            assert!(caller.counts().keys_changed >= changes.saturating_sub(1), "{every} {announce}");
        }
    }
}

#[test]
fn keys_and_passphrases_are_not_shown() {
    let (crypto, _) = pair(KeyLength::Aes128, CipherMode::Gcm, SMALL);
    let shown = format!("{crypto:?}");
    assert!(!shown.contains("thelocal") && shown.contains("Passphrase(..)") && shown.contains("StreamKey(Aes128, ..)"));
}
