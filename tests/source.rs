//! The row source against a real MariaDB: every value is the one that the control connections' driver gets, whatever
//! its type and length; encryption as `ssl` asks for it; a statement that nobody reads any more is killed.

use std::collections::BTreeSet;
use std::path::Path;

use mysql_async::Value;
use mysql_async::prelude::Queryable;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use starlift_common::datasource::{Datasource, Datasources};
use starlift_common::job::{ReadSpec, SourceKind};
use starlift_common::problem::{Code, Problem};
use starlift_common::query;
use starlift_common::row::Row;
use starlift_common::task::TaskRange;
use starlift_worker::row_path::RawRows;

use crate::mariadb::{DATABASE, MariaDb};
use crate::process::until;

type Cells = Vec<Option<Vec<u8>>>;

fn datasource(database: &MariaDb, more: &str) -> Datasource {
    let entry = format!("{}{more}", database.datasource("shop"));
    let all = Datasources::parse(&entry, &|_| None).expect("a good entry");
    all.get("shop").expect("it is there").clone()
}

fn read_of(select: &[&str], table: &str) -> ReadSpec {
    let select: Vec<String> = select.iter().map(|&expression| expression.to_owned()).collect();
    ReadSpec {
        datasource: "shop".into(),
        kind: SourceKind::Mysql,
        database: DATABASE.into(),
        table: table.into(),
        hint: None,
        names: select.clone(),
        select,
        filter: None,
        key: None,
        time_zone: None,
        query: None,
    }
}

fn cells(row: Row<'_>) -> Cells {
    row.cells().map(|cell| cell.map(<[u8]>::to_vec)).collect()
}

async fn by_source(datasource: &Datasource, read: &ReadSpec) -> Result<(Vec<Cells>, bool), Problem> {
    let mut source = RawRows::open(datasource, read, &TaskRange::Whole).await?;
    let mut rows = Vec::new();
    while source.next_batch(|row| rows.push(cells(row))).await? {}
    Ok((rows, source.is_utf8()))
}

async fn by_driver(database: &MariaDb, read: &ReadSpec) -> Vec<Cells> {
    let rows: Vec<mysql_async::Row> =
        database.connect().await.query(query::select(read, &TaskRange::Whole)).await.expect("rows");
    let cell = |value| match value {
        Value::NULL => None,
        Value::Bytes(bytes) => Some(bytes),
        other => panic!("{other:?} is not of the text protocol"),
    };
    rows.into_iter().map(|row| row.unwrap().into_iter().map(cell).collect()).collect()
}

/// Reads both ways; fails with the first cell that differs. Returns the rows and whether the source promised UTF-8.
async fn compare(database: &MariaDb, read: &ReadSpec) -> (Vec<Cells>, bool) {
    let (rows, is_utf8) = by_source(&datasource(database, ""), read).await.expect("rows");
    let expected = by_driver(database, read).await;
    assert_eq!(rows.len(), expected.len());
    for (number, (row, expected)) in rows.iter().zip(&expected).enumerate() {
        for ((cell, expected), name) in row.iter().zip(expected).zip(&read.names) {
            assert!(
                cell == expected,
                "row {number}, {name}: {:?}... is not {:?}...",
                head(cell),
                head(expected)
            );
        }
    }
    (rows, is_utf8)
}

fn head(cell: &Option<Vec<u8>>) -> Option<&[u8]> {
    cell.as_ref().map(|cell| &cell[..cell.len().min(40)])
}

const TYPES: &[&str] = &[
    "tiny TINYINT",
    "tiny_unsigned TINYINT UNSIGNED",
    "small SMALLINT",
    "medium MEDIUMINT UNSIGNED",
    "number INT",
    "big BIGINT",
    "big_unsigned BIGINT UNSIGNED",
    "filled INT(8) ZEROFILL",
    "exact DECIMAL(65,30)",
    "single FLOAT",
    "twofold DOUBLE",
    "bits BIT(17)",
    "day DATE",
    "moment DATETIME(6)",
    "stamp TIMESTAMP(6) NULL",
    "span TIME(6)",
    "in_year YEAR",
    "fixed CHAR(5)",
    "varied VARCHAR(300)",
    "western VARCHAR(50) CHARACTER SET latin1",
    "narrow VARCHAR(50) CHARACTER SET utf8mb3",
    "words LONGTEXT",
    "document JSON",
    "one_of ENUM('a', 'ö', '')",
    "some_of SET('x', 'y', 'z')",
    "fixed_bytes BINARY(4)",
    "varied_bytes VARBINARY(300)",
    "many_bytes LONGBLOB",
    "shape GEOMETRY",
    "address INET6",
    "identity UUID",
];

#[tokio::test(flavor = "multi_thread")]
async fn every_type_arrives_as_the_driver_gets_it() {
    let database = MariaDb::start().await;
    database
        .run(&[
            "SET GLOBAL max_allowed_packet = 67108864",
            &format!("CREATE TABLE every (id INT PRIMARY KEY, {})", TYPES.join(", ")),
            "INSERT INTO every (id) VALUES (1)",
            "INSERT INTO every VALUES (2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, b'0', '0001-01-01', '1000-01-01', \
             '1970-01-02', '00:00:00', 0, '', '', '', '', '', '{}', '', '', '', '', '', POINT(0, 0), '::', \
             '00000000-0000-0000-0000-000000000000')",
            "INSERT INTO every VALUES (3, -128, 255, -32768, 16777215, -2147483648, -9223372036854775808, \
             18446744073709551615, 42, -12345678901234567890123456789012345.123456789012345678901234567891, \
             -1.17549e-38, 2.2250738585072014e-308, b'11111111111111111', '9999-12-31', \
             '9999-12-31 23:59:59.999999', '2038-01-19 03:14:07.999999', '-838:59:59.000001', 2155, 'a  ', \
             REPEAT('€', 300), 'Zürich €', 'ß', '😀\\\\\\t\\n\\'\"\\0', '{\"k\": [1, \"😀\"]}', 'ö', 'x,z', \
             x'00ff00ff', REPEAT(x'fe', 251), x'fffefdfcfb', ST_GeomFromText('LINESTRING(1 2, 3 4)'), '2001:db8::1', \
             'ffffffff-ffff-ffff-ffff-ffffffffffff')",
            "INSERT INTO every (id, words, many_bytes) SELECT 10 + seq, REPEAT('x', 248 + seq), \
             REPEAT('y', 65533 + seq) FROM seq_0_to_5",
        ])
        .await;
    // The statements above ran before connections may send so much.
    database
        .run(&[
            "INSERT INTO every (id, many_bytes, number) VALUES (20, REPEAT('z', 20971520), 20)",
            "INSERT INTO every (id, many_bytes) SELECT 21 + seq, REPEAT('z', 16777205 + seq) FROM seq_0_to_9",
        ])
        .await;
    let names: Vec<&str> = TYPES.iter().filter_map(|column| column.split(' ').next()).collect();
    let (rows, is_utf8) = compare(&database, &read_of(&[&["id"], &names[..]].concat(), "every")).await;
    assert_eq!(rows.len(), 20);
    assert!(!is_utf8, "there are bytes among the columns");
    let lengths: Vec<usize> = rows.iter().flatten().flatten().map(Vec::len).collect();
    assert!(lengths.contains(&20_971_520) && lengths.contains(&16_777_210));

    let text: Vec<&str> = names.iter().copied().filter(|name| !BYTES.contains(name)).collect();
    let (rows, is_utf8) = compare(&database, &read_of(&text, "every")).await;
    assert!(is_utf8, "the server converts all of them");
    assert!(rows.iter().flatten().flatten().all(|cell| std::str::from_utf8(cell).is_ok()));
    for bytes in BYTES {
        assert!(!compare(&database, &read_of(&[bytes], "every")).await.1, "{bytes}");
    }
}

const BYTES: &[&str] = &["bits", "fixed_bytes", "varied_bytes", "many_bytes", "shape"];

#[tokio::test(flavor = "multi_thread")]
async fn many_rows_arrive_whole_and_in_order() {
    let database = MariaDb::start().await;
    let read = read_of(&["seq", "REPEAT('v', seq % 700)", "NULLIF(seq % 3, 0)"], "seq_1_to_100000");
    compare(&database, &read).await;
    let nothing = read_of(&["seq"], "seq_1_to_10");
    let nothing = ReadSpec { filter: Some("seq > 10".into()), ..nothing };
    assert_eq!(compare(&database, &nothing).await.0, Vec::<Cells>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_column_lets_nothing_out_that_is_not_utf_8_but_surrogates() {
    let database = MariaDb::start().await;
    database.run(&["CREATE TABLE notes (id INT, note VARCHAR(20) CHARACTER SET utf8mb4)"]).await;
    let mut conn = database.connect().await;
    conn.query_drop("SET sql_mode = ''").await.expect("a lenient session");
    for bytes in ["ff", "c3", "eda080", "f4908080", "c080", "61e282"] {
        let _refused_or_mended = conn
            .query_drop(format!("INSERT INTO notes VALUES (1, x'{bytes}'), (2, _utf8mb4 x'{bytes}')"))
            .await;
        let _refused_or_mended =
            conn.query_drop(format!("INSERT INTO notes VALUES (3, CONVERT(x'{bytes}' USING utf8mb4))")).await;
    }
    conn.query_drop("INSERT INTO notes VALUES (4, 'ä')").await.expect("a good text");
    let (rows, is_utf8) = compare(&database, &read_of(&["id", "note"], "notes")).await;
    assert!(is_utf8 && !rows.is_empty());
    let notes = rows.iter().filter_map(|row| row[1].as_deref());
    let broken: BTreeSet<&[u8]> = notes.filter(|note| std::str::from_utf8(note).is_err()).collect();
    // MySQL refuses these too. StarRocks refuses a row with them by itself.
    assert_eq!(broken, BTreeSet::from([&b"\xed\xa0\x80"[..]]));
}

/// Certificate and key of a server, both signed by the authority whose certificate stands beside them.
fn certify(dir: &Path) {
    let mut params = CertificateParams::new(Vec::new()).expect("good parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let authority = CertifiedIssuer::self_signed(params, key).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let server = CertificateParams::new(vec!["elsewhere.example".to_owned()]).expect("good parameters");
    let server = server.signed_by(&key, &authority).expect("a certificate");
    for (name, text) in
        [("ca.pem", authority.pem()), ("cert.pem", server.pem()), ("key.pem", key.serialize_pem())]
    {
        std::fs::write(dir.join(name), text).expect("the test's directory is writable");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_encrypted_as_the_data_source_asks() {
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
    let (ours, other) =
        (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    certify(ours.path());
    certify(other.path());
    let option = |name: &str| format!("--ssl-{name}={}", ours.path().join(format!("{name}.pem")).display());
    let database = MariaDb::start_with("127.0.0.1", &[option("cert"), option("key")]).await;
    let plain = MariaDb::start().await;
    let cipher = "(SELECT variable_value FROM information_schema.session_status \
                  WHERE variable_name = 'Ssl_cipher')";
    let read = read_of(&[cipher, "REPEAT('v', 1000)"], "seq_1_to_5000");
    let is_encrypted = async |database: &MariaDb, ssl: &str| {
        let rows = by_source(&datasource(database, ssl), &read).await?.0;
        assert_eq!(rows.len(), 5000);
        Ok::<_, Problem>(rows[0][0].as_ref().is_some_and(|cipher| !cipher.is_empty()))
    };
    let verify = |dir: &Path| format!("ssl = \"verify-ca\"\nssl_ca = \"{}\"\n", dir.join("ca.pem").display());

    assert!(!is_encrypted(&database, "").await.expect("rows"));
    assert!(is_encrypted(&database, "ssl = \"prefer\"\n").await.expect("rows"));
    assert!(is_encrypted(&database, &verify(ours.path())).await.expect("the name does not matter"));
    let refused = is_encrypted(&database, &verify(other.path())).await.expect_err("another authority");
    assert_eq!(refused.code, Code::ConnectFailed, "{refused}");

    assert!(!is_encrypted(&plain, "ssl = \"prefer\"\n").await.expect("rows"));
    let refused = is_encrypted(&plain, &verify(ours.path())).await.expect_err("nothing to verify");
    assert_eq!(refused.code, Code::ConnectFailed, "{refused}");
}

/// Sends so many rows and then computes for minutes, which no closed connection ends. Waiting would not do: there the
/// server looks after its client.
fn slow_after(rows: u32) -> ReadSpec {
    let work = format!("BENCHMARK(IF(seq > {rows}, 2000000000, 0), MD5('x'))");
    read_of(&["REPEAT('v', 40000)", &work], "seq_1_to_10")
}

async fn is_running(database: &MariaDb) -> bool {
    let mut conn = database.connect().await;
    let sql = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE '%BENCHMARK(IF(%' \
               AND id <> CONNECTION_ID()";
    let running: Option<u64> = conn.query_first(sql).await.expect("an answer");
    running != Some(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_nobody_reads_is_killed() {
    let database = MariaDb::start().await;
    let shop = datasource(&database, "");
    let mut source = RawRows::open(&shop, &slow_after(3), &TaskRange::Whole).await.expect("it answers");
    let mut rows = 0;
    while rows == 0 {
        assert!(source.next_batch(|_| rows += 1).await.expect("rows"));
    }
    until("the statement to compute", || is_running(&database)).await;
    drop(source);
    until("the statement to be gone", || async { !is_running(&database).await }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_given_up_before_it_answers_is_killed() {
    let database = MariaDb::start().await;
    let shop = datasource(&database, "");
    let opening = tokio::spawn(async move {
        let opened = RawRows::open(&shop, &slow_after(0), &TaskRange::Whole).await;
        opened.is_ok()
    });
    until("the statement to compute", || is_running(&database)).await;
    opening.abort();
    until("the statement to be gone", || async { !is_running(&database).await }).await;
}
