//! Cues for splicing: what a `splice_info_section` says (ANSI/SCTE 35 2023, here "SCTE 35", clauses 9 and 10).
//!
//! Read are the commands that say when and for how long, `splice_insert` and `time_signal` with its segmentation
//! descriptors; the others are told apart. What is encrypted is only known to be so.

use std::time::Duration;

use super::psi::crc32;
use super::table::descriptors;
use crate::units::Ticks90k;

/// One section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpliceInfo<'a> {
    /// `tier`, 12 bits: who may see it.
    pub tier: u16,
    /// What it says.
    pub command: Command,
    /// `pts_adjustment`, which has been added to all times here.
    pub pts_adjustment: Ticks90k,
    descriptors: &'a [u8],
}

/// `splice_command_type` (SCTE 35 table 7) with what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// A sign of life.
    Null,
    /// Splices at times of the day; not read further.
    Schedule,
    /// Leave the network, or return to it.
    Insert(Insert),
    /// A time that the segmentation descriptors are about; `None` for at once.
    TimeSignal(Option<Ticks90k>),
    /// Only there to keep room.
    BandwidthReservation,
    /// Not public.
    Private,
    /// None of the standard's.
    Reserved(u8),
    /// Everything from the command on is encrypted.
    Encrypted,
}

/// `splice_insert` (SCTE 35 9.7.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insert {
    /// Which event.
    pub event_id: u32,
    /// The event does not take place; nothing else is known then.
    pub is_cancelled: bool,
    /// Out of the network, else back into it.
    pub is_out: bool,
    /// At the nearest opportunity; there is no time.
    pub is_immediate: bool,
    /// When; of several components that of the first.
    pub pts: Option<Ticks90k>,
    /// How long it is planned to be.
    pub duration: Option<Ticks90k>,
    /// At its end it goes back without another cue.
    pub has_auto_return: bool,
    /// `unique_program_id`.
    pub program_id: u16,
}

/// `segmentation_descriptor` (SCTE 35 10.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segmentation {
    /// Which event.
    pub event_id: u32,
    /// The event does not take place; nothing else is known then.
    pub is_cancelled: bool,
    /// `segmentation_type_id`: see [`type_name`].
    pub type_id: u8,
    /// How long the segment is.
    pub duration: Option<Ticks90k>,
    /// `segment_num`.
    pub number: u8,
    /// `segments_expected`.
    pub expected: u8,
}

/// Why bytes are no section of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpliceError {
    /// Another table.
    #[error("not a splice_info_section")]
    TableId,
    /// It ends before what it has to hold, or a length leads beyond its end.
    #[error("splice_info_section is cut short")]
    Truncated,
    /// The CRC does not fit.
    #[error("splice_info_section with a wrong CRC")]
    Crc,
    /// A version of the protocol other than 0.
    #[error("splice_info_section of protocol version {0}")]
    Version(u8),
}

impl<'a> SpliceInfo<'a> {
    /// Reads a section from `table_id` to CRC (SCTE 35 9.6).
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(section: &'a [u8]) -> Result<Self, SpliceError> {
        if section.first().is_some_and(|table_id| *table_id != TABLE_ID_SPLICE_INFO) {
            return Err(SpliceError::TableId);
        }
        let ([_, l1, l2, version, a0, a1, a2, a3, a4, _, t1, t2, c2, command_type], rest) =
            section.split_first_chunk::<14>().ok_or(SpliceError::Truncated)?;
        let (body, _crc) = rest.split_last_chunk::<4>().ok_or(SpliceError::Truncated)?;
        if 3 + usize::from(u16::from_be_bytes([l1 & 0x0f, *l2])) != section.len() {
            return Err(SpliceError::Truncated);
        }
        if crc32(section) != 0 {
            return Err(SpliceError::Crc);
        }
        if *version != 0 {
            return Err(SpliceError::Version(*version));
        }
        let pts_adjustment = read_33_bits([*a0, *a1, *a2, *a3, *a4]);
        let tier = u16::from_be_bytes([*t1, *t2]) >> 4;
        if a0 & 0x80 != 0 {
            return Ok(Self { tier, command: Command::Encrypted, pts_adjustment, descriptors: &[] });
        }
        let length = usize::from(u16::from_be_bytes([t2 & 0x0f, *c2]));
        let mut command = Reader { rest: body };
        // Older senders leave the length out (SCTE 35 9.6.1); then it shows in what was read.
        let behind = if length == LENGTH_UNKNOWN {
            None
        } else {
            let (own, behind) = body.split_at_checked(length).ok_or(SpliceError::Truncated)?;
            command = Reader { rest: own };
            Some(behind)
        };
        let parsed = command.read_command(*command_type, pts_adjustment).ok_or(SpliceError::Truncated)?;
        let mut loops = Reader { rest: behind.unwrap_or(command.rest) };
        let is_legible = behind.is_some() || command.is_read_through(&parsed);
        let descriptors = if is_legible { loops.loop_of_descriptors().ok_or(SpliceError::Truncated)? } else { &[] };
        Ok(Self { tier, command: parsed, pts_adjustment, descriptors })
    }

    /// The segmentation descriptors. Ends early where a length is wrong; one that is too short for itself is left out.
    pub fn segmentations(&self) -> impl Iterator<Item = Segmentation> + use<'a> {
        descriptors(self.descriptors).filter_map(|(tag, content)| read_segmentation(tag, content))
    }
}

/// Reads fields one behind the other.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn read_command(&mut self, command_type: u8, adjustment: Ticks90k) -> Option<Command> {
        Some(match command_type {
            0x00 => Command::Null,
            0x04 => Command::Schedule,
            0x05 => Command::Insert(self.read_insert(adjustment)?),
            0x06 => Command::TimeSignal(self.splice_time(adjustment)?),
            0x07 => Command::BandwidthReservation,
            0xff => Command::Private,
            other => Command::Reserved(other),
        })
    }

    /// Whether what is left begins behind the command.
    const fn is_read_through(&self, command: &Command) -> bool {
        !matches!(command, Command::Schedule | Command::Private | Command::Reserved(_) | Command::Encrypted)
    }

    fn read_insert(&mut self, adjustment: Ticks90k) -> Option<Insert> {
        let [e0, e1, e2, e3, cancel] = self.take()?;
        let mut insert = Insert {
            event_id: u32::from_be_bytes([e0, e1, e2, e3]),
            is_cancelled: cancel & 0x80 != 0,
            is_out: false,
            is_immediate: false,
            pts: None,
            duration: None,
            has_auto_return: false,
            program_id: 0,
        };
        if insert.is_cancelled {
            return Some(insert);
        }
        let [flags] = self.take()?;
        insert.is_out = flags & 0x80 != 0;
        insert.is_immediate = flags & 0x10 != 0;
        if flags & 0x40 != 0 {
            if !insert.is_immediate {
                insert.pts = self.splice_time(adjustment)?;
            }
        } else {
            let [components] = self.take()?;
            for _ in 0..components {
                let [_tag] = self.take()?;
                if !insert.is_immediate {
                    let pts = self.splice_time(adjustment)?;
                    insert.pts = insert.pts.or(pts);
                }
            }
        }
        if flags & 0x20 != 0 {
            let duration: [u8; 5] = self.take()?;
            insert.has_auto_return = duration[0] & 0x80 != 0;
            insert.duration = Some(read_33_bits(duration));
        }
        let [p1, p2, _avail, _expected] = self.take()?;
        insert.program_id = u16::from_be_bytes([p1, p2]);
        Some(insert)
    }

    /// `splice_time` (SCTE 35 9.8.1); within it `None` if no time is said.
    fn splice_time(&mut self, adjustment: Ticks90k) -> Option<Option<Ticks90k>> {
        let first = *self.rest.first()?;
        if first & 0x80 == 0 {
            self.take::<1>()?;
            return Some(None);
        }
        let Ticks90k(pts) = read_33_bits(self.take()?);
        Some(Some(Ticks90k((pts + adjustment.0) % PTS_MODULUS_90K)))
    }

    fn loop_of_descriptors(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(u16::from_be_bytes(self.take()?));
        self.rest.get(..length)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*bytes)
    }
}

fn read_segmentation(tag: u8, content: &[u8]) -> Option<Segmentation> {
    let rest = content.strip_prefix(b"CUEI").filter(|_| tag == TAG_SEGMENTATION)?;
    let mut reader = Reader { rest };
    let [e0, e1, e2, e3, cancel] = reader.take()?;
    let mut found = Segmentation {
        event_id: u32::from_be_bytes([e0, e1, e2, e3]),
        is_cancelled: cancel & 0x80 != 0,
        type_id: 0,
        duration: None,
        number: 0,
        expected: 0,
    };
    if found.is_cancelled {
        return Some(found);
    }
    let [flags] = reader.take()?;
    if flags & 0x80 == 0 {
        let [components] = reader.take()?;
        for _ in 0..components {
            // A tag and an offset of 33 bits.
            reader.take::<6>()?;
        }
    }
    if flags & 0x40 != 0 {
        let [d0, d1, d2, d3, d4] = reader.take()?;
        found.duration = Some(Ticks90k(u64::from_be_bytes([0, 0, 0, d0, d1, d2, d3, d4])));
    }
    let [_upid_type, upid_bytes] = reader.take()?;
    reader.rest = reader.rest.get(usize::from(upid_bytes)..)?;
    [found.type_id, found.number, found.expected] = reader.take()?;
    Some(found)
}

/// What a `segmentation_type_id` is called (SCTE 35 table 23); `None` for one that is reserved.
#[must_use]
pub const fn type_name(type_id: u8) -> Option<&'static str> {
    Some(match type_id {
        0x00 => "Not Indicated",
        0x01 => "Content Identification",
        0x02 => "Private",
        0x10 => "Program Start",
        0x11 => "Program End",
        0x12 => "Program Early Termination",
        0x13 => "Program Breakaway",
        0x14 => "Program Resumption",
        0x15 => "Program Runover Planned",
        0x16 => "Program Runover Unplanned",
        0x17 => "Program Overlap Start",
        0x18 => "Program Blackout Override",
        0x19 => "Program Join",
        0x20 => "Chapter Start",
        0x21 => "Chapter End",
        0x22 => "Break Start",
        0x23 => "Break End",
        0x24 => "Opening Credit Start",
        0x25 => "Opening Credit End",
        0x26 => "Closing Credit Start",
        0x27 => "Closing Credit End",
        0x30 => "Provider Advertisement Start",
        0x31 => "Provider Advertisement End",
        0x32 => "Distributor Advertisement Start",
        0x33 => "Distributor Advertisement End",
        0x34 => "Provider Placement Opportunity Start",
        0x35 => "Provider Placement Opportunity End",
        0x36 => "Distributor Placement Opportunity Start",
        0x37 => "Distributor Placement Opportunity End",
        0x38 => "Provider Overlay Placement Opportunity Start",
        0x39 => "Provider Overlay Placement Opportunity End",
        0x3a => "Distributor Overlay Placement Opportunity Start",
        0x3b => "Distributor Overlay Placement Opportunity End",
        0x3c => "Provider Promo Start",
        0x3d => "Provider Promo End",
        0x3e => "Distributor Promo Start",
        0x3f => "Distributor Promo End",
        0x40 => "Unscheduled Event Start",
        0x41 => "Unscheduled Event End",
        0x42 => "Alternate Content Opportunity Start",
        0x43 => "Alternate Content Opportunity End",
        0x44 => "Provider Ad Block Start",
        0x45 => "Provider Ad Block End",
        0x46 => "Distributor Ad Block Start",
        0x47 => "Distributor Ad Block End",
        0x50 => "Network Start",
        0x51 => "Network End",
        _ => return None,
    })
}

/// Whether a segment of this type is a break, and whether it begins (true) or ends: breaks, advertisements, placement
/// opportunities and ad blocks. Programmes, chapters, overlays and promos leave nothing.
#[must_use]
pub const fn is_break_start(type_id: u8) -> Option<bool> {
    match type_id {
        0x22 | 0x30 | 0x32 | 0x34 | 0x36 | 0x44 | 0x46 => Some(true),
        0x23 | 0x31 | 0x33 | 0x35 | 0x37 | 0x45 | 0x47 => Some(false),
        _ => None,
    }
}

/// Ticks as a span.
#[must_use]
pub(super) fn to_span(ticks: Ticks90k) -> Duration {
    // No more than 40 bits.
    Duration::from_nanos((u128::from(ticks.0) * 100_000 / 9) as u64)
}

/// The lower 33 of 40 bits.
fn read_33_bits(bytes: [u8; 5]) -> Ticks90k {
    let [b0, b1, b2, b3, b4] = bytes;
    Ticks90k(u64::from_be_bytes([0, 0, 0, b0 & 1, b1, b2, b3, b4]))
}

/// The body of the fuzz target `scte35`, which tests call as well: any bytes as a section, and with a length and a CRC that
/// fit.
///
/// # Panics
/// If a time has more bits than it may.
pub fn check_any_bytes(bytes: &[u8]) {
    let _ = SpliceInfo::parse(bytes);
    let mut section = bytes.to_vec();
    section.truncate(SECTION_BYTES_MAX);
    if section.len() < 4 {
        return;
    }
    let length = section.len() - 3;
    section[0] = TABLE_ID_SPLICE_INFO;
    section[1..3].copy_from_slice(&(0x3000 | length as u16).to_be_bytes());
    let at = section.len() - 4;
    let crc = crc32(&section[..at]);
    section[at..].copy_from_slice(&crc.to_be_bytes());
    let Ok(info) = SpliceInfo::parse(&section) else { return };
    let pts = match info.command {
        Command::Insert(insert) => insert.pts,
        Command::TimeSignal(pts) => pts,
        Command::Null
        | Command::Schedule
        | Command::BandwidthReservation
        | Command::Private
        | Command::Reserved(_)
        | Command::Encrypted => None,
    };
    assert!(pts.is_none_or(|pts| pts.0 < PTS_MODULUS_90K) && info.tier < 0x1000);
    assert!(info.segmentations().count() <= section.len() / 11);
    assert!(info.segmentations().all(|found| found.duration.is_none_or(|span| span.0 < 1 << 40)));
}

pub(super) const TABLE_ID_SPLICE_INFO: u8 = 0xfc;
const TAG_SEGMENTATION: u8 = 0x02;
const LENGTH_UNKNOWN: usize = 0xfff;
const PTS_MODULUS_90K: u64 = 1 << 33;
/// A `section_length` of 4,093 (SCTE 35 9.6.1) and the three bytes up to it.
const SECTION_BYTES_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The samples of SCTE 35 clause 14, with the values that it gives there: the section, its PTS, and of each descriptor
    /// event, type, number and duration.
    #[test]
    fn samples_of_the_standard_are_read_as_it_says() {
        for (hex, pts, expected) in SAMPLES {
            let bytes = unhex(hex);
            let info = SpliceInfo::parse(&bytes).unwrap();
            assert_eq!((info.tier, info.pts_adjustment), (0xfff, Ticks90k(0)));
            assert_eq!(info.command, Command::TimeSignal(Some(Ticks90k(*pts))), "{hex}");
            let found: Vec<_> = info
                .segmentations()
                .map(|found| (found.event_id, found.type_id, found.number, found.duration.map(|span| span.0)))
                .collect();
            assert_eq!(found, *expected, "{hex}");
        }
        let bytes = unhex(INSERT);
        let info = SpliceInfo::parse(&bytes).unwrap();
        let expected = Insert {
            event_id: 0x4800_008f,
            is_cancelled: false,
            is_out: true,
            is_immediate: false,
            pts: Some(Ticks90k(0x0_7369_c02e)),
            duration: Some(Ticks90k(0x52_ccf5)),
            has_auto_return: true,
            program_id: 0,
        };
        assert_eq!(info.command, Command::Insert(expected));
        assert_eq!(info.segmentations().count(), 0, "an avail_descriptor is none");
        // 60.293567 s.
        assert_eq!(to_span(Ticks90k(0x52_ccf5)).as_micros(), 60_293_566);
    }

    /// Cues that the tests of scte35-go (github.com/Comcast/scte35-go) have with their values.
    #[test]
    fn cues_from_the_field_are_read_as_another_library_reads_them() {
        let bytes = unhex(
            "fc303100000000000000fff01405400087ae7feffed005912bfe005265c0002d007f000c010a43554549509f3531392aa39ffe80",
        );
        let info = SpliceInfo::parse(&bytes).unwrap();
        let Command::Insert(insert) = info.command else { panic!("{info:?}") };
        assert_eq!((insert.event_id, insert.pts), (1_073_776_558, Some(Ticks90k(3_490_025_771))));
        assert_eq!((insert.duration, insert.program_id), (Some(Ticks90k(5_400_000)), 45));
        let bytes = unhex(
            "fc304800000000000000fff00506ffb41ebb860032021743554549400001127f9f0808000000002f313c0535000002174355\
             4549400000457f9f0808000000002f313cde2300001f88e3c4",
        );
        let info = SpliceInfo::parse(&bytes).unwrap();
        assert_eq!(info.command, Command::TimeSignal(Some(Ticks90k(7_316_880_262))));
        let found: Vec<_> = info.segmentations().map(|found| (found.event_id, found.type_id)).collect();
        assert_eq!(found, [(1_073_742_098, 53), (1_073_741_893, 35)]);
    }

    #[test]
    fn times_are_adjusted_and_wrap() {
        let mut bytes = unhex(SAMPLES[0].0);
        bytes[4..9].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0xff]);
        seal(&mut bytes);
        let info = SpliceInfo::parse(&bytes).unwrap();
        assert_eq!(info.command, Command::TimeSignal(Some(Ticks90k(SAMPLES[0].1 - 1))));
    }

    #[test]
    fn a_length_that_is_left_out_shows_in_the_command() {
        let mut bytes = unhex(SAMPLES[0].0);
        (bytes[11], bytes[12]) = (bytes[11] | 0x0f, 0xff);
        seal(&mut bytes);
        assert_eq!(SpliceInfo::parse(&bytes).unwrap().segmentations().count(), 1);
    }

    #[test]
    fn what_is_encrypted_cancelled_or_immediate_is_told() {
        let mut bytes = unhex(INSERT);
        bytes[4] |= 0x80;
        seal(&mut bytes);
        assert_eq!(SpliceInfo::parse(&bytes).unwrap().command, Command::Encrypted);
        let insert = |body: &[u8]| {
            let mut bytes = unhex("fc30000000000000000000fff00005");
            bytes.truncate(14);
            (bytes[10], bytes[11], bytes[12], bytes[13]) = (0xff, 0xf0, body.len() as u8, 5);
            bytes.extend(body);
            bytes.extend([0; 6]);
            bytes[2] = (bytes.len() - 3) as u8;
            seal(&mut bytes);
            let Command::Insert(insert) = SpliceInfo::parse(&bytes).unwrap().command else { panic!("{bytes:?}") };
            insert
        };
        assert!(insert(&[0, 0, 0, 9, 0x80]).is_cancelled);
        let immediate = insert(&[0, 0, 0, 9, 0x7f, 0x5f, 0, 1, 0, 0]);
        assert_eq!((immediate.is_immediate, immediate.is_out, immediate.pts), (true, false, None));
        // Two components, the second with a time.
        let parts = insert(&[0, 0, 0, 9, 0x7f, 0x8f, 2, 1, 0x7f, 2, 0xfe, 0, 0, 0, 7, 0, 1, 0, 0]);
        assert_eq!((parts.pts, parts.program_id), (Some(Ticks90k(7)), 1));
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_refused() {
        let bytes = unhex(SAMPLES[6].0);
        for len in 0..bytes.len() {
            assert!(SpliceInfo::parse(&bytes[..len]).is_err());
        }
        for bit in 0..bytes.len() * 8 {
            let mut broken = bytes.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert!(SpliceInfo::parse(&broken).is_err(), "bit {bit}");
        }
        for (hex, ..) in SAMPLES {
            let bytes = unhex(hex);
            (0..=bytes.len()).for_each(|len| check_any_bytes(&bytes[..len]));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            check_any_bytes(&bytes);
        }

        #[test]
        fn changed_samples_are_survived(
            which in 0_usize..7, edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)
        ) {
            let mut bytes = unhex(SAMPLES[which].0);
            for (at, byte) in edits {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            check_any_bytes(&bytes);
        }
    }

    fn seal(section: &mut [u8]) {
        let at = section.len() - 4;
        let crc = crc32(&section[..at]);
        section[at..].copy_from_slice(&crc.to_be_bytes());
    }

    fn unhex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    /// Event, type, number and duration of a segmentation descriptor.
    type Expected = (u32, u8, u8, Option<u64>);

    const SAMPLES: &[(&str, u64, &[Expected])] = &[
        (
            "fc3034000000000000fffff00506fe72bd0050001e021c435545494800008e7fcf0001a599b00808000000002ca0a18a3402009ac9d17e",
            0x0_72bd_0050,
            &[(0x4800_008e, 0x34, 2, Some(0x1a5_99b0))],
        ),
        (
            "fc302f000000000000fffff00506fe746290a000190217435545494800008e7f9f0808000000002ca0a18a350200a9cc6758",
            0x0_7462_90a0,
            &[(0x4800_008e, 0x35, 2, None)],
        ),
        (
            "fc3048000000000000fffff00506fe7a4d88b60032021743554549480000187f9f0808000000002ccbc344110000021743554549480000197f9f0808000000002ca4dba01000009972e343",
            0x0_7a4d_88b6,
            &[(0x4800_0018, 0x11, 0, None), (0x4800_0019, 0x10, 0, None)],
        ),
        (
            "fc302f000000000000fffff00506feaebfff640019021743554549480000087f9f0808000000002ca56cf5170000951db0a8",
            0x0_aebf_ff64,
            &[(0x4800_0008, 0x17, 0, None)],
        ),
        (
            "fc3048000000000000fffff00506fe932e380b00320217435545494800000a7f9f0808000000002ca0a1e3180000021743554549480000097f9f0808000000002ca0a18a110000b4217eb0",
            0x0_932e_380b,
            &[(0x4800_000a, 0x18, 0, None), (0x4800_0009, 0x11, 0, None)],
        ),
        (
            "fc302f000000000000fffff00506feaef17c4c0019021743554549480000077f9f0808000000002ca56c97110000c4876a2e",
            0x0_aef1_7c4c,
            &[(0x4800_0007, 0x11, 0, None)],
        ),
        (
            "fc3061000000000000fffff00506fea8cd44ed004b021743554549480000ad7f9f0808000000002cb2d79d350200021743554549480000267f9f0808000000002cb2d79d110000021743554549480000277f9f0808000000002cb2d7b31000008a18869f",
            0x0_a8cd_44ed,
            &[(0x4800_00ad, 0x35, 2, None), (0x4800_0026, 0x11, 0, None), (0x4800_0027, 0x10, 0, None)],
        ),
    ];
    const INSERT: &str =
        "fc302f000000000000fffff014054800008f7feffe7369c02efe0052ccf500000000000a0008435545490000013562dba30a";
}
