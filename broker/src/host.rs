//! What of the host limits a broker: open files, socket buffers, the kernel's tables of neighbours. Read
//! at the start and by `pcp-broker doctor`; judged in pure code.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use daemon::doctor::Findings;
use pcp_client::transport::{self, Buffers, SOCKET_BUFFER};

/// Clients that a host is prepared for when `max-connections` does not say: what the product is
/// measured with.
pub const EXPECTED_CLIENTS: u64 = 10_000;

/// Files beside one for each client over TCP: sockets of links, the cache, logs, the runtime's own.
const OTHER_FILES: u64 = 256;

/// What was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host {
    /// How many files this process may have open: the soft limit, if it is known.
    pub open_files: Option<u64>,
    /// What the kernel gives of the socket buffers that a broker asks for.
    pub buffers: Option<Buffers>,
    /// How many neighbours the kernel remembers at most, over IPv4 and over IPv6, where it tells.
    pub neighbours: [Option<u64>; 2],
}

impl Host {
    /// Looks at this host, as this process sees it.
    #[must_use]
    pub fn read() -> Self {
        let threshold = |family: &str| {
            let path = format!("/proc/sys/net/{family}/neigh/default/gc_thresh3");
            fs::read_to_string(path).ok()?.trim().parse().ok()
        };
        let any = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        Self {
            open_files: open_files(&limits),
            buffers: transport::bind(any, Some(SOCKET_BUFFER))
                .ok()
                .map(|(_, buffers)| buffers),
            neighbours: [threshold("ipv4"), threshold("ipv6")],
        }
    }

    /// What does not suffice for so many clients, and what to change.
    pub fn judge(&self, clients: u64, findings: &mut Findings) {
        let files = clients.saturating_add(OTHER_FILES);
        match self.open_files {
            Some(limit) if limit < files => findings.warn(
                "open files",
                format_args!(
                    "{limit} are allowed; {clients} clients over WebSocket need {files} (over QUIC \
                     all share one socket)"
                ),
                format_args!("LimitNOFILE={files} in the unit, or `ulimit -n {files}`"),
            ),
            Some(limit) => findings.ok("open files", format_args!("{limit} are allowed")),
            None => findings.warn("open files", "the limit cannot be read", "mount /proc"),
        }
        match self.buffers {
            Some(Buffers { receive, send }) if receive.min(send) < SOCKET_BUFFER => findings.warn(
                "UDP buffers",
                format_args!(
                    "{receive} bytes to receive and {send} to send, of {SOCKET_BUFFER} asked for: \
                     packets of large bursts are lost, and sent again later"
                ),
                format_args!(
                    "sysctl -w net.core.rmem_max={SOCKET_BUFFER} net.core.wmem_max={SOCKET_BUFFER}, \
                     and the same in /etc/sysctl.d; or CAP_NET_ADMIN for the broker"
                ),
            ),
            Some(buffers) => findings.ok(
                "UDP buffers",
                format_args!("{} bytes", buffers.receive.min(buffers.send)),
            ),
            None => findings.warn("UDP buffers", "no UDP socket can be made", "see `ip link`"),
        }
        for (family, key, limit) in [
            ("IPv4", "ipv4", self.neighbours[0]),
            ("IPv6", "ipv6", self.neighbours[1]),
        ] {
            let subject = format!("{family} neighbours");
            match limit {
                Some(limit) if limit < clients => findings.warn(
                    &subject,
                    format_args!(
                        "the kernel remembers {limit}: if {clients} clients are on the same network \
                         segment, packets to some are dropped"
                    ),
                    format_args!(
                        "only if they are: sysctl -w net.{key}.neigh.default.gc_thresh3={}",
                        clients.saturating_mul(2)
                    ),
                ),
                Some(limit) => findings.ok(&subject, format_args!("{limit} are remembered")),
                // This host has no such family, or a namespace hides it.
                None => {}
            }
        }
    }
}

/// The soft limit out of the text of `/proc/self/limits`.
fn open_files(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|l| l.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use daemon::doctor::Level;

    use super::*;

    fn judged(host: Host, clients: u64) -> Vec<(String, Level)> {
        let mut findings = Findings::default();
        host.judge(clients, &mut findings);
        let all = findings.all().iter();
        all.map(|f| (f.subject.clone(), f.level)).collect()
    }

    #[test]
    fn a_host_is_judged_by_how_many_clients_it_is_for() {
        let host = Host {
            open_files: Some(1024),
            buffers: Some(Buffers {
                receive: 212_992,
                send: SOCKET_BUFFER,
            }),
            neighbours: [Some(1024), None],
        };
        let level = |clients| judged(host, clients).into_iter().map(|(_, level)| level);
        assert!(level(10_000).all(|level| level == Level::Warn));
        let few: Vec<_> = level(500).collect();
        assert_eq!(few, [Level::Ok, Level::Warn, Level::Ok]);
    }

    #[test]
    fn the_limit_of_files_is_read_from_what_the_kernel_says() {
        let text = "Limit      Soft  Hard  Units\nMax open files            1024                 524288               files\n";
        assert_eq!(open_files(text), Some(1024));
        assert_eq!(
            open_files("Max open files unlimited unlimited files"),
            Some(u64::MAX)
        );
        assert_eq!(open_files(""), None);
        assert!(Host::read().open_files.is_some());
    }
}
