//! A whole mesh of real processes on one machine: the quick start and the bed of the system tests.
