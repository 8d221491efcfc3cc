//! A tone of 1 kHz as MPEG-1 audio, layer II (ISO/IEC 11172-3, here "11172-3"): one frame that repeats.
//!
//! A tone that goes on needs no filter bank. Each of the subbands of 750 Hz gives 1,500 samples a second, of which three
//! are two turns of 1 kHz, and a frame is 36 of them, so every frame is the same as the one before. Subband 1 has the
//! tone; as its filter is not steep it leaves an image at 500 Hz, 34 dB below, which subband 0 takes away. What then is
//! left lies 87 dB below the tone, measured with ffmpeg's decoder, as the two sets of samples were found.

/// Bytes of a frame: 192 kb/s for 1,152 samples of 48 kHz.
pub(super) const FRAME_BYTES: usize = 576;

/// Ticks of 90 kHz that a frame takes.
pub(super) const FRAME_90K: u64 = 2_160;

/// The frame: stereo, 48 kHz, 1 kHz at 18 dB below full scale (EBU R 68).
pub(super) fn frame() -> [u8; FRAME_BYTES] {
    let mut frame = SILENCE;
    let mut at = 32;
    let mut put = |value: u32, width: usize| {
        for bit in (0..width).rev() {
            if value >> bit & 1 == 1 {
                frame[at / 8] |= 0x80 >> (at % 8);
            }
            at += 1;
        }
    };
    // How finely each subband is quantised (11172-3 table B.2a): with 16 bits in those of the tone, not at all in the others.
    for (subbands, width) in [(0..11, 4), (11..23, 3), (23..27, 2)] {
        for subband in subbands {
            let allocation = if subband < SUBBANDS.len() { 15 } else { 0 };
            put(allocation, width);
            put(allocation, width);
        }
    }
    // One scale factor for all three parts, in both channels.
    SUBBANDS.iter().for_each(|_| put(0b10_10, 4));
    SUBBANDS.iter().for_each(|subband| put(subband.scale << 6 | subband.scale, 12));
    // Twelve times three samples of the left channel, then three of the right, subband by subband.
    for _ in 0..12 {
        for subband in &SUBBANDS {
            for sample in [subband.samples, subband.samples].as_flattened() {
                // Two's complement with the highest bit turned round (11172-3 2.4.3.3.4).
                put((*sample as u16 ^ 0x8000).into(), 16);
            }
        }
    }
    frame
}

/// The same frame with no subband coded at all. Layer II without CRC, 192 kb/s, 48 kHz, stereo, original (11172-3 2.4.2.3).
pub(super) const SILENCE: [u8; FRAME_BYTES] = {
    let mut frame = [0; FRAME_BYTES];
    (frame[0], frame[1], frame[2], frame[3]) = (0xff, 0xfd, 0xa4, 0x04);
    frame
};

struct Subband {
    /// Index of the scale factor (11172-3 table B.1), 2 to the power of 1 - n / 3.
    scale: u32,
    samples: [i16; 3],
}

const SUBBANDS: [Subband; 2] =
    [Subband { scale: 27, samples: [10_741, 10_742, -21_483] }, Subband { scale: 12, samples: [28_575, -28_575, 0] }];
