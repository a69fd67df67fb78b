//! Runs the real binaries and holds them to their promises.
