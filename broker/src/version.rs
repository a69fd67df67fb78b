//! The versions of PCP.

/// Which language a session speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// PCP 1: binary messages of chunks.
    One,
    /// PCP 2: text messages.
    Two,
    /// Our own: binary messages of QUIC's frames.
    Native,
}
