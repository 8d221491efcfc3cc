//! Live-media transport: any protocol in, any protocol out, every lost packet counted with its reason.
//!
//! The crate is one house. Folders import only downwards, and this table is the rule book that
//! `tests/tidy.rs` enforces:
//!
//! | folder | what lives there | may use |
//! |---|---|---|
//! | `units` | time, rates, sequence numbers, ids, counters | nothing |
//! | `bus` | packet, buffer pool, lock-free ring, subscribers | units |
//! | `proto` | sans-IO protocol cores: RTP, its FEC, SRT, RIST, RTMP, transport stream | units, bus |
//! | `path` | what happens between source and outputs: failover, merging, limits, allow-lists | units, bus |
//! | `media` | what packets show: streams, pictures, sound (feature `media`) | units, bus, proto |
//! | `sim` | virtual time, virtual network, reference models (feature `sim`) | units, bus, proto, path |
//! | `adapters` | sockets, clock, workers around the cores | units, bus, proto, path, media |
//! | `engine` | runs flows: wanted configuration in, running flows and events out | units, bus, proto, path, media, adapters |
//! | `control` | the product: REST API, store, events, metrics | units, bus, proto, path, media, adapters, engine |
//! | `ui` | command line | units, bus, proto, path, media, adapters, engine, control |
//!
//! Without features only `units`, `bus`, `proto` and `path` are built: no runtime, no C code, no clock.

#[cfg(feature = "engine")]
pub mod adapters;
pub mod bus;
#[cfg(feature = "control")]
pub mod control;
#[cfg(feature = "engine")]
pub mod engine;
#[cfg(feature = "media")]
pub mod media;
pub mod path;
pub mod proto;
#[cfg(feature = "sim")]
pub mod sim;
#[cfg(feature = "cli")]
pub mod ui;
pub mod units;
