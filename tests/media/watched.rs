//! Streams that a watch has to look at in a way of their own: of fields, without key frames, with groups that lean on
//! those before; and more of them than there is computing time for.

use std::path::Path;
use std::time::Duration;

use anabranch::media::Headers;
use anabranch::media::headers::Entry;
use anabranch::media::watch::governor::Kind;
use anabranch::media::watch::{
    Event, Examiners, Findings, Governor, Outcome, PictureFindings, Reason, Settings, Watch, Work,
};
use anabranch::proto::mpegts::demux::AccessUnit;
use anabranch::units::{Ticks90k, Time};

use crate::clips::{self, REFRESHED, VIDEO};
use crate::day::next_job;
use crate::pictures::{Packing, packed};
use crate::stream::Writer;

#[test]
fn pictures_of_two_fields_are_looked_at_however_they_are_packed() {
    for (name, order) in [
        ("h264_paff_b", &[0, 4, 2, 1, 3, 8, 6, 5, 7][..]),
        ("h264_paff_mixed", &[0, 1, 2, 3]),
        ("h264_paff_p", &[0, 1, 2]),
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/media").join(name);
        let bytes = std::fs::read(path).unwrap();
        for packing in [Packing::Frame, Packing::Field, Packing::FieldWithTime] {
            is_seen(&format!("{name} {packing:?}"), &packed(&bytes, order, packing));
        }
    }
}

#[test]
fn what_is_refreshed_little_by_little_is_looked_at_from_any_recovery_point() {
    let Some(path) = clips::made(&REFRESHED) else { return };
    let units = video(&path);
    is_seen("from its key frame", &units);
    is_seen("from its first recovery point", &units[second_entry(&units)..]);
}

#[test]
fn open_groups_are_looked_at_from_any_of_them() {
    let recipe = VIDEO.iter().find(|recipe| recipe.name == "h264_open_gop").unwrap();
    let Some(path) = clips::made(recipe) else { return };
    let units = video(&path);
    is_seen("from its first group", &units);
    is_seen("from its second group", &units[second_entry(&units)..]);
}

#[test]
fn what_there_is_no_time_for_is_looked_at_less_often_says_so_and_comes_back() {
    let mut bed = Bed::new(4);
    // Each wants 60 ms a second, and there are 100 ms for all.
    bed.play(Duration::from_secs(60), Duration::from_millis(60));
    for viewer in &mut bed.viewers {
        let every = viewer.stretched.expect("there is not time enough");
        assert!(every >= Duration::from_secs(3), "{every:?}");
        let content = viewer.watch.content(bed.now);
        assert_eq!((content.black, content.video), (Some(false), Some(Reason::Budget)));
        // It says how often it looks, and looks as often as that.
        assert_eq!(content.sampled_every, Some(every));
        let [.., before, last] = viewer.looked_at[..] else { panic!("{:?}", viewer.looked_at) };
        assert_eq!(Duration::from_millis((last.0 - before.0) / 90), every);
    }
    bed.play(Duration::from_secs(40), Duration::from_millis(5));
    for viewer in &bed.viewers {
        assert_eq!(viewer.stretched, None, "restored");
        let content = viewer.watch.content(bed.now);
        assert_eq!((content.black, content.video), (Some(false), None));
        assert_eq!(content.sampled_every, Some(Duration::from_secs(1)));
    }
}

/// A thumbnail comes of it, and it is known not to be black.
fn is_seen(name: &str, units: &[AccessUnit]) {
    let settings = Settings { thumbnail_every: Some(Duration::from_secs(1)), content_quality: true };
    let (mut watch, mut examiners, mut writer) =
        (Watch::new(Time::ZERO, settings), Examiners::new(), Writer::default());
    // Enough to find where packets begin, so that what is looked at is chosen before the first picture comes.
    (0..4).for_each(|_| watch.handle_packet(Time::ZERO, &writer.tables(0x1b)));
    let mut now = watch.poll_timeout();
    watch.handle_timeout(now);
    for unit in units {
        now += Duration::from_millis(20);
        watch.handle_packet(now, &writer.picture(unit.pts, &unit.bytes));
        watch.handle_timeout(now);
        while let Some(job) = next_job(&mut watch, now) {
            let result = examiners.examine(1, &job);
            watch.handle_outcome(now, Outcome { number: job.number, result, cpu: Duration::from_millis(1) });
        }
    }
    let counts = watch.counts();
    assert!(counts.pictures_decoded > 0 && counts.pictures_failed == 0, "{name}: {counts:?}");
    assert!(watch.thumbnail().is_some_and(|thumbnail| thumbnail.jpeg.starts_with(&[0xff, 0xd8])), "{name}");
    let content = watch.content(now);
    assert_eq!((content.black, content.video_present), (Some(false), Some(true)), "{name}: {content:?}");
}

fn video(path: &Path) -> Vec<AccessUnit> {
    clips::units(path).1.into_iter().filter(|unit| unit.codec.is_video()).collect()
}

fn second_entry(units: &[AccessUnit]) -> usize {
    let mut headers = Headers::new(units[0].codec);
    let mut is_entry = |unit| headers.read(unit).unwrap().entry != Entry::None;
    units.iter().enumerate().filter(|(_, unit)| is_entry(unit)).nth(1).unwrap().0
}

/// Watches of the same key frames, one a second, which share a budget.
struct Bed {
    governor: Governor,
    viewers: Vec<Viewer>,
    writer: Writer,
    now: Time,
    pictures: u64,
}

struct Viewer {
    watch: Watch,
    /// As the last event has it.
    stretched: Option<Duration>,
    looked_at: Vec<Ticks90k>,
}

impl Bed {
    fn new(count: usize) -> Self {
        let settings = Settings { thumbnail_every: None, content_quality: true };
        let viewer = || Viewer { watch: Watch::new(Time::ZERO, settings), stretched: None, looked_at: Vec::new() };
        Self {
            governor: Governor::new(Time::ZERO, 100),
            viewers: std::iter::repeat_with(viewer).take(count).collect(),
            writer: Writer::default(),
            now: Time::ZERO,
            pictures: 0,
        }
    }

    /// A picture takes so long to decode.
    fn play(&mut self, span: Duration, cost: Duration) {
        let end = self.now + span;
        while self.now < end {
            let pts = Ticks90k(self.pictures * 90_000);
            let packets = [self.writer.tables(0x02), self.writer.picture(Some(pts), &crate::day::KEY_FRAME)].concat();
            self.pictures += 1;
            self.viewers.iter_mut().for_each(|viewer| viewer.watch.handle_packet(self.now, &packets));
            for _ in 0..10 {
                self.now += Duration::from_millis(100);
                self.share();
                self.work(cost);
            }
        }
    }

    fn share(&mut self) {
        for (id, viewer) in self.viewers.iter_mut().enumerate() {
            let id = id as u64;
            viewer.watch.handle_timeout(self.now);
            self.governor.set_stream(id, viewer.watch.wanted_every());
            if let Some((every, is_stretched)) = self.governor.every(id) {
                viewer.watch.set_every(every, is_stretched);
            }
            self.governor.ask(id, Kind::Picture, viewer.watch.has_job(self.now, Kind::Picture));
            while let Some(event) = viewer.watch.poll_event() {
                if let Event::Stretched { every } = event {
                    viewer.stretched = Some(every);
                } else if event == Event::Restored {
                    viewer.stretched = None;
                }
            }
        }
        self.governor.handle_timeout(self.now);
    }

    fn work(&mut self, cost: Duration) {
        while let Some((id, kind)) = self.governor.poll_grant(self.now, |_, _| true) {
            let viewer = &mut self.viewers[id as usize];
            let job = viewer.watch.poll_job(self.now, kind).unwrap();
            assert!(matches!(job.work, Work::Picture { quality: true, .. }));
            viewer.looked_at.extend(job.units[0].pts);
            let findings = PictureFindings { black: Some(false), same: Some(false), thumbnail: None };
            let result = Ok(Findings::Picture(findings));
            viewer.watch.handle_outcome(self.now, Outcome { number: job.number, result, cpu: cost });
            self.governor.handle_cost(self.now, id, kind, cost);
        }
    }
}
