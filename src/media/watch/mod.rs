//! Looks at what one transport stream carries and shows, without ever being in its way.
//!
//! [`Watch`] follows a stream by copies of its packets: it reads metadata, picks what is to be decoded, and judges what came
//! of it. It decodes nothing: an [`Examiner`] does, where a crash hurts nobody. There is one [`Job`] at a time for a picture,
//! one for sound and one for a proof, and none waits for the others. A [`Governor`] says when each of many streams may have
//! its next job done, so that all together take no more than their budget.
//!
//! ```text
//!  packets ──► Watch ──Job──► (Governor: now?) ──► Examiner in a thread or a process of its own
//!                ▲                                        │
//!                └───────────────── Outcome ──────────────┘
//!                └──► events, metadata, content, thumbnail
//! ```
//!
//! Of pictures only key frames are looked at, one a second at most. What lies between two of them is not known; so a defect
//! is told of once two seconds of it are proven, and its length is told with what is proven and what is possible. Where a
//! defect began and ended, and where key frames alone do not tell whether it lasted long enough, the groups of pictures are
//! decoded fully if there is time for it, and then both are exact to the picture. All sound is listened to.
//!
//! Bounds: a watch holds the units that the demultiplexer puts together (at most four of the longest), one picture, the
//! groups of pictures since the last but one that was looked at while content is looked at (twenty seconds at most) and
//! those of edges that wait to be proven (all of them together as many bytes as [`Watch::set_bytes_max`] says, which
//! [`shares`] finds out for many streams), and [`SOUND_UNITS_MAX`]
//! units of sound. It has headers of at most [`STREAMS_MAX`](crate::proto::mpegts::STREAMS_MAX) streams.

mod catalogue;
mod clock;
mod crashes;
mod edges;
mod examiner;
mod examiners;
pub mod governor;
mod groups;
mod hearing;
mod job;
mod judge;
mod presence;
mod proofs;
mod report;
pub mod shares;
mod sight;
#[cfg(test)]
mod tests;
pub mod wire;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use self::catalogue::Catalogue;
use self::governor::Kind;
use self::hearing::Hearing;
use self::sight::{Out, SAMPLED_EVERY, Sight};
use crate::proto::mpegts::demux::{AccessUnit, Codec, Demux};
use crate::proto::mpegts::{Media, Pid};
#[cfg(any(test, fuzzing))]
use crate::proto::mpegts::{SYNC_BYTE, TS_PACKET_BYTES};
use crate::units::Time;

pub use examiner::Examiner;
pub use examiners::{Examiners, KEPT_BYTES_MAX};
pub use governor::Governor;
pub use job::{
    EDGES_MAX, Failure, Findings, Heard, JOB_BYTES_MAX, JOB_UNITS_MAX, Job, Outcome, PictureFindings, ProofFindings,
    SOUND_BYTES_MAX, SOUND_UNITS_MAX, SoundFindings, TENTHS_MAX, Work,
};
pub use report::{
    Content, Defect, Event, Levels, Metadata, Picture, ProgramMetadata, Reason, Report, Settings, StreamMetadata,
    THUMBNAIL_EVERY, THUMBNAIL_EVERY_MIN, WatchCounts,
};

/// Watches one transport stream.
#[derive(Debug)]
pub struct Watch {
    settings: Settings,
    demux: Demux,
    catalogue: Catalogue,
    sight: Option<Sight>,
    hearing: Option<Hearing>,
    thumbnail: Option<Picture>,
    /// How often pictures may be decoded, as the governor has it.
    every: Duration,
    is_stretched: bool,
    /// Jobs that are being done: a picture, sound, a proof.
    looking: Option<AskedJob>,
    listening: Option<AskedJob>,
    proving: Option<AskedJob>,
    jobs: u64,
    bytes_max: usize,
    events: Events,
    counts: WatchCounts,
    last_check: Option<Time>,
    next_tick: Time,
    window_start: Time,
}

/// A job that is being done.
#[derive(Clone, Copy, Debug)]
struct AskedJob {
    number: u64,
    at: Time,
    work: Work,
    /// It was for a stream that is not looked at any more.
    is_stale: bool,
}

/// Events that wait to be taken; more than [`EVENTS_MAX`] are dropped and counted.
#[derive(Debug, Default)]
struct Events {
    queue: VecDeque<Event>,
    dropped: u64,
}

impl Events {
    fn push(&mut self, event: Event) {
        if self.queue.len() == EVENTS_MAX {
            self.dropped += 1;
        } else {
            self.queue.push_back(event);
        }
    }
}

impl Watch {
    /// Of a stream that nothing came from.
    #[must_use]
    pub fn new(now: Time, settings: Settings) -> Self {
        Self {
            settings: checked(settings),
            demux: Demux::new(),
            catalogue: Catalogue::default(),
            sight: None,
            hearing: None,
            thumbnail: None,
            every: SAMPLED_EVERY,
            is_stretched: false,
            looking: None,
            listening: None,
            proving: None,
            jobs: 0,
            bytes_max: shares::STREAM_BYTES_MAX,
            events: Events::default(),
            counts: WatchCounts::default(),
            last_check: None,
            next_tick: now + TICK,
            window_start: now,
        }
    }

    /// One that knows nothing any more, in the place of this one. Outcomes of its jobs are not taken for those of others.
    #[must_use]
    pub fn begun_anew(&self, now: Time) -> Self {
        Self { jobs: self.jobs, bytes_max: self.bytes_max, ..Self::new(now, self.settings) }
    }

    /// Wants something else from now on.
    pub fn set(&mut self, settings: Settings) {
        let settings = checked(settings);
        if self.settings.content_quality && !settings.content_quality {
            let mut out = Out { events: &mut self.events, counts: &mut self.counts };
            if let Some(sight) = &mut self.sight {
                sight.stop_judging(&mut out);
            }
            if let Some(hearing) = &mut self.hearing {
                hearing.stop_listening(Reason::Off, &mut out);
            }
        }
        if settings.thumbnail_every.is_none() {
            self.thumbnail = None;
        }
        self.settings = settings;
    }

    /// Coded pictures that are kept for proofs may have so many bytes from now on.
    pub fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
        let mut out = Out { events: &mut self.events, counts: &mut self.counts };
        if let Some(sight) = &mut self.sight {
            sight.edges.set_bytes_max(bytes_max, &mut out);
        }
    }

    /// Bytes of coded pictures that are kept for proofs.
    #[must_use]
    pub fn bytes_kept(&self) -> usize {
        self.sight.as_ref().map_or(0, |sight| sight.edges.bytes())
    }

    /// What is wanted.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Takes in the payload of a packet that came at `now`: TS packets.
    pub fn handle_packet(&mut self, now: Time, bytes: &[u8]) {
        self.demux.push(now, bytes);
        while let Some((unit, after_hole)) = self.demux.poll_unit_and_hole() {
            self.handle_unit(now, unit, after_hole);
        }
    }

    /// So many packets of the bus were overwritten before they could be looked at.
    pub fn handle_missed(&mut self, count: u64) {
        self.counts.packets_missed += count;
        self.demux.disturb();
        self.catalogue.disturb();
        if let Some(sight) = &mut self.sight {
            sight.disturb();
        }
    }

    /// Takes in what came of a job. Of one that nobody waits for any more nothing is kept.
    pub fn handle_outcome(&mut self, now: Time, outcome: Outcome) {
        let cpu_ns = u64::try_from(outcome.cpu.as_nanos()).unwrap_or(u64::MAX);
        self.counts.cpu_ns = self.counts.cpu_ns.saturating_add(cpu_ns);
        let is_its = |asked: &mut AskedJob| asked.number == outcome.number;
        let all = [&mut self.looking, &mut self.listening, &mut self.proving];
        let asked = all.into_iter().find_map(|asked| asked.take_if(is_its));
        let Some(asked) = asked.filter(|asked| !asked.is_stale) else { return };
        self.last_check = Some(now);
        let mut out = Out { events: &mut self.events, counts: &mut self.counts };
        // What is no answer to what was asked is as bad as none.
        match (asked.work, outcome.result, &mut self.sight, &mut self.hearing) {
            (Work::Picture { .. }, result, Some(sight), _) => {
                let result = result.and_then(|findings| match findings {
                    Findings::Picture(findings) => Ok(findings),
                    Findings::Sound(_) | Findings::Proof(_) => Err(Failure::Damaged),
                });
                let thumbnail = sight.handle_outcome(now, result, &mut out);
                if thumbnail.is_some() && self.settings.thumbnail_every.is_some() {
                    self.thumbnail = thumbnail;
                }
            }
            (Work::Proof { .. }, result, Some(sight), _) => {
                let result = result.and_then(|findings| match findings {
                    Findings::Proof(findings) => Ok(findings),
                    Findings::Sound(_) | Findings::Picture(_) => Err(Failure::Damaged),
                });
                sight.handle_proof(now, result, &mut out);
            }
            (Work::Sound { .. }, result, _, Some(hearing)) => {
                let result = result.and_then(|findings| match findings {
                    Findings::Sound(findings) => Ok(findings),
                    Findings::Picture(_) | Findings::Proof(_) => Err(Failure::Damaged),
                });
                hearing.handle_outcome(now, result, &mut out);
            }
            (Work::Picture { .. } | Work::Proof { .. }, _, None, _) | (Work::Sound { .. }, _, _, None) => {}
        }
    }

    /// Pictures may be decoded so often: what the [`Governor`] says. `is_stretched` if that is less often than wanted.
    pub fn set_every(&mut self, every: Duration, is_stretched: bool) {
        let every = if is_stretched { every.max(SAMPLED_EVERY) } else { SAMPLED_EVERY };
        if is_stretched && (!self.is_stretched || every != self.every) {
            self.events.push(Event::Stretched { every });
        } else if !is_stretched && self.is_stretched {
            self.events.push(Event::Restored);
        }
        (self.every, self.is_stretched) = (every, is_stretched);
    }

    /// How often pictures are wanted, if they are.
    #[must_use]
    pub fn wanted_every(&self) -> Option<Duration> {
        self.sight.as_ref()?.wanted_every(&self.settings)
    }

    /// Has to be called at [`Watch::poll_timeout`]; earlier does no harm.
    pub fn handle_timeout(&mut self, now: Time) {
        if now < self.next_tick {
            return;
        }
        self.next_tick = now + TICK;
        let window = now.since(self.window_start);
        if window >= WINDOW {
            self.window_start = now;
            self.demux.close_window(now);
            self.catalogue.close_window(window);
        }
        self.catalogue.refresh(now, &self.demux);
        if let Some((what, changes)) = self.catalogue.poll_news(now) {
            self.events.push(Event::MetadataChanged { what, changes });
        }
        self.choose_streams(now);
        self.look_at_packets(now);
        let mut out = Out { events: &mut self.events, counts: &mut self.counts };
        if let Some(sight) = &mut self.sight {
            sight.handle_timeout(now, &self.settings, self.every, &mut out);
        }
        if let Some(hearing) = &mut self.hearing {
            hearing.handle_timeout(now, &self.settings, &mut out);
        }
        for asked in [self.looking, self.listening, self.proving].into_iter().flatten() {
            if now.since(asked.at) >= OUTCOME_MAX {
                let result = Err(Failure::Crashed);
                self.handle_outcome(now, Outcome { number: asked.number, result, cpu: Duration::ZERO });
            }
        }
    }

    /// When [`Watch::handle_timeout`] wants to be called.
    #[must_use]
    pub const fn poll_timeout(&self) -> Time {
        self.next_tick
    }

    /// Whether [`Watch::poll_job`] has something.
    #[must_use]
    pub fn has_job(&self, now: Time, kind: Kind) -> bool {
        match kind {
            Kind::Picture => self.looking.is_none() && self.sight.as_ref().is_some_and(Sight::has_job),
            Kind::Sound => {
                self.listening.is_none() && self.hearing.as_ref().is_some_and(|hearing| hearing.has_job(now))
            }
        }
    }

    /// How many pictures [`Watch::poll_proof`] has, if any.
    #[must_use]
    pub fn waiting_proof(&self) -> Option<usize> {
        if self.proving.is_some() { None } else { self.sight.as_ref()?.edges.waiting() }
    }

    /// An edge that is to be proven, to be answered by [`Watch::handle_outcome`]; there is one at a time, beside other jobs.
    pub fn poll_proof(&mut self, now: Time) -> Option<Job> {
        self.waiting_proof()?;
        let (work, units) = self.sight.as_mut()?.edges.poll_job()?;
        self.jobs += 1;
        self.proving = Some(AskedJob { number: self.jobs, at: now, work, is_stale: false });
        Some(Job { number: self.jobs, work, units })
    }

    /// What [`Watch::poll_proof`] has will not be done: it costs more than there ever is.
    pub fn refuse_proof(&mut self) {
        let mut out = Out { events: &mut self.events, counts: &mut self.counts };
        if let Some(sight) = &mut self.sight {
            sight.edges.refuse(&mut out);
        }
    }

    /// The next job of that kind, to be answered by [`Watch::handle_outcome`]; there is one of each at a time.
    pub fn poll_job(&mut self, now: Time, kind: Kind) -> Option<Job> {
        if !self.has_job(now, kind) {
            return None;
        }
        let (asked, (work, units)) = match kind {
            Kind::Picture => (&mut self.looking, self.sight.as_mut()?.poll_job()?),
            Kind::Sound => (&mut self.listening, self.hearing.as_mut()?.poll_job(now)?),
        };
        self.counts.pictures_asked += u64::from(kind == Kind::Picture);
        self.jobs += 1;
        *asked = Some(AskedJob { number: self.jobs, at: now, work, is_stale: false });
        Some(Job { number: self.jobs, work, units })
    }

    /// What happened since.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.queue.pop_front()
    }

    /// What the stream carries.
    #[must_use]
    pub fn metadata(&self) -> &Arc<Metadata> {
        self.catalogue.metadata()
    }

    /// The last picture.
    #[must_use]
    pub const fn thumbnail(&self) -> Option<&Picture> {
        self.thumbnail.as_ref()
    }

    /// What the stream shows.
    #[must_use]
    pub fn content(&self, now: Time) -> Content {
        let mut content = Content { last_check: self.last_check, ..Content::default() };
        let is_off = !self.settings.content_quality;
        if let Some(sight) = &self.sight {
            (content.black, content.black_since) = sight.black(now, &self.settings, self.every);
            (content.frozen, content.frozen_since) = sight.frozen(now, &self.settings, self.every);
            content.video_present = sight.presence.value();
            content.video = if is_off { Some(Reason::Off) } else { sight.reason(now, &self.settings, self.every) };
            let is_unknown = content.video.is_none() && (content.black.is_none() || content.frozen.is_none());
            content.video = content.video.or_else(|| is_unknown.then_some(Reason::Listening));
            content.sampled_every = (!is_off).then(|| sight.sampled_every(self.every, self.is_stretched));
        } else if self.is_known() {
            content.video_present = Some(false);
        }
        if let Some(hearing) = &self.hearing {
            (content.silent, content.silent_since) = hearing.silent(now, &self.settings);
            content.audio_present = hearing.presence.value();
            content.audio = hearing.reason(now, &self.settings);
            content.loudness = hearing.levels(now, &self.settings);
        } else if self.is_known() {
            content.audio_present = Some(false);
        }
        if !is_off {
            let missing = if self.is_known() { Reason::NoStream } else { Reason::Missing };
            if self.sight.is_none() {
                content.video = Some(missing.clone());
            }
            if self.hearing.is_none() {
                content.audio = Some(missing);
            }
        }
        content
    }

    /// Everything at once.
    #[must_use]
    pub fn report(&self, now: Time) -> Report {
        let thumbnail_reason = match (&self.sight, self.settings.thumbnail_every) {
            (_, None) => Some(Reason::Off),
            (Some(sight), Some(_)) => sight.reason(now, &self.settings, self.every),
            (None, Some(_)) => Some(if self.is_known() { Reason::NoStream } else { Reason::Missing }),
        };
        Report {
            at: now,
            metadata: Arc::clone(self.metadata()),
            content: self.content(now),
            thumbnail: self.thumbnail.clone(),
            thumbnail_reason,
            counts: self.counts(),
        }
    }

    /// What came of it all.
    #[must_use]
    pub const fn counts(&self) -> WatchCounts {
        let demux = self.demux.counts();
        WatchCounts {
            units: demux.units,
            units_damaged: demux.damaged,
            metadata_changes: self.catalogue.changes_total(),
            events_dropped: self.events.dropped,
            ..self.counts
        }
    }

    /// Bytes of all units that it holds.
    #[cfg(any(test, fuzzing))]
    fn bytes_held(&self) -> usize {
        let sight = self.sight.as_ref().map_or(0, Sight::bytes_held);
        self.demux.bytes_held() + sight + self.hearing.as_ref().map_or(0, Hearing::bytes_held)
    }

    fn handle_unit(&mut self, now: Time, unit: AccessUnit, after_hole: bool) {
        let mut out = Out { events: &mut self.events, counts: &mut self.counts };
        let sight = self.sight.as_mut().filter(|sight| sight.pid == unit.pid && sight.codec == Some(unit.codec));
        let picture = self.catalogue.handle_unit(now, &unit, sight.is_some());
        if let Some(sight) = sight {
            if after_hole {
                sight.disturb();
            }
            sight.handle_unit(now, unit, picture, &self.settings, self.every, &mut out);
            return;
        }
        let hearing = self.hearing.as_mut().filter(|hearing| hearing.pid == unit.pid);
        if let Some(hearing) = hearing.filter(|hearing| hearing.codec == Some(unit.codec)) {
            hearing.handle_unit(now, unit, &self.settings, &mut out);
        } else if self.sight.is_none() && self.hearing.is_none() {
            // The first unit of all: what is looked at can be chosen now.
            self.choose_streams(now);
        }
    }

    /// Tables came: nothing is missing that they do not name.
    fn is_known(&self) -> bool {
        self.demux.programs().list().iter().any(|program| program.pmt.is_some())
    }

    /// The first program that has pictures, or else the first with sound; of it the first of each that can be decoded, or
    /// else the first.
    fn choose_streams(&mut self, now: Time) {
        let video = self.choose(Media::Video, None);
        let program = video.map(|chosen| chosen.program);
        let audio = self.choose(Media::Audio, program);
        let same = |chosen: &Chosen, pid, codec| (chosen.pid, chosen.codec) == (pid, codec);
        let mut out = Out { events: &mut self.events, counts: &mut self.counts };
        let keeps_sight = match (&self.sight, &video) {
            (Some(sight), Some(chosen)) => same(chosen, sight.pid, sight.codec),
            (None, None) => true,
            _ => false,
        };
        if !keeps_sight {
            if let Some(mut sight) = self.sight.take() {
                sight.lose_sight(Reason::NoStream, &mut out);
            }
            self.sight = video.map(|chosen| Sight::new(now, chosen.pid, chosen.codec, chosen.name));
            if let Some(sight) = &mut self.sight {
                sight.edges.set_bytes_max(self.bytes_max, &mut out);
            }
            self.looking.iter_mut().chain(&mut self.proving).for_each(|asked| asked.is_stale = true);
        }
        let keeps_hearing = match (&self.hearing, &audio) {
            (Some(hearing), Some(chosen)) => same(chosen, hearing.pid, hearing.codec),
            (None, None) => true,
            _ => false,
        };
        if !keeps_hearing {
            if let Some(mut hearing) = self.hearing.take() {
                hearing.stop_listening(Reason::NoStream, &mut out);
            }
            self.hearing = audio.map(|chosen| Hearing::new(now, chosen.pid, chosen.codec, chosen.name));
            self.listening.iter_mut().for_each(|asked| asked.is_stale = true);
        }
    }

    fn choose(&self, media: Media, program: Option<u16>) -> Option<Chosen> {
        let programs = self.demux.programs().list().iter();
        let mut programs = programs.filter(|candidate| program.is_none_or(|number| candidate.number == number));
        programs.find_map(|program| {
            let streams = program.pmt.iter().flat_map(|pmt| &pmt.streams).filter(|stream| stream.media == media);
            let mut chosen = streams.map(|stream| Chosen {
                program: program.number,
                pid: stream.pid,
                codec: self.codec_of(stream.pid),
                name: stream.codec.unwrap_or("unknown"),
            });
            let first = chosen.next()?;
            let decodable = if first.codec.is_some() { None } else { chosen.find(|other| other.codec.is_some()) };
            Some(decodable.unwrap_or(first))
        })
    }

    /// `None` for what is not decoded: such a stream is seen by its packets.
    fn codec_of(&self, pid: Pid) -> Option<Codec> {
        self.demux.stream(pid)?.codec.filter(|codec| *codec != Codec::Opus)
    }

    /// Streams that make no units here are seen by their packets.
    fn look_at_packets(&mut self, now: Time) {
        let mut out = Out { events: &mut self.events, counts: &mut self.counts };
        let is_scrambled = |pid| self.demux.stream(pid).is_some_and(|stream| stream.scrambled);
        let came = |pid| self.demux.pid(pid).is_some_and(|stats| now.since(stats.last_at) < TICK * 2);
        if let Some(sight) = &mut self.sight {
            sight.is_scrambled = is_scrambled(sight.pid);
            if (sight.is_scrambled || sight.codec.is_none()) && came(sight.pid) {
                sight.handle_packets(now, &mut out);
            }
        }
        if let Some(hearing) = &mut self.hearing {
            hearing.is_scrambled = is_scrambled(hearing.pid);
            if (hearing.is_scrambled || hearing.codec.is_none()) && came(hearing.pid) {
                hearing.handle_packets(now, &mut out);
            }
        }
    }
}

/// A stream that is looked at.
#[derive(Clone, Copy, Debug)]
struct Chosen {
    program: u16,
    pid: Pid,
    codec: Option<Codec>,
    name: &'static str,
}

fn checked(settings: Settings) -> Settings {
    Settings { thumbnail_every: settings.thumbnail_every.map(|every| every.max(THUMBNAIL_EVERY_MIN)), ..settings }
}

/// The body of the fuzz target `media_watch`, which tests call as well: any bytes as TS packets, with sync bytes put right, and
/// as outcomes of what is asked for.
///
/// # Panics
/// If a bound does not hold.
#[cfg(any(test, fuzzing))]
pub fn check_any_bytes(bytes: &[u8]) {
    let settings = Settings { thumbnail_every: Some(THUMBNAIL_EVERY_MIN), content_quality: true };
    let mut watch = Watch::new(Time::ZERO, settings);
    let mut now = Time::ZERO;
    for chunk in bytes.chunks(TS_PACKET_BYTES) {
        let mut packet = [0xff; TS_PACKET_BYTES];
        packet[..chunk.len()].copy_from_slice(chunk);
        packet[0] = SYNC_BYTE;
        // Its last byte says how much time passes, and whether something is missing.
        let last = chunk[chunk.len() - 1];
        now += Duration::from_millis(u64::from(last));
        watch.handle_packet(now, &packet);
        if last == 1 {
            watch.handle_missed(1);
        }
        watch.handle_timeout(now);
        let [sound, picture] = Kind::ALL.map(|kind| watch.poll_job(now, kind));
        for job in [picture, sound, watch.poll_proof(now)].into_iter().flatten() {
            let outcome = Outcome::decode(chunk);
            let result = outcome.map_or(Err(Failure::Damaged), |outcome| outcome.result);
            watch.handle_outcome(now, Outcome { number: job.number, result, cpu: Duration::ZERO });
        }
        assert!(watch.events.queue.len() <= EVENTS_MAX);
        assert!(watch.bytes_held() <= 8 * bytes.len());
        let content = watch.content(now);
        assert!(content.black.is_some() || content.video.is_some(), "{content:?}");
        assert!(content.silent.is_some() || content.audio.is_some(), "{content:?}");
        drop(watch.report(now));
        while watch.poll_event().is_some() {}
    }
}

/// How often metadata is put together and what is missing is looked for.
const TICK: Duration = Duration::from_millis(500);
/// Rates are taken over a second.
const WINDOW: Duration = Duration::from_millis(990);
/// Whoever decodes answers well before.
const OUTCOME_MAX: Duration = Duration::from_secs(1_800);
/// Judgement: more than a stream makes between two looks.
const EVENTS_MAX: usize = 64;
