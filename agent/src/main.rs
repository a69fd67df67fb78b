//! The PXP agent.

fn main() {}
