//! AMF0 values, read with a limit on everything, and written ("Action Message Format -- AMF 0", 2007).

use super::Error as RtmpError;

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Every number is a double (AMF0 2.2).
    Number(f64),
    /// True or false.
    Boolean(bool),
    /// Text, at most [`STRING_BYTES_MAX`]. What is no UTF-8 came with replacement characters.
    String(String),
    /// Named values in their order; also the class instances of AMF0 2.18, without the name of their class.
    Object(Vec<(String, Self)>),
    /// Named values that were announced with a count (AMF0 2.10).
    EcmaArray(Vec<(String, Self)>),
    /// Values without names.
    StrictArray(Vec<Self>),
    /// Milliseconds since 1970 (AMF0 2.13).
    Date(f64),
    /// Nothing, on purpose.
    Null,
    /// Nothing; also what was a reference or of an unsupported type.
    Undefined,
}

/// Why bytes are no AMF0, or not one that is taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Ends within a value.
    #[error("truncated")]
    Truncated,
    /// A marker that no value has (AMF0 2.1); also AMF3.
    #[error("marker {0:#04x}")]
    Marker(u8),
    /// Values within values, more than [`DEPTH_MAX`].
    #[error("too deep")]
    Depth,
    /// Text of more than [`STRING_BYTES_MAX`].
    #[error("string of {0} bytes")]
    String(u32),
    /// More than [`VALUES_MAX`] values.
    #[error("too many values")]
    Values,
}

impl Value {
    /// Text.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::String(text.to_owned())
    }

    /// Named values.
    #[must_use]
    pub fn object<const N: usize>(fields: [(&str, Self); N]) -> Self {
        Self::Object(fields.map(|(name, value)| (name.to_owned(), value)).into())
    }

    /// The text, if it is some.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    /// The number, if it is one.
    #[must_use]
    pub const fn as_number(&self) -> Option<f64> {
        if let Self::Number(number) = self { Some(*number) } else { None }
    }

    /// The values of an array without names; nothing for anything else.
    #[must_use]
    pub fn elements(&self) -> &[Self] {
        if let Self::StrictArray(values) = self { values } else { &[] }
    }

    /// The named values of an object or array; nothing for anything else.
    #[must_use]
    pub fn fields(&self) -> &[(String, Self)] {
        if let Self::Object(fields) | Self::EcmaArray(fields) = self { fields } else { &[] }
    }

    /// The value of that name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Self> {
        self.fields().iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Number(number) => {
                out.push(NUMBER);
                out.extend(number.to_be_bytes());
            }
            Self::Boolean(is) => out.extend([BOOLEAN, u8::from(*is)]),
            Self::String(text) => match u16::try_from(text.len()) {
                Ok(_) => {
                    out.push(STRING);
                    write_name(text, out);
                }
                Err(_) => {
                    out.push(LONG_STRING);
                    out.extend((text.len() as u32).to_be_bytes());
                    out.extend(text.as_bytes());
                }
            },
            Self::Object(fields) => {
                out.push(OBJECT);
                write_fields(fields, out);
            }
            Self::EcmaArray(fields) => {
                out.push(ECMA_ARRAY);
                out.extend((fields.len() as u32).to_be_bytes());
                write_fields(fields, out);
            }
            Self::StrictArray(values) => {
                out.push(STRICT_ARRAY);
                out.extend((values.len() as u32).to_be_bytes());
                values.iter().for_each(|value| value.write(out));
            }
            Self::Date(ms) => {
                out.push(DATE);
                out.extend(ms.to_be_bytes());
                out.extend([0, 0]);
            }
            Self::Null => out.push(NULL),
            Self::Undefined => out.push(UNDEFINED),
        }
    }
}

/// The values, one after the other.
#[must_use]
pub fn encode(values: &[Value]) -> Vec<u8> {
    let mut out = Vec::new();
    values.iter().for_each(|value| value.write(&mut out));
    out
}

/// All values that `bytes` hold, one after the other.
///
/// # Errors
/// The first thing that makes them no AMF0.
pub fn decode(bytes: &[u8]) -> Result<Vec<Value>, Error> {
    let mut reader = Reader { bytes, values: 0 };
    let mut values = Vec::new();
    while !reader.bytes.is_empty() {
        values.push(reader.value(0)?);
    }
    Ok(values)
}

/// The text that comes first, and what follows it.
///
/// # Errors
/// As [`decode`]; also if it is no text.
pub fn decode_name(bytes: &[u8]) -> Result<(String, &[u8]), RtmpError> {
    let mut reader = Reader { bytes, values: 0 };
    let marker = bytes.first().copied().unwrap_or_default();
    let Value::String(name) = reader.value(0)? else {
        return Err(Error::Marker(marker).into());
    };
    Ok((name, reader.bytes))
}

struct Reader<'a> {
    bytes: &'a [u8],
    values: usize,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Result<Value, Error> {
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(Error::Values);
        }
        if depth > DEPTH_MAX {
            return Err(Error::Depth);
        }
        let [marker] = self.take()?;
        Ok(match marker {
            NUMBER => Value::Number(f64::from_be_bytes(self.take()?)),
            BOOLEAN => Value::Boolean(self.take()? != [0]),
            STRING => Value::String(self.name()?),
            LONG_STRING | XML => {
                let len = u32::from_be_bytes(self.take()?);
                Value::String(self.text(len)?)
            }
            OBJECT => Value::Object(self.fields(depth)?),
            TYPED_OBJECT => {
                self.name()?;
                Value::Object(self.fields(depth)?)
            }
            ECMA_ARRAY => {
                // The count is a hint: there are writers that leave it zero.
                let _: [u8; 4] = self.take()?;
                Value::EcmaArray(self.fields(depth)?)
            }
            STRICT_ARRAY => {
                let count = u32::from_be_bytes(self.take()?);
                (0..count).map(|_| self.value(depth + 1)).collect::<Result<Vec<_>, _>>().map(Value::StrictArray)?
            }
            DATE => {
                let ms = f64::from_be_bytes(self.take()?);
                let _zone: [u8; 2] = self.take()?;
                Value::Date(ms)
            }
            NULL => Value::Null,
            UNDEFINED | UNSUPPORTED => Value::Undefined,
            REFERENCE => {
                let _: [u8; 2] = self.take()?;
                Value::Undefined
            }
            _ => return Err(Error::Marker(marker)),
        })
    }

    /// Named values up to the empty name with the end marker (AMF0 2.5).
    fn fields(&mut self, depth: usize) -> Result<Vec<(String, Value)>, Error> {
        let mut fields = Vec::new();
        loop {
            let name = self.name()?;
            if name.is_empty() && self.bytes.first() == Some(&OBJECT_END) {
                let _: [u8; 1] = self.take()?;
                return Ok(fields);
            }
            fields.push((name, self.value(depth + 1)?));
        }
    }

    fn name(&mut self) -> Result<String, Error> {
        let len = u16::from_be_bytes(self.take()?);
        self.text(len.into())
    }

    fn text(&mut self, len: u32) -> Result<String, Error> {
        if len > STRING_BYTES_MAX {
            return Err(Error::String(len));
        }
        let (text, rest) = self.bytes.split_at_checked(len as usize).ok_or(Error::Truncated)?;
        self.bytes = rest;
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (taken, rest) = self.bytes.split_first_chunk().ok_or(Error::Truncated)?;
        self.bytes = rest;
        Ok(*taken)
    }
}

fn write_fields(fields: &[(String, Value)], out: &mut Vec<u8>) {
    for (name, value) in fields {
        write_name(name, out);
        value.write(out);
    }
    out.extend([0, 0, OBJECT_END]);
}

/// A name longer than its length field can say is cut.
fn write_name(name: &str, out: &mut Vec<u8>) {
    let len = name.floor_char_boundary(name.len().min(usize::from(u16::MAX)));
    out.extend((len as u16).to_be_bytes());
    out.extend(name.bytes().take(len));
}

/// Deepest value within values. Judgement: what is sent has three levels, and the reader recurses.
pub const DEPTH_MAX: usize = 32;

/// Longest text. Judgement: a tcUrl with a signed token has a few KiB.
pub const STRING_BYTES_MAX: u32 = 65_536;

/// Most values in one message. Judgement: a command has a few dozen; files with an index of all their key frames have one
/// that is longer, which nobody needs live. An array of nulls would else take forty times its bytes.
pub const VALUES_MAX: usize = 4_096;

const NUMBER: u8 = 0;
const BOOLEAN: u8 = 1;
const STRING: u8 = 2;
const OBJECT: u8 = 3;
const NULL: u8 = 5;
const UNDEFINED: u8 = 6;
const REFERENCE: u8 = 7;
const ECMA_ARRAY: u8 = 8;
const OBJECT_END: u8 = 9;
const STRICT_ARRAY: u8 = 10;
const DATE: u8 = 11;
const LONG_STRING: u8 = 12;
const UNSUPPORTED: u8 = 13;
const XML: u8 = 15;
const TYPED_OBJECT: u8 = 16;

/// Any bytes are read or refused, and what was read is written so that it reads the same.
#[cfg(any(test, fuzzing))]
pub fn check_any_bytes(bytes: &[u8]) {
    let _ = decode_name(bytes);
    if let Ok(values) = decode(bytes) {
        let again = encode(&values);
        match decode(&again) {
            Ok(values) => assert_eq!(encode(&values), again, "{values:?}"),
            // Replacement characters are longer than what they stand for.
            Err(error) => assert!(matches!(error, Error::String(_)), "{values:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_truncation_of_a_command_is_refused_or_ends_at_a_value() {
        let values = command();
        let bytes = encode(&values);
        assert_eq!(decode(&bytes), Ok(values.clone()));
        for len in 0..bytes.len() {
            match decode(&bytes[..len]) {
                Ok(read) => assert_eq!(read, values[..read.len()]),
                Err(error) => assert_eq!(error, Error::Truncated, "{len}"),
            }
        }
    }

    #[test]
    fn deep_wide_and_long_values_are_refused() {
        let nested = |levels: usize| [STRICT_ARRAY, 0, 0, 0, 1].repeat(levels).into_iter().chain([NULL]).collect();
        let deep: Vec<u8> = nested(DEPTH_MAX);
        assert!(decode(&deep).is_ok());
        let deep: Vec<u8> = nested(DEPTH_MAX + 1);
        assert_eq!(decode(&deep), Err(Error::Depth));
        let objects: Vec<u8> = [OBJECT, 0, 1, b'a'].repeat(100_000);
        assert_eq!(decode(&objects), Err(Error::Depth));
        assert_eq!(decode(&[NULL; VALUES_MAX + 1]), Err(Error::Values));
        assert_eq!(decode(&[STRICT_ARRAY, 0xff, 0xff, 0xff, 0xff]), Err(Error::Truncated));
        assert_eq!(decode(&[LONG_STRING, 0xff, 0xff, 0xff, 0xff]), Err(Error::String(u32::MAX)));
    }

    #[test]
    fn other_types_are_passed_over_and_amf3_is_refused() {
        assert_eq!(decode(&[REFERENCE, 0, 1, UNSUPPORTED]), Ok(vec![Value::Undefined, Value::Undefined]));
        assert_eq!(decode(&[XML, 0, 0, 0, 1, b'x']), Ok(vec![Value::text("x")]));
        let typed = [TYPED_OBJECT, 0, 1, b'C', 0, 1, b'a', NULL, 0, 0, OBJECT_END];
        assert_eq!(decode(&typed), Ok(vec![Value::object([("a", Value::Null)])]));
        assert_eq!(decode(&[0x11, 1]), Err(Error::Marker(0x11)));
        assert_eq!(decode_name(&[NULL]), Err(RtmpError::Amf(Error::Marker(NULL))));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(values in proptest::collection::vec(any_value(), 0..8)) {
            prop_assert_eq!(decode(&encode(&values)), Ok(values));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, damage: u8, at in 0_usize..200) {
            check_any_bytes(&bytes);
            let mut command = encode(&command());
            let at = at % command.len();
            command[at] = damage;
            check_any_bytes(&command);
        }
    }

    fn command() -> Vec<Value> {
        vec![
            Value::text("connect"),
            Value::Number(1.0),
            Value::object([
                ("app", Value::text("live")),
                ("fpad", Value::Boolean(false)),
                ("list", Value::StrictArray(vec![Value::text("av01"), Value::Null])),
                ("map", Value::EcmaArray(vec![("*".into(), Value::Number(7.0))])),
            ]),
            Value::Date(1.5),
            Value::Undefined,
            Value::String("long".repeat(16_384)),
        ]
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            (-1e9..1e9).prop_map(Value::Number),
            any::<bool>().prop_map(Value::Boolean),
            ".{0,20}".prop_map(Value::String),
            Just(Value::Null),
            Just(Value::Undefined),
        ];
        leaf.prop_recursive(4, 64, 6, |inner| {
            let fields = proptest::collection::vec((".{1,8}", inner.clone()), 0..6);
            prop_oneof![
                fields.clone().prop_map(Value::Object),
                fields.prop_map(Value::EcmaArray),
                proptest::collection::vec(inner, 0..6).prop_map(Value::StrictArray),
            ]
        })
    }
}
