//! A job's plan: everything decided before anything is changed. Pure. What the catalogues say comes in as
//! [`SourceFacts`] and [`TargetFacts`] (`probe.rs` asks), what goes out is stored and sent to workers. Types are
//! matched in `pairs`, keys are cut in [`crate::ranges`], what a server allows is told in [`server`].

use serde::{Deserialize, Serialize};
use starlift_common::job::{
    ColumnList, CommitMode, Delimiter, ErrorLimit, Format, JobSpec, LoadSpec, ReadSpec, Relation, SourceKind,
};
use starlift_common::nearest::did_you_mean;
use starlift_common::problem::{Code, Problem};
use starlift_common::task::TaskPlan;

use crate::columns::{Column, Kind, find, select_text};
use crate::ranges::{self, Cut, KeyFacts, Size};

pub mod document;
mod pairs;
pub mod server;

use server::ServerFacts;

/// A transaction is closed at this size and the task goes on in another.
const PART_BYTES: u64 = 8 << 30;

/// Most that one JSON body may hold: the server keeps the whole of it in memory.
const JSON_BODY_BYTES: u64 = 64 << 20;

/// Stored before preSql; never changed afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Plan {
    /// Source tables; a task names one by its index.
    pub shards: Vec<ReadSpec>,
    pub load: LoadSpec,
    pub tasks: Vec<TaskPlan>,
    /// Statements before the transfer, ready to send, in order.
    pub pre_sql: Vec<String>,
    pub post_sql: Vec<String>,
    /// Most tasks at once over the whole cluster.
    pub concurrent: u32,
    /// The job's speed limit.
    pub bytes_per_second: Option<u64>,
    #[serde(default)]
    pub commit: CommitMode,
    #[serde(default)]
    pub error_limit: ErrorLimit,
    /// How long the server keeps a prepared transaction, in seconds.
    #[serde(default = "prepared_lifetime_default_s")]
    pub prepared_lifetime_s: u32,
    pub warnings: Vec<String>,
}

/// What a server keeps a prepared transaction for when nobody says otherwise
/// (FE setting `prepared_transaction_default_timeout_second`).
pub const PREPARED_LIFETIME_DEFAULT_S: u32 = 86_400;

fn prepared_lifetime_default_s() -> u32 {
    PREPARED_LIFETIME_DEFAULT_S
}

impl Plan {
    /// Rows the source holds, by estimate.
    pub fn rows_estimate(&self) -> u64 {
        self.tasks.iter().map(|task| task.rows_estimate).sum()
    }
}

/// What the sources say of themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFacts {
    /// What the reader selects, in the job's order; the same of every shard.
    pub selected: Vec<Selected>,
    /// As many as the job's relations, in their order; at least one.
    pub shards: Vec<ShardFacts>,
    /// The first table's columns that no two rows share, in its own order; empty: it has none.
    pub primary_key: Vec<String>,
    /// Zone that TIMESTAMP values are written in; `None`: no such value is selected.
    pub time_zone: Option<String>,
    pub warnings: Vec<String>,
}

impl SourceFacts {
    /// Of all shards together.
    pub fn size(&self) -> Size {
        self.shards.iter().fold(Size::default(), |sum, shard| Size {
            rows: sum.rows.saturating_add(shard.size.rows),
            bytes: sum.bytes.saturating_add(shard.size.bytes),
        })
    }
}

/// One table or query of the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardFacts {
    pub datasource: String,
    pub database: String,
    pub relation: Relation,
    pub split: SplitFacts,
    pub size: Size,
}

/// What a shard can be split by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SplitFacts {
    Whole,
    Key(SplitKey),
    /// Ids, each with its rows.
    Tablets(Vec<(u64, u64)>),
}

/// The column that the table is split by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitKey {
    pub name: String,
    pub facts: KeyFacts,
    /// The source finds a range of it without reading the whole table.
    pub is_sorted: bool,
}

/// One selected column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// SQL text, ready to paste.
    pub sql: String,
    /// Name of the result column.
    pub name: String,
    pub kind: Kind,
    /// For messages.
    pub type_text: String,
    /// Of a text, in UTF-8; `None`: no text, or not told.
    pub length: Option<Length>,
    /// `None`: not told.
    pub nullable: Option<bool>,
    /// A column of the catalogue rather than an expression.
    pub is_column: bool,
    pub comment: String,
}

impl Selected {
    /// Stands for a moment of the world, so that its text depends on a time zone: TIMESTAMP of MySQL.
    pub fn is_instant(&self) -> bool {
        self.type_text.to_ascii_lowercase().starts_with("timestamp")
    }
}

/// Bytes of a column's longest text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// By its type.
    AtMost(u64),
    /// By its values.
    Measured(u64),
}

impl Length {
    pub fn bytes(self) -> u64 {
        match self {
            Self::AtMost(bytes) | Self::Measured(bytes) => bytes,
        }
    }
}

/// What the target says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetFacts {
    pub database: String,
    /// The table is not there, and the job creates it; then its columns are those it will have.
    pub is_missing: bool,
    pub columns: Vec<Column>,
    pub model: Option<Model>,
    /// `None`: not asked.
    pub has_rows: Option<bool>,
    pub server: ServerFacts,
    pub load_urls: Vec<String>,
    /// Database and table of each source that lies on the same server.
    pub sources_here: Vec<(String, String)>,
    pub warnings: Vec<String>,
}

/// What a StarRocks table does with rows of the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Model {
    /// Keeps them all.
    Duplicate,
    Aggregate,
    Unique,
    Primary,
}

impl Model {
    /// Reads `information_schema.tables_config.TABLE_MODEL`; source and manual spell it differently.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_uppercase().as_str() {
            "DUP_KEYS" => Self::Duplicate,
            "AGG_KEYS" => Self::Aggregate,
            "UNQ_KEYS" | "UNIQUE_KEYS" => Self::Unique,
            "PRI_KEYS" | "PRIMARY_KEYS" => Self::Primary,
            _ => return None,
        })
    }
}

/// An element of the reader's column list, before expressions are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Element {
    Column(Selected),
    /// Anything that is not a column of the catalogue, as written.
    Expression(String),
}

/// The reader's column list against the catalogue; `*` becomes every column that `SELECT *` shows.
pub fn elements(kind: SourceKind, list: &ColumnList, columns: &[Column]) -> Vec<Element> {
    match list {
        ColumnList::All => {
            let shown = columns.iter().filter(|column| !column.hidden);
            shown.map(|column| Element::Column(select(kind, column))).collect()
        }
        ColumnList::Listed(listed) => listed
            .iter()
            .map(|text| match find(columns, unquoted(text)) {
                Some(column) => Element::Column(select(kind, column)),
                None => Element::Expression(text.clone()),
            })
            .collect(),
    }
}

fn select(kind: SourceKind, column: &Column) -> Selected {
    Selected {
        sql: select_text(kind, column),
        name: column.name.clone(),
        kind: column.kind.clone(),
        type_text: column.type_text.clone(),
        length: column.bytes_most.map(Length::AtMost),
        nullable: Some(column.nullable),
        is_column: true,
        comment: column.comment.clone(),
    }
}

fn unquoted(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix('`').and_then(|inner| inner.strip_suffix('`')).unwrap_or(text)
}

/// The split column of the catalogue, if the job names one.
pub fn split_key<'a>(
    split_key: Option<&str>,
    table: &str,
    columns: &'a [Column],
) -> Result<Option<&'a Column>, Problem> {
    let Some(name) = split_key else { return Ok(None) };
    let found = find(columns, name);
    let known = columns.iter().map(|column| column.name.as_str());
    found.map(Some).ok_or_else(|| {
        let message = format!("splitPk \"{name}\" is not a column of {table}");
        Problem::new(Code::InvalidSplitKey, message)
            .at(format!("{table}.{name}"))
            .hint(did_you_mean(name, known))
    })
}

/// The problem of a column whose type has no order to split by.
pub fn no_key_type(table: &str, column: &Column) -> Problem {
    let message = format!(
        "splitPk \"{}\" has type {}, by which a table cannot be split",
        column.name, column.type_text
    );
    Problem::new(Code::InvalidSplitKey, message).at(format!("{table}.{}", column.name)).hint(
        "use an integer, decimal, date, datetime or string column, or leave splitPk out to read in one task",
    )
}

/// Tables of one job must have the same columns: a row of one would not mean the same in another.
pub fn same_columns(first: (&str, &[Selected]), other: (&str, &[Selected])) -> Result<(), Problem> {
    let differ = |what: String| {
        Problem::new(Code::ColumnMismatch, format!("{} differs from {}: {what}", other.0, first.0))
            .at(other.0)
            .hint("write a job of its own for it")
    };
    if first.1.len() != other.1.len() {
        return Err(differ(format!("{} columns vs {}", other.1.len(), first.1.len())));
    }
    for (one, another) in first.1.iter().zip(other.1) {
        if (&one.kind, &one.type_text) != (&another.kind, &another.type_text) {
            return Err(differ(format!("column {} {} vs {}", one.name, another.type_text, one.type_text)));
        }
    }
    Ok(())
}

/// The problem of a name in the reader's list that is neither a column nor an expression the source understands.
pub fn unknown_source_column(table: &str, text: &str, columns: &[Column], words: &str) -> Problem {
    let hint = did_you_mean(unquoted(text), columns.iter().map(|column| column.name.as_str()));
    Problem::new(Code::UnknownColumn, format!("no column or valid expression \"{text}\" in {table}: {words}"))
        .at(format!("{table}.{}", unquoted(text)))
        .hint(hint)
}

/// Puts the plan together; every fault that the facts show is told at once.
pub fn assemble(spec: &JobSpec, source: &SourceFacts, target: &TargetFacts) -> Result<Plan, Vec<Problem>> {
    let mut warnings = target.warnings.clone();
    let mut problems = writer_faults(spec, target);
    let columns = target_columns(spec, target, &mut Vec::new());
    pairs::match_columns(spec, source, &columns, &mut problems, &mut warnings);
    warn_of_statements(spec, target, &mut warnings);
    if !problems.is_empty() {
        return Err(problems);
    }
    if spec.target.pre_sql.is_empty()
        && target.model == Some(Model::Duplicate)
        && target.has_rows == Some(true)
    {
        warnings.push(format!(
            "{}.{} already holds rows, has no key that replaces them, and the job has no preSql: its rows are added",
            target.database, spec.target.table
        ));
    }
    let server = &target.server;
    let (tasks, told) = cut_shards(spec, source, server)?;
    warnings.extend(source.warnings.iter().cloned());
    warnings.extend(told);
    let size = source.size();
    let mut load = load_spec(spec, source, target, &columns);
    if let Some(problem) = server.too_large(spec, &load, &tasks, size) {
        return Err(vec![problem]);
    }
    let (prepared_timeout_s, prepared_lifetime_s) = server.prepared(spec, &load, size.rows);
    load.prepared_timeout_s = prepared_timeout_s;
    warnings.extend(server.warnings(spec, tasks.len()));
    Ok(Plan {
        shards: source.shards.iter().map(|shard| read_spec(spec, source, shard)).collect(),
        load,
        tasks,
        pre_sql: statements(&spec.target.pre_sql, &spec.target.table),
        post_sql: statements(&spec.target.post_sql, &spec.target.table),
        concurrent: spec.settings.concurrent,
        bytes_per_second: spec.settings.bytes_per_second,
        commit: spec.settings.commit,
        error_limit: spec.settings.error_limit,
        prepared_lifetime_s,
        warnings,
    })
}

/// Indexes of the selected columns whose text may be too long for the target, by their types.
pub fn lengths_in_doubt(spec: &JobSpec, source: &SourceFacts, target: &TargetFacts) -> Vec<usize> {
    pairs::lengths_in_doubt(spec, source, &target_columns(spec, target, &mut Vec::new()))
}

/// The tasks of all shards, and what an operator should know of them. A shard's share of what is wanted and allowed is
/// that of its rows.
fn cut_shards(
    spec: &JobSpec,
    source: &SourceFacts,
    server: &ServerFacts,
) -> Result<(Vec<TaskPlan>, Vec<String>), Vec<Problem>> {
    let cut = server.cut(spec);
    let count = source.shards.len() as u64;
    // Every shard has a task, and another one where keys may be NULL.
    let has_nulls =
        |shard: &ShardFacts| matches!(&shard.split, SplitFacts::Key(key) if key.facts.nulls.is_some());
    let least = count + source.shards.iter().filter(|shard| has_nulls(shard)).count() as u64;
    if least > cut.tasks_most && count > 1 {
        let message =
            format!("{count} tables need at least {least} tasks; {} are possible here", cut.tasks_most);
        let hint = "use commit \"task\", or write several jobs";
        return Err(vec![Problem::new(Code::InvalidSettings, message).at("reader").hint(hint)]);
    }
    let all_rows = source.shards.iter().map(|shard| u128::from(shard.size.rows)).sum::<u128>().max(1);
    let (mut tasks, mut warnings) = (Vec::new(), Vec::new());
    for (index, shard) in (0..).zip(&source.shards) {
        let share = |whole: u64| {
            u64::try_from(u128::from(whole) * u128::from(shard.size.rows) / all_rows).unwrap_or(whole)
        };
        let least_here = 1 + u64::from(has_nulls(shard));
        let cut = match count {
            1 => cut,
            _ => Cut {
                wanted: cut.wanted.div_ceil(count),
                tasks_most: least_here + share(cut.tasks_most.saturating_sub(least)),
                ..cut
            },
        };
        let name = format!("{}.{}", shard.database, shard_name(&shard.relation));
        let begun = tasks.len();
        match &shard.split {
            SplitFacts::Whole => tasks.extend(ranges::whole(index, shard.size)),
            SplitFacts::Tablets(tablets) => {
                tasks.extend(ranges::split_tablets(index, tablets, shard.size, cut));
            }
            SplitFacts::Key(key) => {
                tasks.extend(ranges::split(index, &key.facts, shard.size, cut));
                let own = &tasks[begun..];
                warnings.extend(ranges::heavy_keys(&name, &key.name, &key.facts, own));
                if !key.is_sorted && own.len() > 1 {
                    warnings.push(format!(
                        "{name} is neither indexed nor sorted by splitPk \"{}\": each of the {} tasks reads the whole table",
                        key.name,
                        own.len()
                    ));
                }
            }
        }
    }
    Ok((tasks, warnings))
}

/// For messages.
pub(crate) fn shard_name(relation: &Relation) -> &str {
    match relation {
        Relation::Table(table) => table,
        Relation::Query(_) => "querySql",
    }
}

/// The faults of a job that the target alone shows.
pub fn writer_faults(spec: &JobSpec, target: &TargetFacts) -> Vec<Problem> {
    let mut problems = Vec::new();
    let columns = target_columns(spec, target, &mut problems);
    check_target(spec, target, &columns, &mut problems);
    problems.extend(emptied_source(spec, target));
    problems.extend(target.server.faults(spec));
    problems
}

/// The columns to write, in the order of the cells; unknown ones are left out and told.
fn target_columns<'a>(
    spec: &JobSpec,
    target: &'a TargetFacts,
    problems: &mut Vec<Problem>,
) -> Vec<&'a Column> {
    let table = format!("{}.{}", target.database, spec.target.table);
    match &spec.target.columns {
        ColumnList::All => target.columns.iter().filter(|column| !column.generated).collect(),
        ColumnList::Listed(names) => names
            .iter()
            .filter_map(|name| {
                let found = find(&target.columns, name);
                match found {
                    None => problems.push(
                        Problem::new(Code::UnknownColumn, format!("no column \"{name}\" in {table}"))
                            .at(format!("{table}.{name}"))
                            .hint(did_you_mean(
                                name,
                                target.columns.iter().map(|column| column.name.as_str()),
                            )),
                    ),
                    Some(column) if column.generated => problems.push(
                        Problem::new(
                            Code::ColumnMismatch,
                            format!("column \"{name}\" is computed by StarRocks"),
                        )
                        .at(format!("{table}.{name}"))
                        .hint("leave it out of the writer's column list"),
                    ),
                    Some(_) => {}
                }
                found
            })
            .collect(),
    }
}

/// First names of a long list.
fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const SHOWN: usize = 12;
    let all: Vec<&str> = names.collect();
    let shown = all.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    if all.len() > SHOWN { format!("{shown}, ...") } else { shown }
}

/// Columns that must be written and are not.
fn check_target(spec: &JobSpec, target: &TargetFacts, columns: &[&Column], problems: &mut Vec<Problem>) {
    let table = format!("{}.{}", target.database, spec.target.table);
    let partial = spec
        .target
        .load
        .headers
        .get("partial_update")
        .is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let is_primary = target.model == Some(Model::Primary);
    if partial && target.model.is_some_and(|model| model != Model::Primary) {
        problems.push(
            Problem::new(
                Code::InvalidSettings,
                format!("partial_update needs a primary key table; {table} is none"),
            )
            .at(table.clone())
            .hint("leave partial_update out of loadProps"),
        );
    }
    for column in &target.columns {
        let is_written = columns.iter().any(|written| written.name == column.name);
        if is_written || column.generated {
            continue;
        }
        let message = if is_primary && column.is_key && !column.has_default {
            format!("primary key column \"{}\" must be written", column.name)
        } else if !column.nullable && !column.has_default && !partial {
            format!("column \"{}\" is NOT NULL without default and not written", column.name)
        } else {
            continue;
        };
        problems.push(
            Problem::new(Code::ColumnMismatch, message)
                .at(format!("{table}.{}", column.name))
                .hint("add it to the columns of writer and reader"),
        );
    }
}

/// A job that would empty its own source.
fn emptied_source(spec: &JobSpec, target: &TargetFacts) -> Option<Problem> {
    let (database, table) = target.sources_here.iter().find(|source| is_target(spec, target, source))?;
    let pre_sql = statements(&spec.target.pre_sql, &spec.target.table);
    let sql = pre_sql.iter().find(|sql| destroys(sql))?;
    let message = format!("reader and writer use the same table {database}.{table}; preSql would empty it");
    Some(
        Problem::new(Code::SourceIsTarget, message)
            .at(sql.clone())
            .hint("write to another table, or leave the statement out"),
    )
}

/// Statements that take rows away too early, and loads and statements that touch the table being read.
fn warn_of_statements(spec: &JobSpec, target: &TargetFacts, warnings: &mut Vec<String>) {
    if spec.settings.commit == CommitMode::Job {
        let pre_sql = statements(&spec.target.pre_sql, &spec.target.table);
        if let Some(sql) = pre_sql.iter().find(|sql| destroys(sql)) {
            warnings.push(format!(
                "preSql takes effect before the transfer: readers miss the rows until commit \"job\" shows the new \
                 ones: {sql}"
            ));
        }
    }
    for source in &target.sources_here {
        let name = format!("{}.{}", source.0, source.1);
        if is_target(spec, target, source) {
            warnings.push(format!(
                "reader and writer use the same table {name}: rows may be read that the job has written"
            ));
        }
        for sql in statements(&spec.target.pre_sql, &spec.target.table) {
            if destroys(&sql) && names_table(&sql, &source.1) {
                warnings.push(format!("preSql names the table that is read ({name}): {sql}"));
            }
        }
    }
}

fn is_target(spec: &JobSpec, target: &TargetFacts, (database, table): &(String, String)) -> bool {
    *database == target.database && *table == spec.target.table
}

/// Whether the statement takes rows away.
fn destroys(sql: &str) -> bool {
    let first = sql.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
    matches!(first.as_str(), "truncate" | "delete" | "drop")
}

/// Whether the table's name stands in the statement as a word of its own.
fn names_table(sql: &str, table: &str) -> bool {
    sql.split(|letter: char| !letter.is_alphanumeric() && letter != '_').any(|word| word == table)
}

fn read_spec(spec: &JobSpec, source: &SourceFacts, shard: &ShardFacts) -> ReadSpec {
    let (table, query) = match &shard.relation {
        Relation::Table(table) => (table.clone(), None),
        Relation::Query(query) => ("querySql".to_owned(), Some(query.clone())),
    };
    ReadSpec {
        datasource: shard.datasource.clone(),
        kind: spec.source.kind,
        database: shard.database.clone(),
        table,
        hint: spec.source.hint.clone(),
        select: source.selected.iter().map(|selected| selected.sql.clone()).collect(),
        names: source.selected.iter().map(|selected| selected.name.clone()).collect(),
        filter: spec.source.filter.clone(),
        key: match &shard.split {
            SplitFacts::Key(key) => Some(key.name.clone()),
            SplitFacts::Whole | SplitFacts::Tablets(_) => None,
        },
        time_zone: spec.settings.time_zone.clone(),
        query,
    }
}

fn load_spec(spec: &JobSpec, source: &SourceFacts, target: &TargetFacts, columns: &[&Column]) -> LoadSpec {
    let props = &spec.target.load;
    let mut headers = props.headers.clone();
    headers.entry("strict_mode".into()).or_insert_with(|| "true".into());
    headers.entry("max_filter_ratio".into()).or_insert_with(|| "0".into());
    let delimiter = |named: &Option<Delimiter>, default: u8| {
        named.clone().unwrap_or_else(|| Delimiter::new(vec![default]).expect("a single byte below 0x80"))
    };
    let (cell_kinds, checks) = pairs::cells(spec, source, columns);
    let body_most = match props.format {
        Format::Csv => u64::MAX,
        Format::Json => JSON_BODY_BYTES,
    };
    LoadSpec {
        datasource: spec.target.datasource.clone(),
        database: target.database.clone(),
        table: spec.target.table.clone(),
        columns: columns.iter().map(|column| column.name.clone()).collect(),
        cell_kinds,
        checks,
        load_urls: target.load_urls.clone(),
        format: props.format,
        column_separator: delimiter(&props.column_separator, 1),
        row_delimiter: delimiter(&props.row_delimiter, 2),
        named_delimiters: props.column_separator.is_some() || props.row_delimiter.is_some(),
        headers,
        max_batch_rows: spec.target.max_batch_rows,
        max_batch_bytes: spec.target.max_batch_bytes.min(body_most),
        label_prefix: spec.target.label_prefix.clone(),
        timeout_s: props.timeout_s,
        max_part_bytes: target.server.part_bytes(props.format),
        on_error: spec.target.on_error,
        mode: target.server.mode(),
        prepared_timeout_s: None,
        compression: props.compression,
    }
}

/// The job's statements as they are sent.
fn statements(list: &[String], table: &str) -> Vec<String> {
    list.iter().map(|sql| sql.replace("@table", table)).collect()
}

#[cfg(test)]
pub(crate) mod tests;
