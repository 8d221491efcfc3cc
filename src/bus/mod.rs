//! Packets in memory: buffer pool, lock-free ring, subscribers, windows by sequence number.
//!
//! A datagram is received into a [`Buffer`] of the [`Pool`], becomes a [`Packet`] (a refcounted slice with typed
//! metadata) and is published on a flow's ring. The ring has one [`Publisher`]; readers on the publisher's own
//! thread borrow packets through a [`LocalCursor`], readers anywhere else hold a [`Subscriber`].
//!
//! Memory is bounded by the pool, the publisher never waits, and a reader that falls behind learns how many packets it
//! missed. Who puts packets in order, or joins those of several ways, holds them in a [`Window`].

#[cfg(all(test, loom))]
mod model;
mod packet;
mod pool;
mod ring;
mod skip;
mod subscriber;
mod sync;
mod window;

pub use packet::{Meta, Packet};
pub use pool::{Buffer, Pool, PoolLimits, PoolUse};
pub use ring::{BorrowedPacket, LocalCursor, Publisher};
pub use skip::{SKIP_MAX, SkipStats};
pub use subscriber::{Ended, LagPolicy, Lent, Subscribe, Subscriber};
pub use window::{Place, Window};
