//! Tests that a host cannot run.

use std::env;

/// Names what this host must be able to do, with commas: a test that would skip for its lack fails.
const REQUIRED: &str = "LAB_REQUIRE";

/// Says on standard error why a test skips that needs `feature`.
///
/// # Panics
/// When `LAB_REQUIRE` names the feature.
pub fn skip(feature: &str, reason: &str) {
    let required = env::var(REQUIRED).unwrap_or_default();
    assert!(
        !required.split(',').any(|name| name == feature),
        "must not be skipped here: {reason}"
    );
    #[expect(
        clippy::print_stderr,
        reason = "who runs the tests must know what they do not show"
    )]
    {
        eprintln!("skipped: {reason}");
    }
}
