//! What the picture shows: colour bars that move, the time, the number of the picture, and a marker that runs.

use super::h264::Colour;

/// Cells of a picture of 1280 by 720.
pub(super) const COLUMNS: usize = 80;
pub(super) const ROWS: usize = 45;

/// Draws picture `number` of 25 a second; `time` is hours, minutes and seconds.
pub(super) fn draw(number: u64, time: [u64; 3], cells: &mut [Colour; COLUMNS * ROWS]) {
    let shift = (number / PICTURES_PER_STEP) as usize;
    for (index, cell) in cells.iter_mut().enumerate() {
        let (column, row) = (index % COLUMNS, index / COLUMNS);
        *cell = match row {
            BOX_TOP..BOX_BOTTOM if (BOX_LEFT..COLUMNS - BOX_LEFT).contains(&column) => BLACK,
            MARKER_ROW.. if column == number as usize % COLUMNS => WHITE,
            MARKER_ROW.. => BLACK,
            _ => BARS[(column + shift) / BAR_COLUMNS % BARS.len()],
        };
    }
    let [hours, minutes, seconds] = time;
    let pictures = number % 25;
    let clock = [hours / 10, hours % 10, COLON, minutes / 10, minutes % 10, COLON, seconds / 10, seconds % 10];
    write(&clock, BOX_LEFT + 2, BOX_TOP + 2, cells);
    write(&[COLON, pictures / 10, pictures % 10], BOX_LEFT + 2 + 8 * GLYPH_COLUMNS, BOX_TOP + 2, cells);
    let mut digits = [0; 8];
    let mut rest = number;
    for digit in digits.iter_mut().rev() {
        *digit = rest % 10;
        rest /= 10;
    }
    write(&digits, BOX_LEFT + 2, BOX_TOP + 9, cells);
}

fn write(glyphs: &[u64], left: usize, top: usize, cells: &mut [Colour; COLUMNS * ROWS]) {
    for (n, glyph) in glyphs.iter().enumerate() {
        let pattern = GLYPHS.get(*glyph as usize).copied().unwrap_or(0);
        for bit in 0..15 {
            let (column, row) = (left + n * GLYPH_COLUMNS + bit % 3, top + bit / 3);
            if pattern >> (14 - bit) & 1 == 1
                && let Some(cell) = cells.get_mut(row * COLUMNS + column)
            {
                *cell = WHITE;
            }
        }
    }
}

const PICTURES_PER_STEP: u64 = 5;
const BAR_COLUMNS: usize = 10;
const BOX_LEFT: usize = 14;
const BOX_TOP: usize = 12;
const BOX_BOTTOM: usize = 28;
const MARKER_ROW: usize = 42;
const GLYPH_COLUMNS: usize = 4;
/// Index of the colon among the glyphs.
const COLON: u64 = 10;
/// Digits and a colon, three cells by five, row by row from the highest bit.
const GLYPHS: [u16; 11] = [
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
    0b000_010_000_010_000,
];

const BLACK: Colour = Colour([16, 128, 128]);
const WHITE: Colour = Colour([235, 128, 128]);
/// White, yellow, cyan, green, magenta, red, blue and black at 75 % (ITU-R BT.601).
const BARS: [Colour; 8] = [
    Colour([180, 128, 128]),
    Colour([162, 44, 142]),
    Colour([131, 156, 44]),
    Colour([112, 72, 58]),
    Colour([84, 184, 198]),
    Colour([65, 100, 212]),
    Colour([35, 212, 114]),
    Colour([16, 128, 128]),
];
