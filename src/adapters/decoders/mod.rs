//! Threads of low priority that decode what watches want to see, here or in processes of their own.
//!
//! Each thread has a `Bench`: where the work is done. `InProcess` does it right there and catches panics;
//! `Apart` has a process of its own do it, which may crash, and is killed when it does not come to an end. All that is
//! kept of a stream is kept by one thread.

mod apart;
mod pool;
mod system;
mod worker;

pub(super) use apart::Apart;
pub(super) use pool::{Bench, Deliver, InProcess, Pool};
pub(super) use system::{cpu_time, lower_priority};
pub use worker::run_decode_worker;
