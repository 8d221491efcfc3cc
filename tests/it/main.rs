//! Integration tests: the whole product on real sockets and files, loopback only.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod api;
mod http;
