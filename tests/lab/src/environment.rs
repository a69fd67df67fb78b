//! What a lab tells to other shells: `lab.env`, and the configuration of the command line.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::json;

use crate::binaries::profile_dir;
use crate::error::file;
use crate::site::Site;
use crate::{Lab, LabError};

/// The file in the lab's directory that a shell reads with `.`.
pub const FILE_NAME: &str = "lab.env";

/// The variable by which the command line finds its configuration.
pub(crate) const CLIENT_CONFIG: &str = "PXP_CLIENT_CONFIG";

/// Writes the configuration of the command line.
pub(crate) fn write_client_config(site: &Site, service_url: &str) -> Result<(), LabError> {
    let config = json!({
        "options": {
            "service-url": service_url,
            "cacert": site.ca_file(),
            "token-file": site.token_file(),
        }
    });
    let path = site.client_config();
    fs::write(&path, format!("{config:#}\n")).map_err(file("write", path))
}

/// Writes `lab.env`: `KEY=value` lines, then one that exports them.
pub(crate) fn write(lab: &Lab) -> Result<(), LabError> {
    let site = lab.site();
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let pairs = [
        ("LAB_SERVICE_URL", lab.service_url()),
        ("LAB_CA_CERT", path(&site.ca_file())),
        ("LAB_TOKEN_FILE", path(&site.token_file())),
        ("LAB_BIN", path(&profile_dir())),
        ("LAB_SSL_DIR", path(&site.ssl())),
        ("LAB_PIDS_DIR", path(&site.pids_dir())),
        ("LAB_LOGS_DIR", path(&site.logs_dir())),
        ("LAB_BROKER_PRIMARY", lab.broker_primary().to_owned()),
        ("LAB_BROKER_COMPILERS", lab.broker_compilers().join(",")),
        (CLIENT_CONFIG, path(&site.client_config())),
    ];
    let mut text = String::new();
    for (key, value) in &pairs {
        // Writing to a string cannot fail.
        writeln!(text, "{key}={}", quoted(value)).unwrap_or_default();
    }
    let names: Vec<_> = pairs.iter().map(|(key, _)| *key).collect();
    writeln!(text, "export {}", names.join(" ")).unwrap_or_default();
    let path = site.dir().join(FILE_NAME);
    fs::write(&path, text).map_err(file("write", path))
}

/// A word of the shell, quoted only when it has to be.
fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:,@%+".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        value.to_owned()
    } else {
        format!("'{}'", value.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted_for_the_shell_only_when_needed() {
        assert_eq!(quoted("https://127.0.0.1:8143"), "https://127.0.0.1:8143");
        assert_eq!(quoted("/tmp/a b"), "'/tmp/a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
