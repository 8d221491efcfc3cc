//! Coded sound to samples: AAC by `syom`, MPEG audio by `symphonia`, AC-3 and E-AC-3 by `oxideav-ac3`, and PCM.

use std::fmt;

use symphonia::core::audio::GenericAudioBufferRef;
use symphonia::core::codecs::audio::well_known::{CODEC_ID_MP1, CODEC_ID_MP2, CODEC_ID_MP3};
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::packet::PacketRef;
use symphonia::core::units::{Duration, Timestamp};
use symphonia::default::codecs::MpaDecoder;
use syom::{DecodeOptions, MemoryBudgets};

use super::ac3::Ac3;
use super::decode::DecodeError;
use super::headers::{ac3_frames, mpeg_audio_frames};
use super::s302m;
use crate::proto::mpegts::demux::{AccessUnit, Codec};

/// Decodes the sound of one stream.
pub struct SoundDecoder {
    inner: Inner,
    /// Samples of each channel, for decoders that do not lend theirs.
    planes: Vec<Vec<f32>>,
}

enum Inner {
    Aac(Box<syom::Decoder>),
    /// Made by the first frame, which tells the layer.
    Mpeg(Option<Box<(u8, MpaDecoder)>>),
    Ac3(Ac3),
    Pcm,
}

/// Samples of all channels, -1 to 1, lent for as long as they are looked at.
#[derive(Clone, Copy, Debug)]
pub struct Sound<'a> {
    /// Samples a second of each channel.
    pub rate: u32,
    /// As many samples of each channel as of the others. Of five or six channels the order is that of MPEG: centre, left,
    /// right, the two surrounds, low frequencies.
    pub channels: &'a [&'a [f32]],
}

impl fmt::Debug for SoundDecoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SoundDecoder").finish_non_exhaustive()
    }
}

impl SoundDecoder {
    /// Of a codec of sound.
    ///
    /// # Errors
    /// [`DecodeError::Unsupported`] if it is not decoded here.
    pub fn new(codec: Codec) -> Result<Self, DecodeError> {
        let inner = match codec {
            Codec::Aac | Codec::AacLatm => {
                // Without end, as the stream is; what it may have in memory stays limited.
                let options = DecodeOptions::unbounded().with_memory(MemoryBudgets::default());
                Inner::Aac(Box::new(syom::Decoder::new(options)))
            }
            Codec::MpegAudio => Inner::Mpeg(None),
            Codec::Ac3 | Codec::Eac3 => Inner::Ac3(Ac3::new(codec)?),
            Codec::Smpte302m => Inner::Pcm,
            Codec::Opus => return Err(DecodeError::Unsupported("opus")),
            Codec::Mpeg1Video | Codec::Mpeg2Video | Codec::H264 | Codec::Hevc | Codec::Av1 => {
                return Err(DecodeError::Unsupported("no sound"));
            }
        };
        Ok(Self { inner, planes: Vec::new() })
    }

    /// Decodes the unit's frames and shows the samples of each.
    ///
    /// # Errors
    /// A frame could not be decoded. Those before it were shown, those after it are not; the next unit starts anew.
    pub fn decode(&mut self, unit: &AccessUnit, mut show: impl FnMut(Sound<'_>)) -> Result<(), DecodeError> {
        match &mut self.inner {
            Inner::Aac(decoder) => {
                let outcome = decoder.feed(&unit.bytes, |frame| {
                    show(Sound { rate: frame.sample_rate, channels: frame.planar });
                    Ok(())
                });
                if outcome.is_err() {
                    decoder.reset();
                    return Err(DecodeError::Damaged("AAC frame"));
                }
                Ok(())
            }
            Inner::Ac3(decoder) => decoder.decode(&unit.bytes, &mut self.planes, &mut show),
            Inner::Pcm => s302m::decode(&unit.bytes, &mut self.planes, &mut show),
            Inner::Mpeg(decoder) => {
                for (layer, frame) in mpeg_audio_frames(&unit.bytes) {
                    if decoder.as_ref().is_none_or(|decoder| decoder.0 != layer) {
                        *decoder = Some(Box::new((layer, mpeg_decoder(layer)?)));
                    }
                    let Some((_, mpeg)) = decoder.as_deref_mut() else { continue };
                    let packet = PacketRef::new(0, Timestamp::from(0), Duration::from(0_u64), frame);
                    let Ok(buffer) = mpeg.decode_ref(&packet) else {
                        *decoder = None;
                        return Err(DecodeError::Damaged("MPEG audio frame"));
                    };
                    show_buffer(&buffer, &mut self.planes, &mut show);
                }
                Ok(())
            }
        }
    }
}

fn mpeg_decoder(layer: u8) -> Result<MpaDecoder, DecodeError> {
    let codec = match layer {
        1 => CODEC_ID_MP1,
        2 => CODEC_ID_MP2,
        _ => CODEC_ID_MP3,
    };
    let mut parameters = AudioCodecParameters::new();
    parameters.for_codec(codec);
    MpaDecoder::try_new(&parameters, &AudioDecoderOptions::default())
        .map_err(|_| DecodeError::Unsupported("MPEG audio"))
}

/// The body of the fuzz target `media_sound`, which tests call as well: any bytes as PCM in AES3, and cut into frames of
/// AC-3 and MPEG audio. The decoders of those are fuzzed where they are made.
///
/// # Panics
/// If frames overlap, or channels have more samples than there are bytes.
pub fn check_any_bytes(bytes: &[u8]) {
    let frames: usize = ac3_frames(bytes).map(<[u8]>::len).sum();
    assert!(frames <= bytes.len());
    let frames: usize = mpeg_audio_frames(bytes).map(|(_, frame)| frame.len()).sum();
    assert!(frames <= bytes.len());
    let outcome = s302m::decode(bytes, &mut Vec::new(), &mut |sound| {
        let samples: usize = sound.channels.iter().map(|channel| channel.len()).sum();
        assert!(
            samples <= bytes.len()
                && sound.channels.iter().all(|channel| channel.iter().all(|sample| sample.abs() <= 1.0))
        );
    });
    assert!(outcome.is_err() || bytes.len() >= 4);
}

fn show_buffer(buffer: &GenericAudioBufferRef<'_>, planes: &mut Vec<Vec<f32>>, show: &mut impl FnMut(Sound<'_>)) {
    buffer.copy_to_vecs_planar(planes);
    let mut channels: [&[f32]; 2] = [&[]; 2];
    let count = planes.len().min(channels.len());
    for (channel, plane) in channels.iter_mut().zip(planes.iter()) {
        *channel = plane;
    }
    show(Sound { rate: buffer.spec().rate(), channels: &channels[..count] });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_truncation_of_recorded_frames_is_cut_without_harm() {
        for bytes in RECORDED {
            for len in 0..bytes.len() {
                check_any_bytes(&bytes[..len]);
            }
        }
    }

    proptest! {
        #[test]
        fn changed_frames_do_no_harm(
            which in 0..RECORDED.len(),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)
        ) {
            let mut bytes = RECORDED[which].repeat(3);
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            check_any_bytes(&bytes);
        }
    }

    const RECORDED: [&[u8]; 4] = [
        include_bytes!("../../tests/data/media/ac3_51"),
        include_bytes!("../../tests/data/media/eac3_51"),
        include_bytes!("../../tests/data/media/mp2"),
        &[0, 10, 0, 0, 0x00, 0x02, 0xf0, 0x00, 0x1f, 0x00, 0x02, 0xf0, 0x00, 0x1f],
    ];
}
