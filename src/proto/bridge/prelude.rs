//! The beginning of a stream that is to take another's place.

use std::mem;
use std::time::Duration;

use super::to_ts::{Interrupted, keep};
use crate::proto::rtmp::flv::Content;
use crate::proto::rtmp::{Message, kind};
use crate::units::Time;

/// Hears a stream until it has come so far that a decoder can go on with it: its headers are kept, its pictures and sounds
/// are passed over, as those of the other are still there.
#[derive(Debug, Default)]
pub struct Prelude {
    said: Interrupted,
    /// When the first picture or sound was passed over.
    since: Option<Time>,
}

impl Prelude {
    /// Whether the stream takes over with this message, which is then for [`ToTs`](super::ToTs): with a key frame, or with any
    /// sound where there are no pictures, neither here nor, by `has_pictures`, in the other stream. It waits for
    /// ten seconds at most.
    pub fn is_over_with(&mut self, now: Time, message: &Message, has_pictures: bool) -> bool {
        if !matches!(message.kind, kind::AUDIO | kind::VIDEO) {
            return false;
        }
        let mut is_over = false;
        // What cannot be read is counted once it matters.
        for unit in self.said.reader.read(message).flatten() {
            match unit.content {
                Content::Header => keep(&mut self.said.headers, &unit),
                Content::KeyFrame | Content::Frame => {
                    let waits = has_pictures || self.said.headers.iter().any(|header| header.codec.is_video());
                    let is_key = unit.content == Content::KeyFrame && (unit.codec.is_video() || !waits);
                    is_over |= is_key || now.since(*self.since.get_or_insert(now)) >= PICTURE_WAIT;
                }
                Content::End => {}
            }
        }
        is_over
    }

    /// What it said so far, for [`ToTs::resume`](super::ToTs::resume); the next one begins.
    pub fn take(&mut self) -> Interrupted {
        mem::take(self).said
    }
}

/// After that a stream takes over with whatever comes. Judgement: the distance of key frames of encoders that are left to
/// themselves, as meanwhile the other goes on.
const PICTURE_WAIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::rtmp::flv::{self, AccessUnit, Codec};
    use crate::units::Ticks90k;

    #[test]
    fn a_stream_takes_over_with_a_key_frame_or_with_sound_where_there_are_no_pictures() {
        use Codec::{Aac, H264};
        use Content::{Frame, Header, KeyFrame};
        let after = |units: &[(Codec, Content)], has_pictures| {
            let mut prelude = Prelude::default();
            let at = units.iter().position(|unit| prelude.is_over_with(Time::ZERO, &message(*unit), has_pictures));
            (at, prelude.take().headers.len())
        };
        let with_pictures =
            [(H264, Header), (Aac, Header), (Aac, KeyFrame), (H264, Frame), (Aac, KeyFrame), (H264, KeyFrame)];
        assert_eq!(after(&with_pictures, true), (Some(5), 2));
        assert_eq!(after(&with_pictures, false), (Some(5), 2), "its header came before");
        let sound = [(Aac, Header), (Aac, KeyFrame), (H264, KeyFrame)];
        assert_eq!(after(&sound, true), (Some(2), 1), "pictures are to come");
        assert_eq!(after(&sound, false), (Some(1), 1));
        assert_eq!(after(&[(Aac, Header), (H264, Header)], false), (None, 2));
    }

    #[test]
    fn a_stream_without_key_frames_takes_over_after_a_while() {
        let mut prelude = Prelude::default();
        let first = Time::from_ns(5);
        for (at, is_over) in [(first, false), (first + PICTURE_WAIT / 2, false), (first + PICTURE_WAIT, true)] {
            let frame = message((Codec::H264, Content::Frame));
            assert_eq!(prelude.is_over_with(at, &frame, true), is_over);
        }
    }

    fn message((codec, content): (Codec, Content)) -> Message {
        let at = Ticks90k(0);
        flv::write(&AccessUnit { track: 0, codec, content, dts: at, pts: at, bytes: vec![1, 2].into() })
    }
}
