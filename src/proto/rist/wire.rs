//! Puts RTP and RTCP on the wire as the profile wants it, and takes it off again: nothing to do in the Simple profile,
//! a tunnel in the Main profile.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::config::{Config, Profile};
use super::crypto::{KeyLength, OPENING, Opening, Sealing, Standing};
use super::error::Refusal;
use super::gre::{self, Content, Header, KeepAlive, Ports, Version};
use super::npd;
use super::srp::{self, Accounts, Gate, Role, Settings};
use crate::bus::{Buffer, Meta, Packet, Pool};
use crate::proto::rtp::RtpPacket;
use crate::proto::rtp::random::Random;
use crate::proto::rtp::rtcp::{Compound, CompoundWriter, is_rtcp};
use crate::proto::{Datagram, Done, PeerEnd, Port, Transmit, WireHeader, Work, rtp, wire_header};
use crate::units::Time;

/// How a peer is reached and spoken to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remote {
    /// `None` for whom the socket is connected to.
    pub(super) media: Option<SocketAddr>,
    pub(super) control: Option<SocketAddr>,
    /// The edition that we speak to him: the highest that he has shown.
    pub(super) version: Version,
    pub(super) media_ports: Ports,
    pub(super) control_ports: Ports,
}

impl Remote {
    /// A peer of whom nothing is known but where he is.
    pub(super) const fn new(address: Option<SocketAddr>, media_ports: Ports, control_ports: Ports) -> Self {
        Self { media: address, control: address, version: Version::V1, media_ports, control_ports }
    }

    /// He has shown that he understands `version`.
    pub(super) fn hear(&mut self, version: Version) {
        self.version = self.version.max(version);
    }
}

/// The way to and from the wire.
#[derive(Debug)]
pub(super) struct Wire {
    pool: Pool,
    random: Random,
    tunnel: Option<Tunnel>,
    deletes_nulls: bool,
    /// Memory for the next compound packet.
    scratch: Vec<u8>,
}

#[derive(Debug)]
struct Tunnel {
    sealing: Option<Sealing>,
    opening: Option<Opening>,
    sequence: u32,
    mac: [u8; 6],
    /// What came before the key that it needs, which is being derived.
    held: VecDeque<Datagram>,
    /// Who may come in, or have us let in.
    gate: Option<Box<Gate>>,
}

/// What a datagram was.
#[derive(Debug)]
pub(super) enum Arrival {
    /// RTP.
    Media(Packet),
    /// RTCP, with the virtual port that it came from.
    Control(Packet, Option<u16>),
    /// Somebody is there; or, if he says so, leaves.
    KeepAlive { leaves: bool },
    /// Nothing that concerns us.
    Nothing,
}

impl Wire {
    /// For talking with at most `peers`.
    pub(super) fn new(config: &Config, pool: Pool, seed: u64, peers: usize) -> Self {
        let mut random = Random::new(seed);
        let tunnel = (config.profile == Profile::Main).then(|| {
            let mut mac = [0; 6];
            mac.copy_from_slice(&random.next().to_be_bytes()[..6]);
            // Locally administered, one station (IEEE 802 8.4).
            mac[0] = mac[0] & 0xfc | 0x02;
            let seal = |secret| Sealing::new(secret, config.key_length, config.key_rotation, &mut random);
            Tunnel {
                sealing: config.secret.as_ref().map(seal),
                opening: config.secret.as_ref().map(|secret| Opening::new(secret, peers)),
                sequence: 0,
                mac,
                held: VecDeque::new(),
                gate: None,
            }
        });
        Self { pool, random, tunnel, deletes_nulls: config.null_packet_deletion, scratch: Vec::new() }
    }

    /// Nothing but authentication, reports and keep-alives goes to anybody, and nothing else is taken from anybody, until
    /// EAP-SRP has succeeded. `seed` is secret, and never the same twice.
    pub(super) fn authenticate(&mut self, config: &Config, role: Role, accounts: Accounts, seed: [u8; 32]) {
        if let Some(tunnel) = &mut self.tunnel {
            let settings = Settings::new(config.secret.clone(), config.key_length, config.key_rotation);
            tunnel.gate = Some(Box::new(Gate::new(role, accounts, settings, seed)));
        }
    }

    /// Authenticates with a server: `None` for whom the socket is connected to.
    pub(super) fn call(&mut self, address: Option<SocketAddr>) {
        if let Some(gate) = self.gate() {
            gate.call(address);
        }
    }

    fn gate(&mut self) -> Option<&mut Gate> {
        self.tunnel.as_mut()?.gate.as_deref_mut()
    }

    /// Whether media may go to a peer.
    pub(super) fn lets_out(&self, remote: &Remote) -> bool {
        let gate = self.tunnel.as_ref().and_then(|tunnel| tunnel.gate.as_ref());
        gate.is_none_or(|gate| gate.lets_out(remote.media))
    }

    /// Whether what goes to a peer is encrypted for him alone.
    pub(super) fn seals_alone(&self, remote: &Remote) -> bool {
        let gate = self.tunnel.as_ref().and_then(|tunnel| tunnel.gate.as_ref());
        gate.is_some_and(|gate| gate.seals(remote.media))
    }

    /// The next datagram of authentication, which is never encrypted.
    pub(super) fn poll_login(&mut self) -> Option<Transmit> {
        let gate = self.gate()?;
        let (to, bytes) = gate.poll_transmit()?;
        let now = gate.now();
        let header =
            Header { version: Version::V1, has_long_key: false, nonce: None, sequence: None, protocol: gre::EAPOL };
        let payload = self.pool.copy(&bytes, Meta { arrival: now, ..Meta::default() })?;
        Some(Transmit { port: Port::Control, to, header: wire_header(&header.bytes()), payload: Some(payload) })
    }

    /// Who was not let in, or did not let us in.
    pub(super) fn poll_refusal(&mut self) -> Option<(SocketAddr, PeerEnd)> {
        self.gate()?.poll_refusal()
    }

    /// How often somebody was not let in, and what of authentication there was no room for.
    pub(super) fn refused(&self) -> [u64; 2] {
        let gate = self.tunnel.as_ref().and_then(|tunnel| tunnel.gate.as_ref());
        gate.map_or([0; 2], |gate| [gate.failures(), gate.overflow()])
    }

    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.tunnel.as_ref()?.gate.as_ref()?.poll_timeout()
    }

    pub(super) fn handle_timeout(&mut self, now: Time) {
        if let Some(gate) = self.gate() {
            gate.handle_timeout(now);
        }
    }

    pub(super) const fn has_tunnel(&self) -> bool {
        self.tunnel.is_some()
    }

    /// An RTP packet for `remote`; `None` if there is no buffer for it.
    pub(super) fn media(
        &mut self,
        remote: &Remote,
        header: [u8; rtp::HEADER_BYTES],
        payload: Packet,
    ) -> Option<Transmit> {
        if self.tunnel.is_none() {
            let header = wire_header(&header);
            return Some(Transmit { port: Port::Media, to: remote.media, header, payload: Some(payload) });
        }
        if !self.deletes_nulls
            && let Some(transmit) = self.media_in_the_clear(remote, &header, &payload)
        {
            return Some(transmit);
        }
        let payload = self.wrap_media(remote, header, &payload)?;
        Some(Transmit { port: Port::Media, to: remote.media, header: WireHeader::new(), payload: Some(payload) })
    }

    /// Without copying the payload, as nothing has to be done to it.
    fn media_in_the_clear(
        &mut self,
        remote: &Remote,
        rtp: &[u8; rtp::HEADER_BYTES],
        payload: &Packet,
    ) -> Option<Transmit> {
        let is_clear = self.tunnel.as_ref().is_some_and(|tunnel| tunnel.sealing.is_none());
        if !is_clear || self.seals_alone(remote) {
            return None;
        }
        let tunnel = self.tunnel.as_mut()?;
        let (protocol, prefix) = gre::reduced_prefix(remote.version, remote.media_ports);
        let sequence = Some(tunnel.sequence);
        tunnel.sequence = tunnel.sequence.wrapping_add(1);
        let version = remote.version;
        let header = Header { version, has_long_key: false, nonce: None, sequence, protocol }.bytes();
        let header = header.into_iter().chain(prefix).chain(*rtp).collect();
        Some(Transmit { port: Port::Media, to: remote.media, header, payload: Some(payload.clone()) })
    }

    /// An RTP packet as it goes through the tunnel.
    pub(super) fn wrap_media(
        &mut self,
        remote: &Remote,
        mut header: [u8; rtp::HEADER_BYTES],
        payload: &Packet,
    ) -> Option<Packet> {
        let nulls = if self.deletes_nulls { npd::find_nulls(payload) } else { None };
        let (protocol, prefix) = gre::reduced_prefix(remote.version, remote.media_ports);
        let Some(nulls) = nulls else {
            let parts = [&prefix[..], &header, payload];
            return self.wrap(remote, remote.version, protocol, parts.into_iter(), payload.meta);
        };
        header[0] |= EXTENSION;
        let extension = nulls.bytes();
        let parts = [&prefix[..], &header, &extension].into_iter().chain(npd::kept(payload, nulls));
        self.wrap(remote, remote.version, protocol, parts, payload.meta)
    }

    /// A compound packet to be filled, and then given to [`Wire::control`].
    pub(super) fn writer(&mut self) -> CompoundWriter {
        CompoundWriter::reuse(std::mem::take(&mut self.scratch))
    }

    /// A compound RTCP packet for `remote`; `None` if there is no buffer for it.
    pub(super) fn control(&mut self, now: Time, remote: &Remote, compound: CompoundWriter) -> Option<Transmit> {
        let compound = compound.into_bytes();
        let transmit = self.control_of(now, remote, &compound);
        self.scratch = compound;
        transmit
    }

    fn control_of(&mut self, now: Time, remote: &Remote, compound: &[u8]) -> Option<Transmit> {
        let meta = Meta { arrival: now, ..Meta::default() };
        let header = WireHeader::new();
        if self.tunnel.is_none() {
            let payload = Some(self.pool.copy(compound, meta)?);
            return Some(Transmit { port: Port::Control, to: remote.control, header, payload });
        }
        let (protocol, prefix) = gre::reduced_prefix(remote.version, remote.control_ports);
        let payload = Some(self.wrap(remote, remote.version, protocol, [&prefix[..], compound].into_iter(), meta)?);
        // It leaves by the one socket that there is, but is no media.
        Some(Transmit { port: Port::Control, to: remote.media, header, payload })
    }

    /// A keep-alive of the edition `version`; none in the Simple profile.
    pub(super) fn keep_alive(
        &mut self,
        now: Time,
        remote: &Remote,
        version: Version,
        leaves: bool,
    ) -> Option<Transmit> {
        let mac = self.tunnel.as_ref()?.mac;
        let flags = KeepAlive::NULL_PACKETS | KeepAlive::VSF_TYPE | if leaves { KeepAlive::DISCONNECT } else { 0 };
        let (protocol, bytes) = gre::keep_alive_bytes(version, KeepAlive { mac, capabilities: flags });
        let meta = Meta { arrival: now, ..Meta::default() };
        let payload = Some(self.wrap(remote, version, protocol, std::iter::once(&bytes[..]), meta)?);
        Some(Transmit { port: Port::Control, to: remote.media, header: WireHeader::new(), payload })
    }

    fn wrap<'a>(
        &mut self,
        remote: &Remote,
        version: Version,
        protocol: u16,
        parts: impl Iterator<Item = &'a [u8]> + Clone,
        meta: Meta,
    ) -> Option<Packet> {
        let tunnel = self.tunnel.as_mut()?;
        let len = gre::HEADER_BYTES_MAX + parts.clone().map(<[u8]>::len).sum::<usize>();
        let mut buffer = self.pool.take(len)?;
        let sequence = tunnel.sequence;
        tunnel.sequence = sequence.wrapping_add(1);
        let own = tunnel.gate.as_mut().and_then(|gate| gate.sealing(remote.media));
        let key = own.or(tunnel.sealing.as_mut()).map(|sealing| sealing.key(&mut self.random));
        let header = Header {
            version,
            has_long_key: key.is_some_and(|key| key.length == KeyLength::Aes256),
            nonce: key.map(|key| key.nonce),
            sequence: Some(sequence),
            protocol,
        };
        let head = header.bytes();
        buffer[..head.len()].copy_from_slice(&head);
        let end = put(&mut buffer, head.len(), parts);
        if let Some(key) = key {
            key.apply(sequence, &mut buffer[head.len()..end]);
        }
        Some(Packet::new(buffer, 0..end, meta))
    }

    /// What came. `ssrc` is whose media is expected, if that is known already; `version` is set once there is a reason
    /// to believe the packet. What its key is not there for yet waits for [`Wire::handle_done`].
    pub(super) fn unwrap(
        &mut self,
        now: Time,
        datagram: Datagram,
        ssrc: Option<u32>,
        version: &mut Option<Version>,
    ) -> Result<Arrival, Refusal> {
        let Some(tunnel) = &mut self.tunnel else {
            let Datagram { port, packet, .. } = datagram;
            let is_control = port == Port::Control || is_rtcp(&packet);
            return Ok(if is_control { Arrival::Control(packet, None) } else { Arrival::Media(packet) });
        };
        let Datagram { peer, packet, .. } = &datagram;
        let (header, at) = Header::parse(packet).map_err(|_| Refusal::Malformed)?;
        if tunnel.is_login(now, *peer, packet, (&header, at))? {
            return Ok(Arrival::Nothing);
        }
        let is_settling = tunnel.gate.as_ref().is_some_and(|gate| gate.is_settling(*peer));
        let own = tunnel.gate.as_mut().and_then(|gate| gate.opening(*peer));
        // Else it may be from before he had the key that we agreed on, or we his.
        let is_settling = is_settling || own.is_some();
        let mut opening = own.or(tunnel.opening.as_mut());
        let mut packet;
        let standing = match (opening.as_deref_mut(), header.nonce) {
            (None, None) => {
                packet = datagram.packet.into_slice_from(at);
                None
            }
            (None, Some(_)) | (Some(_), None) if is_settling => return Err(Refusal::Stranger),
            (None, Some(_)) | (Some(_), None) => return Err(Refusal::Secret),
            (Some(opening), Some(nonce)) => {
                let sequence = header.sequence.ok_or(Refusal::Malformed)?;
                if header.version == Version::V0 {
                    return Err(Refusal::Malformed);
                }
                let length = if header.has_long_key { KeyLength::Aes256 } else { KeyLength::Aes128 };
                let Some((standing, key)) = opening.find(now, nonce, length) else {
                    if opening.awaits(nonce, length) && tunnel.held.len() < HELD_MAX {
                        tunnel.held.push_back(datagram);
                    }
                    return Err(Refusal::NoKey);
                };
                packet = datagram.packet.into_slice_from(at);
                if packet.bytes_mut().is_none() {
                    packet = self.pool.copy(&packet, packet.meta).ok_or(Refusal::NoBuffer)?;
                }
                key.apply(sequence, packet.bytes_mut().ok_or(Refusal::NoBuffer)?);
                Some(standing)
            }
        };
        let content = Content::parse(header.protocol, &packet);
        let is_proven = !matches!(standing, Some(Standing::Candidate));
        let arrival = match content {
            Ok(Content::Reduced { ports, at }) => {
                let inner = packet.into_slice_from(at);
                if !is_proven && !looks_right(&inner, ssrc) {
                    return Err(Refusal::Secret);
                }
                if let (Some(opening), Some(standing)) = (opening, standing) {
                    opening.prove(standing);
                }
                if is_rtcp(&inner) || is_odd_xr(&inner) {
                    Arrival::Control(inner, Some(ports.source))
                } else {
                    Arrival::Media(inner)
                }
            }
            // Nothing in these tells whether they were decrypted with the right key.
            Ok(_) | Err(_) if !is_proven => return Ok(Arrival::Nothing),
            Ok(Content::KeepAlive(keep_alive)) => {
                Arrival::KeepAlive { leaves: keep_alive.capabilities & KeepAlive::DISCONNECT != 0 }
            }
            Ok(Content::Buffer { .. } | Content::Eapol(_) | Content::Other) => Arrival::Nothing,
            Err(_) => return Err(Refusal::Malformed),
        };
        *version = Some(header.version);
        Ok(arrival)
    }

    pub(super) fn poll_work(&mut self) -> Option<Work> {
        let tunnel = self.tunnel.as_mut()?;
        let sealing = tunnel.sealing.as_mut().and_then(Sealing::poll_work);
        let work = sealing.or_else(|| tunnel.opening.as_mut().and_then(Opening::poll_work));
        work.or_else(|| tunnel.gate.as_mut().and_then(|gate| gate.poll_work()))
    }

    /// Work is done, perhaps a key there. Gives back what waited for one, in the order in which it came, to be taken in
    /// again.
    pub(super) fn handle_done(&mut self, now: Time, done: Done) -> VecDeque<Datagram> {
        let Some(tunnel) = &mut self.tunnel else { return VecDeque::new() };
        let done = match &mut tunnel.gate {
            Some(gate) => gate.handle_done(now, done),
            None => Some(done),
        };
        let Some(done) = done else { return std::mem::take(&mut tunnel.held) };
        match (&mut tunnel.sealing, &mut tunnel.opening) {
            (_, Some(opening)) if done.id == OPENING => opening.handle_done(done),
            (Some(sealing), _) => sealing.handle_done(done),
            (None, _) => {}
        }
        std::mem::take(&mut tunnel.held)
    }
}

impl Tunnel {
    /// Gives the gate what belongs to a login and says whether that was all. Whoever has not come in is refused.
    fn is_login(
        &mut self,
        now: Time,
        peer: SocketAddr,
        packet: &[u8],
        (header, at): (&Header, usize),
    ) -> Result<bool, Refusal> {
        let Some(gate) = &mut self.gate else {
            return if header.protocol == gre::EAPOL { Err(Refusal::NoLogin) } else { Ok(false) };
        };
        let is_bare = srp::is_bare(packet);
        if header.protocol == gre::EAPOL || is_bare {
            let is_read = gate.handle(now, peer, &packet[if is_bare { 0 } else { at }..]);
            return if is_read { Ok(true) } else { Err(Refusal::Malformed) };
        }
        if gate.admits(now, peer) { Ok(false) } else { Err(Refusal::Stranger) }
    }
}

/// Copies `parts` one after the other, from `start` on; says where the last one ends.
fn put<'a>(buffer: &mut Buffer, start: usize, parts: impl Iterator<Item = &'a [u8]>) -> usize {
    let mut end = start;
    for part in parts {
        buffer[end..end + part.len()].copy_from_slice(part);
        end += part.len();
    }
    end
}

/// Whether decrypted bytes are RTCP, or media of whom it is expected from: any others are so once in a thousand million.
fn looks_right(inner: &[u8], ssrc: Option<u32>) -> bool {
    if matches!(inner, [_, 200 | 201, ..]) {
        return Compound::new(inner).all(|packet| packet.is_ok());
    }
    RtpPacket::parse(inner).is_ok_and(|rtp| Some(rtp.header.ssrc & !1) == ssrc)
}

/// Librist 0.2.11 writes 77 for an extended report.
fn is_odd_xr(inner: &[u8]) -> bool {
    matches!(inner, [b0, 77, ..] if b0 >> 6 == 2)
}

/// Datagrams that wait for a key. Judgement: 100 ms of 100 Mb/s, or a second of 10 Mb/s on a machine that is busy.
const HELD_MAX: usize = 1_024;
/// RTP's flag X.
const EXTENSION: u8 = 0x10;
