//! Integration tests: the whole product on real sockets and files, on loopback and in network namespaces of their own.
//!
//! Peers that are not installed are skipped with a loud line; `ANABRANCH_REQUIRE_PEERS=1` makes that a failure.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]
#![allow(clippy::print_stderr, reason = "what is skipped must be seen")]

#[cfg(unix)]
mod alarms;
mod api;
mod cases;
mod change;
#[cfg(unix)]
mod cli;
mod embed;
#[cfg(unix)]
mod eyes;
mod failover;
mod fec;
#[cfg(unix)]
mod generate;
mod guard;
#[cfg(unix)]
mod hostile;
mod http;
mod idle;
mod isolation;
#[path = "../streams/judge.rs"]
mod judge;
mod keyframe;
#[cfg(unix)]
mod legs;
mod merge;
mod multicast;
mod network;
mod peers;
#[cfg(unix)]
mod probe;
#[cfg(unix)]
mod process;
mod proxy;
mod rist;
mod rist_srp;
mod rtmp;
mod rtmp_bad;
mod rtmp_clean;
mod rtmp_line;
mod rtmp_moves;
mod rtmp_tune;
#[cfg(feature = "tls")]
mod rtmps;
mod rtp;
mod rules;
mod srt;
mod srt_peers;
mod support;
mod udp;
#[cfg(target_os = "linux")]
mod worker;
