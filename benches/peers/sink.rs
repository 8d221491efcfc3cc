//! The sink: one process that receives everything the peers send, counts what is missing and measures when it came.
//!
//! Two decisions keep it from charging its own cost to the peer. Moments are the kernel's receive stamps, so the sink may look
//! at its sockets every millisecond instead of being woken by each datagram: on loopback the wake-up of the receiver runs in
//! the sender's system call, which no sender pays when a network is between. And `UDP_GRO` is on, so a GSO train arrives as one:
//! without it the kernel cuts the train in the sender's call, as it would for a network card without segmentation offload.
//! `--sink-gro off` and `--sink-wake epoll` measure the other choice; both apply to all peers alike.
//!
//! Standard input: `seen` (answers how many sockets have received), `begin SEQ` (latency, duplicates and reordering count from
//! this number on), `report FROM TO` (answers JSON). End of input ends it.

use std::io::{BufRead, Write};
use std::net::UdpSocket;
use std::time::Duration;

use serde_json::{Value, json};

use crate::histogram::Histogram;
use crate::sys::{self, Batch, Waiter};
use crate::ts::{self, DATAGRAM_BYTES};

/// What one socket has received.
#[derive(Default)]
struct Socket {
    /// One bit for each number seen.
    seen: Vec<u64>,
    next: u64,
    kernel_drops: u32,
}

#[derive(Default)]
struct Totals {
    /// Smaller numbers are warm-up.
    from: u64,
    datagrams: u64,
    bytes: u64,
    duplicates: u64,
    reordered: u64,
    strays: u64,
    reshaped: u64,
    latency: Histogram,
    /// Least latency before that, and what the others have more: in finer steps than all of it.
    least_ns: Option<u64>,
    more: Histogram,
}

/// Numbers beyond this are not from our feed: 400 Mb/s takes half an hour to come here.
const SEQ_MAX: u64 = 1 << 26;
const TICK: Duration = Duration::from_millis(1);

/// `COUNT OUTPUTS_PER_FLOW GRO WAKE`; answers the ports first.
pub(crate) fn main(args: &[String]) {
    let [count, per_flow, gro, wake] = args else { panic!("sink: COUNT OUTPUTS_PER_FLOW GRO WAKE") };
    let count: usize = count.parse().unwrap();
    let per_flow: usize = per_flow.parse().unwrap();
    let gro = gro == "on";
    let sockets: Vec<_> = (0..count).map(|_| open(gro)).collect();
    let ports: Vec<_> = sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect();
    answer(&json!(ports));
    let mut waiter = (wake == "epoll").then(|| Waiter::new(&sockets).unwrap());
    // With GRO one message may be a whole train of 64 KiB.
    let mut batch = if gro { Batch::new(16, 1 << 16) } else { Batch::new(64, 2048) };
    let mut states: Vec<_> = (0..count).map(|_| Socket::default()).collect();
    let mut totals = Totals { from: u64::MAX, ..Totals::default() };
    loop {
        match &mut waiter {
            Some(waiter) => waiter.wait(TICK * 10),
            None => sys::sleep(TICK),
        }
        for (index, (socket, state)) in sockets.iter().zip(&mut states).enumerate() {
            drain(socket, &mut batch, state, index / per_flow, &mut totals);
        }
        if sys::stdin_ready(Duration::ZERO) && !obey(&states, &mut totals) {
            return;
        }
    }
}

fn open(gro: bool) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    sys::ask_large_receive_buffer(&socket).unwrap();
    sys::ask_receive_details(&socket, gro).unwrap();
    socket
}

fn drain(socket: &UdpSocket, batch: &mut Batch, state: &mut Socket, flow: usize, totals: &mut Totals) {
    loop {
        let count = batch.receive(socket, 0, false);
        for slot in 0..count {
            let details = batch.details(slot);
            state.kernel_drops = details.drops.unwrap_or(state.kernel_drops);
            let bytes = batch.bytes(slot);
            for datagram in bytes.chunks(details.segment_bytes.unwrap_or(bytes.len()).max(1)) {
                note(datagram, details.stamp_ns, state, flow, totals);
            }
        }
        if count < batch.slots() {
            return;
        }
    }
}

fn note(datagram: &[u8], stamp_ns: u64, state: &mut Socket, flow: usize, totals: &mut Totals) {
    for mark in ts::marks(datagram) {
        if mark.flow as usize != flow || mark.seq >= SEQ_MAX {
            totals.strays += 1;
            continue;
        }
        let new = state.mark_seen(mark.seq);
        let latency_ns = stamp_ns.saturating_sub(mark.sent_ns);
        if mark.seq < totals.from {
            totals.least_ns = Some(totals.least_ns.map_or(latency_ns, |least_ns| least_ns.min(latency_ns)));
        } else {
            totals.duplicates += u64::from(!new);
            totals.reordered += u64::from(new && mark.seq < state.next);
            totals.latency.note(latency_ns);
            totals.more.note(latency_ns.saturating_sub(totals.least_ns.unwrap_or(0)));
        }
        state.next = state.next.max(mark.seq + 1);
    }
    if totals.from < u64::MAX {
        totals.datagrams += 1;
        totals.bytes += datagram.len() as u64;
        totals.reshaped += u64::from(datagram.len() != DATAGRAM_BYTES);
    }
}

impl Socket {
    fn mark_seen(&mut self, seq: u64) -> bool {
        let word = usize::try_from(seq / 64).unwrap_or(0);
        if word >= self.seen.len() {
            self.seen.resize(word + 1024, 0);
        }
        let bit = 1 << (seq % 64);
        let new = self.seen[word] & bit == 0;
        self.seen[word] |= bit;
        new
    }

    fn count(&self, from: u64, to: u64) -> u64 {
        let has = |seq: &u64| {
            let word = usize::try_from(seq / 64).ok().and_then(|word| self.seen.get(word));
            word.is_some_and(|word| word >> (seq % 64) & 1 == 1)
        };
        (from..to).filter(has).count() as u64
    }
}

/// One line from the controller; false when there will be no more.
fn obey(states: &[Socket], totals: &mut Totals) -> bool {
    let mut line = String::new();
    if std::io::stdin().lock().read_line(&mut line).unwrap_or(0) == 0 {
        return false;
    }
    let mut words = line.split_whitespace();
    let command = words.next();
    let numbers: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
    match (command, numbers.as_slice()) {
        (Some("seen"), []) => answer(&json!(states.iter().filter(|state| state.next > 0).count())),
        (Some("begin"), [from]) => {
            *totals = Totals { from: *from, least_ns: totals.least_ns, ..Totals::default() };
            answer(&json!("ok"));
        }
        (Some("report"), [from, to]) => answer(&report(states, totals, *from, *to)),
        _ => answer(&json!("unknown command")),
    }
    true
}

fn report(states: &[Socket], totals: &Totals, from: u64, to: u64) -> Value {
    let counts: Vec<_> = states.iter().map(|state| state.count(from, to)).collect();
    let delivered: u64 = counts.iter().sum();
    let us = |per_mille| totals.latency.quantile(per_mille) as f64 / 1000.0;
    json!({
        "expected": (to - from) * states.len() as u64,
        "delivered": delivered,
        "worst_socket_lost": counts.iter().map(|count| to - from - count).max(),
        "duplicates": totals.duplicates,
        "reordered": totals.reordered,
        "strays": totals.strays,
        "datagrams": totals.datagrams,
        "datagram_bytes": totals.bytes,
        "reshaped": totals.reshaped,
        "sink_drops": states.iter().map(|state| u64::from(state.kernel_drops)).sum::<u64>(),
        "latency_p50_us": us(500),
        "latency_p99_us": us(990),
        "latency_max_us": us(1000),
        "jitter_p99_us": totals.more.quantile(990).saturating_sub(totals.more.quantile(500)) as f64 / 1000.0,
    })
}

fn answer(value: &Value) {
    println!("{value}");
    std::io::stdout().flush().unwrap();
}
