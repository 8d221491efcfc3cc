//! What the picture shows: colour bars that move, a name, the time, the number of the picture, and a marker that runs.

use super::h264::Colour;

/// What is written and where things stand, at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment<'a> {
    /// Picture number, from zero.
    pub(super) number: u64,
    /// Pictures a second.
    pub(super) rate: u64,
    /// Hours, minutes and seconds.
    pub(super) time: [u64; 3],
    /// First line of the box.
    pub(super) name: &'a str,
}

/// Draws into `cells`, row by row of `columns`.
pub(super) fn draw(moment: Moment<'_>, columns: usize, cells: &mut [Colour]) {
    let rows = cells.len() / columns;
    let shift = (moment.number * STEPS_PER_SECOND / moment.rate) as usize;
    let (left, top) = ((columns - BOX_COLUMNS) / 2, (rows - MARKER_ROWS - BOX_ROWS) / 2);
    let (bar_columns, marker_row) = (columns / BARS.len(), rows - MARKER_ROWS);
    for (index, cell) in cells.iter_mut().enumerate() {
        let (column, row) = (index % columns, index / columns);
        let is_box = (left..left + BOX_COLUMNS).contains(&column) && (top..top + BOX_ROWS).contains(&row);
        *cell = if is_box {
            BLACK
        } else if row >= marker_row {
            if column == moment.number as usize % columns { WHITE } else { BLACK }
        } else {
            BARS[(column + shift) / bar_columns % BARS.len()]
        };
    }
    let mut page = Page { columns, cells };
    let left = left + 2;
    moment.name.bytes().enumerate().for_each(|(n, letter)| page.write(letter, left + n * GLYPH_COLUMNS, top + 2));
    let [hours, minutes, seconds] = moment.time;
    let pairs = [hours, minutes, seconds, moment.number % moment.rate];
    for (n, pair) in pairs.into_iter().enumerate() {
        let at = left + 3 * n * GLYPH_COLUMNS;
        page.write(b'0' + (pair / 10 % 10) as u8, at, top + 9);
        page.write(b'0' + (pair % 10) as u8, at + GLYPH_COLUMNS, top + 9);
        if n < 3 {
            page.write(b':', at + 2 * GLYPH_COLUMNS, top + 9);
        }
    }
    let mut rest = moment.number;
    for place in (0..8).rev() {
        page.write(b'0' + (rest % 10) as u8, left + place * GLYPH_COLUMNS, top + 16);
        rest /= 10;
    }
}

/// Black, all of it.
pub(super) fn blacken(cells: &mut [Colour]) {
    cells.fill(BLACK);
}

/// Whether there is a glyph for it.
pub(super) fn is_drawable(letter: u8) -> bool {
    glyph(letter).is_some()
}

struct Page<'a> {
    columns: usize,
    cells: &'a mut [Colour],
}

impl Page<'_> {
    fn write(&mut self, letter: u8, left: usize, top: usize) {
        let pattern = glyph(letter).unwrap_or(0);
        for bit in 0..15 {
            let (column, row) = (left + bit % 3, top + bit / 3);
            if pattern >> (14 - bit) & 1 == 1
                && let Some(cell) = self.cells.get_mut(row * self.columns + column)
            {
                *cell = WHITE;
            }
        }
    }
}

/// Three cells by five, row by row from the highest bit.
fn glyph(letter: u8) -> Option<u16> {
    let (first, glyphs): (u8, &[u16]) = match letter {
        b'0'..=b'9' => (b'0', &DIGITS),
        b'A'..=b'Z' => (b'A', &LETTERS),
        b':' => return Some(0b000_010_000_010_000),
        b'-' => return Some(0b000_000_111_000_000),
        b'.' => return Some(0b000_000_000_000_010),
        b' ' => return Some(0),
        _ => return None,
    };
    glyphs.get(usize::from(letter - first)).copied()
}

const STEPS_PER_SECOND: u64 = 5;
const BOX_COLUMNS: usize = 52;
const BOX_ROWS: usize = 23;
const MARKER_ROWS: usize = 3;
const GLYPH_COLUMNS: usize = 4;
/// What of a name has room in the box.
pub(super) const NAME_GLYPHS_MAX: usize = 12;
const _: () = assert!(NAME_GLYPHS_MAX * GLYPH_COLUMNS + 3 <= BOX_COLUMNS);

const DIGITS: [u16; 10] = [
    0b111_101_101_101_111,
    0b010_110_010_010_111,
    0b111_001_111_100_111,
    0b111_001_111_001_111,
    0b101_101_111_001_001,
    0b111_100_111_001_111,
    0b111_100_111_101_111,
    0b111_001_010_010_010,
    0b111_101_111_101_111,
    0b111_101_111_001_111,
];
const LETTERS: [u16; 26] = [
    0b010_101_111_101_101,
    0b110_101_110_101_110,
    0b011_100_100_100_011,
    0b110_101_101_101_110,
    0b111_100_110_100_111,
    0b111_100_110_100_100,
    0b011_100_101_101_011,
    0b101_101_111_101_101,
    0b111_010_010_010_111,
    0b001_001_001_101_010,
    0b101_101_110_101_101,
    0b100_100_100_100_111,
    0b101_111_111_101_101,
    0b110_101_101_101_101,
    0b010_101_101_101_010,
    0b110_101_110_100_100,
    0b010_101_101_110_011,
    0b110_101_110_101_101,
    0b011_100_010_001_110,
    0b111_010_010_010_010,
    0b101_101_101_101_111,
    0b101_101_101_101_010,
    0b101_101_111_111_101,
    0b101_101_010_101_101,
    0b101_101_010_010_010,
    0b111_001_010_100_111,
];

const BLACK: Colour = Colour([16, 128, 128]);
const WHITE: Colour = Colour([235, 128, 128]);
/// White, yellow, cyan, green, magenta, red, blue and black at 75 % (ITU-R BT.709).
const BARS: [Colour; 8] = [
    Colour([180, 128, 128]),
    Colour([168, 44, 136]),
    Colour([145, 147, 44]),
    Colour([133, 63, 52]),
    Colour([63, 193, 204]),
    Colour([51, 109, 212]),
    Colour([28, 212, 120]),
    Colour([16, 128, 128]),
];
