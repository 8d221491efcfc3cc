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
    /// As many samples of each channel as of the others.
    pub channels: &'a [&'a [f32]],
    /// Where each of them is heard from; what is not said comes from the front.
    pub places: &'a [Place],
}

/// Where a channel is heard from, as far as loudness depends on that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// From the front.
    #[default]
    Front,
    /// From beside or behind.
    Surround,
    /// It is not measured: low frequencies, or a mix of the others.
    Apart,
}

/// Of so many channels whose order says nobody but the codec, which is none of AAC: left, right and two surrounds; or, in the
/// order of MPEG, centre, left, right, two surrounds, low frequencies; or those of SMPTE ST 320, which are left, right, centre,
/// low frequencies, two surrounds, and a mix of them for two loudspeakers.
pub(super) const fn places(channels: usize) -> &'static [Place] {
    use Place::{Apart, Front, Surround};
    match channels {
        4 => &[Front, Front, Surround, Surround],
        5 | 6 => &[Front, Front, Front, Surround, Surround, Apart],
        7.. => &[Front, Front, Front, Apart, Surround, Surround, Apart, Apart],
        _ => &[],
    }
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
                    let places = frame.meta.channels.map(|channel| channel.map(place).unwrap_or_default());
                    show(Sound { rate: frame.sample_rate, channels: frame.planar, places: &places });
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

/// By the decoder's word for it (ISO/IEC 14496-3 table 1.19).
const fn place(channel: syom::Channel) -> Place {
    use syom::Channel::{BackCenter, BackLeft, BackRight, Lfe, SideLeft, SideRight};
    if matches!(channel, BackLeft | BackRight | BackCenter | SideLeft | SideRight) {
        Place::Surround
    } else if matches!(channel, Lfe) {
        Place::Apart
    } else {
        Place::Front
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
    show(Sound { rate: buffer.spec().rate(), channels: &channels[..count], places: &[] });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::quality::Loudness;
    use super::*;

    #[test]
    fn every_truncation_of_recorded_frames_is_cut_without_harm() {
        for bytes in RECORDED {
            for len in 0..bytes.len() {
                check_any_bytes(&bytes[..len]);
            }
        }
    }

    /// Places by ISO/IEC 14496-3 table 1.19, weights by ITU-R BS.1770-4 table 3: what is heard from behind counts 1.41, what
    /// has only low frequencies nothing. Each channel alone is heard, in the order in which the decoder gives them.
    #[test]
    fn each_channel_of_aac_counts_as_its_place_says() {
        const REAR: f64 = 1.41;
        for (configuration, expected) in [
            (1, &[1.0][..]),
            (2, &[1.0; 2]),
            (3, &[1.0; 3]),
            (4, &[1.0, 1.0, 1.0, REAR]),
            (5, &[1.0, 1.0, 1.0, REAR, REAR]),
            (6, &[1.0, 1.0, 1.0, 0.0, REAR, REAR]),
            (7, &[1.0, 1.0, 1.0, 0.0, REAR, REAR, REAR, REAR]),
        ] {
            let places: Vec<Place> = syom::mpeg_channels(configuration).iter().map(|channel| place(*channel)).collect();
            assert_eq!(places.len(), expected.len());
            let loud: Vec<f32> = (0..48_000).map(|at| if at % 48 < 24 { 0.1 } else { -0.1 }).collect();
            let measure = |channels: &[&[f32]], places: &[Place]| {
                let mut loudness = Loudness::default();
                loudness.push(&Sound { rate: 48_000, channels, places });
                loudness.momentary()
            };
            let one = measure(&[&loud], &[]).unwrap();
            for (at, weight) in expected.iter().enumerate() {
                let mut channels = vec![&[0.0; 48_000][..]; expected.len()];
                channels[at] = &loud;
                let counts = measure(&channels, &places).map_or(0.0, |loudness| 10_f64.powf((loudness - one) / 10.0));
                assert!((counts - weight).abs() < 1e-9, "configuration {configuration}, channel {at}: {counts}");
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
