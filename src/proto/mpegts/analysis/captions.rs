//! `Captions`: whether a video stream carries CEA-608 or CEA-708 captions.

use std::time::Duration;

use arrayvec::ArrayVec;

use crate::proto::mpegts::{Media, Pid, Scanner, Seen, TS_PACKET_BYTES};
use crate::units::Time;

/// Looks for captions at the beginning of pictures, and not more often than it may.
///
/// Captions are user data that ATSC registered (A/53 part 4 6.2.3, CEA-708 4.4): an SEI message of H.264 and HEVC, user data
/// behind the headers of MPEG-2. They stand before the picture's slices, in the first TS packets of its PES packet. One picture
/// is followed at a time: where those of several streams begin at once only the last is, for captions come with every picture.
#[derive(Clone, Debug, Default)]
pub(super) struct Captions {
    /// Video streams by PID.
    streams: Vec<Stream>,
    /// The picture that has just begun.
    following: Option<Following>,
    looks_left: u32,
    tables_seen: u64,
}

#[derive(Clone, Copy, Debug)]
struct Stream {
    pid: Pid,
    since: Time,
    seen: Option<Time>,
}

#[derive(Clone, Debug)]
struct Following {
    pid: Pid,
    /// How many more of its packets are worth a look.
    left: u8,
    /// The end of those before: what is looked for may lie in two.
    tail: ArrayVec<u8, TAIL_BYTES>,
}

impl Captions {
    /// A TS packet with a payload.
    #[inline]
    pub(super) fn handle_packet(&mut self, now: Time, packet: &Seen<'_>) {
        if packet.unit_start {
            self.begin(now, packet);
        } else if self.following.as_ref().is_some_and(|following| following.pid == packet.pid) {
            self.go_on(now, packet);
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

    /// A picture begins, or something of no concern.
    #[cold]
    fn begin(&mut self, now: Time, packet: &Seen<'_>) {
        let Ok(at) = self.streams.binary_search_by_key(&packet.pid, |stream| stream.pid) else { return };
        let Some(stream) = self.streams.get_mut(at) else { return };
        if packet.is_scrambled {
            stream.since = now;
            return;
        }
        if stream.seen.is_none_or(|seen| now.since(seen) >= SEEN_FOR) {
            self.following = Some(Following { pid: packet.pid, left: PACKETS_EACH, tail: ArrayVec::new() });
            self.go_on(now, packet);
        }
    }

    #[cold]
    fn go_on(&mut self, now: Time, packet: &Seen<'_>) {
        let Some(mut following) = self.following.take() else { return };
        let Some(looks_left) = self.looks_left.checked_sub(1) else { return };
        if packet.is_scrambled {
            return;
        }
        self.looks_left = looks_left;
        if packet.after_loss {
            following.tail.clear();
        }
        let mut bytes: ArrayVec<u8, { TAIL_BYTES + TS_PACKET_BYTES }> = following.tail.iter().copied().collect();
        let room = bytes.remaining_capacity().min(packet.payload.len());
        bytes.extend(packet.payload.iter().copied().take(room));
        if has_caption_data(&bytes) {
            let stream = self.streams.iter_mut().find(|stream| stream.pid == packet.pid);
            stream.into_iter().for_each(|stream| stream.seen = Some(now));
        } else if let Some(left) = following.left.checked_sub(1) {
            let tail = bytes.len().saturating_sub(TAIL_BYTES);
            following.tail = bytes.into_iter().skip(tail).collect();
            self.following = Some(Following { left, ..following });
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

/// Packets looked at of each picture beside the first. Parameter sets and SEI messages fill the first few of a key frame.
const PACKETS_EACH: u8 = 3;
/// One less than what stands behind a start code in MPEG-2, start code included.
const TAIL_BYTES: usize = 8;
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

    const SEI: [u8; 18] = [9, 0, 0, 1, 6, 4, 71, 0xb5, 0x00, 0x31, b'G', b'A', b'9', b'4', 3, 0xd4, 0xff, 0xff];
    const USER_DATA: [u8; 12] = [9, 0, 0, 1, 0xb2, b'G', b'A', b'9', b'4', 3, 0x40, 0xff];

    #[test]
    fn captions_that_lie_in_several_packets_are_seen() {
        for data in [&SEI[..], &USER_DATA] {
            for first in 0..data.len() {
                for second in 1..=data.len() - first {
                    let (head, rest) = data.split_at(first);
                    let (middle, rest) = rest.split_at(second);
                    let payloads = [&[0x55; 150], head].concat();
                    assert!(are_found(&[(&payloads, false), (middle, false), (rest, false)]), "{first} {second}");
                }
            }
            let (head, rest) = data.split_at(data.len() - 5);
            assert!(!are_found(&[(head, false), (rest, true)]), "what lies between is missing");
            let far =
                [(&[0; 184][..], false), (&[0; 184], false), (&[0; 184], false), (&[0; 184], false), (data, false)];
            assert!(are_found(&far[1..]) && !are_found(&far), "only the beginning of a picture is looked at");
        }
    }

    /// Whether captions are found in a picture of these payloads, with what may be lost before. Sound begins between them.
    fn are_found(payloads: &[(&[u8], bool)]) -> bool {
        let [video, sound] = [0x100, 0x101].map(Pid::from_low_bits);
        let stream = Stream { pid: video, since: Time::ZERO, seen: None };
        let mut captions = Captions { streams: vec![stream], looks_left: 9, ..Captions::default() };
        for (n, (payload, after_loss)) in payloads.iter().enumerate() {
            let (unit_start, after_loss) = (n == 0, *after_loss);
            let seen = Seen {
                pid: video,
                position: 0,
                payload,
                unit_start,
                random_access: false,
                after_loss,
                is_scrambled: false,
            };
            captions.handle_packet(Time::ZERO, &seen);
            captions.handle_packet(Time::ZERO, &Seen { pid: sound, unit_start: true, ..seen });
            assert!(captions.following.iter().all(|following| following.tail.len() <= TAIL_BYTES));
        }
        captions.are_present(Time::ZERO, video) == Some(true)
    }
}
