//! A path that takes its time and loses datagrams, both ways, and counts what is sent again on it.

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
    is_cut: Arc<AtomicBool>,
    classify: Classify,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// Whether a datagram with data was sent again; `None` if it has none.
pub(crate) type Classify = fn(&[u8]) -> Option<bool>;

/// Data packets on the path, both ways together.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) data: AtomicU64,
    pub(crate) data_lost: AtomicU64,
    pub(crate) sent_again: AtomicU64,
}

impl Path {
    /// To `target`, with `delay` each way.
    pub(crate) fn new(target: u16, loss: f64, delay: Duration, classify: Classify) -> std::io::Result<Self> {
        let front = Arc::new(UdpSocket::bind("127.0.0.1:0")?);
        let back = Arc::new(UdpSocket::bind("127.0.0.1:0")?);
        sys::ask_large_receive_buffer(&front)?;
        sys::ask_large_receive_buffer(&back)?;
        back.connect(sys::loopback(target))?;
        let caller: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
        let mut path = Self {
            port: front.local_addr()?.port(),
            counts: Arc::default(),
            is_cut: Arc::default(),
            classify,
            stop: Arc::default(),
            threads: Vec::new(),
        };
        let (there, heard, called) = (Arc::clone(&back), Arc::clone(&caller), Arc::clone(&front));
        path.carry(front, (loss, delay), 7, move |from, datagram| {
            *heard.lock().unwrap() = from;
            let _ = there.send(datagram);
        });
        path.carry(back, (loss, delay), 8, move |_from, datagram| {
            let caller = *caller.lock().unwrap();
            let _ = caller.map(|caller| called.send_to(datagram, caller));
        });
        Ok(path)
    }

    /// Nothing passes, or does again.
    pub(crate) fn cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::Relaxed);
    }

    fn carry(
        &mut self,
        from: Arc<UdpSocket>,
        (loss, delay): (f64, Duration),
        seed: u64,
        send: impl Fn(Option<SocketAddr>, &[u8]) + Send + 'static,
    ) {
        let (counts, stop) = (Arc::clone(&self.counts), Arc::clone(&self.stop));
        let (is_cut, classify) = (Arc::clone(&self.is_cut), self.classify);
        self.threads.push(thread::spawn(move || {
            // Not the same on all paths to different ports.
            let mut luck: u64 = seed + u64::from(from.local_addr().map_or(0, |address| address.port()));
            let mut under_way: VecDeque<(u64, SocketAddr, Vec<u8>)> = VecDeque::new();
            let mut buffer = [0; 2048];
            // A read with a timeout would wait for ticks of the kernel, which are milliseconds long.
            from.set_nonblocking(true).unwrap();
            while !stop.load(Ordering::Relaxed) {
                sys::sleep(TICK);
                while let Ok((len, peer)) = from.recv_from(&mut buffer) {
                    // An LCG of Knuth's; its upper bits are as random as a lossy path.
                    luck = luck.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let is_lost = ((luck >> 33) as f64) < loss * (1_u64 << 31) as f64 || is_cut.load(Ordering::Relaxed);
                    counts.note(classify(&buffer[..len]), is_lost);
                    if !is_lost {
                        let due = sys::monotonic_ns() + delay.as_nanos() as u64;
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
    fn note(&self, is_again: Option<bool>, is_lost: bool) {
        if let Some(is_again) = is_again {
            self.data.fetch_add(1, Ordering::Relaxed);
            self.data_lost.fetch_add(u64::from(is_lost), Ordering::Relaxed);
            self.sent_again.fetch_add(u64::from(is_again), Ordering::Relaxed);
        }
    }

    /// What was counted, and starts again.
    pub(crate) fn take(&self) -> [u64; 3] {
        [&self.data, &self.data_lost, &self.sent_again].map(|count| count.swap(0, Ordering::Relaxed))
    }
}

/// SRT's data packets have a zero in front; the flag R is in the second word.
pub(crate) fn srt(datagram: &[u8]) -> Option<bool> {
    let [first, _, _, _, second, ..] = datagram else { return None };
    (first & 0x80 == 0).then_some(second & 4 != 0)
}

/// RTP in RIST's tunnel in the clear: GRE with a sequence number or without, and VSF's header where it says so. The lowest
/// bit of the SSRC marks what is sent again.
pub(crate) fn rist(datagram: &[u8]) -> Option<bool> {
    let [flags, _, kind, low, ..] = datagram else { return None };
    let gre = 4 + if flags & 0x10 == 0 { 0 } else { 4 };
    let rtp = gre + 4 + if [*kind, *low] == [0xcc, 0xe0] { 4 } else { 0 };
    let is_media = datagram.get(rtp + 1).is_some_and(|kind| kind & 0x7f == 33);
    is_media.then(|| datagram.get(rtp + 11).is_some_and(|ssrc| ssrc & 1 == 1))
}

impl Drop for Path {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
