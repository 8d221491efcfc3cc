//! Watches of streams that are made here, in virtual time.

use std::time::Duration;

use super::*;
use crate::bus::{Pool, PoolLimits};
use crate::proto::mpegts::psi::{Pat, Pmt, packet_of};
use crate::proto::mpegts::{TS_PACKET_BYTES, TestPicture, TsPacket, picture};
use crate::proto::{Core, Surroundings};
use crate::units::Bitrate;

#[test]
fn a_test_picture_is_seen_and_heard() {
    let mut bed = Bed::new(ALL);
    bed.play(Duration::from_secs(8));
    let report = bed.watch.report(bed.now);
    let metadata = &report.metadata;
    assert_eq!(metadata.programs[0].name.as_deref(), Some("Test picture"));
    let [video, audio] = &metadata.streams[..] else { panic!("{metadata:?}") };
    assert_eq!((video.codec.as_deref(), audio.codec.as_deref()), (Some("h264"), Some("mp2")));
    assert_eq!(video.video.as_ref().map(|video| (video.width, video.height)), Some((1_280, 720)));
    assert_eq!((video.frame_rate, audio.audio.map(|audio| audio.sample_rate)), (Some((25, 1)), Some(48_000)));
    let rate = audio.bit_rate.unwrap().as_bps();
    assert!((185_000..200_000).contains(&rate), "{rate}");
    let content = &report.content;
    assert_eq!((content.black, content.frozen, content.silent), (Some(false), Some(false), Some(false)), "{content:?}");
    assert_eq!((content.video_present, content.audio_present), (Some(true), Some(true)));
    assert_eq!((&content.video, &content.audio), (&None, &None));
    assert!(content.loudness.is_some_and(|levels| levels.momentary_lufs.is_some()), "{content:?}");
    let thumbnail = report.thumbnail.unwrap();
    assert_eq!((thumbnail.width, thumbnail.height), (480, 270));
    assert!(thumbnail.jpeg.starts_with(&[0xff, 0xd8]) && thumbnail.jpeg.len() <= 20_000);
    assert_eq!(report.thumbnail_reason, None);
    assert_eq!((report.counts.pictures_failed, report.counts.sounds_failed), (0, 0));
    assert!((6..=9).contains(&report.counts.pictures_decoded), "{:?}", report.counts);
    assert_eq!(bed.events, []);
}

#[test]
fn what_stops_is_missing_and_comes_back() {
    let mut bed = Bed::new(ALL);
    bed.play(Duration::from_secs(4));
    bed.pause(Duration::from_secs(4));
    let gone = bed.take_events();
    assert!(gone.len() == 2 && gone.contains(&Event::VideoMissing) && gone.contains(&Event::AudioMissing), "{gone:?}");
    let content = bed.watch.content(bed.now);
    assert_eq!((content.black, content.frozen, content.silent), (None, None, None));
    assert_eq!((content.video, content.audio), (Some(Reason::Missing), Some(Reason::Missing)));
    assert_eq!((content.video_present, content.audio_present), (Some(false), Some(false)));
    bed.play(Duration::from_secs(4));
    let back = bed.take_events();
    assert!(
        matches!(
            back[..],
            [Event::VideoBack { .. }, Event::AudioBack { .. }] | [Event::AudioBack { .. }, Event::VideoBack { .. }]
        ),
        "{back:?}"
    );
    assert_eq!(bed.watch.content(bed.now).video, None);
}

#[test]
fn a_clock_that_steps_back_a_little_begins_everything_anew() {
    let mut bed = Bed::new(ALL);
    bed.play(Duration::from_secs(5));
    assert_eq!(bed.watch.content(bed.now).black, Some(false));
    bed.rewind();
    bed.grants = false;
    bed.play(Duration::from_millis(500));
    let content = bed.watch.content(bed.now);
    assert_eq!((content.black, content.frozen), (None, None), "nothing is known of what comes now");
    bed.grants = true;
    bed.play(Duration::from_secs(4));
    assert_eq!(bed.watch.content(bed.now).frozen, Some(false));
}

#[test]
fn what_was_begun_to_be_looked_at_before_it_was_switched_off_is_not_judged() {
    let mut bed = Bed::new(Settings { thumbnail_every: None, content_quality: true });
    bed.grants = false;
    bed.play(Duration::from_secs(3));
    let number = bed.watch.poll_job(bed.now, Kind::Picture).unwrap().number;
    let on = *bed.watch.settings();
    bed.watch.set(Settings::default());
    bed.watch.set(on);
    let findings = Findings::Picture(PictureFindings { black: Some(false), same: None, thumbnail: None });
    bed.watch.handle_outcome(bed.now, Outcome { number, result: Ok(findings), cpu: Duration::MAX });
    bed.watch.handle_outcome(bed.now, Outcome { number, result: Err(Failure::Damaged), cpu: Duration::MAX });
    assert_eq!(bed.watch.content(bed.now).black, None);
    assert_eq!(bed.watch.counts().cpu_ns, u64::MAX, "and does not overflow");
}

#[test]
fn what_was_heard_long_ago_says_nothing_of_now() {
    let mut bed = Bed::new(ALL);
    bed.play(Duration::from_secs(4));
    assert_eq!(bed.watch.content(bed.now).silent, Some(false));
    // Sound comes on, but nothing that can be heard.
    bed.timeless = true;
    bed.play(Duration::from_secs(4));
    assert_eq!(bed.watch.content(bed.now).silent, Some(false));
    bed.play(Duration::from_secs(2));
    let content = bed.watch.content(bed.now);
    assert_eq!((content.silent, content.audio, content.loudness), (None, Some(Reason::Listening), None));
    assert_eq!(content.audio_present, Some(true));
}

#[test]
fn a_proof_does_not_keep_pictures_waiting() {
    let mut bed = Bed::new(ALL);
    bed.black = true;
    bed.holds_proofs = true;
    bed.play(Duration::from_secs(5));
    bed.black = false;
    bed.play(Duration::from_secs(4));
    let number = bed.held.as_ref().expect("the end is to be proven").number;
    let (decoded, told) = (bed.watch.counts().pictures_decoded, bed.take_events());
    assert!(matches!(told[..], [Event::Began { defect: Defect::Black, .. }]), "{told:?}");
    bed.play(Duration::from_secs(3));
    assert!(bed.watch.counts().pictures_decoded >= decoded + 2);
    let outcome = Outcome { number, result: Ok(Findings::Proof(ProofFindings::default())), cpu: Duration::ZERO };
    bed.watch.handle_outcome(bed.now, outcome);
    bed.work();
    let told = bed.take_events();
    assert!(matches!(told[..], [Event::Ended { defect: Defect::Black, lost_sight: None, .. }]), "{told:?}");
    assert!(bed.watch.counts().edges_proven == 1 && bed.watch.bytes_kept() > 0);
    bed.watch.set_bytes_max(0);
    assert_eq!(bed.watch.bytes_kept(), 0);
}

#[test]
fn units_that_are_lost_for_whatever_cause_leave_no_hole_in_what_is_proven() {
    let mut bed = Bed::new(ALL);
    bed.play(Duration::from_secs(3));
    assert!(bed.watch.bytes_kept() > 0);
    // The first of its packets begin units without a time, and make those before whole.
    bed.timeless = true;
    bed.play(Duration::from_millis(200));
    assert_eq!(bed.watch.bytes_kept(), 0);
}

#[test]
fn what_is_lost_of_other_streams_makes_no_hole() {
    let kept = [false, true].map(|bad_sound| {
        let mut bed = Bed::new(ALL);
        bed.bad_sound = bad_sound;
        bed.play(Duration::from_secs(4));
        bed.watch.bytes_kept()
    });
    assert!(kept[0] > 0 && kept[0] == kept[1], "{kept:?}");
}

#[test]
fn a_reader_that_was_overtaken_goes_on_with_whole_units() {
    let mut bed = Bed::new(ALL);
    bed.play(Duration::from_secs(3));
    for _ in 0..5 {
        bed.skip(Duration::from_millis(700));
        bed.watch.handle_missed(665);
        bed.play(Duration::from_millis(1_300));
    }
    bed.play(Duration::from_secs(4));
    let report = bed.watch.report(bed.now);
    assert_eq!((report.counts.packets_missed, report.counts.pictures_failed), (5 * 665, 0));
    assert_eq!((report.content.black, report.content.silent), (Some(false), Some(false)), "{report:?}");
}

#[test]
fn decoders_that_crash_are_told_of_and_tried_again_less_and_less_often() {
    let mut bed = Bed::new(ALL);
    bed.play(Duration::from_secs(4));
    bed.failure = Some(Failure::Crashed);
    bed.play(Duration::from_secs(20));
    let restarts = bed.take_events().iter().filter(|event| matches!(event, Event::DecoderRestarted { .. })).count();
    assert!((6..=12).contains(&restarts), "{restarts}");
    let content = bed.watch.content(bed.now);
    assert_eq!(
        (content.black, content.video, content.audio),
        (None, Some(Reason::Restarting), Some(Reason::Restarting))
    );
    assert!(bed.watch.thumbnail().is_some(), "the last one stays");
    bed.failure = None;
    bed.play(Duration::from_secs(40));
    assert_eq!(bed.watch.content(bed.now).black, Some(false));
}

#[test]
fn what_no_decoder_can_be_started_for_is_unknown_and_tried_again_less_and_less_often() {
    let mut bed = Bed::new(ALL);
    bed.play(Duration::from_secs(4));
    bed.failure = Some(Failure::NotStarted);
    let before = bed.jobs;
    bed.play(Duration::from_secs(30));
    // After 1, 2, 4, 8 and 10 s, each.
    assert!((8..=14).contains(&(bed.jobs - before)), "{}", bed.jobs - before);
    let content = bed.watch.content(bed.now);
    assert_eq!((content.black, content.frozen, content.silent, content.loudness), (None, None, None, None));
    assert_eq!((content.video, content.audio), (Some(Reason::NoDecoder), Some(Reason::NoDecoder)));
    assert_eq!((bed.watch.counts().decoder_restarts, bed.take_events()), (0, Vec::new()));
    bed.failure = None;
    bed.play(Duration::from_secs(20));
    let content = bed.watch.content(bed.now);
    assert_eq!((content.black, content.silent, content.video, content.audio), (Some(false), Some(false), None, None));
}

#[test]
fn decoders_that_crash_by_turns_are_tried_again_less_and_less_often_too() {
    let mut bed = Bed::new(ALL);
    for _ in 0..400 {
        bed.failure = (bed.jobs % 2 == 1).then_some(Failure::Crashed);
        bed.play(Duration::from_millis(100));
    }
    let restarts = bed.take_events().iter().filter(|event| matches!(event, Event::DecoderRestarted { .. })).count();
    // Six of pictures and six of sound, or one less.
    assert!((6..=12).contains(&restarts), "{restarts}");
}

#[test]
fn whoever_gets_no_computing_time_knows_nothing_and_says_so() {
    let mut bed = Bed::new(ALL);
    bed.grants = false;
    bed.play(Duration::from_secs(10));
    let report = bed.watch.report(bed.now);
    let content = &report.content;
    assert_eq!((content.black, content.silent), (None, None));
    assert_eq!((&content.video, &content.audio), (&Some(Reason::Budget), &Some(Reason::Budget)));
    assert_eq!((content.video_present, content.audio_present), (Some(true), Some(true)));
    assert!(report.counts.pictures_passed_over > 5 && report.counts.sounds_passed_over > 100);
    assert!(bed.watch.bytes_held() < 500_000, "{}", bed.watch.bytes_held());
    bed.watch.set_every(Duration::from_secs(5), true);
    bed.watch.set_every(Duration::from_secs(5), true);
    bed.watch.set_every(Duration::from_secs(1), false);
    bed.grants = true;
    bed.play(Duration::from_secs(14));
    assert_eq!(bed.take_events(), [Event::Stretched { every: Duration::from_secs(5) }, Event::Restored]);
    assert_eq!(bed.watch.content(bed.now).silent, Some(false));
}

#[test]
fn sound_is_heard_while_each_picture_takes_three_seconds() {
    let mut bed = Bed::new(ALL);
    bed.slow = Some(Slow { governor: Governor::new(bed.now, 1_000), takes: Duration::from_secs(3), looking: None });
    bed.play(Duration::from_secs(4));
    for _ in 0..600 {
        bed.play(Duration::from_millis(100));
        let content = bed.watch.content(bed.now);
        assert_eq!((content.silent, content.audio), (Some(false), None), "{:?}", bed.now);
        assert!(content.loudness.is_some_and(|levels| levels.momentary_lufs.is_some()), "{:?}", bed.now);
    }
    let counts = bed.watch.counts();
    assert!(counts.pictures_decoded >= 10 && counts.sounds_passed_over == 0, "{counts:?}");
    // 5 ms for each half second of sound, beside 3 s for each picture.
    let cpu = Duration::from_secs(3 * counts.pictures_decoded) + Duration::from_millis(5 * 2 * 64);
    assert!(Duration::from_nanos(counts.cpu_ns).abs_diff(cpu) < Duration::from_millis(50), "{counts:?}");
}

#[test]
fn a_decoder_that_begins_anew_for_the_sake_of_others_is_not_noticed_in_sound() {
    let mut bed = Bed::new(ALL);
    bed.play(Duration::from_secs(6));
    // Over three seconds less is told if what was before them is forgotten; the sound is as loud as ever.
    let levels = |bed: &Bed| {
        let levels = bed.watch.content(bed.now).loudness.unwrap();
        [levels.short_term_lufs, levels.integrated_lufs].map(Option::unwrap)
    };
    let before = levels(&bed);
    for step in 0..50 {
        if step % 10 == 0 {
            bed.examiners = Examiners::new();
        }
        bed.play(Duration::from_millis(100));
        let now = levels(&bed);
        assert!((0..2).all(|at| (now[at] - before[at]).abs() < 3.0), "{now:?} after {before:?}");
        assert_eq!(bed.watch.content(bed.now).silent, Some(false));
    }
    assert_eq!((bed.watch.counts().sounds_failed, bed.take_events()), (0, Vec::new()));
}

#[test]
fn what_was_heard_before_no_decoder_could_be_started_still_counts() {
    let mut bed = Bed::new(ALL);
    bed.play(Duration::from_secs(6));
    let level = |bed: &Bed| bed.watch.content(bed.now).loudness.and_then(|levels| levels.short_term_lufs);
    let before = level(&bed).unwrap();
    bed.failure = Some(Failure::NotStarted);
    bed.play(Duration::from_secs(5));
    bed.failure = None;
    assert_eq!(level(&bed), None);
    while level(&bed).is_none() {
        bed.play(Duration::from_millis(100));
        assert!(bed.now < Time::ZERO + Duration::from_secs(60));
    }
    // Of the three seconds that this is of, half a one came since: alone it would be less by 8.
    let now = level(&bed).unwrap();
    assert!((now - before).abs() < 3.0, "{now} after {before}");
}

#[test]
fn an_outcome_answers_the_job_that_has_its_number_and_no_other() {
    let mut bed = Bed::new(ALL);
    bed.grants = false;
    bed.play(Duration::from_secs(3));
    let [sound, picture] = Kind::ALL.map(|kind| bed.watch.poll_job(bed.now, kind).unwrap());
    bed.play(Duration::from_secs(1));
    assert!(Kind::ALL.iter().all(|kind| bed.watch.poll_job(bed.now, *kind).is_none()), "one of each at a time");
    let result = bed.examiners.examine(1, &picture);
    bed.watch.handle_outcome(bed.now, Outcome { number: picture.number, result, cpu: Duration::ZERO });
    let counts = bed.watch.counts();
    assert_eq!((counts.pictures_decoded, counts.pictures_failed, counts.sounds_decoded), (1, 0, 0));
    assert!(bed.watch.has_job(bed.now, Kind::Picture) && !bed.watch.has_job(bed.now, Kind::Sound));
    // What is found in a picture is no answer to what was to be listened to.
    let findings = Findings::Picture(PictureFindings { black: Some(false), same: None, thumbnail: None });
    bed.watch.handle_outcome(bed.now, Outcome { number: sound.number, result: Ok(findings), cpu: Duration::ZERO });
    let counts = bed.watch.counts();
    assert_eq!((counts.pictures_decoded, counts.sounds_decoded, counts.sounds_failed), (1, 0, 1));
}

#[test]
fn without_settings_nothing_is_decoded() {
    let mut bed = Bed::new(Settings::default());
    bed.play(Duration::from_secs(3));
    let report = bed.watch.report(bed.now);
    assert_eq!((bed.jobs, report.metadata.streams.len()), (0, 2));
    assert_eq!((report.content.video, report.thumbnail_reason), (Some(Reason::Off), Some(Reason::Off)));
    assert_eq!(report.content.video_present, Some(true));
    bed.watch.set(Settings { thumbnail_every: Some(Duration::from_millis(1)), content_quality: false });
    assert_eq!(bed.watch.settings().thumbnail_every, Some(THUMBNAIL_EVERY_MIN));
    bed.play(Duration::from_secs(3));
    assert!(bed.watch.thumbnail().is_some() && bed.jobs <= 4);
}

#[test]
fn scrambled_streams_are_present_and_nothing_is_known_of_them() {
    let mut bed = Bed::new(ALL);
    bed.play(Duration::from_secs(3));
    bed.scrambles = true;
    bed.play(Duration::from_secs(5));
    let content = bed.watch.content(bed.now);
    assert_eq!((content.black, content.frozen, content.silent), (None, None, None));
    assert_eq!((content.video, content.audio), (Some(Reason::Scrambled), Some(Reason::Scrambled)));
    assert_eq!((content.video_present, content.audio_present), (Some(true), Some(true)));
    let events = bed.take_events();
    assert!(matches!(&events[..], [Event::MetadataChanged { what, .. }] if what.contains("scrambled")), "{events:?}");
}

#[test]
fn a_pmt_that_changes_with_every_packet_makes_few_events_and_little_memory() {
    let mut watch = Watch::new(Time::ZERO, ALL);
    let mut now = Time::ZERO;
    let mut events = Vec::new();
    let pat = Pat { stream_id: 1, version: 0, programs: &[(1, PMT)] };
    for n in 0_u32..30_000 {
        now += Duration::from_millis(1);
        let pid = Pid::from_low_bits(0x100 + (n % 0x1000) as u16);
        let pmt = Pmt { program: 1, version: (n % 32) as u8, pcr_pid: pid, streams: &[(0x1b, pid), (0x0f, pid)] };
        let mut packets = packet_of(&pat.section(), Pid::PAT).to_vec();
        packets[3] |= (n % 16) as u8;
        let mut second = packet_of(&pmt.section(), PMT);
        second[3] |= (n % 16) as u8;
        packets.extend(second);
        watch.handle_packet(now, &packets);
        if now >= watch.poll_timeout() {
            watch.handle_timeout(now);
        }
        events.extend(
            std::iter::from_fn(|| watch.poll_event()).filter(|event| matches!(event, Event::MetadataChanged { .. })),
        );
    }
    assert!((3..=8).contains(&events.len()), "{}", events.len());
    assert!(watch.counts().metadata_changes > 20);
    assert!(watch.metadata().streams.len() <= 2 && watch.bytes_held() < 10_000);
}

#[test]
fn eight_thousand_pids_keep_the_bounds() {
    let mut watch = Watch::new(Time::ZERO, ALL);
    let mut cc = [0_u8; 8_192];
    let mut now = Time::ZERO;
    let pmt_pid = |program: u16| Pid::from_low_bits(0x1f00 + program);
    let programs: Vec<(u16, Pid)> = (1..=200).map(|number| (number, pmt_pid(number))).collect();
    for round in 0_u16..30 {
        let pat = Pat { stream_id: 1, version: 0, programs: &programs[..40] };
        watch.handle_packet(now, &with_cc(packet_of(&pat.section(), Pid::PAT), &mut cc));
        for number in 1..=40 {
            let streams: Vec<(u8, Pid)> = (0..30)
                .map(|n| ([0x1b, 0x24, 0x0f, 0x02][usize::from(n) % 4], Pid::from_low_bits(0x20 + number * 30 + n)))
                .collect();
            let pmt = Pmt { program: number, version: 0, pcr_pid: Pid::NULL, streams: &streams };
            watch.handle_packet(now, &with_cc(packet_of(&pmt.section(), pmt_pid(number)), &mut cc));
        }
        for pid in 0x20..0x1f00 {
            // Starts of units that never end, one after the other.
            let mut payload = vec![0, 0, 1, 0xe0, 0, 0, 0x80, 0x80, 5, 0x21, 0, 1, 0, 1, 0, 0, 1, 0x67, 0x64, 0, 0x33];
            payload.resize(184, (pid + round) as u8);
            let packet = TsPacket {
                payload_unit_start: round % 4 == 0,
                pid: Pid::from_low_bits(pid),
                payload: Some(&payload),
                ..TsPacket::default()
            };
            let mut bytes = [0; TS_PACKET_BYTES];
            packet.write(&mut bytes);
            watch.handle_packet(now, &with_cc(bytes, &mut cc));
        }
        now += Duration::from_millis(500);
        watch.handle_timeout(now);
        while let Some(job) = Kind::ALL.into_iter().find_map(|kind| watch.poll_job(now, kind)) {
            watch.handle_outcome(
                now,
                Outcome { number: job.number, result: Err(Failure::Damaged), cpu: Duration::ZERO },
            );
        }
    }
    assert!(watch.metadata().streams.len() <= crate::proto::mpegts::STREAMS_MAX);
    assert!(watch.metadata().streams.len() > 900);
    assert!(watch.bytes_held() < 4 << 20, "{}", watch.bytes_held());
}

#[test]
fn any_bytes_keep_the_bounds() {
    let mut seed = 7_u32;
    for _ in 0..20 {
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        })
        .take(3_000)
        .collect();
        check_any_bytes(&bytes);
    }
}

fn with_cc(mut packet: [u8; TS_PACKET_BYTES], cc: &mut [u8; 8_192]) -> [u8; TS_PACKET_BYTES] {
    let pid = usize::from(packet[1] & 0x1f) << 8 | usize::from(packet[2]);
    packet[3] = packet[3] & 0xf0 | cc[pid];
    cc[pid] = (cc[pid] + 1) % 16;
    packet
}

/// Takes the times out of the PES header that begins in the packet, if one does.
fn without_time(packet: &mut [u8]) {
    let adaptation = if packet[3] & 0x20 != 0 { 1 + usize::from(packet[4]) } else { 0 };
    let payload = 4 + adaptation;
    if packet[1] & 0x40 != 0 && packet[payload..].starts_with(&[0, 0, 1]) {
        packet[payload + 7] &= 0x3f;
    }
}

/// Makes what begins in the packet no PES packet, if it is one of sound.
fn without_sound(packet: &mut [u8]) {
    let adaptation = if packet[3] & 0x20 != 0 { 1 + usize::from(packet[4]) } else { 0 };
    let payload = 4 + adaptation;
    if packet[1] & 0x40 != 0 && packet[payload..].starts_with(&[0, 0, 1, 0xc0]) {
        packet[payload + 2] = 7;
    }
}

/// A watch, its stream, and somebody who does its jobs at once.
struct Bed {
    watch: Watch,
    signal: TestPicture,
    examiners: Examiners,
    now: Time,
    /// By how much the stream's clock is behind.
    behind: Duration,
    events: Vec<Event>,
    jobs: u32,
    /// What comes of all jobs.
    failure: Option<Failure>,
    grants: bool,
    scrambles: bool,
    /// PES packets say no times.
    timeless: bool,
    /// PES headers of sound are none.
    bad_sound: bool,
    /// Pictures are found to be black.
    black: bool,
    /// Proofs are not done.
    holds_proofs: bool,
    held: Option<Job>,
    slow: Option<Slow>,
}

/// Somebody who takes time, and a governor that says when.
struct Slow {
    governor: Governor,
    /// For each picture.
    takes: Duration,
    /// When it is done with it.
    looking: Option<(Time, Job)>,
}

impl Bed {
    fn new(settings: Settings) -> Self {
        let surroundings = Surroundings { pool: Pool::new(PoolLimits::default()), seed: 0, unix_ns_at_zero: 0 };
        let config = picture::Config::new(Bitrate::from_bps(1_000_000)).unwrap();
        Self {
            watch: Watch::new(Time::ZERO, settings),
            signal: TestPicture::new(config, &surroundings),
            examiners: Examiners::new(),
            now: Time::ZERO,
            behind: Duration::ZERO,
            events: Vec::new(),
            jobs: 0,
            failure: None,
            grants: true,
            scrambles: false,
            timeless: false,
            bad_sound: false,
            black: false,
            holds_proofs: false,
            held: None,
            slow: None,
        }
    }

    fn play(&mut self, span: Duration) {
        self.run(span, true);
    }

    /// The stream goes on, but nobody looks.
    fn skip(&mut self, span: Duration) {
        self.run(span, false);
    }

    /// The stream stands still.
    fn pause(&mut self, span: Duration) {
        self.behind += span;
        let end = self.now + span;
        while self.now < end {
            self.now += Duration::from_millis(20);
            self.work();
        }
    }

    fn run(&mut self, span: Duration, looks: bool) {
        let end = self.now + span;
        while let Some(due) = self.signal.poll_timeout().map(|due| due + self.behind).filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.signal.handle_timeout(due - self.behind);
            while let Some(packet) = self.signal.poll_packet() {
                let mut bytes = packet.to_vec();
                if self.scrambles {
                    bytes
                        .chunks_mut(TS_PACKET_BYTES)
                        .filter(|packet| packet[1] & 0x1f == 1)
                        .for_each(|packet| packet[3] |= 0x80);
                }
                if self.timeless {
                    bytes.chunks_mut(TS_PACKET_BYTES).for_each(without_time);
                }
                if self.bad_sound {
                    bytes.chunks_mut(TS_PACKET_BYTES).for_each(without_sound);
                }
                if looks {
                    self.watch.handle_packet(self.now, &bytes);
                }
            }
            if looks {
                self.work();
            }
        }
        self.now = end;
    }

    fn work(&mut self) {
        if self.now >= self.watch.poll_timeout() {
            self.watch.handle_timeout(self.now);
        }
        if let Some(mut slow) = self.slow.take() {
            self.work_slowly(&mut slow);
            self.slow = Some(slow);
        }
        while let Some(job) = self.next_job() {
            self.examine(&job, Duration::from_millis(5));
        }
        self.events.extend(std::iter::from_fn(|| self.watch.poll_event()));
    }

    fn work_slowly(&mut self, slow: &mut Slow) {
        slow.governor.handle_timeout(self.now);
        slow.governor.set_stream(1, self.watch.wanted_every());
        if let Some((every, is_stretched)) = slow.governor.every(1) {
            self.watch.set_every(every, is_stretched);
        }
        if let Some((_, job)) = slow.looking.take_if(|(until, _)| *until <= self.now) {
            self.examine(&job, slow.takes);
            slow.governor.handle_cost(self.now, 1, Kind::Picture, slow.takes);
        }
        for kind in Kind::ALL {
            slow.governor.ask(1, kind, self.watch.has_job(self.now, kind));
        }
        while let Some((_, kind)) = slow.governor.poll_grant(self.now, |_, _| true) {
            let job = self.watch.poll_job(self.now, kind).unwrap();
            match kind {
                Kind::Picture => slow.looking = Some((self.now + slow.takes, job)),
                Kind::Sound => {
                    let takes = Duration::from_millis(5);
                    self.examine(&job, takes);
                    slow.governor.handle_cost(self.now, 1, kind, takes);
                }
            }
        }
    }

    fn examine(&mut self, job: &Job, cpu: Duration) {
        self.jobs += 1;
        let mut result = self.failure.clone().map_or_else(|| self.examiners.examine(1, job), Err);
        if let Ok(Findings::Picture(findings)) = &mut result {
            findings.black = Some(self.black);
        }
        self.watch.handle_outcome(self.now, Outcome { number: job.number, result, cpu });
    }

    fn next_job(&mut self) -> Option<Job> {
        if !self.grants || self.slow.is_some() {
            return None;
        }
        if self.holds_proofs {
            // One that would prove a beginning is of no interest.
            while let Some(job) = self.watch.poll_proof(self.now) {
                if matches!(job.work, Work::Proof { black: false, frozen: false }) {
                    let outcome = Outcome { number: job.number, result: Err(Failure::Damaged), cpu: Duration::ZERO };
                    self.watch.handle_outcome(self.now, outcome);
                } else {
                    self.held = Some(job);
                }
            }
            return self.next_of_a_kind();
        }
        self.next_of_a_kind().or_else(|| self.watch.poll_proof(self.now))
    }

    fn next_of_a_kind(&mut self) -> Option<Job> {
        Kind::ALL.into_iter().find_map(|kind| self.watch.poll_job(self.now, kind))
    }

    /// The stream begins at the beginning again, and so does its clock.
    fn rewind(&mut self) {
        *self = Self {
            watch: std::mem::replace(&mut self.watch, Watch::new(self.now, ALL)),
            now: self.now,
            behind: self.now.since(Time::ZERO),
            ..Self::new(ALL)
        };
    }

    fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }
}

const ALL: Settings = Settings { thumbnail_every: Some(Duration::from_secs(2)), content_quality: true };
const PMT: Pid = Pid::from_low_bits(0x1000);
