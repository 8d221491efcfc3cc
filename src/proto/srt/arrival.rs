//! How fast packets arrive, and how fast the link could carry them: the estimates of a full ACK (draft 3.2.4, 5.2.1.3;
//! windows and filters as in libsrt 1.5).

use std::time::Duration;

use crate::units::Time;

/// Intervals between the latest packets, and within the latest pairs of them.
#[derive(Debug)]
pub(super) struct Arrivals {
    payload_max: usize,
    last: Time,
    intervals_us: [u32; INTERVALS],
    payload_bytes: [u32; INTERVALS],
    at: usize,
    pairs_us: [u32; PAIRS],
    pair_at: usize,
    /// The first packet of a pair, if the next packet may be its second.
    first: Option<(u64, Time)>,
}

impl Arrivals {
    /// Starts at `now` for payloads of up to `payload_max` bytes. Until it knows better it says what libsrt does: one
    /// packet a second on a link for a thousand.
    pub(super) const fn new(payload_max: usize, now: Time) -> Self {
        Self {
            payload_max,
            last: now,
            intervals_us: [1_000_000; INTERVALS],
            payload_bytes: [payload_max as u32; INTERVALS],
            at: 0,
            pairs_us: [1_000; PAIRS],
            pair_at: 0,
            first: None,
        }
    }

    /// A packet with a payload of `bytes` came at `arrival`, for the first time and in order or not.
    pub(super) fn insert(&mut self, sequence: u64, arrival: Time, bytes: usize, is_in_order: bool) {
        self.intervals_us[self.at] = micros(arrival.since(self.last));
        self.payload_bytes[self.at] = bytes as u32;
        self.at = (self.at + 1) % INTERVALS;
        self.last = arrival;
        match sequence % PAIR_EVERY {
            0 if is_in_order => self.first = Some((sequence, arrival)),
            1 if is_in_order => self.insert_second(sequence, arrival, bytes),
            _ => self.first = None,
        }
    }

    /// Packets and bytes, with headers, that arrive in a second; zero while that is too uneven to say.
    pub(super) fn rates(&self) -> (u32, u32) {
        let median = median(self.intervals_us);
        let (mut sum_us, mut count, mut bytes) = (0, 0, 0);
        for (interval, payload) in self.intervals_us.iter().zip(&self.payload_bytes) {
            // Where several packets are received at once, most intervals are zero: then all of them count.
            if median == 0 || is_near(*interval, median) {
                sum_us += u64::from(*interval);
                count += 1;
                bytes += u64::from(*payload) + HEADERS_BYTES;
            }
        }
        if count <= INTERVALS as u64 / 2 {
            return (0, 0);
        }
        (per_second(count, sum_us), per_second(bytes, sum_us))
    }

    /// Packets of full size in a second that the link could carry.
    pub(super) fn capacity(&self) -> u32 {
        let median = median(self.pairs_us);
        let near = self.pairs_us.iter().filter(|interval| is_near(**interval, median));
        let (sum_us, count) = near.fold((u64::from(median), 1), |(sum, count), us| (sum + u64::from(*us), count + 1));
        per_second(count, sum_us)
    }

    /// The second packet of a pair: senders leave no pause between every 16th packet and the next.
    fn insert_second(&mut self, sequence: u64, arrival: Time, bytes: usize) {
        let Some((first, at)) = self.first.take() else {
            return;
        };
        let us = micros(arrival.since(at));
        // Received in one go: that says nothing of the link.
        if first + 1 != sequence || us == 0 || bytes == 0 {
            return;
        }
        let full_us = u64::from(us) * self.payload_max as u64 / bytes as u64;
        self.pairs_us[self.pair_at] = u32::try_from(full_us).unwrap_or(u32::MAX).max(1);
        self.pair_at = (self.pair_at + 1) % PAIRS;
    }
}

/// Between an eighth and eight times the median.
const fn is_near(interval: u32, median: u32) -> bool {
    interval > median / 8 && (interval as u64) < median as u64 * 8
}

fn median<const LEN: usize>(mut window: [u32; LEN]) -> u32 {
    *window.select_nth_unstable(LEN / 2).1
}

fn per_second(amount: u64, us: u64) -> u32 {
    (amount * 1_000_000).checked_div(us).map_or(0, |rate| u32::try_from(rate).unwrap_or(u32::MAX))
}

fn micros(span: Duration) -> u32 {
    u32::try_from(span.as_micros()).unwrap_or(u32::MAX)
}

const INTERVALS: usize = 16;
const PAIRS: usize = 64;

/// Every 16th packet starts a pair.
const PAIR_EVERY: u64 = 16;

/// IPv4, UDP and SRT headers, which libsrt counts on any network.
const HEADERS_BYTES: u64 = 20 + 8 + 16;

#[cfg(test)]
mod tests {
    use super::*;

    const PAYLOAD: usize = 1_456;

    #[test]
    fn before_anything_came_it_says_what_libsrt_says() {
        let arrivals = Arrivals::new(PAYLOAD, Time::ZERO);
        assert_eq!(arrivals.rates(), (1, 1_500));
        assert_eq!(arrivals.capacity(), 1_000);
    }

    #[test]
    fn even_packets_show_their_rate_and_pairs_the_link() {
        let mut arrivals = Arrivals::new(PAYLOAD, Time::ZERO);
        let mut now = Time::ZERO;
        for sequence in 1..4_000 {
            now += Duration::from_micros(if sequence % 16 == 1 { 100 } else { 500 });
            arrivals.insert(sequence, now, 1_316, true);
        }
        let (packets, bytes) = arrivals.rates();
        assert!((1_999..=2_106).contains(&packets), "{packets}");
        assert_eq!(bytes / packets, 1_360);
        // Full-sized packets would take 110 µs.
        assert_eq!(arrivals.capacity(), 1_000_000 / 110);
    }

    #[test]
    fn a_pause_is_left_out() {
        let mut arrivals = Arrivals::new(PAYLOAD, Time::ZERO);
        let mut now = Time::ZERO;
        for sequence in 0..15 {
            now += Duration::from_millis(if sequence == 7 { 5_000 } else { 1 });
            arrivals.insert(sequence, now, 1_316, true);
        }
        arrivals.insert(15, now + Duration::from_millis(1), 1_316, true);
        assert_eq!(arrivals.rates().0, 1_000);
    }

    #[test]
    fn packets_received_in_one_go_still_have_a_rate_and_say_nothing_of_the_link() {
        let mut arrivals = Arrivals::new(PAYLOAD, Time::ZERO);
        for sequence in 0..1_600 {
            let at = Time::ZERO + Duration::from_millis(1 + sequence / 8 * 8);
            arrivals.insert(sequence, at, 1_316, true);
        }
        assert_eq!(arrivals.rates().0, 1_000);
        assert_eq!(arrivals.capacity(), 1_000);
        let at = Time::ZERO + Duration::from_secs(10);
        (0..16).for_each(|sequence| arrivals.insert(sequence, at, 0, true));
        (0..16).for_each(|sequence| arrivals.insert(sequence, at, 0, true));
        assert_eq!(arrivals.rates(), (0, 0));
    }

    #[test]
    fn a_pair_broken_by_loss_or_retransmission_does_not_count() {
        let mut arrivals = Arrivals::new(PAYLOAD, Time::ZERO);
        for pair in 0..PAIRS as u64 {
            let at = Time::ZERO + Duration::from_millis(pair);
            arrivals.insert(pair * 16, at, PAYLOAD, true);
            arrivals.insert(pair * 16 - 8 * u64::from(pair > 0), at, PAYLOAD, false);
            arrivals.insert(pair * 16 + 1, at + Duration::from_micros(10), PAYLOAD, true);
            arrivals.insert(pair * 16 + 17, at + Duration::from_micros(10), PAYLOAD, true);
        }
        assert_eq!(arrivals.capacity(), 1_000);
    }
}
