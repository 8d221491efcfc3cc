//! `SubTables`: tables of which there is one for each service or network, and that have to come again section by section.

use std::collections::BTreeMap;
use std::time::Duration;

use super::indicator::{Indicator, Indicators};
use crate::proto::mpegts::Pid;
use crate::proto::mpegts::section::LongSection;
use crate::units::Time;

/// Follows sections of NIT and SDT of other networks and streams (`table_id` 0x41, 0x46), and of EIT of present and following
/// events (0x4E, 0x4F).
#[derive(Clone, Debug, Default)]
pub(super) struct SubTables {
    sections: BTreeMap<Key, Seen>,
    /// By `table_id`: whether there ever was one.
    seen: [bool; 4],
    review_at: Time,
    unwatched: u64,
}

/// `table_id`, its extension, what else tells it apart, and `section_number`.
type Key = (u8, u16, u16, u8);

#[derive(Clone, Copy, Debug)]
struct Seen {
    first: Time,
    last: Time,
    /// It has been counted that its other half is missing.
    is_half_told: bool,
}

impl SubTables {
    pub(super) fn handle_section(&mut self, now: Time, section: &LongSection<'_>) {
        let Some(at) = TABLES.iter().position(|table| *table == section.table_id) else { return };
        self.seen[at] = true;
        // An EIT's body begins with the stream that its service is in (EN 300 468 5.2.4).
        let of_stream = is_eit(section.table_id).then(|| section.body.first_chunk::<2>().copied()).flatten();
        let stream = u16::from_be_bytes(of_stream.unwrap_or_default());
        let key = (section.table_id, section.extension, stream, section.number);
        if let Some(seen) = self.sections.get_mut(&key) {
            seen.last = now;
        } else if self.sections.len() < SECTIONS_MAX {
            self.sections.insert(key, Seen { first: now, last: now, is_half_told: false });
        } else {
            self.unwatched += 1;
        }
    }

    /// Whether there ever was a table with this `table_id`.
    pub(super) fn has(&self, table_id: u8) -> bool {
        TABLES.iter().position(|table| *table == table_id).and_then(|at| self.seen.get(at)) == Some(&true)
    }

    /// Sections that came and are not watched, as there was no room.
    pub(super) const fn unwatched(&self) -> u64 {
        self.unwatched
    }

    /// See [`super::judge::Judge::begin_anew`].
    pub(super) fn begin_anew(&mut self, now: Time) {
        self.sections.values_mut().for_each(|seen| (seen.first, seen.last) = (now, now));
    }

    /// Counts what did not come again, once; if it comes after all it is followed anew. Looks once a second.
    pub(super) fn review(&mut self, now: Time, indicators: &mut Indicators) {
        if now < self.review_at {
            return;
        }
        self.review_at = now + REVIEW_INTERVAL;
        self.sections.retain(|(table_id, ..), seen| {
            let is_there = now.since(seen.last) <= limit(*table_id);
            // EIT of this stream is watched as a whole (3.6a).
            if let Some((indicator, pid)) = indicator(*table_id).filter(|_| !is_there) {
                indicators.count(now, indicator, Some(pid), 1);
            }
            is_there
        });
        let alone: Vec<Key> = self
            .sections
            .iter()
            .filter(|(key, seen)| is_eit(key.0) && key.3 < 2 && !seen.is_half_told)
            .filter(|(key, seen)| now.since(seen.first) > limit(key.0))
            .filter(|((table, service, stream, number), _)| {
                !self.sections.contains_key(&(*table, *service, *stream, 1 - number))
            })
            .map(|(key, _)| *key)
            .collect();
        for key in alone {
            if let Some(seen) = self.sections.get_mut(&key) {
                seen.is_half_told = true;
                indicators.count(now, Indicator::EitPfError, Some(Pid::EIT), 1);
            }
        }
    }
}

const fn is_eit(table_id: u8) -> bool {
    matches!(table_id, 0x4e | 0x4f)
}

const fn indicator(table_id: u8) -> Option<(Indicator, Pid)> {
    match table_id {
        0x41 => Some((Indicator::NitOtherError, Pid::NIT)),
        0x46 => Some((Indicator::SdtOtherError, Pid::SDT)),
        0x4f => Some((Indicator::EitOtherError, Pid::EIT)),
        _ => None,
    }
}

const fn limit(table_id: u8) -> Duration {
    if table_id == 0x4e { ACTUAL_MAX } else { OTHER_MAX }
}

const TABLES: [u8; 4] = [0x41, 0x46, 0x4e, 0x4f];
/// TR 101 290 3.6a.
const ACTUAL_MAX: Duration = Duration::from_secs(2);
/// TR 101 290 3.1b, 3.5b, 3.6b: 10 s or more.
const OTHER_MAX: Duration = Duration::from_secs(10);
/// Judgement: a tenth of the shortest limit would be more exact, and ten times the work.
const REVIEW_INTERVAL: Duration = Duration::from_secs(1);
/// Judgement: two sections for each of 2,000 services, of all multiplexes of a network.
const SECTIONS_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_of_present_and_following_alone_is_told_once() {
        let (mut tables, mut indicators) = (SubTables::default(), Indicators::default());
        for s in 0..20 {
            tables.handle_section(at(s), &section(0x4e, 7, 0));
            tables.handle_section(at(s), &section(0x4e, 8, 0));
            tables.handle_section(at(s), &section(0x4e, 8, 1));
            tables.review(at(s), &mut indicators);
        }
        assert_eq!(indicators.of(Indicator::EitPfError).errors, 1);
        assert_eq!(indicators.of(Indicator::EitOtherError).errors, 0);
        assert!(tables.has(0x4e) && !tables.has(0x4f));
    }

    #[test]
    fn tables_of_others_that_do_not_come_again_are_told() {
        for (table_id, indicator) in
            [(0x41, Indicator::NitOtherError), (0x46, Indicator::SdtOtherError), (0x4f, Indicator::EitOtherError)]
        {
            let (mut tables, mut indicators) = (SubTables::default(), Indicators::default());
            for s in 0..60 {
                // Number 1 only until 30 s.
                for number in 0..if s < 30 { 2 } else { 1 } {
                    tables.handle_section(at(s), &section(table_id, 7, number));
                }
                tables.review(at(s), &mut indicators);
            }
            assert_eq!(indicators.of(indicator).errors, 1, "{table_id:x}");
        }
    }

    #[test]
    fn a_flood_of_tables_is_bounded_and_counted() {
        let mut tables = SubTables::default();
        for service in 0..10_000 {
            tables.handle_section(at(1), &section(0x4f, service, 0));
        }
        assert_eq!((tables.sections.len(), tables.unwatched()), (SECTIONS_MAX, 10_000 - SECTIONS_MAX as u64));
    }

    fn section(table_id: u8, extension: u16, number: u8) -> LongSection<'static> {
        let body = &[0, 1, 0, 1, 1, 0x4e];
        LongSection { table_id, extension, version: 0, is_current: true, number, last_number: 1, body, crc: 0 }
    }

    fn at(s: u64) -> Time {
        Time::from_ns(s * 1_000_000_000)
    }
}
