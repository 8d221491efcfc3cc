//! `Faults`: what is done to each packet.

use std::time::Duration;

use super::others::Others;
use super::{Config, Fault};
use crate::proto::mpegts::generator::{NUMBERED_PID, PMT_PID, number_of};
use crate::proto::mpegts::psi::{Section, crc32, packet_of};
use crate::proto::mpegts::{Adaptation, PCR_MODULUS_27M, Pid, SYNC_BYTE, TS_PACKET_BYTES, TsPacket};
use crate::units::{Ticks27M, Time};

/// Puts faults into the packets of a clean stream that pass by, in place.
#[derive(Debug)]
pub struct Faults {
    config: Config,
    /// When the first packet was due.
    start: Option<Time>,
    /// When each fault that comes five times a second comes again.
    again: [Duration; Fault::ALL.len()],
    /// Continuity counter of each PID's next packet with payload; [`NO_CC`] if it never came.
    ccs: Box<[u8; PIDS]>,
    /// How often the PMT has changed.
    pmt_version: u8,
    /// Whether it lists more than there is.
    listed_more: bool,
    /// The packet before had its sync byte broken, and this one is to follow.
    is_losing_sync: bool,
    others: Others,
    /// Packets that still belong to a burst for [`Fault::BufferOverflow`].
    burst_left: u32,
    random: u64,
}

type Bytes = [u8; TS_PACKET_BYTES];

impl Faults {
    /// `seed` makes the jitter.
    #[must_use]
    pub fn new(config: Config, seed: u64) -> Self {
        Self {
            config,
            start: None,
            again: [Duration::ZERO; Fault::ALL.len()],
            ccs: Box::new([NO_CC; PIDS]),
            pmt_version: 0,
            listed_more: false,
            is_losing_sync: false,
            others: Others::default(),
            burst_left: 0,
            // The generator of random numbers must not begin with zero.
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        }
    }

    /// The stream's next TS packet, of a packet that is due at `at`.
    pub fn apply(&mut self, at: Time, packet: &mut Bytes) {
        let elapsed = at.since(*self.start.get_or_insert(at));
        self.take_away(elapsed, packet);
        self.change_tables(elapsed, packet);
        self.change_clock(elapsed, packet);
        self.change_streams(elapsed, packet);
        if pid_of(packet) == Pid::NULL {
            self.put_in(elapsed, packet);
        }
        self.number(packet);
        if pid_of(packet) == Pid::NULL {
            self.break_header(elapsed, packet);
        }
    }

    fn is_on(&self, fault: Fault, elapsed: Duration) -> bool {
        self.config.on_for(fault, elapsed).is_some()
    }

    /// Whether it is time again for a fault that comes five times a second.
    fn is_due(&mut self, fault: Fault, elapsed: Duration) -> bool {
        let is_due =
            self.is_on(fault, elapsed) && self.again.get(fault as usize).is_some_and(|again| elapsed >= *again);
        if is_due && let Some(again) = self.again.get_mut(fault as usize) {
            *again = elapsed + AGAIN_AFTER;
        }
        is_due
    }

    /// What goes missing.
    fn take_away(&mut self, elapsed: Duration, packet: &mut Bytes) {
        let pid = pid_of(packet);
        let gap = match pid {
            Pid::PAT => Fault::PatGap,
            PMT_PID => Fault::PmtGap,
            Pid::NIT => Fault::NitGap,
            Pid::SDT => Fault::SdtGap,
            Pid::EIT if packet[SECTION_AT + 6] == 1 && self.is_on(Fault::EitPfGap, elapsed) => Fault::EitPfGap,
            Pid::EIT => Fault::EitGap,
            Pid::TDT => Fault::TdtGap,
            SOUND_PID => Fault::NoAudio,
            NUMBERED_PID => return self.take_away_data(elapsed, packet),
            _ => return,
        };
        if self.is_on(gap, elapsed) {
            *packet = NULL_PACKET;
        }
    }

    /// Of the picture, or of the numbered packets.
    fn take_away_data(&mut self, elapsed: Duration, packet: &mut Bytes) {
        let clock = pcr_of(packet);
        let is_numbered = number_of(packet).is_some();
        if self.is_on(Fault::NoVideo, elapsed) && !is_numbered {
            *packet = NULL_PACKET;
            if clock.is_some() {
                TsPacket { pid: NUMBERED_PID, adaptation: clock, ..TsPacket::default() }.write(packet);
            }
            return;
        }
        if clock.is_some() || packet[3] & 0x10 == 0 {
            return;
        }
        // The second of two; in the picture's stream that is a null packet soon enough.
        if is_numbered && self.is_losing_sync {
            *packet = NULL_PACKET;
            return;
        }
        // Not the first packet of a picture, with which its PTS would go.
        if (is_numbered || !unit_start(packet)) && self.is_due(Fault::Cc, elapsed) {
            *packet = NULL_PACKET;
            self.next_cc(NUMBERED_PID, 0);
        }
    }

    fn change_tables(&mut self, elapsed: Duration, packet: &mut Bytes) {
        let pid = pid_of(packet);
        if pid == Pid::SDT && self.is_on(Fault::SiRepetition, elapsed) {
            repeat_section(packet);
        }
        if pid != PMT_PID {
            return;
        }
        let lists_more = self.is_on(Fault::PidMissing, elapsed);
        if lists_more != self.listed_more {
            self.listed_more = lists_more;
            self.pmt_version = self.pmt_version.wrapping_add(1);
        }
        if lists_more || self.pmt_version > 0 {
            rewrite_pmt(packet, self.pmt_version, lists_more);
        }
        if self.is_due(Fault::Crc, elapsed)
            && let Some(last) = section_end(packet).and_then(|end| packet.get_mut(end - 1))
        {
            *last ^= 0x55;
        }
    }

    fn change_clock(&mut self, elapsed: Duration, packet: &mut Bytes) {
        let Some(adaptation) = pcr_of(packet) else { return };
        let Some(Ticks27M(pcr)) = adaptation.pcr else { return };
        let mut shift = 0;
        if let Some(on_for) = self.config.on_for(Fault::PcrJump, elapsed)
            && on_for.as_secs().is_multiple_of(2)
        {
            shift += PCR_JUMP_27M;
        }
        if self.is_on(Fault::PcrJitter, elapsed) {
            shift += self.jitter_27m();
        }
        if shift != 0 {
            let pcr = Ticks27M((pcr + PCR_MODULUS_27M).saturating_add_signed(shift) % PCR_MODULUS_27M);
            rewrite_adaptation(packet, |adaptation| Adaptation { pcr: Some(pcr), ..adaptation });
        }
        if self.is_on(Fault::PcrGap, elapsed) {
            rewrite_adaptation(packet, |adaptation| Adaptation { pcr: None, ..adaptation });
        }
    }

    fn change_streams(&self, elapsed: Duration, packet: &mut Bytes) {
        let pid = pid_of(packet);
        if pid == NUMBERED_PID && unit_start(packet) && self.is_on(Fault::PtsGap, elapsed) {
            drop_pts(packet);
        }
        if pid == NUMBERED_PID && unit_start(packet) && self.is_on(Fault::DataDelay, elapsed) {
            delay_stamps(packet);
        }
        // Not where a PES packet starts: its header is needed in the clear to tell that there still are PTS.
        let may_be = (pid == SOUND_PID && !unit_start(packet)) || number_of(packet).is_some();
        if may_be && self.is_on(Fault::Scrambled, elapsed) {
            packet[3] |= SCRAMBLED;
        }
    }

    /// In place of a null packet.
    fn put_in(&mut self, elapsed: Duration, packet: &mut Bytes) {
        if self.is_due(Fault::BufferOverflow, elapsed) {
            self.burst_left = BURST_PACKETS;
        }
        if let Some(left) = self.burst_left.checked_sub(1) {
            self.burst_left = left;
            *packet = packet_of(&stuffing_table(), PMT_PID);
        } else if self.is_due(Fault::Unreferenced, elapsed) {
            let pid = UNREFERENCED_PID;
            TsPacket { pid, payload: Some(&[0xaa; TS_PACKET_BYTES - 4]), ..TsPacket::default() }.write(packet);
        } else if self.is_due(Fault::Rst, elapsed) {
            let mut payload = [0xff; TS_PACKET_BYTES - 4];
            payload[0] = 0;
            payload[1..][..RST_SECTION.len()].copy_from_slice(&RST_SECTION);
            TsPacket { payload_unit_start: true, pid: Pid::RST, payload: Some(&payload), ..TsPacket::default() }
                .write(packet);
            repeat_section(packet);
        } else if let Some((pid, sections)) = self.others.due(&self.config, elapsed) {
            *packet = packet_of(&sections, pid);
        }
    }

    /// Counters go on where something was taken out or put in.
    fn number(&mut self, packet: &mut Bytes) {
        let pid = pid_of(packet);
        if pid == Pid::NULL {
            return;
        }
        let own = packet[3] & 0x0f;
        let cc = if packet[3] & 0x10 != 0 {
            self.next_cc(pid, own)
        } else {
            // Without payload it stays that of the packet before (13818-1 2.4.3.3).
            match self.ccs.get(usize::from(pid.value())) {
                Some(&next) if next != NO_CC => next.wrapping_sub(1) & 0x0f,
                _ => own,
            }
        };
        packet[3] = packet[3] & 0xf0 | cc;
    }

    /// The counter of a packet with payload; `own` if it is the first of its PID.
    fn next_cc(&mut self, pid: Pid, own: u8) -> u8 {
        let Some(next) = self.ccs.get_mut(usize::from(pid.value())) else { return own };
        let cc = if *next == NO_CC { own } else { *next };
        *next = (cc + 1) & 0x0f;
        cc
    }

    /// Of a null packet, so that nothing else is lost with it.
    fn break_header(&mut self, elapsed: Duration, packet: &mut Bytes) {
        if self.is_losing_sync {
            self.is_losing_sync = false;
            packet[0] = NO_SYNC_BYTE;
        } else if self.is_due(Fault::SyncLoss, elapsed) {
            self.is_losing_sync = true;
            packet[0] = NO_SYNC_BYTE;
        } else if self.is_due(Fault::Sync, elapsed) {
            packet[0] = NO_SYNC_BYTE;
        } else if self.is_due(Fault::Tei, elapsed) {
            packet[1] |= 0x80;
        }
    }

    /// Evenly spread from the most below to the most above.
    fn jitter_27m(&mut self) -> i64 {
        // Marsaglia's xorshift64, as much chance as this needs.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let most = i64::try_from(self.config.jitter.as_micros()).unwrap_or(0) * 27;
        (self.random >> 16) as i64 % (2 * most + 1) - most
    }
}

fn pid_of(packet: &Bytes) -> Pid {
    Pid::from_low_bits(u16::from_be_bytes([packet[1], packet[2]]))
}

const fn unit_start(packet: &Bytes) -> bool {
    packet[1] & 0x40 != 0
}

/// The adaptation field without its stuffing, if there is a PCR in it.
fn pcr_of(packet: &Bytes) -> Option<Adaptation<'static>> {
    let Adaptation { discontinuity, random_access, priority, pcr, .. } = TsPacket::parse(packet).ok()?.adaptation?;
    pcr?;
    Some(Adaptation { discontinuity, random_access, priority, pcr, ..Adaptation::default() })
}

fn rewrite_adaptation(packet: &mut Bytes, change: impl Fn(Adaptation<'static>) -> Adaptation<'static>) {
    let before = *packet;
    let Ok(parsed) = TsPacket::parse(&before) else { return };
    let adaptation = pcr_of(&before).map(change);
    TsPacket { adaptation, ..parsed }.write(packet);
}

/// Where the section of a packet that starts with one ends.
fn section_end(packet: &Bytes) -> Option<usize> {
    let length = usize::from(u16::from_be_bytes([packet[6], packet[7]]) & 0x0fff);
    let end = SECTION_AT + 3 + length;
    (unit_start(packet) && packet[3] & 0x30 == 0x10 && packet[4] == 0 && end <= TS_PACKET_BYTES).then_some(end)
}

/// The section once more behind itself, if there is room for it.
fn repeat_section(packet: &mut Bytes) {
    let Some(end) = section_end(packet) else { return };
    if 2 * end - SECTION_AT <= TS_PACKET_BYTES {
        packet.copy_within(SECTION_AT..end, end);
    }
}

/// Another version, and maybe a sound more.
fn rewrite_pmt(packet: &mut Bytes, version: u8, lists_more: bool) {
    let Some(mut end) = section_end(packet).filter(|end| *end >= SECTION_AT + PMT_BYTES_MIN) else { return };
    packet[SECTION_AT + 5] = packet[SECTION_AT + 5] & 0xc1 | (version & 0x1f) << 1;
    let [high, low] = MISSING_PID.value().to_be_bytes();
    let entry = [0x0f, 0xe0 | high, low, 0xf0, 0];
    if lists_more && end + entry.len() <= TS_PACKET_BYTES {
        packet[end - 4..][..entry.len()].copy_from_slice(&entry);
        end += entry.len();
        let length = (end - SECTION_AT - 3) as u16;
        packet[SECTION_AT + 1..SECTION_AT + 3].copy_from_slice(&(0xb000 | length).to_be_bytes());
    }
    let crc = crc32(&packet[SECTION_AT..end - 4]);
    packet[end - 4..end].copy_from_slice(&crc.to_be_bytes());
}

/// Flags, length and fields of a picture's PES header (13818-1 2.4.3.7).
fn picture_header(packet: &mut Bytes) -> Option<(&mut u8, &mut [u8])> {
    let payload_at = if packet[3] & 0x20 == 0 { 4 } else { 5 + usize::from(packet[4]) };
    let Some([0, 0, 1, 0xe0, _, _, _, flags, length, rest @ ..]) = packet.get_mut(payload_at..) else { return None };
    let length = usize::from(*length).min(rest.len());
    Some((flags, rest.split_at_mut(length).0))
}

/// The PES header keeps its length: what were times is stuffing.
fn drop_pts(packet: &mut Bytes) {
    let Some((flags, fields)) = picture_header(packet) else { return };
    *flags &= 0x3f;
    fields.fill(0xff);
}

/// PTS and DTS are so much later.
fn delay_stamps(packet: &mut Bytes) {
    let Some((flags, fields)) = picture_header(packet) else { return };
    let count = usize::from(*flags >> 7) + usize::from(*flags >> 6 & 1);
    for [b0, b1, b2, b3, b4] in fields.as_chunks_mut().0.iter_mut().take(count) {
        let stamp = u64::from(*b0 >> 1 & 7) << 30
            | u64::from(u16::from_be_bytes([*b1, *b2]) >> 1) << 15
            | u64::from(u16::from_be_bytes([*b3, *b4]) >> 1);
        let stamp = stamp + DATA_DELAY_90K;
        *b0 = *b0 & 0xf1 | (stamp >> 29) as u8 & 0x0e;
        [*b1, *b2] = ((stamp >> 14) as u16 | 1).to_be_bytes();
        [*b3, *b4] = ((stamp << 1) as u16 | 1).to_be_bytes();
    }
}

/// As long as a TS packet has room for (EN 300 468 5.2.8).
fn stuffing_table() -> Section {
    let mut section = Section::from_iter([0x72, 0x70, STUFFING_BYTES]);
    section.extend(std::iter::repeat_n(0xaa, STUFFING_BYTES.into()));
    section
}

/// The tone of the test picture.
const SOUND_PID: Pid = Pid::from_low_bits(0x101);
/// Listed, and never there.
const MISSING_PID: Pid = Pid::from_low_bits(0x1f0);
/// There, and never listed.
const UNREFERENCED_PID: Pid = Pid::from_low_bits(0x1f1);

const NULL_PACKET: Bytes = {
    let mut packet = [0xff; TS_PACKET_BYTES];
    (packet[0], packet[1], packet[2], packet[3]) = (SYNC_BYTE, 0x1f, 0xff, 0x10);
    packet
};
const NO_SYNC_BYTE: u8 = !SYNC_BYTE;
/// Where a section starts behind a pointer of zero; its `section_number` is the seventh byte.
const SECTION_AT: usize = 5;
/// A PMT without descriptors and streams (13818-1 2.4.4.8).
const PMT_BYTES_MIN: usize = 16;
/// `transport_scrambling_control`: with the even key (EN 300 468 and ETSI TS 100 289).
const SCRAMBLED: u8 = 0x80;
/// A running status table without entries (EN 300 468 5.2.7).
const RST_SECTION: [u8; 3] = [0x71, 0x70, 0];
/// Twice what the buffer for tables holds (13818-1 2.4.2.4), so that a slow stream fills it as well.
const BURST_PACKETS: u32 = 20;
const STUFFING_BYTES: u8 = (TS_PACKET_BYTES - SECTION_AT - 3) as u8;
/// A second more than H.264 may stay in a decoder (13818-1 2.14.3.1).
const DATA_DELAY_90K: u64 = 11 * 90_000;
/// A second: ten times what a PCR may step by (TR 101 290 2.3b).
const PCR_JUMP_27M: i64 = 27_000_000;
/// Often enough to be seen at once, and seldom enough that a table that comes every 100 ms is not gone.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
const PIDS: usize = 8_192;
const NO_CC: u8 = 0xff;
