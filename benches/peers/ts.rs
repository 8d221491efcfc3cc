//! The measuring stream: datagrams that are a true transport stream and carry a number and a send time that survive remuxing.
//!
//! One datagram is seven TS packets and one whole PES packet of private data (KLV), so a demuxer can hand it on as soon as it
//! has come; every 32nd also holds PAT and PMT. The mark sits at the start of the PES payload, thus a sink finds it at the
//! same place of a TS packet in a datagram passed on untouched and in one that was demuxed and muxed again.
//! ISO/IEC 13818-1: 2.4.3.2 (TS packet), 2.4.3.5 (PCR), 2.4.3.6 (PES), 2.4.4.3 (PAT), 2.4.4.8 (PMT), annex A (CRC).

pub(crate) const DATAGRAM_BYTES: usize = 7 * PACKET_BYTES;
const PACKET_BYTES: usize = 188;
const PROGRAM_PID: u16 = 0x1000;
const DATA_PID: u16 = 0x0100;
const TABLES_EVERY: u64 = 32;
const MAGIC: [u8; 4] = *b"ANAB";
const MARK_BYTES: usize = 24;
/// Start code, id, length, flags, header length and PTS.
const PES_HEADER_BYTES: usize = 14;

/// What one datagram says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) flow: u32,
    pub(crate) seq: u64,
    pub(crate) sent_ns: u64,
}

/// Writes the datagrams of one flow.
pub(crate) struct Writer {
    bytes: [u8; DATAGRAM_BYTES],
    counters: [u8; 3],
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self { bytes: [0; DATAGRAM_BYTES], counters: [0; 3] }
    }

    /// The datagram for a mark; `media_ns` is the media time, which advances exactly with the rate.
    pub(crate) fn write(&mut self, mark: Mark, media_ns: u64) -> &[u8] {
        let mut at = 0;
        if mark.seq.is_multiple_of(TABLES_EVERY) {
            self.section(0, 0, &pat());
            self.section(1, 1, &pmt());
            at = 2;
        }
        self.pes(at, mark, media_ns);
        &self.bytes
    }

    fn section(&mut self, at: usize, counter: usize, section: &[u8]) {
        let pid = if counter == 0 { 0 } else { PROGRAM_PID };
        let count = self.count(counter);
        let packet = &mut self.bytes[at * PACKET_BYTES..][..PACKET_BYTES];
        packet.fill(0xff);
        packet[..4].copy_from_slice(&header(true, pid, 1, count));
        packet[4] = 0;
        packet[5..5 + section.len()].copy_from_slice(section);
    }

    fn pes(&mut self, first: usize, mark: Mark, media_ns: u64) {
        const PCR_BYTES: usize = 8;
        let payload = (7 - first) * (PACKET_BYTES - 4) - PCR_BYTES;
        for at in first..7 {
            let start = at == first;
            let count = self.count(2);
            let packet = &mut self.bytes[at * PACKET_BYTES..][..PACKET_BYTES];
            packet[..4].copy_from_slice(&header(start, DATA_PID, if start { 3 } else { 1 }, count));
            if start {
                packet[4..12].copy_from_slice(&pcr(media_ns * 27 / 1000));
                packet[12..12 + PES_HEADER_BYTES].copy_from_slice(&pes_header(payload, media_ns * 9 / 100_000));
                packet[26..26 + MARK_BYTES].copy_from_slice(&mark.to_bytes());
                packet[26 + MARK_BYTES..].fill(0xa5);
            } else {
                packet[4..].fill(0xa5);
            }
        }
    }

    fn count(&mut self, which: usize) -> u8 {
        let now = self.counters[which];
        self.counters[which] = (now + 1) & 0x0f;
        now
    }
}

impl Mark {
    fn to_bytes(self) -> [u8; MARK_BYTES] {
        let mut bytes = [0; MARK_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&self.flow.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.seq.to_be_bytes());
        bytes[16..].copy_from_slice(&self.sent_ns.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(&MAGIC)?;
        let (flow, rest) = rest.split_first_chunk()?;
        let (seq, rest) = rest.split_first_chunk()?;
        let (sent, _) = rest.split_first_chunk()?;
        Some(Self {
            flow: u32::from_be_bytes(*flow),
            seq: u64::from_be_bytes(*seq),
            sent_ns: u64::from_be_bytes(*sent),
        })
    }
}

/// All marks in a datagram: one when it was passed on, none, one or several when a muxer cut it anew.
pub(crate) fn marks(datagram: &[u8]) -> impl Iterator<Item = Mark> + '_ {
    datagram.chunks_exact(PACKET_BYTES).filter_map(mark)
}

fn mark(packet: &[u8]) -> Option<Mark> {
    let starts = packet[0] == 0x47 && packet[1] & 0x40 != 0;
    let adaptation = if packet[3] & 0x20 == 0 { 0 } else { 1 + usize::from(packet[4]) };
    let pes = packet.get(4 + adaptation..).filter(|pes| starts && pes.starts_with(&[0, 0, 1]))?;
    let header = 9 + usize::from(*pes.get(8)?);
    Mark::from_bytes(pes.get(header..)?)
}

fn header(start: bool, pid: u16, control: u8, count: u8) -> [u8; 4] {
    let [high, low] = pid.to_be_bytes();
    [0x47, high | if start { 0x40 } else { 0 }, low, control << 4 | count]
}

fn pcr(ticks_27m: u64) -> [u8; 8] {
    let base = ticks_27m / 300 % (1 << 33);
    let extension = ticks_27m % 300;
    let field = base << 15 | 0x3f << 9 | extension;
    let mut bytes = [7, 0x10, 0, 0, 0, 0, 0, 0];
    bytes[2..].copy_from_slice(&field.to_be_bytes()[2..]);
    bytes
}

fn pes_header(payload: usize, ticks_90k: u64) -> [u8; PES_HEADER_BYTES] {
    let [high, low] = u16::try_from(payload - 6).unwrap_or(0).to_be_bytes();
    let part = |shift: u32| u8::try_from(ticks_90k >> shift & 0xff).unwrap_or(0);
    [
        0,
        0,
        1,
        0xbd,
        high,
        low,
        0x84,
        0x80,
        5, //
        0x21 | part(29) & 0x0e,
        part(22),
        part(14) | 1,
        part(7),
        part(0) << 1 | 1,
    ]
}

fn pat() -> Vec<u8> {
    let [high, low] = PROGRAM_PID.to_be_bytes();
    with_crc(vec![0x00, 0xb0, 13, 0, 1, 0xc1, 0, 0, 0, 1, 0xe0 | high, low])
}

/// One stream, type 6 with the registration `KLVA`: what `ffmpeg -c copy` demuxes and muxes without guessing a codec.
fn pmt() -> Vec<u8> {
    let [high, low] = DATA_PID.to_be_bytes();
    let pcr = [0xe0 | high, low];
    let stream = [0x06, 0xe0 | high, low, 0xf0, 6, 5, 4, b'K', b'L', b'V', b'A'];
    let start = vec![0x02, 0xb0, 24, 0, 1, 0xc1, 0, 0, pcr[0], pcr[1], 0xf0, 0];
    with_crc([start.as_slice(), &stream].concat())
}

fn with_crc(mut section: Vec<u8>) -> Vec<u8> {
    let crc = section.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte) << 24, |crc, _| crc << 1 ^ if crc >> 31 == 1 { 0x04c1_1db7 } else { 0 })
    });
    section.extend(crc.to_be_bytes());
    section
}
