//! The floor of the machine: receive, send to everybody, nothing else.

use std::net::UdpSocket;

use crate::sys::{self, Batch, FanOut};

/// Datagrams taken in one receive call when nothing is put together for GSO.
const SLOTS: usize = 32;

/// `TRAIN PORT DESTINATION...`: with a train of 0 every datagram is an own message; with n the floor waits for n datagrams and
/// hands them to the kernel as one GSO send for each destination.
pub(crate) fn main(args: &[String]) {
    let numbers: Vec<u16> = args.iter().map(|arg| arg.parse().expect("raw: TRAIN PORT DESTINATION...")).collect();
    let [train, port, destinations @ ..] = numbers.as_slice() else { panic!("raw: TRAIN PORT DESTINATION...") };
    let train = usize::from(*train);
    let socket = UdpSocket::bind(sys::loopback(*port)).unwrap();
    sys::ask_large_receive_buffer(&socket).unwrap();
    let out = UdpSocket::bind("127.0.0.1:0").unwrap();
    sys::ask_large_send_buffer(&out).unwrap();
    let destinations: Vec<_> = destinations.iter().map(|&port| sys::loopback(port)).collect();
    let slots = if train == 0 { SLOTS } else { train };
    let mut fan_out = FanOut::new(Batch::new(slots, 2048), &destinations);
    let mut filled = 0;
    loop {
        filled += fan_out.batch.receive(&socket, filled, true);
        if train == 0 {
            fan_out.send_each(&out, filled);
            filled = 0;
        } else if filled == train {
            fan_out.send_trains(&out, filled);
            filled = 0;
        }
    }
}
