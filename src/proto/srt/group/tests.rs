//! Whom a listener takes into a group, and what the members of one say to their peers.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::*;
use crate::bus::{Meta, Pool, PoolLimits};
use crate::proto::srt::handshake::{Capabilities, Extension, Group as Asked, Handshake, SRT_VERSION, Stage, extension};
use crate::proto::srt::packet::{AckBody, ControlHeader, DataHeader, LossRanges};
use crate::proto::srt::{Listener, Service};
use crate::proto::{Core, Datagram, Event, Port};

const GROUP: Asked = Asked { id: (1 << 30) | 7, kind: handshake::GROUP_BROADCAST, flags: 0, weight: 3 };
const INITIAL: u32 = 1_000;

/// Callers of whom each knows only what it sends.
struct Callers {
    listener: Listener,
    pool: Pool,
    now: Time,
    released: Vec<u32>,
}

/// What a listener said to one of them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    acknowledged: Option<u32>,
    missing: Vec<u32>,
}

impl Callers {
    fn new(service: Service) -> Self {
        let pool = Pool::new(PoolLimits::default());
        let listener = Listener::new(Config::default(), service, pool.clone(), [1; 32]);
        Self { listener, pool, now: Time::from_ns(1_000_000_000), released: Vec::new() }
    }

    fn deliver(&mut self, caller: u8, header: [u8; 16], body: &[u8]) {
        let meta = Meta { arrival: self.now, ..Meta::default() };
        let packet = self.pool.copy(&[&header[..], body].concat(), meta).unwrap();
        let datagram = Datagram { port: Port::Media, peer: SocketAddr::from(([192, 0, 2, caller], 1)), packet };
        self.listener.handle_datagram(self.now, datagram);
    }

    fn handshake(
        &mut self,
        caller: u8,
        handshake: &Handshake,
        extensions: &[Extension<'_>],
    ) -> (Handshake, Option<Asked>) {
        let mut body = Vec::new();
        handshake.write(&mut body);
        extensions.iter().for_each(|extension| extension.write(&mut body));
        let kind = ControlKind::Handshake;
        let header = ControlHeader { kind, information: 0, timestamp: 0, destination: 0 };
        self.deliver(caller, header.bytes(), &body);
        let answer = std::iter::from_fn(|| self.listener.poll_transmit()).last().unwrap().payload.unwrap();
        let (answer, extensions) = Handshake::parse(&answer).unwrap();
        let group = |extension| if let Extension::Group(group) = extension { Some(group) } else { None };
        (answer, extensions.filter_map(Result::ok).find_map(group))
    }

    /// Gives the socket that it may send to and the group that it is in, or the code it is refused with.
    fn call(&mut self, caller: u8, group: Option<Asked>) -> Result<(u32, Option<Asked>), u32> {
        let mut handshake = Handshake {
            version: 4,
            encryption: 0,
            extension: extension::DATAGRAM,
            initial: Seq::new(INITIAL),
            mtu: 1_500,
            flow_window: 8_192,
            stage: Stage::Induction,
            socket_id: u32::from(caller),
            cookie: 0,
            peer_ip: IpAddr::from([127, 0, 0, 1]),
        };
        let (answer, _) = self.handshake(caller, &handshake, &[]);
        handshake.version = 5;
        handshake.extension = extension::HANDSHAKE | extension::CONFIG;
        (handshake.stage, handshake.cookie) = (Stage::Conclusion, answer.cookie);
        let latency = Duration::from_millis(100);
        let request =
            Capabilities { version: SRT_VERSION, flags: 0xbf, receive_latency: latency, send_latency: latency };
        let wishes: Vec<Extension<'_>> =
            [Extension::Request(request)].into_iter().chain(group.map(Extension::Group)).collect();
        let (answer, group) = self.handshake(caller, &handshake, &wishes);
        if let Stage::Rejected(rejection) = answer.stage {
            return Err(rejection.code());
        }
        Ok((answer.socket_id, group))
    }

    fn data(&mut self, caller: u8, socket: u32, sequence: u32) {
        let header = DataHeader::whole(Seq::new(sequence), sequence - INITIAL + 1, 0, socket);
        self.deliver(caller, header.bytes(), &[7; 100]);
    }

    /// Lets `ms` pass; what is said to `caller` by then.
    fn listen(&mut self, ms: u64, caller: u8) -> Said {
        let end = self.now + Duration::from_millis(ms);
        let mut said = Said::default();
        loop {
            let packets = std::iter::from_fn(|| self.listener.poll_packet());
            self.released.extend(packets.map(|packet| packet.meta.sequence.unwrap() as u32 & 0x7fff_ffff));
            while let Some(transmit) = self.listener.poll_transmit() {
                let Ok(Header::Control(header)) = Header::parse(&transmit.header) else { continue };
                let body = transmit.payload.unwrap();
                if transmit.to.unwrap().ip() != IpAddr::from([192, 0, 2, caller]) {
                    continue;
                }
                if header.kind == ControlKind::Ack {
                    said.acknowledged = Some(AckBody::parse(&body).unwrap().next.value());
                }
                if header.kind == ControlKind::Nak {
                    let ranges = LossRanges::parse(&body).map(Result::unwrap);
                    said.missing.extend(ranges.flat_map(|range| range.start().value()..=range.end().value()));
                }
            }
            let Some(at) = self.listener.poll_timeout().filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            self.listener.handle_timeout(self.now);
        }
        self.now = end;
        said
    }
}

#[test]
fn members_are_told_one_group_and_their_own_weight() {
    let mut callers = Callers::new(Service::Receive);
    let (_, first) = callers.call(1, Some(GROUP)).unwrap();
    let (_, second) = callers.call(2, Some(Asked { weight: 5, ..GROUP })).unwrap();
    let (first, second) = (first.unwrap(), second.unwrap());
    assert!(first.id & handshake::GROUP_ID != 0 && first.id != GROUP.id, "{first:?}");
    assert_eq!(first, Asked { id: first.id, ..GROUP });
    assert_eq!(second, Asked { weight: 5, ..first });
    assert_eq!(callers.listener.stats().peers, Some(2));
}

#[test]
fn who_does_not_fit_into_a_group_is_refused() {
    for service in [Service::Receive, Service::Send { callers_max: 100 }] {
        let mut callers = Callers::new(service);
        assert_eq!(callers.call(1, Some(Asked { id: 7, ..GROUP })), Err(1_004), "the id of a socket");
        assert_eq!(callers.call(1, Some(Asked { kind: 3, ..GROUP })), Err(1_015), "balancing");
        assert_eq!(callers.call(1, Some(Asked { kind: 0, ..GROUP })), Err(1_015), "no kind");
        assert_eq!(callers.call(1, Some(Asked { flags: 1, ..GROUP })), Err(1_015), "by message numbers");
        for caller in 1..=8 {
            assert!(callers.call(caller, Some(GROUP)).is_ok(), "{caller}");
        }
        assert_eq!(callers.call(9, Some(GROUP)), Err(1_003), "nine members");
        assert_eq!(callers.call(9, Some(Asked { kind: 2, ..GROUP })), Err(1_015), "another kind of the same id");
        let other = callers.call(9, Some(Asked { id: GROUP.id + 1, ..GROUP })).map(|_| ());
        let alone = callers.call(10, None).map(|_| ());
        let expected = if service == Service::Receive { Err(1_409) } else { Ok(()) };
        assert_eq!((other, alone), (expected, expected), "{service:?}");
    }
}

#[test]
fn a_full_group_lets_go_of_who_is_silent() {
    let mut callers = Callers::new(Service::Receive);
    let sockets: Vec<u32> = (1..=8).map(|caller| callers.call(caller, Some(GROUP)).unwrap().0).collect();
    callers.listen(2_000, 1);
    (2..=8).for_each(|caller| callers.data(caller, sockets[usize::from(caller) - 1], INITIAL));
    assert!(callers.call(9, Some(GROUP)).is_ok());
    let events: Vec<Event> = std::iter::from_fn(|| callers.listener.poll_event()).collect();
    let lost =
        |event: &&Event| matches!(event, Event::PeerLost { peer, .. } if peer.ip() == IpAddr::from([192, 0, 2, 1]));
    assert_eq!(events.iter().filter(lost).count(), 1, "{events:?}");
    assert_eq!(callers.listener.stats().peers, Some(8));
}

#[test]
fn a_member_acknowledges_what_came_over_it_and_asks_for_what_nobody_brought() {
    let mut callers = Callers::new(Service::Receive);
    let first = callers.call(1, Some(GROUP)).unwrap().0;
    let second = callers.call(2, Some(GROUP)).unwrap().0;
    for sequence in [0, 1, 2, 4, 5] {
        callers.data(1, first, INITIAL + sequence);
    }
    let said = callers.listen(15, 1);
    assert_eq!(said, Said { acknowledged: Some(INITIAL + 3), missing: vec![INITIAL + 3] });
    // Nothing has been sent to the second member: it must not say that it has anything.
    assert_eq!(callers.listen(30, 2).acknowledged, None);
    // 1 is missing there and here by the first, 3 came in order and is here now.
    for sequence in [0, 2, 3] {
        callers.data(2, second, INITIAL + sequence);
    }
    let said = callers.listen(15, 2);
    assert_eq!(said, Said { acknowledged: Some(INITIAL + 4), missing: vec![] });
    assert_eq!(callers.listen(300, 1).missing, Vec::<u32>::new());
    assert_eq!(callers.released, (INITIAL..INITIAL + 6).collect::<Vec<_>>());
    let stats = callers.listener.stats();
    assert_eq!((stats.received, stats.recovered, stats.duplicate, stats.lost), (6, 1, 2, 0), "{stats:?}");
}

#[test]
fn what_a_member_brought_before_it_died_is_released() {
    let mut callers = Callers::new(Service::Receive);
    let first = callers.call(1, Some(GROUP)).unwrap().0;
    callers.call(2, Some(GROUP)).unwrap();
    (0..5).for_each(|n| callers.data(1, first, INITIAL + n));
    let header = ControlHeader { kind: ControlKind::Shutdown, information: 0, timestamp: 0, destination: first };
    callers.deliver(1, header.bytes(), &[0; 4]);
    assert_eq!(callers.listener.stats().peers, Some(1));
    callers.listen(300, 1);
    assert_eq!(callers.released, (INITIAL..INITIAL + 5).collect::<Vec<_>>());
}
