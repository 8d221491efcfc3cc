//! A UDP proxy that behaves like a bad network, for tests without root or `tc`.
//!
//! `cargo run --release --features sim --example impair -- 127.0.0.1:5000 127.0.0.1:6000 --loss 0.05`
//!
//! Datagrams to LISTEN go on to TARGET; what TARGET answers goes to whoever sent last. Both directions suffer the same
//! impairments, each with luck of its own. The links are those of the simulator, so a seed that is bad for a protocol
//! there is bad for a real peer here, as far as the timing of real sockets allows.
#![allow(clippy::print_stdout, reason = "a command line tool shows what it counted")]

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anabranch::sim::link::{self, Link};
use anabranch::sim::loss::Model;
use anabranch::units::{Bitrate, Time};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
#[command(about = "A UDP proxy that behaves like a bad network", after_help = EXAMPLES)]
struct Args {
    /// Address to receive datagrams at.
    listen: SocketAddr,
    /// Host and port to send them on to.
    #[arg(value_parser = resolve)]
    target: SocketAddr,
    /// Share of datagrams lost, 0 to 1.
    #[arg(long, default_value = "0", value_parser = share)]
    loss: f64,
    /// How many are lost in a row, on average; 1 for losses that know nothing of each other.
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    burst: u32,
    /// Time that every datagram takes, each way.
    #[arg(long, default_value = "0ms", value_parser = humantime::parse_duration)]
    delay: Duration,
    /// Further time, evenly spread between zero and this; keeps the order.
    #[arg(long, default_value = "0ms", value_parser = humantime::parse_duration)]
    jitter: Duration,
    /// Share of datagrams that come twice.
    #[arg(long, default_value = "0", value_parser = share)]
    dup: f64,
    /// Share of datagrams held back, so that later ones overtake them.
    #[arg(long, default_value = "0", value_parser = share)]
    reorder: f64,
    /// For how long they are held back.
    #[arg(long, default_value = "10ms", value_parser = humantime::parse_duration)]
    reorder_by: Duration,
    /// Rate above which datagrams queue, and are dropped after 100 ms of it: 20M, 500k.
    #[arg(long)]
    bandwidth: Option<Bitrate>,
    /// Repeats the same luck.
    #[arg(long, default_value = "1")]
    seed: u64,
    /// Prints the counts this often, in seconds, and not only at the end.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    stats: Option<u64>,
}

const EXAMPLES: &str = "Examples:
  5 % random loss and 20 ms each way:
    impair 127.0.0.1:5000 127.0.0.1:6000 --loss 0.05 --delay 20ms
  A poor mobile uplink, counted every second:
    impair 0.0.0.0:5000 receiver.example:6000 --loss 0.02 --burst 6 --delay 40ms --jitter 15ms --stats 1
  Nothing lost, but out of order and twice:
    impair 127.0.0.1:5000 127.0.0.1:6000 --reorder 0.01 --reorder-by 5ms --dup 0.01 --seed 7";

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let front = Arc::new(open(args.listen)?);
    let local: SocketAddr = if args.target.is_ipv4() { ([0; 4], 0).into() } else { ([0; 8], 0).into() };
    let back = Arc::new(open(local)?);
    back.connect(args.target)?;

    let client = Arc::new(Mutex::new(None));
    let directions = [("there", 0), ("back", 1)].map(|(name, salt)| Direction::new(name, &args, salt));
    let (last, to_target) = (Arc::clone(&client), Arc::clone(&back));
    directions[0].start(
        Arc::clone(&front),
        move |from| *lock(&last) = Some(from),
        move |datagram| {
            to_target.send(datagram)?;
            Ok(())
        },
    );
    directions[1].start(
        back,
        |_| {},
        move |datagram| {
            let client = *lock(&client);
            client.map_or(Ok(()), |client| front.send_to(datagram, client).map(|_| ()))
        },
    );

    println!("{} -> {}, seed {}", args.listen, args.target, args.seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(print_until_stopped(&directions, args.stats))
}

/// One way through the proxy: a thread that receives and decides, a thread that waits and sends.
struct Direction {
    name: &'static str,
    link: Arc<Mutex<Link>>,
    start: Instant,
}

impl Direction {
    #[allow(clippy::disallowed_methods, reason = "a tool on real sockets has to read the time")]
    fn new(name: &'static str, args: &Args, salt: u64) -> Self {
        let loss = match args.burst {
            1 => Model::Random { share: args.loss },
            length => Model::bursts(args.loss, f64::from(length)),
        };
        let config = link::Config {
            loss,
            delay: args.delay,
            jitter: args.jitter,
            duplicated: args.dup,
            held_back: args.reorder,
            held_back_by: args.reorder_by,
            bandwidth: args.bandwidth,
            ..link::Config::default()
        };
        let link = Link::new(config, args.seed.wrapping_mul(2).wrapping_add(salt));
        Self { name, link: Arc::new(Mutex::new(link)), start: Instant::now() }
    }

    fn start(
        &self,
        socket: Arc<UdpSocket>,
        heard: impl Fn(SocketAddr) + Send + 'static,
        send: impl Fn(&[u8]) -> io::Result<()> + Send + 'static,
    ) {
        let (link, start) = (Arc::clone(&self.link), self.start);
        let (queue, waiting) = sync_channel(QUEUE_MAX);
        thread::spawn(move || receive(&socket, &link, start, &queue, heard));
        thread::spawn(move || send_when_due(&waiting, start, send));
    }

    fn print(&self) {
        let link::Stats { sent, delivered, lost, queue_full, duplicated, held_back } = lock(&self.link).stats();
        println!(
            "{:5}  in {sent}  out {delivered}  lost {lost}  queue_full {queue_full}  duplicated {duplicated}  \
             held_back {held_back}",
            self.name
        );
    }
}

/// A datagram and when it shall leave.
type Due = (Time, Arc<[u8]>);

/// Ends with the process: a socket error concerns one datagram (an ICMP answer to an earlier one, mostly).
fn receive(
    socket: &UdpSocket,
    link: &Mutex<Link>,
    start: Instant,
    queue: &SyncSender<Due>,
    heard: impl Fn(SocketAddr),
) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let Ok((bytes, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        heard(from);
        let arrivals = lock(link).carry(now(start), bytes);
        if arrivals.is_empty() {
            continue;
        }
        let datagram: Arc<[u8]> = buffer[..bytes].into();
        for at in arrivals {
            // Waiting here would only move the queue into the socket's buffer.
            if queue.send((at, Arc::clone(&datagram))).is_err() {
                return;
            }
        }
    }
}

/// Waiting on a channel is precise to some ten microseconds; a socket's read timeout would be to milliseconds.
fn send_when_due(queue: &Receiver<Due>, start: Instant, send: impl Fn(&[u8]) -> io::Result<()>) {
    let mut waiting: BTreeMap<(Time, u64), Arc<[u8]>> = BTreeMap::new();
    let mut taken = 0;
    loop {
        let pause = waiting.first_key_value().map_or(IDLE, |((at, _), _)| at.since(now(start)));
        if waiting.len() == QUEUE_MAX {
            thread::park_timeout(pause);
        } else {
            match queue.recv_timeout(pause) {
                Ok((at, datagram)) => {
                    waiting.insert((at, taken), datagram);
                    taken += 1;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        while let Some(entry) = waiting.first_entry().filter(|entry| entry.key().0 <= now(start)) {
            // What the target refuses is the target's loss, as on a real network.
            let _ = send(&entry.remove());
        }
    }
}

async fn print_until_stopped(directions: &[Direction], every_s: Option<u64>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interval = tokio::time::interval(Duration::from_secs(every_s.unwrap_or(3_600)));
    interval.tick().await;
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => break,
            _ = terminate.recv() => break,
            _ = interval.tick(), if every_s.is_some() => directions.iter().for_each(Direction::print),
        }
    }
    directions.iter().for_each(Direction::print);
    Ok(())
}

fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    // Whatever the system grants; it caps the wish without an error.
    socket2::SockRef::from(&socket).set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    Ok(socket)
}

fn resolve(text: &str) -> Result<SocketAddr, String> {
    let mut addresses = text.to_socket_addrs().map_err(|error| error.to_string())?;
    addresses.next().ok_or_else(|| "no address".into())
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "not a number")?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("must be between 0 and 1".into()) }
}

fn now(start: Instant) -> Time {
    Time::ZERO + start.elapsed()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Datagrams that may wait on their way, per direction; further ones wait in the socket, where the system drops them.
/// Judgement: two seconds of 300 Mb/s.
const QUEUE_MAX: usize = 65_536;
const DATAGRAM_BYTES_MAX: usize = 65_536;
const SOCKET_BUFFER_BYTES: usize = 8 << 20;
const IDLE: Duration = Duration::from_secs(1);
