//! Frames of sound in the bytes of PES packets: ADTS, AC-3, enhanced AC-3 and Opus.

use crate::proto::mpegts::opus::{ControlHeaderError, read_control_header, ticks_90k};
use crate::proto::rtmp::flv::Codec;

/// One frame as FLV has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    /// What a decoder must know first, where there is such a thing: an `AudioSpecificConfig`.
    pub(super) config: Option<[u8; 2]>,
    /// Without ADTS or control header.
    pub(super) bytes: &'a [u8],
    /// How long it sounds.
    pub(super) ticks_90k: u64,
}

/// Where a frame lies at the start of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    config: Option<[u8; 2]>,
    header_bytes: usize,
    /// With its header.
    bytes: usize,
    ticks_90k: u64,
}

/// Why no frame lies there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    /// More bytes are needed.
    More,
    /// It is no frame, or one that cannot be split.
    Wrong,
}

/// Puts frames together that lie across PES packets.
#[derive(Clone, Debug, Default)]
pub(super) struct Splitter {
    rest: Vec<u8>,
    /// When the frame in `rest` sounds, or the one that comes next.
    rest_90k: Option<u64>,
}

impl Splitter {
    /// The frames of the bytes of a PES packet, whose time is that of the first frame that begins in it; without one they
    /// follow the last. Gives how many times something was not a frame.
    pub(super) fn split(
        &mut self,
        codec: Codec,
        bytes: &[u8],
        pts_90k: Option<u64>,
        mut each: impl FnMut(u64, Frame<'_>),
    ) -> u64 {
        let before = self.rest.len();
        self.rest.extend_from_slice(bytes);
        let (mut at, mut wrong, mut is_lost) = (0, 0, false);
        let mut own_90k = pts_90k;
        let mut time_90k = self.rest_90k.unwrap_or_default();
        loop {
            if at >= before {
                time_90k = own_90k.take().unwrap_or(time_90k);
            }
            let left = self.rest.get(at..).unwrap_or_default();
            match find(codec, left) {
                Ok(found) => {
                    let body = left.get(found.header_bytes..found.bytes).unwrap_or_default();
                    each(time_90k, Frame { config: found.config, bytes: body, ticks_90k: found.ticks_90k });
                    at += found.bytes;
                    time_90k += found.ticks_90k;
                    is_lost = false;
                }
                Err(Missing::More) => break,
                Err(Missing::Wrong) => {
                    wrong += u64::from(!std::mem::replace(&mut is_lost, true));
                    at += 1;
                }
            }
        }
        self.rest.drain(..at.min(self.rest.len()));
        self.rest_90k = Some(time_90k);
        wrong
    }

    /// When a frame sounds that follows the last one; `None` if there was none.
    pub(super) fn next_90k(&self) -> Option<u64> {
        self.rest_90k
    }

    /// What comes next does not continue what came.
    pub(super) fn clear(&mut self) {
        self.rest.clear();
        self.rest_90k = None;
    }
}

/// The frame at the start of `bytes`, if it lies there as a whole.
fn find(codec: Codec, bytes: &[u8]) -> Result<Found, Missing> {
    let found = match codec {
        Codec::Aac => adts(bytes)?,
        Codec::Ac3 => ac3(bytes)?,
        Codec::Eac3 => eac3(bytes)?,
        Codec::Opus => opus(bytes)?,
        Codec::H264 | Codec::Hevc | Codec::Av1 | Codec::Vp9 => return Err(Missing::Wrong),
    };
    if found.bytes > bytes.len() { Err(Missing::More) } else { Ok(found) }
}

/// An ADTS header (13818-7 6.2). Several blocks of raw data in one frame are not told apart by it and not taken.
fn adts(bytes: &[u8]) -> Result<Found, Missing> {
    let head = bytes.first_chunk::<7>().ok_or(Missing::More)?;
    if head[0] != 0xff || head[1] & 0xf6 != 0xf0 || head[6] & 3 != 0 {
        return Err(Missing::Wrong);
    }
    let (profile, rate_index) = (head[2] >> 6, head[2] >> 2 & 0x0f);
    let channels = (head[2] & 1) << 2 | head[3] >> 6;
    let rate = *AAC_RATES.get(usize::from(rate_index)).ok_or(Missing::Wrong)?;
    let length = usize::from(head[3] & 3) << 11 | usize::from(head[4]) << 3 | usize::from(head[5] >> 5);
    // Without protection_absent a checksum follows.
    let header_bytes = if head[1] & 1 == 0 { 9 } else { 7 };
    if length <= header_bytes {
        return Err(Missing::Wrong);
    }
    // AudioSpecificConfig (ISO/IEC 14496-3 1.6.2.1): type, rate, channels, and three zero bits of GASpecificConfig.
    let config = [(profile + 1) << 3 | rate_index >> 1, rate_index << 7 | channels << 3];
    Ok(Found { config: Some(config), header_bytes, bytes: length, ticks_90k: 1_024 * 90_000 / rate })
}

/// A sync frame of AC-3 (ETSI TS 102 366 4.4 and table 4.13).
fn ac3(bytes: &[u8]) -> Result<Found, Missing> {
    let head = bytes.first_chunk::<6>().ok_or(Missing::More)?;
    let (rate, size) = (usize::from(head[4] >> 6), usize::from(head[4] & 0x3f));
    if head[..2] != SYNC || head[5] >> 3 > 8 {
        return Err(Missing::Wrong);
    }
    let rate = *AC3_RATES.get(rate).ok_or(Missing::Wrong)?;
    let bits = *AC3_KBPS.get(size / 2).ok_or(Missing::Wrong)? * 1_000;
    // 1536 samples in words of 16 bits; at 44.1 kHz every second size is one word longer.
    let words = bits * 1_536 / 16 / rate + u64::from(rate == 44_100 && size % 2 == 1);
    Ok(Found { config: None, header_bytes: 0, bytes: words as usize * 2, ticks_90k: 1_536 * 90_000 / rate })
}

/// A sync frame of enhanced AC-3, with the dependent ones that belong to it (ETSI TS 102 366 E.1.2).
fn eac3(bytes: &[u8]) -> Result<Found, Missing> {
    let mut found = eac3_frame(bytes)?;
    if found.1 == DEPENDENT {
        return Err(Missing::Wrong);
    }
    for _ in 0..DEPENDENTS_MAX {
        match eac3_frame(bytes.get(found.0.bytes..).unwrap_or_default()) {
            Ok((next, DEPENDENT)) => found.0.bytes += next.bytes,
            Ok(_) | Err(_) => break,
        }
    }
    Ok(found.0)
}

fn eac3_frame(bytes: &[u8]) -> Result<(Found, u8), Missing> {
    let head = bytes.first_chunk::<6>().ok_or(Missing::More)?;
    if head[..2] != SYNC || !(11..=16).contains(&(head[5] >> 3)) {
        return Err(Missing::Wrong);
    }
    let words = u64::from(head[2] & 7) << 8 | u64::from(head[3]);
    let (rate, blocks) = match (head[4] >> 6, head[4] >> 4 & 3) {
        // Half the rate, always six blocks.
        (3, half) => (AC3_RATES.get(usize::from(half)).map(|rate| rate / 2), 6),
        (rate, code) => (AC3_RATES.get(usize::from(rate)).copied(), [1, 2, 3, 6][usize::from(code)]),
    };
    let ticks_90k = blocks * 256 * 90_000 / rate.ok_or(Missing::Wrong)?;
    let bytes = (words as usize + 1) * 2;
    Ok((Found { config: None, header_bytes: 0, bytes, ticks_90k }, head[2] >> 6))
}

/// A packet behind its control header, which begins with what the one before may hold as well.
fn opus(bytes: &[u8]) -> Result<Found, Missing> {
    let (header_bytes, packet_bytes) = read_control_header(bytes).map_err(|error| match error {
        ControlHeaderError::Truncated => Missing::More,
        ControlHeaderError::Prefix => Missing::Wrong,
    })?;
    let packet = bytes.get(header_bytes..header_bytes + packet_bytes).ok_or(Missing::More)?;
    let ticks_90k = ticks_90k(packet).ok_or(Missing::Wrong)?;
    Ok(Found { config: None, header_bytes, bytes: header_bytes + packet_bytes, ticks_90k })
}

const SYNC: [u8; 2] = [0x0b, 0x77];
/// `strmtyp` of a substream that belongs to the one before.
const DEPENDENT: u8 = 1;
/// Substreams that may belong to one (ETSI TS 102 366 E.1.3.1.2).
const DEPENDENTS_MAX: usize = 8;

/// By `sampling_frequency_index` (ISO/IEC 14496-3 table 1.18).
pub(super) const AAC_RATES: [u64; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];
/// By `fscod`.
const AC3_RATES: [u64; 3] = [48_000, 44_100, 32_000];
/// By half of `frmsizecod`.
const AC3_KBPS: [u64; 19] = [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn frames_lie_across_pes_packets_with_their_times() {
        let frame = [&[0xff, 0xf1, 0x4c, 0x80, 0x01, 0x7f, 0xfc][..], &[7; 4]].concat();
        let stream = frame.repeat(4);
        for (cut, is_untimed) in (0..stream.len()).flat_map(|cut| [(cut, false), (cut, true)]) {
            let mut splitter = Splitter::default();
            let mut seen = Vec::new();
            let mut note = |at: u64, frame: Frame<'_>| seen.push((at, frame.config, frame.bytes.to_vec()));
            // The second packet's time is that of the first frame that begins in it.
            let second = 1_000 + (cut as u64).div_ceil(11) * 1_920;
            let second = Some(second).filter(|_| !is_untimed);
            let wrong = splitter.split(Codec::Aac, &stream[..cut], Some(1_000), &mut note)
                + splitter.split(Codec::Aac, &stream[cut..], second, &mut note);
            assert_eq!((wrong, seen.len()), (0, 4), "{cut}");
            for (n, (at, config, bytes)) in seen.into_iter().enumerate() {
                assert_eq!((at, config, bytes), (1_000 + 1_920 * n as u64, Some([0x11, 0x90]), vec![7; 4]), "{cut}");
            }
        }
    }

    #[test]
    fn what_lies_between_frames_is_passed_over_and_counted_once() {
        let frame = [&[0xff, 0xf1, 0x4c, 0x80, 0x01, 0x7f, 0xfc][..], &[7; 4]].concat();
        let stream = [&frame[..], &[1, 2, 3], &frame].concat();
        let (mut splitter, mut count) = (Splitter::default(), 0);
        let wrong = splitter.split(Codec::Aac, &stream, Some(0), |_, _| count += 1);
        assert_eq!((wrong, count), (1, 2));
    }

    #[test]
    fn frames_of_ac3_are_as_long_as_the_tables_say() {
        let ac3 = |code: u8| [&[0x0b, 0x77, 0, 0, code, 8 << 3][..], &[0; 4_000]].concat();
        // 448 kb/s at 48 kHz, 32 kb/s at 44.1 kHz in both sizes.
        for (code, bytes) in [(30, 1_792), (0x40, 138), (0x41, 140)] {
            assert_eq!(find(Codec::Ac3, &ac3(code)).unwrap().bytes, bytes);
        }
        let independent = [&[0x0b, 0x77, 0x00, 0x04, 0x30, 16 << 3][..], &[0; 4]].concat();
        let dependent = [&[0x0b, 0x77, 0x40, 0x04, 0x30, 16 << 3][..], &[0; 4]].concat();
        let both = [&independent[..], &dependent, &independent].concat();
        let found = find(Codec::Eac3, &both).unwrap();
        assert_eq!((found.bytes, found.ticks_90k), (20, 2_880));
    }

    proptest! {
        #[test]
        fn any_bytes_are_split_or_passed_over(parts: Vec<Vec<u8>>, first in 0..4_usize, sync: bool) {
            let codec = [Codec::Aac, Codec::Ac3, Codec::Eac3, Codec::Opus][first];
            let mut splitter = Splitter::default();
            for part in parts {
                let head = [&[0xff, 0xf1, 0x4c, 0x80][..], &[0x0b, 0x77], &[0x0b, 0x77], &[0x7f, 0xe0]][first];
                let part = if sync { [head, &part].concat() } else { part };
                splitter.split(codec, &part, Some(0), |_, _| {});
                prop_assert!(splitter.rest.len() <= 9 * 4_096);
            }
        }
    }
}
