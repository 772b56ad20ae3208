//! Every type and its edge values from a real MariaDB into the stand-in, and back by its query port: equal, or refused
//! where `docs/TYPES.md` says so.

use std::path::Path;

use mysql_async::Value as Cell;
use mysql_async::prelude::Queryable;
use serde_json::{Value, json};

use crate::cluster::{Outcome, job, run, starlift, workspace, write_job};
use crate::mariadb::MariaDb;
use crate::process::output;
use crate::standin::Standin;

/// How the two servers' texts of one value are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum As {
    /// Byte by byte.
    Bytes,
    /// A number, whatever zeros stand around it.
    Number,
    Double,
    Single,
    /// A document, whatever blanks stand in it.
    Json,
}

/// Name, type at the source, type at the target, and how MariaDB is asked for the value that should have arrived.
const COLUMNS: &[(&str, &str, &str, &str, As)] = &[
    ("tiny", "TINYINT", "TINYINT", "tiny", As::Bytes),
    ("tiny_unsigned", "TINYINT UNSIGNED", "SMALLINT", "tiny_unsigned", As::Bytes),
    ("truth", "TINYINT(1)", "BOOLEAN", "truth", As::Bytes),
    ("small", "SMALLINT", "SMALLINT", "small", As::Bytes),
    ("medium", "MEDIUMINT UNSIGNED", "INT", "medium", As::Bytes),
    ("number", "INT", "INT", "number", As::Bytes),
    ("number_as_double", "INT", "DOUBLE", "number_as_double", As::Double),
    ("medium_as_float", "MEDIUMINT UNSIGNED", "FLOAT", "medium_as_float", As::Single),
    ("big", "BIGINT", "BIGINT", "big", As::Bytes),
    ("big_unsigned", "BIGINT UNSIGNED", "LARGEINT", "big_unsigned", As::Bytes),
    ("big_as_text", "BIGINT UNSIGNED", "VARCHAR(20)", "big_as_text", As::Bytes),
    ("filled", "INT(8) ZEROFILL", "BIGINT", "filled + 0", As::Bytes),
    ("filled_as_text", "INT(8) ZEROFILL", "VARCHAR(10)", "filled_as_text", As::Bytes),
    ("cents", "DECIMAL(10,2)", "DECIMAL(10,2)", "cents", As::Bytes),
    ("wider", "DECIMAL(10,2)", "DECIMAL(38,10)", "wider", As::Number),
    ("cents_as_double", "DECIMAL(15,4)", "DOUBLE", "cents_as_double", As::Number),
    ("longest", "DECIMAL(38,10)", "DECIMAL(38,10)", "longest", As::Bytes),
    ("exact_as_text", "DECIMAL(65,30)", "VARCHAR(70)", "exact_as_text", As::Bytes),
    ("single", "FLOAT", "FLOAT", "(single * 1e0)", As::Single),
    ("single_as_double", "FLOAT", "DOUBLE", "(single_as_double * 1e0)", As::Double),
    ("twofold", "DOUBLE", "DOUBLE", "twofold", As::Double),
    ("bit_one", "BIT(1)", "BOOLEAN", "bit_one + 0", As::Bytes),
    ("bits", "BIT(17)", "INT", "bits + 0", As::Bytes),
    ("bits_most", "BIT(64)", "LARGEINT", "bits_most + 0", As::Bytes),
    ("day", "DATE", "DATE", "day", As::Bytes),
    ("day_as_moment", "DATE", "DATETIME", "TIMESTAMP(day_as_moment)", As::Bytes),
    ("moment", "DATETIME(6)", "DATETIME", "moment", As::Bytes),
    ("stamp", "TIMESTAMP(6) NULL", "DATETIME", "stamp", As::Bytes),
    ("span", "TIME(6)", "VARCHAR(17)", "span", As::Bytes),
    ("in_year", "YEAR", "SMALLINT", "in_year + 0", As::Bytes),
    ("fixed", "CHAR(5)", "CHAR(20)", "fixed", As::Bytes),
    ("varied", "VARCHAR(300)", "VARCHAR(1200)", "varied", As::Bytes),
    ("western", "VARCHAR(50) CHARACTER SET latin1", "VARCHAR(150)", "western", As::Bytes),
    ("words", "LONGTEXT", "STRING", "words", As::Bytes),
    ("text_as_number", "VARCHAR(20)", "BIGINT", "text_as_number", As::Number),
    ("text_as_cents", "VARCHAR(20)", "DECIMAL(10,2)", "text_as_cents", As::Number),
    ("text_as_day", "VARCHAR(20)", "DATE", "text_as_day", As::Bytes),
    ("text_as_moment", "VARCHAR(30)", "DATETIME", "text_as_moment", As::Bytes),
    ("text_as_bytes", "VARCHAR(20)", "VARBINARY", "text_as_bytes", As::Bytes),
    ("document", "JSON", "JSON", "document", As::Json),
    ("document_as_text", "JSON", "STRING", "document_as_text", As::Bytes),
    ("one_of", "ENUM('a', 'ö', '')", "VARCHAR(8)", "one_of", As::Bytes),
    ("some_of", "SET('x', 'y', 'z')", "VARCHAR(20)", "some_of", As::Bytes),
    ("fixed_bytes", "BINARY(4)", "VARBINARY", "fixed_bytes", As::Bytes),
    ("varied_bytes", "VARBINARY(300)", "VARBINARY", "varied_bytes", As::Bytes),
    ("many_bytes", "LONGBLOB", "VARBINARY", "many_bytes", As::Bytes),
    ("address", "INET6", "VARCHAR(45)", "address", As::Bytes),
    ("identity", "UUID", "VARCHAR(36)", "identity", As::Bytes),
];

/// The smallest and emptiest values, the largest and longest, and some that are easily damaged; in the order above.
const ROWS: [&str; 3] = [
    "0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, b'0', b'0', b'0', '0001-01-01', '0001-01-01', \
     '1000-01-01', '1970-01-02', '00:00:00', 0, '', '', '', '', '0', '0', '0001-01-01', '2024-02-29', '', '{}', '{}', \
     '', '', '', '', '', '::', '00000000-0000-0000-0000-000000000000'",
    "-128, 255, 1, -32768, 16777215, -2147483648, -2147483648, 16777215, -9223372036854775808, \
     18446744073709551615, 18446744073709551615, 99999999, 42, -99999999.99, 99999999.99, -99999999999.9999, \
     -9999999999999999999999999999.9999999999, \
     -12345678901234567890123456789012345.123456789012345678901234567891, -3.402823e38, 1.17549e-38, \
     -1.7976931348623157e308, b'1', b'11111111111111111', ~0, '9999-12-31', '9999-12-31', \
     '9999-12-31 23:59:59.999999', '2038-01-19 03:14:07.999999', '-838:59:59.000001', 2155, 'a  ', REPEAT('€', 300), \
     'Zürich €', '😀 tab\\t line\\n quote\\' \"double\" back\\\\', '-9223372036854775808', '-99999999.99000', \
     '9999-12-31', '9999-12-31T23:59:59.9', 'Zürich 😀', '{\"k\": [1, \"😀\", null, 1.5, true]}', '[\"\\\\u0001\"]', \
     'ö', 'x,z', x'00ff00ff', REPEAT(x'fe', 251), x'fffefdfcfb0001025c4e', '2001:db8::1', \
     'ffffffff-ffff-ffff-ffff-ffffffffffff'",
    "127, 1, 1, 32767, 1, 2147483647, 2147483647, 3, 9223372036854775807, 9223372036854775808, 1, 1, 1, 0.01, -0.01, \
     0.1, 0.1, 0.1, 0.1, 16777217, 2.2250738585072014e-308, b'0', b'101', 1, '2024-02-29', '2024-02-29', \
     '2024-02-29 13:45:01.000001', '2001-09-09 01:46:40.5', '838:59:59.999999', 1901, 'ß', 'NULL', 'ÿ', '\\\\N ', '+7', \
     '0.5', '1970-01-01', '1970-01-01 00:00:00.000001', '4e', '{\"a\": {\"b\": \"\"}}', '[]', 'a', 'y', 'abcd', 'QUJD', \
     '4142', '::ffff:1.2.3.4', '01234567-89ab-1def-8123-456789abcdef'",
];

/// `null` first, then the rows above.
async fn fill(source: &MariaDb) {
    let types: Vec<String> = COLUMNS.iter().map(|(name, from, ..)| format!("{name} {from}")).collect();
    let create =
        format!("CREATE TABLE every (id INT PRIMARY KEY, {}) DEFAULT CHARSET utf8mb4", types.join(", "));
    let rows = (2..).zip(ROWS).map(|(id, values)| format!("INSERT INTO every VALUES ({id}, {values})"));
    let statements: Vec<String> =
        [create, "INSERT INTO every (id) VALUES (1)".into()].into_iter().chain(rows).collect();
    source.run(&statements.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

async fn create_target(target: &Standin) {
    let types: Vec<String> = COLUMNS.iter().map(|(name, _, to, ..)| format!("{name} {to} NULL")).collect();
    let create = format!(
        "CREATE TABLE dw.every (id INT NOT NULL, {}) DUPLICATE KEY(id) DISTRIBUTED BY HASH(id) BUCKETS 1",
        types.join(", ")
    );
    target.run(&["CREATE DATABASE dw", &create]).await;
}

fn names() -> Vec<&'static str> {
    std::iter::once("id").chain(COLUMNS.iter().map(|(name, ..)| *name)).collect()
}

async fn read(mut conn: mysql_async::Conn, sql: &str) -> Vec<Vec<Option<Vec<u8>>>> {
    let rows: Vec<mysql_async::Row> = conn.query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let cell = |cell| match cell {
        Cell::NULL => None,
        Cell::Bytes(bytes) => Some(bytes),
        other => panic!("the text protocol yields text only, not {other:?}"),
    };
    rows.into_iter().map(|row| row.unwrap().into_iter().map(cell).collect()).collect()
}

fn text(cell: &[u8]) -> &str {
    std::str::from_utf8(cell).expect("UTF-8")
}

/// Without the zeros that only say how exact a column is, and one way of writing a moment.
fn plain(cell: &[u8]) -> String {
    let text = text(cell).trim_start_matches('+');
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text.to_owned()
    }
}

fn is_same(how: As, expected: &[u8], arrived: &[u8]) -> bool {
    match how {
        As::Bytes if expected == arrived => true,
        // MariaDB writes the zeros of a fraction and the T of a text; a date in a column of moments is its midnight.
        As::Bytes => {
            let is_moment = arrived.len() >= 19 && arrived[4] == b'-' && arrived[13] == b':';
            let expected = String::from_utf8_lossy(expected).replace('T', " ");
            let expected = if expected.len() == 10 { format!("{expected} 00:00:00") } else { expected };
            is_moment && plain(expected.as_bytes()) == plain(arrived)
        }
        As::Number => plain(expected) == plain(arrived),
        As::Double => text(expected).parse::<f64>() == text(arrived).parse::<f64>(),
        As::Single => {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "MariaDB was asked for it in double precision"
            )]
            let expected = text(expected).parse::<f64>().map(|number| number as f32);
            expected == text(arrived).parse::<f32>()
        }
        As::Json => {
            let document = |cell| serde_json::from_slice::<Value>(cell).expect("JSON");
            document(expected) == document(arrived)
        }
    }
}

async fn assert_all_arrived(source: &MariaDb, target: &Standin) {
    let asked: Vec<&str> = COLUMNS.iter().map(|(.., asked, _)| *asked).collect();
    let expected =
        read(source.connect().await, &format!("SELECT id, {} FROM every ORDER BY id", asked.join(", ")))
            .await;
    let arrived =
        read(target.connect().await, &format!("SELECT {} FROM dw.every ORDER BY id", names().join(", ")))
            .await;
    assert_eq!((expected.len(), arrived.len()), (1 + ROWS.len(), 1 + ROWS.len()));
    for (expected, arrived) in expected.iter().zip(&arrived) {
        for ((name, from, to, _, how), (expected, arrived)) in
            COLUMNS.iter().zip(expected.iter().zip(arrived).skip(1))
        {
            let same = match (expected, arrived) {
                (Some(expected), Some(arrived)) => is_same(*how, expected, arrived),
                (expected, arrived) => expected == arrived,
            };
            let shown =
                |cell: &Option<Vec<u8>>| cell.as_ref().map(|cell| String::from_utf8_lossy(cell).into_owned());
            assert!(same, "{name} {from} into {to}: {:?} became {:?}", shown(expected), shown(arrived));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_arrives_as_it_left_in_both_formats() {
    let (source, target) = tokio::join!(MariaDb::start(), Standin::start(&[]));
    fill(&source).await;
    create_target(&target).await;
    let dir = workspace(&[source.datasource("source"), target.datasource("target", "dw")]);
    for format in ["csv", "json"] {
        let script = job(
            "mysql",
            json!({ "datasource": "source", "table": "every", "column": ["*"], "splitPk": "id" }),
            json!({ "datasource": "target", "table": "every", "column": ["*"],
                    "loadProps": { "format": format }, "preSql": ["truncate table @table"] }),
            json!({ "common": { "column": { "timeZone": "+08:00" } } }),
        );
        source.run(&["SET GLOBAL time_zone = '+08:00'"]).await;
        let report = run(dir.path(), &script, &["--workers", "1", "--new"]).await.succeeded().json();
        assert_eq!(report["rows_loaded"], 1 + ROWS.len(), "{report:#}");
        let warnings = report["warnings"].to_string();
        assert!(warnings.contains("(stamp) are written as times of the zone +08:00"), "{warnings}");
        assert_all_arrived(&source, &target).await;
    }
}

async fn plan(dir: &Path, script: &Value, flags: &[&str]) -> Outcome {
    let file = write_job(dir, script);
    let mut command = starlift(dir);
    command.arg("plan").arg(file).args(["--json", "--datasources", "datasources.toml"]).args(flags);
    output(command).await.into()
}

/// A MariaDB and a stand-in with a table each, of these columns behind `id`.
struct Place {
    source: MariaDb,
    target: Standin,
    dir: tempfile::TempDir,
}

impl Place {
    async fn start(source_columns: &str, target_columns: &str) -> Self {
        let (source, target) = tokio::join!(MariaDb::start(), Standin::start(&[]));
        source.run(&[&format!("CREATE TABLE t (id INT PRIMARY KEY, {source_columns})")]).await;
        let create = format!(
            "CREATE TABLE dw.t (id INT NOT NULL, {target_columns}) DUPLICATE KEY(id) DISTRIBUTED BY HASH(id) BUCKETS 1"
        );
        target.run(&["CREATE DATABASE dw", &create]).await;
        let dir = workspace(&[source.datasource("source"), target.datasource("target", "dw")]);
        Self { source, target, dir }
    }

    fn script(format: &str, on_error: &str, limit: u32) -> Value {
        job(
            "mysql",
            json!({ "datasource": "source", "table": "t", "column": ["*"], "splitPk": "id" }),
            json!({ "datasource": "target", "table": "t", "column": ["*"], "strategyOnError": on_error,
                    "loadProps": { "format": format }, "preSql": ["truncate table @table"] }),
            json!({ "errorLimit": { "record": limit } }),
        )
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs_that_would_be_changed_without_a_word_are_refused_with_what_to_write() {
    let pairs = [
        ("DECIMAL(10,4)", "DECIMAL(9,2)", "CAST(`c0` AS DECIMAL(9,2))"),
        ("DECIMAL(10,4)", "INT", "CAST(`c1` AS SIGNED)"),
        ("DOUBLE", "INT", "CAST(`c2` AS SIGNED)"),
        ("FLOAT", "BIGINT", "cut off the digits"),
        ("DATETIME(6)", "DATE", "CAST(`c4` AS DATE)"),
        ("INT", "BOOLEAN", "(`c5` <> 0)"),
        ("BIGINT", "DOUBLE", "(`c6` * 1e0)"),
        ("DOUBLE", "FLOAT", "single precision"),
        ("INT", "DATE", "STR_TO_DATE(`c8`, '%Y%m%d')"),
        ("BLOB", "STRING", "CONVERT(`c9` USING utf8mb4)"),
        ("TIME", "INT", "TIME_TO_SEC(`c10`)"),
        ("POINT", "STRING", "ST_AsText(`c11`)"),
        ("VARCHAR(20)", "DOUBLE", "(`c12` * 1e0)"),
        ("DATE", "INT", "no value of the one type is one of the other"),
        ("INT", "BITMAP", "bitmap_from_string"),
    ];
    let columns = |of: fn(&(&'static str, &'static str, &'static str)) -> &'static str| {
        let columns = pairs.iter().enumerate().map(|(index, pair)| format!("c{index} {}", of(pair)));
        columns.collect::<Vec<_>>().join(", ")
    };
    let place = Place::start(&columns(|pair| pair.0), &columns(|pair| pair.1)).await;
    let outcome = plan(place.dir.path(), &Place::script("csv", "exit", 0), &[]).await;
    assert_eq!(outcome.code, 2, "{outcome:?}");
    let said = format!("{}{}", outcome.stdout, outcome.stderr);
    for (index, (_, _, fragment)) in pairs.iter().enumerate() {
        assert!(
            said.contains(&format!("c{index} (")) && said.contains(fragment),
            "c{index}, {fragment}: {said}"
        );
    }

    // What the messages say to write does it.
    let mut script = Place::script("csv", "exit", 0);
    let (mut reader, mut writer) = (vec!["id".to_owned()], vec!["id".to_owned()]);
    for (index, (_, _, remedy)) in pairs.iter().enumerate() {
        if remedy.contains('`') {
            reader.push((*remedy).to_owned());
            writer.push(format!("c{index}"));
        }
    }
    *script.pointer_mut("/steps/0/parameter/column").expect("a list") = json!(reader);
    *script.pointer_mut("/steps/1/parameter/column").expect("a list") = json!(writer);
    plan(place.dir.path(), &script, &[]).await.succeeded();
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_would_be_changed_without_a_word_are_bad_rows_with_key_and_column() {
    let place = Place::start(
        "truth TINYINT(1), number VARCHAR(20), cents VARCHAR(20), day DATE, moment DATETIME, padded VARCHAR(9), doc TEXT",
        "truth BOOLEAN NULL, number INT NULL, cents DECIMAL(9,2) NULL, day DATE NULL, moment DATETIME NULL, \
         padded CHAR(40) NULL, doc JSON NULL",
    )
    .await;
    let bad = [
        ("truth", "5"),
        ("number", "'1.9'"),
        ("cents", "'0.005'"),
        ("day", "'0000-00-00'"),
        ("day", "'2024-02-00'"),
        ("moment", "'0000-00-00 00:00:00'"),
        ("padded", "'a\\0'"),
        ("doc", "'{'"),
    ];
    let inserts = (1..)
        .zip(&bad)
        .map(|(id, (column, value))| format!("INSERT INTO t (id, {column}) VALUES ({id}, {value})"));
    let good = "INSERT INTO t VALUES (100, 1, '7', '0.50', '2024-02-29', '2024-02-29 00:00:00', 'a', '[1]')";
    let statements: Vec<String> =
        std::iter::once("SET sql_mode = ''".to_owned()).chain(inserts).chain([good.into()]).collect();
    place.source.run(&statements.iter().map(String::as_str).collect::<Vec<_>>()).await;

    for format in ["csv", "json"] {
        let report = run(place.dir.path(), &Place::script(format, "batchDirtyData", 8), &["--new"]).await;
        let report = report.succeeded().json();
        assert_eq!((&report["rows_loaded"], &report["dirty_records"]), (&json!(1), &json!(8)), "{report:#}");
        let rows = report["bad_rows"].as_array().expect("the bad rows");
        for (id, (column, _)) in (1..).zip(&bad) {
            let told = rows.iter().find(|row| row["key"] == json!(format!("{id}")));
            assert_eq!(told.expect("the row is told")["column"], *column, "{rows:#?}");
        }

        let outcome = run(place.dir.path(), &Place::script(format, "exit", 0), &["--new"]).await;
        assert_eq!(outcome.code, 1, "{outcome:?}");
        let error = outcome.json()["error"].clone();
        let message = error["message"].as_str().expect("text");
        assert!(message.contains("the row with id = 1") && message.contains("column truth"), "{error:#}");
        assert_eq!(place.target.count("dw.t").await, 0);
    }

    // What the messages about zero dates say to write does it.
    let mut script = Place::script("csv", "exit", 0);
    script["steps"][0]["parameter"]["column"] = json!([
        "id",
        "IF(MONTH(day) = 0 OR DAYOFMONTH(day) = 0, NULL, day)",
        "NULLIF(moment, '0000-00-00 00:00:00')",
    ]);
    script["steps"][1]["parameter"]["column"] = json!(["id", "day", "moment"]);
    run(place.dir.path(), &script, &["--new"]).await.succeeded();
    assert_eq!(place.target.count("dw.t WHERE day IS NULL AND moment IS NULL").await, 8);
    assert_eq!(place.target.count("dw.t WHERE day = '2024-02-29'").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_and_nested_values_of_starrocks_arrive_and_bytes_that_are_no_text_are_told() {
    let target = Standin::start(&[]).await;
    let columns = "b VARBINARY NULL, big LARGEINT NULL, f FLOAT NULL, f2 FLOAT NULL, list ARRAY<INT> NULL, d DOUBLE NULL, \
                   truth BOOLEAN NULL, list2 ARRAY<INT> NULL";
    let ends = "DUPLICATE KEY(id) DISTRIBUTED BY HASH(id) BUCKETS 1";
    target
        .run(&[
            "CREATE DATABASE dw",
            &format!("CREATE TABLE dw.a (id INT NOT NULL, {columns}) {ends}"),
            &format!(
                "CREATE TABLE dw.b (id INT NOT NULL, {}) {ends}",
                columns.replace("f2 FLOAT", "f2 DOUBLE").replace("list2 ARRAY<INT>", "list2 JSON")
            ),
            &format!("CREATE TABLE dw.c (id INT NOT NULL, t STRING NULL) {ends}"),
            "INSERT INTO dw.a VALUES (1, X'00FFFE5C4E', 170141183460469231731687303715884105727, 0.1, 0.1, '[1,null]', \
             1e-300, true, '[3]')",
            "INSERT INTO dw.a VALUES (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
        ])
        .await;
    let dir = workspace(&[target.datasource("source", "dw"), target.datasource("target", "dw")]);
    let script = |to: &str, columns: Value, format: &str| {
        job(
            "starrocks",
            json!({ "datasource": "source", "table": "a", "column": columns, "splitPk": "id" }),
            json!({ "datasource": "target", "table": to, "column": ["*"], "loadProps": { "format": format } }),
            json!({}),
        )
    };
    run(dir.path(), &script("b", json!(["*"]), "json"), &["--new"]).await.succeeded();
    let rows = read(target.connect().await, "SELECT * FROM dw.b ORDER BY id").await;
    let first = [
        &b"1"[..],
        b"\x00\xff\xfe\x5c\x4e",
        b"170141183460469231731687303715884105727",
        b"0.1",
        b"0.10000000149011612",
        b"[1,null]",
        b"1e-300",
        b"1",
        b"[3]",
    ];
    let arrived: Vec<String> = rows[0]
        .iter()
        .map(|cell| String::from_utf8_lossy(cell.as_deref().unwrap_or(b"NULL")).replace(", ", ","))
        .collect();
    assert_eq!(arrived, first.map(|cell| String::from_utf8_lossy(cell).into_owned()));
    assert!(rows[1][1..].iter().all(Option::is_none), "{rows:?}");

    for format in ["csv", "json"] {
        let mut tolerant = script("c", json!(["id", "ifnull(b, b)"]), format);
        tolerant["steps"][1]["parameter"]["strategyOnError"] = json!("batchDirtyData");
        tolerant["setting"]["errorLimit"] = json!({ "record": 1 });
        let report = run(dir.path(), &tolerant, &["--new"]).await.succeeded().json();
        assert_eq!((&report["dirty_records"], &report["rows_loaded"]), (&json!(1), &json!(1)), "{report:#}");
        assert_eq!(
            (&report["bad_rows"][0]["key"], &report["bad_rows"][0]["column"]),
            (&json!("1"), &json!("t"))
        );

        let outcome = run(dir.path(), &script("c", json!(["id", "ifnull(b, b)"]), format), &["--new"]).await;
        assert_eq!(outcome.code, 1, "{outcome:?}");
        let error = outcome.json()["error"].clone();
        let message = error["message"].as_str().expect("text");
        assert!(message.contains("id = 1") && message.contains("no UTF-8 text"), "{error:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_table_is_created_from_the_source_and_the_job_runs_again_on_it() {
    let (source, target) = tokio::join!(MariaDb::start(), Standin::start(&[]));
    source
        .run(&[
            "CREATE TABLE goods (note VARCHAR(40) COMMENT 'it''s \"here\"', price DECIMAL(12,4) NOT NULL, raw VARBINARY(9), \
             shop BIGINT UNSIGNED NOT NULL, code VARCHAR(10) NOT NULL, at DATETIME(3), is_new TINYINT(1), doc JSON, \
             PRIMARY KEY (shop, code)) DEFAULT CHARSET utf8mb4",
            "INSERT INTO goods VALUES ('😀', 1.5, x'00ff', 18446744073709551615, 'ä', '2024-02-29 13:45:01.5', 1, '[1]'), \
             (NULL, 0.25, NULL, 0, 'b', NULL, NULL, NULL)",
        ])
        .await;
    target.run(&["CREATE DATABASE dw"]).await;
    let dir = workspace(&[source.datasource("source"), target.datasource("target", "dw")]);
    let script = |create: bool| {
        job(
            "mysql",
            json!({ "datasource": "source", "table": "goods", "column": ["*"] }),
            json!({ "datasource": "target", "table": "goods", "column": ["*"], "loadProps": {},
                    "preSql": ["truncate table @table"] }),
            json!({ "starlift": { "createTable": create } }),
        )
    };
    let shown = plan(dir.path(), &script(false), &["--create-table"]).await.succeeded().json();
    let ddl = shown["create_table"].as_str().expect("a statement");
    assert!(ddl.contains("  `shop` LARGEINT NOT NULL,\n  `code` VARCHAR(40) NOT NULL,\n"), "{ddl}");
    assert!(ddl.contains("`note` VARCHAR(160) NULL COMMENT 'it''s \"here\"'"), "{ddl}");
    assert!(
        ddl.contains("PRIMARY KEY(`shop`, `code`)\nDISTRIBUTED BY HASH(`shop`, `code`) BUCKETS 1"),
        "{ddl}"
    );
    target.run(&[ddl, "DROP TABLE dw.goods"]).await;

    let refused = plan(dir.path(), &script(false), &[]).await;
    assert!(refused.code == 2 && refused.stdout.contains("UNKNOWN_TABLE"), "{refused:?}");
    let planned = plan(dir.path(), &script(true), &[]).await.succeeded().json();
    assert_eq!(planned["pre_sql"], json!([ddl, "truncate table goods"]));
    assert_eq!(read(target.connect().await, "SHOW TABLES FROM dw").await.len(), 0, "a plan changes nothing");

    for round in 0..2 {
        let report = run(dir.path(), &script(true), &["--new"]).await.succeeded().json();
        assert_eq!(report["rows_loaded"], 2, "round {round}: {report:#}");
        let columns = "SELECT shop, code, note, price, raw, at, is_new FROM";
        let expected = read(source.connect().await, &format!("{columns} goods ORDER BY price")).await;
        let arrived = read(target.connect().await, &format!("{columns} dw.goods ORDER BY price")).await;
        for (expected, arrived) in expected.iter().flatten().zip(arrived.iter().flatten()) {
            let same = match (expected, arrived) {
                (Some(expected), Some(arrived)) => is_same(As::Bytes, expected, arrived),
                (expected, arrived) => expected == arrived,
            };
            assert!(same, "{expected:?} became {arrived:?}");
        }
        assert_eq!((expected.len(), arrived.len()), (2, 2));
    }
    let again = plan(dir.path(), &script(true), &[]).await.succeeded().json();
    assert_eq!(again["pre_sql"], json!(["truncate table goods"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_are_measured_on_request_and_then_fit_or_are_refused() {
    let place = Place::start("a VARCHAR(50), b VARCHAR(50)", "a VARCHAR(12) NULL, b VARCHAR(11) NULL").await;
    place
        .source
        .run(&["ALTER TABLE t CONVERT TO CHARACTER SET utf8mb4", "INSERT INTO t VALUES (1, '😀😀😀', 'abc')"])
        .await;
    let script = Place::script("csv", "exit", 0);
    let warned = plan(place.dir.path(), &script, &[]).await.succeeded().json()["warnings"].to_string();
    assert!(warned.contains("a (up to 200 bytes, a takes 12), b (up to 200 bytes, b takes 11)"), "{warned}");
    let measured = plan(place.dir.path(), &script, &["--probe-lengths"]).await.succeeded().json();
    assert!(!measured["warnings"].to_string().contains("bytes"), "{measured:#}");
    place.source.run(&["INSERT INTO t VALUES (2, '😀😀😀', '😀😀😀')"]).await;
    let refused = plan(place.dir.path(), &script, &["--probe-lengths"]).await;
    assert_eq!(refused.code, 2, "{refused:?}");
    let said = format!("{}{}", refused.stdout, refused.stderr);
    assert!(said.contains("the longest value has 12 bytes and the column takes 11"), "{said}");
    assert!(said.contains("b (varchar(50)) cannot go into b (varchar(11))"), "{said}");
}
