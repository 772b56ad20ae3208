use std::collections::BTreeMap;

use starlift_common::job::{
    CellCheck, CellKind, CellRule, CommitMode, ErrorLimit, LoadProps, OnError, RelationSpec, Settings,
    SourceSpec, Split, TargetSpec,
};
use starlift_common::task::{Key, KeyRange, TaskRange};

use starlift_common::job::LoadMode;

use super::server::Version;
use super::*;
use crate::columns::{Range, mysql_kind, starrocks_kind};

const BIGINT: Kind = Kind::Integer(Range::signed(64));

fn listed(names: &[&str]) -> ColumnList {
    ColumnList::Listed(names.iter().map(|name| (*name).to_owned()).collect())
}

fn relation(table: &str) -> RelationSpec {
    RelationSpec { datasource: "shop".into(), database: None, relation: Relation::Table(table.into()) }
}

pub(crate) fn spec() -> JobSpec {
    JobSpec {
        source: SourceSpec {
            kind: SourceKind::Mysql,
            relations: vec![relation("orders")],
            columns: ColumnList::All,
            hint: None,
            filter: None,
            split_key: Some("ID".into()),
            split_factor: 5,
        },
        target: TargetSpec {
            datasource: "dw".into(),
            database: None,
            table: "orders".into(),
            columns: ColumnList::All,
            load_urls: Vec::new(),
            load: LoadProps::default(),
            pre_sql: vec!["truncate table @table".into()],
            post_sql: Vec::new(),
            max_batch_rows: 500_000,
            max_batch_bytes: 100 << 20,
            on_error: OnError::Exit,
            label_prefix: "sl".into(),
        },
        settings: Settings {
            concurrent: 4,
            bytes_per_second: None,
            error_limit: ErrorLimit::default(),
            commit: CommitMode::Task,
            split: Split::Key,
            time_zone: None,
            create_table: false,
            probe_lengths: false,
        },
    }
}

fn column(name: &str, kind: Kind) -> Column {
    Column {
        name: name.into(),
        type_text: format!("{kind:?}").to_lowercase(),
        kind,
        bytes_most: None,
        nullable: true,
        has_default: false,
        generated: false,
        hidden: false,
        is_key: false,
        is_primary: false,
        is_sorted: true,
        comment: String::new(),
    }
}

pub(crate) fn source(selected: Vec<Selected>) -> SourceFacts {
    SourceFacts {
        selected,
        shards: vec![shard("orders", Size { rows: 400_000, bytes: 0 })],
        primary_key: Vec::new(),
        time_zone: None,
        warnings: Vec::new(),
    }
}

/// Evenly spread keys from 1, and perhaps NULL.
fn shard(table: &str, size: Size) -> ShardFacts {
    let pieces = ranges::evenly_spread(1, 400_000, size.rows, 4_000);
    ShardFacts {
        datasource: "shop".into(),
        database: "shop".into(),
        relation: Relation::Table(table.into()),
        split: SplitFacts::Key(SplitKey {
            name: "id".into(),
            facts: KeyFacts { pieces, nulls: Some(0) },
            is_sorted: true,
        }),
        size,
    }
}

fn target(columns: Vec<Column>) -> TargetFacts {
    TargetFacts {
        database: "dw".into(),
        is_missing: false,
        columns,
        model: Some(Model::Duplicate),
        has_rows: Some(false),
        server: ServerFacts {
            version: None,
            has_transactions: true,
            open_transactions: None,
            labels_kept: None,
            prepared_s: None,
        },
        load_urls: vec!["http://fe1:8030".into()],
        sources_here: Vec::new(),
        warnings: Vec::new(),
    }
}

fn selected(names: &[&str]) -> Vec<Selected> {
    let columns: Vec<Column> = names.iter().map(|name| column(name, BIGINT)).collect();
    columns.iter().map(|column| select(SourceKind::Mysql, column)).collect()
}

fn integers(names: &[&str]) -> Vec<Column> {
    names.iter().map(|name| column(name, BIGINT)).collect()
}

fn problems(result: Result<Plan, Vec<Problem>>) -> Vec<Problem> {
    result.expect_err("a fault was expected")
}

#[test]
fn a_plan_covers_the_table_and_names_everything_a_worker_needs() {
    let plan = assemble(&spec(), &source(selected(&["id", "n"])), &target(integers(&["ID", "N"]))).unwrap();
    assert_eq!(plan.tasks.len(), 8 + 1);
    assert_eq!(
        plan.tasks[0].range,
        TaskRange::Keys(KeyRange { lower: None, upper: Some(Key::integer(50_001)) })
    );
    assert_eq!(plan.tasks[8].range, TaskRange::NullKeys);
    assert_eq!(plan.rows_estimate(), 400_000);
    assert_eq!(plan.shards[0].select, ["`id`", "`n`"]);
    assert_eq!(plan.load.columns, ["ID", "N"]);
    assert_eq!(plan.load.cell_kinds, [CellKind::Number, CellKind::Number]);
    assert_eq!(plan.load.headers["strict_mode"], "true");
    assert_eq!(plan.load.headers["max_filter_ratio"], "0");
    assert_eq!(plan.load.column_separator.as_bytes(), [1]);
    assert!(!plan.load.named_delimiters);
    assert_eq!(plan.pre_sql, ["truncate table orders"]);
    assert_eq!(plan.warnings, Vec::<String>::new());
}

#[test]
fn listed_columns_are_quoted_and_anything_else_stays_an_expression() {
    let catalogue = [column("order", Kind::Text), column("Price", mysql_kind("float")), column("x", BIGINT)];
    let list = listed(&["ORDER", "price", "`x`", "upper(x)", "1"]);
    let sql: Vec<String> = elements(SourceKind::Mysql, &list, &catalogue)
        .into_iter()
        .map(|element| match element {
            Element::Column(selected) => selected.sql,
            Element::Expression(text) => format!("expression {text}"),
        })
        .collect();
    assert_eq!(sql, ["`order`", "(`Price` * 1e0)", "`x`", "expression upper(x)", "expression 1"]);
}

#[test]
fn a_star_leaves_hidden_columns_out() {
    let mut hidden = column("h", BIGINT);
    hidden.hidden = true;
    let catalogue = [column("a", BIGINT), hidden];
    assert_eq!(elements(SourceKind::Mysql, &ColumnList::All, &catalogue).len(), 1);
}

#[test]
fn all_faults_are_told_at_once() {
    let mut spec = spec();
    spec.target.columns = listed(&["id", "naem"]);
    let mut required = column("must", Kind::Text);
    required.nullable = false;
    let mut columns = integers(&["id", "name"]);
    columns.push(required);
    let found = problems(assemble(&spec, &source(selected(&["id"])), &target(columns)));
    let codes: Vec<Code> = found.iter().map(|problem| problem.code).collect();
    assert_eq!(codes, [Code::UnknownColumn, Code::ColumnMismatch, Code::ColumnMismatch]);
    assert!(found[0].hint.contains("name"), "{:?}", found[0]);
    assert!(found[1].message.contains("\"must\" is NOT NULL"), "{}", found[1].message);
    assert!(found[2].message.contains("the reader has 1 (id), the writer 2"), "{}", found[2].message);
}

#[test]
fn a_primary_key_must_be_written() {
    let mut key = column("k", BIGINT);
    (key.is_key, key.nullable) = (true, false);
    let mut spec = spec();
    spec.target.columns = listed(&["a"]);
    let mut facts = target(vec![key, column("a", BIGINT)]);
    facts.model = Some(Model::Primary);
    let found = problems(assemble(&spec, &source(selected(&["a"])), &facts));
    assert_eq!(found[0].message, "primary key column \"k\" must be written");
}

/// One selected column and one target column of these types.
fn pair(from: &str, to: &str) -> (SourceFacts, TargetFacts) {
    let from = Column { type_text: from.into(), ..column("a", mysql_kind(from)) };
    let to = Column { type_text: to.into(), ..column("b", starrocks_kind(to)) };
    (source(vec![select(SourceKind::Mysql, &from)]), target(vec![to]))
}

#[test]
fn what_would_be_changed_without_a_word_is_refused_with_what_to_write() {
    let (from, to) = pair("decimal(10,4)", "decimal(9,2)");
    let found = problems(assemble(&spec(), &from, &to));
    assert_eq!((found[0].code, found[0].place.as_str()), (Code::TypeMismatch, "orders.b"));
    assert_eq!(found[0].message, "a (decimal(10,4)) cannot go into b (decimal(9,2))");
    assert!(
        found[0].hint.ends_with("write CAST(`a` AS DECIMAL(9,2)) in the reader's column list"),
        "{found:?}"
    );
}

#[test]
fn what_only_some_values_fit_is_looked_at_by_the_worker() {
    let (from, to) = pair("tinyint(1)", "boolean");
    let plan = assemble(&spec(), &from, &to).expect("a plan");
    assert_eq!(plan.load.checks, [CellCheck { column: 0, rule: CellRule::Truth }]);
    let (from, to) = pair("int(11)", "bigint(20)");
    assert_eq!(assemble(&spec(), &from, &to).expect("a plan").load.checks, []);
}

#[test]
fn bytes_go_as_digits_unless_the_job_has_a_columns_header_of_its_own() {
    let (from, to) = pair("varbinary(16)", "varbinary");
    let plan = assemble(&spec(), &from, &to).expect("a plan");
    assert_eq!(plan.load.columns_header(), "`starlift_hex_0`,`b`=to_binary(`starlift_hex_0`,'hex')");
    let mut own = spec();
    own.target.load.headers.insert("columns".into(), "b".into());
    assert!(problems(assemble(&own, &from, &to))[0].hint.contains("to_binary(field,'hex')"));
    // Then what is read is what the expression takes: a text.
    own.target.load.headers.insert("columns".into(), "t, b=to_binary(t, 'hex')".into());
    assert!(problems(assemble(&own, &from, &to))[0].hint.contains("HEX(`a`)"));
    let (from, _) = pair("varchar(16)", "varbinary");
    assert_eq!(assemble(&own, &from, &to).expect("a plan").load.cell_kinds, [CellKind::Text]);
}

#[test]
fn texts_that_may_be_too_long_are_told_in_bytes_and_measured_ones_are_refused() {
    let (mut from, mut to) = pair("varchar(50)", "varchar(100)");
    (from.selected[0].length, to.columns[0].bytes_most) = (Some(Length::AtMost(200)), Some(100));
    let plan = assemble(&spec(), &from, &to).expect("a plan");
    assert!(plan.warnings[0].contains("a (up to 200 bytes, b takes 100)"), "{:?}", plan.warnings);
    from.selected[0].length = Some(Length::Measured(101));
    let found = problems(assemble(&spec(), &from, &to));
    assert!(found[0].hint.contains("the longest value has 101 bytes and the column takes 100"), "{found:?}");
    from.selected[0].length = Some(Length::Measured(100));
    assert_eq!(assemble(&spec(), &from, &to).expect("a plan").warnings, Vec::<String>::new());
    // A number's text has a length as well.
    let (from, mut to) = pair("bigint", "varchar(10)");
    to.columns[0].bytes_most = Some(10);
    assert!(assemble(&spec(), &from, &to).expect("a plan").warnings[0].contains("up to 20 bytes"));
}

#[test]
fn null_into_a_column_without_it_and_a_mode_that_is_not_strict_are_told() {
    let (from, mut to) = pair("bigint(20)", "int(11)");
    to.columns[0].nullable = false;
    let warnings = assemble(&spec(), &from, &to).expect("a plan").warnings;
    assert!(warnings[0].contains("rows with NULL for b are refused"), "{warnings:?}");
    let mut lax = spec();
    lax.target.load.headers.insert("strict_mode".into(), "false".into());
    let warnings = assemble(&lax, &from, &to).expect("a plan").warnings;
    assert!(warnings[1].contains("become NULL without a word in b"), "{warnings:?}");
}

#[test]
fn moments_name_the_zone_they_are_written_in() {
    let (mut from, to) = pair("timestamp", "datetime");
    from.time_zone = Some("+08:00".into());
    let warnings = assemble(&spec(), &from, &to).expect("a plan").warnings;
    assert!(warnings[0].starts_with("TIMESTAMP values (a) are written as times of the zone +08:00"));
}

#[test]
fn nested_values_need_json() {
    let mut from = pair("json", "json").0;
    from.selected[0].kind = Kind::Nested("array<int>".into());
    let to = pair("json", "array<int>").1;
    let found = problems(assemble(&spec(), &from, &to));
    assert!(found[0].hint.contains("format json"), "{found:?}");
    let mut json = spec();
    json.target.load.format = Format::Json;
    assert_eq!(assemble(&json, &from, &to).expect("a plan").load.cell_kinds, [CellKind::Json]);
}

#[test]
fn a_job_that_would_empty_its_own_source_is_refused() {
    let mut facts = target(integers(&["id"]));
    facts.sources_here = vec![("dw".into(), "orders".into())];
    let found = problems(assemble(&spec(), &source(selected(&["id"])), &facts));
    assert_eq!(found[0].code, Code::SourceIsTarget);
    let mut harmless = spec();
    harmless.target.pre_sql.clear();
    let plan = assemble(&harmless, &source(selected(&["id"])), &facts).unwrap();
    assert!(plan.warnings[0].contains("same table"));
}

#[test]
fn what_an_operator_should_know_is_a_warning() {
    let mut spec = spec();
    spec.target.pre_sql.clear();
    let mut facts = target(integers(&["id"]));
    (facts.has_rows, facts.server.labels_kept) = (Some(true), Some(1000));
    let warnings = assemble(&spec, &source(selected(&["id"])), &facts).unwrap().warnings;
    assert_eq!(warnings.len(), 2);
    assert!(warnings[0].contains("already holds rows") && warnings[1].contains("label_keep_max_num"));
}

#[test]
fn a_split_key_must_be_a_column() {
    let catalogue = [column("id", BIGINT), column("name", Kind::Text)];
    let key = |name: &str| split_key(Some(name), "dw.t", &catalogue);
    assert_eq!(key("ID").unwrap().unwrap().name, "id");
    let problem = key("idd").unwrap_err();
    assert_eq!((problem.code, problem.place.as_str()), (Code::InvalidSplitKey, "dw.t.idd"));
    assert!(problem.hint.contains("id"));
}

#[test]
fn tables_share_the_tasks_by_their_rows() {
    let mut spec = spec();
    spec.source.relations = vec![relation("t_0"), relation("t_1")];
    let mut facts = source(selected(&["id"]));
    let sizes = [100_000, 3_000_000].map(|rows| Size { rows, bytes: 0 });
    facts.shards = vec![shard("t_0", sizes[0]), shard("t_1", sizes[1])];
    let plan = assemble(&spec, &facts, &target(integers(&["id"]))).expect("a plan");
    let of = |shard: u32| plan.tasks.iter().filter(|task| task.shard == shard).count();
    assert_eq!((of(0), of(1)), (2 + 1, 10 + 1));
    assert_eq!(plan.shards[1].table, "t_1");
    spec.settings.commit = CommitMode::Job;
    let mut few = target(integers(&["id"]));
    few.server.open_transactions = Some(20);
    let plan = assemble(&spec, &facts, &few).expect("a plan");
    assert_eq!(plan.tasks.len(), 5, "at most 30 % of 20, whole tasks for each table");
    few.server.open_transactions = Some(10);
    let problem = &problems(assemble(&spec, &facts, &few))[0];
    assert!(
        problem.message.contains("2 tables need at least 4 tasks; 3 are possible"),
        "{}",
        problem.message
    );
}

#[test]
fn a_query_is_one_task_and_is_sent_as_it_is() {
    let mut facts = source(selected(&["id"]));
    facts.shards[0].relation = Relation::Query("select id from a".into());
    facts.shards[0].split = SplitFacts::Whole;
    let plan = assemble(&spec(), &facts, &target(integers(&["id"]))).expect("a plan");
    assert_eq!(plan.tasks[0].range, TaskRange::Whole);
    assert_eq!(plan.shards[0].query.as_deref(), Some("select id from a"));
}

#[test]
fn tables_of_one_job_have_the_same_columns() {
    let mut first = selected(&["id", "price"]);
    first[1].type_text = "decimal(10,2)".into();
    let mut other = first.clone();
    assert_eq!(same_columns(("my.t_00", &first), ("my.t_03", &other)), Ok(()));
    (other[1].kind, other[1].type_text) = (mysql_kind("decimal(12,4)"), "decimal(12,4)".into());
    let problem = same_columns(("my.t_00", &first), ("my.t_03", &other)).unwrap_err();
    assert_eq!(problem.message, "my.t_03 differs from my.t_00: column price decimal(12,4) vs decimal(10,2)");
    assert!(same_columns(("my.t_00", &first), ("my.t_03", &first[..1])).is_err());
}

#[test]
fn json_bodies_stay_below_what_the_server_buffers() {
    let mut spec = spec();
    spec.target.load = LoadProps { format: Format::Json, headers: BTreeMap::new(), ..LoadProps::default() };
    let plan = assemble(&spec, &source(selected(&["id"])), &target(integers(&["id"]))).unwrap();
    assert_eq!(plan.load.max_batch_bytes, 64 << 20);
}

fn large(rows: u64, bytes: u64) -> SourceFacts {
    SourceFacts { shards: vec![shard("orders", Size { rows, bytes })], ..source(selected(&["id"])) }
}

fn spec_of_one_commit() -> JobSpec {
    let mut spec = spec();
    spec.settings.commit = CommitMode::Job;
    spec.target.pre_sql.clear();
    spec
}

#[test]
fn a_commit_of_the_whole_job_takes_at_most_a_share_of_the_open_transactions() {
    let mut facts = target(integers(&["id"]));
    let tasks = |facts: &TargetFacts| {
        assemble(&spec_of_one_commit(), &large(2_000_000_000, 0), facts).expect("a plan").tasks.len()
    };
    assert_eq!(tasks(&facts), 300);
    facts.server.version = Some(Version(3, 0, 9));
    assert_eq!(tasks(&facts), 30);
    facts.server.open_transactions = Some(200);
    assert_eq!(tasks(&facts), 60);
    let by_task = assemble(&spec(), &large(2_000_000_000, 0), &facts).expect("a plan");
    assert_eq!(by_task.tasks.len(), 2_001);
}

#[test]
fn a_commit_of_the_whole_job_is_refused_when_a_task_would_need_a_second_part() {
    let mut facts = target(integers(&["id"]));
    facts.server.open_transactions = Some(10);
    let plan = |rows, bytes| assemble(&spec_of_one_commit(), &large(rows, bytes), &facts);
    // Two ranges and the NULL keys.
    assert_eq!(plan(100_000_000, 15 << 30).expect("7.5 GiB each").tasks.len(), 3);
    let found = problems(plan(100_000_000, 17 << 30));
    assert_eq!(found[0].code, Code::InvalidSettings);
    assert!(found[0].message.contains("8704 MiB"), "{}", found[0].message);
    assert!(problems(plan(1 << 40, 0))[0].message.contains("129600 s"), "half of the longest timeout");
    let mut whole = large(10_000_000, 9 << 30);
    whole.shards[0].split = SplitFacts::Whole;
    assert!(problems(assemble(&spec_of_one_commit(), &whole, &facts))[0].hint.contains("splitPk"));
}

#[test]
fn a_commit_of_the_whole_job_knows_how_long_prepared_rows_last() {
    let mut facts = target(integers(&["id"]));
    let times = |facts: &TargetFacts, rows| {
        let plan = assemble(&spec_of_one_commit(), &large(rows, 0), facts).expect("a plan");
        (plan.load.prepared_timeout_s, plan.prepared_lifetime_s)
    };
    assert_eq!(times(&facts, 1_000), (None, 86_400));
    facts.server.prepared_s = Some(7_200);
    assert_eq!(times(&facts, 1_000), (None, 7_200));
    facts.server.version = Some(Version(3, 5, 4));
    assert_eq!(times(&facts, 1_000), (Some(86_400), 86_400));
    assert_eq!(times(&facts, 1_000_000_000), (Some(100_000), 100_000));
    assert_eq!(times(&facts, 100_000_000_000), (Some(259_200), 259_200));
    let by_task = assemble(&spec(), &large(1_000, 0), &facts).expect("a plan");
    assert_eq!((by_task.load.prepared_timeout_s, by_task.prepared_lifetime_s), (None, 7_200));
}

#[test]
fn a_commit_of_the_whole_job_warns_of_a_table_that_is_empty_meanwhile() {
    let mut spec = spec();
    spec.settings.commit = CommitMode::Job;
    let warnings = assemble(&spec, &large(1_000, 0), &target(integers(&["id"]))).expect("a plan").warnings;
    assert!(warnings[0].ends_with("truncate table orders"), "{warnings:?}");
    assert!(warnings[1].contains("2 transactions open") && warnings[1].contains("1000"), "{warnings:?}");
}

#[test]
fn a_server_without_transactions_gets_plain_loads_and_a_warning() {
    let mut facts = target(integers(&["id"]));
    (facts.server.has_transactions, facts.server.labels_kept) = (false, Some(1000));
    facts.server.version = Some(Version(2, 3, 1));
    let plan = assemble(&spec(), &large(400_000, 0), &facts).expect("a plan");
    assert_eq!((plan.load.mode, plan.load.max_part_bytes), (LoadMode::Plain, 10_240 << 20));
    assert!(plan.warnings[0].contains("remembers its label"), "{:?}", plan.warnings);
    assert!(
        plan.warnings[1].contains("9 tasks") && plan.warnings[1].contains("DOUBLED"),
        "{:?}",
        plan.warnings
    );
    // No task may pass the largest body by estimate.
    let tasks = assemble(&spec(), &large(60_000, 100 << 30), &facts).expect("a plan").tasks.len();
    assert_eq!(tasks, 20 + 1);
    let mut whole = large(60_000, 11 << 30);
    whole.shards[0].split = SplitFacts::Whole;
    assert!(problems(assemble(&spec(), &whole, &facts))[0].message.contains("11264 MiB"));
    let mut json = spec();
    json.target.load.format = Format::Json;
    let plan = assemble(&json, &large(60_000, 1 << 30), &facts).expect("a plan");
    assert_eq!((plan.tasks.len(), plan.load.max_part_bytes), (32 + 1, 256 << 20));
}

#[test]
fn a_server_without_transactions_takes_neither_dirty_rows_nor_a_commit_of_the_whole_job() {
    let mut facts = target(integers(&["id"]));
    facts.server.has_transactions = false;
    let mut spec = spec();
    (spec.target.on_error, spec.settings.commit) = (OnError::BatchDirtyData, CommitMode::Job);
    let found = problems(assemble(&spec, &large(1_000, 0), &facts));
    assert_eq!(found.iter().map(|problem| problem.code).collect::<Vec<_>>(), [Code::Unsupported; 2]);
    assert!(found[0].message.contains("batchDirtyData") && found[1].message.contains("\"job\""));
}
