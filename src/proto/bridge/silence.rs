//! Silence in AAC, in place of a publisher's sound: whoever listens to a stream with sound may wait for it.

use super::frames::AAC_RATES;
use crate::proto::Payload;
use crate::proto::rtmp::Message;
use crate::proto::rtmp::flv::{self, AccessUnit, Codec, Content};
use crate::units::Ticks90k;

/// A track of sound in which nothing is heard, from zero on.
#[derive(Debug)]
pub struct Silence {
    header: AccessUnit,
    rate_hz: u64,
    frame: Payload,
    /// Those that were given out.
    frames: u64,
}

impl Silence {
    /// Of the track that this is the header of; `None` if that is no AAC of low complexity, with spectral band replication or
    /// not, in a usual layout of channels.
    #[must_use]
    pub fn like(header: &AccessUnit) -> Option<Self> {
        // 14496-3 1.6.2.1, and 4.4.1 for the length of frames.
        let (Codec::Aac, [first, second, ..]) = (header.codec, &header.bytes[..]) else { return None };
        let (object_type, has_short_frames) = (first >> 3, second & 4 != 0);
        let is_known = object_type == LOW_COMPLEXITY && !has_short_frames || matches!(object_type, SBR | PS);
        let rate_hz = *AAC_RATES.get(usize::from((first & 7) << 1 | second >> 7)).filter(|_| is_known)?;
        let frame = frame(second >> 3 & 15)?.into();
        let header = AccessUnit { dts: Ticks90k(0), pts: Ticks90k(0), ..header.clone() };
        Some(Self { header, rate_hz, frame, frames: 0 })
    }

    /// What stands before the first frame.
    #[must_use]
    pub fn header(&self) -> Message {
        flv::write(&self.header)
    }

    /// The next frame, if it begins by then. What should have come more than a second earlier is left out.
    pub fn frame_until(&mut self, ms: u32) -> Option<Message> {
        let behind_90k = u64::from(ms.saturating_sub(BEHIND_MAX_MS)) * 90;
        self.frames = self.frames.max(behind_90k * self.rate_hz / 90_000 / FRAME_SAMPLES);
        let dts = Ticks90k(self.frames * FRAME_SAMPLES * 90_000 / self.rate_hz);
        if dts.0 > u64::from(ms) * 90 {
            return None;
        }
        self.frames += 1;
        let (content, bytes) = (Content::KeyFrame, self.frame.clone());
        Some(flv::write(&AccessUnit { content, dts, pts: dts, bytes, ..self.header.clone() }))
    }
}

/// `raw_data_block` (14496-3 4.4.2.1) of a channel configuration (table 1.19): each element without any band of its spectrum.
fn frame(channels: u8) -> Option<Vec<u8>> {
    let elements: &[u8] = match channels {
        1 => &[SINGLE],
        2 => &[PAIR],
        3 => &[SINGLE, PAIR],
        4 => &[SINGLE, PAIR, SINGLE],
        5 => &[SINGLE, PAIR, PAIR],
        6 => &[SINGLE, PAIR, PAIR, LOW],
        7 => &[SINGLE, PAIR, PAIR, PAIR, LOW],
        _ => return None,
    };
    let (mut bits, mut used) = (Vec::new(), [0; 4]);
    let mut put = |value: u8, count: u8| bits.extend((0..count).rev().map(|bit| u32::from(value) >> bit & 1));
    for &element in elements {
        put(element, 3);
        put(used[usize::from(element)], 4);
        used[usize::from(element)] += 1;
        if element == PAIR {
            put(1, 1); // common_window
            put(0, WINDOW_BITS);
            put(0, 2); // ms_mask_present
            put(0, GAIN_BITS + TOOLS_BITS);
            put(0, GAIN_BITS + TOOLS_BITS);
        } else {
            put(0, GAIN_BITS + WINDOW_BITS + TOOLS_BITS);
        }
    }
    put(END, 3);
    let byte = |bits: &[u32]| bits.iter().zip((0..8).rev()).fold(0, |byte, (bit, at)| byte | (bit << at) as u8);
    Some(bits.chunks(8).map(byte).collect())
}

/// Names of syntactic elements (14496-3 table 4.71): one channel, two, low frequencies, and the end.
const SINGLE: u8 = 0;
const PAIR: u8 = 1;
const LOW: u8 = 3;
const END: u8 = 7;
/// What is zero in them: `global_gain`; `ics_info` of one long window of no bands; flags of pulses, noise shaping and gain
/// control (14496-3 4.4.2.7, tables 4.6 and 4.50).
const GAIN_BITS: u8 = 8;
const WINDOW_BITS: u8 = 11;
const TOOLS_BITS: u8 = 3;
/// Object types (14496-3 table 1.17).
const LOW_COMPLEXITY: u8 = 2;
const SBR: u8 = 5;
const PS: u8 = 29;
const FRAME_SAMPLES: u64 = 1_024;

/// Judgement: longer than a picture of the slate lasts, and no more than the multiplexer takes at once.
const BEHIND_MAX_MS: u32 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn header(codec: Codec, bytes: &[u8]) -> AccessUnit {
        let (dts, pts, bytes) = (Ticks90k(7), Ticks90k(7), bytes.to_vec().into());
        AccessUnit { track: 0, codec, content: Content::Header, dts, pts, bytes }
    }

    #[test]
    fn frames_of_silence_follow_one_another_in_time() {
        let mut silence = Silence::like(&header(Codec::Aac, &[0x12, 0x10])).unwrap();
        assert_eq!(silence.header().payload[..], [0xaf, 0, 0x12, 0x10]);
        let times = |silence: &mut Silence, ms| -> Vec<u32> {
            std::iter::from_fn(|| silence.frame_until(ms)).map(|frame| frame.timestamp_ms).collect()
        };
        assert_eq!(times(&mut silence, 0), [0]);
        assert_eq!(times(&mut silence, 70), [23, 46, 69]);
        assert!(times(&mut silence, 70).is_empty());
        // Its picture was asleep for an hour.
        let late = times(&mut silence, 3_600_000);
        assert!(late.len() < 50 && late[0] >= 3_598_900, "{} from {}", late.len(), late[0]);
        // A pair: its name and number, a common window, and zeros up to the end.
        assert_eq!(silence.frame[..], [0x21, 0, 0, 0, 0, 0x1c]);
    }

    #[test]
    fn what_has_no_silence_of_its_kind_has_none() {
        for config in [&[0x12][..], &[0x12, 0x00], &[0x12, 0x40], &[0x12, 0x14], &[0x0a, 0x10], &[0x17, 0x90]] {
            assert!(Silence::like(&header(Codec::Aac, config)).is_none(), "{config:?}");
        }
        assert!(Silence::like(&header(Codec::Opus, b"OpusHead")).is_none());
    }
}
