//! The configuration of `puppet-access`: files of its own, flat, and what they do not say from those
//! of the other tools. The orchestrator that runs tasks usually gives the tokens too.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{CA_FILE, Presence, Surroundings, TOKEN_FILE, files, read_as};
use crate::arguments::access::ConnectionArguments;
use crate::error::{ConfigError, Failure};

const FILE_NAME: &str = "puppet-access.conf";
const USER_FILE: &str = ".puppetlabs/client-tools/puppet-access.conf";

/// What holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AccessConfig {
    /// Where the RBAC service is, up to and with `/rbac-api`.
    pub(crate) service_url: String,
    pub(crate) ca_file: PathBuf,
    pub(crate) token_file: PathBuf,
    pub(crate) debug: bool,
}

/// A file as it may be written. Keys of the original that are not here have no use.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct File {
    service_url: Option<String>,
    token_file: Option<PathBuf>,
    certificate_file: Option<PathBuf>,
}

impl AccessConfig {
    /// Reads the files and lets the arguments have the last word.
    ///
    /// # Errors
    /// As [`super::Config::resolve`].
    pub(crate) fn resolve(
        arguments: &ConnectionArguments,
        surroundings: &Surroundings,
    ) -> Result<Self, Failure> {
        let global: File = read_as(
            &surroundings.global_file.with_file_name(FILE_NAME),
            Presence::Optional,
        )?;
        let user: File = match &arguments.config_file {
            Some(path) => read_as(path, Presence::Required)?,
            None => read_as(&surroundings.in_home(USER_FILE), Presence::Optional)?,
        };
        let (global_others, others) = files(None, surroundings)?;
        let service_url = arguments
            .service_url
            .clone()
            .or(user.service_url)
            .or(global.service_url)
            .or_else(|| {
                let url = others.service_url.or(global_others.service_url)?;
                Some(format!("{}/rbac-api", url.trim_end_matches('/')))
            })
            .ok_or(ConfigError::NoServiceUrl)?;
        let first = |paths: [Option<PathBuf>; 5]| {
            let path = paths.into_iter().flatten().next();
            path.map(|path| surroundings.expand(path))
        };
        let ca_file = first([
            arguments.ca_cert.clone(),
            user.certificate_file,
            global.certificate_file,
            others.cacert,
            global_others.cacert,
        ]);
        let token_file = first([
            arguments.token_file.clone(),
            user.token_file,
            global.token_file,
            others.token_file,
            global_others.token_file,
        ]);
        Ok(Self {
            service_url: service_url.trim_end_matches('/').to_owned(),
            ca_file: ca_file.unwrap_or_else(|| Path::new(CA_FILE).to_owned()),
            token_file: token_file.unwrap_or_else(|| surroundings.in_home(TOKEN_FILE)),
            debug: arguments.debug,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_own_files_come_before_those_of_the_other_tools() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let surroundings = Surroundings {
            home: Some(dir.path().join("home")),
            global_file: dir.path().join("etc/orchestrator.conf"),
            ..Surroundings::default()
        };
        let resolve = || AccessConfig::resolve(&ConnectionArguments::default(), &surroundings);
        assert!(resolve().unwrap_err().to_string().contains("service-url"));
        write(
            "etc/orchestrator.conf",
            r#"{"options": {"service-url": "https://o:8143/", "cacert": "/o.pem"}}"#,
        );
        let config = resolve().unwrap();
        assert_eq!(config.service_url, "https://o:8143/rbac-api");
        assert_eq!(config.ca_file, Path::new("/o.pem"));
        assert_eq!(config.token_file, dir.path().join("home/.puppetlabs/token"));
        write(
            "etc/puppet-access.conf",
            r#"{"service-url": "https://c:4433/rbac-api", "token-file": "/g"}"#,
        );
        write(&format!("home/{USER_FILE}"), r#"{"token-file": "~/t"}"#);
        let config = resolve().unwrap();
        assert_eq!(config.service_url, "https://c:4433/rbac-api");
        assert_eq!(config.token_file, dir.path().join("home/t"));
        write(&format!("home/{USER_FILE}"), "service-url = x");
        assert!(
            resolve()
                .unwrap_err()
                .to_string()
                .contains("puppet-access.conf")
        );
    }
}
