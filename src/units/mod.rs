//! Quantities with units and wrapping numbers; knows nothing else.

mod counter;
mod histogram;
mod id;
mod rate;
mod seq;
mod time;

pub use counter::{Counter, RateMeter};
pub use histogram::Histogram;
pub use id::{FlowId, IdError, OutputName, SourceName};
pub use rate::{Bitrate, DataSize, ParseRateError};
pub use seq::{Extender, Seq};
pub use time::{Ticks27M, Ticks90k, Time};
