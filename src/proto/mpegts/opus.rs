//! Opus in PES packets ("Opus in MPEG-2 TS" of Xiph, here "Opus in TS"): the control header before each packet, how many
//! channels there are, and how long a packet sounds (RFC 6716 3).

/// The control header at the start of `bytes`: how long it is, and the Opus packet behind it.
pub(crate) fn read_control_header(bytes: &[u8]) -> Result<(usize, usize), ControlHeaderError> {
    let [first, second, rest @ ..] = bytes else { return Err(ControlHeaderError::Truncated) };
    // Eleven bits of prefix, then flags: trimmed at the start, at the end, extended.
    let head = u16::from_be_bytes([*first, *second]);
    if head >> 5 != 0x3ff {
        return Err(ControlHeaderError::Prefix);
    }
    // More than a packet has would be waited for without end.
    let long = rest.iter().take(PACKET_BYTES_MAX / 255 + 1).take_while(|byte| **byte == 0xff).count();
    if long > PACKET_BYTES_MAX / 255 {
        return Err(ControlHeaderError::Prefix);
    }
    if long == rest.len() {
        return Err(ControlHeaderError::Truncated);
    }
    let packet_bytes = long * 255 + rest.get(long).map_or(0, |byte| usize::from(*byte));
    let mut header_bytes = 2 + long + 1;
    for trimmed in [0x10, 0x08] {
        header_bytes += if head & trimmed != 0 { 2 } else { 0 };
    }
    if head & 0x04 != 0 {
        header_bytes += 1 + usize::from(*bytes.get(header_bytes).ok_or(ControlHeaderError::Truncated)?);
    }
    if packet_bytes == 0 { Err(ControlHeaderError::Prefix) } else { Ok((header_bytes, packet_bytes)) }
}

/// Why bytes do not begin with a control header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ControlHeaderError {
    /// They end within it.
    Truncated,
    /// They begin with something else, or nothing is behind it, or more than a packet has.
    Prefix,
}

/// How long a packet sounds; `None` if it is none.
pub(crate) fn ticks_90k(packet: &[u8]) -> Option<u64> {
    let toc = *packet.first()?;
    let tenths_ms = match toc >> 3 {
        config @ 0..=11 => [100, 200, 400, 600][usize::from(config & 3)],
        config @ 12..=15 => [100, 200][usize::from(config & 1)],
        config => [25, 50, 100, 200][usize::from(config & 3)],
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u64::from(packet.get(1)? & 0x3f),
    };
    Some(frames * tenths_ms * 9)
}

/// Longest packet that is carried. Judgement: a self-delimiting one of 120 ms at the highest rate has half of it for each of eight
/// channels.
pub(super) const PACKET_BYTES_MAX: usize = 60_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn control_headers_say_how_long_packets_are() {
        assert_eq!(read_control_header(&[0x7f, 0xe0, 3, 1, 2, 3]), Ok((3, 3)));
        assert_eq!(read_control_header(&[0x7f, 0xe0, 0xff, 0]), Ok((4, 255)));
        // Trimmed at both ends, with two bytes of extension.
        let long = [0x7f, 0xfc, 1, 0, 9, 0, 9, 2, 7, 7, 0x80];
        assert_eq!(read_control_header(&long), Ok((10, 1)));
        for len in 0..8 {
            assert_eq!(read_control_header(&long[..len]), Err(ControlHeaderError::Truncated), "{len}");
        }
        assert_eq!(read_control_header(&[0x7e, 0xe0, 3]), Err(ControlHeaderError::Prefix));
        let endless = [&[0x7f, 0xe0][..], &[0xff; PACKET_BYTES_MAX / 255 + 1]].concat();
        assert_eq!(read_control_header(&endless), Err(ControlHeaderError::Prefix), "nothing waits for it");
        assert_eq!(read_control_header(&endless[..200]), Err(ControlHeaderError::Truncated));
    }

    #[test]
    fn packets_sound_as_long_as_table_2_says() {
        // 20 ms of SILK; two of 20 ms; 2.5 ms of CELT; three of 10 ms.
        for (packet, ticks) in [(&[0x08][..], 1_800), (&[0x0d], 3_600), (&[0x80], 225), (&[0x73, 3], 2_700)] {
            assert_eq!(ticks_90k(packet), Some(ticks), "{packet:x?}");
        }
        assert_eq!((ticks_90k(&[]), ticks_90k(&[0x03])), (None, None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..30)) {
            let _ = read_control_header(&[&[0x7f, 0xe0][..], &bytes].concat());
            let _ = ticks_90k(&bytes);
        }
    }
}
