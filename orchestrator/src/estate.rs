//! The Puppet estate around us, each part optional: PuppetDB, Puppet Server, and who knows the node
//! groups. [`crate::service`] is how they are asked; what they are asked is said by `puppetdb`,
//! `puppetserver` and `classifier`.

use std::sync::Arc;

use crate::classifier::Groups;
use crate::config::{Config, NodeGroups};
use crate::library::Library;
use crate::puppetdb::PuppetDb;
use crate::puppetserver::PuppetServer;
use crate::service::{Service, Source};

/// Below the directory of the database: the files of tasks that Puppet Server has given.
const FILES: &str = "task-files";

/// What scopes are resolved with. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Estate {
    /// Where queries are answered.
    pub(crate) puppetdb: Option<Arc<PuppetDb>>,
    /// Who knows the node groups.
    pub(crate) groups: Option<Arc<Groups>>,
}

impl Estate {
    /// What is configured.
    pub(crate) fn of(config: &Config, identity: &Source) -> Self {
        let puppetdb = (!config.puppetdb.is_empty())
            .then(|| Arc::new(PuppetDb::new(config.puppetdb.clone(), Arc::clone(identity))));
        let groups = config.node_groups.as_ref().map(|groups| {
            Arc::new(match groups {
                NodeGroups::Classifier(address) => Groups::Classifier(Service::new(
                    "the classifier",
                    vec![address.clone()],
                    Arc::clone(identity),
                )),
                NodeGroups::File(path) => Groups::File(path.clone()),
            })
        });
        Self { puppetdb, groups }
    }
}

/// The Puppet Server that is configured.
pub(crate) fn puppet_server(
    config: &Config,
    identity: &Source,
    library: Library,
) -> Option<Arc<PuppetServer>> {
    let directory = config
        .database
        .parent()
        .map_or_else(|| FILES.into(), |parent| parent.join(FILES));
    (!config.puppet_server.is_empty()).then(|| {
        Arc::new(PuppetServer::new(
            config.puppet_server.clone(),
            Arc::clone(identity),
            directory,
            config.task_files_size,
            library,
        ))
    })
}
