//! Threads of low priority that decode what watches want to see, here or in processes of their own.
//!
//! Each thread has a `Bench`: where the work is done. `InProcess` does it right there and catches panics;
//! `Apart` has a process of its own do it, which may crash, and is killed when it does not come to an end. What is kept of a
//! stream's pictures is kept by one thread, and what is kept of its sound by one that has nothing to do with pictures.

mod apart;
mod pool;
mod suspects;
mod system;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
mod worker;

pub(super) use apart::Apart;
pub(super) use pool::{Bench, Deliver, InProcess, Pool};
pub(super) use system::{cpu_time, lower_priority};
pub use worker::run_decode_worker;
