//! Tables on SQLite. Rows carry the transaction that wrote them, and a reader meets them once that transaction is in
//! the `visible` table: one insert there shows a whole load at once. One connection writes, in short batches; every
//! statement reads on a connection of its own, so a reader has a snapshot and never waits. Nothing here knows SQL
//! text of clients (`sql/`) or labels and states of transactions (`transactions.rs`).
//!
//! In the file: `databases`, `tables` (definitions), `visible`, per table `r<id>_<generation>` (rows) and the view
//! `v<id>` (visible rows). TRUNCATE begins a new generation; the old one is dropped behind the readers' backs.

mod count;
mod demo;
pub(crate) mod functions;
mod pool;
mod rows;
mod table;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use rusqlite::Connection;
use rusqlite::types::Value;
use serde::{Deserialize, Serialize};

pub use crate::types::{Column, ColumnType, ConvertError, Stored, convert};
pub(crate) use count::{PlainForm, RowCounter};
pub(crate) use pool::{Killer, Reader, Stopped};
pub use rows::RowWriter;
pub use table::{Model, Table};
pub(crate) use table::{TableDef, TableOptions, declared_type, quote};

/// Cheap to clone. Every call may block on the disk, so async code goes through `spawn_blocking`.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    pool: pool::Pool,
    writer: Mutex<Connection>,
    catalog: RwLock<Catalog>,
    /// Transactions of the outside with rows here, until they are visible or discarded.
    open: Mutex<HashMap<i64, Arc<OpenTxn>>>,
    next_txn: AtomicI64,
    next_row: AtomicI64,
    next_table: AtomicI64,
}

#[derive(Default)]
struct Catalog {
    databases: BTreeMap<String, BTreeMap<String, Arc<Table>>>,
}

/// The store's own side of a transaction: ids of the outside may come again after a restart, these never do.
struct OpenTxn {
    id: i64,
    written: Mutex<Vec<Written>>,
}

/// What a transaction did to one table.
struct Written {
    table: Arc<Table>,
    /// Rows of an earlier generation went with it.
    generation: i64,
    tally: Tally,
}

/// Rows that come or go: their number, their bytes by estimate, and their hash where they are only counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    rows: i64,
    bytes: i64,
    hash: u64,
}

impl Tally {
    fn of_rows(rows: i64, bytes: i64) -> Self {
        Self { rows, bytes, hash: 0 }
    }

    fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.bytes += other.bytes;
        self.hash = self.hash.wrapping_add(other.hash);
    }

    fn negative(self) -> Self {
        Self { rows: -self.rows, bytes: -self.bytes, hash: self.hash.wrapping_neg() }
    }
}

/// Number of visible rows and the wrapping sum of a hash of each: equal for equal multisets of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    pub rows: u64,
    pub hash: u64,
}

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("unknown database '{0}'")]
    UnknownDatabase(String),
    #[error("unknown table '{db}.{table}'")]
    UnknownTable { db: String, table: String },
    #[error("database '{0}' exists already")]
    DatabaseExists(String),
    #[error("table '{db}.{table}' exists already")]
    TableExists { db: String, table: String },
    #[error("table '{0}' was truncated or dropped while rows were written")]
    TableReplaced(String),
    #[error("a row has {found} values, table '{table}' has {expected} columns")]
    RowWidth { table: String, expected: usize, found: usize },
    /// A statement of a script failed; the text is what a client would have seen.
    #[error("{0}")]
    Statement(String),
    #[error("cannot make the data directory")]
    Directory(#[from] std::io::Error),
    #[error("a stored table definition is unreadable")]
    Definition(#[from] serde_json::Error),
    #[error("the table store failed: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS meta(name TEXT PRIMARY KEY, value INTEGER) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS databases(name TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS tables(id INTEGER PRIMARY KEY, db TEXT, name TEXT, definition TEXT,
        generation INTEGER, visible_version INTEGER, row_count INTEGER, data_length INTEGER);
    CREATE TABLE IF NOT EXISTS visible(txn INTEGER PRIMARY KEY, version INTEGER);";

/// Rows deleted in one turn at the writer.
const SWEEP_ROWS: usize = 4_096;

/// Transaction ids set aside at each start, so that rows a crash left behind never become visible.
const TXN_IDS_PER_START: i64 = 1 << 32;

impl Store {
    /// Opens the tables in `dir`, or begins an empty store there.
    pub fn open(dir: &Path) -> Result<Store, StoreError> {
        std::fs::create_dir_all(dir)?;
        let pool = pool::Pool::new(dir.join("tables.sqlite"));
        let writer = pool.open_writer()?;
        writer.execute_batch(SCHEMA)?;
        let next_txn: i64 = writer.query_row(
            "INSERT INTO meta VALUES('next_txn', ?1) ON CONFLICT(name) DO UPDATE SET value = value + ?1 RETURNING value",
            [TXN_IDS_PER_START],
            |row| row.get(0),
        )?;
        let next_table =
            writer.query_row("SELECT COALESCE(MAX(id), 10000) + 1 FROM tables", [], |row| row.get(0))?;
        let catalog = Catalog::load(&writer)?;
        Ok(Self {
            inner: Arc::new(Inner {
                pool,
                writer: Mutex::new(writer),
                catalog: RwLock::new(catalog),
                open: Mutex::default(),
                next_txn: AtomicI64::new(next_txn),
                next_row: AtomicI64::new(0),
                next_table: AtomicI64::new(next_table),
            }),
        })
    }

    /// The table of that name; names are case-sensitive.
    pub fn table(&self, db: &str, table: &str) -> Result<Arc<Table>, StoreError> {
        let catalog = self.inner.catalog.read().unwrap_or_else(PoisonError::into_inner);
        let tables = catalog.databases.get(db).ok_or_else(|| StoreError::UnknownDatabase(db.to_owned()))?;
        tables.get(table).cloned().ok_or_else(|| unknown_table(db, table))
    }

    pub fn database_exists(&self, db: &str) -> bool {
        self.inner.catalog.read().unwrap_or_else(PoisonError::into_inner).databases.contains_key(db)
    }

    /// Names of all databases, in order.
    pub fn databases(&self) -> Vec<String> {
        self.inner.catalog.read().unwrap_or_else(PoisonError::into_inner).databases.keys().cloned().collect()
    }

    /// The tables of a database, in order of name.
    pub fn tables(&self, db: &str) -> Result<Vec<Arc<Table>>, StoreError> {
        let catalog = self.inner.catalog.read().unwrap_or_else(PoisonError::into_inner);
        let tables = catalog.databases.get(db).ok_or_else(|| StoreError::UnknownDatabase(db.to_owned()))?;
        Ok(tables.values().cloned().collect())
    }

    /// A writer of rows that stay invisible until `make_visible(txn)`. Several writers may serve one transaction.
    pub fn begin_rows(&self, table: &Arc<Table>, txn: i64) -> Result<RowWriter, StoreError> {
        let open = self.opened(table, txn);
        Ok(RowWriter::new(self.clone(), Arc::clone(table), open))
    }

    /// The same for rows that are counted when the transaction becomes visible, and not kept.
    pub(crate) fn begin_count(&self, table: &Arc<Table>, txn: i64) -> RowCounter {
        let open = self.opened(table, txn);
        RowCounter::new(self.clone(), Arc::clone(table), open)
    }

    fn opened(&self, table: &Arc<Table>, txn: i64) -> Arc<OpenTxn> {
        let open = Arc::clone(lock(&self.inner.open).entry(txn).or_insert_with(|| Arc::new(self.new_txn())));
        self.touch(&open, table, Tally::default());
        open
    }

    /// Shows every row of the transaction at once and raises VisibleVersion of its tables. Unknown transactions have
    /// no rows and nothing to show.
    pub fn make_visible(&self, txn: i64) -> Result<(), StoreError> {
        let Some(open) = lock(&self.inner.open).remove(&txn) else { return Ok(()) };
        self.publish(&open)
    }

    /// Forgets an aborted transaction. Its rows, never seen by anyone, are removed behind the caller's back.
    pub fn discard(&self, txn: i64) -> Result<(), StoreError> {
        let Some(open) = lock(&self.inner.open).remove(&txn) else { return Ok(()) };
        let tables: Vec<Arc<Table>> = lock(&open.written)
            .iter()
            .filter(|written| written.tally.rows > 0)
            .map(|written| Arc::clone(&written.table))
            .collect();
        if !tables.is_empty() {
            let store = self.clone();
            std::thread::spawn(move || {
                for table in tables {
                    if let Err(error) = store.sweep(&table, open.id) {
                        tracing::warn!(error = %error, "rows of an aborted transaction stay behind, unseen");
                    }
                }
            });
        }
        Ok(())
    }

    /// Counts and hashes the visible rows of a table.
    pub fn digest(&self, db: &str, table: &str) -> Result<Digest, StoreError> {
        let table = self.table(db, table)?;
        let reader = self.reader()?;
        let mut statement = reader.prepare(&format!("SELECT * FROM {}", table.view_name()))?;
        let mut rows = statement.query([])?;
        let mut digest = Digest { rows: 0, hash: 0 };
        let mut payload = Vec::new();
        while let Some(row) = rows.next()? {
            payload.clear();
            for (at, column) in table.columns.iter().enumerate() {
                crate::render::write_cell(&mut payload, Some(&column.kind), row.get_ref(at)?);
            }
            digest.rows += 1;
            digest.hash = digest.hash.wrapping_add(xxhash_rust::xxh3::xxh3_64(&payload));
        }
        Ok(digest)
    }

    /// Fills a table with rows made from its column types: the same rows every time, keys `1..=rows`, visible when done.
    pub fn fill_demo(&self, db: &str, table: &str, rows: u64) -> Result<(), StoreError> {
        let table = self.table(db, table)?;
        self.write_visibly(&table, |writer| demo::fill(writer, &table, rows))
    }

    /// Runs start-up SQL with all rights; the first failing statement ends it.
    pub fn execute_script(&self, sql: &str) -> Result<(), StoreError> {
        crate::sql::run_script(self, sql).map_err(|error| StoreError::Statement(error.to_string()))
    }

    pub(crate) fn reader(&self) -> Result<Reader<'_>, StoreError> {
        self.inner.pool.reader()
    }

    /// Writes rows in a transaction of its own, seen when `fill` returns.
    pub(crate) fn write_visibly(
        &self,
        table: &Arc<Table>,
        fill: impl FnOnce(&mut RowWriter) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let open = Arc::new(self.new_txn());
        self.touch(&open, table, Tally::default());
        let mut writer = RowWriter::new(self.clone(), Arc::clone(table), Arc::clone(&open));
        fill(&mut writer)?;
        writer.finish()?;
        self.publish(&open)
    }

    pub(crate) fn create_database(&self, db: &str) -> Result<(), StoreError> {
        let writer = self.writer();
        let mut catalog = self.inner.catalog.write().unwrap_or_else(PoisonError::into_inner);
        if catalog.databases.contains_key(db) {
            return Err(StoreError::DatabaseExists(db.to_owned()));
        }
        writer.execute("INSERT INTO databases VALUES(?1)", [db])?;
        catalog.databases.insert(db.to_owned(), BTreeMap::new());
        Ok(())
    }

    pub(crate) fn drop_database(&self, db: &str) -> Result<(), StoreError> {
        for table in self.tables(db)? {
            self.drop_table(db, &table.name)?;
        }
        let writer = self.writer();
        writer.execute("DELETE FROM databases WHERE name = ?1", [db])?;
        self.inner.catalog.write().unwrap_or_else(PoisonError::into_inner).databases.remove(db);
        Ok(())
    }

    pub(crate) fn create_table(&self, db: &str, name: &str, definition: TableDef) -> Result<(), StoreError> {
        let mut writer = self.writer();
        let mut catalog = self.inner.catalog.write().unwrap_or_else(PoisonError::into_inner);
        let tables =
            catalog.databases.get_mut(db).ok_or_else(|| StoreError::UnknownDatabase(db.to_owned()))?;
        if tables.contains_key(name) {
            return Err(StoreError::TableExists { db: db.to_owned(), table: name.to_owned() });
        }
        let id = self.inner.next_table.fetch_add(1, Ordering::Relaxed);
        let stored = serde_json::to_string(&definition)?;
        let table = Table::new(id, db, name, definition, 1);
        let change = writer.transaction()?;
        change.execute(
            "INSERT INTO tables VALUES(?1, ?2, ?3, ?4, 1, 1, 0, 0)",
            rusqlite::params![id, db, name, stored],
        )?;
        change.execute_batch(&table.create_sql(1))?;
        change.commit()?;
        tables.insert(name.to_owned(), Arc::new(table));
        Ok(())
    }

    pub(crate) fn drop_table(&self, db: &str, name: &str) -> Result<(), StoreError> {
        let table = self.table(db, name)?;
        let mut writer = self.writer();
        let change = writer.transaction()?;
        change.execute("DELETE FROM tables WHERE id = ?1", [table.id])?;
        change.execute_batch(&format!("DROP VIEW {}", table.view_name()))?;
        change.commit()?;
        let old = table.replace_generation(0);
        drop(writer);
        if let Some(tables) =
            self.inner.catalog.write().unwrap_or_else(PoisonError::into_inner).databases.get_mut(db)
        {
            tables.remove(name);
        }
        self.drop_later(table.rows_name_of(old));
        Ok(())
    }

    /// Empties a table by a new generation of its rows; loads that are still open lose their target.
    pub(crate) fn truncate(&self, table: &Arc<Table>) -> Result<(), StoreError> {
        let mut writer = self.writer();
        let old = table.generation();
        let new = old + 1;
        let change = writer.transaction()?;
        change.execute_batch(&format!("DROP VIEW {}", table.view_name()))?;
        change.execute_batch(&table.create_sql(new))?;
        change.execute(
            "UPDATE tables SET generation = ?2, visible_version = visible_version + 1, row_count = 0, data_length = 0 WHERE id = ?1",
            [table.id, new],
        )?;
        change.commit()?;
        table.replace_generation(new);
        table.note_visible(table.all_visible().negative());
        drop(writer);
        self.drop_later(table.rows_name_of(old));
        Ok(())
    }

    /// Exchanges the rows of two tables of one database at once: each takes the other's name.
    pub(crate) fn swap(&self, db: &str, left: &str, right: &str) -> Result<(), StoreError> {
        let (one, two) = (self.table(db, left)?, self.table(db, right)?);
        let mut writer = self.writer();
        let change = writer.transaction()?;
        for (id, name) in [(one.id, right), (two.id, left)] {
            change.execute("UPDATE tables SET name = ?2 WHERE id = ?1", rusqlite::params![id, name])?;
        }
        change.commit()?;
        let mut catalog = self.inner.catalog.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(tables) = catalog.databases.get_mut(db) {
            tables.insert(left.to_owned(), Arc::new(two.renamed(left)));
            tables.insert(right.to_owned(), Arc::new(one.renamed(right)));
        }
        Ok(())
    }

    /// Removes visible rows, each named by a row of `victims` (a query giving the columns of `Table::row_id`);
    /// how many there were. Its own transaction, seen when it returns.
    pub(crate) fn delete_rows(&self, table: &Arc<Table>, victims: &str) -> Result<u64, StoreError> {
        let mut writer = self.writer();
        let change = writer.transaction()?;
        let deleted = change.execute(&table.delete_sql(victims), [])?;
        let rows = i64::try_from(deleted).unwrap_or(i64::MAX);
        let bytes = rows.saturating_mul(table.average_row_bytes());
        change.execute(
            "UPDATE tables SET visible_version = visible_version + 1, row_count = row_count - ?2,
             data_length = data_length - ?3 WHERE id = ?1",
            [table.id, rows, bytes],
        )?;
        change.commit()?;
        table.note_visible(Tally::of_rows(-rows, -bytes));
        Ok(u64::try_from(deleted).unwrap_or(u64::MAX))
    }

    fn writer(&self) -> MutexGuard<'_, Connection> {
        lock(&self.inner.writer)
    }

    fn new_txn(&self) -> OpenTxn {
        OpenTxn { id: self.inner.next_txn.fetch_add(1, Ordering::Relaxed), written: Mutex::default() }
    }

    fn touch(&self, open: &OpenTxn, table: &Arc<Table>, tally: Tally) {
        let mut written = lock(&open.written);
        let generation = table.generation();
        match written
            .iter_mut()
            .find(|written| written.table.id == table.id && written.generation == generation)
        {
            Some(known) => known.tally.add(tally),
            None => written.push(Written { table: Arc::clone(table), generation, tally }),
        }
    }

    fn publish(&self, open: &OpenTxn) -> Result<(), StoreError> {
        let written = lock(&open.written);
        let mut writer = self.writer();
        let alive: Vec<&Written> =
            written.iter().filter(|written| written.generation == written.table.generation()).collect();
        let change = writer.transaction()?;
        change.execute(
            "INSERT INTO visible SELECT ?1, COALESCE(MAX(version), 0) + 1 FROM visible",
            [open.id],
        )?;
        for Written { table, tally, .. } in &alive {
            change.execute(
                "UPDATE tables SET visible_version = visible_version + 1, row_count = row_count + ?2,
                 data_length = data_length + ?3 WHERE id = ?1",
                [table.id, tally.rows, tally.bytes],
            )?;
        }
        change.commit()?;
        for Written { table, tally, .. } in &alive {
            table.note_visible(*tally);
        }
        Ok(())
    }

    /// Removes the rows of a transaction that will never be visible: found by a reader, deleted in short turns.
    fn sweep(&self, table: &Arc<Table>, txn: i64) -> Result<(), StoreError> {
        let generation = table.generation();
        let (find, delete) = table.sweep_sql();
        let reader = self.reader()?;
        let mut statement = reader.prepare(&find)?;
        let width = statement.column_count();
        let mut rows = statement.query([txn])?;
        let mut more = true;
        while more {
            let mut names: Vec<Vec<Value>> = Vec::with_capacity(SWEEP_ROWS);
            while names.len() < SWEEP_ROWS {
                let Some(row) = rows.next()? else {
                    more = false;
                    break;
                };
                names.push((0..width).map(|at| row.get(at)).collect::<Result<_, _>>()?);
            }
            let mut writer = self.writer();
            if table.generation() != generation {
                return Ok(());
            }
            let change = writer.transaction()?;
            {
                let mut delete = change.prepare_cached(&delete)?;
                for name in names {
                    delete.execute(rusqlite::params_from_iter(name))?;
                }
            }
            change.commit()?;
        }
        Ok(())
    }

    fn drop_later(&self, rows: String) {
        let store = self.clone();
        std::thread::spawn(move || {
            if let Err(error) = store.writer().execute_batch(&format!("DROP TABLE IF EXISTS {rows}")) {
                tracing::warn!(error = %error, "rows of a truncated table stay behind, unseen");
            }
        });
    }
}

impl Catalog {
    fn load(connection: &Connection) -> Result<Self, StoreError> {
        let mut databases: BTreeMap<String, BTreeMap<String, Arc<Table>>> = BTreeMap::new();
        for name in
            connection.prepare("SELECT name FROM databases")?.query_map([], |row| row.get::<_, String>(0))?
        {
            databases.insert(name?, BTreeMap::new());
        }
        let mut statement = connection
            .prepare("SELECT id, db, name, definition, generation, visible_version, row_count, data_length FROM tables")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (db, name): (String, String) = (row.get(1)?, row.get(2)?);
            let definition: TableDef = serde_json::from_str(&row.get::<_, String>(3)?)?;
            let table = Table::new(row.get(0)?, &db, &name, definition, row.get(4)?);
            table.restore(row.get(5)?, row.get(6)?, row.get(7)?);
            databases.entry(db).or_default().insert(name, Arc::new(table));
        }
        Ok(Self { databases })
    }
}

fn unknown_table(db: &str, table: &str) -> StoreError {
    StoreError::UnknownTable { db: db.to_owned(), table: table.to_owned() }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLES: &str = "CREATE DATABASE d;
        CREATE TABLE d.clustered (k INT NOT NULL) DUPLICATE KEY(k) DISTRIBUTED BY HASH(k);
        CREATE TABLE d.indexed (k INT NULL) DUPLICATE KEY(k) DISTRIBUTED BY HASH(k);
        CREATE TABLE d.replaced (k INT NOT NULL) PRIMARY KEY(k) DISTRIBUTED BY HASH(k);";

    fn write(store: &Store, table: &Arc<Table>, txn: i64, keys: std::ops::Range<i64>) {
        let mut writer = store.begin_rows(table, txn).unwrap();
        for key in keys {
            writer.push(&[Stored::Int(key)]).unwrap();
        }
        writer.finish().unwrap();
    }

    #[test]
    fn sweeping_an_aborted_transaction_leaves_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.execute_script(TABLES).unwrap();
        for name in ["clustered", "indexed", "replaced"] {
            let table = store.table("d", name).unwrap();
            write(&store, &table, 1, 0..10_000);
            write(&store, &table, 2, 5_000..15_000);
            let aborted = lock(&store.inner.open).remove(&2).unwrap();
            store.make_visible(1).unwrap();
            store.sweep(&table, aborted.id).unwrap();
            let rows = table.rows_name_of(table.generation());
            let left: i64 = store
                .writer()
                .query_row(&format!("SELECT COUNT(*) FROM {rows}"), [], |row| row.get(0))
                .unwrap();
            assert_eq!(left, 10_000, "{name}");
            assert_eq!(store.digest("d", name).unwrap().rows, 10_000, "{name}");
        }
    }

    #[test]
    fn rows_written_before_a_truncate_never_count() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.execute_script(TABLES).unwrap();
        let table = store.table("d", "clustered").unwrap();
        write(&store, &table, 1, 0..10);
        store.truncate(&table).unwrap();
        store.make_visible(1).unwrap();
        assert_eq!((table.row_count(), table.visible_version()), (0, 2));
        assert_eq!(store.digest("d", "clustered").unwrap().rows, 0);
    }

    #[test]
    fn a_key_range_is_read_without_a_scan() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.execute_script(TABLES).unwrap();
        for name in ["clustered", "indexed", "replaced"] {
            let view = store.table("d", name).unwrap().view_name();
            let reader = store.reader().unwrap();
            let sql = format!("EXPLAIN QUERY PLAN SELECT * FROM {view} WHERE k >= 5 AND k < 9");
            let plan: String = reader.query_row(&sql, [], |row| row.get("detail")).unwrap();
            assert!(plan.contains("(k>? AND k<?)"), "{name}: {plan}");
        }
    }
}
