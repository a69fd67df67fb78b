//! The orchestrator: API, jobs, dispatch and storage.

fn main() {}
