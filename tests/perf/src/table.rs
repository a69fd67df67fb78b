//! What was measured, as a table.

use std::fmt;

/// Rows in the order they were measured.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<[String; 4]>);

impl Table {
    /// Adds a row: what, how much, beside what baseline, and the goal or a remark.
    pub(crate) fn row(
        &mut self,
        what: impl Into<String>,
        measured: impl Into<String>,
        baseline: impl Into<String>,
        goal: impl Into<String>,
    ) {
        self.0
            .push([what.into(), measured.into(), baseline.into(), goal.into()]);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["figure", "measured", "baseline, same run", "goal"].map(str::to_owned);
        let rows = || std::iter::once(&head).chain(&self.0);
        let mut widths = [0; 4];
        for row in rows() {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for (number, row) in rows().enumerate() {
            for (cell, width) in row.iter().zip(widths) {
                write!(f, "| {cell:width$} ")?;
            }
            writeln!(f, "|")?;
            if number == 0 {
                for width in widths {
                    write!(f, "|{:-<1$}", "", width + 2)?;
                }
                writeln!(f, "|")?;
            }
        }
        Ok(())
    }
}
