//! Which packets belong together: pure arithmetic on their places, counted from the first packet of the connection.

use super::config::{Layout, Settled};

/// The matrix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    columns: u64,
    rows: u64,
    has_row_repairs: bool,
    layout: Layout,
}

/// Which way a group runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Row,
    Column,
}

/// The places of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) first: u64,
    pub(super) step: u64,
    pub(super) len: u64,
}

impl Shape {
    pub(super) fn new(settled: &Settled) -> Self {
        Self {
            columns: u64::from(settled.columns),
            rows: u64::from(settled.rows),
            has_row_repairs: settled.has_row_repairs,
            layout: settled.layout,
        }
    }

    pub(super) const fn columns(&self) -> u64 {
        self.columns
    }

    /// Packets of a row times those of a column.
    pub(super) const fn matrix(&self) -> u64 {
        self.columns * self.rows
    }

    pub(super) const fn has_columns(&self) -> bool {
        self.rows > 1
    }

    pub(super) const fn is_staircase(&self) -> bool {
        matches!(self.layout, Layout::Staircase)
    }

    /// The group of that way with a repair that a place belongs to.
    pub(super) fn group(&self, way: Way, place: u64) -> Option<u64> {
        match way {
            Way::Row => self.has_row_repairs.then_some(place / self.columns),
            Way::Column => self.column(place),
        }
    }

    /// Number of the column that a place belongs to: columns of the first matrix come first. The first places of a
    /// staircase belong to none.
    fn column(&self, place: u64) -> Option<u64> {
        if !self.has_columns() {
            return None;
        }
        let column = place % self.columns;
        let series = place.checked_sub(self.start(column))? / self.matrix();
        Some(series * self.columns + column)
    }

    pub(super) const fn span(&self, way: Way, group: u64) -> Span {
        match way {
            Way::Row => self.row_span(group),
            Way::Column => {
                let (series, column) = (group / self.columns, group % self.columns);
                Span { first: self.start(column) + series * self.matrix(), step: self.columns, len: self.rows }
            }
        }
    }

    /// The places of a row, whether or not rows have repairs.
    pub(super) const fn row_span(&self, row: u64) -> Span {
        Span { first: row * self.columns, step: 1, len: self.columns }
    }

    /// Where the first group of a column starts.
    const fn start(&self, column: u64) -> u64 {
        match self.layout {
            Layout::Even => column,
            Layout::Staircase => column + column % self.rows * self.columns,
        }
    }
}

impl Span {
    pub(super) const fn last(&self) -> u64 {
        self.first + (self.len - 1) * self.step
    }

    /// All of them, lowest first.
    pub(super) fn places(self) -> impl Iterator<Item = u64> {
        (0..self.len).map(move |index| self.first + index * self.step)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn shape(text: &str) -> Shape {
        Shape::new(&text.parse::<Config>().unwrap().settle().unwrap())
    }

    /// The groups of a place, as the first place of their span.
    fn groups(shape: &Shape, place: u64) -> (Option<u64>, Option<u64>) {
        let first = |way| shape.group(way, place).map(|group| shape.span(way, group).first);
        (first(Way::Row), first(Way::Column))
    }

    #[test]
    fn columns_of_an_even_matrix_start_in_its_first_row() {
        let shape = shape("fec,cols:3,rows:2,layout:even");
        let starts: Vec<_> = (0..9).map(|place| groups(&shape, place).1.unwrap()).collect();
        assert_eq!(starts, [0, 1, 2, 0, 1, 2, 6, 7, 8]);
    }

    #[test]
    fn columns_of_a_staircase_start_a_row_apart() {
        let shape = shape("fec,cols:10,rows:5");
        let ends: Vec<u64> = (0..12).map(|column| shape.span(Way::Column, column).last()).collect();
        // As libsrt's document draws it, and as libsrt's repairs come.
        assert_eq!(ends, [40, 51, 62, 73, 84, 45, 56, 67, 78, 89, 90, 101]);
        assert_eq!(groups(&shape, 10), (Some(10), Some(0)));
        assert_eq!(groups(&shape, 1), (Some(0), None));
        assert_eq!(groups(&shape, 50), (Some(50), Some(50)));
        let few_rows = self::shape("fec,cols:4,rows:2");
        let starts: Vec<u64> = (0..5).map(|column| few_rows.span(Way::Column, column).first).collect();
        assert_eq!(starts, [0, 5, 2, 7, 8]);
    }

    #[test]
    fn every_place_belongs_to_one_group_each_way_and_groups_have_their_size() {
        for text in ["fec,cols:2,rows:2", "fec,cols:10,rows:5", "fec,cols:5,rows:10", "fec,cols:3,rows:-7,layout:even"]
        {
            let shape = shape(text);
            for way in [Way::Row, Way::Column] {
                for place in 2 * shape.matrix()..5 * shape.matrix() {
                    let Some(group) = shape.group(way, place) else {
                        assert!(way == Way::Row && text.contains('-'));
                        continue;
                    };
                    let places: Vec<u64> = shape.span(way, group).places().collect();
                    assert!(places.contains(&place), "{text} {place}");
                    assert!(places.iter().all(|other| shape.group(way, *other) == Some(group)), "{text} {place}");
                    assert_eq!(places.last(), Some(&shape.span(way, group).last()));
                }
            }
        }
    }
}
