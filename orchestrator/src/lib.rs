//! The orchestrator: takes requests by its API, runs tasks on nodes through the mesh, and keeps what
//! became of them.
//!
//! A request for a task goes `http/command.rs` → [`submission`] (is it right?) → [`store`] (on the
//! disk) → [`dispatch`], which drives [`controller`] (what is sent when) and [`job`] (what may follow
//! what). An agent's answer comes back through [`mesh`] → [`controller`] → [`outcome`] (what the
//! task specification makes of it) → [`store`], and only then is acknowledged.

pub mod admin;
mod auth;
mod classifier;
mod clock;
mod code;
pub mod config;
mod controller;
mod counts;
mod deploy;
mod dispatch;
pub mod doctor;
mod estate;
mod flight;
mod grant;
mod http;
mod job;
mod library;
mod mesh;
mod metrics;
mod outcome;
mod prune;
mod puppetdb;
mod puppetserver;
mod reports;
mod scope;
mod service;
mod store;
mod submission;
mod task_target;
#[cfg(test)]
mod tests;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use daemon::Tasks;
use identity::{Current, Derived, IdentityError, TlsVersions};
use pcp::uri::{ClientType, Uri};
use pcp_client::{ClientConfig, FEATURE_CONTENT};
use tokio::net::TcpListener;
use tokio::sync::{RwLock, Semaphore};

pub use config::Config;

use auth::Access;
use code::Code;
use controller::{Composer, Controller, Settings};
use dispatch::{Clock, Dispatcher, MeshPort};
use estate::Estate;
use http::{Api, ApiSettings};
use library::Library;
use reports::{InPuppetDb, ReportSource};
use store::{Store, StoreError};

/// Why the orchestrator does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The certificates are not usable.
    #[error("the certificates are not usable")]
    Identity(#[source] IdentityError),
    /// The database is not usable.
    #[error("the database {path} is not usable: {problem}")]
    Database {
        /// Its file.
        path: String,
        /// What is wrong, with causes.
        problem: String,
    },
    /// The address is taken, or is not ours.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The system has no more threads.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The database is not usable.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The token could not be made.
    #[error("{0}")]
    Create(String),
}

/// An orchestrator that holds its socket, its database and its certificates, and does nothing yet.
#[derive(Debug)]
pub struct Bound {
    config: Config,
    identity: Arc<Current>,
    store: Store,
    listener: TcpListener,
    address: SocketAddr,
    /// Where metrics are read without TLS.
    metrics: Option<TcpListener>,
    /// Where reports of Puppet runs are found, when that is not PuppetDB.
    reports: Option<Arc<dyn ReportSource>>,
    submissions: Arc<RwLock<()>>,
}

impl Bound {
    /// Takes everything that could be missing.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn new(config: Config) -> Result<Self, StartError> {
        let identity = Current::load(config.ssl.clone()).map_err(StartError::Identity)?;
        let store = open(&config)?;
        let listen = |source| StartError::Listen {
            address: config.listen,
            source,
        };
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let metrics = match config.metrics.listen {
            Some(address) => {
                let bound = TcpListener::bind(address).await;
                Some(bound.map_err(|source| StartError::Listen { address, source })?)
            }
            None => None,
        };
        Ok(Self {
            config,
            identity: Arc::new(identity),
            store,
            listener,
            address,
            metrics,
            reports: None,
            submissions: Arc::default(),
        })
    }

    /// Where the API listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where metrics are read without TLS, if anywhere.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref()?.local_addr().ok()
    }

    /// The identity in use, which follows its files while the orchestrator runs.
    #[must_use]
    pub fn identity(&self) -> Arc<Current> {
        Arc::clone(&self.identity)
    }

    /// Goes to work: takes up unfinished jobs, connects to the mesh, answers requests.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(self, tasks: &Tasks) -> Result<(), StartError> {
        let library = Library::new();
        let mut client = ClientConfig::new(
            self.config.brokers.clone(),
            Arc::clone(&self.identity),
            ClientType::orchestrator(),
            daemon::software("pxp-orchestrator"),
        );
        client.features = vec![FEATURE_CONTENT.to_owned()];
        client.max_message = self.config.max_message_size;
        client.ways = self.config.ways;
        // Jobs are taken up before brokers can ask for their files.
        let prepared = self.prepare(library.clone()).await?;
        let mesh = mesh::connect(client, library, tasks);
        let (followed, end) = (Arc::clone(&self.identity), tasks.shutdown_token());
        tasks.spawn_core("certificates", async move {
            tokio::select! {
                biased;
                () = end.cancelled() => {}
                () = followed.follow() => {}
            }
        });
        self.run(prepared, mesh, tasks)
    }

    async fn prepare(&self, library: Library) -> Result<Prepared, StartError> {
        let failed = |error: StoreError| database_error(&self.config, &error);
        let clock = Clock::start();
        let settings = Settings {
            task_concurrency: self.config.task_concurrency,
            compile_concurrency: self.config.compile_concurrency,
            lease: controller::lease(self.config.allowed_pcp_status_requests),
            reports: self.reports.is_some() || !self.config.puppetdb.is_empty(),
            pcp_timeout: millis(self.config.pcp_timeout),
            max_message: self.config.max_message_size,
        };
        let composer = Composer {
            sender: Uri::new(
                self.identity.get().certname().clone(),
                ClientType::orchestrator(),
            ),
            new_id: uuid::Uuid::new_v4,
        };
        let mut controller = Controller::new(clock.now(), settings, composer.clone());
        let jobs = self.store.unfinished().await.map_err(failed)?;
        let nodes = self.store.seen_nodes().await.map_err(failed)?;
        tracing::info!(jobs = jobs.len(), nodes = nodes.len(), "state read");
        for job in &jobs {
            library.add(job.id, &job.files);
        }
        controller.restore(clock.now(), nodes, jobs);
        Ok(Prepared {
            controller,
            composer,
            clock,
            library,
        })
    }

    fn run(self, prepared: Prepared, mesh: MeshPort, tasks: &Tasks) -> Result<(), StartError> {
        let tls = Derived::new(Arc::clone(&self.identity), |identity| {
            identity.server_config_optional_client(&[b"h2", b"http/1.1"], TlsVersions::Tls12And13)
        })
        .map_err(StartError::Identity)?;
        let Prepared {
            controller,
            composer,
            clock,
            library,
        } = prepared;
        let identity = Arc::clone(&self.identity);
        let source: service::Source = Arc::new(move || identity.get());
        let estate = Estate::of(&self.config, &source);
        let server = estate::puppet_server(&self.config, &source, library.clone());
        let code = Code::start(self.config.environments, server).map_err(StartError::Thread)?;
        let address = self.config.puppetdb.first().cloned();
        let reports = self.reports.or_else(|| {
            let puppetdb = Arc::clone(estate.puppetdb.as_ref()?);
            Some(Arc::new(InPuppetDb { puppetdb, address }))
        });
        let (dispatcher, dispatch) = Dispatcher::new(
            controller,
            self.store.clone(),
            library.clone(),
            clock,
            mesh,
            composer,
            reports.map(|source| reports::start(source, tasks)),
        );
        prune::start(self.store.clone(), self.config.job_prune_threshold, tasks);
        tasks.spawn_core("dispatch", dispatcher.run(tasks.shutdown_token()));
        // What is wrong with modules is in the log before anybody asks for them.
        let surveyed = code.clone();
        tasks.spawn("survey", async move { surveyed.survey().await });
        let current = Arc::clone(&self.identity);
        let identity = current.get();
        let certname = identity.certname();
        let access = Access::new(
            self.store.clone(),
            self.config.access,
            Arc::clone(&self.identity),
        );
        let api = Api {
            store: self.store,
            access,
            dispatch,
            code,
            estate,
            library,
            settings: Arc::new(ApiSettings {
                authority: format!("{certname}:{}", self.address.port()),
                task_node_timeout: self.config.default_task_node_timeout.as_secs(),
                deploy_node_timeout: self.config.default_deploy_node_timeout.as_secs(),
                metrics_allowlist: self.config.metrics.allowlist,
                database: self.config.database,
                identity: Arc::clone(&current),
            }),
            submissions: self.submissions,
            followers: Arc::new(Semaphore::new(http::FOLLOWERS)),
            tasks: tasks.clone(),
        };
        if let Some(listener) = self.metrics {
            let serve = http::serve_metrics(listener, api.clone(), tasks.shutdown_token());
            tasks.spawn_core("metrics", serve);
        }
        let router = http::router(api);
        tasks.spawn_core(
            "http",
            http::serve(self.listener, Arc::new(tls), router, tasks.clone()),
        );
        Ok(())
    }
}

/// What was known at the start.
struct Prepared {
    controller: Controller,
    composer: Composer,
    clock: Clock,
    library: Library,
}

/// Makes a token for a login. It is seen this once; the database keeps its SHA-256. A running
/// orchestrator knows it at once.
///
/// # Errors
/// [`TokenError`].
pub async fn create_token(
    config: &Config,
    login: &str,
    lifetime: Duration,
) -> Result<String, TokenError> {
    let store = open(config)?;
    auth::token::create(&store, login, lifetime)
        .await
        .map_err(|error| TokenError::Create(daemon::error_chain(&error)))
}

fn open(config: &Config) -> Result<Store, StartError> {
    Store::open(&config.database).map_err(|error| database_error(config, &error))
}

fn database_error(config: &Config, error: &StoreError) -> StartError {
    StartError::Database {
        path: config.database.display().to_string(),
        problem: error.with_hint(),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
