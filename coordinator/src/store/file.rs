//! The journal in one file on this machine's disk, for one coordinator: redb, one table, one durable transaction per
//! save. The file is locked while it is open.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Store, StoreError, Write};

const TABLE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("starlift");

const FILE_NAME: &str = "starlift.redb";

pub struct FileStore {
    database: Arc<Database>,
}

impl FileStore {
    /// Opens the state in `directory`; both are made when they are not there, the
    /// directory for its owner alone: key values and bad rows lie in it.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join(FILE_NAME);
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| StoreError::Open {
            path: path.clone(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|error| failed(error.into()))?;
        let database = Database::create(&path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => StoreError::Locked { path: path.clone() },
            other => failed(other.into()),
        })?;
        let transaction = database.begin_write().map_err(|error| failed(error.into()))?;
        transaction.open_table(TABLE).map_err(|error| failed(error.into()))?;
        transaction.commit().map_err(|error| failed(error.into()))?;
        Ok(Self { database: Arc::new(database) })
    }
}

impl Store for FileStore {
    async fn load(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let database = self.database.clone();
        blocking("read", move || read_all(&database)).await
    }

    async fn save(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        let database = self.database.clone();
        blocking("write", move || write_all(&database, &writes)).await
    }
}

/// redb waits for the disk, so it gets a thread that may.
async fn blocking<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> Result<T, redb::Error> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| StoreError::Failed { operation, source: error.into() }),
        Err(error) => Err(StoreError::Failed { operation, source: error.into() }),
    }
}

fn read_all(database: &Database) -> Result<Vec<(String, Vec<u8>)>, redb::Error> {
    let transaction = database.begin_read()?;
    let table = transaction.open_table(TABLE)?;
    let mut pairs = Vec::new();
    for pair in table.iter()? {
        let (key, value) = pair?;
        pairs.push((key.value().to_owned(), value.value().to_vec()));
    }
    Ok(pairs)
}

fn write_all(database: &Database, writes: &[Write]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(TABLE)?;
        for Write { key, value } in writes {
            match value {
                Some(value) => table.insert(key.as_str(), value.as_slice())?,
                None => table.remove(key.as_str())?,
            };
        }
    }
    transaction.commit()?;
    Ok(())
}
