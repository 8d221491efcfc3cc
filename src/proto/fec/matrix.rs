//! The matrix that a sender lays its packets in.

use std::fmt;
use std::str::FromStr;

/// L columns, D rows, and what of them is sent. Within the limits that all equipment has to support.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix {
    columns: u8,
    rows: u8,
    protection: Protection,
}

/// Which FEC packets are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Of columns and rows.
    Both,
    /// Of columns only.
    Columns,
    /// Of rows only.
    Rows,
}

/// Why there is no such matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatrixError {
    /// Neither `LxD`, nor `LxD,columns`, nor `L,rows`.
    #[error("it is columns x rows")]
    Syntax,
    /// Too few or too many columns.
    #[error("there must be 4 to 20 columns; without rows being sent, 1 to 20")]
    Columns,
    /// Too few or too many rows.
    #[error("there must be 4 to 20 rows")]
    Rows,
    /// Too large.
    #[error("columns times rows must be at most 100")]
    Product,
}

impl Matrix {
    /// Columns and rows are sent.
    pub const DEFAULT: Self = Self { columns: 8, rows: 4, protection: Protection::Both };

    /// L `columns` and D `rows`; with [`Protection::Rows`] there is no D, and `rows` must be 1.
    ///
    /// # Errors
    /// The limit that it is beyond.
    pub const fn new(columns: u8, rows: u8, protection: Protection) -> Result<Self, MatrixError> {
        let columns_min = if matches!(protection, Protection::Columns) { 1 } else { SIDE_MIN };
        let rows_fit = match protection {
            Protection::Rows => rows == 1,
            Protection::Both | Protection::Columns => rows >= SIDE_MIN && rows <= SIDE_MAX,
        };
        if columns < columns_min || columns > SIDE_MAX {
            Err(MatrixError::Columns)
        } else if !rows_fit {
            Err(MatrixError::Rows)
        } else if columns as u16 * rows as u16 > PACKETS_MAX {
            Err(MatrixError::Product)
        } else {
            Ok(Self { columns, rows, protection })
        }
    }

    /// L.
    #[must_use]
    pub const fn columns(self) -> u8 {
        self.columns
    }

    /// D; 1 if only rows are sent.
    #[must_use]
    pub const fn rows(self) -> u8 {
        self.rows
    }

    /// L times D.
    #[must_use]
    pub fn packets(self) -> u16 {
        u16::from(self.columns) * u16::from(self.rows)
    }

    pub(super) fn sends_columns(self) -> bool {
        self.protection != Protection::Rows
    }

    pub(super) fn sends_rows(self) -> bool {
        self.protection != Protection::Columns
    }
}

impl FromStr for Matrix {
    type Err = MatrixError;

    fn from_str(text: &str) -> Result<Self, MatrixError> {
        let number = |text: &str| text.parse::<u8>().map_err(|_| MatrixError::Syntax);
        let (shape, protection) = match text.split_once(',') {
            None => (text, Protection::Both),
            Some((shape, "columns")) => (shape, Protection::Columns),
            Some((columns, "rows")) => return Self::new(number(columns)?, 1, Protection::Rows),
            Some(_) => return Err(MatrixError::Syntax),
        };
        let (columns, rows) = shape.split_once('x').ok_or(MatrixError::Syntax)?;
        Self::new(number(columns)?, number(rows)?, protection)
    }
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protection {
            Protection::Both => write!(f, "{}x{}", self.columns, self.rows),
            Protection::Columns => write!(f, "{}x{},columns", self.columns, self.rows),
            Protection::Rows => write!(f, "{},rows", self.columns),
        }
    }
}

/// The limits of SMPTE ST 2022-1, as makers of equipment print them (Ericsson MX8400 and SPR1100, AWS MediaLive).
const SIDE_MIN: u8 = 4;
const SIDE_MAX: u8 = 20;
const PACKETS_MAX: u16 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_the_same() {
        for text in ["8x4", "4x4", "20x5", "5x20", "10x10", "1x4,columns", "5x20,columns", "4,rows", "20,rows"] {
            assert_eq!(text.parse::<Matrix>().map(|matrix| matrix.to_string()), Ok(text.into()), "{text}");
        }
        assert_eq!("8x4".parse(), Ok(Matrix::DEFAULT));
    }

    #[test]
    fn what_is_beyond_a_limit_is_told() {
        use MatrixError::{Columns, Product, Rows, Syntax};
        for text in ["", "8", "x", "8x", "8x4,", "8x4,both", "8x4x2", "-8x4", "256x4", "8x4,rows", "8x4,columns,rows"] {
            assert_eq!(text.parse::<Matrix>(), Err(Syntax), "{text}");
        }
        for text in ["3x4", "21x4", "0x4,columns", "21x4,columns", "3,rows", "21,rows"] {
            assert_eq!(text.parse::<Matrix>(), Err(Columns), "{text}");
        }
        for text in ["8x3", "4x21", "4x3,columns"] {
            assert_eq!(text.parse::<Matrix>(), Err(Rows), "{text}");
        }
        assert_eq!("11x10".parse::<Matrix>(), Err(Product));
    }
}
