//! What receivers say about what a sender sends.

use super::ntp;
use super::rtcp::{Compound, ReportBlocks, Rtcp};
use crate::proto::{Datagram, Port, Stats};
use crate::units::Time;

/// Reads receivers' reports about one sender.
#[derive(Clone, Copy, Debug)]
pub(super) struct Feedback {
    pub(super) ssrc: u32,
    pub(super) unix_ns_at_zero: u64,
}

impl Feedback {
    /// Takes in what came from a receiver.
    pub(super) fn handle(&self, datagram: &Datagram, stats: &mut Stats) {
        if datagram.port != Port::Control {
            stats.unexpected += 1;
            return;
        }
        for packet in Compound::new(&datagram.packet) {
            match packet {
                Ok(Rtcp::SenderReport { reports, .. } | Rtcp::ReceiverReport { reports, .. }) => {
                    self.handle_reports(datagram.packet.meta.arrival, reports, stats);
                }
                Ok(Rtcp::SourceDescription(_) | Rtcp::Goodbye(_) | Rtcp::Other { .. }) => {}
                Err(_) => stats.malformed += 1,
            }
        }
    }

    /// What a receiver says about us: loss, and the round trip from when our report left until its answer came, less
    /// the time it kept it (RFC 3550 6.4.1).
    fn handle_reports(&self, arrival: Time, reports: ReportBlocks<'_>, stats: &mut Stats) {
        for block in reports.iter().filter(|block| block.ssrc == self.ssrc) {
            stats.peer_fraction_lost = Some(block.fraction_lost);
            let arrival = ntp::middle(ntp::ntp_at(self.unix_ns_at_zero, arrival));
            let round_trip = arrival.wrapping_sub(block.last_sr).wrapping_sub(block.since_last_sr);
            // Rounding on both sides may put a short round trip just below zero.
            if block.last_sr != 0 && round_trip.cast_signed() >= -2 {
                stats.round_trip = Some(ntp::span_from_short(round_trip.cast_signed().max(0).cast_unsigned()));
            }
        }
    }
}
