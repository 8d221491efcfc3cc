//! Which repetition is due next: PCR or a table, each on a grid of its own.
//!
//! Moments are counted in whatever the stream is made of: slots of 188 bytes where the rate is constant, ticks of 27 MHz
//! where it varies. Each grid goes on from the moment that was due, not from the one when its turn came, so that waiting
//! for one another does not add up.

use arrayvec::ArrayVec;

use crate::proto::mpegts::packet::PAYLOAD_BYTES;
use crate::proto::mpegts::{Pid, TS_PACKET_BYTES, TsPacket};

/// Grids of PCR and of up to [`TABLES_MAX`] tables.
#[derive(Debug)]
pub(in crate::proto::mpegts) struct Timetable {
    pcr_interval: u64,
    next_pcr: u64,
    /// The next PCR comes after a span that was left out.
    discontinuity: bool,
    /// The first PCR was due.
    is_started: bool,
    tables: ArrayVec<Table, TABLES_MAX>,
}

/// What a moment is taken by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proto::mpegts) enum Due {
    /// A PCR that was due at `since`.
    Pcr { since: u64, discontinuity: bool },
    /// One packet of a table, written already.
    Table,
}

impl Timetable {
    /// The tables come first, one after the other from `at` on, then PCR, so that a receiver knows its PID.
    pub(in crate::proto::mpegts) fn new(at: u64, pcr_interval: u64, tables: impl IntoIterator<Item = Table>) -> Self {
        let mut timetable = Self {
            pcr_interval: pcr_interval.max(1),
            next_pcr: at,
            discontinuity: false,
            is_started: false,
            tables: ArrayVec::new(),
        };
        for mut table in tables.into_iter().take(TABLES_MAX) {
            table.next = at;
            timetable.tables.push(table);
        }
        timetable
    }

    /// What is due at `at`, PCR before tables; a table's packet is written to `out`.
    #[inline]
    pub(in crate::proto::mpegts) fn next(&mut self, at: u64, out: &mut [u8; TS_PACKET_BYTES]) -> Option<Due> {
        if self.earliest() > at { None } else { self.take(at, out) }
    }

    /// The next moment that something is due at.
    #[inline]
    pub(in crate::proto::mpegts) fn earliest(&self) -> u64 {
        self.tables.iter().fold(self.next_pcr, |earliest, table| earliest.min(table.next))
    }

    fn take(&mut self, at: u64, out: &mut [u8; TS_PACKET_BYTES]) -> Option<Due> {
        let brings_news = self.tables.iter().any(|table| table.is_new && table.next <= at);
        let table = self.tables.iter_mut().filter(|table| table.next <= at).min_by_key(|table| table.next);
        match table {
            // PCR has the narrower limit, but a receiver must learn of its PID first, and of tracks before their bytes.
            Some(table) if brings_news || self.next_pcr > at || !self.is_started => {
                table.write(at, out);
                Some(Due::Table)
            }
            _ => {
                let since = self.next_pcr;
                self.next_pcr = next_on_grid(since, self.pcr_interval, at);
                self.is_started = true;
                Some(Due::Pcr { since, discontinuity: std::mem::take(&mut self.discontinuity) })
            }
        }
    }

    /// A PCR went out that was not asked for: the grid goes on from there. True if it is the first after a span that
    /// was left out.
    pub(in crate::proto::mpegts) const fn pcr_sent(&mut self, at: u64) -> bool {
        self.next_pcr = at.saturating_add(self.pcr_interval);
        std::mem::replace(&mut self.discontinuity, false)
    }

    /// Whether the last PCR is so long ago that a packet which goes out at `at` anyway should carry one.
    pub(in crate::proto::mpegts) const fn wants_pcr(&self, at: u64) -> bool {
        at.saturating_add(self.pcr_interval / 2) >= self.next_pcr
    }

    /// Everything up to `at` was left out: PCR is due at once, and tells if it `says` so.
    pub(in crate::proto::mpegts) fn jump(&mut self, at: u64, says: bool) {
        self.next_pcr = at;
        self.discontinuity |= says;
        self.tables.iter_mut().for_each(|table| table.next = table.next.max(at));
    }

    /// Moments are counted otherwise from now on: PCR is due at `at`, and so is what is repeated or was not sent.
    pub(in crate::proto::mpegts) fn set_grids(&mut self, at: u64, pcr: u64, table: impl Fn(Pid) -> u64) {
        (self.pcr_interval, self.next_pcr) = (pcr.max(1), at);
        for known in &mut self.tables {
            if known.interval < u64::MAX {
                (known.interval, known.next) = (table(known.pid).max(1), at);
            } else if known.is_new {
                known.next = at;
            }
        }
    }

    /// Whether the table on a PID took another's place and was not sent since.
    pub(in crate::proto::mpegts) fn is_unsent(&self, pid: Pid) -> bool {
        self.tables.iter().any(|table| table.pid == pid && table.is_new)
    }

    /// Puts new content in the place of the table on its PID; it is due at once. Where there is none it is sent once;
    /// of more than [`TABLES_MAX`] PIDs the newest are left out.
    pub(in crate::proto::mpegts) fn replace(&mut self, at: u64, pid: Pid, section: &[u8]) {
        if let Some(table) = self.tables.iter_mut().find(|table| table.pid == pid) {
            table.set(section);
            (table.next, table.is_new) = (at, true);
        } else {
            let table = Table { next: at, is_new: true, ..Table::new(pid, u64::MAX, section) };
            let _room = self.tables.try_push(table);
        }
    }
}

/// A table that is repeated.
#[derive(Debug)]
pub(in crate::proto::mpegts) struct Table {
    pid: Pid,
    packets: ArrayVec<[u8; TS_PACKET_BYTES], TABLE_PACKETS_MAX>,
    /// The packet of it that is next.
    index: usize,
    cc: u8,
    interval: u64,
    next: u64,
    /// It took another's place, and was not sent since.
    is_new: bool,
}

impl Table {
    /// `section` on `pid` every `interval`. What of the section is beyond [`SECTION_BYTES_MAX`] is cut off.
    ///
    /// [`SECTION_BYTES_MAX`]: crate::proto::mpegts::psi::SECTION_BYTES_MAX
    pub(in crate::proto::mpegts) fn new(pid: Pid, interval: u64, section: &[u8]) -> Self {
        let packets = ArrayVec::new();
        let mut table = Self { pid, packets, index: 0, cc: 0, interval: interval.max(1), next: 0, is_new: false };
        table.set(section);
        table
    }

    /// Splits a section into packets (13818-1 2.4.4): it starts behind a pointer of zero, filler follows its end.
    fn set(&mut self, section: &[u8]) {
        self.packets.clear();
        self.index = 0;
        let (first, rest) = section.split_at(section.len().min(PAYLOAD_BYTES - 1));
        for (n, part) in std::iter::once(first).chain(rest.chunks(PAYLOAD_BYTES)).enumerate() {
            let mut payload = [0xff; PAYLOAD_BYTES];
            let at = usize::from(n == 0);
            payload[..at].fill(0);
            payload[at..at + part.len()].copy_from_slice(part);
            let mut packet = [0; TS_PACKET_BYTES];
            let (pid, payload) = (self.pid, Some(&payload[..]));
            TsPacket { payload_unit_start: n == 0, pid, payload, ..TsPacket::default() }.write(&mut packet);
            if self.packets.try_push(packet).is_err() {
                break;
            }
        }
    }

    fn write(&mut self, at: u64, out: &mut [u8; TS_PACKET_BYTES]) {
        if let Some(packet) = self.packets.get(self.index) {
            *out = *packet;
            out[3] |= next_cc(&mut self.cc);
        }
        self.index += 1;
        if self.index >= self.packets.len() {
            (self.index, self.is_new) = (0, false);
            self.next = next_on_grid(self.next, self.interval, at);
        }
    }
}

/// The moment after `due`; when whole intervals were missed, the grid starts anew from `at`.
const fn next_on_grid(due: u64, interval: u64, at: u64) -> u64 {
    if at.saturating_sub(due) >= interval { at.saturating_add(interval) } else { due.saturating_add(interval) }
}

/// The present value, and moves to the next (13818-1 2.4.3.3: with payload it goes up by one modulo 16).
pub(in crate::proto::mpegts) const fn next_cc(cc: &mut u8) -> u8 {
    let present = *cc;
    *cc = (present + 1) & 0x0f;
    present
}

/// PAT, PMT, SDT; NIT, EIT and TDT of the test picture.
const TABLES_MAX: usize = 6;
/// A section has at most 1,024 bytes and a pointer, a packet carries 184.
const TABLE_PACKETS_MAX: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_come_first_and_everything_keeps_its_grid() {
        let mut timetable = timetable();
        let moments: Vec<char> = (0..40).map(|at| step(&mut timetable, at)).collect();
        // Five slots from PCR to PCR, eleven from table to table; the PAT at 11 waits for nobody, the PMT for the PAT.
        assert_eq!(moments.iter().collect::<String>(), "amp..p....pam..p....p.am.p....p..amp....");
    }

    #[test]
    fn a_long_section_is_split_and_its_continuity_counter_goes_up() {
        let section: Vec<u8> = (0..=255).cycle().take(1_024).collect();
        let mut timetable = Timetable::new(0, 1_000, [Table::new(Pid::PAT, 100, &section)]);
        let mut read = Vec::new();
        for at in 0..6 {
            let mut out = [0; TS_PACKET_BYTES];
            assert_eq!(timetable.next(at, &mut out), Some(Due::Table));
            let packet = TsPacket::parse(&out).unwrap();
            assert_eq!((packet.payload_unit_start, u64::from(packet.cc)), (at == 0, at));
            read.extend_from_slice(packet.payload.unwrap());
        }
        assert_eq!(read[1..1_025], section[..]);
        assert!(read[1_025..].iter().all(|&byte| byte == 0xff));
    }

    #[test]
    fn after_a_jump_pcr_comes_at_once_and_tells() {
        let mut timetable = timetable();
        let start: String = (0..4).map(|at| step(&mut timetable, at)).collect();
        assert_eq!(start, "amp.");
        timetable.jump(100, true);
        let mut out = [0; TS_PACKET_BYTES];
        assert_eq!(timetable.next(100, &mut out), Some(Due::Pcr { since: 100, discontinuity: true }));
        assert_eq!(timetable.next(101, &mut out), Some(Due::Table));
    }

    #[test]
    fn a_table_in_the_place_of_another_comes_before_pcr() {
        let mut timetable = timetable();
        let start: String = (0..4).map(|at| step(&mut timetable, at)).collect();
        assert_eq!(start, "amp.");
        timetable.replace(50, Pid::from_low_bits(0x1000), &[3; 16]);
        timetable.jump(100, true);
        let after: String = (100..104).map(|at| step(&mut timetable, at)).collect();
        assert_eq!(after, "amp.");
    }

    fn timetable() -> Timetable {
        let pmt = Pid::from_low_bits(0x1000);
        Timetable::new(0, 5, [Table::new(Pid::PAT, 11, &[1; 16]), Table::new(pmt, 11, &[2; 16])])
    }

    fn step(timetable: &mut Timetable, at: u64) -> char {
        let mut out = [0; TS_PACKET_BYTES];
        match timetable.next(at, &mut out) {
            None => '.',
            Some(Due::Pcr { .. }) => 'p',
            Some(Due::Table) if TsPacket::parse(&out).unwrap().pid == Pid::PAT => 'a',
            Some(Due::Table) => 'm',
        }
    }
}
