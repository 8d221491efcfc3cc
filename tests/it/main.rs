//! The engine and the command line on real sockets: loopback, and network namespaces where the system permits them.
//!
//! Peers that are not installed are skipped with a loud line; `ANABRANCH_REQUIRE_PEERS=1` makes that a failure.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]
#![allow(clippy::print_stderr, reason = "what is skipped must be seen")]

mod cases;
mod change;
mod failover;
mod guard;
mod idle;
mod isolation;
mod multicast;
mod network;
mod proxy;
mod rtp;
mod support;
mod udp;
