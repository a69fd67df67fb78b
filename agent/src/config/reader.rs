//! From what is written to what is meant, key by key, collecting faults.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use daemon::config::{Fault, Lasting, Size, Source};
use daemon::logs::{Format, LogConfig, Target};
use identity::{Files, Revocation};
use pcp::Certname;
use pcp_client::{BrokerAddress, Proxy, Transport, Ways};
use serde::Deserialize;

use super::defaults::{self, Places};
use super::file::File;
use super::puppet::{self, PuppetConf};
use super::{Downloads, PrimaryUri};

/// What is wrong with a path that is one from here.
const RELATIVE: &str = "is no absolute path";

/// What may be written in the configuration of the original's module that runs Puppet.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PuppetModule {
    puppet_bin: Option<PathBuf>,
}

/// Collects faults while values are read.
pub(super) struct Reader<'a> {
    pub(super) source: &'a Source,
    pub(super) faults: &'a mut Vec<Fault>,
}

impl Reader<'_> {
    fn fault(&mut self, key: &str, problem: impl fmt::Display, hint: Option<&str>) {
        self.faults.push(Fault {
            hint: hint.map(str::to_owned),
            ..self.source.fault(key, problem)
        });
    }

    pub(super) fn or_fault<T, E: std::error::Error>(
        &mut self,
        key: &str,
        value: Result<T, E>,
    ) -> Option<T> {
        match value {
            Ok(value) => Some(value),
            Err(error) => {
                self.fault(key, daemon::error_chain(&Plain(&error)), None);
                None
            }
        }
    }

    pub(super) fn brokers(&mut self, file: &File) -> Vec<BrokerAddress> {
        let mut written = Vec::new();
        if let Some(uris) = &file.broker_uris {
            written.push(("broker-uris", uris.clone()));
        }
        if let Some(uris) = &file.broker_ws_uris {
            written.push(("broker-ws-uris", uris.clone()));
        }
        if let Some(uri) = &file.broker_ws_uri {
            written.push(("broker-ws-uri", vec![uri.clone()]));
        }
        if let [_, (second, _), ..] = written.as_slice() {
            let problem = "only one of broker-uris, broker-ws-uris and broker-ws-uri may be set";
            self.fault(second, problem, None);
        }
        let Some((key, uris)) = written.into_iter().next() else {
            let hint = "for example broker-uris: [\"broker.example.net:8142\"]";
            self.fault("broker-uris", "is required", Some(hint));
            return Vec::new();
        };
        if uris.is_empty() {
            self.fault(key, "names no broker", None);
        }
        let parsed = uris.iter().map(|uri| uri.parse());
        parsed
            .filter_map(|address| self.or_fault(key, address))
            .collect()
    }

    pub(super) fn ways(&mut self, file: &File) -> (Ways, Option<Proxy>) {
        let ways = match &file.transport {
            None => Ways::Auto,
            Some(text) => self.or_fault("transport", text.parse()).unwrap_or_default(),
        };
        let key = "broker-ws-proxy";
        let proxy = file.broker_ws_proxy.as_deref().filter(|p| !p.is_empty());
        let proxy = proxy.and_then(|text| self.or_fault(key, text.parse()));
        if proxy.is_some() && ways == Ways::Only(Transport::Quic) {
            let hint = "QUIC goes through no proxy: set transport to auto or websocket";
            self.fault(key, "cannot be used with transport: quic", Some(hint));
        }
        (ways, proxy)
    }

    /// None at all is no fault: a file of the original names none, and the policy may.
    pub(super) fn controllers(&mut self, written: Option<&[String]>) -> Vec<Certname> {
        let parsed = written.unwrap_or_default().iter();
        let parsed = parsed.map(|name| Certname::parse(name));
        parsed
            .filter_map(|name| self.or_fault("controllers", name))
            .collect()
    }

    pub(super) fn downloads(&mut self, file: &File) -> Downloads {
        // The newer name counts, as in the original.
        let (key, uris) = match (&file.primary_uris, &file.master_uris) {
            (Some(uris), _) => ("primary-uris", uris.as_slice()),
            (None, Some(uris)) => ("master-uris", uris.as_slice()),
            (None, None) => ("primary-uris", [].as_slice()),
        };
        let parsed = uris.iter().map(|uri| uri.parse::<PrimaryUri>());
        let primaries = parsed.filter_map(|uri| self.or_fault(key, uri)).collect();
        let connect_timeout = file.task_download_connect_timeout;
        let timeout = file.task_download_timeout;
        let key = "master-proxy";
        let proxy = file.master_proxy.as_deref().filter(|p| !p.is_empty());
        let proxy = proxy.and_then(|text| {
            // The original needs no scheme.
            let scheme = if text.contains("://") { "" } else { "http://" };
            self.or_fault(key, format!("{scheme}{text}").parse::<Proxy>())
        });
        Downloads {
            primaries,
            proxy: proxy.map(|proxy| proxy.of_key(key)),
            connect_timeout: connect_timeout.map_or(defaults::DOWNLOAD_CONNECT_TIMEOUT, |t| t.0),
            timeout: timeout.map_or(defaults::DOWNLOAD_TIMEOUT, |t| t.0),
        }
    }

    /// Certificate, key, CA and CRLs: named one by one, or where Puppet has them.
    pub(super) fn tls(&mut self, file: &File, places: Option<&Places>) -> Option<Files> {
        let revocation = match &file.certificate_revocation {
            None => Revocation::default(),
            Some(text) => self
                .or_fault("certificate-revocation", text.parse())
                .unwrap_or_default(),
        };
        let puppet_dir = places.map_or(Path::new("/etc/puppetlabs/puppet"), |p| &p.puppet_dir);
        let conf = PuppetConf::read(puppet_dir).unwrap_or_default();
        let ssldir = file.ssldir.clone().or(conf.ssldir);
        let ssldir = ssldir.unwrap_or_else(|| puppet_dir.join("ssl"));
        let (cert, key) = match (file.ssl_cert.clone(), file.ssl_key.clone()) {
            (Some(cert), Some(key)) => (Some(cert), Some(key)),
            (cert, key) => {
                let found = self.certname(file, conf.certname.as_deref(), &ssldir);
                let found = found.map(|certname| Files::from_ssldir(&ssldir, &certname));
                let (own_cert, own_key) = found.map(|files| (files.cert, files.key)).unzip();
                (cert.or(own_cert), key.or(own_key))
            }
        };
        let crl = file.ssl_crl.clone().or_else(|| {
            let usual = ssldir.join("crl.pem");
            usual.exists().then_some(usual)
        });
        if revocation != Revocation::None && crl.is_none() {
            let hint = "or set certificate-revocation: none, and revoked brokers stay trusted";
            self.fault("ssl-crl", "is required", Some(hint));
        }
        let ca = file.ssl_ca_cert.clone();
        Some(Files {
            cert: cert?,
            key: key?,
            ca: ca.unwrap_or_else(|| ssldir.join("certs/ca.pem")),
            crl,
            revocation,
        })
    }

    fn certname(&mut self, file: &File, puppets: Option<&str>, ssldir: &Path) -> Option<Certname> {
        if let Some(name) = file.certname.as_deref() {
            return self.or_fault("certname", Certname::parse(name));
        }
        if let Some(name) = puppets.and_then(|name| Certname::parse(name).ok()) {
            return Some(name);
        }
        match puppet::only_certname(ssldir) {
            Ok(name) => Some(name),
            Err(why) => {
                let key = if file.ssl_cert.is_none() {
                    "ssl-cert"
                } else {
                    "ssl-key"
                };
                let hint = "name the files, or set certname and ssldir";
                self.fault(key, format!("is not set, and {why}"), Some(hint));
                None
            }
        }
    }

    pub(super) fn log(&mut self, file: &File) -> LogConfig {
        let facility = match &file.syslog_facility {
            None => defaults::SYSLOG_FACILITY,
            Some(text) => self
                .or_fault("syslog-facility", text.parse())
                .unwrap_or(defaults::SYSLOG_FACILITY),
        };
        let target = match file.logfile.as_deref() {
            None | Some("-") => Target::Stderr,
            Some("syslog") => Target::Syslog(facility),
            Some("eventlog") => {
                let hint = "use \"syslog\", or \"-\", which the service manager collects";
                self.fault("logfile", "eventlog is not on this platform", Some(hint));
                Target::Stderr
            }
            Some(path) => Target::File(PathBuf::from(path)),
        };
        LogConfig {
            level: file.loglevel.unwrap_or_default(),
            format: file.log_format.unwrap_or(Format::Plain),
            target,
        }
    }

    /// Beside the log, unless it is named.
    pub(super) fn access_log(
        &mut self,
        file: &File,
        log: &LogConfig,
        places: Option<&Places>,
    ) -> Option<PathBuf> {
        if file.log_pcp_access != Some(true) {
            return None;
        }
        if let Some(path) = &file.pcp_access_logfile {
            return Some(path.clone());
        }
        let directory = match &log.target {
            Target::File(path) => path.parent()?.to_owned(),
            Target::Stderr | Target::Syslog(_) => places?.log_dir.clone(),
        };
        Some(directory.join("pcp-access.log"))
    }

    /// Other names are no mistake that anybody would see: they are not read.
    pub(super) fn metrics_file(&mut self, file: Option<&PathBuf>) -> Option<PathBuf> {
        let file = file?;
        if file.extension().is_none_or(|extension| extension != "prom") {
            let hint = "its textfile collector reads no other names";
            self.fault(
                "metrics-file",
                "must end in .prom for node_exporter",
                Some(hint),
            );
        }
        Some(file.clone())
    }

    pub(super) fn at_least_one(&mut self, key: &str, value: Option<usize>) -> Option<usize> {
        if value == Some(0) {
            self.fault(key, "must be at least 1", None);
        }
        value
    }

    /// Puppet: as it is set here, or in the configuration of the original's module of this name.
    pub(super) fn puppet_bin(
        &mut self,
        written: Option<PathBuf>,
        modules_config: &Path,
    ) -> Option<PathBuf> {
        let original = modules_config.join("pxp-module-puppet.conf");
        let set = match written {
            None if original.exists() => match Source::read(&original) {
                Ok(source) => {
                    let module: PuppetModule = source.decode(None, self.faults);
                    module
                        .puppet_bin
                        .map(|path| (source.fault("puppet_bin", RELATIVE), path))
                }
                Err(faults) => {
                    self.faults.extend(faults);
                    None
                }
            },
            written => written.map(|path| (self.source.fault("puppet-bin", RELATIVE), path)),
        };
        // Empty means, in the original, that it is not set.
        let (fault, path) = set.filter(|(_, path)| !path.as_os_str().is_empty())?;
        if path.is_relative() {
            self.faults.push(fault);
        }
        Some(path)
    }

    pub(super) fn lasting(&mut self, key: &str, value: Option<Lasting>) -> Option<Duration> {
        let Lasting(duration) = value?;
        if duration.is_zero() {
            let hint = "every task has a limit; choose a long one if you must";
            self.fault(key, "must not be zero", Some(hint));
        }
        Some(duration)
    }
}

/// Lets `error_chain` look at any error.
#[derive(Debug)]
struct Plain<'a, E>(&'a E);

impl<E: fmt::Display> fmt::Display for Plain<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<E: std::error::Error> std::error::Error for Plain<'_, E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// The original's rule: zero means for ever.
pub(super) fn ttl(written: Option<Lasting>) -> Option<Duration> {
    let ttl = written.map_or(defaults::PURGE_TTL, |Lasting(ttl)| ttl);
    Some(ttl).filter(|ttl| !ttl.is_zero())
}

/// Zero means never.
pub(super) fn home_after(written: Option<Lasting>) -> Option<Duration> {
    let after = written.map_or(defaults::HOME_AFTER, |Lasting(after)| after);
    Some(after).filter(|after| !after.is_zero())
}

/// The same for bytes.
pub(super) fn bytes(written: Option<Size>, default: u64) -> Option<u64> {
    Some(written.map_or(default, |Size(bytes)| bytes)).filter(|bytes| *bytes > 0)
}

/// The same for numbers of things.
pub(super) fn count(written: Option<usize>, default: usize) -> Option<usize> {
    Some(written.unwrap_or(default)).filter(|count| *count > 0)
}
