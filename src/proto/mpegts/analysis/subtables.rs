//! `SubTables`: tables of which there is one for each service or network, and that have to come again section by section.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use super::indicator::{Indicator, Indicators, State};
use super::judge::EIT_MAX;
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
type Key = (u8, u16, u32, u8);

#[derive(Clone, Copy, Debug)]
struct Seen {
    last: Time,
    /// When its other half came last, if there is one; or since when it is there, if that is later.
    alone_since: Time,
    /// It has been counted that it did not come again.
    is_missing: bool,
    /// It has been counted that its other half is missing.
    is_half_told: bool,
}

impl SubTables {
    pub(super) fn handle_section(&mut self, now: Time, section: &LongSection<'_>) {
        let Some(at) = TABLES.iter().position(|table| *table == section.table_id) else { return };
        self.seen[at] = true;
        let LongSection { table_id, extension, number, last_number, .. } = *section;
        let of = owner(section);
        if !is_eit(table_id) {
            self.drop_behind((table_id, extension, of, number.max(last_number)));
        }
        if is_half(table_id, number)
            && let Some(other) = self.sections.get_mut(&(table_id, extension, of, 1 - number))
        {
            other.alone_since = now;
        }
        let key = (table_id, extension, of, number);
        if let Some(seen) = self.sections.get_mut(&key) {
            if now.since(seen.last) > limit(table_id) {
                seen.alone_since = now;
            }
            (seen.last, seen.is_missing) = (now, false);
        } else if self.sections.len() < SECTIONS_MAX {
            self.sections.insert(key, Seen { last: now, alone_since: now, is_missing: false, is_half_told: false });
        } else {
            self.unwatched += 1;
        }
    }

    /// What a table has no more is not missing.
    fn drop_behind(&mut self, last: Key) {
        let (table_id, extension, of, _) = last;
        let behind = (Bound::Excluded(last), Bound::Included((table_id, extension, of, u8::MAX)));
        while let Some(key) = self.sections.range(behind).next().map(|(key, _)| *key) {
            self.sections.remove(&key);
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
        for seen in self.sections.values_mut() {
            (seen.last, seen.alone_since, seen.is_missing) = (now, now, false);
        }
    }

    /// Counts what did not come again, once, and says that it goes on for as long as it is away. Looks once a second. `coming`
    /// says whether EIT of present events, and of following ones, comes of any service of this stream.
    pub(super) fn review(&mut self, now: Time, coming: [bool; 2], indicators: &mut Indicators) {
        if now < self.review_at {
            return;
        }
        self.review_at = now + REVIEW_INTERVAL;
        let is_full = self.sections.len() >= SECTIONS_MAX;
        self.sections.retain(|(table_id, _, _, number), seen| {
            let (away, limit) = (now.since(seen.last), limit(*table_id));
            // Where both are away none is alone, whichever of them came last.
            let is_alone = is_half(*table_id, *number) && away <= limit && seen.last.since(seen.alone_since) > limit;
            if is_alone {
                go_on(&mut seen.is_half_told, now, (Indicator::EitPfError, Pid::EIT), indicators);
            }
            seen.is_half_told &= is_alone;
            if away <= limit {
                return true;
            }
            let Some((indicator, pid)) = indicator(*table_id) else { return false };
            if *table_id == ACTUAL && coming.get(usize::from(*number)) != Some(&true) {
                // That of all services is away: that is counted for all of them together.
                seen.is_missing = true;
            }
            go_on(&mut seen.is_missing, now, (indicator, pid), indicators);
            away <= forgotten_after(*table_id) && !is_full
        });
    }
}

/// Counts an error that is not told yet, and says that one goes on which is.
fn go_on(is_told: &mut bool, now: Time, (indicator, pid): (Indicator, Pid), indicators: &mut Indicators) {
    if *is_told {
        indicators.touch(now, indicator, State::Error);
    } else {
        *is_told = true;
        indicators.count(now, indicator, Some(pid), 1);
    }
}

/// What tells tables with one `table_id` and extension apart: the network of an SDT's stream (EN 300 468 5.2.3), stream and
/// network of an EIT's service (5.2.4).
fn owner(section: &LongSection<'_>) -> u32 {
    match section.table_id {
        0x46 => section.body.first_chunk().map_or(0, |network| u32::from(u16::from_be_bytes(*network))),
        0x4e | 0x4f => section.body.first_chunk().map_or(0, |owner| u32::from_be_bytes(*owner)),
        _ => 0,
    }
}

const fn is_eit(table_id: u8) -> bool {
    matches!(table_id, 0x4e | 0x4f)
}

/// Whether it is one of the two sections that tell of present and of following events (EN 300 468 5.2.4).
const fn is_half(table_id: u8, number: u8) -> bool {
    is_eit(table_id) && number < 2
}

const fn indicator(table_id: u8) -> Option<(Indicator, Pid)> {
    match table_id {
        0x41 => Some((Indicator::NitOtherError, Pid::NIT)),
        0x46 => Some((Indicator::SdtOtherError, Pid::SDT)),
        ACTUAL => Some((Indicator::EitError, Pid::EIT)),
        0x4f => Some((Indicator::EitOtherError, Pid::EIT)),
        _ => None,
    }
}

const fn limit(table_id: u8) -> Duration {
    if table_id == ACTUAL { EIT_MAX } else { OTHER_MAX }
}

const fn forgotten_after(table_id: u8) -> Duration {
    if table_id == ACTUAL { SERVICE_FORGOTTEN_AFTER } else { FORGOTTEN_AFTER }
}

const TABLES: [u8; 4] = [0x41, 0x46, ACTUAL, 0x4f];
/// EIT of present and following events of this stream.
const ACTUAL: u8 = 0x4e;
/// TR 101 290 3.1b, 3.5b, 3.6b: 10 s or more.
const OTHER_MAX: Duration = Duration::from_millis(10_100);
/// Judgement: a tenth of the shortest limit would be more exact, and ten times the work.
const REVIEW_INTERVAL: Duration = Duration::from_secs(1);
/// Judgement: two sections for each of 2,000 services, of all multiplexes of a network.
const SECTIONS_MAX: usize = 4_096;
/// What has been away for so long, or when there is no more room, is no longer part of the stream. Judgement: long enough that
/// nobody misses the alarm, and a service that was given up does not keep it on for ever.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3_600);
/// The same for the EIT of one service. Judgement: services go off air for the night, and that is no fault.
const SERVICE_FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

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
            tables.review(at(s), BOTH, &mut indicators);
        }
        assert_eq!(indicators.of(Indicator::EitPfError).errors, 1);
        assert_eq!(indicators.of(Indicator::EitOtherError).errors, 0);
        assert!(tables.has(0x4e) && !tables.has(0x4f));
    }

    #[test]
    fn a_service_whose_events_are_away_is_told_while_others_come() {
        for (halves, pf_errors) in [(0..2, 0), (1..2, 1)] {
            let (mut tables, mut indicators) = (SubTables::default(), Indicators::default());
            let mut bad = Vec::new();
            for s in 0..60 {
                for (service, number) in (1..=20).flat_map(|service| [(service, 0), (service, 1)]) {
                    // Of one service, both or the following event alone for half a minute; of all others always.
                    if service != 7 || !halves.contains(&number) || !(10..40).contains(&s) {
                        tables.handle_section(at(s), &section(0x4e, service, number));
                    }
                }
                tables.review(at(s), BOTH, &mut indicators);
                indicators.review(at(s), |_| None);
                bad.extend((indicators.of(Indicator::EitError).state == State::Error).then_some(s));
            }
            // From more than 2 s after it came last to 5 s after it was last away.
            assert_eq!((bad[0], bad.len()), (12, 32), "{bad:?}");
            assert_eq!(indicators.of(Indicator::EitError).errors, halves.len() as u64);
            assert_eq!(indicators.of(Indicator::EitPfError).errors, pf_errors);
        }
    }

    #[test]
    fn what_is_away_of_all_services_is_not_counted_for_each() {
        let (mut tables, mut indicators) = (SubTables::default(), Indicators::default());
        for s in 0..60 {
            for (service, number) in (1..=20).flat_map(|service| [(service, 0), (service, 1)]) {
                // One of them does not come back.
                if s < 10 || (s >= 40 && service != 7) {
                    tables.handle_section(at(s), &section(0x4e, service, number));
                }
            }
            tables.review(at(s), if (10..40).contains(&s) { [false; 2] } else { BOTH }, &mut indicators);
        }
        let eit = indicators.of(Indicator::EitError);
        assert_eq!((eit.errors, eit.state), (0, State::Error));
    }

    /// Half a second apart, so that one of them has been away for longer than the other, and comes back before it.
    #[test]
    fn halves_that_go_away_together_are_none_that_is_alone() {
        for first_review in 0..10 {
            let (mut tables, mut indicators) = (SubTables::default(), Indicators::default());
            for tenth in 0..300 {
                let now = Time::from_ns(tenth * 100_000_000);
                if tenth % 5 == 0 && !(100..200).contains(&tenth) {
                    tables.handle_section(now, &section(0x4e, 7, (tenth / 5 % 2) as u8));
                }
                if tenth >= first_review {
                    tables.review(now, BOTH, &mut indicators);
                }
            }
            assert_eq!(indicators.of(Indicator::EitPfError).errors, 0, "{first_review}");
        }
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
                tables.review(at(s), BOTH, &mut indicators);
            }
            assert_eq!(indicators.of(indicator).errors, 1, "{table_id:x}");
        }
    }

    #[test]
    fn what_is_away_stays_an_error_until_it_is_back_or_its_table_is_shorter() {
        for is_shorter in [false, true] {
            let (mut tables, mut indicators) = (SubTables::default(), Indicators::default());
            let mut bad = Vec::new();
            for s in 0..100 {
                let last_number = u8::from(!is_shorter || s < 60);
                tables.handle_section(at(s), &LongSection { last_number, ..section(0x46, 7, 0) });
                if s < 20 || (s >= 60 && !is_shorter) {
                    tables.handle_section(at(s), &section(0x46, 7, 1));
                }
                tables.review(at(s), BOTH, &mut indicators);
                indicators.review(at(s), |_| None);
                bad.extend((indicators.of(Indicator::SdtOtherError).state == State::Error).then_some(s));
            }
            // From 10 s after it came last to 5 s after it is not missing any more, as of the last review before.
            assert_eq!((bad[0], bad.len()), (30, 34), "{bad:?}");
            assert_eq!(indicators.of(Indicator::SdtOtherError).errors, 1);
        }
    }

    #[test]
    fn what_is_away_for_an_hour_or_has_no_room_is_forgotten() {
        let (mut tables, mut indicators) = (SubTables::default(), Indicators::default());
        tables.handle_section(at(0), &section(0x41, 7, 0));
        for s in 0..3_700 {
            tables.review(at(s), BOTH, &mut indicators);
            indicators.review(at(s), |_| None);
            let is_bad = indicators.of(Indicator::NitOtherError).state == State::Error;
            assert_eq!(is_bad, (11..3_606).contains(&s), "{s}");
        }
        assert!(tables.sections.is_empty());
        for service in 0..5_000 {
            tables.handle_section(at(4_000), &section(0x4f, service, 0));
        }
        tables.review(at(4_011), BOTH, &mut indicators);
        assert!(tables.sections.is_empty());
        assert_eq!(indicators.of(Indicator::EitOtherError).errors, SECTIONS_MAX as u64);
    }

    #[test]
    fn a_half_that_is_alone_again_is_told_again() {
        let (mut tables, mut indicators) = (SubTables::default(), Indicators::default());
        for s in 0..60 {
            tables.handle_section(at(s), &section(0x4e, 7, 0));
            if (20..40).contains(&s) {
                tables.handle_section(at(s), &section(0x4e, 7, 1));
            }
            tables.review(at(s), BOTH, &mut indicators);
            indicators.review(at(s), |_| None);
            let is_bad = indicators.of(Indicator::EitPfError).state == State::Error;
            assert_eq!(is_bad, (3..24).contains(&s) || s >= 42, "{s}");
        }
        assert_eq!(indicators.of(Indicator::EitPfError).errors, 2);
    }

    #[test]
    fn tables_of_several_networks_are_several() {
        for (table_id, indicator) in [(0x46, Indicator::SdtOtherError), (0x4f, Indicator::EitOtherError)] {
            let (mut tables, mut indicators) = (SubTables::default(), Indicators::default());
            for s in 0..30 {
                // The same stream and service of one network, and until 10 s of another.
                let bodies: [&[u8]; 2] =
                    if is_eit(table_id) { [&[0, 1, 0, 1], &[0, 1, 0, 2]] } else { [&[0, 1], &[0, 2]] };
                for body in &bodies[..if s < 10 { 2 } else { 1 }] {
                    for number in 0..2 {
                        tables.handle_section(at(s), &LongSection { body, ..section(table_id, 7, number) });
                    }
                }
                tables.review(at(s), BOTH, &mut indicators);
            }
            assert_eq!(indicators.of(indicator).errors, 2, "{table_id:x}");
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

    /// Present and following events come of some service.
    const BOTH: [bool; 2] = [true; 2];
}
