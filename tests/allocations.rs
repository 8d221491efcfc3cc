//! That the cores of SRT and RIST, RTP over them, those of FEC and the multiplexer take no memory for each packet:
//! everything they need they have after a while, or take from the pool.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod rist_line;
mod srt_line;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ops::Range;
use std::time::Duration;

use anabranch::bus::{Meta, Packet, Pool, PoolLimits};
use anabranch::proto::fec::{Decoder, Encoder, Matrix};
use anabranch::proto::mpegts::mux::{self, AccessUnit, Format, Multiplexer};
use anabranch::proto::rist;
use anabranch::proto::rtp::{self, Over, SenderConfig};
use anabranch::proto::srt::Config;
use anabranch::proto::srt::crypto::{CipherMode, KeyLength};
use anabranch::proto::{Core, Datagram, Event, Payload, Stats, Surroundings, Transmit};
use anabranch::units::{Bitrate, Seq, Ticks90k, Time};
use srt_line::{Line, PACKETS, Traffic};

#[test]
fn nothing_is_allocated_for_a_packet_in_the_clear() {
    check(&config(None), None);
}

#[test]
fn nothing_is_allocated_for_an_encrypted_packet_nor_for_new_keys() {
    for mode in [CipherMode::Ctr, CipherMode::Gcm] {
        check(&config(Some(mode)), None);
    }
}

#[test]
fn nothing_is_allocated_for_what_is_lost_and_sent_again() {
    check(&config(None), Some(50));
}

#[test]
fn nothing_is_allocated_for_a_packet_with_a_packet_filter() {
    let config = Config { packet_filter: Some("fec,cols:10,rows:5".parse().unwrap()), ..config(None) };
    check(&config, None);
    check(&config, Some(50));
}

/// Of SRT itself the others tell.
#[test]
fn nothing_is_allocated_for_headers_put_before_packets_and_taken_off() {
    let pool = Pool::new(PoolLimits::default());
    let surroundings = Surroundings { pool: pool.clone(), seed: 1, unix_ns_at_zero: 0 };
    let mut over = Over::new(Mirror::default(), &SenderConfig::default(), &surroundings);
    let mut there_and_back = |packets: u64| {
        let mut came = 0;
        for n in 0..packets {
            let arrival = Time::from_ns(n * 1_000_000);
            over.handle_packet(arrival, &pool.copy(&[0x47; 1_316], Meta { arrival, ..Meta::default() }).unwrap());
            came += u64::from(over.poll_packet().is_some_and(|packet| packet.len() == 1_316));
        }
        came
    };
    there_and_back(100);
    let before = allocations();
    assert_eq!(there_and_back(1_000), 1_000);
    assert_eq!(allocations() - before, 0);
}

/// Releases what it was to send.
#[derive(Default)]
struct Mirror {
    packet: Option<Packet>,
}

impl Core for Mirror {
    fn handle_datagram(&mut self, _now: Time, _datagram: Datagram) {}
    fn handle_packet(&mut self, _now: Time, packet: &Packet) {
        self.packet = Some(packet.clone());
    }
    fn handle_timeout(&mut self, _now: Time) {}
    fn poll_transmit(&mut self) -> Option<Transmit> {
        None
    }
    fn poll_packet(&mut self) -> Option<Packet> {
        self.packet.take()
    }
    fn poll_event(&mut self) -> Option<Event> {
        None
    }
    fn poll_timeout(&self) -> Option<Time> {
        None
    }
    fn stats(&self) -> Stats {
        Stats::default()
    }
}

#[test]
fn nothing_is_allocated_for_fec_made_and_used() {
    let pool = Pool::new(PoolLimits::default());
    let mut encoder = Encoder::new(Matrix::DEFAULT, pool.clone(), 1);
    let mut decoder = Decoder::new(pool.clone());
    let mut recovered = 0;
    let mut round = |numbers: Range<u64>| {
        for n in numbers {
            let header = rtp::Header { sequence: Seq::new(n as u32), ..rtp::Header::default() }.to_bytes();
            let payload = [n as u8; 188];
            let mut buffer = pool.take(200).unwrap();
            buffer[..12].copy_from_slice(&header);
            buffer[12..200].copy_from_slice(&payload);
            encoder.handle(&header, &payload);
            if n % 17 != 5 {
                decoder.handle_media(Time::ZERO, n, &Packet::new(buffer, 0..200, Meta::default()));
            }
            while let Some(fec) = encoder.poll() {
                decoder.handle_fec(Time::ZERO, fec.packet);
            }
            while decoder.poll_recovered().is_some() {
                recovered += 1;
            }
        }
    };
    round(100_000..102_000);
    let before = allocations();
    round(102_000..110_000);
    assert_eq!(allocations(), before);
    assert!(recovered > 500, "{recovered}");
}

#[test]
fn nothing_is_allocated_for_access_units_multiplexed() {
    for rate in [None, Some(Bitrate::from_bps(12_000_000))] {
        let config = mux::Config { rate, ..mux::Config::default() };
        let mut mux = Multiplexer::new(config, Pool::new(PoolLimits::default())).unwrap();
        let track = mux.add_track(Format::h264(), None).unwrap();
        let picture = [&[0, 0, 0, 1, 0x67, 1, 0, 0, 0, 1, 0x68, 1, 0, 0, 0, 1, 0x65][..], &[0x5a; 30_000]].concat();
        let (picture, mut bytes) = (Payload::from(picture), 0);
        let mut round = |pictures: Range<u64>| {
            for n in pictures {
                let (now, dts) = (Time::from_ns(n * 40_000_000), Ticks90k(n * 3_600));
                let unit = AccessUnit { pts: dts, dts, random_access: false, data: picture.clone() };
                mux.handle_access_unit(now, track, &unit);
                while let Some(packet) = mux.poll_packet() {
                    bytes += packet.len();
                }
            }
        };
        round(0..50);
        let before = allocations();
        round(50..200);
        assert_eq!(allocations() - before, 0, "{rate:?}");
        assert!(bytes > 190 * 30_000, "{bytes}");
    }
}

/// Neither side allocates, whoever called, and however many packets come at a time.
fn check(config: &Config, loses_one_of: Option<usize>) {
    for batch in [1, 32] {
        // Short packets, as their length makes no difference here but for the time that it takes.
        let traffic = Traffic { batch, payload_bytes: 188, loses_one_of };
        let lines = [
            ("a caller to a listener", Line::to_listener(config, traffic)),
            ("a listener to eight callers", Line::to_callers(config, 8, traffic)),
        ];
        for (name, mut line) in lines {
            let before = (line.released(), line.recovered());
            let mut spent = [0, 0];
            for _ in 0..ROUNDS {
                spent.iter_mut().zip(line.round(allocations)).for_each(|(sum, spent)| *sum += spent);
            }
            let packets = line.released() - before.0;
            assert!(packets >= (ROUNDS * PACKETS) as u64 && line.lost() == 0, "{name}: {packets} packets");
            assert_eq!(line.recovered() > before.1, loses_one_of.is_some(), "{name}");
            assert_eq!(spent, [0, 0], "{name}, batches of {batch}, {packets} packets: sender's and receivers'");
        }
    }
}

#[test]
fn nothing_is_allocated_for_a_packet_of_rist() {
    let main = rist::Config { buffer: Duration::from_millis(200), ..rist::Config::default() };
    let simple = rist::Config { profile: rist::Profile::Simple, ..main.clone() };
    let encrypted = rist::Config { secret: "hunter22".parse().ok(), ..main.clone() };
    for (name, config) in [("simple", simple), ("main", main), ("encrypted", encrypted)] {
        for (batch, loses_one_of) in [(32, None), (1, Some(20))] {
            let mut line = rist_line::Line::new(&config, batch, loses_one_of);
            let before = (line.released(), line.recovered());
            let mut spent = [0, 0];
            for _ in 0..ROUNDS {
                spent.iter_mut().zip(line.round(allocations)).for_each(|(sum, spent)| *sum += spent);
            }
            assert!(line.released() - before.0 >= (ROUNDS * rist_line::PACKETS) as u64 - 32, "{name}");
            assert_eq!((line.lost(), line.recovered() > before.1), (0, loses_one_of.is_some()), "{name}");
            assert_eq!(spent, [0, 0], "{name}, batches of {batch}, {loses_one_of:?}: sender's and receiver's");
        }
    }
}

fn config(mode: Option<CipherMode>) -> Config {
    Config {
        passphrase: mode.map(|_| "thelocalmanager".parse().unwrap()),
        key_length: mode.map(|_| KeyLength::Aes256),
        cipher: mode.unwrap_or_default(),
        key_refresh_packets: 500,
        key_announce_packets: 100,
        ..Config::default()
    }
}

/// A third of a second: some thousand packets.
const ROUNDS: usize = 30;

/// How often this thread has taken memory.
fn allocations() -> u64 {
    ALLOCATIONS.get()
}

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's, counting.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

impl Counting {
    fn count() {
        // A thread that ends may free and take memory when its counter is gone.
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
    }
}

#[allow(unsafe_code, reason = "only a global allocator sees every allocation")]
// SAFETY: everything is passed on to the system's allocator as it came; counting takes no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count();
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::count();
        // SAFETY: as the caller promised.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::count();
        // SAFETY: as the caller promised.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }
}
