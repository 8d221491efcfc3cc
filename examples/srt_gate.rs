//! An SRT listener on a plain socket, whose gate knows a passphrase for each stream.
//!
//! `cargo run --example srt_gate [--seconds N]`, and a caller in another terminal:
//! `srt-live-transmit udp://:5000 'srt://127.0.0.1:9000?streamid=#!::r=news,m=publish&passphrase=the-secret-of-news'`.
#![allow(clippy::print_stdout, reason = "an example shows what it did")]

use std::collections::BTreeMap;
use std::error::Error;
use std::net::UdpSocket;
use std::time::Duration;

use anabranch::adapters::clock;
use anabranch::bus::{Meta, Pool, PoolLimits};
use anabranch::proto::srt::access::Mode;
use anabranch::proto::srt::crypto::Passphrase;
use anabranch::proto::srt::error::Rejection;
use anabranch::proto::srt::{Applicant, Config, Listener, Service, Terms};
use anabranch::proto::{Core, Datagram, Port};

fn main() -> Result<(), Box<dyn Error>> {
    let mut streams: BTreeMap<&str, Passphrase> = BTreeMap::new();
    streams.insert("news", "the-secret-of-news".parse()?);
    streams.insert("sports", "the-secret-of-sports".parse()?);
    let gate = move |applicant: &Applicant<'_>| {
        let access = applicant.access.ok_or(Rejection::BAD_REQUEST)?;
        if access.mode() != Some(Mode::Publish) {
            return Err(Rejection::BAD_MODE);
        }
        let passphrase = access.resource().and_then(|name| streams.get(name)).ok_or(Rejection::NOT_FOUND)?;
        Ok(Terms { passphrase: Some(passphrase.clone()), ..Terms::default() })
    };
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)?;
    let pool = Pool::new(PoolLimits::default());
    let core = Listener::new(Config::default(), Service::Receive, pool.clone(), secret).with_gate(gate);
    run(core, &pool)
}

/// What an adapter does, in small.
fn run(mut core: Listener, pool: &Pool) -> Result<(), Box<dyn Error>> {
    let socket = UdpSocket::bind("127.0.0.1:9000")?;
    socket.set_read_timeout(Some(Duration::from_millis(5)))?;
    let (mut buffer, mut packets, end) = ([0; 2_048], 0_u64, clock::now() + seconds());
    while clock::now() < end {
        if let Ok((len, peer)) = socket.recv_from(&mut buffer) {
            let arrival = clock::now();
            if let Some(packet) = pool.copy(&buffer[..len], Meta { arrival, ..Meta::default() }) {
                core.handle_datagram(arrival, Datagram { port: Port::Media, peer, packet });
            }
        }
        if core.poll_timeout().is_some_and(|due| due <= clock::now()) {
            core.handle_timeout(clock::now());
        }
        // Half a millisecond: a program with more to do has a thread for it.
        while let Some(work) = core.poll_work() {
            core.handle_done(clock::now(), work.run());
        }
        while let Some(transmit) = core.poll_transmit() {
            let bytes = [&transmit.header[..], transmit.payload.as_deref().unwrap_or_default()].concat();
            transmit.to.map(|to| socket.send_to(&bytes, to)).transpose()?;
        }
        packets += std::iter::from_fn(|| core.poll_packet()).count() as u64;
        while let Some(event) = core.poll_event() {
            println!("{packets} packets in, {event:?}");
        }
    }
    println!("{packets} packets in");
    Ok(())
}

/// Value of `--seconds`; without it, a day.
fn seconds() -> Duration {
    let mut words = std::env::args().skip_while(|word| word != "--seconds").skip(1);
    Duration::from_secs(words.next().and_then(|word| word.parse().ok()).unwrap_or(86_400))
}
