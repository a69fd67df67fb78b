//! PCP in: messages from the broker are read as PXP, checked against the list of controllers, and
//! handed to the engine, or, when they are blocking, to a task of their own. Nothing here waits for
//! the outcome of a request, so that no request keeps others from being read.

use std::sync::Arc;
use std::time::Duration;

use pcp::{Certname, Envelope, Flags, Message};
use pcp_client::Event;
use pxp::{
    BlockingRequest, JsonObject, MessageKind, NonBlockingRequest, OutcomeAcknowledgement,
    OutputRequest, StatusQuery, StatusResult, StopRequest, StopResult, StopState, TransactionId,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep_until};

use crate::access_log::{Access, AccessLog};
use crate::blocking::BlockingRuns;
use crate::digest::RequestDigest;
use crate::engine::{Command, EngineHandle, Progress, Stopping};
use crate::gate::{Asked, Gate, Granted, Judged};
use crate::metrics::counts;
use crate::modules::{Action, Immediate, Modules, output, status};
use crate::outbox::{Outbox, Outgoing, Places};
use crate::results::{Form, NoResult};
use crate::runner::Runner;
use crate::transaction::{Notify, Request};

/// How many blocking requests that run something are in hand at once; more are refused.
const BLOCKING: usize = 64;

/// The same of questions. They have places of their own, so that what runs can always be stopped.
const QUESTIONS: usize = 64;

/// How much memory the requests in hand may take together, in KiB: 256 MiB. A request counts with the
/// size of its message, until its action has ended. Ordinary ones have a few KiB; one that does not
/// fit any more is refused.
const MEMORY_KIB: usize = 256 * 1024;

/// Reads the connection to the broker.
#[derive(Debug)]
pub struct Session {
    /// What comes from the broker.
    pub events: mpsc::Receiver<Event>,
    /// Where non-blocking requests go.
    pub engine: EngineHandle,
    /// Where answers go.
    pub outbox: Outbox,
    /// What runs blocking requests.
    pub runner: Runner,
    /// What may be asked.
    pub modules: Modules,
    /// What runs for requesters that wait.
    pub runs: BlockingRuns,
    /// Whose requests are taken, and which of them.
    pub gate: Gate,
    /// Where messages are noted.
    pub access_log: AccessLog,
    /// The broker that we are connected to.
    pub broker: Option<Certname>,
    /// Where the tasks of blocking requests belong.
    pub tasks: daemon::Tasks,
    /// What requests in hand may take.
    pub limits: Limits,
}

/// What the requests in hand may take together.
#[derive(Debug, Clone)]
pub struct Limits {
    blocking: Arc<Semaphore>,
    questions: Arc<Semaphore>,
    memory: Arc<Semaphore>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            blocking: Arc::new(Semaphore::new(BLOCKING)),
            questions: Arc::new(Semaphore::new(QUESTIONS)),
            memory: Arc::new(Semaphore::new(MEMORY_KIB)),
        }
    }
}

impl Limits {
    /// Room for one more request.
    fn take(&self, message: &Message) -> Result<OwnedSemaphorePermit, String> {
        let kib = u32::try_from(message.body.len() / 1024 + 1).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.memory).try_acquire_many_owned(kib);
        room.map_err(|_| {
            format!(
                "the agent is busy: the requests in hand take {} MiB of memory; try again later",
                MEMORY_KIB / 1024
            )
        })
    }
}

impl Session {
    /// Reads until shutdown.
    pub async fn run(mut self) {
        let shutdown = self.tasks.shutdown_token();
        loop {
            let event = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                event = self.events.recv() => event,
            };
            match event {
                None => return,
                Some(Event::Connected { welcome, transport }) => {
                    tracing::info!(broker = %welcome.broker, %transport, "connected");
                    counts().connected();
                    daemon::status(&format!("connected to {} over {transport}", welcome.broker));
                    self.broker = Some(welcome.broker);
                    self.engine.send(Command::Connected).await;
                }
                Some(Event::Disconnected { reason }) => {
                    tracing::warn!(reason, "disconnected");
                    daemon::status("not connected to a broker");
                    self.engine.send(Command::Disconnected).await;
                }
                Some(Event::Message(message)) => self.on_message(&message).await,
                // Agents have neither links nor content.
                Some(Event::Link(_) | Event::Content(_)) => {}
            }
        }
    }

    async fn on_message(&self, message: &Message) {
        let envelope = &message.envelope;
        tracing::debug!(
            message_type = %envelope.message_type,
            sender = %envelope.sender,
            message_id = %envelope.id,
            "received"
        );
        let kind = envelope
            .message_type
            .name()
            .and_then(MessageKind::from_name);
        match kind {
            Some(MessageKind::NonBlockingRequest) => self.on_non_blocking(message).await,
            Some(MessageKind::BlockingRequest) => self.on_blocking(message),
            Some(MessageKind::OutcomeAcknowledgement) => self.on_acknowledgement(message).await,
            // What only agents say.
            Some(
                MessageKind::BlockingResponse
                | MessageKind::NonBlockingResponse
                | MessageKind::ProvisionalResponse
                | MessageKind::Error,
            ) => {
                self.note(Access::Success, message);
                tracing::debug!("an agent's message to an agent ignored");
            }
            // Above all a broker's error_message: the requester of an outcome is not connected.
            None => {
                self.note(Access::Success, message);
                tracing::debug!(in_reply_to = ?envelope.in_reply_to, "not a request; ignored");
            }
        }
    }

    async fn on_non_blocking(&self, message: &Message) {
        let envelope = &message.envelope;
        let Some(request) = self.read::<NonBlockingRequest>(message) else {
            return;
        };
        let id = request.transaction_id.clone();
        let admitted = self.admit(envelope, request);
        let admitted = admitted.and_then(|admitted| Ok((admitted, self.limits.take(message)?)));
        match admitted {
            Ok(((request, judged), memory)) => {
                let submit = Command::Submit {
                    request: Arc::new(request),
                    judged,
                    memory,
                };
                self.engine.send(submit).await;
            }
            Err(text) => self.refuse(envelope, id, &text),
        }
    }

    /// Everything about a non-blocking request that can be judged without the disk.
    fn admit(
        &self,
        envelope: &Envelope,
        request: NonBlockingRequest,
    ) -> Result<(Request, Judged), String> {
        self.gate.admit(envelope)?;
        let NonBlockingRequest {
            transaction_id,
            notify_outcome,
            module,
            action,
            params,
        } = request;
        let process = self
            .modules
            .process(&module, &action, params.as_ref())
            .map_err(|refused| refused.to_string())?;
        let digest = RequestDigest::of(&module, &action, params.as_ref())
            .map_err(|error| daemon::error_chain(&error))?;
        let acknowledges = envelope.flags.contains(Flags::ACKNOWLEDGES);
        let mut request = Request {
            id: transaction_id,
            requester: envelope.sender.clone(),
            request_id: envelope.id,
            subject: process.subject().map(str::to_owned),
            rule: None,
            module,
            action,
            digest,
            notify: match (notify_outcome, acknowledges) {
                (false, _) => Notify::Never,
                (true, false) => Notify::Once,
                (true, true) => Notify::UntilAcknowledged,
            },
        };
        let asked = Asked {
            id: &request.id,
            requester: envelope.sender.certname(),
            module: &request.module,
            action: &request.action,
        };
        let judged = self.gate.judge(&asked, process);
        if let Judged::Granted(granted) = &judged {
            request.rule = Some(granted.grant().rule.clone());
        }
        Ok((request, judged))
    }

    fn on_blocking(&self, message: &Message) {
        let envelope = &message.envelope;
        let Some(request) = self.read::<BlockingRequest>(message) else {
            return;
        };
        let BlockingRequest {
            transaction_id,
            module,
            action,
            params,
        } = request;
        let asked = Asked {
            id: &transaction_id,
            requester: envelope.sender.certname(),
            module: &module,
            action: &action,
        };
        let action = self.gate.admit(envelope).and_then(|()| {
            let read = self.modules.action(&module, &action, params.as_ref());
            read.map_err(|refused| refused.to_string())
        });
        let action = action.and_then(|action| match action {
            Action::Immediate(immediate) => Ok(Admitted::Immediate(immediate)),
            Action::Process(process) => match self.gate.judge(&asked, process) {
                Judged::Granted(granted) => Ok(Admitted::Process(granted, Form::of(&module))),
                Judged::Refused(refusal) => Err(refusal.to_string()),
            },
        });
        let action = action.and_then(|action| Ok((action, self.limits.take(message)?)));
        let (action, memory) = match action {
            Ok(admitted) => admitted,
            Err(text) => return self.refuse(envelope, transaction_id, &text),
        };
        let (places, most) = match &action {
            Admitted::Immediate(_) => (&self.limits.questions, QUESTIONS),
            Admitted::Process(..) => (&self.limits.blocking, BLOCKING),
        };
        let Ok(place) = Arc::clone(places).try_acquire_owned() else {
            let text = format!("the agent is busy with {most} blocking requests; try again later");
            return self.refuse(envelope, transaction_id, &text);
        };
        let job = Blocking {
            envelope: envelope.clone(),
            id: transaction_id,
            engine: self.engine.clone(),
            outbox: self.outbox.clone(),
            runner: self.runner.clone(),
            runs: self.runs.clone(),
            places: (place, memory),
        };
        let shutdown = self.tasks.shutdown_token();
        self.tasks.spawn("blocking-request", async move {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = job.run(action) => {}
            }
        });
    }

    async fn on_acknowledgement(&self, message: &Message) {
        let Some(acknowledgement) = self.read::<OutcomeAcknowledgement>(message) else {
            return;
        };
        let id = acknowledgement.transaction_id;
        // The engine compares the sender with the requester, who was a controller.
        let from = message.envelope.sender.clone();
        self.engine.send(Command::Acknowledge { id, from }).await;
    }

    fn read<T: DeserializeOwned>(&self, message: &Message) -> Option<T> {
        match pxp::read(&message.body) {
            Ok(request) => {
                self.note(Access::Success, message);
                Some(request)
            }
            Err(error) => {
                self.note(Access::Unreadable, message);
                let sender = &message.envelope.sender;
                tracing::warn!(%sender, %error, "malformed request refused");
                let text = error.to_string();
                self.outbox
                    .offer(Outgoing::pcp_error(&message.envelope, &text));
                None
            }
        }
    }

    fn note(&self, access: Access, message: &Message) {
        let broker = self.broker.as_ref();
        self.access_log.note(access, broker, &message.envelope);
    }

    fn refuse(&self, envelope: &Envelope, id: TransactionId, text: &str) {
        let sender = &envelope.sender;
        tracing::warn!(transaction_id = %id, %sender, reason = text, "request refused");
        self.outbox.offer(Outgoing::refusal(envelope, id, text));
    }
}

/// A blocking action that may be done.
enum Admitted {
    Immediate(Immediate),
    Process(Granted, Form),
}

/// One blocking request.
struct Blocking {
    envelope: Envelope,
    id: TransactionId,
    engine: EngineHandle,
    outbox: Outbox,
    runner: Runner,
    runs: BlockingRuns,
    places: Places,
}

impl Blocking {
    async fn run(self, action: Admitted) {
        let results = match action {
            Admitted::Immediate(Immediate::Echo(echo)) => object(&echo.run()),
            Admitted::Immediate(Immediate::Ping(ping)) => object(&ping.run()),
            Admitted::Immediate(Immediate::StatusQuery(query)) => {
                self.status(query).await.and_then(|mut result| {
                    result.usage = result.usage.filter(|_| self.knows_usage());
                    object(&result)
                })
            }
            Admitted::Immediate(Immediate::Stop(request)) => self.stop(request).await,
            Admitted::Immediate(Immediate::Output(request)) => self.output(request).await,
            Admitted::Process(granted, form) => {
                let entered = self.runs.enter(self.id.clone());
                let run = self.runner.run_blocking(granted, form, entered.stop());
                let (result, state) = run.await;
                entered.ended(state);
                result.and_then(|result| form.told(result, self.knows_usage()))
            }
        };
        let answer = match results {
            Ok(results) => Outgoing::blocking(&self.envelope, self.id, results, self.places),
            Err(NoResult(text)) => Outgoing::refusal(&self.envelope, self.id, &text),
        };
        self.outbox.send(answer).await;
    }

    /// Requesters made for the original do not expect the key.
    fn knows_usage(&self) -> bool {
        self.envelope.flags.contains(Flags::ACKNOWLEDGES)
    }

    async fn stop(&self, request: StopRequest) -> Result<JsonObject, NoResult> {
        let id = request.transaction_id;
        let blocking = self.runs.stop(&id).await;
        let state = match (blocking, self.engine.stop(id.clone()).await) {
            (_, Stopping::Done(state)) | (Some(state), Stopping::OnDisk) => state,
            (None, Stopping::OnDisk) => {
                let spool = self.runner.spool().clone();
                let asked = id.clone();
                let known = self.runner.disk().run(move || spool.read(&asked)).await;
                match known.map_err(|error| NoResult(daemon::error_chain(&error)))? {
                    Ok(None) => StopState::Unknown,
                    Ok(Some(stored)) if stored.outcome().is_some() => StopState::Finished,
                    // Its job was interrupted, and is being taken up again.
                    Ok(Some(_)) => {
                        let text = "the agent does not know yet what has become of it; ask again";
                        return Err(NoResult(text.to_owned()));
                    }
                    Err(error) => return Err(NoResult(status::unreadable(&error))),
                }
            }
        };
        object(&StopResult {
            transaction_id: id,
            state,
        })
    }

    /// Looks again and again until there is something to say, or the requester has waited enough.
    async fn output(&self, request: OutputRequest) -> Result<JsonObject, NoResult> {
        let wait = Duration::from_millis(request.wait_ms.unwrap_or(0));
        let deadline = Instant::now() + wait.min(output::LONGEST_WAIT);
        let request = Arc::new(request);
        loop {
            // Before the files: what has ended by now has written everything.
            let progress = self.engine.progress(request.transaction_id.clone()).await;
            let spool = self.runner.spool().clone();
            let asked = Arc::clone(&request);
            let look = move || output::read(&spool, &asked, progress);
            let looked = self.runner.disk().run(look).await;
            let chunk = looked.map_err(|error| NoResult(daemon::error_chain(&error)))??;
            if output::says_something(&chunk) || Instant::now() >= deadline {
                return object(&chunk);
            }
            sleep_until(deadline.min(Instant::now() + output::LOOK_AGAIN)).await;
        }
    }

    async fn status(&self, query: StatusQuery) -> Result<StatusResult, NoResult> {
        let id = query.transaction_id;
        let spool = self.runner.spool().clone();
        let max_result = self.runner.max_result();
        let progress = self.engine.progress(id.clone()).await;
        let query = move || match progress {
            Progress::InProgress => StatusResult::running(id),
            Progress::Ended(request, outcome) => {
                status::ended(&spool, &request, &outcome, max_result)
            }
            Progress::OnDisk => status::query(&spool, id, max_result),
        };
        let answered = self.runner.disk().run(query).await;
        answered.map_err(|error| NoResult(daemon::error_chain(&error)))
    }
}

fn object<T: Serialize>(results: &T) -> Result<JsonObject, NoResult> {
    JsonObject::of(results).map_err(|error| NoResult(daemon::error_chain(&error)))
}
