//! One figure of the product and the same figure of a baseline, as a row with their ratio.

use std::fmt::Display;

use crate::table::Table;

/// What it is, its unit, how to read it off, and the goal.
pub(crate) type Figure<T> = (&'static str, &'static str, fn(T) -> f64, &'static str);

/// Adds a row: both figures, and how they compare.
pub(crate) fn compare<T: Copy>(
    table: &mut Table,
    size: impl Display,
    (what, unit, read, goal): Figure<T>,
    product: T,
    baseline: T,
) {
    let (ours, bare) = (read(product), read(baseline));
    table.row(
        format!("{what}, at {size}"),
        format!("{ours:.2} {unit}"),
        format!("bare quinn {bare:.2} {unit} ({:.2} x)", ours / bare),
        goal,
    );
}
