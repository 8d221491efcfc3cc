//! `DecoderBuffers`: what a decoder's buffers hold and how fast it takes data in, by codec, profile and level (13818-1 2.4.2.4,
//! 2.14.3.1 and 2.17.2; for AC-3 ETSI TS 101 154).
//!
//! Where parameters of the hypothetical reference decoder ask for less than the level allows, a decoder of H.264 and HEVC takes
//! data in at that rate (2.14.3.1). They are not read: what is too fast for the level is too fast for any of its streams.

use crate::proto::annexb::{Units, unescape};
use crate::units::Bitrate;

/// Buffers of one elementary stream behind its transport buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DecoderBuffers {
    /// How fast the transport buffer empties itself, R<sub>x</sub>.
    pub(super) leak: Bitrate,
    /// What the others hold together: B of sound, MB and EB of pictures. Of pictures that is the same whatever the parameters of
    /// the hypothetical reference decoder are: the larger EB, the smaller MB. Of MPEG-2 at the high levels MB is always the same.
    pub(super) bytes: u32,
}

/// A frame of sound at the beginning of a PES packet's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SoundFrame {
    pub(super) buffers: DecoderBuffers,
    /// How long it is heard.
    pub(super) ticks_27m: u32,
}

impl DecoderBuffers {
    /// By the headers in front of a picture that a decoder may start at: sequence headers, parameter sets. `None` without
    /// them, or if profile and level are none that are known here.
    pub(super) fn of_video(codec: &str, bytes: &[u8]) -> Option<Self> {
        let mut vbv_low = 0;
        let (rate_bps, cpb_bits) = Units::new(bytes).take(HEADERS_MAX).find_map(|unit| match codec {
            "h264" => h264(unit),
            "hevc" => hevc(unit),
            "mpeg2video" => mpeg2(unit, &mut vbv_low),
            _ => None,
        })?;
        // BS_mux is 4 ms and BS_oh 1/750 s of the highest rate (13818-1 2.4.2.4), which counts as 2 Mb/s at least (2.14.3.1).
        let multiplex_bits = rate_bps.max(2_000_000) * 2 / 375;
        let bytes = u32::try_from((multiplex_bits + cpb_bits) / 8).ok()?;
        Some(Self { leak: Bitrate::from_bps(rate_bps + rate_bps / 5), bytes })
    }

    const fn of_sound(leak_bps: u64, bytes: u32) -> Self {
        Self { leak: Bitrate::from_bps(leak_bps), bytes }
    }
}

impl SoundFrame {
    /// By its header; `None` if there is none at the beginning of `data`, or the codec is none that is known here.
    pub(super) fn parse(codec: &str, data: &[u8]) -> Option<Self> {
        let (leak_bps, bytes, samples, rate_hz) = match (codec, data) {
            ("mp2", [0xff, b1, b2, ..]) if b1 >> 5 == 7 => {
                let is_first = b1 & 0x08 != 0;
                let samples = match b1 >> 1 & 3 {
                    2 => 1_152,
                    1 if is_first => 1_152,
                    1 => 576,
                    _ => return None,
                };
                let rate_hz = *[44_100, 48_000, 32_000].get(usize::from(b2 >> 2 & 3))?;
                (2_000_000, 3_584, samples, if is_first { rate_hz } else { rate_hz / 2 })
            }
            ("aac", [0xff, b1, b2, b3, ..]) if b1 & 0xf6 == 0xf0 => {
                let (leak_bps, bytes) = match (b2 & 1) << 2 | b3 >> 6 {
                    1 | 2 => (2_000_000, 3_584),
                    3..=7 => (5_529_600, 8_976),
                    _ => return None,
                };
                (leak_bps, bytes, 1_024, *AAC_RATES_HZ.get(usize::from(b2 >> 2 & 15))?)
            }
            ("ac3", [0x0b, 0x77, _, _, b4, ..]) => {
                (2_000_000, 5_696, 1_536, *[48_000, 44_100, 32_000].get(usize::from(b4 >> 6))?)
            }
            _ => return None,
        };
        let ticks_27m = (samples * 27_000_000_u64 / rate_hz) as u32;
        Some(Self { buffers: DecoderBuffers::of_sound(leak_bps, bytes), ticks_27m })
    }
}

/// A sequence parameter set (H.264 7.3.2.1.1): highest rate and buffer by table A-1, as NAL units have them.
fn h264(unit: &[u8]) -> Option<(u64, u64)> {
    let [first, profile, constraints, level, ..] = *unit else { return None };
    if first & 0x1f != 7 {
        return None;
    }
    let factor = match profile {
        66 | 77 | 88 => 1_200,
        100 | 118 | 128 => 1_500,
        110 => 3_600,
        122 | 244 | 44 => 4_800,
        _ => return None,
    };
    // Level 1b is 9, or 11 with a flag in the older profiles.
    let is_1b = level == 9 || (level == 11 && constraints & 0x10 != 0 && factor == 1_200);
    let (rate, cpb) = match level {
        _ if is_1b => (128, 350),
        10 => (64, 175),
        11 => (192, 500),
        12 => (384, 1_000),
        13 => (768, 2_000),
        20 => (2_000, 2_000),
        21 | 22 => (4_000, 4_000),
        30 => (10_000, 10_000),
        31 => (14_000, 14_000),
        32 => (20_000, 20_000),
        40 => (20_000, 25_000),
        41 | 42 => (50_000, 62_500),
        50 => (135_000, 135_000),
        51 | 52 | 60 => (240_000, 240_000),
        61 => (480_000, 480_000),
        62 => (800_000, 800_000),
        _ => return None,
    };
    Some((rate * factor, cpb * factor))
}

/// A video or sequence parameter set (H.265 7.3.2.1, 7.3.2.2 and 7.3.3), of Main, Main 10 and Main Still Picture: by tables
/// A.8 and A.9.
fn hevc(unit: &[u8]) -> Option<(u64, u64)> {
    let profile_at = match unit.first()? >> 1 & 0x3f {
        32 => 2 + 4,
        33 => 2 + 1,
        _ => return None,
    };
    let plain = unescape(unit.get(..unit.len().min(PARAMETER_SET_BYTES))?);
    let [profile, .., level] = *plain.get(profile_at..)?.first_chunk::<12>()?;
    if !matches!(profile & 0x1f, 1..=3) {
        return None;
    }
    let is_high = profile & 0x20 != 0;
    let rate = match (level, is_high) {
        (30, _) => 128,
        (60, _) => 1_500,
        (63, _) => 3_000,
        (90, _) => 6_000,
        (93, _) => 10_000,
        (120, false) => 12_000,
        (123, false) => 20_000,
        (120, true) => 30_000,
        (123, true) => 50_000,
        (150, false) => 25_000,
        (153, false) => 40_000,
        (150, true) => 100_000,
        (153, true) => 160_000,
        (156 | 180, false) => 60_000,
        (156 | 180, true) => 240_000,
        (183, false) => 120_000,
        (183, true) => 480_000,
        (186, false) => 240_000,
        (186, true) => 800_000,
        _ => return None,
    };
    let cpb = if level == 30 { 350 } else { rate };
    Some((rate * HEVC_NAL_FACTOR, cpb * HEVC_NAL_FACTOR))
}

/// A sequence extension (13818-2 6.2.2.3): highest rate by table 8-13, buffer of the video buffering verifier by 8-14. At High-1440
/// and High level EB has what the stream asks for, and MB does not grow by what it leaves (13818-1 2.4.2.4): that is found in the
/// extension and in the sequence header before it (13818-2 6.2.2.1), whose part is kept in `vbv_low`.
fn mpeg2(unit: &[u8], vbv_low: &mut u64) -> Option<(u64, u64)> {
    if let [0xb3, _, _, _, _, _, _, b7, b8, ..] = *unit {
        *vbv_low = u64::from(b7 & 0x1f) << 5 | u64::from(b8 >> 3);
    }
    let [0xb5, b1, b2, ..] = *unit else { return None };
    if b1 >> 4 != 1 {
        return None;
    }
    let (rate, largest) = mpeg2_level(b1 << 4 | b2 >> 4)?;
    let asked = unit.get(5).map_or(0, |high| (u64::from(*high) << 10 | *vbv_low) * VBV_UNIT_BITS);
    let is_high = matches!(b2 >> 4, 2 | 4 | 6);
    Some((rate, if is_high && asked > 0 { asked.min(largest) } else { largest }))
}

const fn mpeg2_level(profile_and_level: u8) -> Option<(u64, u64)> {
    match profile_and_level {
        // Main and Simple profile at Low, Main, High-1440 and High level.
        0x4a => Some((4_000_000, 475_136)),
        0x48 | 0x58 => Some((15_000_000, 1_835_008)),
        0x46 => Some((60_000_000, 7_340_032)),
        0x44 => Some((80_000_000, 9_781_248)),
        // High profile.
        0x18 => Some((20_000_000, 2_441_216)),
        0x16 => Some((80_000_000, 9_781_248)),
        0x14 => Some((100_000_000, 12_222_464)),
        // 4:2:2 profile at Main and High level.
        0x85 => Some((50_000_000, 9_437_184)),
        0x82 => Some((300_000_000, 47_185_920)),
        _ => None,
    }
}

/// Units looked at: delimiter and parameter sets, or sequence header and extension, are the first of all.
const HEADERS_MAX: usize = 8;
/// Where profile and level stand, and no more.
const PARAMETER_SET_BYTES: usize = 32;
/// Of `vbv_buffer_size_value` (13818-2 6.3.3).
const VBV_UNIT_BITS: u64 = 16 * 1_024;
/// Of the profiles known here (H.265 table A.10).
const HEVC_NAL_FACTOR: u64 = 1_100;
/// 14496-3 table 1.18.
const AAC_RATES_HZ: [u64; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pictures_tell_by_profile_and_level() {
        let bytes = |buffers: Option<DecoderBuffers>| buffers.map(|buffers| (buffers.leak.as_bps(), buffers.bytes));
        // Behind a delimiter. High at 4: 30 Mb/s and 37.5 Mb.
        let sps = [0, 0, 0, 1, 9, 0xf0, 0, 0, 0, 1, 0x67, 100, 0, 40, 0xac];
        assert_eq!(bytes(DecoderBuffers::of_video("h264", &sps)), Some((36_000_000, 20_000 + 4_687_500)));
        // Main tier at 4.1: 22 Mb/s; with bytes against start codes among the flags.
        let vps = [0, 0, 1, 0x40, 1, 0x0c, 1, 0xff, 0xff, 1, 0x60, 0, 0, 3, 0, 0x90, 0, 0, 3, 0, 0, 3, 0, 123, 0x95];
        assert_eq!(bytes(DecoderBuffers::of_video("hevc", &vps)), Some((26_400_000, 14_666 + 2_750_000)));
        // Main profile at Main level: 15 Mb/s and 1,835,008 bits.
        let sequence = [0, 0, 1, 0xb3, 0x2d, 0x02, 0x40, 0x33, 0, 0, 1, 0xb5, 0x14, 0x8a, 0];
        assert_eq!(bytes(DecoderBuffers::of_video("mpeg2video", &sequence)), Some((18_000_000, 10_000 + 229_376)));
        // At High level the 100 and, in the extension, 1,024 units of 16,384 bits that it asks for, of 597 there are; at Main all.
        let asking = |level: u8, high| {
            let extension = [0xb5, 0x14, level << 4 | 0x0a, 0, 1, high, 0];
            [&[0, 0, 1, 0xb3, 0x2d, 0x02, 0x40, 0x33, 0xff, 0xff, 0xe3, 0x20, 0, 0, 1][..], &extension].concat()
        };
        let high = |bits: u32| Some((96_000_000, (426_666 + bits) / 8));
        assert_eq!(bytes(DecoderBuffers::of_video("mpeg2video", &asking(4, 0))), high(100 * 16_384));
        assert_eq!(bytes(DecoderBuffers::of_video("mpeg2video", &asking(4, 1))), high(9_781_248));
        assert_eq!(bytes(DecoderBuffers::of_video("mpeg2video", &asking(8, 0))), Some((18_000_000, 10_000 + 229_376)));
        for (codec, bytes) in [("h264", &sps[..10]), ("h264", &vps), ("vc1", &sps), ("mpeg2video", &sequence[..8])] {
            assert_eq!(DecoderBuffers::of_video(codec, bytes), None);
        }
    }

    #[test]
    fn sound_tells_by_codec_and_channels() {
        let told = |codec, data: &[u8]| {
            SoundFrame::parse(codec, data)
                .map(|frame| (frame.buffers.leak.as_bps(), frame.buffers.bytes, frame.ticks_27m))
        };
        assert_eq!(told("mp2", &[0xff, 0xfd, 0xa4, 0]), Some((2_000_000, 3_584, 648_000)));
        assert_eq!(told("aac", &[0xff, 0xf1, 0x4c, 0x80]), Some((2_000_000, 3_584, 576_000)));
        assert_eq!(told("aac", &[0xff, 0xf1, 0x4d, 0x80]), Some((5_529_600, 8_976, 576_000)));
        assert_eq!(told("ac3", &[0x0b, 0x77, 0, 0, 0x14]), Some((2_000_000, 5_696, 864_000)));
        assert_eq!(told("opus", &[0xff, 0xf1, 0x4c, 0x80]), None);
        assert_eq!(told("aac", &[0x0b, 0x77, 0, 0, 0x14]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(0_u8..=255, 0..80), level in any::<u8>()) {
            for codec in ["h264", "hevc", "mpeg2video", "mp2", "aac", "ac3"] {
                let _ = (DecoderBuffers::of_video(codec, &bytes), SoundFrame::parse(codec, &bytes));
                for head in [&[0, 0, 1, 0x67, 100, 0, level][..], &[0, 0, 1, 0x42, 1], &[0, 0, 1, 0xb5, level]] {
                    let _ = DecoderBuffers::of_video(codec, &[head, &bytes].concat());
                }
            }
        }
    }
}
