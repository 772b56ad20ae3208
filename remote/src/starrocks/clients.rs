//! One [`Client`] per target for all tasks of a process, so that connections and what was learned about the FEs are
//! shared.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use starlift_common::datasource::{Datasources, LiveDatasources};
use starlift_common::job::LoadSpec;
use starlift_common::problem::Problem;

use super::client::Client;

/// Data source and FE addresses.
type Key = (String, Vec<String>);

/// Clients are made on first use, and anew when the data sources were read again.
pub struct Clients {
    datasources: LiveDatasources,
    made: Mutex<Made>,
}

/// Clients, and the entries that they were made of.
#[derive(Default)]
struct Made {
    of: Arc<Datasources>,
    clients: BTreeMap<Key, Arc<Client>>,
}

impl Clients {
    pub fn new(datasources: LiveDatasources) -> Self {
        Self { datasources, made: Mutex::default() }
    }

    /// The client for a target. Fails when the data source is not known here, or its password cannot be read.
    pub fn get(&self, load: &LoadSpec) -> Result<Arc<Client>, Problem> {
        let key = key(load);
        let datasources = self.datasources.now();
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&made.of, &datasources) {
            *made = Made { of: Arc::clone(&datasources), clients: BTreeMap::new() };
        }
        if let Some(client) = made.clients.get(&key) {
            return Ok(Arc::clone(client));
        }
        let client = Arc::new(Client::new(datasources.find(&load.datasource, "")?, &load.load_urls)?);
        made.clients.insert(key, Arc::clone(&client));
        Ok(client)
    }

    /// The next use makes a new one, with the password as it is then.
    pub fn forget(&self, load: &LoadSpec) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).clients.remove(&key(load));
    }
}

fn key(load: &LoadSpec) -> Key {
    (load.datasource.clone(), load.load_urls.clone())
}
