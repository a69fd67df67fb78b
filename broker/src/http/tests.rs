//! Paths, and what they mean.

use super::*;

const BOTH: [Version; 2] = [Version::One, Version::Two];

fn websocket(version: Version, client_type: &str) -> Route {
    Route::WebSocket(version, client_type.to_owned())
}

#[test]
fn the_paths_of_the_originals() {
    for (path, expected) in [
        ("/pcp", websocket(Version::One, "agent")),
        ("/pcp/", websocket(Version::One, "agent")),
        ("/pcp/controller", websocket(Version::One, "controller")),
        ("/pcp2", websocket(Version::Two, "agent")),
        ("/pcp2/agent", websocket(Version::Two, "agent")),
        ("/pcp2//agent", websocket(Version::Two, "agent")),
        ("/pcp2/a/b", websocket(Version::Two, "a/b")),
        ("/pcp/vNext", websocket(Version::Two, "agent")),
        (
            "/pcp/vNext/controller",
            websocket(Version::Two, "controller"),
        ),
        ("/server", websocket(Version::Two, "server")),
        ("/status/v1/services", Route::Services),
        ("/status/v1/simple", Route::Simple),
        ("/pcp3", Route::Unknown),
        ("/pcp20", Route::Unknown),
        ("/", Route::Unknown),
        ("", Route::Unknown),
    ] {
        assert_eq!(route(path, &BOTH), expected, "{path}");
    }
}

#[test]
fn a_version_that_is_switched_off_has_no_path() {
    assert_eq!(route("/pcp2/agent", &[Version::One]), Route::Unknown);
    assert_eq!(route("/pcp/vNext", &[Version::One]), Route::Unknown);
    assert_eq!(route("/server", &[Version::One]), Route::Unknown);
    assert_eq!(route("/pcp", &[Version::Two]), Route::Unknown);
}

#[test]
fn files_are_asked_for_by_digest() {
    let digest = Digest([7; 32]);
    assert_eq!(
        route(&format!("/content/{digest}"), &BOTH),
        Route::Content(Some(digest))
    );
    assert_eq!(route("/content/../secret", &BOTH), Route::Content(None));
}
