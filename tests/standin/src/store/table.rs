//! A table: its definition, its state, and the SQLite statements that keep its rows.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::functions::NUMERIC_COLLATION;
use super::{Digest, Tally};
use crate::types::{Column, ColumnType, Storage};

/// A table, as it was when it was looked up; its counters go on living.
#[derive(Debug)]
pub struct Table {
    pub db: String,
    pub name: String,
    pub columns: Vec<Column>,
    pub model: Model,
    pub(crate) id: i64,
    pub(crate) options: TableOptions,
    state: Arc<TableState>,
}

/// What happens to rows of equal key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Model {
    /// All stay.
    Duplicate,
    /// The last visible one stays.
    Primary,
    /// The last visible one stays.
    Unique,
    /// The last visible one stays: the stand-in knows no other aggregation than REPLACE.
    Aggregate,
}

/// What is stored of a table.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TableDef {
    pub(crate) columns: Vec<Column>,
    pub(crate) model: Model,
    pub(crate) options: TableOptions,
}

/// Clauses that are shown again but change nothing here, save the number of buckets.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct TableOptions {
    /// Key columns in the order of the key clause.
    pub(crate) keys: Vec<String>,
    pub(crate) comment: String,
    /// Text after PARTITION BY, empty without one.
    pub(crate) partition_by: String,
    /// Names of the partitions; at least one.
    pub(crate) partitions: Vec<String>,
    /// Columns of DISTRIBUTED BY HASH; empty means RANDOM.
    pub(crate) distributed_by: Vec<String>,
    pub(crate) buckets: u32,
    pub(crate) order_by: Vec<String>,
    pub(crate) properties: Vec<(String, String)>,
}

#[derive(Debug)]
struct TableState {
    generation: AtomicI64,
    visible_version: AtomicI64,
    rows: AtomicI64,
    bytes: AtomicI64,
    /// Of counted rows, 0 for stored ones.
    hash: AtomicU64,
    /// Milliseconds since the Unix epoch of the last change.
    changed_ms: AtomicI64,
}

/// One horizontal slice of a table: the rows whose first key hashes to `index`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tablet {
    pub(crate) id: i64,
    pub(crate) index: u32,
}

/// An identifier in SQLite's quotes.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

const TXN: &str = "\"$txn\"";
const ROW: &str = "\"$row\"";
const OPERATION: &str = "\"$operation\"";

impl Table {
    pub(super) fn new(id: i64, db: &str, name: &str, definition: TableDef, generation: i64) -> Self {
        Self {
            db: db.to_owned(),
            name: name.to_owned(),
            columns: definition.columns,
            model: definition.model,
            id,
            options: definition.options,
            state: Arc::new(TableState {
                generation: AtomicI64::new(generation),
                visible_version: AtomicI64::new(1),
                rows: AtomicI64::new(0),
                bytes: AtomicI64::new(0),
                hash: AtomicU64::new(0),
                changed_ms: AtomicI64::new(now_ms()),
            }),
        }
    }

    pub(super) fn restore(&self, visible_version: i64, rows: i64, bytes: i64) {
        self.state.visible_version.store(visible_version, Ordering::Relaxed);
        self.state.rows.store(rows, Ordering::Relaxed);
        self.state.bytes.store(bytes, Ordering::Relaxed);
    }

    /// The same rows and counters under another name.
    pub(super) fn renamed(&self, name: &str) -> Self {
        Self {
            db: self.db.clone(),
            name: name.to_owned(),
            columns: self.columns.clone(),
            model: self.model,
            id: self.id,
            options: self.options.clone(),
            state: Arc::clone(&self.state),
        }
    }

    pub(crate) fn definition(&self) -> TableDef {
        TableDef { columns: self.columns.clone(), model: self.model, options: self.options.clone() }
    }

    /// Position of a column; column names are case-insensitive.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name))
    }

    /// VisibleVersion of the partitions: 1 when empty, one more per transaction that became visible.
    pub fn visible_version(&self) -> i64 {
        self.state.visible_version.load(Ordering::Relaxed)
    }

    /// Estimated number of visible rows: replaced rows count until they are removed.
    pub fn row_count(&self) -> i64 {
        self.state.rows.load(Ordering::Relaxed)
    }

    /// Estimated bytes of the visible rows.
    pub fn data_length(&self) -> i64 {
        self.state.bytes.load(Ordering::Relaxed)
    }

    /// Estimated bytes of a visible row, 0 without rows.
    pub(crate) fn average_row_bytes(&self) -> i64 {
        self.data_length().checked_div(self.row_count()).unwrap_or(0)
    }

    /// Rows, bytes and hash of what was loaded, where rows are only counted.
    pub(crate) fn counted(&self) -> (Digest, u64) {
        let unsigned = |number: &AtomicI64| u64::try_from(number.load(Ordering::Relaxed)).unwrap_or(0);
        let hash = self.state.hash.load(Ordering::Relaxed);
        (Digest { rows: unsigned(&self.state.rows), hash }, unsigned(&self.state.bytes))
    }

    /// What leaves with a TRUNCATE.
    pub(super) fn all_visible(&self) -> Tally {
        let hash = self.state.hash.load(Ordering::Relaxed);
        Tally { rows: self.row_count(), bytes: self.data_length(), hash }
    }

    pub(super) fn note_visible(&self, change: Tally) {
        self.state.visible_version.fetch_add(1, Ordering::Relaxed);
        self.state.rows.fetch_add(change.rows, Ordering::Relaxed);
        self.state.bytes.fetch_add(change.bytes, Ordering::Relaxed);
        self.state.hash.fetch_add(change.hash, Ordering::Relaxed);
        self.state.changed_ms.store(now_ms(), Ordering::Relaxed);
    }

    /// When the visible rows changed last, as a DATETIME in UTC.
    pub(crate) fn changed_at(&self) -> String {
        let changed = jiff::Timestamp::from_millisecond(self.state.changed_ms.load(Ordering::Relaxed));
        changed.unwrap_or_default().strftime("%Y-%m-%d %H:%M:%S").to_string()
    }

    /// Counts up at each TRUNCATE; 0 once dropped.
    pub(super) fn generation(&self) -> i64 {
        self.state.generation.load(Ordering::Acquire)
    }

    pub(super) fn replace_generation(&self, new: i64) -> i64 {
        self.state.generation.swap(new, Ordering::AcqRel)
    }

    /// A later row replaces an earlier one of the same key.
    pub(crate) fn replaces_rows(&self) -> bool {
        self.model != Model::Duplicate
    }

    /// The tablets of the one partition that holds the rows.
    pub(crate) fn tablets(&self) -> Vec<Tablet> {
        (0..self.options.buckets)
            .map(|index| Tablet { id: self.id * 10_000 + i64::from(index), index })
            .collect()
    }

    /// The column whose value decides the tablet of a row, and by which rows are clustered.
    pub(crate) fn first_key(&self) -> &Column {
        let named = self.options.keys.first().and_then(|key| self.position(key));
        &self.columns[named.unwrap_or(0)]
    }

    pub(crate) fn view_name(&self) -> String {
        format!("v{}", self.id)
    }

    pub(super) fn rows_name_of(&self, generation: i64) -> String {
        format!("r{}_{generation}", self.id)
    }

    /// Rows, view and index of a generation.
    pub(super) fn create_sql(&self, generation: i64) -> String {
        let rows = self.rows_name_of(generation);
        let mut columns = format!("{TXN} INTEGER NOT NULL, {ROW} INTEGER NOT NULL");
        for column in &self.columns {
            let _ = write!(columns, ", {} {}", quote(&column.name), sqlite_type(&column.kind));
        }
        if self.replaces_rows() {
            let _ = write!(columns, ", {OPERATION} INTEGER NOT NULL");
        }
        let mut sql = if self.is_clustered() {
            format!(
                "CREATE TABLE {rows}({columns}, PRIMARY KEY({}, {TXN}, {ROW})) WITHOUT ROWID;",
                self.cluster_keys()
            )
        } else {
            format!(
                "CREATE TABLE {rows}({columns}); CREATE INDEX i{rows} ON {rows}({});",
                quote(&self.first_key().name)
            )
        };
        let _ = write!(sql, "CREATE VIEW {} AS {};", self.view_name(), self.visible_rows(generation, ""));
        sql
    }

    /// `INSERT` of transaction, row number and one value per column (and the operation, where rows are replaced).
    pub(super) fn insert_sql(&self, generation: i64) -> String {
        let mut names = format!("{TXN}, {ROW}");
        let mut marks = "?1, ?2".to_owned();
        let extra = self.replaces_rows().then_some(OPERATION.to_owned());
        for (at, name) in (3..).zip(self.columns.iter().map(|column| quote(&column.name)).chain(extra)) {
            let _ = write!(names, ", {name}");
            let _ = write!(marks, ", ?{at}");
        }
        format!("INSERT INTO {}({names}) VALUES({marks})", self.rows_name_of(generation))
    }

    /// What names a visible row in the result of `row_source`: the key where rows are replaced.
    pub(crate) fn row_id(&self) -> Vec<String> {
        if self.replaces_rows() {
            self.key_columns().map(|column| quote(&column.name)).collect()
        } else {
            vec![quote(&self.first_key().name), TXN.to_owned(), ROW.to_owned()]
        }
    }

    /// The visible rows with the hidden columns that `row_id` may name, as a query.
    pub(crate) fn row_source(&self) -> String {
        self.visible_rows(self.generation(), &format!(", a.{TXN}, a.{ROW}"))
    }

    /// Deletes the rows named by the query `victims`. A NULL key is found too.
    pub(super) fn delete_sql(&self, victims: &str) -> String {
        let rows = self.rows_name_of(self.generation());
        let columns = self.row_id();
        if self.is_clustered() {
            return format!(
                "DELETE FROM {rows} WHERE ({}) IN ({victims}) AND {TXN} IN (SELECT txn FROM visible)",
                columns.join(", ")
            );
        }
        format!("DELETE FROM {rows} WHERE ({TXN}, {ROW}) IN (SELECT {TXN}, {ROW} FROM ({victims}))")
    }

    /// A query for what names each row of the transaction `?1`, and the deletion of one row so named.
    pub(super) fn sweep_sql(&self) -> (String, String) {
        let rows = self.rows_name_of(self.generation());
        if !self.is_clustered() {
            let find = format!("SELECT rowid FROM {rows} WHERE {TXN} = ?1");
            return (find, format!("DELETE FROM {rows} WHERE rowid = ?1"));
        }
        let names = format!("{}, {TXN}, {ROW}", self.cluster_keys());
        let count = names.split(", ").count();
        let marks: Vec<String> = (1..=count).map(|at| format!("?{at}")).collect();
        (
            format!("SELECT {names} FROM {rows} WHERE +{TXN} = ?1"),
            format!("DELETE FROM {rows} WHERE ({names}) = ({})", marks.join(", ")),
        )
    }

    fn key_columns(&self) -> impl Iterator<Item = &Column> {
        self.options.keys.iter().filter_map(|key| self.position(key)).map(|at| &self.columns[at])
    }

    /// Rows lie in the order of their key, so that a range of keys is one stretch of the file. SQLite allows this only
    /// without NULL keys; other tables have an index.
    fn is_clustered(&self) -> bool {
        self.replaces_rows() || !self.first_key().nullable
    }

    /// The columns by which rows are clustered, before transaction and row.
    fn cluster_keys(&self) -> String {
        if self.replaces_rows() {
            self.key_columns().map(|column| quote(&column.name)).collect::<Vec<_>>().join(", ")
        } else {
            quote(&self.first_key().name)
        }
    }

    /// `+` keeps the visibility test out of the planner's hands: it is a test, never a way in.
    fn visible_rows(&self, generation: i64, hidden: &str) -> String {
        let rows = self.rows_name_of(generation);
        let names: Vec<String> =
            self.columns.iter().map(|column| format!("a.{}", quote(&column.name))).collect();
        let names = names.join(", ");
        let visible = format!("+a.{TXN} IN (SELECT txn FROM visible)");
        if !self.replaces_rows() {
            return format!("SELECT {names}{hidden} FROM {rows} a WHERE {visible}");
        }
        let same_key: Vec<String> =
            self.key_columns().map(|column| format!("b.{0} = a.{0}", quote(&column.name))).collect();
        format!(
            "SELECT {names}{hidden} FROM {rows} a WHERE {visible} AND a.{OPERATION} = 0 AND NOT EXISTS (
                SELECT 1 FROM {rows} b CROSS JOIN visible later ON later.txn = b.{TXN} WHERE {}
                AND (later.version, b.{ROW}) > ((SELECT version FROM visible WHERE txn = a.{TXN}), a.{ROW}))",
            same_key.join(" AND ")
        )
    }
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// A declared type from which SQLite derives the right affinity and `result_type` the StarRocks type again.
fn sqlite_type(kind: &ColumnType) -> String {
    match kind.storage() {
        Storage::Int => format!("INT_{kind}"),
        Storage::Real => format!("REAL_{kind}"),
        Storage::Blob => "BLOB".to_owned(),
        Storage::Numeric if *kind == ColumnType::LargeInt => {
            format!("TEXT_LARGE COLLATE {NUMERIC_COLLATION}")
        }
        Storage::Numeric => format!("TEXT_{kind} COLLATE {NUMERIC_COLLATION}"),
        Storage::Text => match kind {
            ColumnType::Nested(_) => "TEXT_NESTED".to_owned(),
            ColumnType::Opaque(_) => "TEXT_OPAQUE".to_owned(),
            _ => format!("TEXT_{kind}"),
        },
    }
}

/// The StarRocks type behind a declared type of SQLite; the inverse of `sqlite_type` as far as results need it.
pub(crate) fn declared_type(declared: &str) -> Option<ColumnType> {
    match declared {
        "BLOB" => return Some(ColumnType::Varbinary),
        "TEXT_LARGE" => return Some(ColumnType::LargeInt),
        "TEXT_NESTED" => return Some(ColumnType::Nested("ARRAY".to_owned())),
        "TEXT_OPAQUE" => return Some(ColumnType::Opaque("BITMAP".to_owned())),
        _ => {}
    }
    let (_, name) = declared.split_once('_')?;
    let (word, rest) = name.split_once('(').unwrap_or((name, ""));
    let args: Vec<u32> =
        rest.trim_end_matches(')').split(',').filter_map(|number| number.trim().parse().ok()).collect();
    ColumnType::from_words(word, &args)
}
