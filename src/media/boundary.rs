//! Proof of an edge: when exactly it became black or frozen, and when it was over.
//!
//! Key frames that are looked at once a second tell that something began or ended between two of them, not when. Then
//! the coded units between them are decoded fully, once. [`prove`] is that: units in, edges out, the definitions those of
//! [`quality`](super::quality).
//!
//! # What to pass
//! The units of one stream without a gap, in the order in which they came: from the last key frame of which the state is
//! known (`before`) to the key frame that shows the other one, and the units behind that which are shown before it
//! (leading pictures; they end where PTS is higher than the key frame's). What is left out makes an edge less exact and is
//! seen in [`Edge::after`]: where that is `None` the group before is passed as well, and then edges at its
//! own first picture say nothing new. Never more than [`BYTES_MAX`].
//!
//! It takes as long as [`Proof::pictures`] pictures take to decode (1080p: 10 to 35 ms each in a release build), at most
//! [`PIXELS_MAX`]. It belongs where pictures are decoded, behind the same budget.

use super::decode::{DecodeError, Shown};
use super::frame::Frame;
use super::headers::Headers;
use super::pictures::Pictures;
use super::quality::{is_black, is_same};
use crate::proto::mpegts::demux::AccessUnit;
use crate::units::Ticks90k;

/// What was known of the first picture before it was looked at again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// It is one of several black ones: its being black is no edge.
    pub black: bool,
    /// It is one of several equal ones, so that those which are equal to it are no new freeze.
    pub frozen: bool,
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The first black picture.
    BlackBegins,
    /// The first one that is not black any more.
    BlackEnds,
    /// The picture that those after it are equal to.
    FreezeBegins,
    /// The first one that is different.
    FreezeEnds,
}

/// A change, exact to the picture if `after` is the one shown just before `at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// What changed.
    pub turn: Turn,
    /// PTS of the first picture that is so.
    pub at: Ticks90k,
    /// PTS of the last picture that is not; `None` if the units begin with `at`, which may have been so for longer.
    pub after: Option<Ticks90k>,
}

/// What full decoding showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// All changes, in the order of their times; black and frozen each begin and end in turns.
    pub edges: Vec<Edge>,
    /// The state at the last picture.
    pub at_end: Before,
    /// PTS of the last picture that was looked at. Times go on where PTS wraps.
    pub last: Ticks90k,
    /// Pictures decoded: the cost.
    pub pictures: u32,
}

/// Why there is no proof. The edge stays as inexact as key frames tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// More than [`BYTES_MAX`] or [`PIXELS_MAX`].
    #[error("too much to decode")]
    TooMuch,
    /// A picture was not decoded, so nothing is known of those behind it.
    #[error("{0}")]
    Decode(#[from] DecodeError),
}

/// Decodes all pictures of `units` and says when black and freeze began and ended, `before` being what the caller knows
/// of the first. Nothing has a least duration here: a single black picture begins and ends.
///
/// # Errors
/// Why it could not be proven.
pub fn prove(units: &[AccessUnit], before: Before) -> Result<Proof, ProofError> {
    check_bounds(units)?;
    let mut pictures = Pictures::new(units)?;
    let mut watcher = Watcher { before, black: before.black, ..Watcher::default() };
    for shown in pictures.by_ref() {
        watcher.push(shown?);
    }
    let at_end = Before { black: watcher.black, frozen: watcher.frozen };
    let Some(last) = watcher.last else { return Err(DecodeError::Damaged("no pictures").into()) };
    // A freeze is told when the second picture of it is seen.
    watcher.edges.sort_by_key(|edge| edge.at);
    Ok(Proof { edges: watcher.edges, at_end, last, pictures: pictures.decoded() })
}

/// Before anything is decoded.
fn check_bounds(units: &[AccessUnit]) -> Result<(), ProofError> {
    let bytes: usize = units.iter().map(|unit| unit.bytes.len()).sum();
    let mut headers = units.first().map(|unit| Headers::new(unit.codec));
    let mut pixels = 0;
    for unit in units {
        let Some(headers) = &mut headers else { break };
        headers.read(unit);
        pixels += headers.video().map_or(0, |format| u64::from(format.width) * u64::from(format.height));
    }
    if bytes > BYTES_MAX || pixels > PIXELS_MAX {
        return Err(ProofError::TooMuch);
    }
    Ok(())
}

/// Both detectors, picture by picture.
#[derive(Debug, Default)]
struct Watcher {
    before: Before,
    black: bool,
    frozen: bool,
    /// What the next picture may be equal to, when it is shown, and the one before it.
    reference: Option<(Frame, Ticks90k, Option<Ticks90k>)>,
    last: Option<Ticks90k>,
    edges: Vec<Edge>,
}

impl Watcher {
    fn push(&mut self, shown: Shown) {
        let Some(at) = shown.pts else { return };
        let after = self.last.replace(at);
        let black = is_black(&shown.frame, shown.display.colour.full_range);
        if black != self.black {
            self.black = black;
            let turn = if black { Turn::BlackBegins } else { Turn::BlackEnds };
            self.edges.push(Edge { turn, at, after });
        }
        let Some((reference, since, before_it)) = &self.reference else {
            self.frozen = self.before.frozen;
            self.reference = Some((shown.frame, at, None));
            return;
        };
        if is_same(reference, &shown.frame) {
            if !self.frozen {
                self.frozen = true;
                self.edges.push(Edge { turn: Turn::FreezeBegins, at: *since, after: *before_it });
            }
            return;
        }
        if self.frozen {
            self.frozen = false;
            self.edges.push(Edge { turn: Turn::FreezeEnds, at, after });
        }
        self.reference = Some((shown.frame, at, after));
    }
}

/// Coded bytes that are decoded at once.
pub const BYTES_MAX: usize = 16 << 20;
/// Pixels of all pictures that are decoded at once: 250 of 1080p, ten seconds of 25 a second.
pub const PIXELS_MAX: u64 = 250 * 1_920 * 1_088;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::frame::{Display, Plane, Samples};
    use crate::media::headers::Chroma;
    use crate::proto::mpegts::demux::Codec;

    #[test]
    fn edges_are_those_of_the_first_picture_that_is_so() {
        let proof = watch(Before::default(), &[100, 110, 16, 16, 16, 90, 91, 92]);
        let edge = |turn, at, after: u64| Edge { turn, at: Ticks90k(at), after: Some(Ticks90k(after)) };
        let expected = [
            edge(Turn::BlackBegins, 2, 1),
            edge(Turn::FreezeBegins, 2, 1),
            edge(Turn::BlackEnds, 5, 4),
            edge(Turn::FreezeEnds, 5, 4),
        ];
        assert_eq!(proof.0, expected);
        assert_eq!(proof.1, Before::default());
    }

    #[test]
    fn what_held_before_only_ends_and_what_begins_the_units_says_so() {
        let held = Before { black: true, frozen: true };
        let (edges, at_end) = watch(held, &[16, 16, 16, 200]);
        assert_eq!(edges.iter().map(|edge| edge.turn).collect::<Vec<_>>(), [Turn::BlackEnds, Turn::FreezeEnds]);
        assert_eq!(at_end, Before::default());
        let (edges, at_end) = watch(Before::default(), &[16, 16]);
        assert!(edges.len() == 2 && edges.iter().all(|edge| edge.at == Ticks90k(0) && edge.after.is_none()));
        assert_eq!(at_end, held);
        assert_eq!(watch(held, &[16, 16]), (vec![], held));
    }

    #[test]
    fn too_much_is_refused_before_anything_is_decoded() {
        let unit = |bytes| AccessUnit {
            pid: Default::default(),
            codec: Codec::H264,
            pts: Some(Ticks90k(0)),
            dts: None,
            bytes,
        };
        let long = [unit(vec![0; BYTES_MAX / 2]), unit(vec![0; BYTES_MAX / 2 + 1])];
        assert_eq!(prove(&long, Before::default()), Err(ProofError::TooMuch));
        assert!(matches!(prove(&[unit(vec![1, 2, 3])], Before::default()), Err(ProofError::Decode(_))));
        let key = include_bytes!("../../tests/data/media/h264_mbaff");
        let mut headers = Headers::new(Codec::H264);
        headers.read(&unit(key.to_vec()));
        let pixels = headers.video().map(|format| u64::from(format.width) * u64::from(format.height)).unwrap();
        let mut many = vec![unit(Vec::new()); (PIXELS_MAX / pixels) as usize];
        many.insert(0, unit(key.to_vec()));
        assert_eq!(prove(&many, Before::default()), Err(ProofError::TooMuch));
    }

    fn watch(before: Before, lumas: &[u8]) -> (Vec<Edge>, Before) {
        let mut watcher = Watcher { before, black: before.black, ..Watcher::default() };
        for (at, &luma) in lumas.iter().enumerate() {
            let plane = |width: usize, height: usize, sample| Plane {
                width,
                height,
                samples: Samples::Byte(vec![sample; width * height]),
            };
            let planes = [plane(16, 16, luma), plane(8, 8, 128), plane(8, 8, 128)];
            let frame = Frame { chroma: Chroma::Yuv420, depth: 8, planes };
            watcher.push(Shown { frame, display: Display::default(), pts: Some(Ticks90k(at as u64)) });
        }
        watcher.edges.sort_by_key(|edge| edge.at);
        (watcher.edges, Before { black: watcher.black, frozen: watcher.frozen })
    }
}
