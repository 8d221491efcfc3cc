//! What every stream of the multiplexer must be like, whatever went in.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{AccessUnit, Config, Format, Multiplexer, Stats, TrackId};
use crate::bus::{Packet, Pool, PoolLimits};
use crate::proto::mpegts::psi::crc32;
use crate::proto::mpegts::{Pid, TsPacket};
use crate::units::{Bitrate, Ticks90k, Time};

/// Reads a stream of the multiplexer and asserts that it is legal.
#[derive(Debug, Default)]
pub(super) struct Checker {
    ccs: BTreeMap<Pid, u8>,
    last_pcr: Option<(Pid, u64)>,
    /// Longest span from PCR to PCR in ticks of 27 MHz.
    pub(super) pcr_interval_max_27m: u64,
    pub(super) pcrs: u64,
    pub(super) discontinuities: u64,
    /// PES packets that have begun, by PID.
    pub(super) units: BTreeMap<Pid, Vec<Vec<u8>>>,
    /// Sections of one packet, by PID.
    pub(super) sections: BTreeMap<Pid, Vec<Vec<u8>>>,
    pub(super) bytes: u64,
}

impl Checker {
    pub(super) fn packet(&mut self, packet: &Packet) {
        assert!(
            !packet.is_empty() && packet.len() <= 1_316 && packet.len().is_multiple_of(188),
            "{} bytes",
            packet.len()
        );
        self.bytes += packet.len() as u64;
        packet.chunks(188).for_each(|bytes| self.ts_packet(bytes));
    }

    /// PCR may start over, on another PID or after a while without tracks.
    pub(super) const fn tracks_change(&mut self) {
        self.last_pcr = None;
    }

    fn ts_packet(&mut self, bytes: &[u8]) {
        let packet = TsPacket::parse(bytes).unwrap_or_else(|error| unreachable!("{error}"));
        assert!(!packet.transport_error && packet.scrambling == 0);
        if packet.pid == Pid::NULL {
            return;
        }
        let last = self.ccs.insert(packet.pid, packet.cc);
        let step = u8::from(packet.payload.is_some());
        assert!(last.is_none_or(|last| packet.cc == (last + step) & 0x0f), "{packet:?} after {last:?}");
        if let Some(pcr) = packet.adaptation.and_then(|adaptation| adaptation.pcr) {
            let discontinuity = packet.adaptation.is_some_and(|adaptation| adaptation.discontinuity);
            self.pcrs += 1;
            self.discontinuities += u64::from(discontinuity);
            if let Some((_, before)) = self.last_pcr.filter(|(pid, _)| *pid == packet.pid && !discontinuity) {
                let step = (pcr.0 + (300 << 33) - before) % (300 << 33);
                assert!(step > 0 && step <= 40 * 27_000, "PCR moved by {step}");
                self.pcr_interval_max_27m = self.pcr_interval_max_27m.max(step);
            }
            self.last_pcr = Some((packet.pid, pcr.0));
        }
        match packet.payload {
            Some(payload) if packet.pid.value() < 0x20 || packet.pid.value() == 0x1000 => {
                self.section(packet.pid, packet.payload_unit_start, payload);
            }
            Some(payload) => self.pes(packet.pid, packet.payload_unit_start, payload),
            None => {}
        }
    }

    fn section(&mut self, pid: Pid, start: bool, payload: &[u8]) {
        if let ([0, 0x00 | 0x02 | 0x42, high, low, ..], true) = (payload, start) {
            let length = usize::from(u16::from_be_bytes([*high, *low]) & 0xfff);
            if let Some(section) = payload.get(1..4 + length) {
                assert_eq!(crc32(section), 0);
                self.sections.entry(pid).or_default().push(section.to_vec());
            }
        }
    }

    fn pes(&mut self, pid: Pid, start: bool, payload: &[u8]) {
        let units = self.units.entry(pid).or_default();
        if start {
            assert!(payload.starts_with(&[0, 0, 1]), "no PES packet begins here");
            units.push(payload.to_vec());
        } else if let Some(unit) = units.last_mut() {
            unit.extend_from_slice(payload);
        }
    }
}

/// The body of the fuzz target `mux`, which tests call as well: does with a multiplexer what `bytes` say, and checks
/// what comes out and that nothing is lost without being counted.
///
/// # Panics
/// If the stream is not legal.
pub fn check_any_units(bytes: &[u8]) -> Stats {
    let mut script = Script(bytes.iter());
    let pool = Pool::new(PoolLimits { small_max: 1_024, large_max: 0 });
    let rate = |byte: u8| byte.checked_sub(100).map(|n| Bitrate::from_bps(250_000 << (n % 10)));
    let (first, delay) = (script.byte(), Duration::from_millis(u64::from(script.byte()) * 10));
    let config = Config { rate: rate(first), delay, ..Config::default() };
    let mut mux = Multiplexer::new(config, pool).unwrap_or_else(|error| unreachable!("{error}"));
    let mut checker = Checker::default();
    let (mut now, mut dts, mut given) = (Time::from_ns(1_000_000), 0_u64, 0_u64);
    while let Some(&verb) = script.0.next() {
        match verb % 16 {
            0 => checker.tracks_change_by(|| {
                let _ = mux.add_track(format(&mut script), Some(*b"und"));
            }),
            1 => checker.tracks_change_by(|| mux.remove_track(TrackId::from_index(script.byte() % 20))),
            2 => checker.tracks_change_by(|| {
                let track = TrackId::from_index(script.byte() % 20);
                mux.set_format(track, format(&mut script));
            }),
            3 => now += Duration::from_millis(u64::from(script.byte()) * 8),
            4 => dts = dts.wrapping_add(u64::from(script.byte()) << (script.byte() % 64)),
            5 => dts = dts.wrapping_sub(u64::from(script.byte()) * 900),
            6 => mux.handle_timeout(now),
            11 => {
                if mux.poll_timeout().is_some() {
                    mux.handle_timeout(now);
                    drain(&mut mux, &mut checker);
                }
                mux.set_rate(now, rate(script.byte()));
            }
            7..=10 => now += Duration::from_millis(u64::from(script.byte() % 50)),
            _ => {
                let track = TrackId::from_index(script.byte() % 4);
                let data = script.data();
                let pts = dts.wrapping_add(u64::from(script.byte()) << (script.byte() % 16));
                let unit =
                    AccessUnit { pts: Ticks90k(pts), dts: Ticks90k(dts), random_access: false, data: data.into() };
                mux.handle_access_unit(now, track, &unit);
                dts = dts.wrapping_add(3_600);
                given += 1;
            }
        }
        if verb & 0x80 == 0 {
            drain(&mut mux, &mut checker);
        }
    }
    drain(&mut mux, &mut checker);
    let stats = mux.stats();
    let dropped = stats.malformed + stats.too_long + stats.undecodable + stats.overflow;
    assert!(stats.units <= given && stats.units + dropped >= given, "{given} units: {stats:?}");
    assert_eq!(stats.ts_packets * 188, checker.bytes);
    let begun: usize = checker.units.values().map(Vec::len).sum();
    assert!(begun as u64 <= stats.units, "{begun} came out: {stats:?}");
    stats
}

fn drain(mux: &mut Multiplexer, checker: &mut Checker) {
    while let Some(packet) = mux.poll_packet() {
        checker.packet(&packet);
    }
}

impl Checker {
    fn tracks_change_by(&mut self, change: impl FnOnce()) {
        change();
        self.tracks_change();
    }
}

fn format(script: &mut Script<'_>) -> Format {
    match script.byte() % 8 {
        0 => Format::h264(),
        1 => Format::hevc(),
        2 => Format::aac_adts(),
        3 => Format::mpeg_audio(),
        4 => Format::ac3(),
        5 => Format::opus(2).unwrap_or_else(|error| unreachable!("{error}")),
        6 => Format::h264_with_record(&[1, 0x64, 0, 31, 0xff, 0xe1, 0, 1, 0x67, 1, 0, 1, 0x68])
            .unwrap_or_else(|error| unreachable!("{error}")),
        _ => Format::aac_with_config(&[0x11, 0x90]).unwrap_or_else(|error| unreachable!("{error}")),
    }
}

/// Bytes as decisions; zeros when they are used up.
struct Script<'a>(std::slice::Iter<'a, u8>);

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        self.0.next().copied().unwrap_or(0)
    }

    /// An access unit that begins like one of some codec and is of some length.
    fn data(&mut self) -> Vec<u8> {
        let begin: &[u8] = match self.byte() % 8 {
            0 => &[0, 0, 0, 1, 0x67, 1, 0, 0, 1, 0x68, 1, 0, 0, 1, 0x65],
            1 => &[0, 0, 1, 0x41],
            2 => &[0, 0, 1, 0x40, 1, 0, 0, 1, 0x42, 1, 0, 0, 1, 0x44, 1, 0, 0, 1, 0x26, 1],
            3 => &[0xff, 0xf1],
            4 => &[0xff, 0xfd],
            5 => &[0x0b, 0x77],
            6 => &[0, 0, 0, 2, 0x65, 1],
            _ => &[],
        };
        let length = usize::from(self.byte()) << (self.byte() % 14);
        let mut data = begin.to_vec();
        data.resize(begin.len().max(length), self.byte());
        data
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_comes_in_a_legal_stream_goes_out(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            check_any_units(&bytes);
        }
    }
}
