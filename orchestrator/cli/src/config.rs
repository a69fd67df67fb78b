//! The configuration files of the client tools, and what holds in the end: options given on the
//! command line, then the user's file, then the global one, then the defaults.

pub(crate) mod access;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::arguments::{CONFIG_VARIABLE, CommonArguments};
use crate::error::{ConfigError, Failure};

const GLOBAL_FILE: &str = "/etc/puppetlabs/client-tools/orchestrator.conf";
const USER_FILE: &str = ".puppetlabs/client-tools/orchestrator.conf";
const CA_FILE: &str = "/etc/puppetlabs/puppet/ssl/certs/ca.pem";
const TOKEN_FILE: &str = ".puppetlabs/token";

/// The largest configuration or token file that is read.
const MAX_FILE: u64 = 1 << 20;

/// What holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) service_url: String,
    pub(crate) ca_file: PathBuf,
    pub(crate) token_file: PathBuf,
    pub(crate) environment: Option<String>,
    pub(crate) noop: bool,
    pub(crate) color: bool,
    pub(crate) debug: bool,
}

/// What of the process's surroundings has a say.
#[derive(Debug, Default)]
pub(crate) struct Surroundings {
    pub(crate) home: Option<PathBuf>,
    pub(crate) config_variable: Option<PathBuf>,
    pub(crate) no_color: bool,
    pub(crate) global_file: PathBuf,
}

/// A file as it may be written. Keys of other client tools are left alone.
#[derive(Debug, Default, Deserialize)]
struct File {
    #[serde(default)]
    options: Options,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Options {
    service_url: Option<String>,
    cacert: Option<PathBuf>,
    token_file: Option<PathBuf>,
    environment: Option<String>,
    noop: Option<bool>,
    color: Option<bool>,
}

impl Surroundings {
    /// Those of this process.
    pub(crate) fn of_process() -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        Self {
            home: directories::BaseDirs::new().map(|dirs| dirs.home_dir().to_path_buf()),
            config_variable: variable(CONFIG_VARIABLE).map(PathBuf::from),
            no_color: variable("NO_COLOR").is_some(),
            global_file: PathBuf::from(GLOBAL_FILE),
        }
    }

    fn in_home(&self, path: &str) -> PathBuf {
        self.home
            .as_ref()
            .map_or_else(|| PathBuf::from("/").join(path), |home| home.join(path))
    }

    /// A path as people write it: `~/` is the home directory.
    fn expand(&self, path: PathBuf) -> PathBuf {
        match path.strip_prefix("~") {
            Ok(rest) => self
                .home
                .as_ref()
                .map_or(path.clone(), |home| home.join(rest)),
            Err(_) => path,
        }
    }
}

impl Config {
    /// Reads the files and lets the arguments have the last word.
    ///
    /// # Errors
    /// When a file that was named is not there, a file is not as it should be, or nothing says where
    /// the orchestrator is.
    pub(crate) fn resolve(
        arguments: &CommonArguments,
        surroundings: &Surroundings,
    ) -> Result<Self, Failure> {
        let (global, user) = files(arguments.config_file.as_ref(), surroundings)?;
        let service_url = arguments
            .service_url
            .clone()
            .or(user.service_url)
            .or(global.service_url)
            .ok_or(ConfigError::NoServiceUrl)?;
        let path = |argument: &Option<PathBuf>, user: Option<PathBuf>, global: Option<PathBuf>| {
            argument
                .clone()
                .or(user)
                .or(global)
                .map(|path| surroundings.expand(path))
        };
        let ca_file = path(&arguments.ca_cert, user.cacert, global.cacert);
        let token_file = path(&arguments.token_file, user.token_file, global.token_file);
        let color = if arguments.no_color {
            false
        } else if arguments.color {
            true
        } else {
            !surroundings.no_color && user.color.or(global.color).unwrap_or(true)
        };
        Ok(Self {
            service_url,
            ca_file: ca_file.unwrap_or_else(|| PathBuf::from(CA_FILE)),
            token_file: token_file.unwrap_or_else(|| surroundings.in_home(TOKEN_FILE)),
            environment: arguments
                .environment
                .clone()
                .or(user.environment)
                .or(global.environment),
            noop: user.noop.or(global.noop).unwrap_or(false),
            color,
            debug: arguments.debug,
        })
    }
}

/// The token in a file.
///
/// # Errors
/// When there is none, or it cannot be one.
pub(crate) fn token(file: &Path) -> Result<String, Failure> {
    let path = || file.to_owned();
    let text = match read_limited(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ConfigError::NoToken { path: path() }.into());
        }
        Err(source) => {
            return Err(ConfigError::TokenRead {
                path: path(),
                source,
            }
            .into());
        }
    };
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(ConfigError::TokenForm { path: path() }.into());
    }
    Ok(token.to_owned())
}

/// What the global file says, and the user's or the one that takes its place.
fn files(
    named: Option<&PathBuf>,
    surroundings: &Surroundings,
) -> Result<(Options, Options), Failure> {
    let global = read(&surroundings.global_file, Presence::Optional)?;
    let user = match named.or(surroundings.config_variable.as_ref()) {
        Some(path) => read(path, Presence::Required)?,
        None => read(&surroundings.in_home(USER_FILE), Presence::Optional)?,
    };
    Ok((global, user))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Required,
    Optional,
}

fn read(path: &Path, presence: Presence) -> Result<Options, Failure> {
    Ok(read_as::<File>(path, presence)?.options)
}

fn read_as<T: DeserializeOwned + Default>(path: &Path, presence: Presence) -> Result<T, Failure> {
    let text = match read_limited(path) {
        Ok(text) => text,
        Err(error) if presence == Presence::Optional && error.kind() == io::ErrorKind::NotFound => {
            return Ok(T::default());
        }
        Err(source) => {
            return Err(ConfigError::Read {
                path: path.to_owned(),
                source,
            }
            .into());
        }
    };
    match serde_json::from_str(&text) {
        Ok(file) => Ok(file),
        Err(source) => Err(ConfigError::Parse {
            path: path.to_owned(),
            source,
        }
        .into()),
    }
}

fn read_limited(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > MAX_FILE {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    fs::read_to_string(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Files {
        dir: tempfile::TempDir,
    }

    impl Files {
        fn new() -> Self {
            Self {
                dir: tempfile::tempdir().unwrap(),
            }
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path
        }

        fn surroundings(&self) -> Surroundings {
            Surroundings {
                home: Some(self.dir.path().join("home")),
                global_file: self.dir.path().join("global.conf"),
                ..Surroundings::default()
            }
        }
    }

    fn options(text: &str) -> String {
        format!("{{\"options\": {{{text}}}}}")
    }

    #[test]
    fn the_command_line_beats_the_user_who_beats_the_global_file() {
        let files = Files::new();
        files.write("global.conf", &options(r#""service-url": "https://g:8143", "environment": "g", "cacert": "/g.pem", "noop": true"#));
        files.write(
            &format!("home/{USER_FILE}"),
            &options(r#""service-url": "https://u:8143", "environment": "u", "token-file": "~/t", "other": 1"#),
        );
        let surroundings = files.surroundings();
        let arguments = CommonArguments {
            environment: Some("a".to_owned()),
            ..Default::default()
        };
        let config = Config::resolve(&arguments, &surroundings).unwrap();
        assert_eq!(config.environment.as_deref(), Some("a"));
        assert_eq!(config.service_url, "https://u:8143");
        assert_eq!(config.ca_file, Path::new("/g.pem"));
        assert_eq!(config.token_file, files.dir.path().join("home/t"));
        assert!(config.noop && config.color);
    }

    #[test]
    fn a_named_file_takes_the_place_of_the_users() {
        let files = Files::new();
        files.write(
            &format!("home/{USER_FILE}"),
            &options(r#""service-url": "https://u:1""#),
        );
        let by_variable = files.write("v.conf", &options(r#""service-url": "https://v:1""#));
        let by_flag = files.write("f.conf", &options(r#""service-url": "https://f:1""#));
        let mut surroundings = files.surroundings();
        surroundings.config_variable = Some(by_variable);
        let url = |arguments: &CommonArguments| {
            Config::resolve(arguments, &surroundings)
                .unwrap()
                .service_url
        };
        assert_eq!(url(&CommonArguments::default()), "https://v:1");
        let flag = CommonArguments {
            config_file: Some(by_flag),
            ..Default::default()
        };
        assert_eq!(url(&flag), "https://f:1");
        let missing = CommonArguments {
            config_file: Some("/nonexistent".into()),
            ..Default::default()
        };
        let error = Config::resolve(&missing, &surroundings).unwrap_err();
        assert!(error.to_string().contains("/nonexistent"));
    }

    #[test]
    fn nothing_says_where_the_orchestrator_is() {
        let files = Files::new();
        let error =
            Config::resolve(&CommonArguments::default(), &files.surroundings()).unwrap_err();
        assert!(error.to_string().contains("service-url"));
        files.write("global.conf", "{ not json");
        let error =
            Config::resolve(&CommonArguments::default(), &files.surroundings()).unwrap_err();
        assert!(error.to_string().contains("global.conf"));
    }

    #[test]
    fn color_is_off_by_variable_file_or_flag() {
        let files = Files::new();
        files.write("global.conf", &options(r#""service-url": "https://g:1""#));
        let mut surroundings = files.surroundings();
        let color = |arguments: CommonArguments, surroundings: &Surroundings| {
            Config::resolve(&arguments, surroundings).unwrap().color
        };
        assert!(!color(
            CommonArguments {
                no_color: true,
                ..Default::default()
            },
            &surroundings
        ));
        surroundings.no_color = true;
        assert!(!color(CommonArguments::default(), &surroundings));
        assert!(color(
            CommonArguments {
                color: true,
                ..Default::default()
            },
            &surroundings
        ));
    }

    #[test]
    fn a_token_is_trimmed_and_has_no_odd_characters() {
        let files = Files::new();
        files.write("global.conf", &options(r#""service-url": "https://g:1""#));
        let of = |text: Option<&str>| {
            let path = match text {
                Some(text) => files.write("token", text),
                None => "/nonexistent/token".into(),
            };
            let arguments = CommonArguments {
                token_file: Some(path),
                ..Default::default()
            };
            let config = Config::resolve(&arguments, &files.surroundings()).unwrap();
            token(&config.token_file)
        };
        assert_eq!(of(Some(" abc-1\n")).unwrap(), "abc-1");
        for text in [None, Some(""), Some("a b"), Some("\u{e9}")] {
            assert_eq!(
                of(text).unwrap_err().exit(),
                crate::Exit::Connection,
                "{text:?}"
            );
        }
    }
}
