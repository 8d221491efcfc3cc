//! What the packets show, against ffmpeg and ffprobe on clips that ffmpeg makes: codecs' headers, pictures, sound.
//!
//! Where ffmpeg is not installed tests are skipped with a loud line; `ANABRANCH_REQUIRE_PEERS=1` makes that a failure.
//! `ANABRANCH_CLIPS` names a folder with other clips (`*.ts`) that the same is asked of.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]
#![allow(clippy::print_stderr, reason = "what is skipped must be seen")]

mod clips;
mod content;
mod day;
mod edges;
mod metadata;
mod pictures;
mod quality;
mod sound;
mod stream;
mod watched;
