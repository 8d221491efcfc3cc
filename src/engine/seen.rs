//! What a watch tells, as events of a flow: names, importance, sentences.

use std::fmt;
use std::time::Duration;

use super::event::Severity;
use crate::media::watch::{Defect, Event};
use crate::units::SourceName;

/// The stable name that scripts match.
pub(super) const fn type_name(event: &Event) -> &'static str {
    match event {
        Event::Began { defect: Defect::Black, .. } => "black_detected",
        Event::Began { defect: Defect::Frozen, .. } => "frozen_detected",
        Event::Began { defect: Defect::Silent, .. } => "silent_detected",
        Event::Ended { defect: Defect::Black, .. } => "black_ended",
        Event::Ended { defect: Defect::Frozen, .. } => "frozen_ended",
        Event::Ended { defect: Defect::Silent, .. } => "silent_ended",
        Event::VideoMissing => "video_missing",
        Event::VideoBack { .. } => "video_back",
        Event::AudioMissing => "audio_missing",
        Event::AudioBack { .. } => "audio_back",
        Event::MetadataChanged { .. } => "metadata_changed",
        Event::Stretched { .. } => "watch_stretched",
        Event::Restored => "watch_restored",
        Event::DecoderRestarted { .. } => "decoder_restarted",
    }
}

/// How much it matters.
pub(super) const fn severity(event: &Event) -> Severity {
    match event {
        Event::Began { .. }
        | Event::VideoMissing
        | Event::AudioMissing
        | Event::Stretched { .. }
        | Event::DecoderRestarted { .. } => Severity::Warning,
        Event::Ended { .. }
        | Event::VideoBack { .. }
        | Event::AudioBack { .. }
        | Event::MetadataChanged { .. }
        | Event::Restored => Severity::Info,
    }
}

/// The sentence that people read; `source` is `None` for what outputs get.
pub(super) fn write(f: &mut fmt::Formatter<'_>, source: Option<&SourceName>, event: &Event) -> fmt::Result {
    match source {
        Some(source) => write!(f, "source {source}: ")?,
        None => f.write_str("flow: ")?,
    }
    let what = |defect: Defect| match defect {
        Defect::Black => "the picture is black",
        Defect::Frozen => "the picture stands still",
        Defect::Silent => "the sound is silent",
    };
    match event {
        Event::Began { defect, lasted } => write!(f, "{}, for {} already", what(*defect), Seconds(*lasted)),
        Event::Ended { defect, lasted, lost_sight: None, .. } => {
            let what = match defect {
                Defect::Black => "the picture is no longer black",
                Defect::Frozen => "the picture moves again",
                Defect::Silent => "there is sound again",
            };
            write!(f, "{what}, after {}", Seconds(*lasted))
        }
        Event::Ended { defect, lost_sight: Some(why), .. } => {
            write!(f, "it is not known any more whether {}: {why}", what(*defect))
        }
        Event::VideoMissing => f.write_str("no pictures come"),
        Event::VideoBack { missed } => write!(f, "pictures come again, after {}", Seconds(*missed)),
        Event::AudioMissing => f.write_str("no sound comes"),
        Event::AudioBack { missed } => write!(f, "sound comes again, after {}", Seconds(*missed)),
        Event::MetadataChanged { what, .. } => write!(f, "what it carries has changed: {what}"),
        Event::Stretched { every } => {
            let every = Seconds(*every);
            write!(f, "not computing time enough: pictures are looked at every {every} (engine.decode_cpu)")
        }
        Event::Restored => f.write_str("pictures are looked at as often as they are meant to be again"),
        Event::DecoderRestarted { restarts } => {
            write!(f, "what decodes it was started anew, {restarts} times so far")
        }
    }
}

struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s", self.0.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::EventKind;

    #[test]
    fn sentences_say_whose_and_for_how_long() {
        let told = |source: Option<&str>, event| {
            EventKind::Watched { source: source.map(|name| name.parse().unwrap()), event }.to_string()
        };
        let lasted = Duration::from_millis(2_040);
        let began = Event::Began { defect: Defect::Black, lasted };
        assert_eq!(told(Some("s1"), began), "source s1: the picture is black, for 2.0 s already");
        let ended = Event::Ended { defect: Defect::Silent, lasted, between: (lasted, lasted), lost_sight: None };
        assert_eq!(told(None, ended), "flow: there is sound again, after 2.0 s");
    }
}
