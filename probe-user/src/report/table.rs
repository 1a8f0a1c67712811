//! Columns for people.

use super::{
    escape,
    look::{DIM, Look, PLAIN},
};

/// One field: what it says, and in which colour.
pub(super) struct Cell {
    text: String,
    color: Option<&'static str>,
}

impl Cell {
    /// Safe to be shown, whoever wrote it.
    pub(super) fn new(text: &str) -> Self {
        Self {
            text: escape::plain(text),
            color: None,
        }
    }

    pub(super) fn painted(text: &str, color: &'static str) -> Self {
        Self {
            color: Some(color),
            ..Self::new(text)
        }
    }

    /// `-` where there is nothing.
    pub(super) fn maybe(text: Option<&str>) -> Self {
        text.filter(|t| !t.is_empty())
            .map_or_else(|| Self::painted("-", DIM), Self::new)
    }
}

/// Appends a heading and rows of as many cells. The last column is as wide as it likes.
pub(super) fn table(out: &mut Vec<u8>, look: &Look, heading: &[&str], rows: &[Vec<Cell>]) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|r| r.get(column));
        let widest = cells.map(|c| c.text.chars().count()).max().unwrap_or(0);
        widest.max(heading.get(column).map_or(0, |h| h.chars().count()))
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let heading: Vec<Cell> = heading.iter().map(|h| Cell::painted(h, DIM)).collect();
    for row in std::iter::once(&heading).chain(rows) {
        for (column, cell) in row.iter().enumerate() {
            if let Some(color) = cell.color {
                look.paint(out, color);
            }
            out.extend_from_slice(cell.text.as_bytes());
            if cell.color.is_some() {
                look.paint(out, PLAIN);
            }
            if column + 1 < row.len() {
                let pad = widths[column].saturating_sub(cell.text.chars().count()) + 2;
                out.resize(out.len() + pad, b' ');
            }
        }
        out.push(b'\n');
    }
}
