//! `apply prep` and `apply apply`: the node's own Puppet fetches the plugins of an environment and tells
//! the node's facts, or applies a catalog that was compiled elsewhere. Done by a script of ours
//! (`shim.rb`) in Puppet's Ruby; decided here.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use identity::Revocation;
use pxp::{JsonObject, Wishes};
use sandbox::Delivery;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::launch::{Launch, Node, Place};
use super::puppet::{self, NoPuppet};

/// What the module is called in requests.
pub const MODULE: &str = "apply";

/// The longest name of an environment: that of a directory.
const MAX_ENVIRONMENT: usize = 255;

/// The settings of Puppet that a request may bring with a catalog. With any other it could make Puppet
/// do what no catalog says.
const OPTIONS: [&str; 9] = [
    "debug",
    "evaltrace",
    "log_level",
    "noop",
    "ordering",
    "show_diff",
    "skip_tags",
    "tags",
    "trace",
];

const SHIM: &str = include_str!("apply/shim.rb");

/// An action of this module.
#[derive(Debug)]
pub enum Apply {
    /// `prep`
    Prep(pxp::ApplyPrep),
    /// `apply`, and the environment that its catalog is of.
    Apply(pxp::Apply, String),
}

/// Why a request cannot be one for Puppet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The catalog does not say whose it is.
    #[error("the catalog names no environment")]
    NoEnvironment,
    /// No environment can be called so.
    #[error("the name of an environment is of letters, digits and _, not {0:?}")]
    Environment(String),
    /// The setting is not on the list.
    #[error("the apply option {0:?} is not permitted: {allowed} are", allowed = OPTIONS.join(", "))]
    Option(String),
    /// Settings are texts, numbers and switches.
    #[error("the value of the apply option {0:?} is neither text, number nor switch")]
    OptionValue(String),
}

/// Why Puppet cannot be started for it on this node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CannotApply {
    /// There is no Puppet.
    #[error(transparent)]
    NoPuppet(#[from] NoPuppet),
    /// There is a Puppet without its Ruby.
    #[error("there is no ruby beside {} or on the PATH", .0.display())]
    NoRuby(PathBuf),
    /// Plugins must come from somewhere.
    #[error("no Puppet Server is known to fetch plugins from: set primary-uris")]
    NoPrimaries,
    /// The original asks for it, too.
    #[error("there is no ssl-crl, by which Puppet checks the certificate of its server")]
    NoRevocationList,
}

impl Apply {
    /// A request for facts.
    ///
    /// # Errors
    /// [`ApplyError`] when no environment can be called as it says.
    pub fn prep(prep: pxp::ApplyPrep) -> Result<Self, ApplyError> {
        check_environment(&prep.environment)?;
        Ok(Self::Prep(prep))
    }

    /// A request with a catalog.
    ///
    /// # Errors
    /// [`ApplyError`] when the catalog is of no environment, or comes with a setting that it may not.
    pub fn with_catalog(apply: pxp::Apply) -> Result<Self, ApplyError> {
        let Named { environment } = apply
            .catalog
            .parse()
            .map_err(|_other| ApplyError::NoEnvironment)?;
        check_environment(&environment)?;
        let options: Map<String, Value> = apply.apply_options.parse().unwrap_or_default();
        for (name, value) in &options {
            if !OPTIONS.contains(&name.as_str()) {
                return Err(ApplyError::Option(name.clone()));
            }
            if value.is_null() || value.is_array() || value.is_object() {
                return Err(ApplyError::OptionValue(name.clone()));
            }
        }
        Ok(Self::Apply(apply, environment))
    }

    /// What is asked beyond the action's own parameters.
    #[must_use]
    pub fn wishes(&self) -> Wishes {
        let wishes = match self {
            Self::Prep(prep) => &prep.pxp_mesh,
            Self::Apply(apply, _) => &apply.pxp_mesh,
        };
        wishes.clone().unwrap_or_default()
    }

    /// The environment whose plugins are used.
    #[must_use]
    pub fn environment(&self) -> &str {
        match self {
            Self::Prep(prep) => &prep.environment,
            Self::Apply(_, environment) => environment,
        }
    }

    /// How it is started.
    ///
    /// # Errors
    /// [`CannotApply`] when this node has not what it needs.
    pub fn launch(&self, place: &Place<'_>) -> Result<Launch, CannotApply> {
        let node = place.node;
        let path = OsStr::new(super::launch::PATH);
        let puppet = puppet::find(node.puppet.as_deref(), path)?;
        let ruby = ruby_of(&puppet, path).ok_or(CannotApply::NoRuby(puppet))?;
        let plugins = node.plugins.join(self.environment());
        let (action, catalog) = match self {
            Self::Prep(_) => ("prep", None),
            Self::Apply(apply, _) => (MODULE, Some(apply)),
        };
        let request = Request {
            action,
            environment: self.environment(),
            root: place.staging.join("puppet"),
            settings: settings(node, &plugins)?,
            plugins,
            catalog: catalog.map(|apply| &apply.catalog),
            apply_options: catalog.map(|apply| &apply.apply_options),
        };
        Ok(Launch {
            program: ruby,
            arguments: ["-e", SHIM].map(str::to_owned).into(),
            delivery: Delivery {
                stdin: pxp::write(&request),
                ..Delivery::default()
            },
        })
    }
}

/// What the script gets.
#[derive(Serialize)]
struct Request<'a> {
    action: &'static str,
    environment: &'a str,
    /// For everything that Puppet keeps while it works.
    root: PathBuf,
    plugins: PathBuf,
    settings: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    catalog: Option<&'a JsonObject>,
    #[serde(skip_serializing_if = "Option::is_none")]
    apply_options: Option<&'a JsonObject>,
}

/// The part of a catalog that is looked at here.
#[derive(Deserialize)]
struct Named {
    environment: String,
}

/// Puppet's settings: who the node is, where its servers are, and where plugins lie.
fn settings(node: &Node, plugins: &Path) -> Result<Map<String, Value>, CannotApply> {
    let tls = &node.tls;
    if node.primaries.is_empty() {
        return Err(CannotApply::NoPrimaries);
    }
    let servers = node.primaries.iter().map(|uri| {
        let uri = uri.to_string();
        uri.strip_prefix("https://").unwrap_or(&uri).to_owned()
    });
    let servers: Vec<String> = servers.collect();
    let code = plugins.join("plugins");
    let mut settings = Map::new();
    let mut set = |name: &str, value: Value| settings.insert(name.to_owned(), value);
    set("certname", json!(node.certname.as_str()));
    set("localcacert", json!(tls.ca));
    set("hostcert", json!(tls.cert));
    set("hostprivkey", json!(tls.key));
    match (tls.revocation, &tls.crl) {
        (Revocation::None, _) => set("certificate_revocation", json!("false")),
        (_, None) => return Err(CannotApply::NoRevocationList),
        (revocation, Some(crl)) => {
            set("certificate_revocation", json!(revocation.to_string()));
            set("hostcrl", json!(crl))
        }
    };
    set("server_list", json!(servers.join(",")));
    set("plugindest", json!(code));
    set("libdir", json!(code));
    set("factpath", json!(code.join("facter")));
    set("pluginfactdest", json!(plugins.join("pluginfacts")));
    if let Some(proxy) = &node.proxy {
        if let Some((user, password)) = proxy.credentials() {
            set("http_proxy_user", json!(user));
            set("http_proxy_password", json!(password));
        }
        set("http_proxy_host", json!(proxy.address.host));
        set("http_proxy_port", json!(proxy.address.port.to_string()));
    }
    Ok(settings)
}

/// Puppet's Ruby: it lies beside it, behind all links; that of a distribution is on the PATH.
fn ruby_of(puppet: &Path, path: &OsStr) -> Option<PathBuf> {
    let puppet = puppet.canonicalize().ok()?;
    let beside = puppet.parent().map(Path::to_path_buf);
    let mut places = beside.into_iter().chain(std::env::split_paths(path));
    places.find_map(|place| Some(place.join("ruby")).filter(|ruby| ruby.is_file()))
}

/// It becomes the name of a directory.
fn check_environment(name: &str) -> Result<(), ApplyError> {
    let fits = (1..=MAX_ENVIRONMENT).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if fits {
        Ok(())
    } else {
        Err(ApplyError::Environment(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn apply(catalog: &Value, options: &Value) -> Result<Apply, ApplyError> {
        let params = json!({"catalog": catalog, "apply_options": options});
        Apply::with_catalog(serde_json::from_value(params).unwrap())
    }

    #[test]
    fn environments_become_directories_and_nothing_else() {
        let catalog = |name: &str| json!({"environment": name, "resources": []});
        assert_eq!(
            apply(&catalog("dev_1"), &json!({})).unwrap().environment(),
            "dev_1"
        );
        for name in ["", ".", "..", "a/b", "a-b", "a\0", &"x".repeat(256)] {
            let error = apply(&catalog(name), &json!({})).unwrap_err();
            assert_eq!(error, ApplyError::Environment(name.to_owned()));
            let prep = json!({"environment": name});
            let error = Apply::prep(serde_json::from_value(prep).unwrap()).unwrap_err();
            assert_eq!(error, ApplyError::Environment(name.to_owned()));
        }
        let error = apply(&json!({"resources": []}), &json!({})).unwrap_err();
        assert_eq!(error, ApplyError::NoEnvironment);
    }

    #[test]
    fn a_request_brings_no_settings_but_those_on_the_list() {
        let catalog = json!({"environment": "production"});
        let fine = json!({"noop": true, "log_level": "debug", "tags": "a,b"});
        assert!(apply(&catalog, &fine).is_ok());
        for name in ["postrun_command", "hostprivkey", "vardir", "Noop", ""] {
            let error = apply(&catalog, &json!({name: "x"})).unwrap_err();
            assert_eq!(error, ApplyError::Option(name.to_owned()));
        }
        for value in [json!(null), json!(["a"]), json!({})] {
            let error = apply(&catalog, &json!({"tags": value})).unwrap_err();
            assert_eq!(error, ApplyError::OptionValue("tags".to_owned()));
        }
    }

    #[test]
    fn puppet_is_told_who_and_where_and_nothing_of_its_own_configuration() {
        let node = Node {
            primaries: ["p1", "https://p2:8141"]
                .map(|uri| uri.parse().unwrap())
                .into(),
            proxy: "http://ada:secret@proxy:3128/".parse().ok(),
            ..Node::example()
        };
        let plugins = Path::new("/cache/plugins/dev");
        let told = Value::Object(settings(&node, plugins).unwrap());
        let expected = json!({
            "certname": "web1",
            "localcacert": "/ssl/certs/ca.pem",
            "hostcert": "/ssl/certs/web1.pem",
            "hostprivkey": "/ssl/private_keys/web1.pem",
            "hostcrl": "/ssl/crl.pem",
            "certificate_revocation": "chain",
            "server_list": "p1:8140,p2:8141",
            "plugindest": "/cache/plugins/dev/plugins",
            "libdir": "/cache/plugins/dev/plugins",
            "factpath": "/cache/plugins/dev/plugins/facter",
            "pluginfactdest": "/cache/plugins/dev/pluginfacts",
            "http_proxy_host": "proxy",
            "http_proxy_port": "3128",
            "http_proxy_user": "ada",
            "http_proxy_password": "secret",
        });
        assert_eq!(told, expected);
        let lacking = |change: fn(&mut Node)| {
            let mut node = Node::example();
            change(&mut node);
            settings(&node, plugins).unwrap_err()
        };
        let alone = lacking(|node| node.primaries.clear());
        assert_eq!(alone, CannotApply::NoPrimaries);
        let unchecked = lacking(|node| node.tls.crl = None);
        assert_eq!(unchecked, CannotApply::NoRevocationList);
    }

    #[test]
    fn rubies_are_found_beside_puppet_behind_its_links() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let real = dir.join("real");
        fs::create_dir(&real).unwrap();
        fs::write(real.join("wrapper.sh"), "").unwrap();
        let puppet = dir.join("puppet");
        std::os::unix::fs::symlink(real.join("wrapper.sh"), &puppet).unwrap();
        let on_path = dir.join("ruby");
        assert_eq!(ruby_of(&puppet, dir.as_os_str()), None);
        fs::write(&on_path, "").unwrap();
        assert_eq!(ruby_of(&puppet, dir.as_os_str()), Some(on_path));
        fs::write(real.join("ruby"), "").unwrap();
        assert_eq!(ruby_of(&puppet, dir.as_os_str()), Some(real.join("ruby")));
    }
}
