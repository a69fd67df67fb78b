//! The PCP broker, in the roles primary and compiler.

fn main() {}
