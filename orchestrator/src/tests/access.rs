//! Who may do what, from both sides, over real TLS and HTTP.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::routing::post;
use clap::Parser;
use identity::{Current, Derived, Files, Identity, Revocation, TlsVersions};
use reqwest::Method;
use serde_json::{Value, json};

use super::fleet::Fleet;
use super::{DEADLINE, Home, Server, client};
use crate::admin::{self, RoleCommand, UserCommand};

const V1: &str = "/orchestrator/v1";
const LOGIN: &str = "/rbac-api/v1/auth/token";
const ME: &str = "/rbac-api/v1/users/current";
const PASSWORD: &str = "correct horse";

#[derive(Parser)]
enum Admin {
    #[command(subcommand)]
    User(UserCommand),
    #[command(subcommand)]
    Role(RoleCommand),
}

impl Home {
    /// An administrator's command, with [`PASSWORD`] wherever one is asked for.
    async fn admin(&self, line: &str) -> Result<String, String> {
        let words = std::iter::once("admin").chain(line.split(' '));
        let config = self.config();
        let done = match Admin::try_parse_from(words).unwrap() {
            Admin::User(command) => {
                let password = command.wants_password().map(|_| PASSWORD.to_owned());
                admin::user(&config, command, password).await
            }
            Admin::Role(command) => admin::role(&config, command).await,
        };
        done.map_err(|error| error.to_string())
    }

    pub(super) async fn admins(&self, lines: &[&str]) {
        for line in lines {
            self.admin(line).await.unwrap();
        }
    }
}

impl Server {
    async fn login(&self, login: &str, password: &str) -> (u16, Value) {
        let body = json!({"login": login, "password": password, "lifetime": "5m"});
        let (status, answer) = self.call_as(None, Method::POST, LOGIN, Some(body)).await;
        (status.as_u16(), answer)
    }

    pub(super) async fn token_of(&self, login: &str) -> String {
        let (status, answer) = self.login(login, PASSWORD).await;
        assert_eq!(status, 200, "{answer}");
        answer["token"].as_str().unwrap().to_owned()
    }

    /// The status and the kind of the error, if it is one.
    async fn ask(&self, token: &str, path: &str) -> (u16, String) {
        self.outcome(token, Method::GET, path, None).await
    }

    pub(super) async fn task(&self, token: &str, task: &str, nodes: &[&str]) -> (u16, Value) {
        let body = json!({"task": task, "scope": {"nodes": nodes}});
        let path = format!("{V1}/command/task");
        let (status, answer) = self
            .call_as(Some(token), Method::POST, &path, Some(body))
            .await;
        (status.as_u16(), answer)
    }

    async fn outcome(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (u16, String) {
        let (status, answer) = self.call_as(Some(token), method, path, body).await;
        let kind = answer["kind"].as_str().unwrap_or_default();
        (status.as_u16(), kind.to_owned())
    }
}

fn error(status: u16, kind: &str) -> (u16, String) {
    (status, kind.to_owned())
}

fn not_permitted() -> (u16, String) {
    error(403, "puppetlabs.orchestrator/not-permitted")
}

fn ok() -> (u16, String) {
    error(200, "")
}

#[tokio::test]
async fn roles_decide_which_task_runs_where_and_who_sees_and_stops_it() {
    let home = Home::new();
    home.admins(&[
        "role add web --description Web",
        "role grant web tasks:run --task sample::h* --nodes web*,test1",
        "user add bob --role web --name Bob",
        "user add eve",
        "user add vic --role Viewers",
        "user add otto --role Operators",
    ])
    .await;
    let fleet = Fleet::echo(&["web1", "db1"]);
    let server = home.start(&fleet).await;
    let bob = server.token_of("bob").await;
    let eve = server.token_of("eve").await;
    let vic = server.token_of("vic").await;
    let otto = server.token_of("otto").await;

    // What bob may run and where; the rest is left out, and said to be.
    let (status, accepted) = server.task(&bob, "sample::hello", &["web1", "db1"]).await;
    assert_eq!(status, 202, "{accepted}");
    let job = accepted["job"]["name"].as_str().unwrap().to_owned();
    server.end(&job).await;
    let (_, seen) = server
        .call_as(Some(&bob), Method::GET, &format!("{V1}/jobs/{job}"), None)
        .await;
    assert_eq!(seen["node_count"], 1, "{seen}");
    assert_eq!(seen["owner"]["login"], "bob");
    assert_eq!(
        seen["options"]["notes"],
        json!(["1 node is left out, where bob may not run sample::hello: db1"])
    );
    let (status, refused) = server.task(&bob, "sample::hello", &["db1"]).await;
    assert_eq!(
        (status, &refused["details"]["nodes"]),
        (403, &json!(["db1"]))
    );
    let (status, refused) = server.task(&bob, "sample::typed", &["web1"]).await;
    assert_eq!(status, 403, "{refused}");
    assert_eq!(refused["details"]["permission"], "tasks:run");
    assert_eq!(refused["details"]["task"], "sample::typed");
    // Whether a task exists is not told to who may not run it.
    assert_eq!(server.task(&bob, "other::none", &["web1"]).await.0, 403);
    assert_eq!(server.task(&eve, "sample::hello", &["web1"]).await.0, 403);
    assert_eq!(server.task(&vic, "sample::hello", &["web1"]).await.0, 403);
    assert_eq!(server.task(&otto, "sample::hello", &["db1"]).await.0, 202);

    // The list says which.
    let permitted = async |token: &str| {
        let (_, list) = server
            .call_as(Some(token), Method::GET, &format!("{V1}/tasks"), None)
            .await;
        let items = list["items"].as_array().unwrap().clone();
        let flags = items
            .iter()
            .map(|it| (it["name"].clone(), it["permitted"].clone()));
        flags.collect::<Vec<_>>()
    };
    assert!(
        permitted(&bob)
            .await
            .contains(&(json!("sample::hello"), json!(true)))
    );
    assert!(
        permitted(&bob)
            .await
            .contains(&(json!("sample::typed"), json!(false)))
    );
    assert!(
        permitted(&otto)
            .await
            .iter()
            .all(|(_, may)| *may == json!(true))
    );
    assert!(
        permitted(&eve)
            .await
            .iter()
            .all(|(_, may)| *may == json!(false))
    );

    // Jobs are for their owners and for who may see those of all.
    for path in ["", "/nodes", "/events", "/report"] {
        let path = format!("{V1}/jobs/{job}{path}");
        assert_eq!(server.ask(&bob, &path).await, ok(), "{path}");
        assert_eq!(server.ask(&vic, &path).await, ok(), "{path}");
        assert_eq!(server.ask(&otto, &path).await, ok(), "{path}");
        assert_eq!(server.ask(&eve, &path).await, not_permitted(), "{path}");
    }
    for path in ["/jobs", "/inventory", "/inventory/web1"] {
        let path = format!("{V1}{path}");
        assert_eq!(server.ask(&vic, &path).await, ok(), "{path}");
        assert_eq!(server.ask(&bob, &path).await, not_permitted(), "{path}");
    }
    assert_eq!(server.ask(&eve, V1).await, ok());

    // Stopping: the owner, or who may stop those of all.
    let stop = async |token: &str| {
        let body = json!({"job": job});
        let path = format!("{V1}/command/stop");
        server.outcome(token, Method::POST, &path, Some(body)).await
    };
    assert_eq!(stop(&vic).await, not_permitted());
    assert_eq!(stop(&eve).await, not_permitted());
    assert_eq!(stop(&bob).await, error(202, ""));
    assert_eq!(stop(&otto).await, error(202, ""));

    // Roles count at once, also for tokens that are there.
    home.admins(&["role withdraw web tasks:run --task sample::h* --nodes web*,test1"])
        .await;
    assert_eq!(server.task(&bob, "sample::hello", &["web1"]).await.0, 403);
    home.admins(&["user give-role bob Operators"]).await;
    assert_eq!(server.task(&bob, "sample::hello", &["web1"]).await.0, 202);
    home.admins(&["user take-role bob Operators", "role remove web"])
        .await;
    assert_eq!(server.task(&bob, "sample::hello", &["web1"]).await.0, 403);
}

#[tokio::test]
async fn a_user_or_a_token_that_is_revoked_opens_nothing() {
    let home = Home::new();
    home.admins(&["user add ada --role Administrators --name Ada"])
        .await;
    let server = home.start(&Fleet::echo(&["a"])).await;
    let token = server.token_of("ada").await;
    let (_, me) = server.call_as(Some(&token), Method::GET, ME, None).await;
    assert_eq!(
        (&me["login"], &me["display_name"], &me["is_superuser"]),
        (&json!("ada"), &json!("Ada"), &json!(true))
    );
    assert_eq!(me["roles"], json!(["Administrators"]));

    let revoked = error(401, "puppetlabs.rbac/user-revoked");
    home.admins(&["user revoke ada"]).await;
    assert_eq!(server.ask(&token, V1).await, revoked);
    assert_eq!(server.login("ada", PASSWORD).await.0, 401);
    home.admins(&["user reinstate ada"]).await;
    assert_eq!(server.ask(&token, V1).await, ok());

    let revoke = format!("{LOGIN}/revoke");
    let done = server
        .outcome(&token, Method::POST, &revoke, Some(json!({})))
        .await;
    assert_eq!(done, ok());
    assert_eq!(server.ask(&token, V1).await, revoked);

    // The token of the home was made for a login that was no user when it came to be a user.
    let (first, second) = (server.token_of("ada").await, server.token_of("ada").await);
    home.admins(&["user revoke-tokens ada"]).await;
    assert_eq!(server.ask(&first, V1).await, revoked);
    assert_eq!(server.ask(&second, V1).await, revoked);
    let third = server.token_of("ada").await;
    home.admins(&["user set-password ada"]).await;
    assert_eq!(server.ask(&third, V1).await, revoked);
    let fourth = server.token_of("ada").await;
    home.admins(&["user remove ada"]).await;
    let unknown = error(401, "puppetlabs.rbac/user-unauthenticated");
    assert_eq!(server.ask(&fourth, V1).await, unknown);
    assert_eq!(server.login("ada", PASSWORD).await.0, 401);
}

#[tokio::test]
async fn a_token_lasts_as_long_as_it_was_asked_for() {
    let mut home = Home::new();
    home.more = "rbac.token-maximum-lifetime: 2h".to_owned();
    home.admins(&["user add ada --role Viewers"]).await;
    let server = home.start(&Fleet::echo(&["a"])).await;
    let ask = async |lifetime: Value| {
        let body = json!({"login": "ada", "password": PASSWORD, "lifetime": lifetime});
        let (status, answer) = server.call_as(None, Method::POST, LOGIN, Some(body)).await;
        (status.as_u16(), answer)
    };
    for lifetime in [json!(null), json!("0"), json!("2h"), json!("90")] {
        assert_eq!(ask(lifetime.clone()).await.0, 200, "{lifetime}");
    }
    for lifetime in [json!("3h"), json!("soon"), json!("")] {
        let (status, answer) = ask(lifetime.clone()).await;
        assert_eq!(status, 400, "{lifetime}: {answer}");
        assert_eq!(answer["details"]["lifetime"], lifetime);
    }
    let (_, answer) = ask(json!("1s")).await;
    let token = answer["token"].as_str().unwrap().to_owned();
    let expired = error(401, "puppetlabs.rbac/user-unauthenticated");
    let mut polls = tokio::time::interval(std::time::Duration::from_millis(20));
    let expires = async {
        while server.ask(&token, V1).await != expired {
            polls.tick().await;
        }
    };
    tokio::time::timeout(DEADLINE, expires).await.unwrap();
    let (_, answer) = server.call_as(Some(&token), Method::GET, V1, None).await;
    assert!(
        answer["msg"].as_str().unwrap().contains("expired"),
        "{answer}"
    );
}

#[tokio::test]
async fn who_guesses_passwords_is_held_up_and_learns_nothing() {
    let mut home = Home::new();
    home.more = "rbac.failed-attempts-lockout: 2".to_owned();
    home.admins(&[
        "user add ada --role Viewers",
        "user add bob",
        "user add svc --no-password",
    ])
    .await;
    let server = home.start(&Fleet::echo(&["a"])).await;
    let wrong = server.login("ada", "wrong").await;
    assert_eq!(wrong.0, 401);
    assert_eq!(wrong.1["kind"], "puppetlabs.rbac/user-unauthenticated");
    for login in ["nobody", "svc"] {
        assert_eq!(server.login(login, PASSWORD).await, wrong, "{login}");
    }
    assert_eq!(server.login("ada", "wrong").await.0, 401);
    // Even the right password is not looked at now; others are not held up.
    let (status, locked) = server.login("ada", PASSWORD).await;
    assert_eq!(status, 429, "{locked}");
    assert_eq!(locked["kind"], "puppetlabs.rbac/user-locked-out");
    assert!(
        locked["details"]["seconds"].as_u64().unwrap() <= 3,
        "{locked}"
    );
    server.token_of("bob").await;
    let mut polls = tokio::time::interval(std::time::Duration::from_millis(100));
    let again = async {
        while server.login("ada", PASSWORD).await.0 != 200 {
            polls.tick().await;
        }
    };
    tokio::time::timeout(DEADLINE, again).await.unwrap();
}

#[tokio::test]
async fn a_listed_certificate_acts_as_its_user_and_no_other_does() {
    let mut home = Home::new();
    home.more = "orchestrator.certificate-allowlist { orchestrator: svc }".to_owned();
    let fleet = Fleet::echo(&["a"]);
    let server = home.start(&fleet).await;
    let me = async |server: &Server| {
        let (status, answer) = server.call_as(None, Method::GET, ME, None).await;
        (status.as_u16(), answer)
    };
    // The client of these tests shows the certificate "orchestrator".
    let (status, answer) = me(&server).await;
    assert_eq!(status, 401);
    assert!(
        answer["msg"]
            .as_str()
            .unwrap()
            .contains("\"svc\", which is no user"),
        "{answer}"
    );
    home.admins(&["user add svc --no-password --role Viewers"])
        .await;
    let (status, answer) = me(&server).await;
    assert_eq!((status, &answer["login"]), (200, &json!("svc")));
    let (status, _) = server
        .call_as(None, Method::GET, &format!("{V1}/jobs"), None)
        .await;
    assert_eq!(status, 200);
    let body = json!({"task": "sample::hello", "scope": {"nodes": ["a"]}});
    let (status, _) = server
        .call_as(
            None,
            Method::POST,
            &format!("{V1}/command/task"),
            Some(body),
        )
        .await;
    assert_eq!(status, 403);
    // A token counts before the certificate, also a bad one.
    assert_eq!(server.ask("bad", V1).await.0, 401);
    home.admins(&["user revoke svc"]).await;
    assert_eq!(me(&server).await.0, 401);
    server.stop().await;

    home.more = "orchestrator.certificate-allowlist { other: svc }".to_owned();
    home.admins(&["user reinstate svc"]).await;
    let server = home.start(&fleet).await;
    let (status, answer) = me(&server).await;
    assert_eq!(
        (status, &answer["details"]["certname"]),
        (401, &json!("orchestrator"))
    );
}

#[tokio::test]
async fn another_service_may_know_the_users() {
    let mut home = Home::new();
    let asked: Arc<Mutex<Vec<Value>>> = Arc::default();
    let tasks = daemon::Tasks::new();
    let service = played_rbac(&home, &tasks, Arc::clone(&asked)).await;
    home.more = format!("rbac-consumer.api-url: \"{service}/rbac-api\"");
    let server = home.start(&Fleet::echo(&["a"])).await;

    assert_eq!(server.task("good", "sample::hello", &["a"]).await.0, 202);
    assert_eq!(server.task("good", "sample::typed", &["a"]).await.0, 403);
    assert_eq!(
        server.ask("good", &format!("{V1}/jobs")).await,
        not_permitted()
    );
    let (_, list) = server
        .call_as(Some("good"), Method::GET, &format!("{V1}/tasks"), None)
        .await;
    let items = list["items"].as_array().unwrap();
    assert!(
        items
            .iter()
            .all(|it| it["permitted"] == json!(it["name"] == "sample::hello"))
    );
    // Asked once each, by the subject's id and not the token.
    let questions = std::mem::take(&mut *asked.lock().unwrap());
    let tokens: Vec<_> = questions
        .iter()
        .filter(|it| it["token"] == "good")
        .collect();
    assert_eq!(tokens.len(), 1, "{questions:?}");
    let hello = json!({"object_type": "tasks", "action": "run", "instance": "sample::hello"});
    let about_hello = questions.iter().filter(|it| {
        it["permissions"]
            .as_array()
            .is_some_and(|all| all.contains(&hello))
    });
    assert_eq!(about_hello.count(), 1, "{questions:?}");

    // A task target that the service permits, and one that it does not.
    let path = format!("{V1}/command/task_target");
    for tasks in [json!(["sample::other"]), json!(["sample::typed"])] {
        let body = json!({"tasks": tasks, "nodes": ["a"], "node_groups": []});
        assert_eq!(server.post(&path, body).await.0, 200);
    }
    let ran = json!({"name": "x"});
    let body = json!({"task": "sample::typed", "params": ran, "scope": {"nodes": ["a"]}});
    let path = format!("{V1}/command/task");
    let accepted = server.outcome("good", Method::POST, &path, Some(body));
    assert_eq!(accepted.await, error(202, ""));
    assert_eq!(server.task("good", "sample::other", &["a"]).await.0, 403);

    let revoked = error(401, "puppetlabs.rbac/user-revoked");
    assert_eq!(server.ask("revoked", V1).await, revoked);
    let unknown = error(401, "puppetlabs.rbac/user-unauthenticated");
    assert_eq!(server.ask("bad", V1).await, unknown);
    let (status, answer) = server.login("ada", PASSWORD).await;
    assert_eq!(status, 404);
    assert!(
        answer["msg"].as_str().unwrap().contains(&service),
        "{answer}"
    );

    // Away: nothing is permitted, and the reason is true.
    assert!(tasks.shutdown(DEADLINE).await);
    let (status, answer) = server.call_as(Some("fresh"), Method::GET, V1, None).await;
    assert_eq!(status, 503, "{answer}");
    assert!(
        answer["msg"].as_str().unwrap().contains("RBAC service"),
        "{answer}"
    );
}

/// An RBAC service: it knows one good token, whose subject may run one task.
async fn played_rbac(home: &Home, tasks: &daemon::Tasks, asked: Arc<Mutex<Vec<Value>>>) -> String {
    let ssl = home.ca.issue("console", &["localhost".to_owned()]).unwrap();
    let identity = Identity::load(&Files {
        cert: ssl.cert(),
        key: ssl.key(),
        ca: ssl.ca(),
        crl: Some(ssl.crl()),
        revocation: Revocation::default(),
    })
    .unwrap();
    let tls = Derived::new(Arc::new(Current::fixed(identity)), |identity| {
        identity.server_config_optional_client(&[b"http/1.1"], TlsVersions::Tls12And13)
    });
    let tls = Arc::new(tls.unwrap());
    let noted = Arc::clone(&asked);
    let authenticate = async move |body: String| {
        let body: Value = serde_json::from_str(&body).unwrap();
        noted.lock().unwrap().push(body.clone());
        let refusal = |status: u16, kind: &str| {
            let kind = format!("puppetlabs.rbac/{kind}");
            let body = json!({"kind": kind, "msg": "no", "details": null});
            (
                axum::http::StatusCode::from_u16(status).unwrap(),
                body.to_string(),
            )
        };
        match body["token"].as_str().unwrap() {
            "good" => {
                let subject = json!({"id": "42bf351c", "login": "ada", "role_ids": [1]});
                (axum::http::StatusCode::OK, subject.to_string())
            }
            "revoked" => refusal(403, "token-revoked"),
            _ => refusal(400, "invalid-token"),
        }
    };
    let permitted = async move |body: String| {
        let body: Value = serde_json::from_str(&body).unwrap();
        asked.lock().unwrap().push(body.clone());
        assert_eq!(body["token"], "42bf351c");
        let all = body["permissions"].as_array().unwrap();
        let hello = json!({"object_type": "tasks", "action": "run", "instance": "sample::hello"});
        let target = json!({"object_type": "task_target", "action": "run_with_constraints",
            "instance": "2"});
        let may = |it: &Value| *it == hello || *it == target;
        json!(all.iter().map(may).collect::<Vec<_>>()).to_string()
    };
    let router = Router::new()
        .route("/rbac-api/v2/auth/token/authenticate", post(authenticate))
        .route("/rbac-api/v1/permitted", post(permitted));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tasks.spawn(
        "rbac",
        crate::http::serve(listener, tls, router, tasks.clone()),
    );
    format!("https://localhost:{port}")
}

#[tokio::test]
async fn the_administrators_commands_say_what_is_wrong() {
    let home = Home::new();
    for (line, problem) in [
        ("user add a --role none", "no role \"none\""),
        ("user remove none", "no user \"none\""),
        ("user revoke none", "no user \"none\""),
        ("user set-password none", "no user \"none\""),
        ("user give-role none Viewers", "no user \"none\""),
        ("user take-role none Viewers", "no role Viewers"),
        ("role grant none tasks:run", "no role \"none\""),
        ("role grant Viewers tasks:runn", "tasks:run, "),
        ("role grant Viewers tasks:run --nodes a/b", "no pattern"),
        (
            "role withdraw Viewers tasks:run",
            "does not permit tasks:run",
        ),
        ("role add Viewers", "already"),
        (
            "role grant Viewers task_target:run_with_constraints",
            "needs --task-target",
        ),
        (
            "role grant Viewers task_target:run_with_constraints --task-target web",
            "needs --task-target",
        ),
        ("role grant Viewers tasks:run --task-target 1", "belongs to"),
        ("role remove none", "no role \"none\""),
    ] {
        let error = home.admin(line).await.unwrap_err();
        assert!(error.contains(problem), "{line}: {error}");
    }
    assert_eq!(
        home.admin("user list").await.unwrap(),
        "There are no users: see user add.\n"
    );
    home.admins(&["user add ada --role Viewers", "user revoke ada"])
        .await;
    assert!(
        home.admin("user add ada")
            .await
            .unwrap_err()
            .contains("already")
    );
    assert_eq!(
        home.admin("user list").await.unwrap(),
        "ada  Viewers  [revoked]\n"
    );
    let roles = home.admin("role list").await.unwrap();
    let viewers = "Viewers: See jobs, results and connected nodes\n  permits orchestrator:view\n  \
                   users: ada\n";
    assert!(roles.contains(viewers), "{roles}");
    let config = home.config();
    let short = UserCommand::SetPassword {
        login: "ada".into(),
    };
    let error = admin::user(&config, short, Some("short".into()))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("10 to 1024"), "{error}");
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_without_a_restart() {
    let home = Home::new();
    let server = home.start(&Fleet::echo(&["a"])).await;
    let shown = async |client: reqwest::Client| {
        let answer = client.get(format!("{}/status/v1/simple", server.base));
        let answer = answer.send().await.unwrap();
        let info = answer.extensions().get::<reqwest::tls::TlsInfo>().unwrap();
        info.peer_certificate().unwrap().to_vec()
    };
    let config = home.config();
    let first = shown(client(&config)).await;
    assert_eq!(shown(client(&config)).await, first);
    let names = ["localhost".to_owned()];
    home.ca.issue("orchestrator", &names).unwrap();
    server.identity.reload().unwrap();
    assert_ne!(shown(client(&config)).await, first);
}
