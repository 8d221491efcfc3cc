//! The feed: one process that sends numbered, stamped datagrams at an exact rate. Its CPU is nobody's cost.
//!
//! Standard input takes `seq` (answers the next number and how late it has been since the last question); end of input ends it.

use std::io::{BufRead, Write};
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::sys;
use crate::ts::{DATAGRAM_BYTES, Mark, Writer};

/// How the feed sends.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Rate of one flow.
    pub(crate) rate_bps: u64,
    /// The feed sleeps at least this long and then sends all that is due; 0 is one wake-up for each datagram.
    pub(crate) burst_us: u64,
    /// One flow per destination.
    pub(crate) ports: Vec<u16>,
}

impl Plan {
    pub(crate) fn to_args(&self) -> Vec<String> {
        let numbers = [self.rate_bps, self.burst_us].into_iter().chain(self.ports.iter().map(|&port| u64::from(port)));
        numbers.map(|number| number.to_string()).collect()
    }

    fn from_args(args: &[String]) -> Option<Self> {
        let [rate, burst, ports @ ..] = args else { return None };
        Some(Self {
            rate_bps: rate.parse().ok()?,
            burst_us: burst.parse().ok()?,
            ports: ports.iter().map(|port| port.parse().ok()).collect::<Option<_>>()?,
        })
    }
}

#[derive(Default)]
struct Shared {
    slots: AtomicU64,
    late_max_ns: AtomicU64,
    late_slots: AtomicU64,
}

/// Above this a datagram counts as sent late: a fifth of the spacing at 20 Mb/s.
const LATE_NS: u64 = 100_000;

pub(crate) fn main(args: &[String]) {
    let plan = Plan::from_args(args).expect("feed: RATE_BPS BURST_US PORT...");
    let flows = plan.ports.len() as u64;
    let shared = Arc::new(Shared::default());
    let sender = Arc::clone(&shared);
    thread::spawn(move || send(&plan, &sender));
    for line in std::io::stdin().lock().lines() {
        if line.is_err() {
            return;
        }
        let next = shared.slots.load(Ordering::Acquire).div_ceil(flows);
        let late_max = shared.late_max_ns.swap(0, Ordering::Relaxed);
        let late = shared.late_slots.swap(0, Ordering::Relaxed);
        println!("{next} {late_max} {late}");
        std::io::stdout().flush().unwrap();
    }
}

fn send(plan: &Plan, shared: &Shared) {
    sys::become_punctual();
    // Not connected: a destination that is not there yet must not turn into errors of later sends.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    sys::ask_large_send_buffer(&socket).unwrap();
    let flows = plan.ports.len() as u64;
    let mut writers: Vec<_> = plan.ports.iter().map(|_| Writer::new()).collect();
    let burst_ns = plan.burst_us * 1000;
    let start = sys::monotonic_ns() + 1_000_000;
    for slot in 0.. {
        let media_ns = media_ns(slot, plan.rate_bps * flows);
        let due = start + if burst_ns == 0 { media_ns } else { media_ns.next_multiple_of(burst_ns) };
        let mut now = sys::monotonic_ns();
        if now < due {
            sys::sleep_until(due);
            now = sys::monotonic_ns();
        }
        let late = now.saturating_sub(due);
        shared.late_max_ns.fetch_max(late, Ordering::Relaxed);
        shared.late_slots.fetch_add(u64::from(late > LATE_NS), Ordering::Relaxed);
        let flow = usize::try_from(slot % flows).unwrap_or(0);
        let mark = Mark { flow: u32::try_from(flow).unwrap_or(0), seq: slot / flows, sent_ns: sys::wall_ns() };
        let datagram = writers[flow].write(mark, media_ns);
        // What a full socket drops is loss, and the sink counts it.
        let _ = socket.send_to(datagram, sys::loopback(plan.ports[flow]));
        shared.slots.store(slot + 1, Ordering::Release);
    }
}

fn media_ns(slot: u64, rate_bps: u64) -> u64 {
    let bits = u128::from(slot) * (DATAGRAM_BYTES as u128 * 8);
    u64::try_from(bits * 1_000_000_000 / u128::from(rate_bps)).unwrap_or(u64::MAX)
}
