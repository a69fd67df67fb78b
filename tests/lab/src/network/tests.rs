//! One network: what passes between its hosts, and what does not.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::time::Duration;

use super::*;
use crate::{skip, wait_until};

const PATIENCE: Duration = Duration::from_secs(20);

/// Sends packets to a host, at this address, until one of its answers is there.
fn ask_at(
    network: &Network,
    from: &str,
    (to, address): (&str, Ipv4Addr),
    size: usize,
    wait: Duration,
) -> bool {
    let server = network
        .on(to, || UdpSocket::bind("0.0.0.0:9000").unwrap())
        .unwrap();
    server.set_nonblocking(true).unwrap();
    let client = network
        .on(from, || UdpSocket::bind("0.0.0.0:0").unwrap())
        .unwrap();
    client.set_nonblocking(true).unwrap();
    let packet = vec![7; size];
    let mut buffer = [0; 2000];
    let answered = wait_until("an answer", wait, || {
        // Where no route or neighbour is, this fails, and is tried again.
        client.send_to(&packet, (address, 9000)).ok();
        while let Ok((length, peer)) = server.recv_from(&mut buffer) {
            server.send_to(&buffer[..length], peer).ok();
        }
        client.recv(&mut buffer).map_err(|error| error.kind())
    });
    match answered {
        Ok(length) => length == size,
        Err(error) => {
            assert!(!error.last.contains(&ErrorKind::NotFound.to_string()));
            false
        }
    }
}

fn ask(network: &Network, from: &str, to: &str, size: usize, wait: Duration) -> bool {
    let address = network.address(to).unwrap();
    ask_at(network, from, (to, address), size, wait)
}

#[test]
fn hosts_see_each_other_as_far_as_the_paths_between_them_let_pass() {
    if let Err(reason) = Network::possible() {
        return skip("netns", &reason);
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("run")).unwrap();
    let network = Network::start(dir.path(), ["a", "b", "c"].into_iter()).unwrap();
    let asks = |network: &Network, wait| ask(network, "a", "b", 1400, wait);
    let moment = Duration::from_millis(300);
    assert!(asks(&network, PATIENCE));

    network.one_way("b", "a", Path::cut()).unwrap();
    assert!(!asks(&network, moment), "answers are cut");
    assert!(ask(&network, "a", "c", 1400, PATIENCE), "others see it");
    assert!(network.counts("b", "a").unwrap().dropped > 0);
    assert!(network.counts("a", "b").unwrap().dropped == 0);

    let hole = Path::swallowing_above(1280);
    network.between("a", "b", hole).unwrap();
    assert!(!asks(&network, moment));
    assert!(ask(&network, "a", "b", 1200, PATIENCE));

    network.between("a", "b", Path::without_udp()).unwrap();
    assert!(!asks(&network, moment));

    let slow = Path::good()
        .losing(30)
        .taking(Duration::from_millis(5), Duration::from_millis(40));
    network.around("a", slow).unwrap();
    assert!(asks(&network, PATIENCE));

    network.around("a", Path::good()).unwrap();
    let elsewhere = Ipv4Addr::new(10, 77, 0, 99);
    network.readdress("b", elsewhere).unwrap();
    assert!(ask_at(&network, "a", ("b", elsewhere), 1400, PATIENCE));
    assert!(!asks(&network, moment), "nobody has the old address");
}
