//! What happens to a packet between source and outputs.

pub mod allow;

pub use allow::{AllowList, Cidr};
