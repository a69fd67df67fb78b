//! The task behind a client: dial, run the session, wait, for ever. It owns the connection and tells
//! the handle and the reader of events how it stands.

use std::time::{Duration, SystemTime};

use pcp::{Certname, GoodbyeCode};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::Event;
use crate::backoff::{Ended, Redial, STABLE};
use crate::clock::now;
use crate::config::ClientConfig;
use crate::dial::{DialError, Dialler, Reached, Welcomed};
use crate::handle::{Session, State};
use crate::reprobe::Reprobe;
use crate::session::OtherWay as _;
use crate::session::{self, Around, End, Line, Outgoing, Ran, WebSocketLine};
use crate::transport;
use crate::way::{Transport, Ways};

/// How long we wait at the end until the broker has seen that the connection is closed.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);

/// One failure in so many is logged as a warning when it is the same as before; the others only at
/// debug level. At the longest backoff that is one line in five minutes.
const REPEAT_WARNING: u32 = 10;

/// The state of the task.
#[derive(Debug)]
pub(crate) struct Connection {
    config: ClientConfig,
    tasks: daemon::Tasks,
    events: mpsc::Sender<Event>,
    state: watch::Sender<State>,
    session: watch::Sender<Option<Session>>,
    redial: Redial,
    reprobe: Reprobe,
    dialler: Dialler,
    /// The first broker, at the other end of a handshake: there the next session begins.
    home: Option<Box<Reached>>,
    random: fastrand::Rng,
    /// What our last hello said; each session of ours must be newer than the one before.
    started: u64,
    last_error: Option<String>,
}

impl Connection {
    pub(crate) fn new(
        config: ClientConfig,
        tasks: daemon::Tasks,
        events: mpsc::Sender<Event>,
        state: watch::Sender<State>,
        session: watch::Sender<Option<Session>>,
    ) -> Self {
        Self {
            redial: Redial::new(config.backoff, config.brokers.len()),
            reprobe: Reprobe::new(config.probe_base),
            dialler: Dialler::default(),
            home: None,
            random: fastrand::Rng::new(),
            started: 0,
            last_error: None,
            config,
            tasks,
            events,
            state,
            session,
        }
    }

    /// Runs until the shutdown, or until nobody reads the events.
    pub(crate) async fn run(mut self) {
        let shutdown = self.tasks.shutdown_token();
        loop {
            let home = self.home.take();
            let attempt = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                () = self.events.closed() => break,
                result = dial(&mut self.dialler, home, &self.config, &self.redial, &mut self.started) => result,
            };
            let ended = match attempt {
                Ok(welcomed) => match self.serve(welcomed).await {
                    Some(ended) => ended,
                    None => break,
                },
                Err(error) => self.failed(&error),
            };
            let wait = self.redial.next(ended, self.random.f64());
            self.tell_connecting();
            tracing::debug!(
                seconds = wait.as_secs_f64(),
                attempt = self.redial.attempt(),
                "waiting before the next attempt"
            );
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                () = self.events.closed() => break,
                () = sleep(wait) => {}
            }
        }
        self.state.send_replace(State::Closed);
        self.session.send_replace(None);
        // A broker that does not answer any more must not hold us up.
        drop(timeout(CLOSE_DEADLINE, self.dialler.wait_idle()).await);
    }

    /// Runs a session, and those that take its place over a better way; nothing when the client is to
    /// end.
    async fn serve(&mut self, welcomed: Welcomed) -> Option<Ended> {
        let broker = welcomed.broker.clone();
        let mut outgoing = Outgoing::new(self.tasks.child());
        let mut since = Instant::now();
        let mut welcomed = Some(welcomed);
        let mut staying = None;
        let mut cut = CancellationToken::new();
        let mut quic = false;
        // Whether a hello was said beside this session, whose answer did not come.
        let mut half_moved = false;
        let shutdown = self.tasks.shutdown_token();
        let end = loop {
            let line = match (welcomed.take(), staying.take()) {
                (Some(new), _) => {
                    since = Instant::now();
                    cut = CancellationToken::new();
                    quic = matches!(new.line, Line::Quic(_));
                    half_moved = false;
                    let transport = self.tell_connected(&new, &outgoing, &cut);
                    let connected = Event::Connected {
                        welcome: new.welcome,
                        transport,
                    };
                    if self.events.send(connected).await.is_err() {
                        break End::Abandoned;
                    }
                    new.line
                }
                (None, Some(line)) => Line::WebSocket(line),
                (None, None) => break End::Silent,
            };
            let around = Around {
                events: &self.events,
                config: &self.config,
                shutdown: &shutdown,
                cut: &cut,
            };
            let better = better(
                &mut self.dialler,
                &self.config,
                &self.redial,
                &mut self.reprobe,
                &mut self.random,
                quic,
            );
            match session::run(line, &mut outgoing, &around, better).await {
                Ran::Ended(end) => break end,
                Ran::GoneHome(reached) => {
                    self.home = Some(reached);
                    break End::GoneHome;
                }
                Ran::Better(line, None) => staying = Some(line),
                Ran::Better(line, Some(reached)) => {
                    let started = next_start(&mut self.started);
                    let greeted = tokio::select! {
                        biased;
                        // What was begun says goodbye.
                        () = shutdown.cancelled() => None,
                        greeted = reached.greet(&self.config, started) => Some(greeted),
                    };
                    match greeted {
                        Some(Ok(new)) => {
                            let reason = "moving to QUIC".to_owned();
                            let moving = Event::Disconnected { reason };
                            if self.events.send(moving).await.is_err() {
                                break End::Abandoned;
                            }
                            self.drain(line);
                            self.dialler.quic_is_back();
                            welcomed = Some(new);
                        }
                        Some(Err(error)) => {
                            let error = daemon::error_chain(&error);
                            tracing::info!(%broker, %error, "not moved to QUIC");
                            half_moved = true;
                            staying = Some(line);
                        }
                        None => staying = Some(line),
                    }
                }
            }
        };
        let end = match end {
            End::Goodbye(goodbye) if half_moved && goodbye.code == GoodbyeCode::Superseded => {
                // By the session whose welcome we did not see.
                End::Silent
            }
            end => end,
        };
        self.session.send_replace(None);
        if quic {
            self.reprobe.quic_ended(since.elapsed());
        }
        self.ended(end, &broker, since).await
    }

    /// Reads what is left of a session that was left, in a task of its own.
    fn drain(&self, line: Box<WebSocketLine>) {
        let (events, shutdown) = (self.events.clone(), self.tasks.shutdown_token());
        self.tasks.spawn("pcp-client-drain", async move {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = session::drain(line, events) => {}
            }
        });
    }

    fn tell_connected(
        &mut self,
        welcomed: &Welcomed,
        outgoing: &Outgoing,
        cut: &CancellationToken,
    ) -> Transport {
        let transport = match welcomed.line {
            Line::Quic(_) => Transport::Quic,
            Line::WebSocket(_) => Transport::WebSocket,
        };
        tracing::info!(
            broker = %welcomed.broker,
            address = %welcomed.address,
            %transport,
            software = %welcomed.welcome.software,
            "connected"
        );
        self.last_error = None;
        self.state.send_replace(State::Connected {
            broker: welcomed.broker.clone(),
            address: welcomed.address,
            transport,
            since: SystemTime::now(),
        });
        let session = outgoing.session(
            welcomed.welcome.max_message,
            &welcomed.line,
            &self.config,
            cut.clone(),
        );
        self.session.send_replace(Some(session));
        transport
    }

    /// Tells how a session has ended, and what that means for the next attempt; nothing when the client
    /// is to end.
    async fn ended(&mut self, end: End, broker: &Certname, since: Instant) -> Option<Ended> {
        let (ended, reason) = match end {
            End::Shutdown | End::Abandoned => return None,
            End::Goodbye(goodbye) => (said(goodbye.code), goodbye.reason),
            End::Lost(error) => (Ended::Dropped, daemon::error_chain(&error)),
            End::Fault(error) => (Ended::Dropped, daemon::error_chain(&error)),
            End::Distrusted(why) => (
                Ended::Failed,
                format!("the broker is not trusted any more: {why}"),
            ),
            End::Silent => (Ended::Dropped, "the broker ended the session".to_owned()),
            End::Dropped => (Ended::Dropped, "we ended the session".to_owned()),
            End::GoneHome => (Ended::GoneHome, "back to the first broker".to_owned()),
        };
        if ended == Ended::Superseded {
            tracing::error!(
                %broker,
                uri = %format_args!("pcp://{}/{}", self.config.identity.get().certname(), self.config.client_type),
                "superseded: another process is connected with our certificate and client type, or the clock went back"
            );
        } else {
            tracing::warn!(%broker, %reason, "disconnected");
        }
        self.last_error = Some(reason.clone());
        self.tell_connecting();
        if self
            .events
            .send(Event::Disconnected { reason })
            .await
            .is_err()
        {
            return None;
        }
        let short = since.elapsed() < STABLE;
        Some(if short && ended == Ended::Dropped {
            Ended::Failed
        } else {
            ended
        })
    }

    /// Logs a failed attempt, and says what it means for the next one.
    fn failed(&mut self, error: &DialError) -> Ended {
        if error.is_socket() {
            self.dialler.reset();
        }
        let text = daemon::error_chain(error);
        let address = self.config.brokers.get(self.redial.broker());
        let broker = address.map(ToString::to_string).unwrap_or_default();
        let attempt = self.redial.attempt();
        let repeated = self.last_error.as_ref() == Some(&text);
        if repeated && !attempt.is_multiple_of(REPEAT_WARNING) {
            tracing::debug!(%broker, attempt, error = %text, "not connected");
        } else {
            tracing::warn!(%broker, attempt, error = %text, "not connected");
        }
        self.last_error = Some(text);
        match error {
            DialError::Retry(retry) => Ended::Retry {
                seconds: retry.seconds,
            },
            DialError::Handshake { source, .. } if transport::is_refused(source) => Ended::Retry {
                seconds: transport::REFUSED_SECONDS,
            },
            DialError::Refused(goodbye) if goodbye.code == GoodbyeCode::Superseded => {
                Ended::Superseded
            }
            _ => Ended::Failed,
        }
    }

    fn tell_connecting(&self) {
        self.state.send_replace(State::Connecting {
            attempt: self.redial.attempt(),
            last_error: self.last_error.clone(),
        });
    }
}

async fn dial(
    dialler: &mut Dialler,
    home: Option<Box<Reached>>,
    config: &ClientConfig,
    redial: &Redial,
    started: &mut u64,
) -> Result<Welcomed, DialError> {
    let Some(broker) = config.brokers.get(redial.broker()) else {
        return Err(DialError::NoBroker);
    };
    let started = next_start(started);
    match home {
        Some(reached) => reached.greet(config, started).await,
        None => dialler.dial(broker, config, started).await,
    }
}

/// Waits for a better way: over QUIC to the broker that we are connected to over WebSocket, or to the
/// first broker; for ever where that is not wanted.
async fn better(
    dialler: &mut Dialler,
    config: &ClientConfig,
    redial: &Redial,
    reprobe: &mut Reprobe,
    random: &mut fastrand::Rng,
    quic: bool,
) -> Reached {
    if quic {
        return home(dialler, config, redial, random).await;
    }
    let broker = match config.brokers.get(redial.broker()) {
        Some(broker) if config.ways == Ways::Auto => broker,
        _ => return std::future::pending().await,
    };
    loop {
        sleep(reprobe.next(random.f64())).await;
        match dialler.reach_over_quic(broker, config).await {
            Ok(reached) => return reached,
            Err(error) => {
                if error.is_socket() {
                    dialler.reset();
                }
                let error = daemon::error_chain(&error);
                tracing::debug!(%broker, %error, "QUIC does not get through yet");
            }
        }
    }
}

/// Waits until the first broker has answered twice in a row, with a pause of chance before each: it is
/// back for a while then, and a fleet does not return in one moment.
async fn home(
    dialler: &mut Dialler,
    config: &ClientConfig,
    redial: &Redial,
    random: &mut fastrand::Rng,
) -> Reached {
    let (Some(first), Some(pause), 1..) =
        (config.brokers.first(), config.home_after, redial.broker())
    else {
        return std::future::pending().await;
    };
    let mut seen = false;
    loop {
        sleep(pause.mul_f64(0.5 + random.f64())).await;
        match dialler.reach_over_quic(first, config).await {
            Ok(reached) if seen => return reached,
            Ok(reached) => {
                reached.leave();
                seen = true;
            }
            Err(error) => {
                let error = daemon::error_chain(&error);
                tracing::debug!(broker = %first, %error, "the first broker is not back yet");
                seen = false;
            }
        }
    }
}

/// What the next hello says.
fn next_start(started: &mut u64) -> u64 {
    *started = now().max(started.saturating_add(1));
    *started
}

fn said(code: GoodbyeCode) -> Ended {
    match code {
        GoodbyeCode::Superseded => Ended::Superseded,
        GoodbyeCode::GoingAway => Ended::GoingAway,
        // 1012, service restart: the original's word for "your certificate may be revoked, come again".
        GoodbyeCode::Normal | GoodbyeCode::Unknown(1012) => Ended::Dropped,
        GoodbyeCode::ProtocolError
        | GoodbyeCode::Unavailable
        | GoodbyeCode::Unauthorized
        | GoodbyeCode::Unknown(_) => Ended::Failed,
    }
}
