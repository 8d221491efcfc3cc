//! That the cores of SRT and RIST take no memory for each packet: everything they need they have after a while, or take from the pool.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod rist_line;
mod srt_line;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use anabranch::proto::rist;
use anabranch::proto::srt::Config;
use anabranch::proto::srt::crypto::{CipherMode, KeyLength};
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
