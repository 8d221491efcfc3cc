//! What both sides tell each other of enhanced RTMP when they connect (E-RTMP, "Enhancing NetConnection connect Command").

use super::amf::Value;

/// What a peer says of itself; empty for one that knows nothing of enhanced RTMP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// FourCCs that it takes, `*` for all; at most [`FOURCCS_MAX`].
    pub fourccs: Vec<String>,
    /// Bits of `capsEx`, [`RECONNECT`] and others.
    pub extended: u8,
}

impl Capabilities {
    /// What stands in the command object of `connect`, or in the properties of its answer.
    #[must_use]
    pub fn parse(object: &Value) -> Self {
        let listed = object.field("fourCcList").map(Value::elements).unwrap_or_default();
        let listed = listed.iter().filter_map(Value::as_str);
        let maps = ["videoFourCcInfoMap", "audioFourCcInfoMap"].into_iter().filter_map(|name| object.field(name));
        let mapped = maps.flat_map(Value::fields).map(|(name, _)| name.as_str());
        let mut fourccs: Vec<String> = Vec::new();
        for name in listed.chain(mapped).filter(|name| name.len() <= 4) {
            if fourccs.len() < FOURCCS_MAX && !fourccs.iter().any(|known| known == name) {
                fourccs.push(name.to_owned());
            }
        }
        let extended = object.field("capsEx").and_then(Value::as_number).unwrap_or_default();
        Self { fourccs, extended: extended as u8 }
    }

    /// Whether the peer knows enhanced RTMP at all.
    #[must_use]
    pub fn is_enhanced(&self) -> bool {
        !self.fourccs.is_empty() || self.extended != 0
    }

    /// What we say of ourselves: `extended` of our bits.
    pub(super) fn ours(extended: u8) -> Vec<(String, Value)> {
        let map = |names: &[&str]| {
            Value::Object(names.iter().map(|name| ((*name).to_owned(), Value::Number(CAN_FORWARD))).collect())
        };
        let all = VIDEO.iter().chain(&AUDIO).map(|name| Value::text(name)).collect();
        vec![
            ("fourCcList".to_owned(), Value::StrictArray(all)),
            ("videoFourCcInfoMap".to_owned(), map(&VIDEO)),
            ("audioFourCcInfoMap".to_owned(), map(&AUDIO)),
            ("capsEx".to_owned(), Value::Number(extended.into())),
        ]
    }
}

/// Most FourCCs of a peer that are kept. Judgement: there are fewer than twenty.
pub const FOURCCS_MAX: usize = 32;

/// Follows a request to connect anew.
pub const RECONNECT: u8 = 1;
/// Takes several tracks in one message.
pub const MULTITRACK: u8 = 2;
/// Takes modifiers before the packet type.
pub const MODEX: u8 = 4;
/// Takes the modifier for nanoseconds.
pub const NANOSECONDS: u8 = 8;

/// What a server says that asks for it (E-RTMP, "Reconnect Request").
pub(super) const RECONNECT_CODE: &str = "NetConnection.Connect.ReconnectRequest";

/// Passes on what it may not be able to decode (FourCcInfoMask).
const CAN_FORWARD: f64 = 4.0;

const VIDEO: [&str; 4] = ["avc1", "hvc1", "av01", "vp09"];
const AUDIO: [&str; 4] = ["mp4a", "Opus", "ac-3", "ec-3"];
