//! Sections of tables: put together from TS packets, checked, and split into their fields (13818-1 2.4.4).

use super::psi::crc32;

/// Puts the sections of one PID together. Owns a buffer of one section, 4,096 bytes at most; a section that lies within one
/// TS packet is not copied.
#[derive(Clone, Debug, Default)]
pub struct Assembler {
    /// The section's beginning; empty if none is under way.
    buffer: Vec<u8>,
}

impl Assembler {
    /// Takes in the payload of the PID's next TS packet and hands out the sections that are whole, `table_id` to CRC. They
    /// are not checked. After a loss call [`Assembler::reset`] before.
    pub fn push(&mut self, payload: &[u8], unit_start: bool, mut each: impl FnMut(&[u8])) {
        if !unit_start {
            if !self.buffer.is_empty() {
                self.go_on(payload, &mut each);
            }
            return;
        }
        // pointer_field: how much of the last section is left (13818-1 2.4.4.1).
        let Some((&pointer, rest)) = payload.split_first() else { return };
        let Some((end_of_last, mut rest)) = rest.split_at_checked(usize::from(pointer)) else {
            return self.reset();
        };
        if !self.buffer.is_empty() {
            self.go_on(end_of_last, &mut each);
            self.buffer.clear();
        }
        while rest.first().is_some_and(|table_id| *table_id != STUFFING) {
            let whole = section_len(rest).and_then(|len| rest.split_at_checked(len));
            let Some((section, behind)) = whole else {
                self.buffer.extend_from_slice(rest);
                return;
            };
            each(section);
            rest = behind;
        }
    }

    /// Forgets the section under way: part of it was lost.
    pub fn reset(&mut self) {
        self.buffer.clear();
    }

    fn go_on(&mut self, payload: &[u8], each: &mut impl FnMut(&[u8])) {
        let mut payload = payload;
        // The length may itself be cut in two.
        while section_len(&self.buffer).is_none() {
            let Some((byte, rest)) = payload.split_first() else { return };
            self.buffer.push(*byte);
            payload = rest;
        }
        let Some(missing) = section_len(&self.buffer).and_then(|len| len.checked_sub(self.buffer.len())) else {
            return self.reset();
        };
        self.buffer.extend_from_slice(&payload[..missing.min(payload.len())]);
        if missing <= payload.len() {
            each(&self.buffer);
            self.buffer.clear();
        }
    }
}

/// One section, checked and split. Private sections and TDT have no version and no CRC and are not this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongSection<'a> {
    /// Which table.
    pub table_id: u8,
    /// `transport_stream_id`, `program_number` or what the table has there.
    pub extension: u16,
    /// Five bits.
    pub version: u8,
    /// Whether it applies now, not next.
    pub is_current: bool,
    /// `section_number`.
    pub number: u8,
    /// `last_section_number`.
    pub last_number: u8,
    /// What stands between header and CRC.
    pub body: &'a [u8],
    /// The CRC at its end, which fits. Tells changed sections from repeated ones.
    pub crc: u32,
}

impl<'a> LongSection<'a> {
    /// Reads a section from `table_id` to CRC.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(section: &'a [u8]) -> Result<Self, SectionError> {
        let Some(([table_id, b1, _, e1, e2, version, number, last_number], rest)) = section.split_first_chunk::<8>()
        else {
            return Err(SectionError::Truncated);
        };
        let Some((body, crc)) = rest.split_last_chunk::<4>() else {
            return Err(SectionError::Truncated);
        };
        if b1 & 0x80 == 0 {
            return Err(SectionError::Syntax);
        }
        if section_len(section) != Some(section.len()) {
            return Err(SectionError::Truncated);
        }
        if crc32(section) != 0 {
            return Err(SectionError::Crc);
        }
        Ok(Self {
            table_id: *table_id,
            extension: u16::from_be_bytes([*e1, *e2]),
            version: version >> 1 & 0x1f,
            is_current: version & 1 != 0,
            number: *number,
            last_number: *last_number,
            body,
            crc: u32::from_be_bytes(*crc),
        })
    }
}

/// Why bytes are no section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SectionError {
    /// Its length disagrees with what there is.
    #[error("section of a wrong length")]
    Truncated,
    /// `section_syntax_indicator` is not set.
    #[error("section without the long form's header")]
    Syntax,
    /// The CRC does not fit.
    #[error("section with a wrong CRC")]
    Crc,
}

/// Length of the section that starts here, its three first bytes included; `None` if they are not there.
fn section_len(section: &[u8]) -> Option<usize> {
    let [_, high, low] = section.first_chunk::<3>()?;
    Some(3 + usize::from(u16::from_be_bytes([high & 0x0f, *low])))
}

/// What fills the rest of a packet in place of a `table_id` (13818-1 2.4.4.1).
const STUFFING: u8 = 0xff;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::packet::Pid;
    use super::super::psi::{Pat, Section};
    use super::*;

    #[test]
    fn a_section_in_one_packet_and_one_in_many_are_found() {
        let programs: Vec<(u16, Pid)> = (1..=100).map(|n| (n, Pid::from_low_bits(n + 0x100))).collect();
        let (short, long) = (pat(&programs[..2]), pat(&programs));
        let packets = packets_of(&[&short, &long, &short]);
        assert_eq!(sections(&packets), [&short[..], &long, &short]);
        let parsed = LongSection::parse(&long).unwrap();
        assert_eq!((parsed.table_id, parsed.extension, parsed.version, parsed.is_current), (0, 7, 3, true));
        assert_eq!(parsed.body.len(), 400);
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_refused() {
        let section = pat(&[(1, Pid::from_low_bits(0x100))]);
        for len in 0..section.len() {
            assert!(LongSection::parse(&section[..len]).is_err());
        }
        for bit in 0..section.len() * 8 {
            let mut broken = section.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert!(LongSection::parse(&broken).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_loss_costs_the_section_and_no_more() {
        let programs: Vec<(u16, Pid)> = (1..=100).map(|n| (n, Pid::from_low_bits(n))).collect();
        let long = pat(&programs);
        let packets = packets_of(&[&long, &long]);
        let mut assembler = Assembler::default();
        let mut found = Vec::new();
        for (n, (payload, unit_start)) in packets.iter().enumerate() {
            if n == 1 {
                assembler.reset();
                continue;
            }
            assembler.push(payload, *unit_start, |section| found.push(section.to_vec()));
        }
        assert_eq!(found, [long.to_vec()]);
    }

    proptest! {
        #[test]
        fn any_payloads_are_survived_and_memory_stays_bounded(
            payloads in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..184), any::<bool>()), 0..60)
        ) {
            let mut assembler = Assembler::default();
            for (payload, unit_start) in payloads {
                assembler.push(&payload, unit_start, |section| {
                    assert!(section.len() <= 4_098);
                    let _ = LongSection::parse(section);
                });
                prop_assert!(assembler.buffer.len() <= 4_098);
            }
        }

        #[test]
        fn sections_of_any_length_arrive(counts in proptest::collection::vec(0_u16..250, 1..10)) {
            let programs: Vec<(u16, Pid)> = (0..250).map(|n| (n, Pid::from_low_bits(n))).collect();
            let pats: Vec<Section> = counts.iter().map(|count| pat(&programs[..usize::from(*count)])).collect();
            let all: Vec<&Section> = pats.iter().collect();
            prop_assert_eq!(sections(&packets_of(&all)), pats.iter().map(|pat| pat.to_vec()).collect::<Vec<_>>());
        }
    }

    fn pat(programs: &[(u16, Pid)]) -> Section {
        Pat { stream_id: 7, version: 3, programs }.section()
    }

    fn sections(packets: &[(Vec<u8>, bool)]) -> Vec<Vec<u8>> {
        let mut assembler = Assembler::default();
        let mut found = Vec::new();
        for (payload, unit_start) in packets {
            assembler.push(payload, *unit_start, |section| found.push(section.to_vec()));
        }
        found
    }

    /// Payloads of 184 bytes: sections right behind each other, and stuffing at the end.
    fn packets_of(sections: &[&Section]) -> Vec<(Vec<u8>, bool)> {
        let mut starts = Vec::new();
        let mut bytes = Vec::new();
        for section in sections {
            starts.push(bytes.len());
            bytes.extend_from_slice(section);
        }
        let mut packets = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            // With a pointer there is room for 183 bytes.
            let start = starts.iter().copied().find(|start| (at..at + 183).contains(start));
            let mut payload = start.map(|start| vec![(start - at) as u8]).unwrap_or_default();
            // One that would start in the last byte waits for the next packet, which has a pointer.
            let room = if start.is_none() && starts.contains(&(at + 183)) { 183 } else { 184 - payload.len() };
            let take = room.min(bytes.len() - at);
            payload.extend(&bytes[at..at + take]);
            if at + take == bytes.len() {
                payload.resize(184, 0xff);
            }
            at += take;
            packets.push((payload, start.is_some()));
        }
        packets
    }
}
