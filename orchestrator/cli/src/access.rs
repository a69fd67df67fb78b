//! `puppet-access`: a password for a token, and what becomes of the token.

use std::fs::{self, OpenOptions};
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use orchestrator_api::rbac::TokenRequest;
use serde_json::{Value, json};

use crate::arguments::Format;
use crate::arguments::access::{AccessCommand, ConnectionArguments, LoginArguments};
use crate::client::Client;
use crate::config::access::AccessConfig;
use crate::config::{self, Config, Surroundings};
use crate::error::{ConfigError, Failure, UsageError};
use crate::exit::Exit;
use crate::render;
use crate::screen::{self, Screen};

/// Carries the command out.
///
/// # Errors
/// When the service cannot be asked, or refuses.
pub(crate) async fn access(command: AccessCommand) -> Result<Exit, Failure> {
    match command {
        AccessCommand::Login(arguments) => login(arguments).await?,
        AccessCommand::Show(connection) => {
            let token = config::token(&resolve(&connection)?.token_file)?;
            say(connection.format, &token, &json!({"token": token}));
        }
        AccessCommand::Whoami(connection) => {
            let config = resolve(&connection)?;
            let token = config::token(&config.token_file)?;
            let user = Client::of_rbac(&config, Some(&token))?
                .current_user()
                .await?;
            say(connection.format, &render::user(&user), &json!(user));
        }
        AccessCommand::DeleteTokenFile(connection) => {
            let config = resolve(&connection)?;
            let deleted = delete(&config.token_file)?;
            say(connection.format, &deleted.words(), &deleted.document());
        }
        AccessCommand::Revoke(connection) => {
            let config = resolve(&connection)?;
            let token = config::token(&config.token_file)?;
            Client::of_rbac(&config, Some(&token))?.revoke().await?;
            let deleted = delete(&config.token_file)?;
            let words = format!("The token is revoked.\n{}", deleted.words());
            let mut document = deleted.document();
            if let Some(members) = document.as_object_mut() {
                members.insert("revoked".to_owned(), json!(true));
            }
            say(connection.format, &words, &document);
        }
    }
    Ok(Exit::Success)
}

/// What a person reads, or the one document that a program has asked for.
fn say(format: Format, words: &str, document: &Value) {
    match format {
        Format::Human => Screen::new(false, false).lines(words),
        Format::Json => screen::put(document),
    }
}

fn resolve(connection: &ConnectionArguments) -> Result<AccessConfig, Failure> {
    AccessConfig::resolve(connection, &Surroundings::of_process())
}

async fn login(arguments: LoginArguments) -> Result<(), Failure> {
    let config = resolve(&arguments.connection)?;
    let client = Client::of_rbac(&config, None)?;
    let token = ask(&client, arguments.login, arguments.lifetime).await?;
    let format = arguments.connection.format;
    if arguments.print {
        say(format, &token, &json!({"token": token}));
        return Ok(());
    }
    save(&config.token_file, &token).map_err(|source| ConfigError::TokenWrite {
        path: config.token_file.clone(),
        source,
    })?;
    let file = config.token_file.display();
    let words = format!("Access token saved to: {file}");
    say(format, &words, &json!({"token_file": file.to_string()}));
    Ok(())
}

/// A client with the saved token. Without one, whoever sits at a terminal is asked for login and
/// password, for this one command; a program is told what to do.
///
/// # Errors
/// When there is no token to be had.
pub(crate) async fn client(config: &Config) -> Result<Client, Failure> {
    let missing = match Client::new(config) {
        Err(Failure::Config(error @ ConfigError::NoToken { .. })) => error,
        other => return other,
    };
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(missing.into());
    }
    screen::complain(&format!(
        "There is no token in {}: 'puppet access login' keeps one for the next time.",
        config.token_file.display()
    ));
    let token = ask(&Client::with_token(config, None)?, None, None).await?;
    Client::with_token(config, Some(&token))
}

/// Asks a person, or reads standard input, and exchanges the password.
async fn ask(
    client: &Client,
    login: Option<String>,
    lifetime: Option<String>,
) -> Result<String, Failure> {
    let is_terminal = io::stdin().is_terminal();
    if is_terminal {
        screen::complain("Enter your credentials.");
    }
    let login = match login {
        Some(login) => login,
        None => line(is_terminal.then_some("Username: "))?,
    };
    if login.is_empty() {
        return Err(UsageError::NoLogin.into());
    }
    let password = if is_terminal {
        rpassword::prompt_password("Password: ").map_err(stdin_failed)?
    } else {
        line(None)?
    };
    if password.is_empty() {
        return Err(UsageError::NoPassword.into());
    }
    let request = TokenRequest {
        login,
        password,
        lifetime,
        label: None,
        description: None,
        client: Some("puppet-access".to_owned()),
    };
    match client.login(&request).await {
        Err(Failure::Api(error)) if matches!(error.http_status(), 401 | 429) => {
            Err(Failure::Credentials(error))
        }
        other => other,
    }
}

/// A line of standard input, without its end.
fn line(prompt: Option<&str>) -> Result<String, Failure> {
    if let Some(prompt) = prompt {
        let mut out = io::stderr().lock();
        write!(out, "{prompt}")
            .and_then(|()| out.flush())
            .unwrap_or_default();
    }
    let mut line = String::new();
    io::stdin().read_line(&mut line).map_err(stdin_failed)?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

fn stdin_failed(source: io::Error) -> Failure {
    UsageError::Read {
        path: "standard input".into(),
        source,
    }
    .into()
}

/// Writes the token for nobody else to read. The old one stays until the new one is whole.
fn save(path: &Path, token: &str) -> io::Result<()> {
    if let Some(dir) = path.parent()
        && !dir.as_os_str().is_empty()
    {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)?;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let mut options = OpenOptions::new();
    let written = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&name)
        .and_then(|mut file| {
            file.write_all(token.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&name, path));
    if written.is_err() {
        // What matters is why it could not be written.
        fs::remove_file(&name).unwrap_or_default();
    }
    written
}

/// A token file that is not there any more.
struct Deleted<'a> {
    path: &'a Path,
    /// Whether it was there before.
    was_there: bool,
}

impl Deleted<'_> {
    fn words(&self) -> String {
        let path = self.path.display();
        if self.was_there {
            format!("Deleted the token file {path}.")
        } else {
            format!("There is no token file {path}.")
        }
    }

    fn document(&self) -> Value {
        json!({"token_file": self.path.display().to_string(), "deleted": self.was_there})
    }
}

fn delete(path: &Path) -> Result<Deleted<'_>, Failure> {
    let was_there = match fs::remove_file(path) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(source) => {
            return Err(ConfigError::TokenWrite {
                path: path.to_owned(),
                source,
            }
            .into());
        }
    };
    Ok(Deleted { path, was_there })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_token_is_for_nobody_else_to_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/token");
        save(&path, "first").unwrap();
        save(&path, "second").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "second");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
