//! Sockets, clock and threads around the cores.

mod accept;
mod alarm;
mod background;
#[cfg(target_os = "linux")]
mod batched;
pub mod clock;
mod counters;
#[cfg(feature = "media")]
pub mod decoders;
mod driven;
mod driver;
mod gather;
mod guests;
mod host;
mod io;
mod legs;
mod portable;
mod ports;
pub mod rist;
pub mod rtmp;
pub mod rtp;
mod socket;
pub mod srt;
mod stream;
mod stream_driver;
mod system;
pub mod tls;
pub mod udp;
#[cfg(feature = "media")]
pub mod watchers;
mod worker;

pub use accept::{AcceptHook, Arrival};
pub use counters::{CoreCounters, Counters, DetailCounters};
pub use driven::{Admission, Driven, DriverEvent, SendFailure, Tuning};
pub use driver::{Driver, SOCKETS_MAX};
pub use host::{Host, HostPort, ParseHostError};
pub use io::IoKind;
pub use legs::{LEGS_MAX, LegConfig, LegError, LegView};
pub use ports::Ports;
pub use socket::{Granted, Interface, OpenError, ParseInterfaceError, SocketOptions, UdpSocket};
pub use system::raise_descriptor_limit;
pub use worker::{Actor, ActorKey, Commands, Context, Ready, SocketKey, Worker};
