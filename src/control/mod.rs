//! The product around the engine: REST API, store, events, metrics.

pub mod config;
pub mod events;
pub mod model;
pub mod problem;
pub mod store;
pub mod wanted;

use crate::engine::FlowSnapshot;
use serde_json::{Value, json};

/// stub
pub fn metrics_json(s: &FlowSnapshot) -> Value {
    json!({"sources": s.sources.iter().map(|x| json!({"name": x.name.as_str(), "packets": x.packets, "lost": x.lost, "kernel": x.drops.kernel})).collect::<Vec<_>>(),
     "outputs": s.outputs.iter().map(|x| json!({"name": x.name.as_str(), "packets": x.packets, "gso": x.gso_packets})).collect::<Vec<_>>()})
}
