//! What one peer gets of a stream: from a key frame on, headers first, and from the next key frame on after a gap.

use arrayvec::ArrayVec;

use super::metadata::metadata;
use super::uncarried::{Told, Uncarried};
use crate::proto::rtmp::amf::Value;
use crate::proto::rtmp::flv::{self, AccessUnit, Codec, Content};
use crate::proto::rtmp::{Capabilities, Message, Role, Unsent, enhanced, on_metadata, set_data_frame};
use crate::units::Ticks90k;

/// One peer's way through a stream. It is told of every unit, and says what is to be sent.
#[derive(Debug)]
pub struct Feed {
    role: Role,
    takes: Takes,
    /// Headers that the peer has, or is to have before anything else.
    headers: ArrayVec<AccessUnit, HEADERS_MAX>,
    /// What the peer was told of the stream.
    metadata: Vec<(String, Value)>,
    /// Waits for a key frame, or for any sound where there is no picture.
    is_waiting: bool,
    /// Time of the first unit that it waited at.
    waiting_since: Option<Ticks90k>,
    /// Headers are to be sent before the next unit.
    owes_headers: bool,
    /// Tracks of pictures of which a key frame was sent since the feed started, or started anew.
    keyed: ArrayVec<u8, HEADERS_MAX>,
    /// Time of the stream that is the peer's zero.
    start: Option<Ticks90k>,
    told: Told,
    stats: FeedStats,
}

/// What a peer takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Takes {
    /// Of [`BEYOND`] those.
    codecs: [bool; BEYOND.len()],
    /// More than one track of a kind.
    tracks: bool,
}

/// What pictures a stream has, as far as its tables say, whether they came or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pictures {
    /// H.264.
    pub h264: bool,
    /// HEVC.
    pub hevc: bool,
    /// AV1.
    pub av1: bool,
}

/// Counters of one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeedStats {
    /// Pictures and sounds sent.
    pub sent: u64,
    /// Those before the first key frame, or behind a gap before the next one.
    pub before_key: u64,
    /// Those that found too much waiting; what follows up to the next key frame is not sent.
    pub overflow: u64,
    /// Those of codecs or tracks that the peer does not take.
    pub uncarried: u64,
}

impl Takes {
    /// By what a peer says of itself. Whoever knows nothing of enhanced RTMP takes one track of H.264 and one of AAC.
    #[must_use]
    pub fn new(peer: &Capabilities) -> Self {
        let knows = |codec: Codec| {
            let name = codec.fourcc();
            peer.fourccs.iter().any(|fourcc| fourcc == "*" || fourcc.as_bytes() == name)
        };
        Self { codecs: BEYOND.map(knows), tracks: peer.extended & enhanced::MULTITRACK != 0 }
    }

    fn any_of(self, pictures: Pictures) -> bool {
        let Pictures { h264, hevc, av1 } = pictures;
        [(h264, Codec::H264), (hevc, Codec::Hevc), (av1, Codec::Av1)]
            .iter()
            .any(|(has, codec)| *has && self.codec(*codec))
    }

    fn codec(self, codec: Codec) -> bool {
        let beyond = BEYOND.into_iter().zip(self.codecs).find(|(known, _)| *known == codec);
        beyond.map_or(matches!(codec, Codec::H264 | Codec::Aac), |(_, takes)| takes)
    }
}

impl Feed {
    /// For a peer that comes now, as a player, or for a server that we are a publisher to; `headers` are those in force.
    pub fn new(role: Role, takes: Takes, headers: impl Iterator<Item = AccessUnit>) -> Self {
        let mut feed = Self {
            role,
            takes,
            headers: ArrayVec::new(),
            metadata: Vec::new(),
            is_waiting: true,
            waiting_since: None,
            owes_headers: true,
            keyed: ArrayVec::new(),
            start: None,
            told: Told::default(),
            stats: FeedStats::default(),
        };
        headers.for_each(|header| feed.keep(&header));
        feed
    }

    /// The next unit of the stream. With `pictures` that the peer takes it starts with one of them, for which it waits
    /// `PICTURE_WAIT_90K` at most, as players and servers settle what a stream has by its beginning; `send` puts a message
    /// in line. Where `send` refuses for there being too much, the feed goes on with the next key frame.
    pub fn handle_unit(
        &mut self,
        unit: &AccessUnit,
        pictures: Pictures,
        mut send: impl FnMut(&Message) -> Result<(), Unsent>,
    ) {
        let is_frame = matches!(unit.content, Content::KeyFrame | Content::Frame);
        if !self.takes(unit) {
            self.stats.uncarried += u64::from(is_frame);
            if unit.content == Content::Header {
                // What its track had before is over.
                self.headers.retain(|known| !is_same_track(known, unit));
            }
            return;
        }
        if unit.content == Content::Header {
            self.keep(unit);
            if !self.is_waiting
                && self.send_metadata(unit.dts, &mut send).and_then(|()| send(&self.message(unit))).is_err()
            {
                self.wait();
            }
            return;
        }
        if self.is_waiting {
            // Pictures of a codec that this peer does not take are none to start with.
            let has_video = self.takes.any_of(pictures);
            if !has_video {
                self.headers.retain(|header| !header.codec.is_video());
            }
            let since = self.waiting_since.get_or_insert(unit.dts);
            let waits_for_video = has_video && unit.dts.0.saturating_sub(since.0) < PICTURE_WAIT_90K;
            let may_start = unit.content == Content::KeyFrame && (unit.codec.is_video() || !waits_for_video);
            if !may_start {
                self.stats.before_key += u64::from(is_frame);
                return;
            }
            (self.is_waiting, self.waiting_since) = (false, None);
            self.start.get_or_insert(unit.dts);
        }
        if unit.codec.is_video() && !self.is_keyed(unit) {
            self.stats.before_key += u64::from(is_frame);
            return;
        }
        let sent = self.send_headers(unit.dts, &mut send).and_then(|()| send(&self.message(unit)));
        if sent.is_err() {
            self.stats.overflow += u64::from(is_frame);
            self.wait();
        } else {
            self.stats.sent += u64::from(is_frame);
        }
    }

    /// What it waited through came to its peer on another way, and is no loss.
    pub const fn forgive_wait(&mut self) {
        self.stats.before_key = 0;
    }

    /// What this peer does not take, each once.
    pub fn poll_uncarried(&mut self) -> Option<Uncarried> {
        self.told.poll()
    }

    /// Counters since the peer came.
    #[must_use]
    pub const fn stats(&self) -> FeedStats {
        self.stats
    }

    fn takes(&mut self, unit: &AccessUnit) -> bool {
        if !self.takes.codec(unit.codec) {
            self.told.tell(Uncarried::Peer(unit.codec));
            return false;
        }
        if unit.track > 0 && !self.takes.tracks {
            self.told.tell(Uncarried::PeerTracks);
            return false;
        }
        true
    }

    /// Keeps a header for whenever the feed starts anew.
    fn keep(&mut self, header: &AccessUnit) {
        if !self.takes(header) {
            return;
        }
        if let Some(known) = self.headers.iter_mut().find(|known| is_same_track(known, header)) {
            known.clone_from(header);
        } else if self.headers.try_push(header.clone()).is_err() {
            self.told.tell(Uncarried::Tracks);
        }
    }

    fn send_headers(
        &mut self,
        now: Ticks90k,
        send: &mut impl FnMut(&Message) -> Result<(), Unsent>,
    ) -> Result<(), Unsent> {
        if !self.owes_headers {
            return Ok(());
        }
        self.send_metadata(now, send)?;
        for header in &self.headers {
            send(&self.message(&AccessUnit { dts: now, pts: now, ..header.clone() }))?;
        }
        self.owes_headers = false;
        Ok(())
    }

    /// Says what the stream is, if that was not said: before the headers that say it as well.
    fn send_metadata(
        &mut self,
        now: Ticks90k,
        send: &mut impl FnMut(&Message) -> Result<(), Unsent>,
    ) -> Result<(), Unsent> {
        let metadata = metadata(&self.headers);
        if metadata != self.metadata {
            let write = if self.role == Role::Publisher { set_data_frame } else { on_metadata };
            // Milliseconds wrap, as those of media do.
            send(&write((self.since_start(now).0 / 90) as u32, metadata.clone()))?;
            self.metadata = metadata;
        }
        Ok(())
    }

    /// With times as the peer has them, who begins at zero.
    fn message(&self, unit: &AccessUnit) -> Message {
        let (dts, pts) = (self.since_start(unit.dts), self.since_start(unit.pts));
        flv::write(&AccessUnit { dts, pts, ..unit.clone() })
    }

    fn since_start(&self, at: Ticks90k) -> Ticks90k {
        Ticks90k(at.0.saturating_sub(self.start.map_or(0, |start| start.0)))
    }

    /// Whether a decoder can show this picture: each track begins with a key frame of its own, also where sound was first.
    fn is_keyed(&mut self, unit: &AccessUnit) -> bool {
        let is_known = self.keyed.contains(&unit.track);
        is_known || unit.content == Content::KeyFrame && self.keyed.try_push(unit.track).is_ok()
    }

    /// Something is missing: a decoder goes on with the next key frame.
    fn wait(&mut self) {
        (self.is_waiting, self.owes_headers) = (true, true);
        self.keyed.clear();
    }
}

fn is_same_track(one: &AccessUnit, other: &AccessUnit) -> bool {
    (one.track, one.codec.is_video()) == (other.track, other.codec.is_video())
}

/// Codecs beyond H.264 and AAC.
const BEYOND: [Codec; 5] = [Codec::Hevc, Codec::Av1, Codec::Ac3, Codec::Eac3, Codec::Opus];

/// How long sound waits for a picture that is announced. Judgement: longer than the distance of key frames that live streams
/// are told to have; of encoders left to themselves it is 250 pictures, for which nobody waits.
const PICTURE_WAIT_90K: u64 = 5 * 90_000;

/// Tracks of a peer. Judgement: as many as our multiplexer has.
const HEADERS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::rtmp::kind;

    const H264: Pictures = Pictures { h264: true, hevc: false, av1: false };

    #[test]
    fn a_feed_starts_with_headers_and_a_key_frame_and_goes_on_with_one_after_a_gap() {
        let headers = [unit(Codec::H264, Content::Header, 0), unit(Codec::Aac, Content::Header, 0)];
        let mut feed = Feed::new(Role::Player, Takes::new(&Capabilities::default()), headers.into_iter());
        let (mut sent, mut room) = (Vec::new(), 8);
        let mut pass = |feed: &mut Feed, unit: &AccessUnit, room: &mut usize| {
            feed.handle_unit(unit, H264, |message| {
                *room = room.checked_sub(1).ok_or(Unsent::Full)?;
                sent.push((message.kind, message.payload.len()));
                Ok(())
            });
            std::mem::take(&mut sent).len()
        };
        let frame = unit(Codec::H264, Content::Frame, 10);
        let (key, sound) = (unit(Codec::H264, Content::KeyFrame, 20), unit(Codec::Aac, Content::KeyFrame, 15));
        assert_eq!(pass(&mut feed, &frame, &mut room), 0);
        assert_eq!(pass(&mut feed, &sound, &mut room), 0, "sound waits for the picture");
        assert_eq!(pass(&mut feed, &key, &mut room), 4, "what it is comes first");
        assert_eq!(pass(&mut feed, &sound, &mut room), 1);
        room = 0;
        assert_eq!(pass(&mut feed, &frame, &mut room), 0);
        room = 100;
        assert_eq!(pass(&mut feed, &frame, &mut room), 0, "builds on what is missing");
        assert_eq!(pass(&mut feed, &key, &mut room), 3, "and is said once");
        assert_eq!(feed.stats(), FeedStats { sent: 3, before_key: 3, overflow: 1, uncarried: 0 });
    }

    #[test]
    fn sound_that_was_first_lets_no_picture_out_before_its_key_frame() {
        let headers = [unit(Codec::H264, Content::Header, 0), unit(Codec::Aac, Content::Header, 0)];
        let mut feed = Feed::new(Role::Player, Takes::new(&Capabilities::default()), headers.into_iter());
        let mut pictures = Vec::new();
        for picture in 0..250 {
            let at = picture * 40 * 90;
            let content = if picture == 200 { Content::KeyFrame } else { Content::Frame };
            for unit in [unit(Codec::Aac, Content::KeyFrame, at), unit(Codec::H264, content, at)] {
                feed.handle_unit(&unit, H264, |message| {
                    pictures.extend((message.kind == kind::VIDEO).then_some(message.timestamp_ms));
                    Ok(())
                });
            }
        }
        // The header when sound begins; the stream's zero is there, and the key frame three seconds later.
        assert_eq!(pictures[..3], [0, 3_000, 3_040]);
        assert_eq!((pictures.len(), feed.stats().before_key), (51, 325));
    }

    #[test]
    fn a_stream_begins_with_its_picture_if_that_comes_in_time() {
        // Headers first, that of the sound before that of the picture.
        for (picture_ms, expected) in [(2_000, [kind::AUDIO, kind::VIDEO, kind::VIDEO]), (6_000, [kind::AUDIO; 3])] {
            // Sound is there at once; of the picture only the tables know.
            let mut feed = Feed::new(Role::Player, Takes::new(&Capabilities::default()), std::iter::empty());
            let mut sent = Vec::new();
            for ms in (0..8_000).step_by(20) {
                let at = ms * 90;
                let mut units = vec![unit(Codec::Aac, Content::KeyFrame, at)];
                if ms == 0 {
                    units.insert(0, unit(Codec::Aac, Content::Header, at));
                }
                if ms == picture_ms {
                    units.extend([Content::Header, Content::KeyFrame].map(|content| unit(Codec::H264, content, at)));
                }
                for unit in &units {
                    feed.handle_unit(unit, H264, |message| {
                        sent.extend((message.kind != kind::DATA).then_some((message.kind, message.timestamp_ms)));
                        Ok(())
                    });
                }
            }
            let kinds: Vec<u8> = sent.iter().map(|(kind, _)| *kind).take(3).collect();
            assert_eq!((kinds, sent[0].1), (expected.to_vec(), 0), "{picture_ms}");
            assert!(sent.iter().any(|(kind, _)| *kind == kind::VIDEO), "late is better than never");
        }
    }

    #[test]
    fn sound_does_not_wait_for_pictures_that_are_gone() {
        let headers = || [unit(Codec::H264, Content::Header, 0), unit(Codec::Aac, Content::Header, 0)].into_iter();
        let sound = unit(Codec::Aac, Content::KeyFrame, 15);
        // To a codec that the peer does not take; from the stream altogether.
        let hevc = Pictures { hevc: true, ..Pictures::default() };
        for (change, pictures) in [(Some(unit(Codec::Hevc, Content::Header, 5)), hevc), (None, Pictures::default())] {
            let mut feed = Feed::new(Role::Player, Takes::new(&Capabilities::default()), headers());
            let mut sent = Vec::new();
            for unit in change.iter().chain([&sound, &sound]) {
                feed.handle_unit(unit, pictures, |message| {
                    sent.push(message.kind);
                    Ok(())
                });
            }
            assert_eq!(sent[1..], [kind::AUDIO; 3], "its header and both, {pictures:?}");
        }
    }

    #[test]
    fn what_a_peer_does_not_know_is_told_once_and_not_waited_for() {
        let mut feed = Feed::new(Role::Player, Takes::new(&Capabilities::default()), std::iter::empty());
        let hevc = Pictures { hevc: true, ..Pictures::default() };
        let mut count = 0;
        for _ in 0..3 {
            feed.handle_unit(&unit(Codec::Hevc, Content::KeyFrame, 0), hevc, |_| unreachable!("not carried"));
            feed.handle_unit(&AccessUnit { track: 1, ..unit(Codec::Aac, Content::KeyFrame, 0) }, hevc, |_| Ok(()));
            feed.handle_unit(&unit(Codec::Aac, Content::Header, 0), hevc, |_| Ok(()));
            feed.handle_unit(&unit(Codec::Aac, Content::KeyFrame, 0), hevc, |_| {
                count += 1;
                Ok(())
            });
        }
        assert_eq!(count, 3 + 2, "what it is and a header go before the first");
        let told: Vec<_> = std::iter::from_fn(|| feed.poll_uncarried()).collect();
        assert_eq!(told, [Uncarried::Peer(Codec::Hevc), Uncarried::PeerTracks]);
        assert_eq!(feed.stats().uncarried, 6);
        let enhanced = Capabilities { fourccs: vec!["hvc1".into()], extended: enhanced::MULTITRACK };
        assert!(Takes::new(&enhanced).codec(Codec::Hevc) && !Takes::new(&enhanced).codec(Codec::Ac3));
    }

    fn unit(codec: Codec, content: Content, dts: u64) -> AccessUnit {
        AccessUnit { track: 0, codec, content, dts: Ticks90k(dts), pts: Ticks90k(dts), bytes: vec![1, 2].into() }
    }
}
