//! What happens to a packet between source and outputs.
//!
//! A packet's peer is checked against an [`AllowList`], its rate by a [`Limiter`], and [`Failover`] says whether its
//! source is the one in use, or a [`Merger`] joins what all of them bring. What passes goes on the flow's ring, from which every output reads for itself.

pub mod allow;
pub mod failover;
pub mod health;
pub mod limit;
pub mod merge;

pub use allow::{AllowList, Cidr};
pub use failover::Failover;
pub use limit::Limiter;
pub use merge::Merger;
