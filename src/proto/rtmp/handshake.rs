//! C0 to C2 and S0 to S2 (RTMP 5.2), the simple form; that of Flash, with digests, is answered with it.
//!
//! ```text
//! client                      server
//!   | C0 C1 ------------------> |
//!   | <--------------- S0 S1 S2 |
//!   | C2 ---------------------> |   each then goes on with chunks at once
//! ```
//!
//! A client that wants digests marks its C1 with a version in the second field. A server whose S1 has zero there says
//! that it knows of none, and all of them go on without: only Flash Player insists, for H.264, and it is gone.

use super::Error;

/// One side of the handshake.
#[derive(Debug)]
pub struct Handshake {
    side: Side,
    state: State,
    /// What has come of the message in progress.
    held: Vec<u8>,
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

/// What it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// C0 and C1, or S0 and S1.
    First,
    /// C2 or S2.
    Second,
    Done,
}

impl Handshake {
    /// The side that was called. `seed` fills S1, which need not be secret.
    #[must_use]
    pub const fn server(seed: u64) -> Self {
        Self { side: Side::Server, state: State::First, held: Vec::new(), seed }
    }

    /// The side that calls, and C0 and C1, to be sent first.
    #[must_use]
    pub fn client(seed: u64) -> (Self, Vec<u8>) {
        let mut opening = vec![VERSION];
        opening.extend(random_part(seed));
        (Self { side: Side::Client, state: State::First, held: Vec::new(), seed }, opening)
    }

    /// Whether everything of the peer's handshake has come.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes what it needs of `bytes`, and gives how many those were, and what to send.
    ///
    /// # Errors
    /// [`Error::Version`] as soon as the first byte is there.
    pub fn handle(&mut self, bytes: &[u8]) -> Result<(usize, Vec<u8>), Error> {
        let (mut used, mut answer) = (0, Vec::new());
        while self.state != State::Done {
            let wanted = if self.state == State::First { 1 + PART_BYTES } else { PART_BYTES };
            let rest = bytes.get(used..).unwrap_or_default();
            let part = rest.get(..wanted - self.held.len()).unwrap_or(rest);
            self.held.extend_from_slice(part);
            used += part.len();
            if let (State::First, Some(version)) = (self.state, self.held.first())
                && *version != VERSION
            {
                return Err(Error::Version(*version));
            }
            if self.held.len() < wanted {
                break;
            }
            answer.extend(self.complete());
        }
        Ok((used, answer))
    }

    /// A whole message has come.
    fn complete(&mut self) -> Vec<u8> {
        let held = std::mem::take(&mut self.held);
        if self.state == State::Second {
            // What C2 or S2 repeat is not checked: librtmp repeats it changed, and nothing hangs on it.
            self.state = State::Done;
            return Vec::new();
        }
        self.state = State::Second;
        let echo = held.get(1..).unwrap_or_default();
        let mut answer = Vec::with_capacity(1 + 2 * PART_BYTES);
        if self.side == Side::Server {
            answer.push(VERSION);
            answer.extend(random_part(self.seed));
        }
        answer.extend_from_slice(echo);
        answer
    }
}

/// C1 or S1: time zero, version zero, and 1,528 bytes that the other side can know again (RTMP 5.2.3).
fn random_part(seed: u64) -> impl Iterator<Item = u8> {
    let words = (1..=(PART_BYTES as u64 - 8) / 8).flat_map(move |n| {
        // SplitMix64: the bytes need to differ, not to be unpredictable.
        let mut word = seed.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ word >> 31).to_be_bytes()
    });
    [0; 8].into_iter().chain(words)
}

/// RTMP without encryption (RTMP 5.2.2).
const VERSION: u8 = 3;

/// Length of C1, S1, C2 and S2 each (RTMP 5.2.3).
pub const PART_BYTES: usize = 1_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_are_done_however_the_bytes_are_cut() {
        for cut in [1, 7, 1_535, 1_536, 1_537, 1_538, 4_000] {
            let mut server = Handshake::server(1);
            let (mut client, mut to_server) = Handshake::client(2);
            assert_eq!(to_server.len(), 1 + PART_BYTES);
            let mut to_client = Vec::new();
            while !to_server.is_empty() || !to_client.is_empty() {
                carry(&mut server, &mut to_server, &mut to_client, cut);
                carry(&mut client, &mut to_client, &mut to_server, cut);
            }
            assert!(server.is_done() && client.is_done(), "{cut}");
        }
    }

    #[test]
    fn what_follows_the_handshake_is_left() {
        let mut server = Handshake::server(1);
        let bytes = [vec![3], vec![0; 2 * PART_BYTES], vec![9; 100]].concat();
        let (used, answer) = server.handle(&bytes).unwrap();
        assert_eq!((used, answer.len()), (1 + 2 * PART_BYTES, 1 + 2 * PART_BYTES));
        assert!(server.is_done());
        assert_eq!(server.handle(&bytes), Ok((0, Vec::new())));
    }

    #[test]
    fn other_versions_are_refused_at_the_first_byte() {
        assert_eq!(Handshake::server(1).handle(&[6]), Err(Error::Version(6)));
        assert_eq!(Handshake::client(1).0.handle(b"HTTP/1.1 400"), Err(Error::Version(b'H')));
    }

    #[test]
    fn a_client_with_digests_is_answered_in_the_simple_form() {
        let mut c0c1 = [vec![3], vec![7; PART_BYTES]].concat();
        c0c1[5..9].copy_from_slice(&[0x80, 0, 7, 2]);
        let (_, answer) = Handshake::server(1).handle(&c0c1).unwrap();
        assert_eq!(answer[5..9], [0; 4], "no version, no digests");
        assert_eq!(answer[1 + PART_BYTES..], c0c1[1..]);
    }

    fn carry(to: &mut Handshake, bytes: &mut Vec<u8>, back: &mut Vec<u8>, cut: usize) {
        let part: Vec<u8> = bytes.drain(..cut.min(bytes.len())).collect();
        let (used, answer) = to.handle(&part).unwrap();
        assert_eq!(used, part.len());
        back.extend(answer);
    }
}
