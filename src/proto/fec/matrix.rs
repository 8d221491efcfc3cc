//! The matrix that a sender lays its packets in.

/// L columns, D rows, and what of them is sent. Within the limits that all equipment has to support.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix {
    columns: u8,
    rows: u8,
    sends_rows: bool,
}

/// Why there is no such matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatrixError {
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
    pub const DEFAULT: Self = Self { columns: 8, rows: 4, sends_rows: true };

    /// L `columns` and D `rows`. FEC packets of columns are sent always, those of rows if wished.
    ///
    /// # Errors
    /// The limit that it is beyond.
    pub const fn new(columns: u8, rows: u8, sends_rows: bool) -> Result<Self, MatrixError> {
        let columns_min = if sends_rows { SIDE_MIN } else { 1 };
        if columns < columns_min || columns > SIDE_MAX {
            Err(MatrixError::Columns)
        } else if rows < SIDE_MIN || rows > SIDE_MAX {
            Err(MatrixError::Rows)
        } else if columns as u16 * rows as u16 > PACKETS_MAX {
            Err(MatrixError::Product)
        } else {
            Ok(Self { columns, rows, sends_rows })
        }
    }

    /// L.
    #[must_use]
    pub const fn columns(self) -> u8 {
        self.columns
    }

    /// D.
    #[must_use]
    pub const fn rows(self) -> u8 {
        self.rows
    }

    /// L times D.
    #[must_use]
    pub fn packets(self) -> u16 {
        u16::from(self.columns) * u16::from(self.rows)
    }

    /// Whether FEC packets of rows are sent, too.
    #[must_use]
    pub const fn sends_rows(self) -> bool {
        self.sends_rows
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
    fn what_is_beyond_a_limit_is_told() {
        use MatrixError::{Columns, Product, Rows};
        for (columns, rows, sends_rows) in [(8, 4, true), (4, 4, true), (20, 5, true), (10, 10, true), (1, 4, false)] {
            assert!(Matrix::new(columns, rows, sends_rows).is_ok(), "{columns}x{rows}");
        }
        assert_eq!(Matrix::new(8, 4, true), Ok(Matrix::DEFAULT));
        for (columns, sends_rows) in [(3, true), (21, true), (0, false), (21, false)] {
            assert_eq!(Matrix::new(columns, 4, sends_rows), Err(Columns), "{columns}");
        }
        for rows in [0, 3, 21] {
            assert_eq!(Matrix::new(4, rows, false), Err(Rows), "{rows}");
        }
        assert_eq!(Matrix::new(11, 10, true), Err(Product));
    }
}
