//! Temporal units of AV1 as FLV has them, out of the frames that a transport stream carries.

use crate::proto::av1::{Frame, Kind, Malformed, Obu, Sequence, obus, without_start_codes};
use crate::proto::mpegts::demux::UNIT_BYTES_MAX;

/// Frames up to the next one that is shown.
#[derive(Debug, Default)]
pub(super) struct Gatherer {
    /// OBUs with their sizes, without delimiters: at most [`UNIT_BYTES_MAX`].
    bytes: Vec<u8>,
    /// Of the sequence header among them.
    record: Option<Vec<u8>>,
    first: Option<Frame>,
}

/// All that is decoded up to a moment at which a frame is shown.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TemporalUnit {
    pub(super) bytes: Vec<u8>,
    /// `AV1CodecConfigurationRecord`, if a sequence header came.
    pub(super) record: Option<Vec<u8>>,
    /// A decoder can start at it.
    pub(super) is_key: bool,
}

impl Gatherer {
    /// What a PES packet carried: a frame, or all of a temporal unit. `wrong` counts what is dropped, as it cannot be read or
    /// the frame that was to be shown did not come.
    pub(super) fn push(&mut self, bytes: &[u8], wrong: &mut u64) -> Option<TemporalUnit> {
        match self.take_in(bytes) {
            Ok(false) => None,
            Ok(true) => {
                let Self { bytes, record, first } = std::mem::take(self);
                let is_key = record.is_some() && first.is_some_and(|frame| frame.is_key && frame.is_shown);
                Some(TemporalUnit { bytes, record, is_key })
            }
            Err(Malformed) => {
                *wrong += 1;
                self.clear();
                None
            }
        }
    }

    /// What comes next does not continue what came.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// True if a frame is shown.
    fn take_in(&mut self, bytes: &[u8]) -> Result<bool, Malformed> {
        let bytes = without_start_codes(bytes)?;
        let mut is_shown = false;
        for obu in obus(&bytes) {
            let obu = obu?;
            match obu.kind {
                Kind::Delimiter if self.bytes.is_empty() => continue,
                Kind::Delimiter => return Err(Malformed),
                Kind::Sequence => self.record = Some(record(&obu).ok_or(Malformed)?),
                Kind::FrameHeader | Kind::MoreOfFrame | Kind::Frame | Kind::Other => {}
            }
            if let Some(frame) = obu.frame() {
                self.first.get_or_insert(frame);
                is_shown |= frame.is_shown;
            }
            obu.append(&mut self.bytes);
        }
        if self.bytes.len() > UNIT_BYTES_MAX { Err(Malformed) } else { Ok(is_shown) }
    }
}

/// "AV1 Codec ISO Media File Format Binding" 2.3.
fn record(obu: &Obu<'_>) -> Option<Vec<u8>> {
    let mut record = Sequence::parse(obu.payload)?.record().to_vec();
    obu.append(&mut record);
    Some(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of libsvtav1, 320x180, with its header and size.
    const SEQUENCE: [u8; 16] = [0x0a, 14, 0x02, 0, 0, 5, 0x21, 0xe7, 0xf6, 0x62, 0x57, 0xc8, 0x81, 0x01, 0, 0x82];
    const KEY: [u8; 4] = [0x32, 2, 0x10, 9];
    const HIDDEN: [u8; 4] = [0x32, 2, 0x20, 9];
    const AGAIN: [u8; 3] = [0x1a, 1, 0x90];

    #[test]
    fn frames_are_gathered_up_to_one_that_is_shown() {
        let (mut gatherer, mut wrong) = (Gatherer::default(), 0);
        let key = [&[0x12, 0][..], &SEQUENCE, &KEY].concat();
        let unit = gatherer.push(&key, &mut wrong).unwrap();
        let record = [&[0x81, 0, 0x0c, 0][..], &SEQUENCE].concat();
        assert_eq!(unit, TemporalUnit { bytes: [&SEQUENCE[..], &KEY].concat(), record: Some(record), is_key: true });
        assert_eq!(gatherer.push(&[&[0x12, 0][..], &HIDDEN].concat(), &mut wrong), None);
        let unit = gatherer.push(&AGAIN, &mut wrong).unwrap();
        assert_eq!(unit, TemporalUnit { bytes: [&HIDDEN[..], &AGAIN].concat(), record: None, is_key: false });
        assert_eq!(wrong, 0);
    }

    #[test]
    fn a_unit_whose_shown_frame_is_missing_is_dropped_and_counted() {
        let (mut gatherer, mut wrong) = (Gatherer::default(), 0);
        assert_eq!(gatherer.push(&HIDDEN, &mut wrong), None);
        assert_eq!(gatherer.push(&[&[0x12, 0][..], &HIDDEN].concat(), &mut wrong), None);
        assert_eq!(wrong, 1);
        assert_eq!(gatherer.push(&[0x32, 9, 0], &mut wrong), None);
        assert_eq!(wrong, 2);
    }
}
