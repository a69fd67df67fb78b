//! An RBAC service elsewhere that knows the users: it is asked whom a token stands for and what is
//! permitted, over mutual TLS with the orchestrator's certificate. Its answers are kept for a few
//! seconds, since a client that follows a job asks all the time. When it gives no answer, nothing is
//! permitted, and the reason is told.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use identity::{Current, Identity};
use orchestrator_api::{ApiError, ErrorKind};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Denied, lock, unauthenticated};
use crate::grant::Action;
use crate::store::TokenHash;

/// How long an answer holds: a revoked token is of no use after this.
const KEEP: Duration = Duration::from_secs(10);

/// How many answers are kept of each kind.
const MAX_KEPT: usize = 4096;

/// How long the service may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// A client of the service.
#[derive(Debug)]
pub(super) struct Remote {
    url: String,
    identity: Arc<Current>,
    client: Mutex<Option<(Arc<Identity>, reqwest::Client)>>,
    subjects: Mutex<Kept<TokenHash, Subject>>,
    permitted: Mutex<Kept<(String, Action, String), bool>>,
}

/// Whom a token stands for.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Subject {
    pub(super) id: String,
    pub(super) login: String,
}

/// What the service says when it refuses.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Refusal {
    kind: String,
    msg: String,
}

impl Remote {
    pub(super) fn new(url: String, identity: Arc<Current>) -> Self {
        Self {
            url,
            identity,
            client: Mutex::default(),
            subjects: Mutex::default(),
            permitted: Mutex::default(),
        }
    }

    /// Whom a token stands for.
    ///
    /// # Errors
    /// [`Denied`]: the service does not accept it, or gives no answer.
    pub(super) async fn authenticate(&self, token: &str) -> Result<Subject, Denied> {
        let key = TokenHash::of(token);
        if let Some(subject) = lock(&self.subjects).get(&key) {
            return Ok(subject);
        }
        let body = json!({"token": token});
        let (status, answer) = self.post("v2/auth/token/authenticate", &body).await?;
        if status != 200 {
            let refusal: Refusal = serde_json::from_slice(&answer).unwrap_or_default();
            return Err(self.refused(status, &refusal));
        }
        let subject: Subject = self.read(&answer)?;
        lock(&self.subjects).put(key, subject.clone());
        Ok(subject)
    }

    /// Whether a subject may do something.
    ///
    /// # Errors
    /// [`Denied`] when the service gives no answer.
    pub(super) async fn permitted(
        &self,
        subject: &str,
        action: Action,
        task: Option<&str>,
    ) -> Result<bool, Denied> {
        let answers = self.which(subject, action, &[task.unwrap_or("*")]).await?;
        Ok(answers.first().copied().unwrap_or(false))
    }

    /// On which instances, tasks or task targets, a subject may do something.
    ///
    /// # Errors
    /// As [`Self::permitted`].
    pub(super) async fn which(
        &self,
        subject: &str,
        action: Action,
        instances: &[&str],
    ) -> Result<Vec<bool>, Denied> {
        let key = |instance: &str| (subject.to_owned(), action, instance.to_owned());
        let mut answers: Vec<Option<bool>> = {
            let kept = lock(&self.permitted);
            instances.iter().map(|it| kept.get(&key(it))).collect()
        };
        let unknown: Vec<&str> = instances
            .iter()
            .zip(&answers)
            .filter_map(|(instance, answer)| answer.is_none().then_some(*instance))
            .collect();
        if !unknown.is_empty() {
            let (object_type, word) = action.text().split_once(':').unwrap_or_default();
            let permissions: Vec<Value> = unknown
                .iter()
                .map(|it| json!({"object_type": object_type, "action": word, "instance": it}))
                .collect();
            // What the service calls a token here is the subject's id.
            let body = json!({"token": subject, "permissions": permissions});
            let (status, answer) = self.post("v1/permitted", &body).await?;
            if status != 200 {
                let refusal: Refusal = serde_json::from_slice(&answer).unwrap_or_default();
                let text = format!("HTTP status {status} {} {}", refusal.kind, refusal.msg);
                return Err(self.failed(text.trim()));
            }
            let told: Vec<bool> = self.read(&answer)?;
            if told.len() != unknown.len() {
                return Err(self.failed("it answers another question than was asked"));
            }
            let mut told = unknown.into_iter().zip(told);
            let mut kept = lock(&self.permitted);
            for answer in answers.iter_mut().filter(|answer| answer.is_none()) {
                if let Some((instance, is_permitted)) = told.next() {
                    kept.put(key(instance), is_permitted);
                    *answer = Some(is_permitted);
                }
            }
        }
        Ok(answers.into_iter().map(|it| it.unwrap_or(false)).collect())
    }

    async fn post(&self, path: &str, body: &Value) -> Result<(u16, Vec<u8>), Denied> {
        let failed = |error: reqwest::Error| {
            // The URL is told anyway; the body, which has the token, is in no error.
            self.failed(&daemon::error_chain(&error.without_url()))
        };
        let request = self.client()?.post(format!("{}/{path}", self.url));
        let mut answer = request.json(body).send().await.map_err(failed)?;
        let mut bytes = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(failed)? {
            if bytes.len() + piece.len() > MAX_ANSWER {
                return Err(self.failed("its answer is too large"));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok((answer.status().as_u16(), bytes))
    }

    /// The client for the certificate that is in use.
    fn client(&self) -> Result<reqwest::Client, Denied> {
        let identity = self.identity.get();
        let mut kept = lock(&self.client);
        if let Some((of, client)) = kept.as_ref()
            && Arc::ptr_eq(of, &identity)
        {
            return Ok(client.clone());
        }
        let tls = identity
            .client_config(&[b"h2", b"http/1.1"])
            .map_err(|error| self.failed(&daemon::error_chain(&error)))?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured((*tls).clone())
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(TIMEOUT)
            .user_agent(daemon::software("pxp-orchestrator"))
            .build()
            .map_err(|error| self.failed(&daemon::error_chain(&error)))?;
        *kept = Some((identity, client.clone()));
        Ok(client)
    }

    fn read<T: DeserializeOwned>(&self, answer: &[u8]) -> Result<T, Denied> {
        serde_json::from_slice(answer)
            .map_err(|error| self.failed(&format!("its answer is not as expected: {error}")))
    }

    fn refused(&self, status: u16, refusal: &Refusal) -> Denied {
        let msg: String = refusal
            .msg
            .chars()
            .filter(|c| !c.is_control())
            .take(300)
            .collect();
        let told = |default: &str| {
            if msg.is_empty() {
                default.to_owned()
            } else {
                msg.clone()
            }
        };
        match (status, refusal.kind.rsplit('/').next().unwrap_or_default()) {
            (_, "token-revoked") | (_, "user-revoked") => {
                let msg = told("the token has been revoked");
                ApiError::new(ErrorKind::UserRevoked, msg).into()
            }
            (_, "token-expired" | "token-timed-out") => {
                unauthenticated(&told("the token has expired")).into()
            }
            (_, "invalid-token") | (401, _) => {
                unauthenticated(&told("the token is not valid")).into()
            }
            _ => self.failed(&format!("HTTP status {status} {}", told(""))),
        }
    }

    fn failed(&self, reason: &str) -> Denied {
        let url = &self.url;
        tracing::warn!(url, reason, "RBAC service gives no answer");
        Denied::Unavailable(format!("the RBAC service {url} gives no answer: {reason}"))
    }
}

/// Answers for a while, a bounded number of them.
#[derive(Debug)]
struct Kept<K, V>(HashMap<K, (Instant, V)>);

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash, V: Clone> Kept<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        let (since, value) = self.0.get(key)?;
        (since.elapsed() < KEEP).then(|| value.clone())
    }

    fn put(&mut self, key: K, value: V) {
        if self.0.len() >= MAX_KEPT {
            self.0.retain(|_, (since, _)| since.elapsed() < KEEP);
        }
        // With that many fresh ones, the service is asked again.
        if self.0.len() < MAX_KEPT {
            self.0.insert(key, (Instant::now(), value));
        }
    }
}
