//! The task behind a client: dial, run the session, wait, for ever. It owns the connection and tells
//! the handle and the reader of events how it stands.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pcp::GoodbyeCode;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::Event;
use crate::backoff::{Ended, Redial, STABLE};
use crate::config::ClientConfig;
use crate::dial::{DialError, Dialler, Welcomed};
use crate::handle::{Session, State};
use crate::session::{self, End};
use crate::transport;

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
    dialler: Dialler,
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
            dialler: Dialler::default(),
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
            let attempt = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                () = self.events.closed() => break,
                result = dial(&mut self.dialler, &self.config, &self.redial, &mut self.started) => result,
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

    /// Runs a session; nothing when the client is to end.
    async fn serve(&mut self, welcomed: Welcomed) -> Option<Ended> {
        let since = Instant::now();
        let broker = welcomed.broker.clone();
        let tasks = self.tasks.child();
        let max_message = self.config.max_message;
        let (session, queue) = session::open(&welcomed, max_message, tasks.clone());
        tracing::info!(
            %broker,
            address = %welcomed.address,
            software = %welcomed.welcome.software,
            "connected"
        );
        self.last_error = None;
        self.state.send_replace(State::Connected {
            broker: broker.clone(),
            address: welcomed.address,
            since: SystemTime::now(),
        });
        self.session.send_replace(Some(session.clone()));
        let welcome = welcomed.welcome.clone();
        let shutdown = self.tasks.shutdown_token();
        let end = if self.events.send(Event::Connected { welcome }).await.is_ok() {
            let events = &self.events;
            session::run(welcomed, &session, queue, events, &self.config, &shutdown).await
        } else {
            End::Abandoned
        };
        self.session.send_replace(None);
        let (ended, reason) = match end {
            End::Shutdown | End::Abandoned => return None,
            End::Goodbye(goodbye) => (said(goodbye.code), goodbye.reason),
            End::Lost(error) => (Ended::Dropped, daemon::error_chain(&error)),
            End::Distrusted(why) => (
                Ended::Failed,
                format!("the broker is not trusted any more: {why}"),
            ),
            End::Silent => (Ended::Dropped, "the broker ended the session".to_owned()),
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
    config: &ClientConfig,
    redial: &Redial,
    started: &mut u64,
) -> Result<Welcomed, DialError> {
    let Some(broker) = config.brokers.get(redial.broker()) else {
        return Err(DialError::NoAddress(String::new()));
    };
    *started = now().max(started.saturating_add(1));
    dialler.dial(broker, config, *started).await
}

fn said(code: GoodbyeCode) -> Ended {
    match code {
        GoodbyeCode::Superseded => Ended::Superseded,
        GoodbyeCode::GoingAway => Ended::GoingAway,
        GoodbyeCode::Normal => Ended::Dropped,
        GoodbyeCode::ProtocolError
        | GoodbyeCode::Unavailable
        | GoodbyeCode::Unauthorized
        | GoodbyeCode::Unknown(_) => Ended::Failed,
    }
}

/// Milliseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
