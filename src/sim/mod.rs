//! Virtual time and a virtual network for tests, benches and fuzzing.
//!
//! A [`net::Network`] runs any number of cores against each other over [`link::Link`]s that lose, delay, reorder and
//! duplicate. Nothing reads a clock and all chance comes from one seed: the same seed gives the same events, bit for
//! bit. Slow reference models stand beside the tests that use them.

pub mod link;
pub mod loss;
pub mod net;
pub mod traffic;
