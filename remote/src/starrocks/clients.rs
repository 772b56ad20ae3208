//! One [`Client`] per target for all tasks of a process, so that connections and what was learned about the FEs are
//! shared.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use starlift_common::datasource::Datasources;
use starlift_common::job::LoadSpec;
use starlift_common::problem::Problem;

use super::client::Client;

/// Data source and FE addresses.
type Key = (String, Vec<String>);

/// Clients are made on first use.
pub struct Clients {
    datasources: Arc<Datasources>,
    made: Mutex<BTreeMap<Key, Arc<Client>>>,
}

impl Clients {
    pub fn new(datasources: Arc<Datasources>) -> Self {
        Self { datasources, made: Mutex::default() }
    }

    /// The client for a target. Fails when the data source is not known here, or its password cannot be read.
    pub fn get(&self, load: &LoadSpec) -> Result<Arc<Client>, Problem> {
        let key = key(load);
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = made.get(&key) {
            return Ok(Arc::clone(client));
        }
        let datasource = self.datasources.find(&load.datasource, "")?;
        let client = Arc::new(Client::new(datasource, &load.load_urls)?);
        made.insert(key, Arc::clone(&client));
        Ok(client)
    }

    /// The next use makes a new one, with the password as it is then.
    pub fn forget(&self, load: &LoadSpec) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).remove(&key(load));
    }
}

fn key(load: &LoadSpec) -> Key {
    (load.datasource.clone(), load.load_urls.clone())
}
