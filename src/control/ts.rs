//! The analysis of a transport stream as JSON: `ts` in a flow's metrics, and what `anabranch probe --json` prints.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use super::figures::Spans;
use crate::proto::mpegts::analysis::{Cue, CueKind, CueStats, Indicator, Snapshot, State};
use crate::proto::mpegts::{Media, Program, Stream};

/// A transport stream, as ETSI TR 101 290 and RFC 4445 judge it. Counters are in TS packets since the start.
#[derive(Debug, Serialize, ToSchema)]
pub struct TsMetrics {
    /// Whether TS packets are found now.
    pub sync: bool,
    /// Distance of their sync bytes: 188, 192 or 204.
    pub packet_size: Option<usize>,
    /// `good`, `error`, or `unknown` while nothing can be told.
    pub verdict: &'static str,
    /// The gravest priority, 1 to 3, with an error now.
    pub worst_priority: Option<u8>,
    /// `transport_stream_id`.
    pub stream_id: Option<u16>,
    /// By arrival, over the last second.
    pub bitrate_bps: u64,
    /// Null packets of that.
    pub null_bitrate_bps: u64,
    /// By PCR: what the stream was made for.
    pub pcr_bitrate_bps: Option<u64>,
    /// Whether that is constant; null while it is not known.
    pub constant_bitrate: Option<bool>,
    /// Greatest error of a PCR over the last second; null where the rate is not constant.
    pub pcr_accuracy_ns: Option<u64>,
    /// All of them, whatever they carry.
    pub packets: u64,
    /// Null packets.
    pub null_packets: u64,
    /// Breaks of a continuity counter.
    pub continuity_errors: u64,
    /// Packets missing there, at least.
    pub lost_packets_min: u64,
    /// Legal repetitions.
    pub duplicate_packets: u64,
    /// Encrypted ones.
    pub scrambled_packets: u64,
    /// Bytes that belong to no packet.
    pub skipped_bytes: u64,
    /// RFC 4445: how much must be buffered, over the last second; null without PCR.
    pub mdi_delay_factor_ms: Option<f64>,
    /// RFC 4445: TS packets lost in the last second.
    pub mdi_loss_rate: Option<f64>,
    /// ETSI TR 101 290, by name.
    pub tr_101_290: BTreeMap<&'static str, IndicatorMetrics>,
    /// Time between packets.
    pub inter_arrival: Spans,
    /// How much later PCRs came than the quickest of late.
    pub delay_variation: Spans,
    /// Sections of EIT and of tables of other networks and streams that came and could not be watched, as there are too many.
    pub unwatched_sections: u64,
    /// Video and audio streams that do not tell what buffers a decoder needs, or not yet: they are not among `buffer_error` and
    /// `empty_buffer_error`.
    pub unmodelled_streams: u64,
    /// Splice information (SCTE 35); null if a PMT names none and none came.
    pub scte35: Option<SpliceMetrics>,
    /// What the PAT lists.
    pub programs: Vec<ProgramMetrics>,
    /// Every PID but that of null packets.
    pub pids: Vec<PidMetrics>,
}

/// One indicator of ETSI TR 101 290.
#[derive(Debug, Serialize, ToSchema)]
pub struct IndicatorMetrics {
    /// 1 to 3.
    pub priority: u8,
    /// `good`, `warning`, `error` or `unknown`.
    pub state: String,
    /// Why it is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// Since the start.
    pub errors: u64,
    /// Since the start.
    pub warnings: u64,
    /// Where the last error was, if on one PID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u16>,
}

/// Splice information, in sections since the start.
#[derive(Debug, Serialize, ToSchema)]
pub struct SpliceMetrics {
    /// `splice_insert`.
    pub inserts: u64,
    /// `time_signal`.
    pub time_signals: u64,
    /// `splice_null`.
    pub nulls: u64,
    /// Other commands.
    pub others: u64,
    /// Encrypted ones.
    pub encrypted: u64,
    /// That could not be read: a wrong CRC, or lengths that contradict each other.
    pub malformed: u64,
    /// Cues that had come before.
    pub repeated_cues: u64,
    /// Cues without an event, as too many came at once.
    pub untold_cues: u64,
    /// The last cue that was new.
    pub last_cue: Option<CueMetrics>,
}

/// A cue for splicing.
#[derive(Debug, Serialize, ToSchema)]
pub struct CueMetrics {
    /// Where it came.
    pub pid: u16,
    /// `splice_event_id` or `segmentation_event_id`.
    pub event_id: u32,
    /// `Splice Insert`, or the type of segment as SCTE 35 names it.
    pub name: &'static str,
    /// `segmentation_type_id`; null for `splice_insert` and where a segment is cancelled.
    pub segmentation_type_id: Option<u8>,
    /// `out` of the programme into a break, `in` again, or `none`.
    pub direction: &'static str,
    /// The event does not take place.
    pub cancelled: bool,
    /// When, in ticks of 90 kHz of the program's clock; null for at once.
    pub pts_90k: Option<u64>,
    /// How long it is planned to be.
    pub duration_ms: Option<f64>,
}

/// A program.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProgramMetrics {
    /// Its number.
    pub program_id: u16,
    /// What the SDT calls it.
    pub program_name: Option<String>,
    /// Who provides it.
    pub provider: Option<String>,
    /// Where its PMT is found.
    pub pmt_pid: u16,
    /// Where its clock is found.
    pub pcr_pid: Option<u16>,
    /// Whether it has teletext, by its PMT.
    pub teletext: bool,
    /// Whether it has DVB subtitles, by its PMT.
    pub subtitles: bool,
    /// Whether it has splice information, by its PMT.
    pub scte35: bool,
    /// What it is made of; empty until its PMT came.
    pub streams: Vec<StreamMetrics>,
}

/// A stream of a program, as the PMT describes it.
#[derive(Debug, Serialize, ToSchema)]
pub struct StreamMetrics {
    /// Where it is found.
    pub pid: u16,
    /// `video`, `audio`, `subtitle`, `cue`, `sections` or `other`.
    pub kind: &'static str,
    /// As ffprobe names it; null if the PMT does not tell.
    pub codec: Option<&'static str>,
    /// ISO/IEC 13818-1 table 2-34.
    pub stream_type: u8,
    /// ISO 639.
    pub language: Option<String>,
    /// Whether a video stream carries CEA-608 or CEA-708 captions; null for other streams, and where it is not known.
    pub captions: Option<bool>,
    /// TS packets over the last second.
    pub bitrate_bps: u64,
}

/// A PID.
#[derive(Debug, Serialize, ToSchema)]
pub struct PidMetrics {
    /// Which.
    pub pid: u16,
    /// TS packets over the last second.
    pub bitrate_bps: u64,
    /// TS packets.
    pub packets: u64,
    /// Breaks of its continuity counter.
    pub continuity_errors: u64,
    /// Encrypted ones.
    pub scrambled_packets: u64,
    /// Clock references.
    pub pcrs: u64,
}

impl From<&Snapshot> for TsMetrics {
    fn from(ts: &Snapshot) -> Self {
        let mdi = ts.mdi.unwrap_or_default();
        Self {
            sync: ts.is_locked,
            packet_size: ts.stride,
            verdict: verdict(ts),
            worst_priority: ts.worst_priority(),
            stream_id: ts.stream_id,
            bitrate_bps: ts.rate.as_bps(),
            null_bitrate_bps: ts.null_rate.as_bps(),
            pcr_bitrate_bps: ts.pcr_rate.map(|rate| rate.as_bps()),
            constant_bitrate: ts.is_constant,
            pcr_accuracy_ns: ts.pcr_accuracy.map(|error| error.as_nanos() as u64),
            packets: ts.stats.sync.packets,
            null_packets: ts.stats.nulls,
            continuity_errors: ts.stats.continuity_errors,
            lost_packets_min: ts.stats.lost_min,
            duplicate_packets: ts.stats.duplicates,
            scrambled_packets: ts.stats.scrambled,
            skipped_bytes: ts.stats.sync.skipped_bytes,
            mdi_delay_factor_ms: mdi.delay_factor.map(millis),
            mdi_loss_rate: ts.mdi.map(|mdi| mdi.loss_rate),
            tr_101_290: Indicator::ALL
                .into_iter()
                .map(|indicator| (indicator.name(), IndicatorMetrics::new(ts, indicator)))
                .collect(),
            inter_arrival: Spans::from(&ts.inter_arrival),
            delay_variation: Spans::from(&ts.delay_variation),
            unwatched_sections: ts.unwatched_sections,
            unmodelled_streams: ts.unmodelled_streams,
            scte35: SpliceMetrics::new(ts),
            programs: ts.programs.iter().map(|program| ProgramMetrics::new(ts, program)).collect(),
            pids: ts.pids.iter().map(PidMetrics::from).collect(),
        }
    }
}

/// In one word.
#[must_use]
pub fn verdict(ts: &Snapshot) -> &'static str {
    match ts.worst_priority() {
        Some(_) => "error",
        None if ts.is_locked => "good",
        None => "unknown",
    }
}

impl IndicatorMetrics {
    fn new(ts: &Snapshot, indicator: Indicator) -> Self {
        let found = ts.indicator(indicator);
        Self {
            priority: indicator.priority(),
            state: found.state.to_string(),
            reason: if let State::Unknown(why) = found.state { Some(why) } else { None },
            errors: found.errors,
            warnings: found.warnings,
            pid: found.pid.map(|pid| pid.value()),
        }
    }
}

impl SpliceMetrics {
    fn new(ts: &Snapshot) -> Option<Self> {
        let streams = ts.programs.iter().filter_map(|program| program.pmt.as_ref());
        let is_there = ts.cues.sections() > 0 || streams.into_iter().any(|pmt| pmt.has(Media::Cue));
        let CueStats { inserts, time_signals, nulls, others, encrypted, malformed, repeated, untold } = ts.cues;
        is_there.then(|| Self {
            inserts,
            time_signals,
            nulls,
            others,
            encrypted,
            malformed,
            repeated_cues: repeated,
            untold_cues: untold,
            last_cue: ts.last_cue.as_ref().map(CueMetrics::from),
        })
    }
}

impl From<&Cue> for CueMetrics {
    fn from(cue: &Cue) -> Self {
        Self {
            pid: cue.pid.value(),
            event_id: cue.event_id,
            name: cue.name(),
            segmentation_type_id: match cue.kind {
                CueKind::Segment(type_id) if !cue.is_cancelled => Some(type_id),
                CueKind::Segment(_) | CueKind::Insert { .. } => None,
            },
            direction: cue.direction().as_str(),
            cancelled: cue.is_cancelled,
            pts_90k: cue.pts.map(|pts| pts.0),
            duration_ms: cue.duration.map(millis),
        }
    }
}

impl ProgramMetrics {
    fn new(ts: &Snapshot, program: &Program) -> Self {
        let service = program.service.as_ref();
        let pmt = program.pmt.as_ref();
        let streams = pmt.into_iter().flat_map(|pmt| &pmt.streams);
        let has = |codec| pmt.is_some_and(|pmt| pmt.streams.iter().any(|stream| stream.codec == Some(codec)));
        Self {
            program_id: program.number,
            program_name: service.map(|service| service.name.clone()),
            provider: service.map(|service| service.provider.clone()),
            pmt_pid: program.pmt_pid.value(),
            pcr_pid: pmt.and_then(|pmt| pmt.pcr_pid).map(|pid| pid.value()),
            teletext: has("dvb_teletext"),
            subtitles: has("dvb_subtitle"),
            scte35: has("scte_35"),
            streams: streams.map(|stream| StreamMetrics::new(ts, stream)).collect(),
        }
    }
}

impl StreamMetrics {
    fn new(ts: &Snapshot, stream: &Stream) -> Self {
        let found = ts.pids.iter().find(|pid| pid.pid == stream.pid);
        Self {
            pid: stream.pid.value(),
            kind: kind(stream.media),
            codec: stream.codec,
            stream_type: stream.stream_type,
            language: stream.language.map(|code| String::from_utf8_lossy(&code).into_owned()),
            captions: found.and_then(|pid| pid.has_captions),
            bitrate_bps: found.map_or(0, |pid| pid.rate.as_bps()),
        }
    }
}

impl From<&crate::proto::mpegts::analysis::PidSnapshot> for PidMetrics {
    fn from(pid: &crate::proto::mpegts::analysis::PidSnapshot) -> Self {
        Self {
            pid: pid.pid.value(),
            bitrate_bps: pid.rate.as_bps(),
            packets: pid.packets,
            continuity_errors: pid.continuity_errors,
            scrambled_packets: pid.scrambled,
            pcrs: pid.pcrs,
        }
    }
}

/// What a stream is for, in a word.
#[must_use]
pub const fn kind(media: Media) -> &'static str {
    match media {
        Media::Video => "video",
        Media::Audio => "audio",
        Media::Subtitle => "subtitle",
        Media::Cue => "cue",
        Media::Sections => "sections",
        Media::Other => "other",
    }
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::mpegts::analysis::Analyser;
    use crate::proto::mpegts::psi::crc32;
    use crate::units::Time;

    /// Of `tests/data/ts/test-026`, and of the same with teletext in place of its second subtitles.
    #[test]
    fn subtitles_and_teletext_of_a_broadcast_are_told() {
        let mut broadcast = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/ts/test-026.ts")).unwrap();
        let program = program_of(&broadcast);
        assert_eq!((program.subtitles, program.teletext, program.scte35), (true, false, false));
        assert_eq!(subtitles(&program), [(140, Some("dvb_subtitle"), "fra"), (142, Some("dvb_subtitle"), "fra")]);
        // Subtitling (EN 300 468 6.2.41) is as long as teletext (6.2.43) and a private descriptor.
        let (subtitling, teletext) = (b"\x59\x08fra\x14\0\x01\0\x01", b"\x56\x05fra\x10\x88\xfe\x01\0");
        let mut changed = 0;
        // One PMT in each packet of its PID.
        for packet in broadcast.chunks_mut(188).filter(|packet| packet[1..3] == [0x40, 110]) {
            let section = &mut packet[5..];
            let Some(at) = section.windows(10).position(|bytes| bytes == subtitling) else { continue };
            section[at..at + 10].copy_from_slice(teletext);
            let end = 3 + usize::from(section[2]) - 4;
            let crc = crc32(&section[..end]);
            section[end..end + 4].copy_from_slice(&crc.to_be_bytes());
            changed += 1;
        }
        assert_eq!(changed, 12);
        let program = program_of(&broadcast);
        assert_eq!((program.subtitles, program.teletext), (true, true));
        assert_eq!(subtitles(&program), [(140, Some("dvb_subtitle"), "fra"), (142, Some("dvb_teletext"), "fra")]);
    }

    fn program_of(stream: &[u8]) -> ProgramMetrics {
        let mut analyser = Analyser::new(Time::ZERO);
        for (at, datagram) in (0..).zip(stream.chunks(1_316)) {
            analyser.handle_packet(Time::from_ns(at * 1_471_000), datagram, None);
        }
        let found = TsMetrics::from(&analyser.snapshot());
        assert_eq!(found.tr_101_290["crc_error"].errors, 0);
        let [program] = <[_; 1]>::try_from(found.programs).unwrap();
        program
    }

    fn subtitles(program: &ProgramMetrics) -> Vec<(u16, Option<&str>, &str)> {
        let streams = program.streams.iter().filter(|stream| stream.kind == "subtitle");
        streams.map(|stream| (stream.pid, stream.codec, stream.language.as_deref().unwrap())).collect()
    }
}
