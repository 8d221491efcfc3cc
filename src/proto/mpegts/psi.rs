//! PAT and PMT sections with their CRC, written (13818-1 2.4.4).

use arrayvec::ArrayVec;

use super::packet::{Pid, TS_PACKET_BYTES, TsPacket};

/// One section, from `table_id` to the CRC.
pub type Section = ArrayVec<u8, SECTION_BYTES_MAX>;

/// Which programs a stream has, and where their PMT is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pat<'a> {
    /// `transport_stream_id`, chosen by whoever makes the stream.
    pub stream_id: u16,
    /// Five bits; one more whenever the table changes.
    pub version: u8,
    /// Program number and PID of its PMT. At most 253.
    pub programs: &'a [(u16, Pid)],
}

impl Pat<'_> {
    /// The table as one section.
    ///
    /// # Panics
    /// If there are more programs than a section can list.
    #[must_use]
    pub fn section(&self) -> Section {
        let mut section = start(TABLE_ID_PAT, self.stream_id, self.version);
        for (program, pid) in self.programs {
            section.extend(program.to_be_bytes());
            section.extend((0xe000 | pid.value()).to_be_bytes());
        }
        finish(section, 0xb000)
    }
}

/// Which elementary streams a program has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pmt<'a> {
    /// The program's number in the PAT.
    pub program: u16,
    /// Five bits; one more whenever the table changes.
    pub version: u8,
    /// Where the program's PCR is found.
    pub pcr_pid: Pid,
    /// `stream_type` (13818-1 table 2-34) and PID, without descriptors. At most 201.
    pub streams: &'a [(u8, Pid)],
}

impl Pmt<'_> {
    /// The table as one section.
    ///
    /// # Panics
    /// If there are more streams than a section can list.
    #[must_use]
    pub fn section(&self) -> Section {
        let mut section = start(TABLE_ID_PMT, self.program, self.version);
        section.extend((0xe000 | self.pcr_pid.value()).to_be_bytes());
        section.extend(NO_DESCRIPTORS);
        for (stream_type, pid) in self.streams {
            section.push(*stream_type);
            section.extend((0xe000 | pid.value()).to_be_bytes());
            section.extend(NO_DESCRIPTORS);
        }
        finish(section, 0xb000)
    }
}

/// A TS packet on `pid`, continuity counter zero, that carries the whole of a short section.
///
/// # Panics
/// If `section` has more than 183 bytes.
#[must_use]
pub fn packet_of(section: &Section, pid: Pid) -> [u8; TS_PACKET_BYTES] {
    let mut payload = [0xff; TS_PACKET_BYTES - 4];
    payload[0] = 0; // pointer_field: the section starts at once (13818-1 2.4.4.2)
    payload[1..=section.len()].copy_from_slice(section);
    let mut packet = [0; TS_PACKET_BYTES];
    TsPacket { payload_unit_start: true, pid, payload: Some(&payload), ..TsPacket::default() }.write(&mut packet);
    packet
}

/// CRC-32/MPEG-2 over `bytes` (13818-1 annex A); zero over a section with its CRC.
#[must_use]
pub fn crc32(bytes: &[u8]) -> u32 {
    // Eight bytes at a time: a stream of nothing but tables must not cost more than its share.
    let (eights, rest) = bytes.as_chunks::<8>();
    let crc = eights.iter().fold(u32::MAX, |crc, eight| {
        let [a, b, c, d] = crc.to_be_bytes();
        let [e0, e1, e2, e3, e4, e5, e6, e7] = *eight;
        let bytes = [a ^ e0, b ^ e1, c ^ e2, d ^ e3, e4, e5, e6, e7];
        bytes.iter().zip(CRC_TABLES.iter().rev()).fold(0, |crc, (byte, table)| crc ^ table[usize::from(*byte)])
    });
    rest.iter().fold(crc, |crc, byte| crc << 8 ^ CRC_TABLES[0][usize::from((crc >> 24) as u8 ^ byte)])
}

/// The eight bytes that all tables begin with (13818-1 2.4.4.3); the length is filled in by [`finish`].
pub(super) fn start(table_id: u8, table_id_extension: u16, version: u8) -> Section {
    let [high, low] = table_id_extension.to_be_bytes();
    let version_and_current = 0xc0 | (version & 0x1f) << 1 | 0x01;
    Section::from_iter([table_id, 0, 0, high, low, version_and_current, 0, 0])
}

/// Fills in the length, behind the four bits of `flags`, and adds the CRC.
pub(super) fn finish(mut section: Section, flags: u16) -> Section {
    // section_length counts what follows it, the CRC included.
    let length = section.len() - 3 + 4;
    section[1..3].copy_from_slice(&length_field(flags, length));
    let crc = crc32(&section);
    section.extend(crc.to_be_bytes());
    section
}

/// Twelve bits of length behind four of flags.
pub(super) const fn length_field(flags: u16, length: usize) -> [u8; 2] {
    (flags | length as u16).to_be_bytes()
}

/// What a byte does to the CRC, and what it does with one to seven bytes behind it.
const fn crc_tables() -> [[u32; 256]; 8] {
    let mut tables = [crc_table(); 8];
    let mut behind = 1;
    while behind < tables.len() {
        let mut index = 0;
        while index < 256 {
            let before = tables[behind - 1][index];
            tables[behind][index] = before << 8 ^ tables[0][(before >> 24) as usize];
            index += 1;
        }
        behind += 1;
    }
    tables
}

const fn crc_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < table.len() {
        let mut crc = (index as u32) << 24;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc >> 31 == 0 { crc << 1 } else { crc << 1 ^ CRC_POLYNOMIAL };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}

/// Longest section of a PAT or PMT: a `section_length` of 1021 and the three bytes up to it (13818-1 2.4.4.3).
pub const SECTION_BYTES_MAX: usize = 1_024;

/// `stream_type` of PES packets with private data (13818-1 table 2-34).
pub const STREAM_TYPE_PRIVATE_PES: u8 = 0x06;

const TABLE_ID_PAT: u8 = 0x00;
const TABLE_ID_PMT: u8 = 0x02;
/// Four reserved ones and a descriptor length of zero.
const NO_DESCRIPTORS: [u8; 2] = [0xf0, 0x00];
const CRC_POLYNOMIAL: u32 = 0x04c1_1db7;
static CRC_TABLES: [[u32; 256]; 8] = crc_tables();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_has_its_published_check_value() {
        assert_eq!(crc32(b"123456789"), 0x0376_e6e7);
        let slow = |bytes: &[u8]| {
            let step = |crc: u32, byte: &u8| crc << 8 ^ CRC_TABLES[0][usize::from((crc >> 24) as u8 ^ byte)];
            bytes.iter().fold(u32::MAX, step)
        };
        let bytes: Vec<u8> = (0..100_u32).map(|n| (n * n) as u8).collect();
        assert!((0..100).all(|len| crc32(&bytes[..len]) == slow(&bytes[..len])));
    }

    #[test]
    fn pat_is_laid_out_as_in_the_standard() {
        let pat = Pat { stream_id: 1, version: 0, programs: &[(1, Pid::from_low_bits(0x1000))] };
        let section = pat.section();
        assert_eq!(section[..12], [0x00, 0xb0, 0x0d, 0x00, 0x01, 0xc1, 0x00, 0x00, 0x00, 0x01, 0xf0, 0x00]);
        assert_eq!(section[12..], [0x2a, 0xb1, 0x04, 0xb2]);
    }

    #[test]
    fn pmt_names_clock_and_streams_and_its_crc_fits() {
        let video = Pid::from_low_bits(0x100);
        let pmt = Pmt { program: 1, version: 3, pcr_pid: video, streams: &[(0x1b, video)] };
        let section = pmt.section();
        let expected =
            [0x02, 0xb0, 0x12, 0x00, 0x01, 0xc7, 0x00, 0x00, 0xe1, 0x00, 0xf0, 0x00, 0x1b, 0xe1, 0x00, 0xf0, 0x00];
        assert_eq!(section[..17], expected);
        assert_eq!(crc32(&section), 0);
    }

    #[test]
    fn the_longest_tables_still_fit() {
        let programs = [(1, Pid::NULL); 253];
        assert_eq!(Pat { stream_id: 0, version: 0, programs: &programs }.section().len(), 1_024);
        let streams = [(6, Pid::NULL); 201];
        let pmt = Pmt { program: 0, version: 0, pcr_pid: Pid::NULL, streams: &streams };
        assert_eq!(crc32(&pmt.section()), 0);
    }

    #[test]
    fn a_short_section_travels_in_one_packet() {
        let section = Pat { stream_id: 1, version: 0, programs: &[] }.section();
        let bytes = packet_of(&section, Pid::PAT);
        let packet = TsPacket::parse(&bytes).unwrap();
        assert!(packet.payload_unit_start);
        assert_eq!(packet.payload.unwrap()[1..=section.len()], section[..]);
    }
}
