//! What each side wants of the filter, in libsrt's words, and what both agree on.

use std::fmt;
use std::str::FromStr;

use super::super::error::Rejection;

/// What one side wants, as in `fec,cols:10,rows:5,layout:staircase,arq:onreq`. What is `None` is left to the peer; what
/// neither side says has its default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Packets in a row, 2 to 255 (`cols`). One side must say it.
    pub columns: Option<u16>,
    /// Packets in a column: 1, the default, for no columns, up to 255; negative, -2 to -255, for no repairs of rows
    /// (`rows`).
    pub rows: Option<i16>,
    /// Where columns start (`layout`).
    pub layout: Option<Layout>,
    /// What is asked for again beside (`arq`).
    pub arq: Option<Arq>,
}

/// Where columns start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// All in the first row of the matrix, so that all their repairs come with its last row.
    Even,
    /// Each a row below the one before, so that their repairs come evenly spread. The first packets of a connection
    /// belong to no column. libsrt's document calls `even` the default; libsrt itself has this one.
    #[default]
    Staircase,
}

/// What a receiver asks for again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arq {
    /// Whatever is missing, at once and again and again, as without a filter.
    Always,
    /// What could not be rebuilt, once.
    #[default]
    OnRequest,
    /// Nothing.
    Never,
}

/// Why a text is no configuration, or one cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not `fec`.
    #[error("fec is the only filter there is")]
    UnknownFilter,
    /// Not of the form `fec,key:value,key:value`.
    #[error("keys and values come as fec,key:value,key:value")]
    Syntax,
    /// Not one of those that there are.
    #[error("fec has the keys cols, rows, layout and arq")]
    UnknownKey,
    /// Out of range, or missing after all.
    #[error("cols must be from 2 to 255")]
    Columns,
    /// Out of range.
    #[error("rows must be from 1 to 255, or from -255 to -2 for columns only")]
    Rows,
    /// Not one of those that there are.
    #[error("layout must be even or staircase")]
    Layout,
    /// Not one of those that there are.
    #[error("arq must be always, onreq or never")]
    Arq,
    /// More packets than what is rebuilt late could wait for.
    #[error("cols times rows must be at most 4096")]
    Matrix,
}

/// What both sides agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Settled {
    /// 2 to 255.
    pub(super) columns: u16,
    /// Packets in a column; 1 for no columns.
    pub(super) rows: u16,
    /// Rows have repairs.
    pub(super) has_row_repairs: bool,
    pub(super) layout: Layout,
    pub(in super::super) arq: Arq,
}

/// The same in the words that go over the wire, and for use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Agreed {
    pub(in super::super) config: Config,
    pub(in super::super) settled: Settled,
}

impl Config {
    /// The same with libsrt's defaults where nothing is said.
    fn with_defaults(self) -> Self {
        Self {
            columns: self.columns,
            rows: self.rows.or(Some(1)),
            layout: self.layout.or_else(|| Some(Layout::default())),
            arq: self.arq.or_else(|| Some(Arq::default())),
        }
    }

    /// What this and the other say together; `None` if they contradict each other.
    fn merge(&self, other: &Self) -> Option<Self> {
        Some(Self {
            columns: merge(self.columns, other.columns)?,
            rows: merge(self.rows, other.rows)?,
            layout: merge(self.layout, other.layout)?,
            arq: merge(self.arq, other.arq)?,
        })
    }

    /// The same, but where the other says something, that.
    fn overridden_by(&self, other: &Self) -> Self {
        Self {
            columns: other.columns.or(self.columns),
            rows: other.rows.or(self.rows),
            layout: other.layout.or(self.layout),
            arq: other.arq.or(self.arq),
        }
    }

    /// What it means once nobody has more to say.
    pub(super) fn settle(&self) -> Result<Settled, ConfigError> {
        let rows = self.rows.unwrap_or(1);
        let settled = Settled {
            columns: self.columns.ok_or(ConfigError::Columns)?,
            rows: rows.unsigned_abs(),
            has_row_repairs: rows > 0,
            layout: self.layout.unwrap_or_default(),
            arq: self.arq.unwrap_or_default(),
        };
        if !(2..=GROUP_PACKETS_MAX).contains(&settled.columns) {
            return Err(ConfigError::Columns);
        }
        if !(1..=GROUP_PACKETS_MAX).contains(&settled.rows) || rows == -1 {
            return Err(ConfigError::Rows);
        }
        let matrix = u32::from(settled.columns) * u32::from(settled.rows);
        if matrix > MATRIX_PACKETS_MAX { Err(ConfigError::Matrix) } else { Ok(settled) }
    }
}

impl FromStr for Config {
    type Err = ConfigError;

    /// Takes what libsrt takes within our bounds: keys in any order, of repeated ones the last, and a key without a
    /// value is not there.
    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let mut parts = text.split(',');
        if parts.next() != Some("fec") {
            return Err(ConfigError::UnknownFilter);
        }
        let [mut columns, mut rows, mut layout, mut arq] = [None; 4];
        for part in parts {
            let (key, value) = part.split_once(':').ok_or(ConfigError::Syntax)?;
            if value.contains(':') {
                return Err(ConfigError::Syntax);
            }
            if value.is_empty() {
                continue;
            }
            match key {
                "cols" => columns = Some(value),
                "rows" => rows = Some(value),
                "layout" => layout = Some(value),
                "arq" => arq = Some(value),
                _ => return Err(ConfigError::UnknownKey),
            }
        }
        let config = Self {
            columns: columns.map(columns_of).transpose()?,
            rows: rows.map(rows_of).transpose()?,
            layout: layout.map(layout_of).transpose()?,
            arq: arq.map(arq_of).transpose()?,
        };
        if config.columns.is_some() {
            config.settle()?;
        }
        Ok(config)
    }
}

impl fmt::Display for Config {
    /// As libsrt writes what was agreed on: keys in the order of the alphabet. At most 52 bytes, where 64 may be sent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fec")?;
        if let Some(arq) = self.arq {
            write!(f, ",arq:{arq}")?;
        }
        if let Some(columns) = self.columns {
            write!(f, ",cols:{columns}")?;
        }
        if let Some(layout) = self.layout {
            write!(f, ",layout:{layout}")?;
        }
        if let Some(rows) = self.rows {
            write!(f, ",rows:{rows}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Even => "even",
            Self::Staircase => "staircase",
        })
    }
}

impl fmt::Display for Arq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Always => "always",
            Self::OnRequest => "onreq",
            Self::Never => "never",
        })
    }
}

/// What a listener says to a caller who asks for this. Without a wish of its own it takes the caller's; with one, both
/// together must make sense. A caller who asks for nothing gets no filter (libsrt 1.5.5; 1.5.1 imposed it).
///
/// # Errors
/// What the caller shall be told.
pub(in super::super) fn answer(ours: Option<&Config>, asked: Option<&str>) -> Result<Option<Agreed>, Rejection> {
    let Some(asked) = asked else { return Ok(None) };
    let asked = parse(asked)?;
    let both = match ours {
        None => asked,
        Some(ours) => ours.merge(&asked).ok_or(Rejection::FILTER)?.with_defaults(),
    };
    checked(both)
}

/// What holds for a caller who got this answer: whatever the listener says, but a filter that was asked for must be
/// there. Without a wish of its own it takes the listener's, which libsrt 1.5.1 imposes.
///
/// # Errors
/// Why there is no connection.
pub(in super::super) fn conclude(ours: Option<&Config>, answer: Option<&str>) -> Result<Option<Agreed>, Rejection> {
    match (ours, answer) {
        (None, None) => Ok(None),
        (Some(_), None) => Err(Rejection::FILTER),
        (None, Some(answer)) => checked(parse(answer)?),
        (Some(ours), Some(answer)) => checked(ours.overridden_by(&parse(answer)?)),
    }
}

fn parse(text: &str) -> Result<Config, Rejection> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Rejection::FILTER);
    }
    text.parse().map_err(|_| Rejection::FILTER)
}

fn checked(config: Config) -> Result<Option<Agreed>, Rejection> {
    let settled = config.settle().map_err(|_| Rejection::FILTER)?;
    Ok(Some(Agreed { config, settled }))
}

#[allow(clippy::option_option, reason = "the outer one is about a contradiction, the inner one is the value")]
fn merge<T: PartialEq + Copy>(ours: Option<T>, theirs: Option<T>) -> Option<Option<T>> {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) if ours != theirs => None,
        _ => Some(ours.or(theirs)),
    }
}

fn columns_of(value: &str) -> Result<u16, ConfigError> {
    let columns = u16::try_from(leading_number(value)).map_err(|_| ConfigError::Columns)?;
    if (2..=GROUP_PACKETS_MAX).contains(&columns) { Ok(columns) } else { Err(ConfigError::Columns) }
}

fn rows_of(value: &str) -> Result<i16, ConfigError> {
    let rows = i16::try_from(leading_number(value)).map_err(|_| ConfigError::Rows)?;
    let is_right = (1..=GROUP_PACKETS_MAX).contains(&rows.unsigned_abs()) && rows != -1;
    if is_right { Ok(rows) } else { Err(ConfigError::Rows) }
}

fn layout_of(value: &str) -> Result<Layout, ConfigError> {
    match value {
        "even" => Ok(Layout::Even),
        "staircase" => Ok(Layout::Staircase),
        _ => Err(ConfigError::Layout),
    }
}

fn arq_of(value: &str) -> Result<Arq, ConfigError> {
    match value {
        "always" => Ok(Arq::Always),
        "onreq" => Ok(Arq::OnRequest),
        "never" => Ok(Arq::Never),
        _ => Err(ConfigError::Arq),
    }
}

/// As C's `atoi`, which libsrt reads numbers with: whatever follows the digits is left out, and no digits are zero.
fn leading_number(value: &str) -> i64 {
    let value = value.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    let (sign, digits) = match value.as_bytes().first() {
        Some(b'-') => (-1, &value[1..]),
        Some(b'+') => (1, &value[1..]),
        _ => (1, value),
    };
    let end = digits.find(|digit: char| !digit.is_ascii_digit()).unwrap_or(digits.len());
    let number = digits[..end].chars().fold(0_i64, |number, digit| {
        number.saturating_mul(10).saturating_add(i64::from(digit.to_digit(10).unwrap_or(0)))
    });
    sign * number
}

/// A column's number has one byte on the wire, whose highest value means a row. libsrt has no bound, and a column 255 of
/// it passes for a row there.
const GROUP_PACKETS_MAX: u16 = 255;
/// Half of the receive buffer that libsrt and we have without being told: what is rebuilt must still be in time, and
/// each group of a peer's making costs us a packet's memory.
const MATRIX_PACKETS_MAX: u32 = 4_096;
/// libsrt's bound on what a handshake carries.
const TEXT_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        text.parse().unwrap()
    }

    #[test]
    fn texts_are_read_as_libsrt_reads_them() {
        for (text, canonical) in [
            ("fec", "fec"),
            ("fec,cols:10", "fec,cols:10"),
            ("fec,cols:10,rows:5,layout:even,arq:always", "fec,arq:always,cols:10,layout:even,rows:5"),
            ("fec,rows:-5,arq:never,cols:20", "fec,arq:never,cols:20,rows:-5"),
            ("fec,arq:onreq,layout:staircase", "fec,arq:onreq,layout:staircase"),
            // Of repeated keys the last counts, even if an earlier one is wrong, and none without a value does.
            ("fec,cols:1,cols:10,cols:", "fec,cols:10"),
            ("fec,weight:", "fec"),
            ("fec,cols: +10x,rows:007", "fec,cols:10,rows:7"),
            ("fec,cols:255,rows:-16", "fec,cols:255,rows:-16"),
        ] {
            assert_eq!(config(text).to_string(), canonical, "{text}");
            assert_eq!(config(canonical), config(text));
        }
        let longest =
            Config { columns: Some(255), rows: Some(-16), layout: Some(Layout::Staircase), arq: Some(Arq::Always) };
        assert!(longest.to_string().len() <= TEXT_BYTES_MAX);
    }

    #[test]
    fn texts_that_libsrt_refuses_are_refused_with_the_reason() {
        use ConfigError as Error;
        for (text, error) in [
            ("", Error::UnknownFilter),
            ("FEC,Cols:20", Error::UnknownFilter),
            (" fec", Error::UnknownFilter),
            ("rs,cols:10", Error::UnknownFilter),
            ("fec,", Error::Syntax),
            ("fec,cols", Error::Syntax),
            ("fec,cols:10:5", Error::Syntax),
            ("fec,cols:10,,rows:5", Error::Syntax),
            ("fec,weight:2", Error::UnknownKey),
            ("fec,Cols:10", Error::UnknownKey),
            ("fec,type:fec", Error::UnknownKey),
            ("fec,cols:1", Error::Columns),
            ("fec,cols:-10", Error::Columns),
            ("fec,cols:ten", Error::Columns),
            ("fec,rows:0", Error::Rows),
            ("fec,rows:-1", Error::Rows),
            ("fec,layout:stairwars", Error::Layout),
            ("fec,arq:sometimes", Error::Arq),
            // Ours alone.
            ("fec,cols:256", Error::Columns),
            ("fec,cols:99999999999999999999", Error::Columns),
            ("fec,rows:-256", Error::Rows),
            ("fec,cols:65,rows:64", Error::Matrix),
        ] {
            assert_eq!(text.parse::<Config>(), Err(error), "{text}");
        }
    }

    /// Caller, listener, what the listener answers and both then hold for.
    const AGREED: [(&str, &str, &str); 9] = [
        ("fec,cols:10,rows:10", "fec", "fec,arq:onreq,cols:10,layout:staircase,rows:10"),
        ("fec", "fec,cols:10,rows:10", "fec,arq:onreq,cols:10,layout:staircase,rows:10"),
        ("fec,cols:10,rows:10", "fec,cols:10,arq:never", "fec,arq:never,cols:10,layout:staircase,rows:10"),
        ("fec,cols:10,rows:10", "fec,rows:10,cols:10", "fec,arq:onreq,cols:10,layout:staircase,rows:10"),
        (
            "fec,cols:10,rows:20,arq:never,layout:even",
            "fec,layout:even,rows:20,cols:10,arq:never",
            "fec,arq:never,cols:10,layout:even,rows:20",
        ),
        ("fec,cols:,cols:10", "fec,cols:,rows:10", "fec,arq:onreq,cols:10,layout:staircase,rows:10"),
        ("fec,rows:-4", "fec,cols:7", "fec,arq:onreq,cols:7,layout:staircase,rows:-4"),
        ("fec,rows:20,cols:20", "", "fec,cols:20,rows:20"),
        ("", "", ""),
    ];

    fn wish(text: &str) -> Option<Config> {
        (!text.is_empty()).then(|| config(text))
    }

    #[test]
    fn both_sides_agree_as_libsrts_do() {
        for (caller, listener, agreed) in AGREED {
            let (caller, listener) = (wish(caller), wish(listener));
            let asked = caller.map(|config| config.to_string());
            let answered = answer(listener.as_ref(), asked.as_deref()).unwrap().map(|agreed| agreed.config);
            assert_eq!(answered, wish(agreed), "{caller:?} {listener:?}");
            let answered = answered.map(|config| config.to_string());
            let concluded = conclude(caller.as_ref(), answered.as_deref()).unwrap().map(|agreed| agreed.config);
            assert_eq!(concluded, wish(agreed), "{caller:?} {listener:?}");
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused_with_1014() {
        for (caller, listener) in [
            ("fec,cols:10", "fec,cols:20"),
            ("fec,cols:20,arq:never", "fec,cols:20,arq:always"),
            ("fec,cols:20,layout:even", "fec,cols:20,layout:staircase"),
            ("fec,cols:20,rows:5", "fec,cols:20,rows:-5"),
            // Nobody says how many columns.
            ("fec,rows:10", "fec,arq:never"),
            ("fec,rows:10", ""),
            ("fec", "fec"),
            // Each may be, both may not.
            ("fec,cols:200", "fec,rows:200"),
            // Of others than us.
            ("rs,cols:10", "fec,cols:10"),
            ("rs,cols:10", ""),
            ("fec,cols:300", ""),
            ("fec,cols:10,weight:2", ""),
        ] {
            let answered = answer(wish(listener).as_ref(), Some(caller));
            assert_eq!(answered, Err(Rejection::FILTER), "{caller} {listener}");
        }
        let long = format!("fec,cols:10{}", ",rows:".repeat(10));
        assert_eq!(answer(None, Some(&long)), Err(Rejection::FILTER));
    }

    #[test]
    fn a_caller_takes_what_the_listener_says_but_not_silence() {
        let ours = config("fec,cols:10,rows:5,arq:never");
        assert_eq!(conclude(Some(&ours), None), Err(Rejection::FILTER));
        assert_eq!(conclude(Some(&ours), Some("rs")), Err(Rejection::FILTER));
        let concluded = |ours, answer| conclude(ours, Some(answer)).unwrap().unwrap().config;
        assert_eq!(concluded(Some(&ours), "fec,rows:8"), config("fec,cols:10,rows:8,arq:never"));
        assert_eq!(concluded(None, "fec,cols:10"), config("fec,cols:10"));
        assert_eq!(conclude(None, Some("fec")), Err(Rejection::FILTER));
        assert_eq!(answer(Some(&ours), None), Ok(None));
    }

    #[test]
    fn rows_alone_and_columns_alone_can_be_had() {
        let settled = |text: &str| config(text).settle().unwrap();
        let rows = settled("fec,cols:10");
        assert_eq!(
            (rows.rows, rows.has_row_repairs, rows.layout, rows.arq),
            (1, true, Layout::Staircase, Arq::OnRequest)
        );
        let columns = settled("fec,cols:10,rows:-5");
        assert_eq!((columns.columns, columns.rows, columns.has_row_repairs), (10, 5, false));
    }
}
