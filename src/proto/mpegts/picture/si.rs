//! Service information of the test picture (ETSI EN 300 468, here "EN 300 468"): NIT, EIT and TDT, so that receivers and
//! analysers miss nothing.

use std::time::Duration;

use arrayvec::ArrayVec;

use crate::proto::mpegts::Pid;
use crate::proto::mpegts::mux::Names;
use crate::proto::mpegts::mux::tables::{ORIGINAL_NETWORK, push_name};
use crate::proto::mpegts::psi::{Section, finish, length_field, start};

/// Sections are sent on a grid of half seconds; this is what of them is due at the `n`th, at that time since 1970.
///
/// | table | every | at most (TR 101 290 5.2.3) |
/// |---|---|---|
/// | EIT, now and next, half a second apart | 1 s | 2 s |
/// | NIT | 2 s | 10 s |
/// | TDT | 10 s | 30 s |
pub(super) fn due(n: u64, names: &Names, since_1970: Duration) -> ArrayVec<(Pid, Section), 3> {
    let seconds = since_1970.as_secs();
    let mut due = ArrayVec::new();
    due.push((Pid::EIT, eit(names, seconds, n % 2 == 1)));
    if n.is_multiple_of(4) {
        due.push((Pid::NIT, nit(names)));
    }
    if n.is_multiple_of(20) {
        due.push((Pid::TDT, tdt(seconds)));
    }
    due
}

/// EN 300 468 5.2.1: one network with this stream.
fn nit(names: &Names) -> Section {
    let mut section = start(0x40, ORIGINAL_NETWORK, 0);
    let mut name: ArrayVec<u8, 255> = ArrayVec::new();
    push_name(&mut name, &names.provider);
    // network_name_descriptor, which has the name's length for its own (EN 300 468 6.2.27).
    section.extend(length_field(0xf000, name.len() + 1));
    section.push(0x40);
    section.extend(name);
    section.extend(length_field(0xf000, 6 + 5));
    section.extend(names.stream_id.to_be_bytes());
    section.extend(ORIGINAL_NETWORK.to_be_bytes());
    // service_list_descriptor with the one service, digital television (EN 300 468 6.2.35).
    section.extend(length_field(0xf000, 5));
    section.extend([0x41, 3]);
    section.extend(names.program.to_be_bytes());
    section.push(0x01);
    finish(section, 0xf000)
}

/// EN 300 468 5.2.4: an event an hour, from the full hour on; the present one, or the one that follows.
fn eit(names: &Names, seconds: u64, is_next: bool) -> Section {
    let hour = seconds / 3_600;
    let mut section = start(0x4e, names.program, (hour % 32) as u8);
    // section_number and last_section_number.
    section[6..8].copy_from_slice(&[u8::from(is_next), 1]);
    section.extend(names.stream_id.to_be_bytes());
    section.extend(ORIGINAL_NETWORK.to_be_bytes());
    section.extend([1, 0x4e]);
    let event = hour + u64::from(is_next);
    section.extend((event as u16).to_be_bytes());
    section.extend(utc(event * 3_600));
    section.extend([0x01, 0x00, 0x00]); // one hour
    let mut descriptor: ArrayVec<u8, 255> = ArrayVec::new();
    descriptor.extend(*b"und");
    push_name(&mut descriptor, &names.service);
    descriptor.push(0);
    // Running, or starting in a few seconds; in the clear. Then a short_event_descriptor (EN 300 468 6.2.37).
    section.extend(length_field(if is_next { 0x2000 } else { 0x8000 }, descriptor.len() + 2));
    section.extend([0x4d, descriptor.len() as u8]);
    section.extend(descriptor);
    finish(section, 0xf000)
}

/// EN 300 468 5.2.5: neither version nor CRC.
fn tdt(seconds: u64) -> Section {
    let mut section = Section::from_iter([0x70, 0x70, 5]);
    section.extend(utc(seconds));
    section
}

/// EN 300 468 annex C: modified Julian date, then hours, minutes and seconds in decimal digits of four bits.
fn utc(seconds: u64) -> [u8; 5] {
    let [high, low] = ((seconds / 86_400 + MJD_OF_1970) as u16).to_be_bytes();
    let digits = |number: u64| ((number / 10 % 10) * 16 + number % 10) as u8;
    [high, low, digits(seconds / 3_600 % 24), digits(seconds / 60 % 60), digits(seconds % 60)]
}

const MJD_OF_1970: u64 = 40_587;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::mpegts::psi::crc32;
    use crate::proto::mpegts::section::LongSection;

    #[test]
    fn time_is_written_as_in_the_standards_example() {
        // EN 300 468 annex C: 93/10/13 12:45:00 is 0xc079124500.
        assert_eq!(utc(750_516_300), [0xc0, 0x79, 0x12, 0x45, 0x00]);
        assert_eq!(tdt(750_516_300)[..], [0x70, 0x70, 5, 0xc0, 0x79, 0x12, 0x45, 0x00]);
    }

    #[test]
    fn every_table_comes_in_time_and_is_whole() {
        let names = Names { service: "Prüfbild".into(), ..Names::default() };
        let mut counts = [0; 3];
        for n in 0..20 {
            for (pid, section) in due(n, &names, Duration::from_secs(1_700_000_000)) {
                let slot = [Pid::EIT, Pid::NIT, Pid::TDT].iter().position(|known| *known == pid).unwrap();
                counts[slot] += 1;
                if pid != Pid::TDT {
                    assert_eq!(crc32(&section), 0);
                    let parsed = LongSection::parse(&section).unwrap();
                    assert_eq!(u64::from(parsed.number), if pid == Pid::EIT { n % 2 } else { 0 });
                }
            }
        }
        assert_eq!(counts, [20, 5, 1]);
    }
}
