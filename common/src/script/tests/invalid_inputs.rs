//! Every invalid input that needs no server, by the number it has in the list of them: what is told, where, and that it
//! is for whoever wrote the job to mend (exit code 2). What is only unusual is told as a warning.

use super::*;
use crate::problem::Mend;

/// What a row gives to the offline checks.
enum Input {
    Text(&'static str),
    Script(Value),
    /// A script whose parameters are replaced first, all of them built in.
    Template(Value),
    DataX(Value),
    /// A script and a data source file.
    Known(Value, String),
}

use Input::{DataX, Known, Script, Template, Text};

/// `None`: a warning.
type Row = (u8, Input, Option<Code>, &'static str, &'static [&'static str]);

const INVALID: Option<Code> = Some(Code::InvalidScript);
const UNSUPPORTED: Option<Code> = Some(Code::Unsupported);
const UNRESOLVED: Option<Code> = Some(Code::UnresolvedParameter);
const UNKNOWN: Option<Code> = Some(Code::UnknownDatasource);
const WARNING: Option<Code> = None;

/// Numbers of the list that are missing here need a catalogue or a running job.
const NUMBERS: [std::ops::RangeInclusive<u8>; 4] = [1..=19, 23..=23, 27..=47, 49..=68];

#[test]
fn each_is_told_with_its_place_and_a_remedy() {
    let rows: Vec<Row> = [shape(), reader(), writer(), settings(), datax()].into_iter().flatten().collect();
    for (number, input, code, place, parts) in &rows {
        let told = outcome(input);
        let fits = |(found, at, text): &(Option<Code>, String, String)| {
            found == code && at == place && parts.iter().all(|part| text.contains(part))
        };
        assert!(
            told.iter().any(fits),
            "row {number}: {code:?} at `{place}` with {parts:?} is not in {told:#?}"
        );
        assert!(code.is_none_or(|code| code.mend() == Mend::Input), "row {number} is not exit code 2");
    }
    let numbers: std::collections::BTreeSet<u8> = rows.iter().map(|row| row.0).collect();
    assert_eq!(numbers, NUMBERS.into_iter().flatten().collect(), "the list and the table differ");
}

/// Code, place and text of all that is told.
fn outcome(input: &Input) -> Vec<(Option<Code>, String, String)> {
    let checked = match input {
        Text(text) => parse(text),
        Script(script) => parse(&script.to_string()),
        Template(script) => {
            let substituted = substitute(&script.to_string(), &parameters(&[]));
            substituted.and_then(|substituted| parse(&substituted.text))
        }
        DataX(file) => convert(&file.to_string()).and_then(|converted| converted.parse()),
        Known(script, sources) => {
            let sources = Datasources::parse(sources, &|_| None).expect("a good file");
            parse(&script.to_string()).and_then(|parsed| {
                let problems = check_datasources(&parsed.spec, &sources);
                if problems.is_empty() { Ok(parsed) } else { Err(problems) }
            })
        }
    };
    match checked {
        Ok(parsed) => {
            let parts =
                parsed.warnings.iter().map(|warning| warning.split_once(": ").unwrap_or(("", warning)));
            parts.map(|(place, text)| (None, place.to_owned(), text.to_owned())).collect()
        }
        Err(problems) => problems
            .into_iter()
            .map(|problem| {
                (Some(problem.code), problem.place, format!("{} ({})", problem.message, problem.hint))
            })
            .collect(),
    }
}

fn shape() -> Vec<Row> {
    let step = |category: &str, name: &str| {
        let mut step = good()["steps"][usize::from(category == "writer")].clone();
        step["name"] = json!(name);
        step
    };
    let steps = |list: Vec<Value>| Script(with("/steps", Value::Array(list)));
    let processor = json!({ "name": "P", "category": "processor", "parameter": { "nodes": [1, 2, 3] } });
    vec![
        (1, Text("type: job"), INVALID, "line 1, column 2", &["not JSON"]),
        (1, Text("{\"a\": [1,]}"), INVALID, "line 1, column 10", &["trailing comma", "--lenient"]),
        (
            1,
            Text("{\n  \"type\": \"job\", // a comment\n}"),
            INVALID,
            "line 2, column 18",
            &["comments are not allowed", "remove them or use --lenient"],
        ),
        (
            2,
            Script(json!({ "a": 1 })),
            INVALID,
            "",
            &["not a DataWorks script (type, steps) nor a DataX job (job.content)"],
        ),
        (2, Script(json!([1])), INVALID, "", &["not a DataWorks script (type, steps)"]),
        (2, Script(json!({ "Steps": [] })), INVALID, "/Steps", &["did you mean steps?"]),
        (2, DataX(json!({ "job": {} })), INVALID, "/job/content", &["job.content is required"]),
        (3, Script(with("/type", json!("stream"))), INVALID, "/type", &["only type \"job\" is supported"]),
        (
            4,
            Script(with("/version", json!("1.0"))),
            INVALID,
            "/version",
            &["version must be \"2.0\"", "1.0 scripts use another layout"],
        ),
        (
            5,
            steps(vec![]),
            INVALID,
            "/steps",
            &["exactly one reader and one writer step are required; found 0 readers"],
        ),
        (5, steps(vec![step("reader", "Reader")]), INVALID, "/steps", &["found 0 writers"]),
        (
            6,
            steps(vec![step("reader", "Reader"), step("writer", "A"), step("writer", "B")]),
            INVALID,
            "/steps",
            &["2 writer steps (A, B)", "split the job"],
        ),
        (
            7,
            steps(vec![step("reader", "Reader"), step("writer", "Reader")]),
            INVALID,
            "/steps/1/name",
            &["step name \"Reader\" used twice; hops would be ambiguous"],
        ),
        (
            8,
            Script(with("/order/hops/0/to", json!("Writter"))),
            INVALID,
            "/order/hops/0/to",
            &["order.hops[0].to: no step named \"Writter\"", "did you mean `Writer`?"],
        ),
        (
            9,
            Script(with("/order/hops/0", json!({ "from": "Writer", "to": "Reader" }))),
            INVALID,
            "/order/hops/0",
            &["hop must lead from a reader to a writer"],
        ),
        (
            10,
            Script(with("/steps/0/category", json!("source"))),
            INVALID,
            "/steps/0/category",
            &["category must be reader, writer or processor"],
        ),
        (
            11,
            Script(with("/steps/0/stepType", json!("kafka"))),
            UNSUPPORTED,
            "/steps/0/stepType",
            &["unsupported reader type kafka; supported: starrocks, mysql"],
        ),
        (
            11,
            Script(with("/steps/1/stepType", json!("mysql"))),
            UNSUPPORTED,
            "/steps/1/stepType",
            &["unsupported writer type mysql; supported: starrocks"],
        ),
        (
            12,
            steps(vec![step("reader", "Reader"), step("writer", "Writer"), processor]),
            UNSUPPORTED,
            "/steps/2/parameter/nodes",
            &[
                "transformations are not supported (3 nodes)",
                "remove the processor or do it in column expressions",
            ],
        ),
    ]
}

fn reader() -> Vec<Row> {
    let set = |key: &str, value: Value| with(&format!("{READER}/{key}"), value);
    let filter = |text: &str| Script(set("where", json!(text)));
    let template = |text: &str| Template(set("where", json!(text)));
    let entry = |name: &str, kind: &str| {
        format!("[{name}]\ntype = '{kind}'\nhost = 'h'\nusername = 'u'\ndatabase = 'd'\n")
    };
    let queries = |splits: Value| {
        let mut script = good();
        let parameter = script.pointer_mut(READER).and_then(Value::as_object_mut).expect("the reader");
        parameter.retain(|key, _| key == "datasource");
        parameter.insert("querySql".into(), json!("select id, name from t"));
        parameter.insert("splitPk".into(), splits);
        Script(script)
    };
    vec![
        (
            13,
            Script(set("datasource", Value::Null)),
            INVALID,
            "/steps/0/parameter/datasource",
            &["parameter.datasource is required"],
        ),
        (
            14,
            Known(good(), entry("sr_prod", "starrocks") + &entry("dst", "starrocks")),
            UNKNOWN,
            "reader parameter.datasource",
            &["unknown data source \"src\"", "known: dst, sr_prod"],
        ),
        (
            15,
            Known(good(), entry("src", "mysql") + &entry("dst", "starrocks")),
            INVALID,
            "reader parameter.datasource",
            &["data source src is mysql but step type is starrocks"],
        ),
        (
            16,
            Script(set("column", Value::Null)),
            INVALID,
            "/steps/0/parameter/column",
            &["column must be a non-empty list of strings, e.g. [\"id\",\"name\"]"],
        ),
        (
            16,
            Script(set("column", json!([]))),
            INVALID,
            "/steps/0/parameter/column",
            &["column must be a non-empty list"],
        ),
        (
            16,
            Script(with(&format!("{WRITER}/column"), json!("id,name"))),
            INVALID,
            "/steps/1/parameter/column",
            &["column must be a non-empty list", "not \"id,name\""],
        ),
        (
            17,
            Script(set("column", json!(["*", "id"]))),
            INVALID,
            "/steps/0/parameter/column/0",
            &["\"*\" must be the only element"],
        ),
        (
            18,
            Script(set("column", json!(["id", "name", "x"]))),
            INVALID,
            "/steps/1/parameter/column",
            &["column counts differ: reader 3 (id, name, x), writer 2 (id, name)", "they map by position"],
        ),
        (
            23,
            Script(set("splitPk", json!("a,b"))),
            INVALID,
            "/steps/0/parameter/splitPk",
            &["splitPk must be a single column"],
        ),
        (
            27,
            Script(set("splitPK", json!("id"))),
            INVALID,
            "/steps/0/parameter/splitPK",
            &["unknown key splitPK: did you mean splitPk? (keys are case sensitive)"],
        ),
        (
            27,
            Script(set("querysql", json!("x"))),
            INVALID,
            "/steps/0/parameter/querysql",
            &["did you mean querySql?"],
        ),
        (27, Script(set("Where", json!("x"))), INVALID, "/steps/0/parameter/Where", &["did you mean where?"]),
        (
            27,
            Script(set("tabel", json!("x"))),
            WARNING,
            "/steps/0/parameter/tabel",
            &["did you mean `table`?"],
        ),
        (
            28,
            Script(set("splitFactor", json!(0))),
            INVALID,
            "/steps/0/parameter/splitFactor",
            &["splitFactor must be 1..100"],
        ),
        (
            28,
            Script(set("splitFactor", json!("5000"))),
            INVALID,
            "/steps/0/parameter/splitFactor",
            &["splitFactor must be 1..100 (got 5000)", "allowLargeSplitFactor"],
        ),
        (
            29,
            filter("limit 10"),
            INVALID,
            "/steps/0/parameter/where",
            &["where is a condition only; LIMIT is not allowed"],
        ),
        (29, filter("a=1 order by b"), INVALID, "/steps/0/parameter/where", &["ORDER BY is not allowed"]),
        (
            30,
            filter("name like 'it"),
            INVALID,
            "/steps/0/parameter/where",
            &["unterminated string literal at column 11 of where"],
        ),
        (30, filter("a=1 -- b"), INVALID, "/steps/0/parameter/where", &["comment -- at column 5"]),
        (30, filter("(a=1"), INVALID, "/steps/0/parameter/where", &["without a closing one"]),
        (
            31,
            template("dt = '${dt}'"),
            UNRESOLVED,
            "/steps/0/parameter/where",
            &["parameter ${dt} in where has no value", "pass --param dt=..."],
        ),
        (
            32,
            template("y = $[yyyy-1]"),
            INVALID,
            "/steps/0/parameter/where",
            &["year offset needs add_months(...)"],
        ),
        (
            32,
            template("h = ${yyyymmdd-1/24}"),
            INVALID,
            "/steps/0/parameter/where",
            &["${...} has day precision; use $[...] for hours"],
        ),
        (
            33,
            template("d = $[yyyymmdd-]"),
            INVALID,
            "/steps/0/parameter/where",
            &["cannot parse time expression at '-', character 11 of $[yyyymmdd-]"],
        ),
        (
            33,
            template("d = $[abc]"),
            INVALID,
            "/steps/0/parameter/where",
            &["cannot parse time expression at 'a'"],
        ),
        (
            34,
            Script(set("querySql", json!("select 1"))),
            INVALID,
            "/steps/0/parameter/querySql",
            &["table and querySql exclude each other"],
        ),
        (
            35,
            queries(json!("id")),
            WARNING,
            "/steps/0/parameter/splitPk",
            &["splitPk is ignored with querySql"],
        ),
        (
            68,
            Script(set("table", json!("t_[a-b]"))),
            INVALID,
            "/steps/0/parameter/table",
            &["range bounds must be numbers"],
        ),
    ]
}

fn writer() -> Vec<Row> {
    let set = |key: &str, value: Value| with(&format!("{WRITER}/{key}"), value);
    let props = |value: Value| Script(set("loadProps", value));
    let sources = "[src]\ntype = 'starrocks'\nhost = 'h'\nusername = 'u'\n\
                   [dst]\ntype = 'starrocks'\nhost = 'h'\nusername = 'u'\ndatabase = 'd'\n";
    vec![
        (
            19,
            Script(set("column", json!(["id", "`ID`"]))),
            INVALID,
            "/steps/1/parameter/column/1",
            &["column \"ID\" listed twice in the writer"],
        ),
        (
            36,
            Known(set("loadUrl", json!([])), sources.into()),
            INVALID,
            "writer parameter.loadUrl",
            &["loadUrl needs at least one FE host:http_port, e.g. 10.0.0.1:8030"],
        ),
        (
            37,
            Script(set("loadUrl", json!(["10.0.0.1"]))),
            INVALID,
            "/steps/1/parameter/loadUrl/0",
            &["missing port in \"10.0.0.1\"; the FE HTTP port is usually 8030"],
        ),
        (
            38,
            Script(set("loadUrl", json!("fe:9030"))),
            WARNING,
            "/steps/1/parameter/loadUrl",
            &["9030 is the default *query* port; Stream Load needs the HTTP port (8030)"],
        ),
        (
            39,
            props(json!("x")),
            INVALID,
            "/steps/1/parameter/loadProps",
            &["loadProps must be an object", "use {} for none"],
        ),
        (39, props(json!([])), INVALID, "/steps/1/parameter/loadProps", &["loadProps must be an object"]),
        (
            40,
            props(json!({ "format": "parquet" })),
            INVALID,
            "/steps/1/parameter/loadProps/format",
            &["format must be csv or json"],
        ),
        (
            41,
            props(json!({ "format": "JSON", "strip_outer_array": "false" })),
            INVALID,
            "/steps/1/parameter/loadProps/strip_outer_array",
            &["must be true: batches are sent as one array"],
        ),
        (
            42,
            props(json!({ "column_separator": "\\x1" })),
            INVALID,
            "/steps/1/parameter/loadProps/column_separator",
            &["hex delimiter needs pairs of hex digits", "e.g. \\\\x01"],
        ),
        (
            42,
            props(json!({ "row_delimiter": "\\x" })),
            INVALID,
            "/steps/1/parameter/loadProps/row_delimiter",
            &["pairs of hex digits"],
        ),
        (
            42,
            props(json!({ "row_delimiter": "\\xZZ" })),
            INVALID,
            "/steps/1/parameter/loadProps/row_delimiter",
            &["pairs of hex digits"],
        ),
        (
            43,
            props(json!({ "column_separator": "\\x01", "row_delimiter": "\u{1}" })),
            INVALID,
            "/steps/1/parameter/loadProps/row_delimiter",
            &["column and row delimiter must differ"],
        ),
        (
            44,
            props(json!({ "label": "x" })),
            INVALID,
            "/steps/1/parameter/loadProps/label",
            &["label is managed by Starlift", "use labelPrefix"],
        ),
        (
            44,
            props(json!({ "Authorization": "Basic eA==" })),
            INVALID,
            "/steps/1/parameter/loadProps/authorization",
            &["authorization is managed by Starlift"],
        ),
        (
            45,
            props(json!({ "columns": "id" })),
            INVALID,
            "/steps/1/parameter/loadProps/columns",
            &["columns header conflicts with parameter.column"],
        ),
        (
            46,
            props(json!({ "max_filter_ratio": "2" })),
            INVALID,
            "/steps/1/parameter/loadProps/max_filter_ratio",
            &["must be between 0 and 1"],
        ),
        (
            47,
            props(json!({ "timeout": "0" })),
            INVALID,
            "/steps/1/parameter/loadProps/timeout",
            &["timeout must be 1..259200 seconds"],
        ),
        (
            49,
            Script(set("maxBatchRows", json!(0))),
            INVALID,
            "/steps/1/parameter/maxBatchRows",
            &["must be a positive integer, not 0"],
        ),
        (
            49,
            Script(set("maxBatchRows", json!(-1))),
            INVALID,
            "/steps/1/parameter/maxBatchRows",
            &["must be a positive integer, not -1"],
        ),
        (
            49,
            Script(set("maxBatchRows", json!("abc"))),
            INVALID,
            "/steps/1/parameter/maxBatchRows",
            &["must be a positive integer"],
        ),
        (
            49,
            Script(set("maxBatchRows", json!(1.5))),
            INVALID,
            "/steps/1/parameter/maxBatchRows",
            &["must be a positive integer, not 1.5"],
        ),
        (
            50,
            Script(set("maxBatchSize", json!(1024))),
            WARNING,
            "/steps/1/parameter/maxBatchSize",
            &["very small batches"],
        ),
        (
            50,
            Script(set("maxBatchSize", json!(0))),
            INVALID,
            "/steps/1/parameter/maxBatchSize",
            &["must be a positive integer"],
        ),
        (
            51,
            Script(set("strategyOnError", json!("skip"))),
            INVALID,
            "/steps/1/parameter/strategyOnError",
            &["must be exit or batchDirtyData"],
        ),
    ]
}

fn settings() -> Vec<Row> {
    let limit = |value: Value| Script(with("/setting/errorLimit", value));
    let speed = |value: Value| Script(with("/setting/speed", value));
    vec![
        (
            52,
            limit(json!({ "record": "-1" })),
            INVALID,
            "/setting/errorLimit/record",
            &["must be a non-negative integer or empty for unlimited"],
        ),
        (
            52,
            limit(json!({ "record": "many" })),
            INVALID,
            "/setting/errorLimit/record",
            &["must be a non-negative integer or empty for unlimited"],
        ),
        (
            53,
            limit(json!({ "percentage": 5 })),
            INVALID,
            "/setting/errorLimit/percentage",
            &["must be a fraction 0..1 (5 % is 0.05)"],
        ),
        (
            54,
            limit(json!({ "strategy": "Tolerance" })),
            INVALID,
            "/setting/errorLimit/strategy",
            &["strategy Tolerance needs record > 0"],
        ),
        (
            55,
            limit(json!({ "strategy": "ZeroTolerance", "record": 10 })),
            INVALID,
            "/setting/errorLimit/strategy",
            &["contradiction: ZeroTolerance allows no dirty record"],
        ),
        (
            56,
            speed(json!({ "throttle": true })),
            INVALID,
            "/setting/speed/mbps",
            &["throttle needs mbps, a positive integer (MB/s)"],
        ),
        (
            56,
            speed(json!({ "throttle": "true", "mbps": 0 })),
            INVALID,
            "/setting/speed/mbps",
            &["must be a positive integer (MB/s)"],
        ),
        (
            56,
            speed(json!({ "throttle": true, "mbps": -3 })),
            INVALID,
            "/setting/speed/mbps",
            &["must be a positive integer (MB/s)", "not -3"],
        ),
        (
            56,
            speed(json!({ "throttle": true, "mbps": "fast" })),
            INVALID,
            "/setting/speed/mbps",
            &["throttle needs mbps"],
        ),
        (
            57,
            speed(json!({ "throttle": false, "mbps": 5 })),
            WARNING,
            "/setting/speed/mbps",
            &["mbps ignored because throttle is false"],
        ),
        (
            58,
            speed(json!({ "concurrent": 0 })),
            INVALID,
            "/setting/speed/concurrent",
            &["must be a positive integer (DataWorks: 1..32)"],
        ),
        (
            58,
            speed(json!({ "concurrent": "x" })),
            INVALID,
            "/setting/speed/concurrent",
            &["must be a positive integer (DataWorks: 1..32)"],
        ),
        (
            59,
            Script(with("/setting/executeMode", json!("cluster"))),
            INVALID,
            "/setting/executeMode",
            &["executeMode must be \"distribute\" or null"],
        ),
        (
            60,
            Script(with("/setting/executeMode", json!("distribute"))),
            WARNING,
            "/setting/executeMode",
            &["DataWorks offers distributed execution from 8"],
        ),
    ]
}

fn datax() -> Vec<Row> {
    let good = || -> Value {
        let text = include_str!("../../../../tests/scripts/e5-datax-mysql.json");
        serde_json::from_str(text).expect("the example is JSON")
    };
    let with = |pointer: &str, value: Value| {
        let mut file = good();
        set(&mut file, pointer, value);
        DataX(file)
    };
    let connection =
        |role: &str, value: Value| with(&format!("/job/content/0/{role}/parameter/connection/0"), value);
    let element = good()["job"]["content"][0].clone();
    vec![
        (
            61,
            with("/job/content", json!([element, element])),
            INVALID,
            "/job/content",
            &["content has 2 elements; DataX silently ran only the first", "split the file"],
        ),
        (
            62,
            with("/core", Value::Null),
            WARNING,
            "/job/setting/speed/byte",
            &["here it is the limit of the whole job"],
        ),
        (
            63,
            with("/job/setting/speed/channel", json!(4)),
            WARNING,
            "/job/setting/speed/channel",
            &["DataX ignores channel when byte or record is set", "concurrent = 4 and byte as the limit"],
        ),
        (
            64,
            connection(
                "writer",
                json!({ "table": ["t"], "selectedDatabase": "d", "jdbcUrl": ["jdbc:mysql://a:9030", "jdbc:mysql://b:9030"] }),
            ),
            WARNING,
            "/job/content/0/writer/parameter/connection/0/jdbcUrl",
            &["the first is used"],
        ),
        (
            65,
            connection("reader", json!({ "table": ["t"], "jdbcUrl": ["jdbc:oracle:thin:@h:1521:x"] })),
            UNSUPPORTED,
            "/job/content/0/reader/parameter/connection/0/jdbcUrl/0",
            &["unsupported JDBC URL", "expected jdbc:mysql://host:port/db"],
        ),
        (
            66,
            connection("reader", json!({ "jdbcUrl": ["jdbc:mysql://h/d"] })),
            INVALID,
            "/job/content/0/reader/parameter/connection/0/table",
            &["connection[0] needs table or querySql"],
        ),
        (
            67,
            with("/job/content/0/transformer", json!([{ "name": "dx_filter" }])),
            UNSUPPORTED,
            "/job/content/0/transformer",
            &["transformers are not supported"],
        ),
    ]
}
