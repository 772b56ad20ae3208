//! One case for each row of the table of bad inputs, good scripts, and the promise that nothing panics.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::job::{CommitMode, Compression, ErrorLimit, Format, OnError};

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
    let Parsed { spec, warnings } = parsed(&good());
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(spec.source.kind, SourceKind::Starrocks);
    assert_eq!(spec.source.database.as_deref(), Some("ods"));
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
fn each_bad_input_is_told_with_its_place() {
    let w = |key: &str| format!("{WRITER}/{key}");
    let r = |key: &str| format!("{READER}/{key}");
    let step = |category: &str, name: &str| {
        let mut step = good()["steps"][usize::from(category == "writer")].clone();
        step["name"] = json!(name);
        step
    };
    let steps = |list: Vec<Value>| with("/steps", Value::Array(list));
    let cases: Vec<(&str, Value, &[&str])> = vec![
        ("2", json!({ "a": 1 }), &["not a DataWorks script (type, steps) nor a DataX job (job.content)"]),
        ("2", json!([1]), &["not a DataWorks script"]),
        ("datax", json!({ "job": { "content": [] } }), &["/job: DataX files are not accepted yet"]),
        ("3", with("/type", json!("stream")), &["/type: only type \"job\" is supported"]),
        ("4", with("/version", json!("1.0")), &["/version: version must be \"2.0\"", "another layout"]),
        ("5", steps(vec![]), &["/steps: exactly one reader and one writer", "0 readers", "0 writers"]),
        (
            "6",
            steps(vec![step("reader", "Reader"), step("writer", "A"), step("writer", "B")]),
            &["2 writer steps (A, B)", "split the job"],
        ),
        (
            "7",
            steps(vec![step("reader", "Reader"), step("writer", "Reader")]),
            &["/steps/1/name: step name \"Reader\" used twice; hops would be ambiguous"],
        ),
        (
            "8",
            with("/order/hops/0/to", json!("Writter")),
            &["/order/hops/0/to: order.hops[0].to: no step named \"Writter\"", "did you mean `Writer`?"],
        ),
        (
            "9",
            with("/order/hops/0", json!({ "from": "Writer", "to": "Reader" })),
            &["/order/hops/0: ", "hop must lead from a reader to a writer"],
        ),
        (
            "10",
            with("/steps/0/category", json!("source")),
            &["/steps/0/category: category must be reader, writer or processor"],
        ),
        (
            "11",
            with("/steps/0/stepType", json!("kafka")),
            &["/steps/0/stepType: unsupported reader type kafka; supported: starrocks, mysql"],
        ),
        (
            "11",
            with("/steps/1/stepType", json!("mysql")),
            &["unsupported writer type mysql; supported: starrocks"],
        ),
        (
            "12",
            steps(vec![
                step("reader", "Reader"),
                step("writer", "Writer"),
                json!({ "name": "P", "category": "processor", "parameter": { "nodes": [1, 2, 3] } }),
            ]),
            &["/steps/2/parameter/nodes: transformations are not supported (3 nodes)", "column expressions"],
        ),
        (
            "13",
            with(&r("datasource"), Value::Null),
            &["/steps/0/parameter/datasource: parameter.datasource is required"],
        ),
        (
            "16",
            with(&r("column"), Value::Null),
            &["/steps/0/parameter/column: column must be a non-empty list"],
        ),
        (
            "16",
            with(&r("column"), json!([])),
            &["column must be a non-empty list of strings, e.g. [\"id\",\"name\"]"],
        ),
        (
            "16",
            with(&w("column"), json!("id,name")),
            &["/steps/1/parameter/column: column must be a non-empty list"],
        ),
        (
            "17",
            with(&r("column"), json!(["*", "id"])),
            &["/steps/0/parameter/column/0: \"*\" must be the only element"],
        ),
        (
            "18",
            with(&r("column"), json!(["id", "name", "x"])),
            &[
                "/steps/1/parameter/column: column counts differ: reader 3 (id, name, x), writer 2 (id, name)",
                "by position",
            ],
        ),
        (
            "19",
            with(&w("column"), json!(["id", "`ID`"])),
            &["column/1: column \"ID\" listed twice in the writer"],
        ),
        (
            "23",
            with(&r("splitPk"), json!("a,b")),
            &["/steps/0/parameter/splitPk: splitPk must be a single column"],
        ),
        (
            "27",
            with(&r("splitPK"), json!("id")),
            &["unknown key splitPK: did you mean splitPk? (keys are case sensitive)"],
        ),
        ("27", with(&r("querysql"), json!("x")), &["did you mean querySql?"]),
        ("27", with(&r("Where"), json!("x")), &["did you mean where?"]),
        (
            "28",
            with(&r("splitFactor"), json!(0)),
            &["/steps/0/parameter/splitFactor: splitFactor must be 1..100"],
        ),
        ("28", with(&r("splitFactor"), json!("5000")), &["splitFactor must be 1..100 (got 5000)"]),
        ("29", with(&r("where"), json!("limit 10")), &["where is a condition only; LIMIT is not allowed"]),
        ("29", with(&r("where"), json!("a=1 order by b")), &["ORDER BY is not allowed"]),
        (
            "30",
            with(&r("where"), json!("name like 'it")),
            &["unterminated string literal at column 11 of where"],
        ),
        ("30", with(&r("where"), json!("a=1 -- b")), &["comment -- at column 5"]),
        ("34", with(&r("querySql"), json!("select 1")), &["table and querySql exclude each other"]),
        (
            "37",
            with(&w("loadUrl"), json!(["10.0.0.1"])),
            &["loadUrl/0: missing port in \"10.0.0.1\"", "usually 8030"],
        ),
        ("39", with(&w("loadProps"), json!("x")), &["loadProps must be an object", "use {} for none"]),
        ("39", with(&w("loadProps"), json!([])), &["loadProps must be an object"]),
        (
            "40",
            with(&w("loadProps/format"), json!("parquet")),
            &["loadProps/format: format must be csv or json"],
        ),
        (
            "41",
            with(&w("loadProps"), json!({ "format": "JSON", "strip_outer_array": "false" })),
            &["must be true: batches are sent as one array"],
        ),
        (
            "42",
            with(&w("loadProps/column_separator"), json!("\\x1")),
            &["/steps/1/parameter/loadProps/column_separator", "needs pairs of hex digits", "e.g. \\\\x01"],
        ),
        ("42", with(&w("loadProps/row_delimiter"), json!("\\x")), &["needs pairs of hex digits"]),
        ("42", with(&w("loadProps/row_delimiter"), json!("\\xZZ")), &["needs pairs of hex digits"]),
        ("42", with(&w("loadProps/row_delimiter"), json!("\\xff")), &["byte 0xff"]),
        ("42", with(&w("loadProps/column_separator"), json!("\\t")), &["in hexadecimal"]),
        (
            "43",
            with(&w("loadProps"), json!({ "column_separator": "\\x01", "row_delimiter": "\u{1}" })),
            &["column and row delimiter must differ"],
        ),
        (
            "43",
            with(&w("loadProps"), json!({ "column_separator": "||", "row_delimiter": "|" })),
            &["neither may contain the other"],
        ),
        ("44", with(&w("loadProps/label"), json!("x")), &["label is managed by Starlift", "labelPrefix"]),
        (
            "44",
            with(&w("loadProps/Authorization"), json!("Basic eA==")),
            &["authorization is managed by Starlift"],
        ),
        (
            "45",
            with(&w("loadProps/columns"), json!("id")),
            &["columns header conflicts with parameter.column"],
        ),
        ("46", with(&w("loadProps/max_filter_ratio"), json!("2")), &["must be between 0 and 1"]),
        ("47", with(&w("loadProps/timeout"), json!("0")), &["timeout must be 1..259200 seconds"]),
        ("49", with(&w("maxBatchRows"), json!(0)), &["maxBatchRows must be a positive integer"]),
        ("49", with(&w("maxBatchRows"), json!(-1)), &["must be a positive integer, not -1"]),
        ("49", with(&w("maxBatchRows"), json!("abc")), &["must be a positive integer"]),
        ("49", with(&w("maxBatchRows"), json!(1.5)), &["must be a positive integer, not 1.5"]),
        ("50", with(&w("maxBatchSize"), json!(0)), &["maxBatchSize must be a positive integer"]),
        ("51", with(&w("strategyOnError"), json!("skip")), &["must be exit or batchDirtyData, not \"skip\""]),
        (
            "52",
            with("/setting/errorLimit/record", json!("-1")),
            &["must be a non-negative integer or empty for unlimited"],
        ),
        ("52", with("/setting/errorLimit/record", json!("many")), &["/setting/errorLimit/record: "]),
        (
            "53",
            with("/setting/errorLimit", json!({ "percentage": 5 })),
            &["must be a fraction 0..1 (5 % is 0.05)"],
        ),
        (
            "54",
            with("/setting/errorLimit", json!({ "strategy": "Tolerance" })),
            &["strategy Tolerance needs record > 0"],
        ),
        (
            "55",
            with("/setting/errorLimit", json!({ "strategy": "ZeroTolerance", "record": 10 })),
            &["contradiction: ZeroTolerance allows no dirty record"],
        ),
        (
            "56",
            with("/setting/speed", json!({ "throttle": true })),
            &["throttle needs mbps, a positive integer (MB/s)"],
        ),
        (
            "56",
            with("/setting/speed", json!({ "throttle": "true", "mbps": 0 })),
            &["must be a positive integer (MB/s)"],
        ),
        ("56", with("/setting/speed", json!({ "throttle": true, "mbps": "fast" })), &["throttle needs mbps"]),
        (
            "58",
            with("/setting/speed/concurrent", json!(0)),
            &["must be a positive integer (DataWorks: 1..32)"],
        ),
        ("58", with("/setting/speed/concurrent", json!("x")), &["/setting/speed/concurrent"]),
        (
            "59",
            with("/setting/executeMode", json!("cluster")),
            &["executeMode must be \"distribute\" or null"],
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
        ("3.3", with(&w("loadProps/enable_merge_commit"), json!("true")), &["ignore labels"]),
        ("3.3", with(&w("loadProps/where"), json!("a\r\nlabel: x")), &["cannot be sent as an HTTP header"]),
        (
            "3.5",
            with(&w("preSql"), json!(["delete from t where a = 'x"])),
            &["preSql/0: unterminated string literal"],
        ),
        (
            "own",
            with("/setting/starlift", json!({ "comit": "task" })),
            &["setting.starlift has no key comit"],
        ),
        ("prefix", with(&w("labelPrefix"), json!("a b")), &["labelPrefix must be"]),
    ];
    for (row, script, parts) in cases {
        let text = told(&script);
        for part in parts {
            assert!(text.contains(part), "row {row}: `{part}` is not in:\n{text}");
        }
    }
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
    let connection = |list: Value| {
        let mut script = good();
        let parameter = script.pointer_mut(READER).and_then(Value::as_object_mut).expect("the reader");
        parameter.remove("table");
        parameter.insert("connection".to_owned(), list);
        script
    };
    for script in [
        json!({ "job": {} }),
        with(&format!("{READER}/table"), json!(["a", "b"])),
        with(&format!("{READER}/table"), json!("t_[0-9]")),
        connection(json!([{ "datasource": "a", "table": ["t"] }, { "datasource": "b", "table": ["t"] }])),
        connection(json!([{ "querySql": ["select 1"] }])),
        with("/setting/starlift", json!({ "split": "tablet" })),
        with("/setting/dryRun", json!(true)),
        with("/setting/speed/record", json!(100)),
        with("/transform", json!(true)),
    ] {
        let problems = parse(&script.to_string()).expect_err("it is not built");
        let codes: Vec<Code> = problems.iter().map(|problem| problem.code).collect();
        assert_eq!(codes, [Code::Unsupported], "{problems:#?}");
    }
}

#[test]
fn what_looks_unintended_is_a_warning_with_its_place() {
    let w = |key: &str| format!("{WRITER}/{key}");
    for (row, script, part) in [
        ("27", with(&format!("{READER}/tabel"), json!("x")), "tabel is ignored; did you mean `table`?"),
        ("38", with(&w("loadUrl"), json!("fe:9030")), "9030 is the default *query* port"),
        ("50", with(&w("maxBatchSize"), json!(1024)), "/steps/1/parameter/maxBatchSize: very small batches"),
        ("57", with("/setting/speed/mbps", json!(5)), "mbps ignored because throttle is false"),
        ("60", with("/setting/executeMode", json!("distribute")), "distributed execution from 8"),
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
    let Parsed { spec, warnings } = parsed(&script);
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!((spec.source.kind, spec.source.datasource.as_str()), (SourceKind::Mysql, "my_src"));
    assert_eq!((spec.source.database.as_deref(), spec.source.table.as_str()), (Some("shop"), "student"));
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

/// Any JSON, a few levels deep.
fn any_json() -> impl Strategy<Value = Value> {
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

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in ".{0,200}") {
        let _any_outcome = parse(&text);
        let _any_outcome = substitute(&text, &std::collections::BTreeMap::new());
        let _any_outcome = parse(&strip_comments(&text));
    }

    #[test]
    fn no_json_in_any_place_makes_the_parser_panic(
        at in prop::sample::select(POINTERS),
        value in any_json(),
    ) {
        let text = with(at, value).to_string();
        let _any_outcome = parse(&text);
        let _any_outcome = substitute(&text, &std::collections::BTreeMap::new());
    }
}

#[test]
fn every_example_is_a_good_job_with_known_data_sources() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let env = |name: &str| Some(format!("value of {name}"));
    let sources = Datasources::load(&folder.join("datasources.toml"), &env)
        .unwrap_or_else(|problems| panic!("{problems:#?}"));
    let params =
        [("from", "2026-01-01"), ("to", "2026-02-01")].map(|(name, value)| (name.into(), value.into()));
    let mut jobs = 0;
    for entry in std::fs::read_dir(&folder).expect("the folder of examples") {
        let path = entry.expect("a readable folder").path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a readable example");
        let script =
            substitute(&text, &params.clone().into()).unwrap_or_else(|problems| panic!("{problems:#?}"));
        let parsed = parse(&script).unwrap_or_else(|problems| panic!("{}: {problems:#?}", path.display()));
        assert_eq!(parsed.warnings, Vec::<String>::new(), "{}", path.display());
        assert_eq!(check_datasources(&parsed.spec, &sources), [], "{}", path.display());
        jobs += 1;
    }
    assert_eq!(jobs, 4);
}
