//! The node's certificates where Puppet keeps them, for who does not name them one by one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use pcp::Certname;

/// What `puppet.conf` says, of what concerns us.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PuppetConf {
    pub(super) certname: Option<String>,
    pub(super) ssldir: Option<PathBuf>,
}

impl PuppetConf {
    /// Reads `puppet.conf`; without one nothing is said.
    pub(super) fn read(puppet_dir: &Path) -> io::Result<Self> {
        match fs::read_to_string(puppet_dir.join("puppet.conf")) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// `[agent]` counts before `[main]`, as for Puppet's own agent. Values that refer to other
    /// settings (`$confdir/ssl`) are not for us to resolve; they count as not set.
    fn parse(text: &str) -> Self {
        let mut section = String::from("main");
        let mut certname = [None, None];
        let mut ssldir = [None, None];
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                name.trim().clone_into(&mut section);
                continue;
            }
            let Some((key, value)) = line.split_once('=') else {
                continue;
            };
            let rank = match section.as_str() {
                "agent" => 0,
                "main" => 1,
                _ => continue,
            };
            let value = value.split('#').next().unwrap_or_default().trim();
            if value.is_empty() || value.contains('$') {
                continue;
            }
            let settings = match key.trim() {
                "certname" => &mut certname,
                "ssldir" => &mut ssldir,
                _ => continue,
            };
            if let Some(setting) = settings.get_mut(rank) {
                *setting = Some(value.to_owned());
            }
        }
        let [certname, ssldir] = [certname, ssldir].map(|set| set.into_iter().flatten().next());
        Self {
            certname,
            ssldir: ssldir.map(PathBuf::from),
        }
    }
}

/// The certname of the only private key in an ssldir.
///
/// # Errors
/// What to tell the operator: there is none, or there are several.
pub(super) fn only_certname(ssldir: &Path) -> Result<Certname, String> {
    let keys = ssldir.join("private_keys");
    let names = match fs::read_dir(&keys) {
        Ok(entries) => entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter_map(|name| Certname::parse(name.strip_suffix(".pem")?).ok())
            .collect::<Vec<_>>(),
        Err(error) => return Err(format!("{} cannot be read: {error}", keys.display())),
    };
    match names.as_slice() {
        [name] => Ok(name.clone()),
        [] => Err(format!("{} has no key", keys.display())),
        several => {
            let mut names: Vec<_> = several.iter().map(ToString::to_string).collect();
            names.sort();
            Err(format!(
                "{} has several keys: {}",
                keys.display(),
                names.join(", ")
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_is_read_and_what_refers_to_other_settings_is_not_taken(
            text in "(\\[agent\\]|\\[main\\]|\\[|\\]|certname|ssldir|=|#|\\$|\n| |é|x){0,40}",
        ) {
            let PuppetConf { certname, ssldir } = PuppetConf::parse(&text);
            let ssldir = ssldir.map(|path| path.to_string_lossy().into_owned());
            for value in [certname, ssldir].into_iter().flatten() {
                prop_assert!(!value.is_empty() && !value.contains(['$', '#', '\n']));
            }
        }
    }

    #[test]
    fn the_agents_section_counts_before_the_main_one() {
        let text = "certname = early\n[main]\n certname=Main # mine\nssldir = /ssl\n\
                    [agent]\ncertname = node.example.net\n[server]\ncertname = other\n";
        let conf = PuppetConf::parse(text);
        assert_eq!(conf.certname.as_deref(), Some("node.example.net"));
        assert_eq!(conf.ssldir, Some(PathBuf::from("/ssl")));
        let conf = PuppetConf::parse("[main]\nssldir = $confdir/ssl\ncertname =\n# certname = x\n");
        assert_eq!(conf, PuppetConf::default());
    }

    #[test]
    fn a_certname_is_only_guessed_when_there_is_one_key() {
        let dir = tempfile::tempdir().unwrap();
        assert!(
            only_certname(dir.path())
                .unwrap_err()
                .contains("cannot be read")
        );
        let keys = dir.path().join("private_keys");
        fs::create_dir(&keys).unwrap();
        assert!(
            only_certname(dir.path())
                .unwrap_err()
                .contains("has no key")
        );
        fs::write(keys.join("a.pem"), "").unwrap();
        fs::write(keys.join("notes.txt"), "").unwrap();
        assert_eq!(only_certname(dir.path()).unwrap().to_string(), "a");
        fs::write(keys.join("b.pem"), "").unwrap();
        assert!(only_certname(dir.path()).unwrap_err().ends_with("a, b"));
    }
}
