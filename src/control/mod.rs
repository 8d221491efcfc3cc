//! The product around the engine: REST API, store, events, metrics.

pub mod config;
pub mod events;
pub mod figures;
pub mod manager;
pub mod model;
pub mod problem;
pub mod store;
pub mod wanted;

pub use figures::metrics_json;
