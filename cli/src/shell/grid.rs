//! Columns of text, as wide as what they hold.

use std::io::{self, Write};

/// A cell and how it stands in its column.
#[derive(Clone, Debug)]
pub enum Cell {
    /// Text, at the left.
    Left(String),
    /// A number, at the right.
    Right(String),
    /// A heading over the whole line; counts for no column's width.
    Across(String),
}

impl Cell {
    /// Text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Left(text.into())
    }

    /// A number.
    pub fn number(number: impl Into<u64>) -> Self {
        Self::Right(number.into().to_string())
    }

    fn width(&self) -> usize {
        match self {
            Self::Left(text) | Self::Right(text) => text.chars().count(),
            Self::Across(_) => 0,
        }
    }
}

/// Writes rows, two blanks between columns, none at a line's end.
pub fn write(out: &mut dyn Write, rows: &[Vec<Cell>]) -> io::Result<()> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(Cell::width).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let mut line = String::new();
        for (cell, &width) in row.iter().zip(&widths) {
            if !line.is_empty() {
                line.push_str("  ");
            }
            match cell {
                Cell::Left(text) => line += &format!("{text:<width$}"),
                Cell::Right(text) => line += &format!("{text:>width$}"),
                Cell::Across(text) => line += text,
            }
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}
