//! A path that takes its time and loses datagrams, both ways, and counts what SRT sends again on it.

use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::sys;

/// One way takes this long.
pub(crate) const DELAY: Duration = Duration::from_millis(20);

const TICK: Duration = Duration::from_micros(100);

/// A path between a caller and a listener; ends when dropped.
pub(crate) struct Path {
    /// Where to call.
    pub(crate) port: u16,
    pub(crate) counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// Data packets on the path, both ways together.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) data: AtomicU64,
    pub(crate) data_lost: AtomicU64,
    pub(crate) sent_again: AtomicU64,
}

impl Path {
    pub(crate) fn new(target: u16, loss: f64) -> std::io::Result<Self> {
        let front = Arc::new(UdpSocket::bind("127.0.0.1:0")?);
        let back = Arc::new(UdpSocket::bind("127.0.0.1:0")?);
        sys::ask_large_receive_buffer(&front)?;
        sys::ask_large_receive_buffer(&back)?;
        back.connect(sys::loopback(target))?;
        let caller: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
        let mut path = Self {
            port: front.local_addr()?.port(),
            counts: Arc::default(),
            stop: Arc::default(),
            threads: Vec::new(),
        };
        let (there, heard, called) = (Arc::clone(&back), Arc::clone(&caller), Arc::clone(&front));
        path.carry(front, loss, 7, move |from, datagram| {
            *heard.lock().unwrap() = from;
            let _ = there.send(datagram);
        });
        path.carry(back, loss, 8, move |_from, datagram| {
            let caller = *caller.lock().unwrap();
            let _ = caller.map(|caller| called.send_to(datagram, caller));
        });
        Ok(path)
    }

    fn carry(
        &mut self,
        from: Arc<UdpSocket>,
        loss: f64,
        seed: u64,
        send: impl Fn(Option<SocketAddr>, &[u8]) + Send + 'static,
    ) {
        let (counts, stop) = (Arc::clone(&self.counts), Arc::clone(&self.stop));
        self.threads.push(thread::spawn(move || {
            let mut luck: u64 = seed;
            let mut under_way: VecDeque<(u64, SocketAddr, Vec<u8>)> = VecDeque::new();
            let mut buffer = [0; 2048];
            // A read with a timeout would wait for ticks of the kernel, which are milliseconds long.
            from.set_nonblocking(true).unwrap();
            while !stop.load(Ordering::Relaxed) {
                sys::sleep(TICK);
                while let Ok((len, peer)) = from.recv_from(&mut buffer) {
                    // An LCG of Knuth's; its upper bits are as random as a lossy path.
                    luck = luck.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let is_lost = ((luck >> 33) as f64) < loss * (1_u64 << 31) as f64;
                    counts.note(&buffer[..len], is_lost);
                    if !is_lost {
                        let due = sys::monotonic_ns() + DELAY.as_nanos() as u64;
                        under_way.push_back((due, peer, buffer[..len].to_vec()));
                    }
                }
                while let Some((_, peer, datagram)) = under_way.pop_front_if(|entry| entry.0 <= sys::monotonic_ns()) {
                    send(Some(peer), &datagram);
                }
            }
        }));
    }
}

impl Counts {
    /// Data packets have a zero in front; the flag R is in the second word.
    fn note(&self, datagram: &[u8], is_lost: bool) {
        if let [first, _, _, _, second, ..] = datagram
            && first & 0x80 == 0
        {
            self.data.fetch_add(1, Ordering::Relaxed);
            self.data_lost.fetch_add(u64::from(is_lost), Ordering::Relaxed);
            self.sent_again.fetch_add(u64::from(second & 4 != 0), Ordering::Relaxed);
        }
    }

    /// What was counted, and starts again.
    pub(crate) fn take(&self) -> [u64; 3] {
        [&self.data, &self.data_lost, &self.sent_again].map(|count| count.swap(0, Ordering::Relaxed))
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
