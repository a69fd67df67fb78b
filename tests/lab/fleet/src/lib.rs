//! Simulated agents by the ten thousand: sessions of the real client, each with a certificate of its
//! own, and behind them no spool and no processes. What they are asked to run succeeds at once.
//!
//! [`Fleet`] holds the sessions and counts what happens to them; [`agent`] is one of them;
//! [`controller`] asks all of them at once and says how long that took. [`compiler`] plays agents
//! without sessions. The binary `fleet` is a process with a fleet or a controller in it, steered by `lab load` over its standard streams.

pub mod agent;
pub mod compiler;
pub mod controller;
pub mod limits;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use identity::{Current, Files};
use lab_ca::CertificateAuthority;
use pcp::{Certname, ClientType};
use pcp_client::{BrokerAddress, ClientConfig, Ways};
use serde::{Deserialize, Serialize};

/// What has happened to all agents of a fleet together.
#[derive(Debug, Default)]
pub struct Counters {
    /// Sessions that are open now.
    connected: AtomicU64,
    /// Sessions that were opened.
    opened: AtomicU64,
    /// Attempts that led to no session.
    failed: AtomicU64,
    /// Requests that were answered.
    answered: AtomicU64,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Sessions that are open now.
    pub connected: u64,
    /// Sessions that were opened.
    pub opened: u64,
    /// Attempts that led to no session: refused, told to come back later, or without an answer.
    pub failed: u64,
    /// Requests that were answered.
    pub answered: u64,
}

impl Counters {
    /// What they say now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            connected: read(&self.connected),
            opened: read(&self.opened),
            failed: read(&self.failed),
            answered: read(&self.answered),
        }
    }
}

/// The certname of the agent with this number.
#[must_use]
pub fn certname(number: usize) -> String {
    format!("load-{number}")
}

/// Connected agents; they go on until the task tree that they were started in ends.
#[derive(Debug)]
pub struct Fleet {
    counters: Arc<Counters>,
}

impl Fleet {
    /// Starts the agents with these numbers, whose certificates the CA has issued. Each prefers one
    /// of the brokers in turn, knows the others, and reaches them in these ways.
    ///
    /// # Errors
    /// When a certificate cannot be loaded.
    pub fn start(
        ca: &CertificateAuthority,
        numbers: std::ops::Range<usize>,
        brokers: &[BrokerAddress],
        ways: Ways,
        tasks: &daemon::Tasks,
    ) -> Result<Self> {
        let counters = Arc::new(Counters::default());
        for number in numbers {
            let mut brokers = brokers.to_vec();
            if !brokers.is_empty() {
                let first = number % brokers.len();
                brokers.rotate_left(first);
            }
            let mut config = ClientConfig::new(
                brokers,
                identity(ca, &certname(number))?,
                ClientType::agent(),
                daemon::software("fleet"),
            );
            config.ways = ways;
            agent::start(config, Arc::clone(&counters), tasks);
        }
        Ok(Self { counters })
    }

    /// What has happened to its agents.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counters.counts()
    }
}

/// Loads the certificate that the CA has issued for a certname.
///
/// # Errors
/// When there is none, or it cannot be used.
pub fn identity(ca: &CertificateAuthority, name: &str) -> Result<Arc<Current>> {
    let certname = Certname::parse(name)?;
    let files = Files::from_ssldir(&ca.ssl_dir(name).dir, &certname);
    let identity =
        Current::load(files).with_context(|| format!("cannot load the certificate of {name}"))?;
    Ok(Arc::new(identity))
}
