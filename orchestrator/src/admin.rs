//! What an administrator does on the host: users, roles and tokens, in the database itself. A running
//! orchestrator knows at once. There is no default user and no default password: whoever may write
//! the database makes the first one.

mod text;

use clap::Subcommand;

use crate::auth::{Passwords, token};
use crate::clock::wall;
use crate::config::Config;
use crate::grant::{Action, Grant, GrantError, Pattern};
use crate::store::{AccessChange, Store, StoreError, StoredUser};
use crate::task_target::TargetId;
use crate::{StartError, open};

/// `user …`.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Make a user; the password is asked for, or read from standard input
    Add {
        /// What the user logs in with
        login: String,
        /// The name for people
        #[arg(long, value_name = "TEXT")]
        name: Option<String>,
        /// A role of the user; may be given more than once
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<String>,
        /// Make a user that has no password: for the certificate allow-list and create-token
        #[arg(long)]
        no_password: bool,
    },
    /// Give a user another password, which is asked for or read from standard input
    SetPassword {
        /// Who
        login: String,
    },
    /// List the users with their roles
    List,
    /// Remove a user, with all tokens
    Remove {
        /// Who
        login: String,
    },
    /// Allow a user nothing any more, without removing it
    Revoke {
        /// Who
        login: String,
    },
    /// Allow a revoked user again what the roles permit
    Reinstate {
        /// Who
        login: String,
    },
    /// Make the tokens of a login useless, also when it is no user
    RevokeTokens {
        /// Whose
        login: String,
    },
    /// Give a user a role
    GiveRole {
        /// Who
        login: String,
        /// Which role
        role: String,
    },
    /// Take a role from a user
    TakeRole {
        /// Who
        login: String,
        /// Which role
        role: String,
    },
}

/// `role …`.
#[derive(Debug, Subcommand)]
pub enum RoleCommand {
    /// List the roles, what they permit and who has them
    List,
    /// Make a role that permits nothing yet
    Add {
        /// Its name
        role: String,
        /// What it is for
        #[arg(long, value_name = "TEXT", default_value = "")]
        description: String,
    },
    /// Remove a role from everybody
    Remove {
        /// Its name
        role: String,
    },
    /// Let a role permit an action
    Grant(GrantArguments),
    /// Let a role permit an action no more; to be given as it is listed
    Withdraw(GrantArguments),
}

/// A permission, on the command line.
#[derive(Debug, clap::Args)]
pub struct GrantArguments {
    /// The role
    role: String,
    /// tasks:run, puppet_agent:run, plans:run, orchestrator:view, job:stop, task_target:edit,
    /// task_target:run_with_constraints, or * for everything
    action: String,
    /// The tasks it is for, such as service::*
    #[arg(long, value_name = "PATTERN", default_value = "*")]
    task: String,
    /// The nodes it is for, such as web*.example.com,db1.example.com
    #[arg(
        long,
        value_name = "PATTERNS",
        value_delimiter = ',',
        default_value = "*"
    )]
    nodes: Vec<String>,
    /// The task target of task_target:run_with_constraints, by its number
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["task", "nodes"])]
    task_target: Option<String>,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The database is not usable.
    #[error(transparent)]
    Start(#[from] StartError),
    /// There is nobody of that login.
    #[error("there is no user {0:?}: see user list")]
    NoUser(String),
    /// There is no role of that name.
    #[error("there is no role {0:?}: see role list")]
    NoRole(String),
    /// The user or the role has not what is to be taken away.
    #[error("{0}")]
    Nothing(String),
    /// There is one already.
    #[error("there is a {kind} {name:?} already")]
    Taken {
        /// User or role.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// What was given cannot be.
    #[error("{0}")]
    Invalid(String),
    /// The database did not do it.
    #[error("{0}")]
    Store(String),
}

impl UserCommand {
    /// Whether a password is needed, and whose.
    #[must_use]
    pub fn wants_password(&self) -> Option<&str> {
        match self {
            Self::Add {
                login,
                no_password: false,
                ..
            }
            | Self::SetPassword { login } => Some(login),
            _ => None,
        }
    }
}

/// Does it; gives what is to be told.
///
/// # Errors
/// [`AdminError`].
pub async fn user(
    config: &Config,
    command: UserCommand,
    password: Option<String>,
) -> Result<String, AdminError> {
    let store = open(config)?;
    match command {
        UserCommand::Add {
            login, name, roles, ..
        } => add_user(&store, login, name, roles, password).await,
        UserCommand::SetPassword { login } => {
            let hash = hash(password.unwrap_or_default()).await?;
            let change = AccessChange::SetPassword {
                login: login.clone(),
                hash,
            };
            needs(change_access(&store, change).await?, || {
                AdminError::NoUser(login.clone())
            })?;
            let tokens = revoke_tokens(&store, &login).await?;
            Ok(format!(
                "{login} has a new password; {tokens} tokens are revoked.\n"
            ))
        }
        UserCommand::List => Ok(text::users(&store.accounts().await?)),
        UserCommand::Remove { login } => {
            let change = AccessChange::RemoveUser {
                login: login.clone(),
            };
            needs(change_access(&store, change).await?, || {
                AdminError::NoUser(login.clone())
            })?;
            // Those made before there was such a user, too.
            revoke_tokens(&store, &login).await?;
            Ok(format!("{login} is removed.\n"))
        }
        UserCommand::Revoke { login } => revoke(&store, login, Some(wall())).await,
        UserCommand::Reinstate { login } => revoke(&store, login, None).await,
        UserCommand::RevokeTokens { login } => {
            let tokens = revoke_tokens(&store, &login).await?;
            Ok(format!("{tokens} tokens of {login} are revoked.\n"))
        }
        UserCommand::GiveRole { login, role } => {
            give_role(&store, &login, &role).await?;
            Ok(format!("{login} has the role {role}.\n"))
        }
        UserCommand::TakeRole { login, role } => {
            let change = AccessChange::TakeRole {
                login: login.clone(),
                role: role.clone(),
            };
            let nothing = || AdminError::Nothing(format!("{login} has no role {role}"));
            needs(change_access(&store, change).await?, nothing)?;
            Ok(format!("{login} has the role {role} no more.\n"))
        }
    }
}

/// Does it; gives what is to be told.
///
/// # Errors
/// [`AdminError`].
pub async fn role(config: &Config, command: RoleCommand) -> Result<String, AdminError> {
    let store = open(config)?;
    match command {
        RoleCommand::List => Ok(text::roles(&store.roles().await?)),
        RoleCommand::Add { role, description } => {
            if !token::is_login(&role) {
                let problem = "a role's name is 1 to 255 characters without blanks";
                return Err(AdminError::Invalid(problem.to_owned()));
            }
            let change = AccessChange::AddRole {
                name: role.clone(),
                description,
            };
            let kind = "role";
            needs(change_access(&store, change).await?, || AdminError::Taken {
                kind,
                name: role.clone(),
            })?;
            Ok(format!(
                "The role {role} is made and permits nothing yet: see role grant.\n"
            ))
        }
        RoleCommand::Remove { role } => {
            let change = AccessChange::RemoveRole { name: role.clone() };
            needs(change_access(&store, change).await?, || {
                AdminError::NoRole(role.clone())
            })?;
            Ok(format!("The role {role} is removed.\n"))
        }
        RoleCommand::Grant(arguments) => {
            let (role, grant) = grant(arguments)?;
            let told = format!("{role} permits {grant}.\n");
            let change = AccessChange::Grant {
                role: role.clone(),
                grant,
            };
            needs(change_access(&store, change).await?, || {
                AdminError::NoRole(role)
            })?;
            Ok(told)
        }
        RoleCommand::Withdraw(arguments) => {
            let (role, grant) = grant(arguments)?;
            let nothing = format!("{role} does not permit {grant}: see role list");
            let told = format!("{role} permits no more {grant}.\n");
            let change = AccessChange::TakeGrant { role, grant };
            needs(change_access(&store, change).await?, || {
                AdminError::Nothing(nothing)
            })?;
            Ok(told)
        }
    }
}

async fn add_user(
    store: &Store,
    login: String,
    name: Option<String>,
    roles: Vec<String>,
    password: Option<String>,
) -> Result<String, AdminError> {
    if !token::is_login(&login) {
        let problem = "a login is 1 to 255 characters without blanks";
        return Err(AdminError::Invalid(problem.to_owned()));
    }
    // A role that there is not must not leave a user behind.
    let known = store.roles().await?;
    if let Some(role) = roles
        .iter()
        .find(|role| !known.iter().any(|it| it.name == **role))
    {
        return Err(AdminError::NoRole(role.clone()));
    }
    let password = match password {
        Some(password) => Some(hash(password).await?),
        None => None,
    };
    let user = StoredUser {
        login: login.clone(),
        display_name: name.unwrap_or_else(|| login.clone()),
        password,
        created: wall(),
        last_login: None,
        revoked: None,
    };
    let added = change_access(store, AccessChange::AddUser(user)).await?;
    needs(added, || AdminError::Taken {
        kind: "user",
        name: login.clone(),
    })?;
    for role in &roles {
        give_role(store, &login, role).await?;
    }
    Ok(if roles.is_empty() {
        format!("{login} is made and may do nothing yet: see user give-role.\n")
    } else {
        format!("{login} is made with the roles {}.\n", roles.join(", "))
    })
}

async fn give_role(store: &Store, login: &str, role: &str) -> Result<(), AdminError> {
    let change = AccessChange::GiveRole {
        login: login.to_owned(),
        role: role.to_owned(),
    };
    if change_access(store, change).await? {
        return Ok(());
    }
    Err(match store.account(login.to_owned()).await? {
        Some(_) => AdminError::NoRole(role.to_owned()),
        None => AdminError::NoUser(login.to_owned()),
    })
}

async fn revoke(store: &Store, login: String, at: Option<i64>) -> Result<String, AdminError> {
    let change = AccessChange::RevokeUser {
        login: login.clone(),
        at,
    };
    needs(change_access(store, change).await?, || {
        AdminError::NoUser(login.clone())
    })?;
    Ok(match at {
        Some(_) => format!("{login} is revoked.\n"),
        None => format!("{login} is reinstated.\n"),
    })
}

async fn revoke_tokens(store: &Store, login: &str) -> Result<usize, AdminError> {
    Ok(store.revoke_tokens(login.to_owned(), wall()).await?)
}

async fn change_access(store: &Store, change: AccessChange) -> Result<bool, AdminError> {
    Ok(store.change_access(change).await?)
}

fn needs(was_there: bool, error: impl FnOnce() -> AdminError) -> Result<(), AdminError> {
    if was_there { Ok(()) } else { Err(error()) }
}

async fn hash(password: String) -> Result<String, AdminError> {
    Passwords::new()
        .hash(password)
        .await
        .map_err(|error| AdminError::Invalid(error.to_string()))
}

fn grant(arguments: GrantArguments) -> Result<(String, Grant), AdminError> {
    let invalid = |error: GrantError| AdminError::Invalid(error.to_string());
    let action = match arguments.action.as_str() {
        "*" => None,
        word => Some(word.parse::<Action>().map_err(invalid)?),
    };
    let task = match (action, arguments.task_target) {
        (Some(Action::RunTarget), Some(target)) if target.parse::<TargetId>().is_ok() => target,
        (Some(Action::RunTarget), _) => {
            let problem = "task_target:run_with_constraints needs --task-target with the number \
                           that command/task_target has given";
            return Err(AdminError::Invalid(problem.to_owned()));
        }
        (_, Some(_)) => {
            let problem = "--task-target belongs to task_target:run_with_constraints";
            return Err(AdminError::Invalid(problem.to_owned()));
        }
        (_, None) => arguments.task,
    };
    let nodes = arguments.nodes.iter().map(|it| it.parse::<Pattern>());
    let grant = Grant {
        action,
        tasks: task.parse().map_err(invalid)?,
        nodes: nodes.collect::<Result<_, _>>().map_err(invalid)?,
    };
    Ok((arguments.role, grant))
}

impl From<StoreError> for AdminError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.with_hint())
    }
}
