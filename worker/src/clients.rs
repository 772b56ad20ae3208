//! One load client per target for all tasks of the worker, so that connections and what was learned about the FEs are
//! shared.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use starlift_common::datasource::Datasources;
use starlift_common::job::LoadSpec;
use starlift_common::problem::Problem;
use starlift_remote::starrocks::client::Client;

/// Data source and FE addresses.
type Key = (String, Vec<String>);

/// Made on first use.
pub(crate) struct Clients {
    datasources: Arc<Datasources>,
    made: Mutex<HashMap<Key, Arc<Client>>>,
}

impl Clients {
    pub(crate) fn new(datasources: Arc<Datasources>) -> Self {
        Self { datasources, made: Mutex::default() }
    }

    pub(crate) fn get(&self, load: &LoadSpec) -> Result<Arc<Client>, Problem> {
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
    pub(crate) fn forget(&self, load: &LoadSpec) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).remove(&key(load));
    }
}

fn key(load: &LoadSpec) -> Key {
    (load.datasource.clone(), load.load_urls.clone())
}
