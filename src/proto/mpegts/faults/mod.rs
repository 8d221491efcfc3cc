//! Faults on purpose: one for each alarm, put into a clean stream so that the alarm can be seen.
//!
//! ```text
//!  Generator, TestPicture ──► clean packets ──► Faults ──► as many packets, some of them wrong
//! ```
//!
//! What is taken out becomes a null packet, what is put in takes the place of one: rate and PCR stay as they were, and
//! unless continuity is the fault, counters go on without a gap. The same seed makes the same stream. Which indicators
//! of TR 101 290 each [`Fault`] raises stands with it; where there are two, one cannot be without the other.

mod others;
mod schedule;
mod stage;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::bus::Packet;
use crate::proto::{Core, Datagram, Event, Stats, Transmit};
use crate::units::Time;

pub use schedule::{PERIOD_MAX, SPAN_MIN, Schedule, ScheduleError};
pub use stage::Faults;

/// A way to be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The picture is black.
    Black,
    /// The picture stands still, clock and marker with it.
    Freeze,
    /// The tone is away; its stream goes on.
    Silence,
    /// The picture's packets are away, but for those with PCR, so that only 2.5 tells.
    NoVideo,
    /// The tone's packets are away: 1.6 after 5 s, and 2.5, as there is no PTS without them.
    NoAudio,
    /// Two sync bytes in a row are wrong, five times a second: 1.1, and 1.2, which counts each of them.
    SyncLoss,
    /// A sync byte is wrong, five times a second: 1.2.
    Sync,
    /// No PAT: 1.3.
    PatGap,
    /// A packet is lost, five times a second: 1.4.
    Cc,
    /// No PMT: 1.5.
    PmtGap,
    /// The PMT lists another sound, which never comes: 1.6 after 5 s.
    PidMissing,
    /// `transport_error_indicator`, five times a second: 2.1.
    Tei,
    /// A PMT with a wrong CRC, five times a second: 2.2.
    Crc,
    /// No PCR: 2.3a, and 2.3b, which is the same distance measured by the values of PCR.
    PcrGap,
    /// PCR jumps ahead by a second and, a second later, back, unannounced: 2.3b.
    PcrJump,
    /// PCR is wrong by up to so much, 10 us unless said: 2.4. With more than 30 us many analysers, ours too, take the rate for
    /// a varying one and measure no accuracy.
    PcrJitter,
    /// Pictures without PTS: 2.5.
    PtsGap,
    /// Packets that say they are scrambled, and no CAT: 2.6.
    Scrambled,
    /// No NIT, for which a receiver waits 10 s: 3.1a.
    NitGap,
    /// A NIT of another network comes, and then every 15 s only, for which a receiver waits 10 s: 3.1b.
    NitOtherGap,
    /// Each SDT at once again: 3.2.
    SiRepetition,
    /// More on the PMT's PID than a decoder's buffers for tables hold, five times a second: 3.3. It takes the place of 20 null
    /// packets.
    BufferOverflow,
    /// A PID that no table refers to: 3.4.
    Unreferenced,
    /// No SDT, for which a receiver waits 2 s: 3.5a.
    SdtGap,
    /// An SDT of another stream comes, and then every 15 s only, for which a receiver waits 10 s: 3.5b.
    SdtOtherGap,
    /// No EIT, for which a receiver waits 2 s: 3.6a.
    EitGap,
    /// Of EIT only present events, and no following ones, for which a receiver waits 2 s: 3.6a and 3.6c.
    EitPfGap,
    /// An EIT of another stream comes, and then every 15 s only, for which a receiver waits 10 s: 3.6b.
    EitOtherGap,
    /// RST sections one upon the other, five times a second: 3.7.
    Rst,
    /// No TDT, for which a receiver waits 30 s: 3.8.
    TdtGap,
    /// As many packets on the tone's PID, most of them empty, as keep its transport buffer from being empty: 3.9 after a second.
    /// Of 6 Mb/s and more, as it takes 2 Mb/s and leaves no gap.
    EmptyBuffer,
    /// Pictures that are decoded and shown 11 s later: 3.10. Analysers that allow 1 s for H.264 see it as well.
    DataDelay,
}

impl Fault {
    /// All of them: pictures and sound first, then in the order of TR 101 290.
    pub const ALL: [Self; 32] = [
        Self::Black,
        Self::Freeze,
        Self::Silence,
        Self::NoVideo,
        Self::NoAudio,
        Self::SyncLoss,
        Self::Sync,
        Self::PatGap,
        Self::Cc,
        Self::PmtGap,
        Self::PidMissing,
        Self::Tei,
        Self::Crc,
        Self::PcrGap,
        Self::PcrJump,
        Self::PcrJitter,
        Self::PtsGap,
        Self::Scrambled,
        Self::NitGap,
        Self::NitOtherGap,
        Self::SiRepetition,
        Self::BufferOverflow,
        Self::Unreferenced,
        Self::SdtGap,
        Self::SdtOtherGap,
        Self::EitGap,
        Self::EitPfGap,
        Self::EitOtherGap,
        Self::Rst,
        Self::TdtGap,
        Self::EmptyBuffer,
        Self::DataDelay,
    ];

    /// As it is written in URLs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Black => "black",
            Self::Freeze => "freeze",
            Self::Silence => "silence",
            Self::NoVideo => "no_video",
            Self::NoAudio => "no_audio",
            Self::SyncLoss => "sync_loss",
            Self::Sync => "sync",
            Self::PatGap => "pat_gap",
            Self::Cc => "cc",
            Self::PmtGap => "pmt_gap",
            Self::PidMissing => "pid_missing",
            Self::Tei => "tei",
            Self::Crc => "crc",
            Self::PcrGap => "pcr_gap",
            Self::PcrJump => "pcr_jump",
            Self::PcrJitter => "pcr_jitter",
            Self::PtsGap => "pts_gap",
            Self::Scrambled => "scrambled",
            Self::NitGap => "nit_gap",
            Self::NitOtherGap => "nit_other_gap",
            Self::SiRepetition => "si_repetition",
            Self::BufferOverflow => "buffer_overflow",
            Self::Unreferenced => "unreferenced",
            Self::SdtGap => "sdt_gap",
            Self::SdtOtherGap => "sdt_other_gap",
            Self::EitGap => "eit_gap",
            Self::EitPfGap => "eit_pf_gap",
            Self::EitOtherGap => "eit_other_gap",
            Self::Rst => "rst",
            Self::TdtGap => "tdt_gap",
            Self::EmptyBuffer => "empty_buffer",
            Self::DataDelay => "data_delay",
        }
    }

    /// The fault of that name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.name() == name)
    }

    /// Whether there is nothing in the numbered stream that it could spoil.
    #[must_use]
    pub const fn needs_picture(self) -> bool {
        matches!(
            self,
            Self::Black
                | Self::Freeze
                | Self::Silence
                | Self::NoVideo
                | Self::NoAudio
                | Self::PtsGap
                | Self::NitGap
                | Self::SiRepetition
                | Self::SdtGap
                | Self::EitGap
                | Self::EitPfGap
                | Self::TdtGap
                | Self::EmptyBuffer
                | Self::DataDelay
        )
    }
}

/// Which faults there are, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    schedules: [Option<Schedule>; Fault::ALL.len()],
    jitter: Duration,
}

impl Default for Config {
    /// None.
    fn default() -> Self {
        Self { schedules: [None; Fault::ALL.len()], jitter: JITTER }
    }
}

impl Config {
    /// Sets a fault as it is written: a [`Schedule`], nothing for always. PCR jitter also takes how much, or both:
    /// `20us`, `20us@1s/10s`.
    ///
    /// # Errors
    /// If it is not written so, or the jitter is none from 1 us to [`JITTER_MAX`].
    pub fn set(&mut self, fault: Fault, text: &str) -> Result<(), ConfigError> {
        let (amount, schedule) = match text.split_once('@') {
            Some((amount, schedule)) => (Some(amount), schedule),
            None if text.ends_with("us") && !text.contains('/') => (Some(text), "always"),
            None => (None, text),
        };
        let schedule = schedule.parse().map_err(|_| ConfigError::of(fault))?;
        if let Some(amount) = amount {
            let amount = schedule::read_span(amount).filter(|amount| (JITTER_MIN..=JITTER_MAX).contains(amount));
            self.jitter = amount.filter(|_| fault == Fault::PcrJitter).ok_or_else(|| ConfigError::of(fault))?;
        }
        if let Some(slot) = self.schedules.get_mut(fault as usize) {
            *slot = Some(schedule);
        }
        Ok(())
    }

    /// When a fault is on, if there is to be one.
    #[must_use]
    pub fn schedule(&self, fault: Fault) -> Option<Schedule> {
        self.schedules.get(fault as usize).copied().flatten()
    }

    /// For how long a fault has been on; `None` while it is not.
    #[must_use]
    pub fn on_for(&self, fault: Fault, elapsed: Duration) -> Option<Duration> {
        self.schedule(fault)?.on_for(elapsed)
    }

    /// Whether there is any.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.schedules.iter().any(Option::is_some)
    }
}

/// Why a fault cannot be as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not a schedule.
    #[error("always, or how long in how long, as 5s/60s: 100ms and more, in less than 24h")]
    Schedule,
    /// Neither a schedule nor how much, nor both.
    #[error("1us to 1ms, as 20us, or with a schedule behind it, as 20us@1s/10s")]
    Jitter,
}

impl ConfigError {
    const fn of(fault: Fault) -> Self {
        if matches!(fault, Fault::PcrJitter) { Self::Jitter } else { Self::Schedule }
    }
}

/// A source with faults behind it. Not for others than [`Generator`](super::Generator) and
/// [`TestPicture`](super::TestPicture): their PIDs are taken for granted.
#[derive(Debug)]
pub struct Faulty<C> {
    core: C,
    faults: Faults,
}

impl<C: Core> Faulty<C> {
    /// `core` with `config`'s faults; `seed` makes the jitter.
    #[must_use]
    pub fn new(core: C, config: Config, seed: u64) -> Self {
        Self { core, faults: Faults::new(config, seed) }
    }
}

impl<C: Core> Core for Faulty<C> {
    fn handle_datagram(&mut self, now: Time, datagram: Datagram) {
        self.core.handle_datagram(now, datagram);
    }

    fn handle_packet(&mut self, now: Time, packet: &Packet) {
        self.core.handle_packet(now, packet);
    }

    fn handle_timeout(&mut self, now: Time) {
        self.core.handle_timeout(now);
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.core.poll_transmit()
    }

    fn poll_packet(&mut self) -> Option<Packet> {
        let mut packet = self.core.poll_packet()?;
        let at = packet.meta.arrival;
        // It was made a moment ago: nobody else has it.
        if let Some(bytes) = packet.bytes_mut() {
            bytes.as_chunks_mut().0.iter_mut().for_each(|ts_packet| self.faults.apply(at, ts_packet));
        }
        Some(packet)
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.core.poll_event()
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.core.poll_timeout()
    }

    fn stats(&self) -> Stats {
        self.core.stats()
    }
}

/// Twenty times what is allowed. Judgement.
const JITTER: Duration = Duration::from_micros(10);
const JITTER_MIN: Duration = Duration::from_micros(1);
/// Most that PCR can be made wrong by. Judgement: two thousand times what is allowed.
pub const JITTER_MAX: Duration = Duration::from_millis(1);
