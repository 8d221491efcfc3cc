//! `Captions`: whether a video stream carries CEA-608 or CEA-708 captions.

use std::time::Duration;

use crate::proto::mpegts::{Media, Pid, Scanner, Seen};
use crate::units::Time;

/// Looks for captions at the beginning of pictures, and not more often than it may.
///
/// Captions are user data that ATSC registered (A/53 part 4 6.2.3, CEA-708 4.4): an SEI message of H.264 and HEVC, user data
/// behind the headers of MPEG-2. They stand before the picture's slices, in the first TS packets of its PES packet. Only what
/// lies within one TS packet is seen: captions come with every picture.
#[derive(Clone, Debug, Default)]
pub(super) struct Captions {
    /// Video streams by PID.
    streams: Vec<Stream>,
    /// Whose picture has just begun, and how many more of its packets are worth a look.
    following: Option<(Pid, u8)>,
    looks_left: u32,
    tables_seen: u64,
}

#[derive(Clone, Copy, Debug)]
struct Stream {
    pid: Pid,
    since: Time,
    seen: Option<Time>,
}

impl Captions {
    /// A TS packet with a payload.
    #[inline]
    pub(super) fn handle_packet(&mut self, now: Time, packet: &Seen<'_>) {
        if packet.unit_start {
            self.following = Some((packet.pid, PACKETS_EACH));
        }
        if let Some((pid, left)) = self.following
            && pid == packet.pid
        {
            self.following = left.checked_sub(1).map(|left| (pid, left));
            self.look(now, packet);
        }
    }

    /// Whether captions have been there of late; `None` if the stream is none that could have them, is too new, or scrambled.
    pub(super) fn are_present(&self, now: Time, pid: Pid) -> Option<bool> {
        let at = self.streams.binary_search_by_key(&pid, |stream| stream.pid).ok()?;
        let stream = self.streams.get(at)?;
        let seen = stream.seen.is_some_and(|seen| now.since(seen) < ABSENT_AFTER);
        (seen || now.since(stream.since) >= ABSENT_AFTER).then_some(seen)
    }

    /// Takes in which streams there are, and allows for more looks.
    pub(super) fn review(&mut self, now: Time, scanner: &Scanner) {
        self.looks_left = LOOKS_EACH_REVIEW;
        let changes = scanner.programs().stats().changes;
        if changes == self.tables_seen {
            return;
        }
        self.tables_seen = changes;
        let has_captions = |codec| matches!(codec, Some("h264" | "hevc" | "mpeg2video"));
        let videos = scanner.programs().streams().filter(|stream| stream.media == Media::Video);
        let mut streams: Vec<Stream> = videos
            .filter(|stream| has_captions(stream.codec))
            .map(|stream| {
                let known = self.streams.binary_search_by_key(&stream.pid, |known| known.pid).ok();
                let known = known.and_then(|at| self.streams.get(at).copied());
                known.unwrap_or(Stream { pid: stream.pid, since: now, seen: None })
            })
            .collect();
        streams.sort_unstable_by_key(|stream| stream.pid);
        streams.dedup_by_key(|stream| stream.pid);
        self.streams = streams;
    }

    #[cold]
    fn look(&mut self, now: Time, packet: &Seen<'_>) {
        let Ok(at) = self.streams.binary_search_by_key(&packet.pid, |stream| stream.pid) else {
            self.following = None;
            return;
        };
        let Some(stream) = self.streams.get_mut(at) else { return };
        if packet.is_scrambled {
            stream.since = now;
            return;
        }
        let is_fresh = stream.seen.is_some_and(|seen| now.since(seen) < SEEN_FOR);
        if is_fresh || self.looks_left == 0 {
            self.following = None;
            return;
        }
        self.looks_left -= 1;
        if has_caption_data(packet.payload) {
            stream.seen = Some(now);
            self.following = None;
        }
    }
}

/// Whether bytes of video hold ATSC's caption data (A/53 part 4 table 6.7): behind country and provider code in an SEI message,
/// behind a start code in MPEG-2.
fn has_caption_data(payload: &[u8]) -> bool {
    let mut rest = payload;
    while let Some(at) = rest.windows(5).position(|five| five == b"GA94\x03") {
        let before = rest.get(..at).unwrap_or_default();
        if before.ends_with(&[0xb5, 0x00, 0x31]) || before.ends_with(&[0x00, 0x00, 0x01, 0xb2]) {
            return true;
        }
        rest = rest.get(at + 1..).unwrap_or_default();
    }
    false
}

/// Packets looked at of each picture. Parameter sets and SEI messages fill the first few of a key frame.
const PACKETS_EACH: u8 = 3;
/// Between two reviews. Judgement: 1,280 a second are enough for 16 programmes, and cost less than 0.1 ms.
const LOOKS_EACH_REVIEW: u32 = 128;
/// A stream that had some is not looked at for so long.
const SEEN_FOR: Duration = Duration::from_secs(1);
/// None for so long are none. Judgement: captions come with every picture, or at least with each caption.
const ABSENT_AFTER: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_registered_caption_data_counts() {
        let sei = [0, 0, 1, 6, 4, 71, 0xb5, 0x00, 0x31, b'G', b'A', b'9', b'4', 3, 0xd4];
        assert!(has_caption_data(&sei));
        assert!(has_caption_data(&[0, 0, 1, 0xb2, b'G', b'A', b'9', b'4', 3]));
        // Bar data, another provider, cut short.
        assert!(!has_caption_data(&[0, 0, 1, 0xb2, b'G', b'A', b'9', b'4', 6]));
        assert!(!has_caption_data(b"\x00\x00\x01\x06GA94\x03GA94\x03"));
        assert!(!has_caption_data(&sei[..13]));
    }
}
