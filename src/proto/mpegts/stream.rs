//! What kind of stream a PMT's entry is: codec, language, captions (13818-1 table 2-34, EN 300 468 6.1, SCTE 35 8.1).

use super::packet::Pid;
use super::table::{StreamEntry, conditional_access, descriptors};

/// One elementary stream, as its PMT describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Where it is found.
    pub pid: Pid,
    /// As in the PMT.
    pub stream_type: u8,
    /// What it is for.
    pub media: Media,
    /// Its codec by the name that ffprobe uses; `None` if the PMT does not tell.
    pub codec: Option<&'static str>,
    /// ISO 639 code, three letters, as ffprobe has it; the first one if there are several.
    pub language: Option<[u8; 3]>,
    /// Channels of sound, where the PMT tells: of Opus.
    pub channels: Option<u8>,
    /// Its pictures may stand still for long (video and AVC video descriptors).
    pub has_stills: bool,
    /// Where the keys of scrambled packets are found.
    pub ecm_pid: Option<Pid>,
}

/// What a stream is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Media {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
    /// Subtitles and teletext.
    Subtitle,
    /// Cues for splicing (SCTE 35).
    Cue,
    /// Sections of tables; no PES packets.
    Sections,
    /// Anything else, or unknown.
    #[default]
    Other,
}

impl Stream {
    /// Reads an entry of a PMT. `registration` is the program's format identifier, if it has one: see
    /// [`format_identifier`].
    #[must_use]
    pub fn new(entry: &StreamEntry<'_>, registration: Option<[u8; 4]>) -> Self {
        let (media, codec) = kind(entry, registration);
        Self {
            pid: entry.pid,
            stream_type: entry.stream_type,
            media,
            codec,
            language: read_language(entry.descriptors).filter(|code| code.is_ascii()),
            channels: opus_channels(entry.descriptors).filter(|_| codec == Some("opus")),
            has_stills: descriptors(entry.descriptors).any(may_stand_still),
            ecm_pid: conditional_access(entry.descriptors).next(),
        }
    }
}

/// The first registration descriptor's `format_identifier` (13818-1 2.6.8).
#[must_use]
pub fn format_identifier(bytes: &[u8]) -> Option<[u8; 4]> {
    let (_, content) = descriptors(bytes).find(|(tag, _)| *tag == TAG_REGISTRATION)?;
    content.first_chunk().copied()
}

fn kind(entry: &StreamEntry<'_>, program: Option<[u8; 4]>) -> (Media, Option<&'static str>) {
    match entry.stream_type {
        0x01 => (Media::Video, Some("mpeg1video")),
        0x02 => (Media::Video, Some("mpeg2video")),
        0x03 => (Media::Audio, Some("mp2")),
        0x04 => (Media::Audio, Some("mp2")),
        0x05 | 0x08 | 0x0a..=0x0d => (Media::Sections, None),
        0x0f => (Media::Audio, Some("aac")),
        0x10 => (Media::Video, Some("mpeg4")),
        0x11 => (Media::Audio, Some("aac_latm")),
        0x1b | 0x1f | 0x20 => (Media::Video, Some("h264")),
        0x21 => (Media::Video, Some("jpeg2000")),
        0x24 | 0x25 => (Media::Video, Some("hevc")),
        0x32 => (Media::Video, Some("jpegxs")),
        0x33 => (Media::Video, Some("vvc")),
        0x42 => (Media::Video, Some("cavs")),
        0xd2 => (Media::Video, Some("avs2")),
        0xd4 => (Media::Video, Some("avs3")),
        0xd1 => (Media::Video, Some("dirac")),
        0xea => (Media::Video, Some("vc1")),
        0x81 => (Media::Audio, Some("ac3")),
        0x87 => (Media::Audio, Some("eac3")),
        0x82 | 0x85 | 0x86 if program == Some(*b"HDMV") => (Media::Audio, Some("dts")),
        0x86 => (Media::Cue, Some("scte_35")),
        _ => descriptors(entry.descriptors).find_map(by_descriptor).unwrap_or_default(),
    }
}

/// Private streams tell by descriptors (EN 300 468 6.1 and annex D; registered identifiers).
fn by_descriptor((tag, content): (u8, &[u8])) -> Option<(Media, Option<&'static str>)> {
    let (media, codec) = match (tag, content) {
        (TAG_REGISTRATION, [b'A', b'C', b'-', b'3', ..]) => (Media::Audio, "ac3"),
        (TAG_REGISTRATION, [b'E', b'A', b'C', b'3', ..]) => (Media::Audio, "eac3"),
        (TAG_REGISTRATION, [b'D', b'T', b'S', b'1'..=b'3', ..]) => (Media::Audio, "dts"),
        (TAG_REGISTRATION, [b'O', b'p', b'u', b's', ..]) => (Media::Audio, "opus"),
        (TAG_REGISTRATION, [b'B', b'S', b'S', b'D', ..]) => (Media::Audio, "s302m"),
        (TAG_REGISTRATION, [b'H', b'E', b'V', b'C', ..]) => (Media::Video, "hevc"),
        (TAG_REGISTRATION, [b'V', b'V', b'C', b' ', ..]) => (Media::Video, "vvc"),
        (TAG_REGISTRATION, [b'A', b'V', b'0', b'1', ..] | [b'A', b'V', b'1', b'G', ..]) => (Media::Video, "av1"),
        (TAG_REGISTRATION, [b'V', b'C', b'-', b'1', ..]) => (Media::Video, "vc1"),
        (TAG_REGISTRATION, [b'd', b'r', b'a', b'c', ..]) => (Media::Video, "dirac"),
        (TAG_REGISTRATION, [b'C', b'U', b'E', b'I', ..]) => (Media::Cue, "scte_35"),
        (TAG_REGISTRATION, [b'K', b'L', b'V', b'A', ..]) => (Media::Other, "klv"),
        (TAG_REGISTRATION, [b'I', b'D', b'3', b' ', ..]) => (Media::Other, "timed_id3"),
        (0x56, _) => (Media::Subtitle, "dvb_teletext"),
        (0x59, _) => (Media::Subtitle, "dvb_subtitle"),
        (0x6a, _) => (Media::Audio, "ac3"),
        (0x7a, _) => (Media::Audio, "eac3"),
        (0x7b, _) => (Media::Audio, "dts"),
        (0x7c, _) => (Media::Audio, "aac"),
        _ => return None,
    };
    Some((media, Some(codec)))
}

/// `channel_config_code` of the extension descriptor that Opus has ("Opus in MPEG-2 TS"); two single channels, or as many as
/// it says in the layout of RFC 7845 5.1.1.2. Other layouts are not told here.
fn opus_channels(bytes: &[u8]) -> Option<u8> {
    descriptors(bytes).find_map(|(tag, content)| match (tag, content) {
        (0x7f, [0x80, 0, ..]) => Some(2),
        (0x7f, [0x80, channels @ 1..=8, ..]) => Some(*channels),
        _ => None,
    })
}

/// `still_picture_flag` (13818-1 2.6.2) or `AVC_still_present` (2.6.64).
fn may_stand_still((tag, content): (u8, &[u8])) -> bool {
    match (tag, content) {
        (0x02, [flags, ..]) => flags & 0x01 != 0,
        (0x28, [_, _, _, flags, ..]) => flags & 0x80 != 0,
        _ => false,
    }
}

/// That of the sound itself where it is told apart from whom it is for (supplementary audio, EN 300 468 6.4.11).
fn read_language(bytes: &[u8]) -> Option<[u8; 3]> {
    let supplementary = descriptors(bytes).find_map(|(tag, content)| match (tag, content) {
        (0x7f, [0x06, flags, code @ ..]) if flags & 1 != 0 => code.first_chunk().copied(),
        _ => None,
    });
    supplementary.or_else(|| descriptors(bytes).find_map(language))
}

/// Of ISO 639 language (13818-1 2.6.18), teletext (EN 300 468 6.2.43) and subtitling descriptors (6.2.41).
fn language((tag, content): (u8, &[u8])) -> Option<[u8; 3]> {
    if matches!(tag, 0x0a | 0x56 | 0x59) { content.first_chunk().copied() } else { None }
}

const TAG_REGISTRATION: u8 = 0x05;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_streams_tell_by_their_descriptors() {
        let stream = |stream_type, descriptors: &[u8]| {
            Stream::new(&StreamEntry { stream_type, pid: Pid::NULL, descriptors }, None)
        };
        let eac3 = stream(0x06, &[0x52, 1, 2, 0x0a, 4, b'f', b'r', b'e', 0, 0x7a, 2, 0x80, 0xc2]);
        assert_eq!((eac3.media, eac3.codec, eac3.language), (Media::Audio, Some("eac3"), Some(*b"fre")));
        let subtitles = stream(0x06, &[0x59, 8, b'f', b'r', b'a', 0x24, 0, 1, 0, 1]);
        assert_eq!(
            (subtitles.media, subtitles.codec, subtitles.language),
            (Media::Subtitle, Some("dvb_subtitle"), Some(*b"fra"))
        );
        let opus = stream(0x06, &[0x05, 4, b'O', b'p', b'u', b's', 0x7f, 2, 0x80, 6]);
        assert_eq!((opus.codec, opus.channels), (Some("opus"), Some(6)));
        assert_eq!(stream(0x06, &[0x05, 4, b'O', b'p', b'u', b's']).channels, None);
        assert_eq!(stream(0x06, &[]).codec, None);
        assert_eq!(stream(0x1b, &[9, 4, 0x0b, 0, 0xe1, 0x23]).ecm_pid, Pid::new(0x123));
    }
}
