//! The job script: DataWorks' JSON form of a job, read into a [`JobSpec`]. Pure and offline: opens nothing, knows no
//! catalogue, and tells *all* faults at once, each with its JSON pointer, its value, what is allowed and a remedy.
//!
//! A job file goes through [`strip_comments`] (only when asked for), [`substitute`], [`parse`] and, where the data
//! sources are known, [`check_datasources`]; a DataX file through [`convert`] before it is parsed. The walk below reads
//! the file from top to bottom; what a reader, a writer, `loadProps` and `setting` may hold stands in the files of
//! those names.

mod datax;
mod faults;
mod fields;
mod jdbc;
mod load_props;
mod locate;
mod parameters;
mod reader;
mod relations;
mod schedule;
mod settings;
mod sql;
mod steps;
mod text;
mod writer;

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::datasource::{Datasource, DatasourceKind, Datasources};
use crate::job::{ColumnList, JobSpec, Relation, SourceKind, SourceSpec, Split};
use crate::problem::{Code, Problem};

use faults::Faults;
use fields::Object;

pub use datax::{Converted, convert, is_datax};
pub use load_props::derived_columns;
pub use locate::{locate, locate_line};
pub use parameters::{
    Definition, Parameters, Substituted, parameter_names, parse_file as parse_parameters, substitute,
};
pub use schedule::{Schedule, ScheduledTime, parse_business_date, parse_scheduled_time};
pub use text::{MAX_BYTES, strip_comments};

/// A script without faults.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    pub spec: JobSpec,
    /// What was ignored or looks unintended, each with its JSON pointer; to be shown at the start and in the report.
    pub warnings: Vec<String>,
    /// `setting.dryRun`: the job is to be planned and not to be run.
    pub dry_run: bool,
}

impl Parsed {
    /// The same, unless the job says that it is not to be run.
    pub fn to_run(self) -> Result<Self, Vec<Problem>> {
        if !self.dry_run {
            return Ok(self);
        }
        let problem = Problem::new(Code::Unsupported, "dryRun is true: the job is not to be run");
        Err(vec![
            problem.at("/setting/dryRun").hint("remove it, or use `starlift plan`, which touches nothing"),
        ])
    }
}

/// Reads a script whose parameters are already replaced. [`Code::InvalidScript`] marks what is wrong,
/// [`Code::Unsupported`] what DataWorks or DataX would accept and Starlift does not.
pub fn parse(text: &str) -> Result<Parsed, Vec<Problem>> {
    let script = text::read(text).map_err(|problem| vec![problem])?;
    let faults = Faults::default();
    let spec = read_job(&script, &faults);
    match (spec, faults.into_parts()) {
        (Some(spec), (problems, warnings)) if problems.is_empty() => {
            let dry_run = script.pointer("/setting/dryRun").and_then(fields::boolean).unwrap_or(false);
            Ok(Parsed { spec, warnings, dry_run })
        }
        (_, (problems, _)) => Err(problems),
    }
}

const TOP_LEVEL: &[&str] = &["type", "version", "steps", "order", "setting"];
const TOP_LEVEL_IGNORED: &[&str] = &["extend", "transform"];

fn read_job(script: &Value, faults: &Faults) -> Option<JobSpec> {
    let root = match script {
        Value::Object(map) if map.contains_key("steps") => Object::root(map, faults),
        other => {
            refuse_other_form(other, faults);
            return None;
        }
    };
    root.refuse_unknown_keys(TOP_LEVEL, TOP_LEVEL_IGNORED);
    check_type_and_version(&root, faults);
    let settings = match root.object("setting") {
        Some(setting) => settings::read(&setting, faults),
        None => settings::read(&Object::new("/setting", &Map::new(), faults), faults),
    };
    let steps = steps::read(&root, faults)?;
    let most = split_factor_most(script);
    let source = steps.reader.as_ref().and_then(|step| reader::read(step, most, faults));
    let target = steps.writer.as_ref().and_then(|step| writer::read(step, faults));
    let (source, target) = (source?, target?);
    if let Some(writer) = &steps.writer {
        compare_column_counts(&source.columns, &target.columns, &writer.pointer, faults);
    }
    if settings.split == Split::Tablet {
        check_tablets(&source, faults);
    }
    Some(JobSpec { source, target, settings })
}

/// More than DataWorks' hundred tasks for each unit of concurrency only where somebody has thought about it.
fn split_factor_most(script: &Value) -> u64 {
    let allowed = script.pointer("/setting/starlift/allowLargeSplitFactor").and_then(fields::boolean);
    if allowed == Some(true) { 10_000 } else { 100 }
}

/// Tablets are what a StarRocks table is stored in.
fn check_tablets(source: &SourceSpec, faults: &Faults) {
    let place = "/setting/starlift/split";
    let is_query = source.relations.iter().any(|one| matches!(one.relation, Relation::Query(_)));
    if source.kind != SourceKind::Starrocks || is_query {
        let message = "split \"tablet\" needs tables of StarRocks to read from";
        faults.error(place, message, "name a splitPk in the reader instead");
    } else if source.split_key.is_some() {
        faults.warn(place, "splitPk is not used: the table is split by its tablets");
    }
}

fn refuse_other_form(script: &Value, faults: &Faults) {
    if script.get("job").is_some() {
        faults.unsupported(
            "/job",
            "a DataX file holds accounts, which are kept nowhere but in data sources",
            "`starlift convert FILE > JOB` makes a job and data source entries of it",
        );
    } else if let Some(key) = wrong_case_of_steps(script) {
        faults.error(
            &format!("/{}", fields::escape(key)),
            format!("unknown key {key}: did you mean steps? (keys are case sensitive)"),
            "",
        );
    } else {
        faults.error(
            "",
            "not a DataWorks script (type, steps) nor a DataX job (job.content)",
            "a job is an object with type \"job\", version \"2.0\", steps, setting and order",
        );
    }
}

fn wrong_case_of_steps(script: &Value) -> Option<&str> {
    let keys = script.as_object()?.keys();
    keys.map(String::as_str).find(|key| key.eq_ignore_ascii_case("steps"))
}

fn check_type_and_version(root: &Object<'_>, faults: &Faults) {
    if let Some(value) = root.get("type").filter(|value| *value != "job") {
        faults.error(
            "/type",
            format!("only type \"job\" is supported, not {}", fields::show(value)),
            "batch jobs have type \"job\"",
        );
    }
    let is_two = |value: &Value| match value {
        Value::String(text) => text == "2.0" || text == "2",
        Value::Number(number) => number.as_f64() == Some(2.0),
        _ => false,
    };
    if let Some(value) = root.get("version").filter(|value| !is_two(value)) {
        faults.error(
            "/version",
            format!("version must be \"2.0\", not {}; 1.0 scripts use another layout", fields::show(value)),
            "bring the script to the layout of version 2.0",
        );
    }
    if root.boolean("transform") == Some(true) {
        faults.unsupported("/transform", "transformations are not supported", "set transform to false");
    }
}

/// Columns map by position. With a `*` on either side the catalogue decides, at plan time.
fn compare_column_counts(source: &ColumnList, target: &ColumnList, writer: &str, faults: &Faults) {
    if let (ColumnList::Listed(source), ColumnList::Listed(target)) = (source, target)
        && source.len() != target.len()
    {
        faults.error(
            &format!("{writer}/parameter/column"),
            format!(
                "column counts differ: reader {} ({}), writer {} ({})",
                source.len(),
                fields::shorten(&source.join(", "), 120),
                target.len(),
                fields::shorten(&target.join(", "), 120),
            ),
            "they map by position: list as many columns in the writer as in the reader",
        );
    }
}

/// What can be said about the job's data sources without connecting: that they exist, have the right type, a database
/// and, for the target, FE addresses.
pub fn check_datasources(spec: &JobSpec, datasources: &Datasources) -> Vec<Problem> {
    let source_kind = match spec.source.kind {
        SourceKind::Mysql => DatasourceKind::Mysql,
        SourceKind::Starrocks => DatasourceKind::Starrocks,
    };
    let mut problems = Vec::new();
    let mut find = |name: &str, step: &str, kind: DatasourceKind, database: Option<&str>| {
        let found = check_datasource(datasources, name, step, kind, database);
        found.map_err(|problem| problems.push(problem)).ok()
    };
    let mut seen = BTreeSet::new();
    for relation in &spec.source.relations {
        // Many tables of one data source have one fault.
        if seen.insert((&relation.datasource, relation.database.is_some())) {
            find(&relation.datasource, "reader", source_kind, relation.database.as_deref());
        }
    }
    let target =
        find(&spec.target.datasource, "writer", DatasourceKind::Starrocks, spec.target.database.as_deref());
    if let Some(target) = target
        && spec.target.load_urls.is_empty()
        && target.load_urls.is_empty()
    {
        let problem = Problem::new(
            Code::InvalidScript,
            "loadUrl needs at least one FE host:http_port, e.g. 10.0.0.1:8030",
        );
        problems.push(
            problem
                .at("writer parameter.loadUrl")
                .hint(format!("write it in the job, or as load_url of data source {}", target.name)),
        );
    }
    problems
}

fn check_datasource<'a>(
    datasources: &'a Datasources,
    name: &str,
    step: &str,
    kind: DatasourceKind,
    database: Option<&str>,
) -> Result<&'a Datasource, Problem> {
    let place = format!("{step} parameter.datasource");
    let found = datasources.find(name, &place)?;
    if found.kind != kind {
        let message =
            format!("data source {name} is {} but step type is {}", found.kind.as_str(), kind.as_str());
        let hint = "name another data source, or correct stepType";
        return Err(Problem::new(Code::InvalidScript, message).at(place).hint(hint));
    }
    if database.is_none() && found.database.is_none() {
        let message = format!("no database: neither the {step} nor data source {name} names one");
        let hint = "add selectedDatabase to the step, or database to the data source";
        let place = format!("{step} parameter.selectedDatabase");
        return Err(Problem::new(Code::InvalidScript, message).at(place).hint(hint));
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
