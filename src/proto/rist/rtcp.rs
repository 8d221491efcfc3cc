//! What RIST adds to RTCP: requests for lost packets in both formats, and echoes that measure the round trip.
//!
//! ```text
//! APP (RFC 3550 6.7), name "RIST"       subtype 0: range request  (TR-06-1 5.3.2.2)   SSRC of media | {first, extra}*
//!                                       subtype 1: upper half of extended numbers (TR-06-2 8.4)
//!                                       subtype 2, 3: echo request and response (TR-06-1:2020 5.2.6)
//! RTPFB (RFC 4585 6.2.1)                format 1: bitmask request (TR-06-1 5.3.2.1)   both SSRCs | {number, mask}*
//! XR (RFC 3611)                         receiver reference time; type 207, and 77 as librist 0.2.11 has it
//! ```

use arrayvec::ArrayVec;

use crate::proto::rtp::ParseError;
use crate::proto::rtp::rtcp::CompoundWriter;
use crate::units::Seq;

/// A packet of RTCP that means something to RIST and is no report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feedback<'a> {
    /// Packets are missing.
    Request {
        /// Of whom; the lowest bit does not count.
        ssrc: u32,
        /// Which.
        missing: Requested<'a>,
    },
    /// The upper half of the numbers in requests that follow in the same datagram.
    UpperHalf {
        /// Of whom; the lowest bit does not count.
        ssrc: u32,
        /// The upper 16 of 32 bits.
        upper: u16,
    },
    /// The receiver of this shall send [`Echo`] back as a response.
    EchoRequest(Echo),
    /// What we asked for came back.
    EchoResponse(Echo),
    /// Anything else, such as extended reports.
    Other,
}

/// A time stamp that goes to the peer and back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Echo {
    /// As the request has it.
    pub ssrc: u32,
    /// As the request has it: only whoever asked knows what it means.
    pub timestamp: u64,
    /// Microseconds that the peer took to answer; undefined in a request.
    pub delay_us: u32,
}

impl<'a> Feedback<'a> {
    /// Reads a packet of `packet_type`, whose five bits are `count` and whose `body` follows the first four bytes.
    ///
    /// # Errors
    /// [`ParseError::Length`] if the body is shorter than its kind needs.
    pub fn parse(packet_type: u8, count: u8, body: &'a [u8]) -> Result<Self, ParseError> {
        let words = body.as_chunks::<4>().0;
        match (packet_type, count) {
            (APP, REQUEST) if words.get(1) == Some(&NAME) => {
                let (ssrc, records) = records(words)?;
                Ok(Self::Request { ssrc, missing: Requested::Ranges(records) })
            }
            (RTPFB, GENERIC_NACK) => {
                let [_, ssrc, records @ ..] = words else { return Err(ParseError::Length) };
                let missing = Requested::Bitmasks(at_most(records));
                Ok(Self::Request { ssrc: u32::from_be_bytes(*ssrc), missing })
            }
            (APP, UPPER_HALF) if words.get(1) == Some(&NAME) => match words {
                [ssrc, _, [b0, b1, ..], ..] => {
                    Ok(Self::UpperHalf { ssrc: u32::from_be_bytes(*ssrc), upper: u16::from_be_bytes([*b0, *b1]) })
                }
                _ => Err(ParseError::Length),
            },
            (APP, ECHO_REQUEST) if words.get(1) == Some(&NAME) => Echo::parse(words).map(Self::EchoRequest),
            (APP, ECHO_RESPONSE) if words.get(1) == Some(&NAME) => Echo::parse(words).map(Self::EchoResponse),
            _ => Ok(Self::Other),
        }
    }
}

impl Echo {
    fn parse(words: &[[u8; 4]]) -> Result<Self, ParseError> {
        let [ssrc, _, upper, lower, delay, ..] = words else { return Err(ParseError::Length) };
        let [ssrc, upper, lower, delay_us] = [ssrc, upper, lower, delay].map(|word| u32::from_be_bytes(*word));
        Ok(Self { ssrc, timestamp: u64::from(upper) << 32 | u64::from(lower), delay_us })
    }

    const fn words(self, delay_us: u32) -> [u32; 5] {
        [self.ssrc, u32::from_be_bytes(NAME), (self.timestamp >> 32) as u32, self.timestamp as u32, delay_us]
    }
}

/// Numbers that are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requested<'a> {
    /// The first, and how many more.
    Ranges(&'a [[u8; 4]]),
    /// The first, and a bit for each of the 16 after it.
    Bitmasks(&'a [[u8; 4]]),
}

impl<'a> Requested<'a> {
    /// Runs of numbers, each the first and how many there are: one to 65,536. They may overlap, and be in any order.
    pub fn runs(self) -> impl Iterator<Item = (Seq<16>, u32)> + 'a {
        let (Self::Ranges(records) | Self::Bitmasks(records)) = self;
        let is_range = matches!(self, Self::Ranges(_));
        records.iter().flat_map(move |[f0, f1, x0, x1]| {
            let first = Seq::new(u32::from(u16::from_be_bytes([*f0, *f1])));
            let extra = u32::from(u16::from_be_bytes([*x0, *x1]));
            let (count, mask) = if is_range { (extra + 1, 0) } else { (1, extra) };
            let bits = (0..16).filter(move |bit| mask >> bit & 1 != 0).map(move |bit| (first.add(bit + 1), 1));
            std::iter::once((first, count)).chain(bits)
        })
    }
}

/// How to ask for packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestFormat {
    /// Whichever is shorter.
    #[default]
    Shorter,
    /// Always in ranges.
    Range,
    /// Always with bitmasks.
    Bitmask,
}

/// A run of missing packets: the first and how many, at least one.
pub type Run = (u64, u32);

/// Adds requests for the front of `runs`, which are in order and apart from each other; says how many runs fitted in.
///
/// One packet of at most [`RECORDS_MAX`] records (TR-06-1 5.3.2). A run that is partly in counts as not.
pub(super) fn write_request(
    writer: CompoundWriter,
    format: RequestFormat,
    (own, media): (u32, u32),
    runs: &[Run],
) -> (CompoundWriter, usize) {
    let (ranges, masks) = (as_ranges(runs), as_bitmasks(runs));
    let shorter = match format {
        RequestFormat::Shorter => {
            // Where both take all, the one with fewer records; where not, the one that takes more.
            masks.1 > ranges.1 || masks.1 == ranges.1 && masks.0.len() < ranges.0.len()
        }
        RequestFormat::Range => false,
        RequestFormat::Bitmask => true,
    };
    let (records, taken) = if shorter { masks } else { ranges };
    let head = if shorter { [own, media] } else { [media, u32::from_be_bytes(NAME)] };
    let words: ArrayVec<u32, { RECORDS_MAX + 2 }> = head.into_iter().chain(records).collect();
    let (packet_type, count) = if shorter { (RTPFB, GENERIC_NACK) } else { (APP, REQUEST) };
    (writer.other(packet_type, count, &words), taken)
}

/// Adds a question that [`Feedback::EchoResponse`] answers.
pub(super) fn write_echo_request(writer: CompoundWriter, ssrc: u32, timestamp: u64) -> CompoundWriter {
    writer.other(APP, ECHO_REQUEST, &Echo { ssrc, timestamp, delay_us: 0 }.words(0))
}

/// Adds the answer to a question.
pub(super) fn write_echo_response(writer: CompoundWriter, request: Echo, delay_us: u32) -> CompoundWriter {
    writer.other(APP, ECHO_RESPONSE, &request.words(delay_us))
}

fn records(words: &[[u8; 4]]) -> Result<(u32, &[[u8; 4]]), ParseError> {
    let [ssrc, _, records @ ..] = words else { return Err(ParseError::Length) };
    Ok((u32::from_be_bytes(*ssrc), at_most(records)))
}

/// What is read of one request, whatever its length says.
fn at_most(records: &[[u8; 4]]) -> &[[u8; 4]] {
    &records[..records.len().min(RECORDS_READ_MAX)]
}

/// First number and the rest, as they go on the wire.
type Records = ArrayVec<u32, RECORDS_MAX>;

fn as_ranges(runs: &[Run]) -> (Records, usize) {
    let fit = &runs[..runs.len().min(RECORDS_MAX)];
    (fit.iter().map(|(first, count)| record(*first, count.saturating_sub(1).min(0xffff))).collect(), fit.len())
}

fn as_bitmasks(runs: &[Run]) -> (Records, usize) {
    let mut records = Records::new();
    let mut first = 0;
    let mut taken = 0;
    for (start, count) in runs {
        for number in *start..*start + u64::from(*count) {
            let is_full = records.is_full();
            let is_near = number > first && number - first <= 16;
            match records.last_mut().filter(|_| is_near) {
                Some(last) => *last |= 1 << (number - first - 1),
                None if is_full => return (records, taken),
                None => {
                    first = number;
                    records.push(record(number, 0));
                }
            }
        }
        taken += 1;
    }
    (records, taken)
}

const fn record(first: u64, rest: u32) -> u32 {
    (first as u32 & 0xffff) << 16 | rest
}

/// Most records in one request (TR-06-1 5.3.2.2).
pub(super) const RECORDS_MAX: usize = 16;
/// Most that are read. Judgement: GStreamer sends more than 16, and none fills an Ethernet frame.
const RECORDS_READ_MAX: usize = 360;

/// Packet types (RFC 3550 12.1, RFC 4585 6.1).
const APP: u8 = 204;
const RTPFB: u8 = 205;
/// Subtypes and formats, as drawn above.
const REQUEST: u8 = 0;
const UPPER_HALF: u8 = 1;
const ECHO_REQUEST: u8 = 2;
const ECHO_RESPONSE: u8 = 3;
const GENERIC_NACK: u8 = 1;
const NAME: [u8; 4] = *b"RIST";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::rtp::rtcp::{Compound, Rtcp};

    fn feedback(bytes: &[u8]) -> Feedback<'_> {
        let Some(Ok(Rtcp::Other { packet_type, count, body })) = Compound::new(bytes).next() else {
            unreachable!("no other packet")
        };
        Feedback::parse(packet_type, count, body).unwrap()
    }

    fn numbers(requested: Requested<'_>) -> Vec<u32> {
        let all = requested.runs().flat_map(|(first, count)| (0..count).map(move |n| first.add(n).value()));
        all.collect()
    }

    /// As librist 0.2.7 sent it.
    #[test]
    fn a_range_request_is_read() {
        let bytes = hex("80cc0003788ccd285249535400060000");
        let Feedback::Request { ssrc, missing } = feedback(&bytes) else { unreachable!("a request") };
        assert_eq!((ssrc, numbers(missing)), (0x788c_cd28, vec![6]));
    }

    /// As GStreamer 1.22 sent it.
    #[test]
    fn a_bitmask_request_is_read() {
        let bytes = hex("81cd00054aa88ae7b3a92248000600000034001000482800");
        let Feedback::Request { ssrc, missing } = feedback(&bytes) else { unreachable!("a request") };
        assert_eq!((ssrc, numbers(missing)), (0xb3a9_2248, vec![6, 0x34, 0x34 + 5, 0x48, 0x48 + 12, 0x48 + 14]));
    }

    /// As librist 0.2.7 sent them.
    #[test]
    fn echoes_are_read_and_answered_with_the_same_stamp() {
        let bytes = hex("82cc0005788ccd285249535483aa8348e45f999000000000");
        let Feedback::EchoRequest(echo) = feedback(&bytes) else { unreachable!("an echo") };
        assert_eq!((echo.ssrc, echo.timestamp), (0x788c_cd28, 0x83aa_8348_e45f_9990));
        let answer = write_echo_response(CompoundWriter::default(), echo, 7).into_bytes();
        assert_eq!(answer, hex("83cc0005788ccd285249535483aa8348e45f999000000007"));
        assert_eq!(feedback(&answer), Feedback::EchoResponse(Echo { delay_us: 7, ..echo }));
        assert_eq!(write_echo_request(CompoundWriter::default(), echo.ssrc, echo.timestamp).into_bytes(), bytes);
    }

    #[test]
    fn the_upper_half_of_numbers_is_read() {
        let bytes = hex("81cc0003788ccd28524953540abc0000");
        assert_eq!(feedback(&bytes), Feedback::UpperHalf { ssrc: 0x788c_cd28, upper: 0x0abc });
    }

    #[test]
    fn what_is_cut_is_refused() {
        for (packet_type, count, whole) in [(APP, 0, 8), (APP, 1, 12), (APP, 2, 20), (APP, 3, 20), (RTPFB, 1, 8)] {
            let mut body = vec![0; whole];
            body[4..8].copy_from_slice(&NAME);
            assert!(Feedback::parse(packet_type, count, &body).is_ok());
            for len in 8..whole {
                assert_eq!(Feedback::parse(packet_type, count, &body[..len]), Err(ParseError::Length), "{count} {len}");
            }
            for len in 0..8 {
                assert!(!matches!(
                    Feedback::parse(packet_type, count, &body[..len]),
                    Ok(Feedback::Request { .. } | Feedback::EchoRequest(_))
                ));
            }
        }
    }

    #[test]
    fn the_shorter_form_is_chosen() {
        let form = |runs: &[Run]| write(RequestFormat::Shorter, runs).0[1];
        assert_eq!(form(&[(10, 1)]), APP);
        assert_eq!(form(&[(10, 1), (12, 1)]), RTPFB);
        assert_eq!(form(&[(10, 40)]), APP);
        assert_eq!(form(&[(10, 1), (100, 1), (200, 1)]), APP);
        let scattered: Vec<Run> = (0..40).map(|n| (n * 2, 1)).collect();
        assert_eq!((form(&scattered), write(RequestFormat::Shorter, &scattered).1), (RTPFB, 40));
    }

    proptest! {
        #[test]
        fn what_is_asked_for_is_what_is_read(
            start in 0_u64..70_000, gaps in prop::collection::vec((1_u64..30, 1_u32..60), 1..30), form in 0..3_usize
        ) {
            let mut runs: Vec<Run> = Vec::new();
            let mut next = start;
            for (gap, count) in gaps {
                runs.push((next + gap, count));
                next += gap + u64::from(count);
            }
            let format = [RequestFormat::Shorter, RequestFormat::Range, RequestFormat::Bitmask][form];
            let (bytes, taken) = write(format, &runs);
            prop_assert!(bytes.len() <= 12 + 4 * RECORDS_MAX);
            let Feedback::Request { ssrc, missing } = feedback(&bytes) else { unreachable!("a request") };
            prop_assert_eq!(ssrc, 2);
            let whole = |runs: &[Run]| -> Vec<u32> {
                runs.iter().flat_map(|(first, count)| (*first..first + u64::from(*count)).map(|n| n as u32 & 0xffff)).collect()
            };
            let read = numbers(missing);
            prop_assert!(read.starts_with(&whole(&runs[..taken])));
            prop_assert!(whole(&runs).starts_with(&read), "nothing else is asked for");
        }

        #[test]
        fn any_bytes_are_survived(packet_type: u8, count in 0_u8..32, body in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(Feedback::Request { missing, .. }) = Feedback::parse(packet_type, count, &body) {
                prop_assert!(missing.runs().count() <= body.len() / 4 * 17);
            }
        }
    }

    fn write(format: RequestFormat, runs: &[Run]) -> (Vec<u8>, usize) {
        let (writer, taken) = write_request(CompoundWriter::default(), format, (1, 2), runs);
        (writer.into_bytes(), taken)
    }

    fn hex(text: &str) -> Vec<u8> {
        super::super::capture::hex(text)
    }
}
