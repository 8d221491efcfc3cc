//! The 188-byte TS packet: header, adaptation field and PCR, read and written (13818-1 2.4.3).

use crate::units::Ticks27M;

/// One TS packet, borrowed from the bytes it was read from or will be written with.
///
/// Reading keeps all that writing needs: what [`TsPacket::parse`] gave, [`TsPacket::write`] puts back, reserved bits
/// and an over-long PCR extension aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TsPacket<'a> {
    /// The packet has an error that could not be corrected (`transport_error_indicator`).
    pub transport_error: bool,
    /// The first payload byte starts a PES packet or is a pointer to a section (`payload_unit_start_indicator`).
    pub payload_unit_start: bool,
    /// More important than others of this PID (`transport_priority`).
    pub priority: bool,
    /// Which stream the packet belongs to.
    pub pid: Pid,
    /// Two bits, zero for not scrambled (`transport_scrambling_control`).
    pub scrambling: u8,
    /// Continuity counter, four bits.
    pub cc: u8,
    /// The adaptation field, if there is one.
    pub adaptation: Option<Adaptation<'a>>,
    /// The payload, if there is one: 1 to 184 bytes when read.
    pub payload: Option<&'a [u8]>,
}

impl<'a> TsPacket<'a> {
    /// Reads the TS packet at the start of `bytes`; what follows the first 188 bytes is not looked at.
    ///
    /// # Errors
    /// The first thing that makes these bytes no TS packet.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let Some((bytes, _)) = bytes.split_first_chunk::<TS_PACKET_BYTES>() else {
            return Err(ParseError::Truncated);
        };
        let [sync, b1, b2, b3, ..] = *bytes;
        if sync != SYNC_BYTE {
            return Err(ParseError::Sync);
        }
        let has_payload = b3 & 0x10 != 0;
        let (adaptation, payload) = match b3 & 0x30 {
            0x00 => return Err(ParseError::AdaptationControl),
            0x10 => (None, &bytes[HEADER_BYTES..]),
            _ => {
                let (adaptation, payload) = split_adaptation(bytes, has_payload)?;
                (Some(adaptation), payload)
            }
        };
        Ok(Self {
            transport_error: b1 & 0x80 != 0,
            payload_unit_start: b1 & 0x40 != 0,
            priority: b1 & 0x20 != 0,
            pid: Pid(u16::from_be_bytes([b1, b2]) & Pid::MASK),
            scrambling: b3 >> 6,
            cc: b3 & 0x0f,
            adaptation,
            payload: has_payload.then_some(payload),
        })
    }

    /// Writes the packet and says how many bytes of the payload found room. What room is left over becomes stuffing in
    /// the adaptation field, which is added where there is none.
    pub fn write(&self, out: &mut [u8; TS_PACKET_BYTES]) -> usize {
        let pid = self.pid.0.to_be_bytes();
        out[0] = SYNC_BYTE;
        out[1] =
            flag(self.transport_error, 0x80) | flag(self.payload_unit_start, 0x40) | flag(self.priority, 0x20) | pid[0];
        out[2] = pid[1];
        let fields_bytes = self.adaptation.map_or(0, |adaptation| adaptation.bytes_min());
        let payload = self.payload.unwrap_or_default();
        let payload_bytes = payload.len().min(TS_PACKET_BYTES - HEADER_BYTES - fields_bytes);
        let payload_at = TS_PACKET_BYTES - payload_bytes;
        let with_adaptation = payload_at > HEADER_BYTES;
        out[3] = self.scrambling << 6 | flag(with_adaptation, 0x20) | flag(payload_bytes > 0, 0x10) | self.cc & 0x0f;
        if with_adaptation {
            self.adaptation.unwrap_or_default().write(&mut out[HEADER_BYTES..payload_at]);
        }
        out[payload_at..].copy_from_slice(&payload[..payload_bytes]);
        payload_bytes
    }

    /// Writes a packet of nothing but payload, which goes on.
    #[inline]
    pub(in crate::proto::mpegts) fn write_payload(
        pid: Pid,
        cc: u8,
        payload: &[u8; PAYLOAD_BYTES],
        out: &mut [u8; TS_PACKET_BYTES],
    ) {
        let [high, low] = pid.0.to_be_bytes();
        let (header, room) = out.split_at_mut(HEADER_BYTES);
        header.copy_from_slice(&[SYNC_BYTE, high, low, 0x10 | cc & 0x0f]);
        room.copy_from_slice(payload);
    }
}

/// The adaptation field (13818-1 2.4.3.4). The default one is nothing but stuffing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Adaptation<'a> {
    /// Continuity counter or time base may jump here.
    pub discontinuity: bool,
    /// A decoder may start here.
    pub random_access: bool,
    /// `elementary_stream_priority_indicator`.
    pub priority: bool,
    /// Program clock reference, from 0 up to [`PCR_MODULUS_27M`].
    pub pcr: Option<Ticks27M>,
    /// Flags of the fields in `rest`, the low four bits: OPCR, splice countdown, private data, extension.
    pub rest_flags: u8,
    /// All that follows the PCR, unread: the fields that `rest_flags` announces and stuffing. What would make the field
    /// longer than the packet is not written.
    pub rest: &'a [u8],
}

impl<'a> Adaptation<'a> {
    /// Reads what stands behind the length byte.
    fn parse(body: &'a [u8]) -> Result<Self, ParseError> {
        let Some((&flags, mut rest)) = body.split_first() else {
            return Ok(Self::default());
        };
        let mut pcr = None;
        if flags & 0x10 != 0 {
            let (bytes, after) = rest.split_first_chunk::<PCR_BYTES>().ok_or(ParseError::AdaptationLength)?;
            pcr = Some(read_pcr(*bytes));
            rest = after;
        }
        Ok(Self {
            discontinuity: flags & 0x80 != 0,
            random_access: flags & 0x40 != 0,
            priority: flags & 0x20 != 0,
            pcr,
            rest_flags: flags & 0x0f,
            rest,
        })
    }

    /// Bytes that the field needs with its length byte and without stuffing.
    fn bytes_min(&self) -> usize {
        if *self == Self::default() {
            return 1;
        }
        2 + self.pcr_bytes() + self.rest().len()
    }

    /// Fills `out` with the field, which has room for it: length byte, flags, fields, stuffing.
    fn write(&self, out: &mut [u8]) {
        let Some((length, body)) = out.split_first_mut() else {
            return;
        };
        *length = body.len() as u8;
        let Some((flags, mut body)) = body.split_first_mut() else {
            return;
        };
        *flags = flag(self.discontinuity, 0x80)
            | flag(self.random_access, 0x40)
            | flag(self.priority, 0x20)
            | flag(self.pcr.is_some(), 0x10)
            | self.rest_flags & 0x0f;
        if let Some(pcr) = self.pcr {
            let (bytes, after) = body.split_at_mut(PCR_BYTES);
            bytes.copy_from_slice(&write_pcr(pcr));
            body = after;
        }
        let (rest, stuffing) = body.split_at_mut(self.rest().len());
        rest.copy_from_slice(self.rest());
        stuffing.fill(0xff);
    }

    fn rest(&self) -> &'a [u8] {
        &self.rest[..self.rest.len().min(FIELDS_BYTES_MAX - self.pcr_bytes())]
    }

    fn pcr_bytes(&self) -> usize {
        self.pcr.map_or(0, |_| PCR_BYTES)
    }
}

/// A packet identifier: 13 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pid(u16);

impl Pid {
    const MASK: u16 = 0x1fff;

    /// The program association table (13818-1 table 2-3).
    pub const PAT: Self = Self(0);
    /// The conditional access table (13818-1 table 2-3).
    pub const CAT: Self = Self(1);
    /// The network information table, unless the PAT says otherwise (EN 300 468 table 1).
    pub const NIT: Self = Self(0x10);
    /// The service description table (EN 300 468 table 1).
    pub const SDT: Self = Self(0x11);
    /// The event information table (EN 300 468 table 1).
    pub const EIT: Self = Self(0x12);
    /// The running status table (EN 300 468 table 1).
    pub const RST: Self = Self(0x13);
    /// Time and date (EN 300 468 table 1).
    pub const TDT: Self = Self(0x14);
    /// Null packets (13818-1 table 2-3).
    pub const NULL: Self = Self(0x1fff);

    /// The PID `value`; `None` if it needs more than 13 bits.
    #[must_use]
    pub const fn new(value: u16) -> Option<Self> {
        if value <= Self::MASK { Some(Self(value)) } else { None }
    }

    /// The PID in the low 13 bits of `value`.
    #[must_use]
    pub const fn from_low_bits(value: u16) -> Self {
        Self(value & Self::MASK)
    }

    /// The bare number.
    #[must_use]
    pub const fn value(self) -> u16 {
        self.0
    }
}

/// Why bytes are no TS packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Fewer than 188 bytes.
    #[error("shorter than 188 bytes")]
    Truncated,
    /// The first byte is not 0x47.
    #[error("no sync byte")]
    Sync,
    /// `adaptation_field_control` has its reserved value: decoders shall discard such a packet (13818-1 2.4.3.3).
    #[error("reserved adaptation field control")]
    AdaptationControl,
    /// The adaptation field is longer or shorter than the packet or its own flags allow (13818-1 2.4.3.5).
    #[error("adaptation field of a wrong length")]
    AdaptationLength,
}

/// TS packets read so far, by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ParseCounts {
    /// Good ones.
    pub parsed: u64,
    /// See [`ParseError::Truncated`].
    pub truncated: u64,
    /// See [`ParseError::Sync`].
    pub sync: u64,
    /// See [`ParseError::AdaptationControl`].
    pub adaptation_control: u64,
    /// See [`ParseError::AdaptationLength`].
    pub adaptation_length: u64,
}

impl ParseCounts {
    /// Counts one outcome of [`TsPacket::parse`].
    pub const fn count(&mut self, outcome: &Result<TsPacket<'_>, ParseError>) {
        let counter = match outcome {
            Ok(_) => &mut self.parsed,
            Err(ParseError::Truncated) => &mut self.truncated,
            Err(ParseError::Sync) => &mut self.sync,
            Err(ParseError::AdaptationControl) => &mut self.adaptation_control,
            Err(ParseError::AdaptationLength) => &mut self.adaptation_length,
        };
        *counter += 1;
    }
}

/// The body of the fuzz target `ts_packet`, which tests call as well: reads any bytes, writes what was read, and reads
/// that again.
///
/// # Panics
/// If the second reading differs from the first.
pub fn check_any_bytes(bytes: &[u8]) {
    let mut counts = ParseCounts::default();
    for chunk in bytes.chunks(TS_PACKET_BYTES) {
        let outcome = TsPacket::parse(chunk);
        counts.count(&outcome);
        let Ok(packet) = outcome else {
            continue;
        };
        let mut written = [0; TS_PACKET_BYTES];
        let payload_bytes = packet.write(&mut written);
        assert_eq!(payload_bytes, packet.payload.map_or(0, <[u8]>::len));
        assert_eq!(TsPacket::parse(&written), outcome);
    }
    let total = counts.parsed + counts.truncated + counts.sync + counts.adaptation_control + counts.adaptation_length;
    assert_eq!(total, bytes.len().div_ceil(TS_PACKET_BYTES) as u64);
}

/// Reads the adaptation field of a packet that has one, and what is left for the payload.
fn split_adaptation(bytes: &[u8; TS_PACKET_BYTES], has_payload: bool) -> Result<(Adaptation<'_>, &[u8]), ParseError> {
    let after_length = &bytes[HEADER_BYTES + 1..];
    let length = usize::from(bytes[HEADER_BYTES]);
    // 13818-1 2.4.3.5: 0 to 182 with payload behind, 183 without.
    let length_fits = if has_payload { length < after_length.len() } else { length == after_length.len() };
    if !length_fits {
        return Err(ParseError::AdaptationLength);
    }
    let (body, payload) = after_length.split_at(length);
    Ok((Adaptation::parse(body)?, payload))
}

/// 13818-1 2.4.3.5: 33 bits of 90 kHz, 6 reserved, 9 bits of 27 MHz. An extension above 299, which is not allowed,
/// carries into the base.
fn read_pcr(bytes: [u8; PCR_BYTES]) -> Ticks27M {
    let [b0, b1, b2, b3, b4, b5] = bytes;
    let bits = u64::from_be_bytes([0, 0, b0, b1, b2, b3, b4, b5]);
    Ticks27M(((bits >> 15) * 300 + (bits & 0x1ff)) % PCR_MODULUS_27M)
}

fn write_pcr(pcr: Ticks27M) -> [u8; PCR_BYTES] {
    let ticks = pcr.0 % PCR_MODULUS_27M;
    let bits = (ticks / 300) << 15 | RESERVED << 9 | (ticks % 300);
    let [_, _, b0, b1, b2, b3, b4, b5] = bits.to_be_bytes();
    [b0, b1, b2, b3, b4, b5]
}

const fn flag(set: bool, bit: u8) -> u8 {
    if set { bit } else { 0 }
}

/// Length of a TS packet (13818-1 2.4.3.2).
pub const TS_PACKET_BYTES: usize = 188;

/// First byte of every TS packet (13818-1 2.4.3.3).
pub const SYNC_BYTE: u8 = 0x47;

/// Where PCR wraps: 2^33 ticks of 90 kHz, in ticks of 27 MHz (13818-1 2.4.2.3).
pub const PCR_MODULUS_27M: u64 = (1 << 33) * 300;

const HEADER_BYTES: usize = 4;
/// Of a packet with nothing else.
pub(in crate::proto::mpegts) const PAYLOAD_BYTES: usize = TS_PACKET_BYTES - HEADER_BYTES;
const PCR_BYTES: usize = 6;
/// What length byte and flags leave of an adaptation field that fills the packet.
const FIELDS_BYTES_MAX: usize = TS_PACKET_BYTES - HEADER_BYTES - 2;
/// Reserved bits are written as ones (13818-1 2.1).
const RESERVED: u64 = 0x3f;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_packet_with_pcr_reads_as_the_standard_lays_it_out() {
        let mut bytes = [0xff; TS_PACKET_BYTES];
        bytes[..12].copy_from_slice(&[0x47, 0x41, 0x00, 0x37, 0x07, 0x10, 0x00, 0x00, 0x00, 0x01, 0xfe, 0x2b]);
        let packet = TsPacket::parse(&bytes).unwrap();
        assert_eq!((packet.pid.value(), packet.cc, packet.payload_unit_start), (0x100, 7, true));
        assert_eq!(packet.adaptation.unwrap().pcr, Some(Ticks27M(3 * 300 + 43)));
        assert_eq!(packet.payload.unwrap().len(), 176);
    }

    #[test]
    fn the_null_packet_is_the_known_one() {
        let mut bytes = [0; TS_PACKET_BYTES];
        TsPacket { pid: Pid::NULL, payload: Some(&[0xff; 184]), ..TsPacket::default() }.write(&mut bytes);
        assert_eq!(bytes[..4], [0x47, 0x1f, 0xff, 0x10]);
        assert!(bytes[4..].iter().all(|&byte| byte == 0xff));
    }

    #[test]
    fn every_truncation_is_refused() {
        let mut bytes = [0; TS_PACKET_BYTES];
        let adaptation = Some(Adaptation { pcr: Some(Ticks27M(1)), ..Adaptation::default() });
        TsPacket { adaptation, payload: Some(b"abc"), ..TsPacket::default() }.write(&mut bytes);
        for len in 0..TS_PACKET_BYTES {
            assert_eq!(TsPacket::parse(&bytes[..len]), Err(ParseError::Truncated));
        }
        assert!(TsPacket::parse(&bytes).is_ok());
    }

    #[test]
    fn each_fault_has_its_cause_and_its_counter() {
        let good = {
            let mut bytes = [0; TS_PACKET_BYTES];
            TsPacket { payload: Some(&[1; 184]), ..TsPacket::default() }.write(&mut bytes);
            bytes
        };
        let with = |at: usize, byte: u8| {
            let mut bytes = good;
            bytes[at] = byte;
            bytes
        };
        let mut counts = ParseCounts::default();
        counts.count(&TsPacket::parse(&good));
        counts.count(&TsPacket::parse(&good[1..]));
        counts.count(&TsPacket::parse(&with(0, 0x48)));
        counts.count(&TsPacket::parse(&with(3, 0x00)));
        let mut too_long = with(3, 0x30);
        too_long[4] = 183;
        counts.count(&TsPacket::parse(&too_long));
        let mut no_room_for_pcr = with(3, 0x30);
        no_room_for_pcr[4..6].copy_from_slice(&[6, 0x10]);
        counts.count(&TsPacket::parse(&no_room_for_pcr));
        let expected = ParseCounts { parsed: 1, truncated: 1, sync: 1, adaptation_control: 1, adaptation_length: 2 };
        assert_eq!(counts, expected);
    }

    #[test]
    fn payload_of_any_length_is_stuffed_to_188_bytes() {
        for len in 1..=184 {
            let payload: Vec<u8> = (0..len).map(|n| n as u8).collect();
            let mut bytes = [0; TS_PACKET_BYTES];
            assert_eq!(TsPacket { payload: Some(&payload), ..TsPacket::default() }.write(&mut bytes), len);
            assert_eq!(TsPacket::parse(&bytes).unwrap().payload, Some(&payload[..]));
        }
    }

    #[test]
    fn an_adaptation_field_without_pcr_may_fill_the_packet() {
        let mut bytes = [0x5a; TS_PACKET_BYTES];
        bytes[..6].copy_from_slice(&[0x47, 0x00, 0x64, 0x20, 183, 0x02]);
        assert_eq!(TsPacket::parse(&bytes).unwrap().adaptation.unwrap().rest.len(), 182);
        check_any_bytes(&bytes);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            check_any_bytes(&bytes);
        }

        #[test]
        fn what_looks_like_a_packet_survives_read_and_write(
            header in any::<[u8; 3]>(), length in 0_u8..=184, body in proptest::collection::vec(any::<u8>(), 183)
        ) {
            let mut bytes = vec![SYNC_BYTE];
            bytes.extend(header);
            bytes.push(length);
            bytes.extend(body);
            check_any_bytes(&bytes);
        }

        #[test]
        fn what_is_written_is_read(
            flags in any::<[bool; 6]>(), pid in 0_u16..=0x1fff, cc in 0_u8..16, scrambling in 0_u8..4,
            pcr in proptest::option::of(0..PCR_MODULUS_27M), payload in proptest::collection::vec(any::<u8>(), 1..=176)
        ) {
            let adaptation = Adaptation {
                discontinuity: flags[0], random_access: flags[1], priority: flags[2],
                pcr: pcr.map(Ticks27M), ..Adaptation::default()
            };
            let packet = TsPacket {
                transport_error: flags[3], payload_unit_start: flags[4], priority: flags[5],
                pid: Pid::new(pid).unwrap(), scrambling, cc, adaptation: Some(adaptation), payload: Some(&payload),
            };
            let mut bytes = [0; TS_PACKET_BYTES];
            prop_assert_eq!(packet.write(&mut bytes), payload.len());
            let mut read = TsPacket::parse(&bytes).unwrap();
            let stuffing = read.adaptation.as_mut().map(|adaptation| std::mem::take(&mut adaptation.rest)).unwrap();
            prop_assert!(stuffing.iter().all(|&byte| byte == 0xff));
            prop_assert_eq!(read, packet);
        }
    }
}
