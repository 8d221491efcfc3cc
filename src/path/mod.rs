//! What happens to a packet between source and outputs.

pub mod allow;
pub mod failover;

pub use allow::{AllowList, Cidr};
pub use failover::Failover;
