//! Where the parts of the Puppet estate are: PuppetDB, Puppet Server, and who knows the node groups.

use std::fmt;
use std::path::PathBuf;

use reqwest::Url;

use super::Check;
use super::file::OrchestratorFile;

/// Who knows the node groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeGroups {
    /// A classifier with the API of Puppet Enterprise's: `https://HOST:4433/classifier-api`.
    Classifier(Url),
    /// A file of groups, as the classifier lists them.
    File(PathBuf),
}

impl Check<'_> {
    /// Addresses of one service with commas between them, as PuppetDB's `server_urls` has them.
    pub(super) fn addresses(&mut self, key: &str, text: Option<&str>) -> Vec<Url> {
        let texts = text.into_iter().flat_map(|text| text.split(','));
        texts
            .filter_map(|text| self.address(key, text.trim()))
            .collect()
    }

    fn address(&mut self, key: &str, text: &str) -> Option<Url> {
        let address: Url = self.parsed(key, text)?;
        // Our certificate is all that says who we are: without TLS it would say nothing.
        if address.scheme() != "https" || address.host().is_none() {
            self.fault(key, format!("{text:?} is not https://HOST:PORT"));
            return None;
        }
        Some(address)
    }

    pub(super) fn node_groups(&mut self, section: &OrchestratorFile) -> Option<NodeGroups> {
        let classifier = section
            .classifier_service
            .as_deref()
            .and_then(|text| self.address("classifier-service", text.trim()));
        let file = section.node_groups_file.clone();
        if section.classifier_service.is_some() && file.is_some() {
            let problem = "and classifier-service cannot both say which nodes a group has";
            self.fault("node-groups-file", problem);
        }
        classifier
            .map(NodeGroups::Classifier)
            .or_else(|| file.map(NodeGroups::File))
    }
}

/// Lines of the effective configuration.
pub(super) fn write(
    f: &mut fmt::Formatter<'_>,
    puppetdb: &[Url],
    puppet_server: &[Url],
    groups: Option<&NodeGroups>,
) -> fmt::Result {
    for (key, addresses) in [("puppetdb-url", puppetdb), ("master-url", puppet_server)] {
        if !addresses.is_empty() {
            let texts: Vec<&str> = addresses.iter().map(Url::as_str).collect();
            writeln!(f, "  {key}: {:?}", texts.join(","))?;
        }
    }
    match groups {
        Some(NodeGroups::Classifier(url)) => {
            writeln!(f, "  classifier-service: {:?}", url.as_str())
        }
        Some(NodeGroups::File(path)) => writeln!(f, "  node-groups-file: {path:?}"),
        None => Ok(()),
    }
}
