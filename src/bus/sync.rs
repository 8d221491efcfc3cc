//! Atomics: the real ones, or loom's under `cfg(loom)`.

#[cfg(not(loom))]
mod real {
    pub(crate) use atomic_waker::AtomicWaker;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};
    pub(crate) use std::sync::{Arc, Mutex};
}

#[cfg(loom)]
mod real {
    pub(crate) use loom::future::AtomicWaker;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};
    pub(crate) use loom::sync::{Arc, Mutex};
}

pub(crate) use real::*;
