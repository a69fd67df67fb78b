//! Ports that nobody uses, and that no other lab of this machine takes meanwhile.
//!
//! A process that is restarted needs its old port again, so the system cannot choose one each time.
//! Ports are taken from below the range of outgoing connections, and reserved among labs by a name
//! that ends with the lab, however that ends.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{self, UnixDatagram};

use crate::LabError;

/// Below the 32768 where Linux begins with ports of outgoing connections.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// More than the range holds, so that a machine with any free port gets it nearly surely.
const ATTEMPTS: usize = 20_000;

/// A port that is ours while this value lives.
#[derive(Debug)]
pub(crate) struct Reservation {
    port: u16,
    _name: UnixDatagram,
}

impl Reservation {
    /// Where a process listens that has it.
    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }
}

/// Reserves a port that is free for UDP and TCP on 127.0.0.1.
pub(crate) fn reserve() -> Result<Reservation, LabError> {
    // Each `RandomState` has keys of its own.
    let mut hasher = RandomState::new().build_hasher();
    for _ in 0..ATTEMPTS {
        hasher.write_u8(0);
        let width = u64::from(RANGE.end - RANGE.start);
        let offset = u16::try_from(hasher.finish() % width).unwrap_or_default();
        if let Some(reservation) = try_reserve(RANGE.start + offset) {
            return Ok(reservation);
        }
    }
    Err(LabError::Ports)
}

fn try_reserve(port: u16) -> Option<Reservation> {
    let name = net::SocketAddr::from_abstract_name(format!("pxp-lab-port-{port}")).ok()?;
    let name = UnixDatagram::bind_addr(&name).ok()?;
    UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
    Some(Reservation { port, _name: name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_port_is_not_given_twice() {
        let first = reserve().unwrap();
        assert!(try_reserve(first.port).is_none());
        let port = first.port;
        drop(first);
        assert!(try_reserve(port).is_some());
    }
}
