//! Coded sound to samples: AAC by `syom`, MPEG audio by `symphonia`. AC-3 is not decoded.

use std::fmt;

use symphonia::core::audio::GenericAudioBufferRef;
use symphonia::core::codecs::audio::well_known::{CODEC_ID_MP1, CODEC_ID_MP2, CODEC_ID_MP3};
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::packet::PacketRef;
use symphonia::core::units::{Duration, Timestamp};
use symphonia::default::codecs::MpaDecoder;
use syom::{DecodeOptions, MemoryBudgets};

use super::decode::DecodeError;
use super::headers::mpeg_audio_frames;
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
}

/// Samples of all channels, -1 to 1, lent for as long as they are looked at.
#[derive(Clone, Copy, Debug)]
pub struct Sound<'a> {
    /// Samples a second of each channel.
    pub rate: u32,
    /// As many samples of each channel as of the others.
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
            Codec::Ac3 | Codec::Eac3 => return Err(DecodeError::Unsupported("AC-3")),
            Codec::Mpeg1Video | Codec::Mpeg2Video | Codec::H264 | Codec::Hevc => {
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

fn show_buffer(buffer: &GenericAudioBufferRef<'_>, planes: &mut Vec<Vec<f32>>, show: &mut impl FnMut(Sound<'_>)) {
    buffer.copy_to_vecs_planar(planes);
    let mut channels: [&[f32]; 2] = [&[]; 2];
    let count = planes.len().min(channels.len());
    for (channel, plane) in channels.iter_mut().zip(planes.iter()) {
        *channel = plane;
    }
    show(Sound { rate: buffer.spec().rate(), channels: &channels[..count] });
}
