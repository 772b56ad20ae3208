//! One case for each row of the table of bad inputs, good scripts, and the promise that nothing panics.

use proptest::prelude::*;
use serde_json::{Value, json};

mod invalid_inputs;

use super::*;
use crate::job::{CommitMode, Compression, ErrorLimit, Format, OnError, RelationSpec};

/// A script that has no fault and gives no warning.
fn good() -> Value {
    json!({
        "type": "job",
        "version": "2.0",
        "steps": [
            { "stepType": "starrocks", "name": "Reader", "category": "reader", "parameter": {
                "datasource": "src", "selectedDatabase": "ods", "table": "orders",
                "column": ["id", "name"], "where": "id > 100", "splitPk": "id" } },
            { "stepType": "starrocks", "name": "Writer", "category": "writer", "parameter": {
                "datasource": "dst", "table": "orders", "column": ["id", "name"],
                "loadUrl": ["10.0.0.11:8030"], "loadProps": {}, "preSql": [], "postSql": [] } },
        ],
        "setting": { "errorLimit": { "record": 0 }, "speed": { "concurrent": 4 } },
        "order": { "hops": [{ "from": "Reader", "to": "Writer" }] },
    })
}

/// `good()` with the value at `pointer` set, parents made where they are missing.
fn with(pointer: &str, value: Value) -> Value {
    let mut script = good();
    set(&mut script, pointer, value);
    script
}

fn set(script: &mut Value, pointer: &str, value: Value) {
    let mut place = script;
    for token in pointer.split('/').skip(1) {
        place = match place {
            Value::Array(list) => &mut list[token.parse::<usize>().expect("an index")],
            other => &mut other[token],
        };
    }
    *place = value;
}

/// Given ones, of a job that is scheduled at 2025-11-01 02:30:45.
fn parameters(given: &[(&str, &str)]) -> Parameters {
    let definition = |(name, expression): &(&str, &str)| Definition {
        name: (*name).to_owned(),
        expression: (*expression).to_owned(),
        place: String::new(),
    };
    let schedule = Schedule::new(jiff::civil::date(2025, 11, 1).at(2, 30, 45, 0), None, None);
    let definitions: Vec<Definition> = given.iter().map(definition).collect();
    Parameters::evaluate(&definitions, schedule).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn table(datasource: &str, database: Option<&str>, table: &str) -> RelationSpec {
    RelationSpec {
        datasource: datasource.into(),
        database: database.map(Into::into),
        relation: Relation::Table(table.into()),
    }
}

/// `good()` whose reader has `connection` in place of a table.
fn with_connections(list: Value) -> Value {
    let mut script = good();
    let parameter = script.pointer_mut(READER).and_then(Value::as_object_mut).expect("the reader");
    parameter.remove("table");
    parameter.insert("connection".to_owned(), list);
    script
}

const READER: &str = "/steps/0/parameter";
const WRITER: &str = "/steps/1/parameter";

fn told(script: &Value) -> String {
    match parse(&script.to_string()) {
        Ok(parsed) => panic!("no fault was found in {script:#}: {parsed:?}"),
        Err(problems) => problems.iter().map(|problem| format!("{problem}\n")).collect(),
    }
}

fn parsed(script: &Value) -> Parsed {
    parse(&script.to_string()).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

#[test]
fn a_plain_script_is_read_in_full() {
    let Parsed { spec, warnings, dry_run } = parsed(&good());
    assert!(!dry_run);
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(spec.source.kind, SourceKind::Starrocks);
    assert_eq!(spec.source.relations, [table("src", Some("ods"), "orders")]);
    assert_eq!(spec.source.filter.as_deref(), Some("id > 100"));
    assert_eq!((spec.source.split_key.as_deref(), spec.source.split_factor), (Some("id"), 5));
    assert_eq!(spec.target.load_urls, ["http://10.0.0.11:8030"]);
    assert_eq!((spec.target.max_batch_rows, spec.target.max_batch_bytes), (500_000, 5_242_880));
    assert_eq!((spec.target.on_error, spec.target.label_prefix.as_str()), (OnError::Exit, "sl"));
    let headers = &spec.target.load.headers;
    assert_eq!((headers["strict_mode"].as_str(), headers["max_filter_ratio"].as_str()), ("true", "0"));
    assert_eq!(spec.settings.concurrent, 4);
    assert_eq!(spec.settings.error_limit, ErrorLimit::Records(0));
}

#[test]
fn what_the_list_of_invalid_inputs_leaves_out_is_told_as_well() {
    let w = |key: &str| format!("{WRITER}/{key}");
    let cases: Vec<(&str, Value, &[&str])> = vec![
        ("42", with(&w("loadProps/row_delimiter"), json!("\\xff")), &["byte 0xff"]),
        ("42", with(&w("loadProps/column_separator"), json!("\\t")), &["in hexadecimal"]),
        (
            "43",
            with(&w("loadProps"), json!({ "column_separator": "||", "row_delimiter": "|" })),
            &["neither may contain the other"],
        ),
        (
            "3.3",
            with(&w("loadProps/compression"), json!("BZIP2")),
            &["loadProps/compression: compression must be lz4_frame, zstd, gzip or none, not \"BZIP2\""],
        ),
        ("3.3", with(&w("loadProps/compression"), json!("lz4_fram")), &["did you mean `lz4_frame`?"]),
        ("3.3", with(&w("loadProps/format"), json!("gzip")), &["format csv or json, and a compression"]),
        ("3.3", with(&w("loadProps/trim_space"), json!(true)), &["trim_space"]),
        ("3.3", with(&w("loadProps/skip_header"), json!("1")), &["skip_header must be 0"]),
        ("3.3", with(&w("loadProps/where"), json!("a\r\nlabel: x")), &["cannot be sent as an HTTP header"]),
        ("3.3", with(&w("loadProps/jsonpaths"), json!(["$.a"])), &["as JSON text in a string"]),
        (
            "3.5",
            with(&w("preSql"), json!(["delete from t where a = 'x"])),
            &["preSql/0: unterminated string literal"],
        ),
        ("3.5", with(&w("postSql"), json!(7)), &["/postSql: postSql must be a string or a list of strings"]),
        (
            "own",
            with("/setting/starlift", json!({ "comit": "task" })),
            &["setting.starlift has no key comit"],
        ),
        ("prefix", with(&w("labelPrefix"), json!("a b")), &["labelPrefix must be"]),
        ("datax", json!({ "job": {} }), &["/job: a DataX file holds accounts", "starlift convert"]),
        ("1.3", with("/setting/speed", json!({ "byte": "much" })), &["/setting/speed/byte: byte must be"]),
        (
            "1.3",
            with("/setting/errorLimit", json!({ "strategy": "ZeroTolerance", "percentage": 0.1 })),
            &["/percentage: contradiction: ZeroTolerance"],
        ),
        (
            "1.3",
            with("/setting/errorLimit", json!({ "strategy": "Ignore", "record": 3 })),
            &["/strategy: contradiction: Ignore"],
        ),
        ("1.3", with("/setting/errorLimit", json!({ "strategy": "Some" })), &["must be Ignore, Tolerance"]),
        ("1.4", with("/setting/speed/concurrent", json!(" 4 ")), &["must be a positive integer"]),
        ("1.4", with("/setting/speed/concurrent", json!("4.0")), &["must be a positive integer"]),
        ("1.4", with("/setting/speed/throttle", json!("yes")), &["throttle must be true or false"]),
        ("1.4", with("/setting/speed/throttle", json!(1)), &["throttle must be true or false, not 1"]),
        ("1.4", with("/setting/dryRun", json!("maybe")), &["/setting/dryRun: dryRun must be true or false"]),
        (
            "secret",
            with(&format!("{READER}/password"), json!("hidden")),
            &["/steps/0/parameter/password: a password has no place in a script"],
        ),
    ];
    for (row, script, parts) in cases {
        let text = told(&script);
        for part in parts {
            assert!(text.contains(part), "row {row}: `{part}` is not in:\n{text}");
        }
    }
}

#[test]
fn headers_that_would_change_the_data_or_the_promise_are_refused() {
    for (header, value, why) in [
        ("label", json!("x"), "use labelPrefix"),
        ("Authorization", json!("Basic eA=="), "managed by Starlift"),
        ("Expect", json!("100-continue"), "managed by Starlift"),
        ("Content-Type", json!("text/plain"), "managed by Starlift"),
        ("Transfer-Encoding", json!("chunked"), "managed by Starlift"),
        ("skip_header", json!(1), "rows would be lost"),
        ("envelope", json!("debezium"), "plain rows"),
        ("json_root", json!("$.a"), "plain arrays"),
        ("enable_merge_commit", json!("true"), "ignore labels"),
        ("merge_commit_async", json!(true), "success would not mean loaded"),
        ("trim_space", json!("TRUE"), "no effect"),
        ("strip_outer_array", json!(false), "one array"),
        ("idle_transaction_timeout", json!(10), "managed by Starlift"),
        ("prepared_timeout", json!(10), "managed by Starlift"),
    ] {
        let text = told(&with(&format!("{WRITER}/loadProps/{header}"), value));
        let place = format!("/steps/1/parameter/loadProps/{}", header.to_ascii_lowercase());
        assert!(text.contains(&place) && text.contains(why), "{header}: {text}");
    }
}

#[test]
fn headers_that_the_server_understands_are_sent_and_the_rest_is_said() {
    let of = |header: &str, value: Value| {
        let parsed = parsed(&with(&format!("{WRITER}/loadProps/{header}"), value));
        (parsed.spec.target.load.headers.get(header).cloned(), parsed.warnings.len())
    };
    for (header, value, sent) in [
        ("timezone", json!("Asia/Shanghai"), "Asia/Shanghai"),
        ("load_mem_limit", json!(1_000_000), "1000000"),
        ("partitions", json!("p1,p2"), "p1,p2"),
        ("merge_condition", json!("v"), "v"),
        ("partial_update", json!("true"), "true"),
        ("partial_update_mode", json!("row"), "row"),
        ("strict_mode", json!("FALSE"), "false"),
        ("max_filter_ratio", json!("0"), "0"),
        ("warehouse", json!("w1"), "w1"),
    ] {
        assert_eq!(of(header, value), (Some(sent.to_owned()), 0), "{header}");
    }
    for (header, value) in [
        ("enclose", json!("\"")),
        ("escape", json!("\\")),
        ("log_rejected_record_num", json!(10)),
        ("merge_commit_interval_ms", json!(100)),
    ] {
        assert_eq!(of(header, value), (None, 1), "{header} is not sent, and that is said");
    }
    assert_eq!(of("colour", json!("red")), (Some("red".into()), 1), "nobody knows it here; a server may");
    assert_eq!(of("ignore_json_size", json!(true)), (None, 0), "it is sent where it is needed");
}

#[test]
fn a_compression_is_read_in_any_letter_case_and_is_no_header() {
    for (text, compression) in [
        ("LZ4_FRAME", Some(Compression::Lz4Frame)),
        ("zstd", Some(Compression::Zstd)),
        (" Gzip", Some(Compression::Gzip)),
        ("none", None),
        ("", None),
    ] {
        let script = with(&format!("{WRITER}/loadProps/compression"), json!(text));
        let load = parse(&script.to_string()).expect("a good script").spec.target.load;
        assert_eq!(
            (load.compression, load.headers.contains_key("compression")),
            (compression, false),
            "{text}"
        );
    }
}

#[test]
fn the_strategy_on_error_is_read_in_any_letter_case() {
    for (text, strategy) in
        [("", OnError::Exit), ("Exit", OnError::Exit), ("BATCHDIRTYDATA", OnError::BatchDirtyData)]
    {
        let script = with(&format!("{WRITER}/strategyOnError"), json!(text));
        let spec = parse(&script.to_string()).expect("a good script").spec;
        assert_eq!(spec.target.on_error, strategy, "{text}");
    }
}

#[test]
fn what_is_not_built_is_refused_as_unsupported() {
    for script in [with("/setting/speed/record", json!(100)), with("/transform", json!(true))] {
        let problems = parse(&script.to_string()).expect_err("it is not built");
        let codes: Vec<Code> = problems.iter().map(|problem| problem.code).collect();
        assert_eq!(codes, [Code::Unsupported], "{problems:#?}");
    }
}

#[test]
fn a_reader_may_name_many_tables() {
    let relations = |script: &Value| parsed(script).spec.source.relations;
    let listed = with(&format!("{READER}/table"), json!(["a", "t_[1-2], `b,c`"]));
    let names: Vec<String> = relations(&listed).iter().map(RelationSpec::name).collect();
    assert_eq!(names, ["a", "t_1", "t_2", "b,c"]);
    let several = with_connections(json!([
        { "datasource": "one", "table": ["x.trade_[00-01]"], "selectedDatabase": "x" },
        { "datasource": "two", "table": "trade_02" },
        { "table": ["trade_03"] },
    ]));
    assert_eq!(
        relations(&several),
        [
            table("one", Some("x"), "trade_00"),
            table("one", Some("x"), "trade_01"),
            table("two", Some("ods"), "trade_02"),
            table("src", Some("ods"), "trade_03"),
        ]
    );
}

#[test]
fn a_query_stands_for_table_columns_filter_and_key() {
    let script = with_connections(
        json!([{ "querySql": ["select a from b;", "with c as (select 1) select 1 from c"] }]),
    );
    let Parsed { spec, warnings, .. } = parsed(&script);
    let queries: Vec<String> = spec.source.relations.iter().map(RelationSpec::name).collect();
    assert_eq!(queries, ["select a from b", "with c as (select 1) select 1 from c"]);
    assert_eq!(
        (spec.source.columns, spec.source.filter, spec.source.split_key),
        (ColumnList::All, None, None)
    );
    assert!(
        warnings.iter().any(|warning| warning.contains("splitPk is ignored with querySql")),
        "{warnings:?}"
    );
}

#[test]
fn tables_that_cannot_be_meant_are_refused() {
    let table = |value: Value| with(&format!("{READER}/table"), value);
    let one = |name: &str| json!({ "datasource": "a", "table": [name] });
    for (script, part) in [
        (table(json!(["a", "b", "a"])), "a is listed twice"),
        (table(json!("t_[a-b]")), "range bounds must be numbers"),
        (
            with_connections(json!([{ "datasource": "a" }])),
            "/connection/0/table: parameter.table is required",
        ),
        (with_connections(json!([one("t"), one("t")])), "t is listed twice"),
        (with_connections(json!([one("t"), { "querySql": "select 1" }])), "one connection has querySql"),
        (with_connections(json!([{ "querySql": "delete from t" }])), "must be a SELECT"),
        (with_connections(json!([{ "querySql": "select 1; select 2" }])), "holds 2 statements"),
        (with(&format!("{READER}/connection"), json!([one("t")])), "table stands in parameter"),
        (with(&format!("{WRITER}/table"), json!(["a", "b"])), "2 tables are given; a writer has one"),
    ] {
        let text = told(&script);
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn tablets_are_of_starrocks_tables() {
    let mut script = with("/setting/starlift", json!({ "split": "tablet" }));
    assert!(parsed(&script).warnings[0].contains("splitPk is not used"));
    set(&mut script, "/steps/0/stepType", json!("mysql"));
    assert!(told(&script).contains("needs tables of StarRocks"));
    assert!(told(&with("/setting/starlift", json!({ "split": "row" }))).contains("\"key\" or \"tablet\""));
}

#[test]
fn what_looks_unintended_is_a_warning_with_its_place() {
    let w = |key: &str| format!("{WRITER}/{key}");
    for (row, script, part) in [
        ("2.6", with(&format!("{READER}/useReadOnly"), json!(true)), "/useReadOnly: useReadOnly is ignored"),
        ("2.6", with(&format!("{READER}/slaveDelayLimit"), json!(300)), "no lag is checked"),
        ("2.6", with(&format!("{READER}/encoding"), json!("GBK")), "encoding GBK is ignored"),
        ("1.3", with("/setting/errorLimit/record", json!("")), "any number of dirty records"),
        ("1.1", with("/order", Value::Null), "the reader leads to the writer"),
        ("3.3", with(&w("loadProps/enclose"), json!("\"")), "enclose is not sent"),
        ("3.3", with(&w("loadProps/max_filter_ratio"), json!(0.1)), "filters out"),
        ("3.3", with(&w("loadProps/timezoen"), json!("UTC")), "did you mean `timezone`?"),
    ] {
        let warnings = parsed(&script).warnings;
        assert_eq!(warnings.len(), 1, "row {row}: {warnings:?}");
        assert!(warnings[0].contains(part), "row {row}: {warnings:?}");
    }
}

#[test]
fn all_faults_are_told_at_once() {
    let mut script = good();
    set(&mut script, "/version", json!("1.0"));
    set(&mut script, &format!("{READER}/column"), json!([]));
    set(&mut script, &format!("{WRITER}/maxBatchRows"), json!(0));
    set(&mut script, &format!("{WRITER}/loadProps/format"), json!("parquet"));
    set(&mut script, "/setting/speed/concurrent", json!(-1));
    assert_eq!(parse(&script.to_string()).expect_err("five faults").len(), 5);
}

#[test]
fn no_message_shows_a_secret() {
    let secret = json!({ "username": "u", "password": "hidden" });
    let mut script = good();
    for pointer in
        ["/type", "/steps/0/parameter/password", "/steps/0/parameter/column", "/steps/0/parameter/where"]
    {
        set(&mut script, pointer, secret.clone());
    }
    set(&mut script, "/steps/0/parameter/connection", secret);
    set(&mut script, "/steps/1/parameter/loadProps/Authorization", json!("Basic hidden"));
    set(&mut script, "/steps/1/parameter/loadUrl", json!("u:hidden@fe:8030"));
    let text = told(&script);
    assert!(!text.contains("hidden"), "{text}");
}

#[test]
fn wizard_scripts_are_accepted_without_a_word() {
    let script = json!({
        "transform": false, "type": "job", "version": 2.0,
        "steps": [
            { "stepType": "mysql", "name": "Reader", "category": "reader", "parameter": {
                "envType": 1, "useSpecialSecret": false, "partitionKey": null, "encoding": "UTF-8",
                "column": ["/*+ SET_VAR(query_timeout=7200) */ id", "name", "'x'"], "where": "", "splitPk": "`id`",
                "tableComment": "students", "connection": [{ "datasource": "my_src", "table": ["shop.student"] }] } },
            { "stepType": null, "name": "Processor", "category": "processor", "copies": 1,
              "parameter": { "nodes": [], "edges": [], "groups": [], "version": "2.0" } },
            { "stepType": "starrocks", "name": "Writer", "category": "writer", "parameter": {
                "envType": 1, "datasource": "sr_dst", "selectedDatabase": "ods", "table": "student",
                "column": ["id", "name", "`x`"], "loadUrl": ["http://a:8030,b:8030"], "loadProps": {},
                "preSql": "truncate table @table; delete from log where a = ';'", "postSql": [""],
                "maxBatchRows": "1000", "strategyOnError": "EXIT" } },
        ],
        "setting": { "executeMode": null, "failoverEnable": null, "errorLimit": { "record": "0" },
            "speed": { "concurrent": "2", "throttle": "TRUE", "mbps": "12" },
            "common": { "column": { "timeZone": "GMT+8" } } },
        "order": { "hops": [{ "from": "Reader", "to": "Writer" }] },
        "extend": { "mode": "wizard", "__new__": true, "formatType": "datax", "cu": 0.5 },
    });
    let Parsed { spec, warnings, .. } = parsed(&script);
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(spec.source.kind, SourceKind::Mysql);
    assert_eq!(spec.source.relations, [table("my_src", Some("shop"), "student")]);
    assert_eq!(spec.source.hint.as_deref(), Some("/*+ SET_VAR(query_timeout=7200) */"));
    assert_eq!(spec.source.columns, ColumnList::Listed(vec!["id".into(), "name".into(), "'x'".into()]));
    assert_eq!((spec.source.filter.as_deref(), spec.source.split_key.as_deref()), (None, Some("id")));
    assert_eq!(spec.target.load_urls, ["http://a:8030", "http://b:8030"]);
    assert_eq!(spec.target.pre_sql, ["truncate table @table", "delete from log where a = ';'"]);
    assert_eq!(spec.target.max_batch_rows, 1000);
    assert_eq!(spec.settings.bytes_per_second, Some(12 << 20));
    assert_eq!(spec.settings.time_zone.as_deref(), Some("+08:00"));
}

#[test]
fn load_props_become_delimiters_timeout_and_headers() {
    let props = json!({ "column_separator": "\\x01", "Timeout": "3600", "strict_mode": false, "partial_update": "TRUE",
        "columns": "id, t, name = concat(t, ',')", "skip_header": 0, "strip_outer_array": true });
    let load = parsed(&with(&format!("{WRITER}/loadProps"), props)).spec.target.load;
    assert_eq!(load.format, Format::Csv);
    let bytes =
        |delimiter: Option<crate::job::Delimiter>| delimiter.map(|delimiter| delimiter.as_bytes().to_vec());
    assert_eq!((bytes(load.column_separator), bytes(load.row_delimiter)), (Some(vec![1]), Some(vec![2])));
    assert_eq!(load.timeout_s, Some(3600));
    let headers: Vec<(&str, &str)> =
        load.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(
        headers,
        [
            ("columns", "id, t, name = concat(t, ',')"),
            ("max_filter_ratio", "0"),
            ("partial_update", "true"),
            ("strict_mode", "false"),
        ]
    );
}

#[test]
fn a_delimiter_left_out_never_collides_with_the_named_one() {
    for (named, other) in [("\\x01", 2), ("\\x02", 1), ("\\x0102", 3)] {
        let load = parsed(&with(&format!("{WRITER}/loadProps/row_delimiter"), json!(named))).spec.target.load;
        assert_eq!(load.column_separator.expect("it is chosen").as_bytes(), [other], "{named}");
    }
}

#[test]
fn error_limits_are_read_in_every_form() {
    for (limit, expected) in [
        (json!(null), ErrorLimit::Records(0)),
        (json!({}), ErrorLimit::Records(0)),
        (json!(""), ErrorLimit::Records(0)),
        (json!({ "record": null }), ErrorLimit::Records(0)),
        (json!({ "record": 3, "percentage": 0.5 }), ErrorLimit::Records(3)),
        (json!({ "percentage": "0.5" }), ErrorLimit::Share(500_000)),
        (json!({ "record": "12" }), ErrorLimit::Records(12)),
        (json!({ "record": "" }), ErrorLimit::Unlimited),
        (json!({ "percentage": 0.02 }), ErrorLimit::Share(20_000)),
        (json!({ "strategy": "Ignore" }), ErrorLimit::Unlimited),
        (json!({ "strategy": "Tolerance", "record": 100 }), ErrorLimit::Records(100)),
        (json!({ "strategy": "ZeroTolerance", "record": "" }), ErrorLimit::Records(0)),
    ] {
        assert_eq!(parsed(&with("/setting/errorLimit", limit)).spec.settings.error_limit, expected);
    }
}

#[test]
fn a_table_is_created_and_texts_are_measured_only_on_request() {
    let own = |own: Value| {
        let settings = parsed(&with("/setting/starlift", own)).spec.settings;
        (settings.create_table, settings.probe_lengths)
    };
    assert_eq!(own(json!({ "createTable": true, "probeLengths": "TRUE" })), (true, true));
    assert_eq!(own(json!({ "createTable": false })), (false, false));
    let told = told(&with("/setting/starlift", json!({ "createTable": 1 })));
    assert!(told.contains("/setting/starlift/createTable"), "{told}");
}

#[test]
fn the_commit_of_a_whole_job_is_asked_for_by_name() {
    let commit = |own: Value| parsed(&with("/setting/starlift", own)).spec.settings.commit;
    assert_eq!(commit(json!({ "commit": "job" })), CommitMode::Job);
    assert_eq!(commit(json!({ "commit": "task" })), CommitMode::Task);
    assert_eq!(commit(json!({})), CommitMode::Task);
    for wrong in [json!("Job"), json!(true), json!(1)] {
        let told = told(&with("/setting/starlift", json!({ "commit": wrong })));
        assert!(told.contains("/setting/starlift/commit") && told.contains("\"task\" or \"job\""), "{told}");
    }
}

#[test]
fn data_sources_must_exist_with_the_right_type_a_database_and_an_fe() {
    let entry = |name: &str, kind: &str, rest: &str| {
        format!("[{name}]\ntype = '{kind}'\nhost = 'h'\nusername = 'u'\n{rest}\n")
    };
    let check = |file: String, script: &Value| -> Vec<String> {
        let sources = Datasources::parse(&file, &|_| None).expect("a good file");
        let problems = check_datasources(&parsed(script).spec, &sources);
        problems.iter().map(ToString::to_string).collect()
    };
    let source = entry("src", "starrocks", "");
    let both = source.clone() + &entry("dst", "starrocks", "database = 'dw'");
    assert_eq!(check(both.clone(), &good()), Vec::<String>::new());

    let unknown = check(source.clone(), &good()).join("\n");
    assert!(unknown.contains("unknown data source \"dst\"") && unknown.contains("known: src"), "{unknown}");
    let wrong = check(source.clone() + &entry("dst", "mysql", "database = 'dw'"), &good()).join("\n");
    assert!(wrong.contains("data source dst is mysql but step type is starrocks"), "{wrong}");
    let homeless = check(source + &entry("dst", "starrocks", ""), &good()).join("\n");
    assert!(homeless.contains("no database"), "{homeless}");
    let without_fe = check(both, &with(&format!("{WRITER}/loadUrl"), json!([]))).join("\n");
    assert!(without_fe.contains("loadUrl needs at least one FE host:http_port"), "{without_fe}");
}

#[test]
fn a_dry_run_is_read_and_is_not_to_be_run() {
    for (value, expected) in
        [(json!(true), true), (json!("TRUE"), true), (json!("false"), false), (json!(""), false)]
    {
        let parsed = parsed(&with("/setting/dryRun", value));
        assert_eq!(parsed.dry_run, expected);
        let refused = parsed.to_run().map(drop);
        assert_eq!(refused.is_err(), expected);
        if let Err(problems) = refused {
            assert_eq!(
                (problems[0].code, problems[0].place.as_str()),
                (Code::Unsupported, "/setting/dryRun")
            );
        }
    }
}

#[test]
fn what_says_nothing_new_is_accepted_without_a_word() {
    let r = |key: &str| format!("{READER}/{key}");
    for (pointer, value) in [
        ("/setting/jvmOption".to_owned(), json!("-Xms1024m -Xmx1024m")),
        ("/setting/jvmMemory".to_owned(), json!(1)),
        ("/setting/keyVersion".to_owned(), json!("0.0.0")),
        ("/setting/failoverEnable".to_owned(), json!(true)),
        ("/setting/executeMode".to_owned(), Value::Null),
        ("/setting/speed/dmu".to_owned(), json!(1)),
        ("/extend".to_owned(), json!({ "mode": "code", "cu": "0.5" })),
        (r("useReadOnly"), json!(false)),
        (r("checkSlave"), json!("")),
        (r("slaveDelayLimit"), json!(0)),
        (r("encoding"), json!("utf-8")),
        (r("socketTimeout"), json!(3_600_000)),
        (format!("{WRITER}/flushInterval"), json!(300_000)),
    ] {
        let warnings = parsed(&with(&pointer, value)).warnings;
        assert_eq!(warnings, Vec::<String>::new(), "{pointer}");
    }
}

#[test]
fn a_large_split_factor_is_asked_for_twice() {
    let mut script = with(&format!("{READER}/splitFactor"), json!("5000"));
    assert!(told(&script).contains("splitFactor must be 1..100 (got 5000)"));
    set(&mut script, "/setting/starlift", json!({ "allowLargeSplitFactor": true }));
    assert_eq!(parsed(&script).spec.source.split_factor, 5000);
    set(&mut script, &format!("{READER}/splitFactor"), json!(20_000));
    assert!(told(&script).contains("splitFactor must be 1..10000 (got 20000)"));
    set(&mut script, "/setting/starlift", json!({ "allowLargeSplitFactor": 1 }));
    assert!(told(&script).contains("allowLargeSplitFactor must be true or false"));
}

#[test]
fn limits_in_the_words_of_datax_are_understood() {
    let speed = |value: Value| parsed(&with("/setting/speed", value)).spec.settings;
    let limited = speed(json!({ "channel": "6", "byte": "1000000", "record": -1 }));
    assert_eq!((limited.concurrent, limited.bytes_per_second), (6, Some(1_000_000)));
    let unlimited = speed(json!({ "channel": 6, "byte": "-1", "record": 0 }));
    assert_eq!(unlimited.bytes_per_second, None);
    let both = speed(json!({ "throttle": true, "mbps": 2, "byte": 1_000_000 }));
    assert_eq!(both.bytes_per_second, Some(1_000_000), "the lower one holds");
}

/// The files of `tests/scripts`: whole jobs as people have them.
#[test]
fn every_whole_job_is_read_with_the_warnings_that_it_deserves() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/scripts");
    let parameters = parameters(&[("d0", "${yyyy-mm-dd}"), ("d1", "$[yyyy-mm-dd]")]);
    for (name, warnings) in [
        ("e1-minimal", &[][..]),
        ("e2-incremental", &[]),
        (
            "e4-wizard",
            &[
                "/setting/errorLimit/record: errorLimit.record is empty: any number of dirty records is tolerated",
            ],
        ),
        ("e5-datax-mysql", &[]),
        ("e6-datax-query", &[]),
        ("e7-partial-update", &[]),
    ] {
        let text =
            std::fs::read_to_string(folder.join(name).with_extension("json")).expect("a readable script");
        let text =
            substitute(&text, &parameters).unwrap_or_else(|problems| panic!("{name}: {problems:#?}")).text;
        let parsed = if is_datax(&text) { convert(&text).and_then(|job| job.parse()) } else { parse(&text) };
        let parsed = parsed.unwrap_or_else(|problems| panic!("{name}: {problems:#?}"));
        assert_eq!(parsed.warnings, warnings, "{name}");
    }
}

/// Any JSON, a few levels deep.
pub(super) fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        "[\\\\x'\"`;(),./*+#${}\\[\\]a1*-]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-zA-Z]{1,8}", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

const POINTERS: &[&str] = &[
    "/type",
    "/version",
    "/steps",
    "/order",
    "/order/hops",
    "/order/hops/0",
    "/setting",
    "/setting/speed",
    "/setting/errorLimit",
    "/setting/starlift",
    "/setting/common",
    "/steps/0",
    "/steps/0/category",
    "/steps/0/parameter",
    "/steps/0/parameter/column",
    "/steps/0/parameter/connection",
    "/steps/0/parameter/table",
    "/steps/0/parameter/where",
    "/steps/0/parameter/splitPk",
    "/steps/1/parameter/column",
    "/steps/1/parameter/loadUrl",
    "/steps/1/parameter/loadProps",
    "/steps/1/parameter/loadProps/columns",
    "/steps/1/parameter/loadProps/column_separator",
    "/steps/1/parameter/preSql",
];

fn any_outcome(text: &str) {
    let _any_outcome = parse(text);
    let _any_outcome = substitute(text, &parameters(&[]));
    let _any_outcome = convert(text).and_then(|converted| converted.parse());
    let _any_outcome = parse(&strip_comments(text));
}

/// Characters of JSON and of job files, so that more of the parser is reached than its first complaint.
const JOB_LIKE: &str =
    "([{}\\[\\],:\"/*\\\\ ]|\"(type|job|steps|parameter|content|reader)\"|[a-z0-9$]|\\PC){0,80}";

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in prop_oneof![".{0,200}", JOB_LIKE]) {
        any_outcome(&text);
    }

    #[test]
    fn no_json_in_any_place_makes_the_parser_panic(
        at in prop::sample::select(POINTERS),
        value in any_json(),
    ) {
        any_outcome(&with(at, value).to_string());
    }

    #[test]
    fn no_slip_in_a_good_script_makes_the_parser_panic(slips in slips()) {
        any_outcome(&mutated(&good().to_string(), &slips));
    }

    #[test]
    fn a_delimiter_is_its_bytes_or_a_fault(text in DELIMITER_LIKE) {
        check_delimiter(&text);
    }
}

/// The same, many times as long.
mod long {
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100_000))]

        #[test]
        #[ignore = "takes minutes; `make test-long` runs it"]
        fn no_text_makes_the_parser_panic_in_many_tries(text in prop_oneof![".{0,400}", JOB_LIKE]) {
            any_outcome(&text);
        }

        #[test]
        #[ignore = "takes minutes; `make test-long` runs it"]
        fn no_json_in_any_place_makes_the_parser_panic_in_many_tries(
            at in prop::sample::select(POINTERS),
            value in any_json(),
        ) {
            any_outcome(&with(at, value).to_string());
        }

        #[test]
        #[ignore = "takes minutes; `make test-long` runs it"]
        fn no_slip_in_a_good_script_makes_the_parser_panic_in_many_tries(slips in slips()) {
            any_outcome(&mutated(&good().to_string(), &slips));
            any_outcome(&mutated(include_str!("../../../tests/scripts/e5-datax-mysql.json"), &slips));
        }

        #[test]
        #[ignore = "takes minutes; `make test-long` runs it"]
        fn a_delimiter_is_its_bytes_or_a_fault_in_many_tries(text in DELIMITER_LIKE) {
            check_delimiter(&text);
        }
    }
}

/// Something to be done to a text at a place.
#[derive(Debug, Clone)]
enum Slip {
    Drop,
    Double,
    Insert(char),
}

fn slips() -> impl Strategy<Value = Vec<(usize, Slip)>> {
    let slip = prop_oneof![
        Just(Slip::Drop),
        Just(Slip::Double),
        prop::sample::select("{}[]\",:0-$xN\\ ".chars().collect::<Vec<_>>()).prop_map(Slip::Insert),
        any::<char>().prop_map(Slip::Insert),
    ];
    prop::collection::vec((any::<prop::sample::Index>().prop_map(|at| at.index(1 << 12)), slip), 1..6)
}

fn mutated(text: &str, slips: &[(usize, Slip)]) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for (at, slip) in slips {
        let at = at % chars.len().max(1);
        match slip {
            Slip::Drop if at < chars.len() => drop(chars.remove(at)),
            Slip::Double if at < chars.len() => chars.insert(at, chars[at]),
            Slip::Insert(c) => chars.insert(at, *c),
            Slip::Drop | Slip::Double => {}
        }
    }
    chars.into_iter().collect()
}

const DELIMITER_LIKE: &str = "(\\\\[xX])?([0-9a-fA-F]{2}){0,3}.{0,3}|\\PC{0,60}";

/// Against DataX' rule, written the other way round: hexadecimal pairs after `\x`, else the text itself.
fn check_delimiter(text: &str) {
    let outcome = parse(&with(&format!("{WRITER}/loadProps/column_separator"), json!(text)).to_string());
    let hexadecimal = text.strip_prefix("\\x").or_else(|| text.strip_prefix("\\X"));
    let bytes: Option<Vec<u8>> = match hexadecimal {
        None => Some(text.as_bytes().to_vec()),
        Some(digits) => {
            let values = digits.chars().map_while(|c| c.to_digit(16));
            let digits: Vec<u8> = values.filter_map(|digit| digit.try_into().ok()).collect();
            let is_even = digits.len().is_multiple_of(2) && !digits.is_empty();
            let is_whole = is_even && digits.len() + 2 == text.len();
            is_whole.then(|| digits.chunks(2).map(|pair| pair[0] * 16 + pair[1]).collect())
        }
    };
    let allowed =
        bytes.filter(|bytes| bytes.len() <= 50 && bytes.iter().all(|byte| *byte < 0x80 && *byte != b'\\'));
    match (outcome, allowed) {
        (Ok(parsed), Some(bytes)) => {
            let found = parsed.spec.target.load.column_separator.map(|found| found.as_bytes().to_vec());
            assert_eq!(found, Some(bytes).filter(|bytes| !bytes.is_empty()), "{text:?}");
        }
        (Err(problems), None) => assert!(problems[0].place.ends_with("column_separator"), "{problems:?}"),
        (outcome, allowed) => panic!("{text:?}: {outcome:?}, expected {allowed:?}"),
    }
}

#[test]
fn every_example_is_a_good_job_with_known_data_sources() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let env = |name: &str| Some(format!("value of {name}"));
    let sources = Datasources::load(&folder.join("datasources.toml"), &env)
        .unwrap_or_else(|problems| panic!("{problems:#?}"));
    let parameters = parameters(&[("from", "2026-01-01"), ("to", "2026-02-01")]);
    let mut jobs = 0;
    for entry in std::fs::read_dir(&folder).expect("the folder of examples") {
        let path = entry.expect("a readable folder").path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a readable example");
        let script = substitute(&text, &parameters).unwrap_or_else(|problems| panic!("{problems:#?}"));
        let parsed =
            parse(&script.text).unwrap_or_else(|problems| panic!("{}: {problems:#?}", path.display()));
        assert_eq!(parsed.warnings, Vec::<String>::new(), "{}", path.display());
        assert_eq!(check_datasources(&parsed.spec, &sources), [], "{}", path.display());
        jobs += 1;
    }
    assert_eq!(jobs, 4);
}
