//! AC-3 and E-AC-3 by the decoder of `oxideav-ac3`: sync frames in, samples in the order of channels that MPEG has.

use std::fmt;

use oxideav_ac3::{CODEC_ID_STR, CODEC_ID_STR_EAC3, decoder};
use oxideav_core::{CodecId, CodecParameters, Decoder, Frame, Packet, TimeBase};

use super::decode::DecodeError;
use super::headers::{AudioFormat, ac3_frames, read_ac3};
use super::sound::{Sound, places};
use crate::proto::mpegts::demux::Codec;

/// Decodes one stream.
pub(super) struct Ac3 {
    inner: Box<dyn Decoder>,
    eac3: bool,
}

impl fmt::Debug for Ac3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ac3").field("eac3", &self.eac3).finish_non_exhaustive()
    }
}

impl Ac3 {
    pub(super) fn new(codec: Codec) -> Result<Self, DecodeError> {
        let eac3 = codec == Codec::Eac3;
        let parameters = CodecParameters::audio(CodecId::new(if eac3 { CODEC_ID_STR_EAC3 } else { CODEC_ID_STR }));
        let make = if eac3 { decoder::make_eac3_decoder } else { decoder::make_decoder };
        let inner = make(&parameters).map_err(|_| DecodeError::Unsupported("AC-3"))?;
        Ok(Self { inner, eac3 })
    }

    /// Shows the samples of each frame; `planes` is room for them.
    pub(super) fn decode(
        &mut self,
        bytes: &[u8],
        planes: &mut Vec<Vec<f32>>,
        show: &mut impl FnMut(Sound<'_>),
    ) -> Result<(), DecodeError> {
        for frame in ac3_frames(bytes) {
            let format = read_ac3(frame).map_err(|_| DecodeError::Damaged("AC-3 frame"))?;
            let packet = Packet::new(0, TimeBase::new(1, i64::from(format.sample_rate)), frame.to_vec());
            let outcome = self.inner.send_packet(&packet).and_then(|()| self.inner.receive_frame());
            let Ok(Frame::Audio(decoded)) = outcome else {
                // It can be in any state then.
                return self
                    .inner
                    .reset()
                    .map_or(Err(DecodeError::Unsupported("AC-3")), |()| Err(DecodeError::Damaged("AC-3 frame")));
            };
            let samples = decoded.data.first().map(Vec::as_slice).unwrap_or_default();
            show_samples(samples, decoded.samples as usize, &format, planes, show);
        }
        Ok(())
    }
}

/// 16-bit samples of all channels in turns, in the order of WAVE.
fn show_samples(
    samples: &[u8],
    count: usize,
    format: &AudioFormat,
    planes: &mut Vec<Vec<f32>>,
    show: &mut impl FnMut(Sound<'_>),
) {
    let channels = samples.len() / 2 / count.max(1);
    if channels == 0 || channels > CHANNELS_MAX {
        return;
    }
    planes.resize_with(channels, Vec::new);
    for (channel, plane) in planes.iter_mut().enumerate() {
        plane.clear();
        let of_channel = samples.as_chunks::<2>().0.iter().skip(channel).step_by(channels);
        plane.extend(of_channel.map(|sample| f32::from(i16::from_le_bytes(*sample)) / 32_768.0));
    }
    let order: &[usize] = match channels {
        5 => &[2, 0, 1, 3, 4],
        6 => &[2, 0, 1, 4, 5, 3],
        _ => &[0, 1, 2, 3, 4, 5, 6, 7],
    };
    let mut shown: [&[f32]; CHANNELS_MAX] = [&[]; CHANNELS_MAX];
    for (shown, &index) in shown.iter_mut().zip(order) {
        *shown = planes.get(index).map(Vec::as_slice).unwrap_or_default();
    }
    show(Sound { rate: format.sample_rate, channels: &shown[..channels], places: places(channels) });
}

const CHANNELS_MAX: usize = 8;
