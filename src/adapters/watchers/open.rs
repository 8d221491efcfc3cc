//! `Open`: what was told of a stream and is not over.

use std::time::Duration;

use crate::media::watch::{Defect, Event, Reason};
use crate::units::Time;

/// Follows the events of one stream, so that their ends can be told if whoever told them of is no more.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Open {
    /// How long they had lasted at least when they were told.
    black: Option<Duration>,
    frozen: Option<Duration>,
    silent: Option<Duration>,
    video_missing: Option<Time>,
    audio_missing: Option<Time>,
    is_stretched: bool,
}

impl Open {
    /// Takes in what is told.
    pub(super) fn handle(&mut self, now: Time, event: &Event) {
        match event {
            Event::Began { defect, lasted } => *self.defect(*defect) = Some(*lasted),
            Event::Ended { defect, .. } => *self.defect(*defect) = None,
            Event::VideoMissing => self.video_missing = Some(now),
            Event::VideoBack { .. } => self.video_missing = None,
            Event::AudioMissing => self.audio_missing = Some(now),
            Event::AudioBack { .. } => self.audio_missing = None,
            Event::Stretched { .. } => self.is_stretched = true,
            Event::Restored => self.is_stretched = false,
            Event::MetadataChanged { .. } | Event::DecoderRestarted { .. } => {}
        }
    }

    /// The ends of all that is not over.
    pub(super) fn close(mut self, now: Time) -> impl Iterator<Item = Event> {
        let defects = [Defect::Black, Defect::Frozen, Defect::Silent].map(|defect| {
            let lasted = self.defect(defect).take()?;
            Some(Event::Ended { defect, lasted, between: (lasted, lasted), lost_sight: Some(Reason::Restarting) })
        });
        let video = self.video_missing.map(|since| Event::VideoBack { missed: now.since(since) });
        let audio = self.audio_missing.map(|since| Event::AudioBack { missed: now.since(since) });
        let restored = self.is_stretched.then_some(Event::Restored);
        defects.into_iter().chain([video, audio, restored]).flatten()
    }

    const fn defect(&mut self, defect: Defect) -> &mut Option<Duration> {
        match defect {
            Defect::Black => &mut self.black,
            Defect::Frozen => &mut self.frozen,
            Defect::Silent => &mut self.silent,
        }
    }
}
