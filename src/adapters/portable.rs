//! The plain way: one system call a datagram.

use std::io;
use std::net::SocketAddr;

use super::io::{Received, Sent};
use super::socket::UdpSocket;
use crate::bus::{Meta, Packet, Pool};
use crate::proto::Transmit;
use crate::units::Time;

pub(super) struct Portable {
    /// Any datagram fits.
    scratch: Vec<u8>,
}

impl Portable {
    pub(super) fn new() -> Self {
        Self { scratch: vec![0; Pool::LARGE] }
    }

    pub(super) fn receive(
        &mut self,
        socket: &UdpSocket,
        pool: &Pool,
        now: Time,
        sink: &mut dyn FnMut(SocketAddr, Packet),
    ) -> Received {
        let mut received = Received::default();
        for _ in 0..DATAGRAMS_MAX {
            match socket.io.recv_from(&mut self.scratch) {
                Ok((len, peer)) => {
                    let meta = Meta { arrival: now, ..Meta::default() };
                    match pool.copy(&self.scratch[..len], meta) {
                        Some(packet) => sink(peer, packet),
                        None => received.no_buffer += 1,
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return received,
                // An ICMP error that belongs to what was sent before; the next call goes on.
                Err(_) => {}
            }
        }
        received.more = true;
        received
    }

    pub(super) fn send(&mut self, socket: &UdpSocket, transmits: &[Transmit]) -> Sent {
        let mut sent = Sent::default();
        for transmit in transmits {
            let len = transmit.len();
            let (header, rest) = self.scratch.split_at_mut(transmit.header.len());
            header.copy_from_slice(&transmit.header);
            if let Some(payload) = &transmit.payload {
                rest[..payload.len()].copy_from_slice(payload);
            }
            let datagram = &self.scratch[..len];
            let result = match transmit.to {
                Some(to) if !socket.connected => socket.io.send_to(datagram, to),
                _ => socket.io.send(datagram),
            };
            if let Err(error) = result {
                sent.error = Some((error, 1));
                return sent;
            }
            sent.count += 1;
        }
        sent
    }
}

/// Datagrams per call, so that one busy socket does not keep the others waiting.
const DATAGRAMS_MAX: usize = 32;
