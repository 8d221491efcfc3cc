//! Watching a stream in real time: in threads, and with a process that decodes and is killed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]
#![allow(clippy::print_stdout, reason = "figures, for whoever asks for them")]
#![cfg(target_os = "linux")]

use std::fs;
use std::process::Command;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anabranch::adapters::clock;
use anabranch::adapters::watchers::{Placement, WatchId, Watchers, WatchersConfig};
use anabranch::bus::{Pool, PoolLimits, Publisher};
use anabranch::media::watch::{Event, Report, Settings};
use anabranch::proto::mpegts::{TestPicture, picture};
use anabranch::proto::{Core, Surroundings};
use anabranch::units::{Bitrate, Time};

#[test]
fn a_stream_is_seen_in_threads() {
    let mut bed = Bed::new(Placement::Threads);
    let report = bed.play_until(|report| {
        report.thumbnail.is_some() && report.content.black == Some(false) && report.content.silent == Some(false)
    });
    assert_eq!(report.metadata.programs[0].name.as_deref(), Some("Test picture"));
    let stats = bed.watchers.stats();
    assert!(stats.jobs > 2 && stats.crashes == 0 && stats.decoding_cpu_ns > 0, "{stats:?}");
    bed.watchers.remove(bed.id);
    assert!(bed.watchers.report(bed.id).is_none());
}

#[test]
fn a_decoder_that_is_killed_costs_a_picture_and_no_more() {
    let mut bed = Bed::new(Placement::Child(env!("CARGO_BIN_EXE_anabranch").into()));
    let first = bed.play_until(|report| report.thumbnail.is_some());
    let before = first.thumbnail.clone().unwrap().taken;
    for (signal, restarts) in [("KILL", 1), ("SEGV", 2)] {
        // It is started when there is something to decode.
        bed.play_until(|_| !workers().is_empty());
        let children = workers();
        assert!(children.len() <= 3, "pictures, sound, and what is apart from them: {children:?}");
        let children = children.iter().map(u32::to_string);
        let status = Command::new("kill").args(["-s", signal]).args(children).status().unwrap();
        assert!(status.success());
        bed.play_until(|report| report.counts.decoder_restarts >= restarts);
    }
    assert!(bed.watchers.stats().crashes >= 2);
    let again = bed.play_until(|report| report.thumbnail.as_ref().is_some_and(|picture| picture.taken > before));
    assert!(again.counts.pictures_decoded > 1);
    let events: Vec<Event> = bed.events.try_iter().map(|(_, event)| event).collect();
    assert!(events.iter().any(|event| matches!(event, Event::DecoderRestarted { .. })), "{events:?}");
}

#[test]
fn streams_of_which_nothing_comes_cost_next_to_nothing() {
    const STREAMS: u64 = 1_000;
    let config = WatchersConfig { budget_per_mille: 500, placement: Placement::Threads };
    let watchers = Watchers::spawn(config).unwrap();
    let pool = Pool::new(PoolLimits::default());
    let publishers: Vec<Publisher> = (0..STREAMS).map(|_| Publisher::new(pool.clone(), 16)).collect();
    let settings = Settings { thumbnail_every: Some(Duration::from_secs(5)), content_quality: true };
    let add = |publisher: &Publisher| watchers.add(publisher.subscribe(), settings, Box::new(|_, _| {}));
    for publisher in &publishers {
        add(publisher);
    }
    // That nothing comes is known after five seconds.
    let start = clock::now();
    let wait = |span| {
        while clock::now().since(start) < span {
            std::thread::park_timeout(Duration::from_millis(100));
        }
        (clock::now(), watchers.stats())
    };
    let (from, before) = wait(Duration::from_secs(7));
    let (until, after) = wait(Duration::from_secs(10));
    let seconds = until.since(from).as_secs_f64();
    let (looks, cpu_ns) = (after.looks - before.looks, after.watching_cpu_ns - before.watching_cpu_ns);
    assert!(looks as f64 <= (seconds + 1.0) * STREAMS as f64, "{looks} looks in {seconds} s");
    println!("{STREAMS} streams without packets: {:.2} % of a core", cpu_ns as f64 / seconds / 1e7);
}

#[test]
fn a_watch_that_fails_begins_anew_and_hurts_no_other() {
    let mut bed = Bed::new(Placement::Threads);
    let second = Publisher::new(bed.pool.clone(), 4_096);
    let sink = Box::new(|_, event| panic!("meant to be seen in the output of the test: {event:?}"));
    let id = bed.watchers.add(second.subscribe(), Settings::default(), sink);
    bed.second = Some(second);
    let streams_of = |bed: &Bed| bed.watchers.report(id).map_or(0, |report| report.metadata.streams.len());
    while streams_of(&bed) == 0 {
        bed.play_on();
    }
    // Nothing comes any more, which is an event.
    let second = bed.second.take();
    while bed.watchers.report(id).is_none_or(|report| report.counts.restarts == 0) {
        bed.play_on();
    }
    bed.play_on();
    bed.second = second;
    while streams_of(&bed) == 0 {
        bed.play_on();
    }
}

struct Bed {
    pool: Pool,
    /// Gets the same packets.
    second: Option<Publisher>,
    publisher: Publisher,
    signal: TestPicture,
    start: Time,
    watchers: Watchers,
    id: WatchId,
    events: Receiver<(Time, Event)>,
}

impl Bed {
    fn new(placement: Placement) -> Self {
        let pool = Pool::new(PoolLimits::default());
        let surroundings = Surroundings { pool: pool.clone(), seed: 0, unix_ns_at_zero: 0 };
        let config = picture::Config::new(Bitrate::from_bps(2_000_000)).unwrap();
        let publisher = Publisher::new(pool.clone(), 4_096);
        let watchers = Watchers::spawn(WatchersConfig { budget_per_mille: 2_000, placement }).unwrap();
        let (sender, events) = sync_channel(1_000);
        let sender = Arc::new(Mutex::new(sender));
        let settings = Settings { thumbnail_every: Some(Duration::from_secs(1)), content_quality: true };
        let sink = Box::new(move |now, event| drop(sender.lock().unwrap().try_send((now, event))));
        let id = watchers.add(publisher.subscribe(), settings, sink);
        let signal = TestPicture::new(config, &surroundings);
        Self { pool, second: None, publisher, signal, start: clock::now(), watchers, id, events }
    }

    /// Until there is another report of it.
    fn play_on(&mut self) {
        let before = self.watchers.report(self.id).map(|report| report.at);
        self.play_until(|report| Some(report.at) > before);
    }

    /// In real time, for a minute at most: the machine may have other things to do.
    fn play_until(&mut self, done: impl Fn(&Report) -> bool) -> Arc<Report> {
        let begin = clock::now();
        loop {
            let now = clock::now();
            assert!(now.since(begin) < Duration::from_secs(60), "{:?}", self.watchers.report(self.id));
            self.signal.handle_timeout(Time::ZERO + now.since(self.start));
            while let Some(packet) = self.signal.poll_packet() {
                if let Some(second) = &mut self.second {
                    second.publish(packet.clone());
                }
                self.publisher.publish(packet);
            }
            if let Some(second) = &mut self.second {
                second.flush(second.head());
            }
            self.publisher.flush(self.publisher.head());
            if let Some(report) = self.watchers.report(self.id).filter(|report| done(report)) {
                return report;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}

/// Our own processes that decode.
fn workers() -> Vec<u32> {
    let own = std::process::id().to_string();
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_worker = |pid: &u32| {
        let read = |name| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let parent = read("stat").rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1).map(String::from));
        parent.as_ref() == Some(&own) && read("cmdline").contains("--decode-worker")
    };
    pids.filter(is_worker).collect()
}
