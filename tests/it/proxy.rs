//! A bad network between two sockets: the simulator's links in front of real ones, media and control each way.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anabranch::adapters::clock;
use anabranch::sim::link::{self, Link};
use anabranch::units::Time;

use crate::support::{V4, free_port, lock, roomy};

/// Passes datagrams on to a target and the port after it, and what that one answers back.
pub(crate) struct Proxy {
    /// Where to send media; control goes to the next port.
    pub(crate) address: SocketAddr,
    media: Arc<Mutex<Link>>,
    /// What answers suffer, where that can be changed.
    way_back: Option<Arc<Mutex<Link>>>,
    pause: Arc<Mutex<Pause>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Proxy {
    /// Media suffers what [`Proxy::set_media`] says, nothing at first; control takes `control_delay` each way.
    pub(crate) fn new(target: SocketAddr, seed: u64, control_delay: Duration) -> Self {
        let address = SocketAddr::from((V4, free_port()));
        let link = |config| Arc::new(Mutex::new(Link::new(config, seed)));
        let delayed = link::Config { delay: control_delay, ..link::Config::default() };
        let media = link(link::Config::default());
        let stop = Arc::new(AtomicBool::new(false));
        let mut proxy = Self {
            address,
            media: Arc::clone(&media),
            way_back: None,
            pause: Arc::default(),
            stop,
            threads: Vec::new(),
        };

        let back = UdpSocket::bind((V4, 0)).unwrap();
        proxy.relay(Arc::new(roomy(address)), media, |_from| {}, move |datagram| back.send_to(datagram, target));

        let front = Arc::new(roomy(next_port(address)));
        let back = Arc::new(UdpSocket::bind((V4, 0)).unwrap());
        let client = Arc::new(Mutex::new(None));
        let (heard, to_target) = (Arc::clone(&client), Arc::clone(&back));
        proxy.relay(
            Arc::clone(&front),
            link(delayed),
            move |from| *lock(&heard) = Some(from),
            move |datagram| to_target.send_to(datagram, next_port(target)),
        );
        proxy.relay(
            back,
            link(delayed),
            |_from| {},
            move |datagram| lock(&client).map_or(Ok(0), |client| front.send_to(datagram, client)),
        );
        proxy
    }

    /// One port whose datagrams, there and back, suffer what [`Proxy::set_media`] says.
    pub(crate) fn two_way(target: SocketAddr, seed: u64, config: link::Config) -> Self {
        let address = SocketAddr::from((V4, free_port()));
        let link = |seed| Arc::new(Mutex::new(Link::new(config, seed)));
        let (media, back_link) = (link(seed), link(seed + 1));
        let stop = Arc::new(AtomicBool::new(false));
        let way_back = Some(Arc::clone(&back_link));
        let mut proxy =
            Self { address, media: Arc::clone(&media), way_back, pause: Arc::default(), stop, threads: Vec::new() };
        let front = Arc::new(roomy(address));
        let back = Arc::new(roomy((V4, 0).into()));
        let client = Arc::new(Mutex::new(None));
        let (heard, to_target) = (Arc::clone(&client), Arc::clone(&back));
        proxy.relay(
            Arc::clone(&front),
            media,
            move |from| *lock(&heard) = Some(from),
            move |datagram| to_target.send_to(datagram, target),
        );
        proxy.relay(
            back,
            back_link,
            |_from| {},
            move |datagram| lock(&client).map_or(Ok(0), |client| front.send_to(datagram, client)),
        );
        proxy
    }

    pub(crate) fn set_media(&self, config: link::Config) {
        lock(&self.media).set_config(config);
    }

    /// Both ways.
    pub(crate) fn set_both(&self, config: link::Config) {
        self.set_media(config);
        self.way_back.iter().for_each(|link| lock(link).set_config(config));
    }

    /// Datagrams lost so far, both ways.
    pub(crate) fn lost(&self) -> u64 {
        self.media().lost + self.way_back.as_ref().map_or(0, |link| lock(link).stats().lost)
    }

    /// The longest time between two datagrams with media, or for which one was held too long, since this was last asked.
    pub(crate) fn take_longest_pause(&self) -> Duration {
        std::mem::take(&mut lock(&self.pause).longest)
    }

    /// What media suffered so far.
    pub(crate) fn media(&self) -> link::Stats {
        lock(&self.media).stats()
    }

    fn relay(
        &mut self,
        from: Arc<UdpSocket>,
        link: Arc<Mutex<Link>>,
        heard: impl Fn(SocketAddr) + Send + 'static,
        send: impl Fn(&[u8]) -> std::io::Result<usize> + Send + 'static,
    ) {
        let (stop, pause) = (Arc::clone(&self.stop), Arc::clone(&self.pause));
        self.threads.push(std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            let mut waiting: BTreeMap<(Time, u64), Vec<u8>> = BTreeMap::new();
            let mut taken = 0;
            while !stop.load(Ordering::Relaxed) {
                let wait = waiting.first_key_value().map_or(IDLE, |((at, _), _)| at.since(clock::now()));
                // At least a microsecond: zero would mean for ever.
                from.set_read_timeout(Some(wait.clamp(Duration::from_micros(1), IDLE))).unwrap();
                // An error is silence, or an answer to an earlier datagram.
                if let Ok((len, peer)) = from.recv_from(&mut buffer) {
                    heard(peer);
                    if len > MEDIA_BYTES_MIN {
                        lock(&pause).note(clock::now());
                    }
                    for at in lock(&link).carry(clock::now(), len) {
                        waiting.insert((at, taken), buffer[..len].to_vec());
                        taken += 1;
                    }
                }
                while let Some(entry) = waiting.first_entry().filter(|entry| entry.key().0 <= clock::now()) {
                    let late = clock::now().since(entry.key().0);
                    // What the target refuses is lost, as on a real network.
                    let _ = send(&entry.remove());
                    let mut pause = lock(&pause);
                    pause.longest = pause.longest.max(late);
                }
            }
        }));
    }
}

/// How evenly media came, which a machine with too much to do keeps from its threads.
#[derive(Default)]
struct Pause {
    latest: Option<Time>,
    longest: Duration,
}

impl Pause {
    fn note(&mut self, now: Time) {
        let pause = self.latest.replace(now).map_or(Duration::ZERO, |latest| now.since(latest));
        self.longest = self.longest.max(pause);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn next_port(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port() + 1)
}

/// Reports are shorter.
const MEDIA_BYTES_MIN: usize = 600;
const IDLE: Duration = Duration::from_millis(20);
