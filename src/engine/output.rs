//! Opens the adapter of an output, and decides when it reads from the ring.

use std::net::SocketAddr;
use std::time::Duration;

use super::config::{OutputConfig, OutputEndpoint};
use super::monitor::Tap;
use super::resolver::{Addresses, Opened};
use super::supervisor::Mode;
use crate::adapters::srt::EndpointConfig;
use crate::adapters::{Admission, Context, Driven, OpenError, Ports, Tuning, clock};
use crate::bus::{LagPolicy, LocalCursor, Pool, Publisher};
use crate::path::Limiter;
use crate::proto;
use crate::units::{OutputName, Time};

/// Opens what the configuration asks for, at the address that its name was looked up to. Of several legs those will do that
/// can be opened, unless `mode` is strict.
pub(super) fn open(config: &OutputConfig, addresses: &Addresses, (pool, ports): (&Pool, &Ports), mode: Mode) -> Opened {
    if !config.enabled {
        return Opened::Disabled;
    }
    let destination = config.endpoint.destination();
    match addresses.find(destination) {
        None => Opened::Nameless(destination.host.to_string()),
        Some(Err(error)) => Opened::Failed(error),
        Some(Ok(address)) => open_at(config, address, (pool, ports), mode).map_or_else(Opened::Failed, Opened::Ready),
    }
}

/// Whether the legs of an output can be opened; nothing is kept.
pub(super) fn check_legs(config: &OutputConfig) -> Result<(), OpenError> {
    match &config.endpoint {
        OutputEndpoint::Rtp(rtp) if config.enabled => rtp.check_legs(),
        OutputEndpoint::Rtp(_)
        | OutputEndpoint::Udp(_)
        | OutputEndpoint::Srt(_)
        | OutputEndpoint::Rist(_)
        | OutputEndpoint::Rtmp(_) => Ok(()),
    }
}

fn open_at(
    config: &OutputConfig,
    address: SocketAddr,
    (pool, ports): (&Pool, &Ports),
    mode: Mode,
) -> Result<Box<dyn Driven>, OpenError> {
    let limiter = config.limit.map(|limit| Limiter::new(limit, clock::now()));
    Ok(match &config.endpoint {
        OutputEndpoint::Udp(udp) => Box::new(udp.open(address, limiter)?),
        OutputEndpoint::Rtp(rtp) => rtp.open(address, pool, limiter, mode == Mode::Strict)?,
        OutputEndpoint::Srt(srt) => {
            srt.open_output(address, pool, Admission { allow: config.allow.clone(), limiter })?
        }
        OutputEndpoint::Rist(rist) => {
            rist.open_output(address, pool, Admission { allow: config.allow.clone(), limiter })?
        }
        OutputEndpoint::Rtmp(rtmp) => {
            rtmp.open_output(address, ports, Admission { allow: config.allow.clone(), limiter })?
        }
    })
}

impl OutputEndpoint {
    /// The protocol's name in metrics.
    #[must_use]
    pub const fn protocol(&self) -> &'static str {
        match self {
            Self::Udp(_) => "udp",
            Self::Rtp(rtp) if rtp.sender.fec.is_some() => "rtp-fec",
            Self::Rtp(_) => "rtp",
            Self::Srt(_) => "srt",
            Self::Rist(_) => "rist",
            Self::Rtmp(_) => "rtmp",
        }
    }

    /// Whether it may become `other` while it is open by changing legs, and differs from it.
    #[must_use]
    pub fn differs_in_legs_only(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Rtp(old), Self::Rtp(new)) => old.differs_in_legs_only(new),
            (Self::Udp(_) | Self::Rtp(_) | Self::Srt(_) | Self::Rist(_) | Self::Rtmp(_), _) => false,
        }
    }

    /// What of it may change while it is open, if that is all that differs from `other`, and something does.
    #[must_use]
    pub fn tuning_from(&self, other: &Self) -> Option<Tuning> {
        match (self, other) {
            (Self::Srt(new), Self::Srt(old)) => srt_tuning(new, old),
            (Self::Udp(_) | Self::Rtp(_) | Self::Srt(_) | Self::Rist(_) | Self::Rtmp(_), _) => None,
        }
    }
}

/// See [`OutputEndpoint::tuning_from`]; the same for sources.
pub(super) fn srt_tuning(new: &EndpointConfig, old: &EndpointConfig) -> Option<Tuning> {
    (new != old && old.differs_in_tuning_only(new)).then(|| Tuning::Core(proto::Tuning::Srt(new.tuning())))
}

/// An output of a running flow. Its queue is the ring: it reads when it may send, and not before.
pub(super) struct RunningOutput {
    pub(super) name: OutputName,
    pub(super) driver: Box<dyn Driven>,
    coalesce: Duration,
    cursor: LocalCursor,
    tap: Option<Tap>,
}

impl RunningOutput {
    /// Starts with the next packet.
    pub(super) fn new(config: &OutputConfig, driver: Box<dyn Driven>, publisher: &Publisher) -> Self {
        let (name, coalesce) = (config.name.clone(), config.coalesce);
        let mut output = Self { name, driver, coalesce, cursor: LocalCursor::at_head(publisher), tap: None };
        output.set_reading(coalesce, config.policy);
        output
    }

    /// How long packets may be held back, and what it does when it falls behind, from now on.
    pub(super) const fn set_reading(&mut self, coalesce: Duration, policy: LagPolicy) {
        self.coalesce = coalesce;
        self.cursor.set_policy(policy);
    }

    /// Whether it needs to know in which packets key frames begin.
    pub(super) const fn goes_on_at_key_frames(&self) -> bool {
        self.cursor.goes_on_at_key_frames()
    }

    /// Sends what is due; returns the lowest index that it still wants.
    pub(super) fn pump(&mut self, cx: &mut Context<'_>, publisher: &Publisher) -> u64 {
        if self.due_at(publisher).is_some_and(|due| due <= cx.now) {
            self.send(cx, publisher);
        }
        if let Some(tap) = &mut self.tap {
            tap.handle_timeout(cx.now);
        }
        self.cursor.next()
    }

    fn send(&mut self, cx: &mut Context<'_>, publisher: &Publisher) {
        let from = self.tap.is_some().then(|| self.cursor.clone());
        self.driver.send_from(cx, publisher, &mut self.cursor);
        if let Some((tap, from)) = self.tap.as_mut().zip(from) {
            tap.handle_taken(cx.now, publisher, from, &self.cursor);
        }
    }

    /// Has what it takes to send analysed from now on, or no longer; an analysis that goes on keeps what it counted.
    pub(super) fn watch(&mut self, now: Time, is_wanted: bool) {
        self.tap = is_wanted.then(|| self.tap.take().unwrap_or_else(|| Tap::new(now)));
    }

    /// The analysis, if there is one.
    pub(super) const fn tap(&self) -> Option<&Tap> {
        self.tap.as_ref()
    }

    /// Sends what it was holding back, and then says goodbye.
    pub(super) fn close(&mut self, cx: &mut Context<'_>, publisher: &Publisher) {
        self.send(cx, publisher);
        self.driver.close(cx);
    }

    /// When the flow shall run for this output's sake.
    pub(super) fn poll_timeout(&self, publisher: &Publisher) -> Option<Time> {
        // A blocked one waits for its socket.
        let due = if self.driver.is_blocked() { None } else { self.due_at(publisher) };
        [due, self.driver.poll_timeout(), self.tap.as_ref().and_then(Tap::poll_timeout)].into_iter().flatten().min()
    }

    /// How long packets may be held back before they reach it.
    pub(super) fn patience(&self) -> Duration {
        self.coalesce.max(self.driver.patience())
    }

    /// When the output wants to read what is in the ring.
    fn due_at(&self, publisher: &Publisher) -> Option<Time> {
        let unread = self.cursor.unread(publisher);
        if unread == 0 {
            None
        } else if self.coalesce.is_zero() || unread >= COALESCED_PACKETS_MAX.min(publisher.capacity() as u64 / 2) {
            Some(Time::ZERO)
        } else {
            self.cursor.oldest_arrival(publisher).map(|arrival| arrival + self.coalesce)
        }
    }
}

/// As many packets of 1316 bytes as one segmented send can carry: waiting for more would gain nothing.
const COALESCED_PACKETS_MAX: u64 = 49;
