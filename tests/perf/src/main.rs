//! Figures of the running product, each beside a baseline of the same run.

fn main() {}
