//! PAT, PMT and SDT of the one program that the multiplexer makes (13818-1 2.4.4, ETSI EN 300 468 5.2.3).

use arrayvec::ArrayVec;

use super::format::{DESCRIPTORS_BYTES_MAX, Format};
use crate::proto::mpegts::Pid;
use crate::proto::mpegts::psi::{Pat, SECTION_BYTES_MAX, Section, finish, length_field, start};

/// PID of the PMT.
pub(super) const PMT_PID: Pid = Pid::from_low_bits(0x1000);
/// PID of the SDT (EN 300 468 table 1).
pub(super) const SDT_PID: Pid = Pid::from_low_bits(0x11);

/// Names and numbers of the stream and of its program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// `transport_stream_id`.
    pub stream_id: u16,
    /// Program number, which is also DVB's `service_id`. Not zero, which means the network's own table.
    pub program: u16,
    /// Who provides the program. At most [`NAME_BYTES_MAX`] bytes are told, whole characters of them.
    pub provider: String,
    /// What the program is called, as long as that.
    pub service: String,
    /// Whether the SDT says that there is an EIT of what is on now and next: whoever asks for it sends one.
    pub has_present_following: bool,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            stream_id: 1,
            program: 1,
            provider: "Anabranch".into(),
            service: "Program".into(),
            has_present_following: false,
        }
    }
}

impl Names {
    pub(super) fn pat(&self) -> Section {
        Pat { stream_id: self.stream_id, version: 0, programs: &[(self.program, PMT_PID)] }.section()
    }

    /// The service description of this stream (EN 300 468 table 5) with one service.
    pub(super) fn sdt(&self) -> Section {
        let mut descriptor: ArrayVec<u8, 255> = ArrayVec::new();
        descriptor.push(DIGITAL_TELEVISION);
        push_name(&mut descriptor, &self.provider);
        push_name(&mut descriptor, &self.service);
        let mut section = start(0x42, self.stream_id, 0);
        section.extend(ORIGINAL_NETWORK.to_be_bytes());
        section.push(0xff);
        section.extend(self.program.to_be_bytes());
        section.push(0xfc | u8::from(self.has_present_following)); // no EIT of a schedule
        section.extend(length_field(0x8000, descriptor.len() + 2)); // running, in the clear
        section.extend([0x48, descriptor.len() as u8]);
        section.extend(descriptor);
        finish(section, 0xf000)
    }

    /// The map of the program's tracks.
    pub(super) fn pmt<'a>(
        &self,
        version: u8,
        pcr_pid: Pid,
        tracks: impl Iterator<Item = (Pid, &'a Format, Option<[u8; 3]>)>,
    ) -> Section {
        let mut section = start(0x02, self.program, version);
        section.extend((0xe000 | pcr_pid.value()).to_be_bytes());
        section.extend(length_field(0xf000, 0));
        for (pid, format, language) in tracks {
            let (stream_type, mut descriptors) = format.announcement();
            if let Some(language) = language {
                // ISO_639_language_descriptor (13818-1 2.6.18), audio type undefined.
                descriptors.extend([0x0a, 4]);
                descriptors.extend(language);
                descriptors.push(0);
            }
            section.push(stream_type);
            section.extend((0xe000 | pid.value()).to_be_bytes());
            section.extend(length_field(0xf000, descriptors.len()));
            section.extend(descriptors);
        }
        finish(section, 0xb000)
    }
}

/// EN 300 468 annex A: a first byte of 0x15 says UTF-8, plain ASCII needs none.
pub(in crate::proto::mpegts) fn push_name(out: &mut ArrayVec<u8, 255>, name: &str) {
    let bytes = name.floor_char_boundary(NAME_BYTES_MAX);
    let name = &name[..bytes];
    if name.is_ascii() {
        out.push(bytes as u8);
    } else {
        out.extend([bytes as u8 + 1, 0x15]);
    }
    out.extend(name.bytes());
}

/// Bytes of a name that are told. Judgement: more than any list of programs shows.
pub const NAME_BYTES_MAX: usize = 64;

/// `service_type` (EN 300 468 table 89).
const DIGITAL_TELEVISION: u8 = 0x01;
/// For private use (ETSI TS 101 162).
pub(in crate::proto::mpegts) const ORIGINAL_NETWORK: u16 = 0xff01;

/// What each track takes at most: type, PID, length, its descriptors.
const TRACK_BYTES_MAX: usize = 5 + DESCRIPTORS_BYTES_MAX;
const _: () = assert!(12 + super::TRACKS_MAX * TRACK_BYTES_MAX + 4 <= SECTION_BYTES_MAX);
const _: () = assert!(11 + 5 + 2 + 3 + 2 * (NAME_BYTES_MAX + 1) + 4 <= SECTION_BYTES_MAX);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::mpegts::psi::crc32;

    #[test]
    fn pmt_names_codecs_with_their_descriptors() {
        let (video, audio) = (Format::h264(), Format::opus(2).unwrap());
        let (first, second) = (Pid::from_low_bits(0x100), Pid::from_low_bits(0x101));
        let tracks = [(first, &video, None), (second, &audio, Some(*b"ces"))];
        let section = Names::default().pmt(5, first, tracks.into_iter());
        let mut expected = vec![0x02, 0xb0, 0x27, 0, 1, 0xcb, 0, 0, 0xe1, 0, 0xf0, 0, 0x1b, 0xe1, 0, 0xf0, 0];
        expected.extend([0x06, 0xe1, 1, 0xf0, 16, 5, 4, b'O', b'p', b'u', b's', 0x7f, 2, 0x80, 2]);
        expected.extend([10, 4, b'c', b'e', b's', 0]);
        assert_eq!(section[..section.len() - 4], expected);
        assert_eq!(crc32(&section), 0);
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        let names = Names { service: "é".repeat(100), provider: "x".repeat(100), ..Names::default() };
        let section = names.sdt();
        assert_eq!(crc32(&section), 0);
        let length = usize::from(u16::from_be_bytes([section[1], section[2]]) & 0xfff);
        assert_eq!(length + 3, section.len());
        let at = section.iter().position(|&byte| byte == 0x15).unwrap();
        assert_eq!(std::str::from_utf8(&section[at + 1..at + 65]).unwrap(), "é".repeat(32));
    }
}
