//! `puppet-access`: what it sends, where the token goes, and how it ends.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use super::support::{Answer, Orchestrator, lines};

const LOGIN: &str = "/rbac-api/v1/auth/token";

fn service() -> Orchestrator {
    Orchestrator::start(|request| match request.route() {
        ("POST", LOGIN) if request.json()["password"] == "correct horse" => {
            assert_eq!(request.header("x-authentication"), None);
            assert_eq!(request.json()["login"], "ada");
            let lifetime = request.json()["lifetime"].clone();
            let token = if lifetime == "4h" { "four" } else { "default" };
            Answer::new(200, json!({"token": token}))
        }
        ("POST", LOGIN) => Answer::new(
            401,
            json!({"kind": "puppetlabs.rbac/user-unauthenticated",
                "msg": "the login or the password is wrong", "details": {}}),
        ),
        ("GET", "/rbac-api/v1/users/current") => Answer::new(
            200,
            json!({"id": "ada", "login": "ada", "display_name": "Ada\u{1b}[2J", "is_revoked": false,
                "is_superuser": false, "last_login": null, "roles": ["web"],
                "permissions": ["tasks:run --nodes web*"]}),
        ),
        ("POST", "/rbac-api/v1/auth/token/revoke") => {
            assert_eq!(request.header("x-authentication"), Some("four"));
            Answer::new(200, json!({}))
        }
        other => panic!("asked for {other:?}"),
    })
}

#[test]
fn a_login_saves_a_token_that_the_other_commands_use() {
    let service = service();
    let arguments = ["login", "ada", "--lifetime", "4h"];
    let output = service.puppet_access(&arguments, "correct horse\n");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let file = service.token_file();
    let saved = format!("Access token saved to: {}", file.display());
    assert_eq!(lines(&output.stdout), [saved]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "four");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    assert_eq!(
        lines(&service.puppet_access(&["show"], "").stdout),
        ["four"]
    );
    let output = service.puppet_access(&["whoami"], "");
    assert_eq!(
        lines(&output.stdout),
        [
            "ada (Ada\\x1b[2J)",
            "  roles: web",
            "  may tasks:run --nodes web*"
        ]
    );
    let output = service.puppet_access(&["revoke"], "");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(!file.exists());
    let output = service.puppet_access(&["show"], "");
    assert_eq!(output.status.code(), Some(3));
    assert!(lines(&output.stderr)[1].contains("puppet access login"));
    // It is no error that there is nothing to delete.
    assert_eq!(
        service
            .puppet_access(&["delete-token-file"], "")
            .status
            .code(),
        Some(0)
    );
}

#[test]
fn a_token_may_be_printed_and_not_saved() {
    let service = service();
    let output = service.puppet_access(&["login", "--print", "--debug"], "ada\ncorrect horse\n");
    assert_eq!(lines(&output.stdout), ["default"]);
    let saved = std::fs::read_to_string(service.token_file()).unwrap();
    assert_eq!(saved, "secret-token\n");
    // What is asked is told; neither password nor token are.
    let remarks = lines(&output.stderr).join("\n");
    assert!(remarks.contains(LOGIN), "{remarks}");
    assert!(
        !remarks.contains("correct horse") && !remarks.contains("default"),
        "{remarks}"
    );
}

#[test]
fn programs_are_told_in_one_document_each_time() {
    let service = service();
    let ask = |arguments: &[&str], stdin: &str| {
        let arguments: Vec<_> = arguments.iter().chain(&["--format", "json"]).collect();
        let arguments: Vec<&str> = arguments.into_iter().copied().collect();
        let output = service.puppet_access(&arguments, stdin);
        let document: Value = serde_json::from_slice(&output.stdout).expect("one document");
        (output.status.code(), document)
    };
    let file = service.token_file();
    let login = ["login", "ada", "--lifetime", "4h"];
    assert_eq!(
        ask(&login, "correct horse\n"),
        (Some(0), json!({"token_file": file}))
    );
    let printed = ask(&["login", "ada", "--print"], "correct horse\n");
    assert_eq!(printed, (Some(0), json!({"token": "default"})));
    assert_eq!(ask(&["show"], ""), (Some(0), json!({"token": "four"})));
    let (code, user) = ask(&["whoami"], "");
    assert_eq!((code, &user["roles"]), (Some(0), &json!(["web"])));
    let (code, refused) = ask(&["login", "ada"], "wrong\n");
    assert_eq!(code, Some(3));
    assert_eq!(refused["kind"], "puppetlabs.rbac/user-unauthenticated");
    let gone = json!({"token_file": file, "deleted": true, "revoked": true});
    assert_eq!(ask(&["revoke"], ""), (Some(0), gone));
    let again = json!({"token_file": file, "deleted": false});
    assert_eq!(ask(&["delete-token-file"], ""), (Some(0), again));
    let (code, refused) = ask(&["show"], "");
    assert_eq!(code, Some(3));
    assert!(refused["msg"].as_str().expect("a text").contains("token"));
}

#[test]
fn wrong_credentials_leave_the_old_token_and_say_so() {
    let service = service();
    let output = service.puppet_access(&["login", "ada"], "wrong\n");
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(
        lines(&output.stderr),
        ["Error: the login or the password is wrong"]
    );
    let saved = std::fs::read_to_string(service.token_file()).unwrap();
    assert_eq!(saved, "secret-token\n");
    for (arguments, stdin, problem) in [
        (&["login", "ada"][..], "", "no password"),
        (&["login"][..], "\n", "no login"),
    ] {
        let output = service.puppet_access(arguments, stdin);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(lines(&output.stderr)[0].contains(problem), "{output:?}");
    }
}

#[test]
fn without_a_token_and_a_terminal_the_next_step_is_told() {
    let service = service();
    std::fs::remove_file(service.token_file()).unwrap();
    let output = service.puppet_task(&["run", "a", "-n", "x"], "");
    assert_eq!(output.status.code(), Some(3));
    let remarks = lines(&output.stderr);
    assert!(remarks[0].contains("there is no token"), "{remarks:?}");
    assert!(remarks[1].contains("puppet access login"), "{remarks:?}");
}
