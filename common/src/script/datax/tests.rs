use proptest::prelude::*;

use super::*;
use crate::job::{ErrorLimit, Format, SourceKind};
use crate::problem::Code;

/// E5 of the examples: mysqlreader to starrockswriter, without a fault and without a warning.
fn good() -> Value {
    let text = include_str!("../../../../tests/scripts/e5-datax-mysql.json");
    serde_json::from_str(text).expect("the example is JSON")
}

fn queries() -> Value {
    let text = include_str!("../../../../tests/scripts/e6-datax-query.json");
    serde_json::from_str(text).expect("the example is JSON")
}

const READER: &str = "/job/content/0/reader/parameter";
const WRITER: &str = "/job/content/0/writer/parameter";

/// `good()` with the value at the pointer set.
fn with(pointer: &str, value: Value) -> Value {
    let mut file = good();
    let mut place = &mut file;
    for token in pointer.split('/').skip(1) {
        place = match place {
            Value::Array(list) => &mut list[token.parse::<usize>().expect("an index")],
            other => &mut other[token],
        };
    }
    *place = value;
    file
}

fn without(file: &mut Value, pointer: &str, key: &str) {
    file.pointer_mut(pointer).and_then(Value::as_object_mut).expect("an object").remove(key);
}

fn converted(file: &Value) -> Converted {
    convert(&file.to_string()).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn script(file: &Value) -> Value {
    serde_json::from_str(&converted(file).script).expect("a script is JSON")
}

fn told(file: &Value) -> String {
    let problems = match convert(&file.to_string()) {
        Ok(converted) => converted.parse().expect_err("there is a fault"),
        Err(problems) => problems,
    };
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

#[test]
fn a_file_becomes_a_script_and_data_sources() {
    let converted = converted(&good());
    assert_eq!(converted.warnings, Vec::<String>::new());
    let script: Value = serde_json::from_str(&converted.script).expect("a script is JSON");
    assert_eq!(
        script,
        json!({
            "type": "job",
            "version": "2.0",
            "steps": [
                { "stepType": "mysql", "name": "Reader", "category": "reader", "parameter": {
                    "connection": [{ "datasource": "shop_10_1_0_5", "table": ["goods"] }],
                    "column": ["id", "title", "price"], "splitPk": "id", "where": "id > 0" } },
                { "stepType": "starrocks", "name": "Writer", "category": "writer", "parameter": {
                    "datasource": "dw_10_0_0_11", "selectedDatabase": "dw", "table": "goods",
                    "column": ["id", "title", "price"], "loadUrl": ["10.0.0.11:8030", "10.0.0.12:8030"],
                    "loadProps": { "column_separator": "\\x01", "row_delimiter": "\\x02" },
                    "preSql": ["truncate table @table"], "postSql": [], "labelPrefix": "goods_" } },
            ],
            "setting": { "errorLimit": { "record": 0 }, "speed": { "concurrent": 5, "throttle": true, "mbps": 50 } },
            "order": { "hops": [{ "from": "Reader", "to": "Writer" }] },
        })
    );
    let sources = &converted.datasources;
    let [shop, dw] = sources.as_slice() else { panic!("{sources:?}") };
    assert_eq!((shop.name.as_str(), shop.kind, shop.port), ("shop_10_1_0_5", DatasourceKind::Mysql, 3306));
    assert_eq!(
        (shop.hosts.as_slice(), shop.database.as_deref()),
        (&["10.1.0.5".to_owned()][..], Some("shop"))
    );
    assert_eq!((dw.name.as_str(), dw.kind, dw.port), ("dw_10_0_0_11", DatasourceKind::Starrocks, 9030));
    assert_eq!((dw.hosts.as_slice(), dw.database.as_deref()), (&["10.0.0.11".to_owned()][..], None));
    assert!(sources.iter().all(|one| one.username == "sync"));
    assert!(sources.iter().all(|one| one.password == Password::Inline(Secret::new("secret"))));
    let parsed = converted.parse().unwrap_or_else(|problems| panic!("{problems:#?}"));
    assert_eq!(parsed.warnings, Vec::<String>::new());
    assert_eq!(parsed.spec.source.kind, SourceKind::Mysql);
    assert_eq!(parsed.spec.settings.bytes_per_second, Some(50 << 20));
    let known = crate::datasource::Datasources::of(converted.datasources);
    assert_eq!(crate::script::check_datasources(&parsed.spec, &known), []);
}

#[test]
fn queries_and_older_keys_of_the_writer_are_understood() {
    let converted = converted(&queries());
    let script: Value = serde_json::from_str(&converted.script).expect("a script is JSON");
    let connection = script.pointer("/steps/0/parameter/connection/0").expect("the reader's connection");
    assert_eq!(connection["datasource"], "ods_10_2_0_11");
    let query = connection["querySql"][0].as_str().expect("one query");
    assert!(query.ends_with("a.dt = '${bizdate}'"), "parameters stay as they are: {query}");
    assert_eq!(converted.datasources[0].hosts, ["10.2.0.11", "10.2.0.12"], "tried in order");
    let writer = script.pointer("/steps/1/parameter").expect("the writer");
    assert_eq!((&writer["selectedDatabase"], &writer["table"]), (&json!("dw"), &json!("fact_named")));
    assert_eq!(
        script["setting"],
        json!({ "errorLimit": { "percentage": 0.01 }, "speed": { "concurrent": 3 } })
    );
    assert_eq!(converted.warnings, Vec::<String>::new());
    let parsed = converted.parse().unwrap_or_else(|problems| panic!("{problems:#?}"));
    assert_eq!(parsed.spec.target.load.format, Format::Json);
    assert_eq!(
        (parsed.spec.target.max_batch_rows, parsed.spec.target.max_batch_bytes),
        (100_000, 94_371_840)
    );
    assert_eq!(parsed.spec.settings.error_limit, ErrorLimit::Share(10_000));
}

#[test]
fn what_datax_drops_in_silence_is_refused_or_said() {
    let r = |key: &str| format!("{READER}/{key}");
    let w = |key: &str| format!("{WRITER}/{key}");
    let element = good()["job"]["content"][0].clone();
    for (file, code, part) in [
        (
            with("/job/content", json!([element, element])),
            Code::InvalidScript,
            "/job/content: content has 2 elements",
        ),
        (with("/job/content", json!([])), Code::InvalidScript, "content is empty"),
        (
            with("/job/content/0/transformer", json!([{ "name": "dx_substr" }])),
            Code::Unsupported,
            "/job/content/0/transformer: transformers are not supported",
        ),
        (
            with("/job/content/0/reader/name", json!("oraclereader")),
            Code::Unsupported,
            "unsupported reader type oraclereader; supported: mysqlreader, starrocksreader",
        ),
        (
            with("/job/content/0/writer/name", json!("doriswriter")),
            Code::Unsupported,
            "supported: starrockswriter",
        ),
        (
            with(&r("connection/0/jdbcUrl"), json!(["jdbc:oracle:thin:u/p@h"])),
            Code::Unsupported,
            "/connection/0/jdbcUrl/0: unsupported JDBC URL jdbc:oracle:...; expected jdbc:mysql://host:port/db",
        ),
        (with(&r("connection/0/jdbcUrl"), json!([])), Code::InvalidScript, "jdbcUrl is required"),
        (
            with(&r("connection/0/table"), Value::Null),
            Code::InvalidScript,
            "connection[0] needs table or querySql",
        ),
        (
            with(&r("connection/0/querySql"), json!("select 1")),
            Code::InvalidScript,
            "table and querySql exclude each other",
        ),
        (with(&r("connection"), json!([])), Code::InvalidScript, "connection is required"),
        (
            with(&r("connection"), json!(["x"])),
            Code::InvalidScript,
            "/connection/0: a connection must be an object",
        ),
        (
            with(&r("username"), Value::Null),
            Code::InvalidScript,
            "/reader/parameter/username: parameter.username is required",
        ),
        (with(&r("*password"), json!("a1b2")), Code::Unsupported, "encrypted accounts"),
        (with(&r("splitPK"), json!("id")), Code::InvalidScript, "did you mean splitPk?"),
        (
            with(&r("session"), json!(["set time_zone = '+00:00'"])),
            Code::Unsupported,
            "statements of session are not run",
        ),
        (with(&r("mandatoryEncoding"), json!("gbk")), Code::Unsupported, "mandatoryEncoding gbk"),
        (
            with(&r("connection/0/jdbcUrl"), json!(["jdbc:mysql://h/d?sslMode=VERIFY_CA"])),
            Code::Unsupported,
            "ssl_ca",
        ),
        (with("/core/transport/channel/speed/record", json!(100)), Code::Unsupported, "records per second"),
        (with("/job/setting/speed/record", json!(100)), Code::Unsupported, "/job/setting/speed/record: "),
        (
            with("/job/setting/errorLimit", json!({ "percentage": 5 })),
            Code::InvalidScript,
            "/job/setting/errorLimit/percentage: percentage must be a fraction 0..1",
        ),
        (
            with(&r("column"), json!([])),
            Code::InvalidScript,
            "/job/content/0/reader/parameter/column: column must be",
        ),
        (
            with(&w("connection/0/table"), json!(["a b"])),
            Code::InvalidScript,
            "/job/content/0/writer/parameter/connection/0/table/0: ",
        ),
    ] {
        let text = told(&file);
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
        let problems = convert(&file.to_string()).and_then(|converted| converted.parse().map(drop));
        assert_eq!(problems.expect_err("there is a fault")[0].code, code, "{text}");
    }
    let mut twice = good();
    without(&mut twice, "/job/setting/speed", "byte");
    twice["core"]["container"] = json!({ "taskGroup": { "channel": 5 } });
    twice["job"]["preHandler"] = json!({ "class": "x" });
    for (file, part) in [
        (twice.clone(), "/job/preHandler: preHandler is not run"),
        (twice, "/core: not used here: /core/container/taskGroup/channel"),
        (
            with("/common", json!({ "column": { "datetimeFormat": "yyyy" } })),
            "/common: not used here: /common/column/datetimeFormat",
        ),
        (
            with("/job/setting/speed/channel", json!(2)),
            "DataX ignores channel when byte or record is set; using concurrent = 2",
        ),
        (with("/core", json!({})), "/job/setting/speed/byte: DataX wants core.transport.channel.speed.byte"),
        (
            with(&w("connection/0/jdbcUrl"), json!(["jdbc:mysql://a:9030/", "jdbc:mysql://b:9030/"])),
            "/writer/parameter/connection/0/jdbcUrl: a writer has one address",
        ),
        (with(&w("connection/0/table"), json!(["a", "b"])), "DataX writes to the first table only"),
        (with(&w("connection/0/jdbcUrl"), Value::Null), "the query port is taken to be 9030"),
        (
            with(&r("connection/0/jdbcUrl"), json!(["jdbc:mysql://a/d", "jdbc:mysql://b/e"])),
            "1 further addresses",
        ),
        (
            with(&r("connection/0/jdbcUrl"), json!("jdbc:mysql://a/d?serverTimezone=UTC")),
            "not used: serverTimezone",
        ),
        (with(&r("checkSlave"), json!(true)), "whether a replica lags behind"),
        (with(&w("labelPrefx"), json!("x")), "labelPrefx is ignored; did you mean `labelPrefix`?"),
    ] {
        let warnings = converted(&file).parse().unwrap_or_else(|problems| panic!("{problems:#?}")).warnings;
        assert!(warnings.iter().any(|warning| warning.contains(part)), "`{part}` is not in {warnings:?}");
    }
}

#[test]
fn the_database_of_the_writer_has_datax_own_order() {
    let mut file = queries();
    let writer = |file: &Value| script(file)["steps"][1]["parameter"]["selectedDatabase"].clone();
    assert_eq!(writer(&file), "dw");
    file["job"]["content"][0]["writer"]["parameter"]["selectedDatabase"] = json!("second");
    assert_eq!(writer(&file), "second");
    file["job"]["content"][0]["writer"]["parameter"]["connection"] =
        json!([{ "selectedDatabase": "first", "table": "t" }]);
    assert_eq!(writer(&file), "first");
    assert_eq!(script(&file)["steps"][1]["parameter"]["table"], "t");
    file["job"]["content"][0]["writer"]["parameter"]["connection"][0]["selectedDatabase"] = json!(" ");
    assert_eq!(writer(&file), "second", "a blank one says nothing");
}

#[test]
fn speeds_become_those_of_the_job() {
    let speed = |speed: Value, core: Value| {
        let mut file = good();
        file["job"]["setting"]["speed"] = speed;
        file["core"] = json!({ "transport": { "channel": { "speed": core } } });
        script(&file)["setting"]["speed"].clone()
    };
    assert_eq!(speed(json!({ "channel": "4" }), json!({})), json!({ "concurrent": 4 }));
    assert_eq!(
        speed(json!({ "byte": 1_000_000 }), json!({ "byte": 300_000 })),
        json!({ "concurrent": 3, "byte": 1_000_000 })
    );
    assert_eq!(
        speed(json!({ "channel": 2 }), json!({ "byte": 1 << 20 })),
        json!({ "concurrent": 2, "throttle": true, "mbps": 2 })
    );
    assert_eq!(
        speed(json!({ "channel": 2, "byte": -1 }), json!({ "byte": "-1" })),
        json!({ "concurrent": 2, "byte": -1 })
    );
    assert_eq!(speed(json!(null), json!({})), Value::Null, "the default of every job");
    let mut nonsense = good();
    nonsense["job"]["setting"]["speed"] = json!({ "channel": "many", "byte": "x" });
    let text = told(&nonsense);
    assert!(
        text.contains("/job/setting/speed/channel") && text.contains("/job/setting/speed/byte"),
        "{text}"
    );
}

#[test]
fn the_same_server_is_one_data_source_and_another_account_is_not() {
    let mut file = good();
    file["job"]["content"][0]["reader"]["parameter"]["connection"] = json!([
        { "jdbcUrl": ["jdbc:mysql://a:3306/x"], "table": ["t1", "t2"] },
        { "jdbcUrl": ["jdbc:mysql://a:3306/x?useUnicode=true"], "table": "t3" },
        { "jdbcUrl": ["jdbc:mysql://a:3307/x"], "table": "t4" },
        { "jdbcUrl": ["jdbc:mysql://a:3306/x?useSSL=true"], "table": "t5" },
    ]);
    let converted = converted(&file);
    let names: Vec<&str> = converted.datasources.iter().map(|source| source.name.as_str()).collect();
    assert_eq!(names, ["x_a", "x_a_3307", "x_a_2", "dw_10_0_0_11"]);
    let script: Value = serde_json::from_str(&converted.script).expect("a script is JSON");
    assert_eq!(
        script["steps"][0]["parameter"]["connection"],
        json!([
            { "datasource": "x_a", "table": ["t1", "t2"] },
            { "datasource": "x_a", "table": ["t3"] },
            { "datasource": "x_a_3307", "table": ["t4"] },
            { "datasource": "x_a_2", "table": ["t5"] },
        ])
    );
}

#[test]
fn accounts_stay_out_of_the_script_and_of_every_message() {
    let mut file = good();
    for step in ["reader", "writer"] {
        file["job"]["content"][0][step]["parameter"]["password"] = json!("hidden-word");
        file["job"]["content"][0][step]["parameter"]["passWord2"] = json!("hidden-word");
    }
    let good = converted(&file);
    assert!(!format!("{good:?}").contains("hidden"), "{good:?}");
    for wrong in [json!({ "hidden": 1 }), json!(["hidden"]), json!(true)] {
        let mut file = file.clone();
        file["job"]["content"][0]["reader"]["parameter"]["password"] = wrong;
        file["job"]["content"][0]["writer"]["parameter"]["jdbcUrl"] = json!("hidden:hidden@h");
        file["job"]["content"][0]["writer"]["parameter"]["connection"] = json!([]);
        let text = told(&file);
        assert!(text.contains("password must be a string") && !text.contains("hidden"), "{text}");
    }
    let mut empty = file;
    without(&mut empty, READER, "password");
    assert_eq!(converted(&empty).datasources[0].password, Password::Inline(Secret::default()));
}

#[test]
fn addax_writes_content_and_connection_without_lists() {
    let mut file = good();
    let element = file["job"]["content"][0].clone();
    file["job"]["content"] = element;
    let connection = file["job"]["content"]["reader"]["parameter"]["connection"][0].clone();
    file["job"]["content"]["reader"]["parameter"]["connection"] = connection;
    assert_eq!(script(&file), script(&good()));
    file["job"]["content"]["reader"]["parameter"]["column"] = json!("id");
    assert!(told(&file).contains("/job/content/reader/parameter/column: column must be"));
}

#[test]
fn a_file_is_told_from_a_script() {
    assert!(is_datax(&good().to_string()));
    assert!(!is_datax(r#"{"type": "job", "steps": []}"#) && !is_datax(r#"{"job": 1, "steps": []}"#));
    assert!(!is_datax("[]") && !is_datax("{"));
}

/// What comes out is a script, whatever was inside.
fn check_any(at: &str, value: Value) {
    if let Ok(converted) = convert(&with(at, value).to_string()) {
        assert!(serde_json::from_str::<Value>(&converted.script).is_ok(), "{}", converted.script);
        assert!(!converted.script.contains("\"secret\""), "{}", converted.script);
        let _any_outcome = converted.parse();
    }
}

proptest! {
    #[test]
    fn no_json_in_any_place_makes_the_conversion_panic(
        at in prop::sample::select(PLACES),
        value in crate::script::tests::any_json(),
    ) {
        check_any(at, value);
    }
}

/// The same, many times as long.
mod long {
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100_000))]

        #[test]
        #[ignore = "takes minutes; `make test-long` runs it"]
        fn no_json_in_any_place_makes_the_conversion_panic_in_many_tries(
            at in prop::sample::select(PLACES),
            value in crate::script::tests::any_json(),
        ) {
            check_any(at, value);
        }
    }
}

const PLACES: &[&str] = &[
    "/job",
    "/core",
    "/core/transport/channel/speed/byte",
    "/common",
    "/job/setting",
    "/job/setting/speed",
    "/job/setting/speed/byte",
    "/job/setting/errorLimit",
    "/job/content",
    "/job/content/0",
    "/job/content/0/transformer",
    "/job/content/0/reader",
    "/job/content/0/reader/name",
    "/job/content/0/reader/parameter",
    "/job/content/0/reader/parameter/password",
    "/job/content/0/reader/parameter/connection",
    "/job/content/0/reader/parameter/connection/0",
    "/job/content/0/reader/parameter/connection/0/jdbcUrl",
    "/job/content/0/reader/parameter/connection/0/table",
    "/job/content/0/reader/parameter/session",
    "/job/content/0/writer/parameter",
    "/job/content/0/writer/parameter/connection",
    "/job/content/0/writer/parameter/connection/0/jdbcUrl",
    "/job/content/0/writer/parameter/connection/0/table",
    "/job/content/0/writer/parameter/loadUrl",
];
