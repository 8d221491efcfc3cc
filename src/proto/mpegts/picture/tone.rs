//! A tone as MPEG-1 audio, layer II (ISO/IEC 11172-3, here "11172-3"): one frame that repeats.
//!
//! A tone in the middle of a subband needs no filter bank: its samples there are four numbers that repeat, and what
//! they leave in the neighbours lies 96 dB below. Subband 1 of 48 kHz has its middle at 1125 Hz, and a frame is nine
//! whole periods of its samples, so every frame is the same as the one before.

/// Bytes of a frame: 192 kb/s for 1,152 samples of 48 kHz.
pub(super) const FRAME_BYTES: usize = 576;

/// Ticks of 90 kHz that a frame takes.
pub(super) const FRAME_90K: u64 = 2_160;

/// The frame: stereo, 48 kHz, 1125 Hz at 18 dB below full scale (EBU R 68).
pub(super) fn frame() -> [u8; FRAME_BYTES] {
    let mut frame = [0; FRAME_BYTES];
    let mut at = 0;
    let mut put = |value: u32, width: usize| {
        for bit in (0..width).rev() {
            if value >> bit & 1 == 1 {
                frame[at / 8] |= 0x80 >> (at % 8);
            }
            at += 1;
        }
    };
    // Layer II without CRC, 192 kb/s, 48 kHz, stereo, original (11172-3 2.4.2.3).
    put(0xfffd_a404, 32);
    // How finely each subband is quantised (11172-3 table B.2a): with 16 bits in subband 1, not at all in the others.
    for (subbands, width) in [(0..11, 4), (11..23, 3), (23..27, 2)] {
        for subband in subbands {
            let allocation = if subband == 1 { 15 } else { 0 };
            put(allocation, width);
            put(allocation, width);
        }
    }
    // One scale factor for all three parts, in both channels: an eighth (11172-3 table B.1).
    put(0b10_10, 4);
    put(12 << 6 | 12, 12);
    // Twelve times three samples of the left channel, then three of the right.
    for granule in 0..12 {
        for sample in [0, 1, 2, 0, 1, 2].map(|n| SAMPLES[(granule * 3 + n) % SAMPLES.len()]) {
            // Two's complement with the highest bit turned round (11172-3 2.4.3.3.4).
            put((sample as u16 ^ 0x8000).into(), 16);
        }
    }
    frame
}

/// A cosine of a quarter of the subband's rate, an eighth of a turn on: 0.126 / sqrt(2), in units of the scale factor.
const SAMPLES: [i16; 4] = [LEVEL, -LEVEL, -LEVEL, LEVEL];
const LEVEL: i16 = 23_337;
