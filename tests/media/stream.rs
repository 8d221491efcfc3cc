//! Access units into a transport stream that says no more than it must: one program of pictures and sound.

use anabranch::proto::mpegts::psi::{Pat, Pmt, packet_of};
use anabranch::proto::mpegts::{Pid, TS_PACKET_BYTES};
use anabranch::units::Ticks90k;

/// Writes one.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    tables: u8,
    video: u8,
    audio: u8,
}

impl Writer {
    /// PAT and PMT; pictures are of this type (13818-1 table 2-34), sound is MPEG's.
    pub(crate) fn tables(&mut self, stream_type: u8) -> Vec<u8> {
        let pat = Pat { stream_id: 1, version: 0, programs: &[(1, PMT)] };
        let pmt = Pmt { program: 1, version: 0, pcr_pid: VIDEO, streams: &[(stream_type, VIDEO), (0x03, AUDIO)] };
        let mut packets = [packet_of(&pat.section(), Pid::PAT), packet_of(&pmt.section(), PMT)].concat();
        packets.chunks_mut(TS_PACKET_BYTES).for_each(|packet| packet[3] = packet[3] & 0xf0 | self.tables);
        self.tables = (self.tables + 1) % 16;
        packets
    }

    pub(crate) fn picture(&mut self, pts: Option<Ticks90k>, bytes: &[u8]) -> Vec<u8> {
        packets(VIDEO, &mut self.video, &pes(0xe0, 0, pts, bytes))
    }

    pub(crate) fn sound(&mut self, pts: Ticks90k, bytes: &[u8]) -> Vec<u8> {
        packets(AUDIO, &mut self.audio, &pes(0xc0, 8 + bytes.len() as u16, Some(pts), bytes))
    }
}

/// A PES packet (13818-1 2.4.3.6).
fn pes(stream_id: u8, length: u16, pts: Option<Ticks90k>, bytes: &[u8]) -> Vec<u8> {
    let mut pes = vec![0, 0, 1, stream_id];
    pes.extend(length.to_be_bytes());
    match pts.map(|pts| pts.0) {
        Some(pts) => {
            let [high, middle, low] = [pts >> 29 & 0x0e | 0x21, pts >> 14 & 0xfffe | 1, pts << 1 & 0xfffe | 1];
            pes.extend([0x80, 0x80, 5, high as u8]);
            pes.extend([middle as u16, low as u16].map(u16::to_be_bytes).as_flattened());
        }
        None => pes.extend([0x80, 0, 0]),
    }
    pes.extend(bytes);
    pes
}

/// TS packets, the last one stuffed by its adaptation field.
fn packets(pid: Pid, cc: &mut u8, pes: &[u8]) -> Vec<u8> {
    let mut packets = Vec::new();
    for (at, payload) in pes.chunks(TS_PACKET_BYTES - 4).enumerate() {
        let [high, low] = pid.value().to_be_bytes();
        let stuffing = TS_PACKET_BYTES - 4 - payload.len();
        let start = u8::from(at == 0) << 6;
        packets.extend([0x47, start | high, low, u8::from(stuffing > 0) << 5 | 0x10 | *cc]);
        *cc = (*cc + 1) % 16;
        if let Some(length) = stuffing.checked_sub(1) {
            let field = [length as u8, 0].into_iter().chain(std::iter::repeat(0xff));
            packets.extend(field.take(stuffing));
        }
        packets.extend(payload);
    }
    packets
}

const PMT: Pid = Pid::from_low_bits(0x1000);
const VIDEO: Pid = Pid::from_low_bits(0x100);
const AUDIO: Pid = Pid::from_low_bits(0x101);
