//! Paths, types and error kinds of the orchestrator API v1.
