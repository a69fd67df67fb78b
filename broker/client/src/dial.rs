//! From a broker's address to an open session: QUIC with a head start before WebSocket, the handshakes
//! of both at the same time where need be, and a hello on the one that was first. Every step has its
//! time-out, so that an attempt always ends.
//!
//! Only one of the two ever says hello. A session exists from its hello on, so an attempt never leaves
//! two that supersede each other.

mod error;
mod heard;
mod quic;
pub(crate) mod websocket;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use identity::Identity;
use pcp::{Certname, ClientEvent, Frame, Hello, Welcome};
use quinn::Connection;
use tokio::time::{sleep, timeout};

use crate::address::BrokerAddress;
use crate::config::ClientConfig;
use crate::session::{Line, OtherWay};
use crate::way::{Transport, Ways};
pub(crate) use error::DialError;
use quic::Sockets;
use websocket::Upgraded;

/// How long QUIC's handshake may take while nothing is heard. Its packets are sent again after 1, 3 and
/// 7 seconds.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The same once anything was heard: a broker under a reconnect storm answers at once and shakes hands
/// when it is our turn. It tells those whom it cannot take soon enough, which is well before this.
const ANSWERED_TIMEOUT: Duration = Duration::from_secs(20);

/// How long the broker may take to answer the hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// How long after its handshake a broker may take to refuse our certificate: one round trip, and what
/// a busy broker needs to look at it.
const SECOND_THOUGHTS: Duration = Duration::from_millis(500);

/// How much earlier than WebSocket QUIC is tried where UDP did not get through the last time.
const SHORT_HEAD_START: Duration = Duration::from_secs(1);

/// What dials: QUIC's sockets, and what was found out about the network.
#[derive(Debug, Default)]
pub(crate) struct Dialler {
    sockets: Sockets,
    /// Whether the last session came about over WebSocket.
    udp_blocked: bool,
}

/// A broker at the other end of a handshake, to which nothing has been said yet.
#[derive(Debug)]
pub(crate) struct Reached {
    pub(crate) address: SocketAddr,
    pub(crate) broker: Certname,
    /// When the handshake was over.
    pub(crate) shaken: Instant,
    /// By which the broker's certificate was verified.
    identity: Arc<Identity>,
    way: ReachedBy,
}

#[derive(Debug)]
enum ReachedBy {
    Quic(Connection),
    WebSocket(Box<Upgraded>),
}

/// A session that the broker has welcomed us to.
#[derive(Debug)]
pub(crate) struct Welcomed {
    pub(crate) broker: Certname,
    pub(crate) address: SocketAddr,
    pub(crate) welcome: Welcome,
    pub(crate) line: Line,
}

impl Dialler {
    /// Dials a broker and says hello.
    pub(crate) async fn dial(
        &mut self,
        broker: &BrokerAddress,
        config: &ClientConfig,
        started: u64,
    ) -> Result<Welcomed, DialError> {
        let reached = self.reach(broker, config).await?;
        let websocket = matches!(reached.way, ReachedBy::WebSocket(_));
        let welcomed = reached.greet(config, started).await?;
        self.udp_blocked = websocket && config.ways == Ways::Auto;
        Ok(welcomed)
    }

    /// Dials a broker over QUIC, and sees that it has nothing against us.
    pub(crate) async fn reach_over_quic(
        &mut self,
        broker: &BrokerAddress,
        config: &ClientConfig,
    ) -> Result<Reached, DialError> {
        let reached = self
            .sockets
            .connect(broker, config, config.identity.get())
            .await?;
        // In TLS 1.3 a client is done before the server has looked at its certificate.
        if let ReachedBy::Quic(connection) = &reached.way
            && let Ok(source) = timeout(SECOND_THOUGHTS, connection.closed()).await
        {
            let address = reached.address;
            return Err(DialError::Handshake { address, source });
        }
        Ok(reached)
    }

    /// Shakes hands by whichever way gets through first.
    async fn reach(
        &mut self,
        broker: &BrokerAddress,
        config: &ClientConfig,
    ) -> Result<Reached, DialError> {
        let identity = config.identity.get();
        match config.ways {
            Ways::Only(Transport::Quic) => {
                return self.sockets.connect(broker, config, identity).await;
            }
            Ways::Only(Transport::WebSocket) => {
                return websocket::upgrade(broker, config, identity).await;
            }
            Ways::Auto => {}
        }
        let udp_blocked = self.udp_blocked;
        let since = self.sockets.heard();
        let patience = async {
            if udp_blocked {
                sleep(config.head_start.min(SHORT_HEAD_START)).await;
            } else {
                since.silence(config.head_start).await;
            }
        };
        let quic = self.sockets.connect(broker, config, Arc::clone(&identity));
        let mut quic = Box::pin(quic);
        let mut no_quic = tokio::select! {
            biased;
            done = &mut quic => match done {
                Err(error) if !error.is_the_broker_s_word() => Some(error),
                done => return done,
            },
            () = patience => None,
        };
        let mut websocket = Box::pin(websocket::upgrade(broker, config, identity));
        let mut no_websocket = None;
        loop {
            tokio::select! {
                biased;
                done = &mut quic, if no_quic.is_none() => match done {
                    Err(error) if !error.is_the_broker_s_word() => no_quic = Some(error),
                    done => return done,
                },
                done = &mut websocket, if no_websocket.is_none() => match done {
                    Err(error) if !error.is_the_broker_s_word() => no_websocket = Some(error),
                    done => return done,
                },
            }
            if let (Some(quic), Some(websocket)) = (&no_quic, &no_websocket) {
                return Err(DialError::NoWay {
                    quic: daemon::error_chain(quic),
                    websocket: daemon::error_chain(websocket),
                });
            }
        }
    }

    /// A session has moved to QUIC: UDP gets through again.
    pub(crate) fn quic_is_back(&mut self) {
        self.udp_blocked = false;
    }

    /// Forgets the sockets, so that the next attempt binds new ones.
    pub(crate) fn reset(&mut self) {
        self.sockets = Sockets::default();
    }

    /// Waits until what was closed is closed for the peers too.
    pub(crate) async fn wait_idle(&self) {
        self.sockets.wait_idle().await;
    }
}

impl Reached {
    /// Says hello, and takes the welcome.
    pub(crate) async fn greet(
        self,
        config: &ClientConfig,
        started: u64,
    ) -> Result<Welcomed, DialError> {
        let hello = Frame::Hello(Hello {
            client_type: config.client_type.clone(),
            software: config.software.clone(),
            features: config.features.clone(),
            started,
        });
        let Self {
            address,
            broker,
            identity,
            way,
            ..
        } = self;
        let greeted = match way {
            ReachedBy::Quic(connection) => {
                let greeting = quic::greet(&connection, identity, hello, config);
                let greeted = timeout(HELLO_TIMEOUT, greeting).await;
                let greeted = greeted.unwrap_or(Err(DialError::HelloTimedOut));
                if greeted.is_err() {
                    connection.close(crate::transport::CLOSED, b"");
                }
                greeted
            }
            ReachedBy::WebSocket(upgraded) => {
                let greeting = websocket::greet(upgraded, identity, &broker, hello, config);
                let greeted = timeout(HELLO_TIMEOUT, greeting).await;
                greeted.unwrap_or(Err(DialError::HelloTimedOut))
            }
        };
        let (welcome, line) = greeted?;
        if welcome.broker != broker {
            return Err(DialError::OtherCertname {
                said: welcome.broker,
                certname: broker,
            });
        }
        Ok(Welcomed {
            broker,
            address,
            welcome,
            line,
        })
    }
}

impl OtherWay for Reached {
    fn leave(self) {
        if let ReachedBy::Quic(connection) = self.way {
            connection.close(crate::transport::CLOSED, b"");
        }
    }
}

/// What the broker's first frame means.
fn answer(event: ClientEvent) -> Result<Welcome, DialError> {
    match event {
        ClientEvent::Welcome(welcome) => Ok(welcome),
        ClientEvent::Retry(retry) => Err(DialError::Retry(retry)),
        ClientEvent::Goodbye(goodbye) => Err(DialError::Refused(goodbye)),
        ClientEvent::Message(_) | ClientEvent::Link(_) => Err(DialError::Closed),
    }
}
