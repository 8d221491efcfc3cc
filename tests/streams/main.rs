//! Transport streams that we make and read, judged by ffmpeg and tsreport: what they made goes in, and every decoded frame
//! of what comes out is the same. Without the tools these tests say so and pass.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]
#![allow(clippy::print_stderr, reason = "a test without its tools must say so")]

mod bridge;
mod judge;
mod mux;
mod tools;
