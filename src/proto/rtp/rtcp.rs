//! RTCP packets: compound packets read and written (RFC 3550 6).
//!
//! What is not a report, a CNAME or a goodbye is passed over: [`Rtcp::Other`] shows it to whoever knows more (feedback
//! of RFC 4585, extended reports, the APP packets of RIST).

use super::error::ParseError;
use super::header::VERSION;

/// Walks over the packets of one datagram.
///
/// The packets must fill the datagram and only the last may be padded (RFC 3550 A.2). The first may be of any type, as
/// RFC 5506 allows. After an error there is nothing more.
#[derive(Clone, Debug)]
pub struct Compound<'a> {
    rest: &'a [u8],
}

impl<'a> Compound<'a> {
    /// The packets in `datagram`.
    #[must_use]
    pub const fn new(datagram: &'a [u8]) -> Self {
        Self { rest: datagram }
    }
}

impl<'a> Iterator for Compound<'a> {
    type Item = Result<Rtcp<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let rest = std::mem::take(&mut self.rest);
        let packet = split_packet(rest).and_then(|(packet, after)| {
            self.rest = after;
            Rtcp::parse(packet, after.is_empty())
        });
        if packet.is_err() {
            self.rest = &[];
        }
        Some(packet)
    }
}

/// One RTCP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rtcp<'a> {
    /// SR: what a sender has sent, and how it receives (RFC 3550 6.4.1).
    SenderReport {
        /// Whose report.
        ssrc: u32,
        /// What was sent.
        info: SenderInfo,
        /// What was received, one block for each source.
        reports: ReportBlocks<'a>,
    },
    /// RR: how someone receives who has not sent (RFC 3550 6.4.2).
    ReceiverReport {
        /// Whose report.
        ssrc: u32,
        /// What was received, one block for each source.
        reports: ReportBlocks<'a>,
    },
    /// SDES: who is behind an SSRC (RFC 3550 6.5).
    SourceDescription(SourceDescription<'a>),
    /// BYE: these sources have left (RFC 3550 6.6).
    Goodbye(Goodbye<'a>),
    /// Any other type.
    Other {
        /// The packet type.
        packet_type: u8,
        /// The five bits that are a count or a subtype.
        count: u8,
        /// What follows the first four bytes, without padding.
        body: &'a [u8],
    },
}

impl<'a> Rtcp<'a> {
    fn parse(packet: &'a [u8], is_last: bool) -> Result<Self, ParseError> {
        let [b0, packet_type, _, _, body @ ..] = packet else {
            return Err(ParseError::Truncated);
        };
        let count = b0 & COUNT_MAX;
        let body = if b0 & PADDING == 0 { body } else { strip_padding(body, is_last)? };
        match *packet_type {
            SR => {
                let (ssrc, body) = split_u32(body)?;
                let (info, body) = body.split_first_chunk::<SENDER_INFO_BYTES>().ok_or(ParseError::Length)?;
                let reports = ReportBlocks::parse(body, count)?;
                Ok(Self::SenderReport { ssrc, info: SenderInfo::from_bytes(info), reports })
            }
            RR => {
                let (ssrc, body) = split_u32(body)?;
                Ok(Self::ReceiverReport { ssrc, reports: ReportBlocks::parse(body, count)? })
            }
            SDES => Ok(Self::SourceDescription(SourceDescription::parse(body, count)?)),
            BYE => Ok(Self::Goodbye(Goodbye::parse(body, count)?)),
            packet_type => Ok(Self::Other { packet_type, count, body }),
        }
    }
}

/// What a sender has sent until now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderInfo {
    /// Wall-clock moment of the report: NTP format, seconds since 1900 in the upper half (RFC 3550 4).
    pub ntp: u64,
    /// The same moment on the clock of the RTP timestamps.
    pub rtp_timestamp: u32,
    /// RTP packets, wrapping.
    pub packets: u32,
    /// Payload bytes in them, wrapping.
    pub octets: u32,
}

impl SenderInfo {
    const fn from_bytes(bytes: &[u8; SENDER_INFO_BYTES]) -> Self {
        Self {
            ntp: (u32_at(bytes, 0) as u64) << 32 | u32_at(bytes, 4) as u64,
            rtp_timestamp: u32_at(bytes, 8),
            packets: u32_at(bytes, 12),
            octets: u32_at(bytes, 16),
        }
    }
}

/// How one source is received (RFC 3550 6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportBlock {
    /// The source reported on.
    pub ssrc: u32,
    /// Share of packets lost since the last report, of 256.
    pub fraction_lost: u8,
    /// Packets lost since the start, duplicates counted against them. Written as the nearest number of 24 bits.
    pub lost: i32,
    /// Highest sequence number received, with the count of cycles in the upper half.
    pub sequence_max: u32,
    /// Interarrival jitter in ticks of the RTP clock.
    pub jitter: u32,
    /// Middle 32 bits of the NTP time in the last SR from the source; zero for none yet.
    pub last_sr: u32,
    /// How long ago that SR came, in 1/65,536 s.
    pub since_last_sr: u32,
}

impl ReportBlock {
    const fn from_bytes(bytes: &[u8; REPORT_BLOCK_BYTES]) -> Self {
        let loss = u32_at(bytes, 4);
        Self {
            ssrc: u32_at(bytes, 0),
            fraction_lost: (loss >> 24) as u8,
            lost: (loss << 8) as i32 >> 8,
            sequence_max: u32_at(bytes, 8),
            jitter: u32_at(bytes, 12),
            last_sr: u32_at(bytes, 16),
            since_last_sr: u32_at(bytes, 20),
        }
    }

    fn words(&self) -> [u32; 6] {
        let lost = self.lost.clamp(-0x80_0000, 0x7f_ffff) as u32 & 0xff_ffff;
        let loss = u32::from(self.fraction_lost) << 24 | lost;
        [self.ssrc, loss, self.sequence_max, self.jitter, self.last_sr, self.since_last_sr]
    }
}

/// The report blocks of an SR or RR, at most 31.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportBlocks<'a>(&'a [[u8; REPORT_BLOCK_BYTES]]);

impl<'a> ReportBlocks<'a> {
    /// `count` blocks; what stands behind them is a profile's extension and passed over (RFC 3550 6.4.3).
    fn parse(body: &'a [u8], count: u8) -> Result<Self, ParseError> {
        body.as_chunks().0.get(..usize::from(count)).map(Self).ok_or(ParseError::Length)
    }

    /// The blocks in order.
    pub fn iter(&self) -> impl Iterator<Item = ReportBlock> + 'a {
        self.0.iter().map(ReportBlock::from_bytes)
    }
}

/// Chunks of items that describe sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceDescription<'a> {
    chunks: &'a [u8],
    count: u8,
}

impl<'a> SourceDescription<'a> {
    fn parse(body: &'a [u8], count: u8) -> Result<Self, ParseError> {
        let mut rest = body;
        for _ in 0..count {
            let (_, mut items) = split_u32(rest)?;
            while let Some(item) = split_item(items)? {
                items = item.after;
            }
            rest = end_of_chunk(rest, items)?;
        }
        Ok(Self { chunks: body, count })
    }

    /// The canonical name of each source that has one: SSRC and name, which should be UTF-8 and need not be.
    pub fn cnames(&self) -> impl Iterator<Item = (u32, &'a [u8])> + 'a {
        let mut rest = self.chunks;
        (0..self.count)
            .map_while(move |_| {
                let (ssrc, mut items) = split_u32(rest).ok()?;
                let mut cname = None;
                while let Ok(Some(item)) = split_item(items) {
                    if item.item_type == CNAME {
                        cname = cname.or(Some(item.text));
                    }
                    items = item.after;
                }
                rest = end_of_chunk(rest, items).ok()?;
                Some(cname.map(|cname| (ssrc, cname)))
            })
            .flatten()
    }
}

/// One item of an SDES chunk.
struct Item<'a> {
    item_type: u8,
    text: &'a [u8],
    /// What follows it.
    after: &'a [u8],
}

/// Who has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goodbye<'a>(&'a [[u8; 4]]);

impl<'a> Goodbye<'a> {
    /// `count` sources; the reason that may stand behind them is passed over.
    fn parse(body: &'a [u8], count: u8) -> Result<Self, ParseError> {
        body.as_chunks().0.get(..usize::from(count)).map(Self).ok_or(ParseError::Length)
    }

    /// The sources, at most 31.
    pub fn ssrcs(&self) -> impl Iterator<Item = u32> + 'a {
        self.0.iter().map(|bytes| u32::from_be_bytes(*bytes))
    }
}

/// Writes a compound packet, packet by packet.
#[derive(Clone, Debug, Default)]
pub struct CompoundWriter {
    bytes: Vec<u8>,
}

impl CompoundWriter {
    /// Writes into memory that is there already; what was in it is gone.
    #[cfg(feature = "rist")]
    #[must_use]
    pub(in crate::proto) fn reuse(mut bytes: Vec<u8>) -> Self {
        bytes.clear();
        Self { bytes }
    }

    /// Adds an SR with at most 31 blocks; further ones are left out.
    #[must_use]
    pub fn sender_report(mut self, ssrc: u32, info: &SenderInfo, reports: &[ReportBlock]) -> Self {
        let reports = at_most(reports);
        self.start(SR, reports.len(), 6 + 6 * reports.len());
        let ntp = [(info.ntp >> 32) as u32, info.ntp as u32];
        self.words([ssrc]).words(ntp).words([info.rtp_timestamp, info.packets, info.octets]);
        self.reports(reports)
    }

    /// Adds an RR with at most 31 blocks; further ones are left out.
    #[must_use]
    pub fn receiver_report(mut self, ssrc: u32, reports: &[ReportBlock]) -> Self {
        let reports = at_most(reports);
        self.start(RR, reports.len(), 1 + 6 * reports.len());
        self.words([ssrc]);
        self.reports(reports)
    }

    /// Adds an SDES with the canonical name of `ssrc`, cut to 255 bytes.
    #[must_use]
    pub fn cname(mut self, ssrc: u32, cname: &str) -> Self {
        let cname = &cname.as_bytes()[..cname.len().min(255)];
        // One to four zero bytes end the list of items (RFC 3550 6.5).
        let items_bytes = (2 + cname.len()) / 4 * 4 + 4;
        self.start(SDES, 1, 1 + items_bytes / 4);
        self.words([ssrc]);
        let end = self.bytes.len() + items_bytes;
        self.bytes.extend([CNAME, cname.len() as u8]);
        self.bytes.extend(cname);
        self.bytes.resize(end, 0);
        self
    }

    /// Adds a BYE of `ssrc` without reason.
    #[must_use]
    pub fn goodbye(mut self, ssrc: u32) -> Self {
        self.start(BYE, 1, 1);
        self.words([ssrc]);
        self
    }

    /// Adds a packet of any other type: what `count` means is the type's business, and `words` follow the first.
    #[cfg(feature = "rist")]
    #[must_use]
    pub(in crate::proto) fn other(mut self, packet_type: u8, count: u8, words: &[u32]) -> Self {
        self.start(packet_type, usize::from(count & COUNT_MAX), words.len());
        self.bytes.extend(words.iter().flat_map(|word| word.to_be_bytes()));
        self
    }

    /// The datagram.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn start(&mut self, packet_type: u8, count: usize, words_after: usize) {
        let [length0, length1] = (words_after as u16).to_be_bytes();
        self.bytes.extend([VERSION << 6 | count as u8, packet_type, length0, length1]);
    }

    fn reports(mut self, reports: &[ReportBlock]) -> Self {
        for report in reports {
            self.words(report.words());
        }
        self
    }

    fn words<const N: usize>(&mut self, words: [u32; N]) -> &mut Self {
        self.bytes.extend(words.iter().flat_map(|word| word.to_be_bytes()));
        self
    }
}

/// The body of the fuzz target `rtcp`, which tests call as well: reads any bytes to the end, down to every item.
///
/// # Panics
/// If there is more in the packets than in the bytes.
pub fn check_any_bytes(bytes: &[u8]) {
    let mut packets = 0;
    for packet in Compound::new(bytes).flatten() {
        packets += 1;
        match packet {
            Rtcp::SenderReport { reports, .. } | Rtcp::ReceiverReport { reports, .. } => {
                assert!(reports.iter().count() <= usize::from(COUNT_MAX));
            }
            Rtcp::SourceDescription(description) => {
                assert!(description.cnames().all(|(_, cname)| cname.len() <= 255));
            }
            Rtcp::Goodbye(goodbye) => assert!(goodbye.ssrcs().count() <= usize::from(COUNT_MAX)),
            Rtcp::Other { body, .. } => assert!(body.len() < bytes.len()),
        }
    }
    assert!(packets <= bytes.len() / HEADER_BYTES);
}

/// Whether a datagram on a port shared with RTP is RTCP (RFC 5761 4).
#[must_use]
pub fn is_rtcp(datagram: &[u8]) -> bool {
    matches!(datagram, [b0, 192..=223, ..] if b0 >> 6 == VERSION)
}

/// The first packet of `bytes`, whole, and what follows it.
fn split_packet(bytes: &[u8]) -> Result<(&[u8], &[u8]), ParseError> {
    let [b0, _, length0, length1, ..] = bytes else {
        return Err(ParseError::Truncated);
    };
    if b0 >> 6 != VERSION {
        return Err(ParseError::Version);
    }
    let words_after = usize::from(u16::from_be_bytes([*length0, *length1]));
    bytes.split_at_checked(HEADER_BYTES + words_after * 4).ok_or(ParseError::Truncated)
}

/// The last byte counts the padding, itself included, in whole words (RFC 3550 6.4.1).
fn strip_padding(body: &[u8], is_last: bool) -> Result<&[u8], ParseError> {
    let padding = body.last().map_or(0, |last| usize::from(*last));
    if !is_last || padding == 0 || !padding.is_multiple_of(4) {
        return Err(ParseError::Padding);
    }
    body.len().checked_sub(padding).map(|end| &body[..end]).ok_or(ParseError::Padding)
}

/// The next SDES item; `None` at the zero byte that ends the list.
fn split_item(items: &[u8]) -> Result<Option<Item<'_>>, ParseError> {
    match items {
        [0, ..] => Ok(None),
        [item_type, length, after @ ..] => {
            let (text, after) = after.split_at_checked(usize::from(*length)).ok_or(ParseError::Length)?;
            Ok(Some(Item { item_type: *item_type, text, after }))
        }
        _ => Err(ParseError::Length),
    }
}

/// What follows the chunk that `chunk` starts with, whose items end before `items`: the next word boundary.
fn end_of_chunk<'a>(chunk: &'a [u8], items: &[u8]) -> Result<&'a [u8], ParseError> {
    let used = chunk.len() - items.len();
    chunk.get(used / 4 * 4 + 4..).ok_or(ParseError::Length)
}

fn split_u32(bytes: &[u8]) -> Result<(u32, &[u8]), ParseError> {
    let (word, rest) = bytes.split_first_chunk().ok_or(ParseError::Length)?;
    Ok((u32::from_be_bytes(*word), rest))
}

const fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn at_most(reports: &[ReportBlock]) -> &[ReportBlock] {
    &reports[..reports.len().min(usize::from(COUNT_MAX))]
}

/// Packet types (RFC 3550 12.1).
const SR: u8 = 200;
const RR: u8 = 201;
const SDES: u8 = 202;
const BYE: u8 = 203;
/// SDES item type (RFC 3550 6.5.1).
const CNAME: u8 = 1;
const HEADER_BYTES: usize = 4;
const SENDER_INFO_BYTES: usize = 20;
const REPORT_BLOCK_BYTES: usize = 24;
const COUNT_MAX: u8 = 31;
const PADDING: u8 = 0x20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rtcp_types as theirs;
    use rtcp_types::RtcpPacketWriterExt as _;

    use super::*;

    const INFO: SenderInfo =
        SenderInfo { ntp: 0x0123_4567_89ab_cdef, rtp_timestamp: 90_000, packets: 7, octets: 7 * 1_316 };
    const BLOCK: ReportBlock = ReportBlock {
        ssrc: 0x788c_cd28,
        fraction_lost: 25,
        lost: -3,
        sequence_max: 0x0001_0006,
        jitter: 90,
        last_sr: 0x4567_89ab,
        since_last_sr: 65_536,
    };

    #[test]
    fn what_is_written_is_read() {
        let bytes = CompoundWriter::default()
            .sender_report(1, &INFO, &[BLOCK])
            .receiver_report(2, &[BLOCK, BLOCK])
            .cname(1, "studio@anabranch")
            .goodbye(1)
            .into_bytes();
        let packets: Vec<Rtcp<'_>> = Compound::new(&bytes).map(Result::unwrap).collect();
        let [
            Rtcp::SenderReport { ssrc: 1, info, reports },
            Rtcp::ReceiverReport { ssrc: 2, reports: two_reports },
            Rtcp::SourceDescription(description),
            Rtcp::Goodbye(goodbye),
        ] = packets[..]
        else {
            panic!("{packets:?}");
        };
        assert_eq!(info, INFO);
        assert_eq!(reports.iter().collect::<Vec<_>>(), [BLOCK]);
        assert_eq!(two_reports.iter().collect::<Vec<_>>(), [BLOCK; 2]);
        assert_eq!(description.cnames().collect::<Vec<_>>(), [(1, &b"studio@anabranch"[..])]);
        assert_eq!(goodbye.ssrcs().collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn names_of_every_length_end_at_a_word() {
        for len in 0..=300 {
            let name = "n".repeat(len);
            let bytes = CompoundWriter::default().cname(5, &name).goodbye(5).into_bytes();
            let packets: Vec<Rtcp<'_>> = Compound::new(&bytes).map(Result::unwrap).collect();
            let Rtcp::SourceDescription(description) = packets[0] else { panic!("{packets:?}") };
            assert_eq!(description.cnames().collect::<Vec<_>>(), [(5, &name.as_bytes()[..len.min(255)])]);
            assert!(theirs::Compound::parse(&bytes).unwrap().all(|packet| packet.is_ok()), "{len}");
        }
    }

    #[test]
    fn every_truncation_is_an_error_or_a_shorter_compound() {
        let bytes = CompoundWriter::default().sender_report(1, &INFO, &[BLOCK]).cname(1, "name").into_bytes();
        for len in 0..bytes.len() {
            let read: Result<Vec<Rtcp<'_>>, ParseError> = Compound::new(&bytes[..len]).collect();
            match len {
                0 => assert_eq!(read, Ok(Vec::new())),
                52 => assert_eq!(read.unwrap().len(), 1),
                _ => assert_eq!(read, Err(ParseError::Truncated), "{len}"),
            }
        }
    }

    #[test]
    fn the_reports_of_rist_peers_pass() {
        // Empty RR, SDES and the APP echo request of librist; the XR that its version 0.2.11 sends as type 77.
        let mut bytes =
            CompoundWriter::default().receiver_report(0x788c_cd28, &[]).cname(0x788c_cd28, "x").into_bytes();
        bytes.extend([0x82, 0xcc, 0, 5, 1, 2, 3, 4, b'R', b'I', b'S', b'T']);
        bytes.extend([0; 12]);
        bytes.extend([0x80, 77, 0, 4, 1, 2, 3, 4, 4, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0]);
        let packets: Vec<Rtcp<'_>> = Compound::new(&bytes).map(Result::unwrap).collect();
        assert_eq!(packets.len(), 4);
        assert!(matches!(packets[2], Rtcp::Other { packet_type: 204, count: 2, body } if body.len() == 20));
        assert!(matches!(packets[3], Rtcp::Other { packet_type: 77, count: 0, .. }));
    }

    #[test]
    fn padding_is_for_the_last_packet_and_must_fit() {
        let padded = |at: usize, padding: u8| {
            let mut bytes = CompoundWriter::default().goodbye(1).goodbye(2).into_bytes();
            bytes.extend([0, 0, 0, padding]);
            bytes[11] += 1;
            bytes[at] |= PADDING;
            Compound::new(&bytes).filter_map(Result::err).collect::<Vec<_>>()
        };
        assert!(padded(8, 4).is_empty());
        assert_eq!(padded(8, 0), [ParseError::Padding]);
        assert_eq!(padded(8, 3), [ParseError::Padding]);
        assert_eq!(padded(8, 12), [ParseError::Padding]);
        assert_eq!(padded(8, 8), [ParseError::Length]);
        assert_eq!(padded(0, 4), [ParseError::Padding]);
    }

    #[test]
    fn counts_that_do_not_fit_are_refused() {
        for mut bytes in [
            CompoundWriter::default().receiver_report(1, &[BLOCK]).into_bytes(),
            CompoundWriter::default().cname(1, "name").into_bytes(),
            CompoundWriter::default().goodbye(1).into_bytes(),
        ] {
            bytes[0] += 1;
            assert_eq!(Compound::new(&bytes).collect::<Vec<_>>(), [Err(ParseError::Length)]);
        }
    }

    #[test]
    fn rtcp_is_told_from_rtp_on_a_shared_port() {
        assert!(is_rtcp(&CompoundWriter::default().goodbye(1).into_bytes()));
        assert!(!is_rtcp(&[0x80, 33, 0, 0]));
        assert!(!is_rtcp(&[0x80, 0x80 | 33, 0, 0]));
    }

    #[test]
    fn rtcp_types_reads_what_we_write() {
        let bytes = CompoundWriter::default()
            .sender_report(9, &INFO, &[ReportBlock { lost: 3, ..BLOCK }])
            .cname(9, "studio")
            .goodbye(9)
            .into_bytes();
        let expected = theirs::Compound::builder()
            .add_packet(
                theirs::SenderReport::builder(9)
                    .ntp_timestamp(INFO.ntp)
                    .rtp_timestamp(INFO.rtp_timestamp)
                    .packet_count(INFO.packets)
                    .octet_count(INFO.octets)
                    .add_report_block(
                        theirs::ReportBlock::builder(BLOCK.ssrc)
                            .fraction_lost(BLOCK.fraction_lost)
                            .cumulative_lost(3)
                            .extended_sequence_number(BLOCK.sequence_max)
                            .interarrival_jitter(BLOCK.jitter)
                            .last_sender_report_timestamp(BLOCK.last_sr)
                            .delay_since_last_sender_report_timestamp(BLOCK.since_last_sr),
                    ),
            )
            .add_packet(
                theirs::Sdes::builder()
                    .add_chunk(theirs::SdesChunk::builder(9).add_item(theirs::SdesItem::builder(CNAME, "studio"))),
            )
            .add_packet(theirs::Bye::builder().add_source(9));
        let mut buffer = [0; 256];
        let len = expected.write_into(&mut buffer).unwrap();
        assert_eq!(bytes, buffer[..len]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            check_any_bytes(&bytes);
        }

        #[test]
        fn what_looks_like_rtcp_is_read_as_rtcp_types_reads_it(
            count in 0_u8..4, packet_type in 200_u8..208, words in 0_usize..20,
            body in proptest::collection::vec(prop_oneof![Just(0_u8), 0_u8..6, any::<u8>()], 80)
        ) {
            let mut bytes = vec![0x80 | count, packet_type, 0, words as u8];
            bytes.extend(&body[..words * 4]);
            check_any_bytes(&bytes);
            agree(&bytes)?;
        }

        #[test]
        fn blocks_survive_write_and_read(
            ssrc: u32, fraction_lost: u8, lost in -0x80_0000..=0x7f_ffff, sequence_max: u32, jitter: u32,
            last_sr: u32, since_last_sr: u32
        ) {
            let block = ReportBlock { ssrc, fraction_lost, lost, sequence_max, jitter, last_sr, since_last_sr };
            let bytes = CompoundWriter::default().receiver_report(1, &[block]).into_bytes();
            let Some(Ok(Rtcp::ReceiverReport { reports, .. })) = Compound::new(&bytes).next() else {
                return Err(TestCaseError::fail("no receiver report"));
            };
            prop_assert_eq!(reports.iter().collect::<Vec<_>>(), [block]);
        }
    }

    /// Where rtcp-types reads a report or a goodbye, so do we, and the same one.
    fn agree(bytes: &[u8]) -> Result<(), TestCaseError> {
        let Some(Ok(packet)) = theirs::Compound::parse(bytes).ok().and_then(|mut compound| compound.next()) else {
            return Ok(());
        };
        let ours = Compound::new(bytes).next().unwrap();
        match (packet, ours) {
            (theirs::Packet::Sr(theirs), Ok(Rtcp::SenderReport { ssrc, info, reports })) => {
                prop_assert_eq!(ssrc, theirs.ssrc());
                prop_assert_eq!(info.ntp, theirs.ntp_timestamp());
                prop_assert_eq!(info.octets, theirs.octet_count());
                agree_on_blocks(reports, theirs.report_blocks())?;
            }
            (theirs::Packet::Rr(theirs), Ok(Rtcp::ReceiverReport { ssrc, reports })) => {
                prop_assert_eq!(ssrc, theirs.ssrc());
                agree_on_blocks(reports, theirs.report_blocks())?;
            }
            (theirs::Packet::Bye(theirs), Ok(Rtcp::Goodbye(goodbye))) => {
                prop_assert_eq!(goodbye.ssrcs().collect::<Vec<_>>(), theirs.ssrcs().collect::<Vec<_>>());
            }
            (theirs::Packet::Sr(_) | theirs::Packet::Rr(_) | theirs::Packet::Bye(_), ours) => {
                return Err(TestCaseError::fail(format!("only rtcp-types reads a report: {ours:?}")));
            }
            _ => {}
        }
        Ok(())
    }

    fn agree_on_blocks<'a>(
        ours: ReportBlocks<'_>,
        theirs: impl Iterator<Item = theirs::ReportBlock<'a>>,
    ) -> Result<(), TestCaseError> {
        let ours: Vec<ReportBlock> = ours.iter().collect();
        let theirs: Vec<_> = theirs.collect();
        prop_assert_eq!(ours.len(), theirs.len());
        for (ours, theirs) in ours.iter().zip(&theirs) {
            prop_assert_eq!(ours.ssrc, theirs.ssrc());
            prop_assert_eq!(ours.fraction_lost, theirs.fraction_lost());
            prop_assert_eq!(ours.lost as u32 & 0xff_ffff, theirs.cumulative_lost());
            prop_assert_eq!(ours.sequence_max, theirs.extended_sequence_number());
            prop_assert_eq!(ours.since_last_sr, theirs.delay_since_last_sender_report_timestamp());
        }
        Ok(())
    }
}
