//! What PAT, PMT, CAT and SDT say, and their descriptors, read in place (13818-1 2.4.4, 2.6; EN 300 468 5.2, 6.2).

use super::packet::Pid;

/// Programs of a PAT's section and the PIDs of their PMTs; program 0 names the PID of the NIT (13818-1 2.4.4.3).
pub fn read_pat(body: &[u8]) -> impl Iterator<Item = (u16, Pid)> + '_ {
    body.as_chunks::<4>().0.iter().map(|[p1, p2, pid @ ..]| (u16::from_be_bytes([*p1, *p2]), read_pid(*pid)))
}

/// The body of a PMT's section (13818-1 2.4.4.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PmtBody<'a> {
    /// Where the program's PCR is found; [`Pid::NULL`] for none.
    pub pcr_pid: Pid,
    /// Of the program as a whole.
    pub descriptors: &'a [u8],
    streams: &'a [u8],
}

impl<'a> PmtBody<'a> {
    /// Reads the body of a section; `None` if it is too short for its own lengths.
    #[must_use]
    pub fn parse(body: &'a [u8]) -> Option<Self> {
        let ([p1, p2, l1, l2], rest) = body.split_first_chunk::<4>()?;
        let (descriptors, streams) = rest.split_at_checked(read_length([*l1, *l2]))?;
        Some(Self { pcr_pid: read_pid([*p1, *p2]), descriptors, streams })
    }

    /// The program's streams. Ends early where a length is wrong.
    pub fn streams(&self) -> impl Iterator<Item = StreamEntry<'a>> + use<'a> {
        let mut rest = self.streams;
        std::iter::from_fn(move || {
            let ([stream_type, p1, p2, l1, l2], behind) = rest.split_first_chunk::<5>()?;
            let (descriptors, behind) = behind.split_at_checked(read_length([*l1, *l2]))?;
            rest = behind;
            Some(StreamEntry { stream_type: *stream_type, pid: read_pid([*p1, *p2]), descriptors })
        })
    }
}

/// One stream of a PMT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamEntry<'a> {
    /// `stream_type` (13818-1 table 2-34).
    pub stream_type: u8,
    /// Where it is found.
    pub pid: Pid,
    /// For [`descriptors`].
    pub descriptors: &'a [u8],
}

/// One service of an SDT (EN 300 468 5.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceEntry<'a> {
    /// The program's number.
    pub service_id: u16,
    /// `EIT_present_following_flag`.
    pub has_present_following: bool,
    /// For [`descriptors`].
    pub descriptors: &'a [u8],
}

/// Services of an SDT's section. Ends early where a length is wrong.
pub fn read_sdt(body: &[u8]) -> impl Iterator<Item = ServiceEntry<'_>> {
    // original_network_id and a reserved byte.
    let mut rest = body.get(3..).unwrap_or_default();
    std::iter::from_fn(move || {
        let ([s1, s2, flags, l1, l2], behind) = rest.split_first_chunk::<5>()?;
        let (descriptors, behind) = behind.split_at_checked(read_length([*l1, *l2]))?;
        rest = behind;
        let service_id = u16::from_be_bytes([*s1, *s2]);
        Some(ServiceEntry { service_id, has_present_following: flags & 1 != 0, descriptors })
    })
}

/// Tags and contents of descriptors. Ends early where a length is wrong.
pub fn descriptors(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let ([tag, len], behind) = rest.split_first_chunk::<2>()?;
        let (content, behind) = behind.split_at_checked(usize::from(*len))?;
        rest = behind;
        Some((*tag, content))
    })
}

/// PIDs of conditional access, ECM in a PMT and EMM in a CAT (13818-1 2.6.16).
pub fn conditional_access(bytes: &[u8]) -> impl Iterator<Item = Pid> + '_ {
    let contents = descriptors(bytes).filter(|(tag, _)| *tag == TAG_CONDITIONAL_ACCESS);
    contents.filter_map(|(_, content)| content.get(2..4)?.try_into().ok().map(read_pid))
}

fn read_pid(bytes: [u8; 2]) -> Pid {
    Pid::from_low_bits(u16::from_be_bytes(bytes))
}

/// Twelve bits; the two highest are zero where the standard is followed.
fn read_length(bytes: [u8; 2]) -> usize {
    usize::from(u16::from_be_bytes(bytes) & 0x0fff)
}

const TAG_CONDITIONAL_ACCESS: u8 = 0x09;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::psi::{Pat, Pmt};
    use super::super::section::LongSection;
    use super::*;

    #[test]
    fn tables_that_were_written_are_read() {
        let programs = [(0, Pid::from_low_bits(16)), (257, Pid::from_low_bits(110))];
        let section = Pat { stream_id: 1, version: 0, programs: &programs }.section();
        assert_eq!(read_pat(LongSection::parse(&section).unwrap().body).collect::<Vec<_>>(), programs);
        let streams = [(0x1b, Pid::from_low_bits(0x100)), (0x0f, Pid::from_low_bits(0x101))];
        let pmt = Pmt { program: 1, version: 0, pcr_pid: Pid::from_low_bits(0x100), streams: &streams };
        let section = pmt.section();
        let body = PmtBody::parse(LongSection::parse(&section).unwrap().body).unwrap();
        assert_eq!(body.pcr_pid, pmt.pcr_pid);
        assert_eq!(body.streams().map(|stream| (stream.stream_type, stream.pid)).collect::<Vec<_>>(), streams);
    }

    #[test]
    fn every_truncation_ends_early() {
        let body = [0xe1, 0, 0xf0, 3, 9, 1, 0, 0x1b, 0xe1, 0, 0xf0, 6, 9, 4, 0x0b, 0, 0xe1, 0x23];
        let whole = PmtBody::parse(&body).unwrap();
        let stream = whole.streams().next().unwrap();
        assert_eq!(conditional_access(stream.descriptors).collect::<Vec<_>>(), [Pid::from_low_bits(0x123)]);
        assert_eq!(descriptors(whole.descriptors).collect::<Vec<_>>(), [(9, &[0][..])]);
        for len in 0..body.len() {
            assert_eq!(PmtBody::parse(&body[..len]).map_or(0, |pmt| pmt.streams().count()), 0);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..1_100)) {
            read_pat(&bytes).count();
            let streams = PmtBody::parse(&bytes).into_iter().flat_map(|pmt| pmt.streams());
            streams.for_each(|stream| _ = conditional_access(stream.descriptors).count());
            read_sdt(&bytes).for_each(|service| _ = descriptors(service.descriptors).count());
        }
    }
}
