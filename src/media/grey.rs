//! A grey H.264 picture, for streams without key frames: at a recovery point a decoder needs something that the parts
//! which are not refreshed yet are predicted from, whatever it shows.

use rust_h264::nal::{NalUnit, NalUnitType};

use super::headers::H264Layout;

/// A picture parameter set of its own, and an IDR picture of one slice that uses it: each macroblock predicted from its
/// neighbours' mean without any coefficient, which is grey (14496-10 7.3.2.2, 7.3.3 and 7.3.5, entropy coding of 9.2).
pub(super) fn grey_picture(layout: &H264Layout) -> [NalUnit<'static>; 2] {
    let unit = |nal_unit_type, bits: BitWriter| NalUnit { nal_ref_idc: 3, nal_unit_type, rbsp: bits.finish().into() };
    [unit(NalUnitType::Pps, picture_set(layout)), unit(NalUnitType::SliceIdr, slice(layout))]
}

fn picture_set(layout: &H264Layout) -> BitWriter {
    let mut bits = BitWriter::default();
    bits.ue(PICTURE_SET);
    bits.ue(layout.sequence.into());
    bits.put(2, 0); // CAVLC, no order of bottom fields
    bits.ue(0); // one slice group
    bits.ue(0);
    bits.ue(0);
    bits.put(3, 0); // no weighted prediction
    for _ in ["pic_init_qp_minus26", "pic_init_qs_minus26", "chroma_qp_index_offset"] {
        bits.ue(0);
    }
    bits.put(3, 0b100); // the slice says that nothing is deblocked
    bits
}

fn slice(layout: &H264Layout) -> BitWriter {
    let mut bits = BitWriter::default();
    bits.ue(0); // first_mb_in_slice
    bits.ue(7); // all slices are intra coded
    bits.ue(PICTURE_SET);
    bits.put(layout.frame_number_bits, 0);
    if !layout.frames_only {
        bits.put(1, 0); // a frame
    }
    bits.ue(0); // idr_pic_id
    if let Some(order_bits) = layout.order_bits {
        bits.put(order_bits, 0);
    } else if layout.order_deltas {
        bits.ue(0);
    }
    bits.put(2, 0); // dec_ref_pic_marking
    bits.ue(0); // slice_qp_delta
    bits.ue(1); // disable_deblocking_filter_idc
    for macroblock in 0..layout.macroblocks {
        if layout.adaptive && macroblock % 2 == 0 {
            bits.put(1, 0); // mb_field_decoding_flag
        }
        bits.ue(3); // I_16x16_2_0_0
        bits.put(3, 0b111); // chroma by its mean, the same quantizer, no coefficients
    }
    bits
}

/// Writes bits, most significant first.
#[derive(Debug, Default)]
struct BitWriter {
    bytes: Vec<u8>,
    /// Bits of the last byte that are taken, 0 if it is full.
    used: u32,
}

impl BitWriter {
    fn put(&mut self, count: u32, value: u32) {
        for index in (0..count).rev() {
            if self.used == 0 {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= ((value >> index & 1) as u8) << (7 - self.used);
            }
            self.used = (self.used + 1) % 8;
        }
    }

    /// `ue(v)`, and `se(v)` of zero.
    fn ue(&mut self, value: u32) {
        let length = (value + 1).ilog2();
        self.put(length, 0);
        self.put(length + 1, value + 1);
    }

    /// With the bit that ends it.
    fn finish(mut self) -> Vec<u8> {
        self.put(1, 1);
        self.bytes
    }
}

/// The last one, which encoders hardly use; a stream's own one of that number takes its place.
const PICTURE_SET: u32 = 255;

#[cfg(test)]
mod tests {
    use rust_h264::decoder::Decoder;
    use rust_h264::nal::parse_annex_b;

    use super::*;
    use crate::media::headers::h264_layout;

    #[test]
    fn it_decodes_to_grey_of_the_size_of_the_sequence() {
        let recorded: [&[u8]; 2] = [
            include_bytes!("../../tests/data/media/h264_mbaff"),
            include_bytes!("../../tests/data/media/h264_high_slices"),
        ];
        for bytes in recorded {
            let mut decoder = Decoder::new();
            let sequence = parse_annex_b(bytes).into_iter().find(|nal| nal.nal_unit_type == NalUnitType::Sps).unwrap();
            decoder.decode_nal(&sequence).unwrap();
            for nal in grey_picture(&h264_layout(bytes).unwrap()) {
                decoder.decode_nal(&nal).unwrap();
            }
            let frame = decoder.flush().unwrap();
            assert!(
                frame.width > 600
                    && [&frame.y, &frame.u, &frame.v].iter().all(|plane| plane.iter().all(|&sample| sample == 128))
            );
        }
    }
}
