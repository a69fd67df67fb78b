//! The single-threaded process that owns one task: applies the plan, runs it, records how it ended.

fn main() {}
