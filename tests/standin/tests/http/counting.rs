//! Counting mode: the rows of every kind of body add up to what a reader of the same rows computes by itself.

use std::io::Write as _;

use serde_json::{Value, json};
use starrocks_standin::Config;

use crate::client::{Server, curl};

type Row = [Option<&'static str>; 3];

const ROWS: [Row; 6] = [
    [Some("1"), Some("tea"), Some("5")],
    [Some("2"), None, Some("-7")],
    [Some("3"), Some(""), None],
    [Some("4"), Some("sl\\ash"), Some("0")],
    [Some("5"), Some("Zürich 😀"), Some("12")],
    // Twice the same row counts twice.
    [Some("1"), Some("tea"), Some("5")],
];

/// Rows, bytes and hash as the control port is to tell them; no cell here needs an escape.
fn reference(rows: &[Row]) -> Value {
    let (mut bytes, mut hash) = (0, 0_u64);
    for row in rows {
        let text = row.map(|cell| cell.unwrap_or("\\N")).join("\u{1}");
        bytes += text.len();
        hash = hash.wrapping_add(xxhash_rust::xxh3::xxh3_64(text.as_bytes()));
    }
    json!({ "rows": rows.len(), "bytes": bytes, "hash": format!("{hash:016x}") })
}

fn csv(rows: &[Row], separator: &str, delimiter: &str) -> Vec<u8> {
    rows.iter()
        .map(|row| row.map(|cell| cell.unwrap_or("\\N")).join(separator) + delimiter)
        .collect::<String>()
        .into_bytes()
}

fn json_array(rows: &[Row]) -> Vec<u8> {
    let number = |cell: Option<&str>| cell.map_or(Value::Null, |text| text.parse::<i64>().unwrap().into());
    let objects: Vec<Value> = rows
        .iter()
        .map(|[id, name, amount]| json!({ "id": number(*id), "name": name, "amount": number(*amount) }))
        .collect();
    serde_json::to_vec(&objects).unwrap()
}

fn counting() -> Server {
    Server::with(Config { count_only: true, ..Config::default() })
}

fn digest(server: &Server) -> Value {
    let url = format!("http://{}/digest?table=shop.orders", server.standin().addresses().control);
    curl("GET", &url).send().json()
}

fn truncate(server: &Server) {
    server.sql("TRUNCATE TABLE shop.orders");
    assert_eq!(digest(server), reference(&[]));
}

/// One plain load to the backend, which must take all rows.
fn load(server: &Server, headers: &[&str], body: Vec<u8>) {
    let url = format!("http://{}/api/shop/orders/_stream_load", server.be(0));
    let reply = curl("PUT", &url).headers(headers).body(body).send();
    assert_eq!(reply.status(), "Success", "{headers:?}: {}", reply.body);
    assert_eq!(reply.number("NumberLoadedRows"), ROWS.len() as u64, "{headers:?}");
}

#[test]
fn csv_under_any_delimiters_has_the_hash_of_its_rows() {
    let server = counting();
    for (separator, delimiter, names) in [
        ("\u{1}", "\u{2}", ["column_separator: \\x01", "row_delimiter: \\x02"]),
        (",", "\n", ["column_separator: ,", "row_delimiter: \\n"]),
        ("\u{2}", "\u{1}", ["column_separator: \\x02", "row_delimiter: \\x01"]),
        ("||", "\r\n", ["column_separator: ||", "row_delimiter: \\x0d0a"]),
    ] {
        load(&server, &names, csv(&ROWS, separator, delimiter));
        assert_eq!(digest(&server), reference(&ROWS), "{names:?}");
        truncate(&server);
    }
    let turned = ["column_separator: ,", "columns: amount, id, name"];
    load(&server, &turned, csv(&ROWS.map(|[id, name, amount]| [amount, id, name]), ",", "\n"));
    assert_eq!(digest(&server), reference(&ROWS));
}

#[test]
fn json_and_packed_bodies_have_the_same_hash() {
    let server = counting();
    let body = json_array(&ROWS);
    let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
    lz4.write_all(&csv(&ROWS, "\t", "\n")).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&csv(&ROWS, "\t", "\n")).unwrap();
    for (headers, body) in [
        (vec!["format: json", "strip_outer_array: true"], body.clone()),
        (
            vec!["format: json", "strip_outer_array: true", "compression: zstd"],
            zstd::encode_all(body.as_slice(), 1).unwrap(),
        ),
        (vec!["format: lz4"], lz4.finish().unwrap()),
        (vec!["format: gzip"], gzip.finish().unwrap()),
        (vec!["format: zstd"], zstd::encode_all(csv(&ROWS, "\t", "\n").as_slice(), 1).unwrap()),
    ] {
        load(&server, &headers, body);
        assert_eq!(digest(&server), reference(&ROWS), "{headers:?}");
        truncate(&server);
    }
    // A record that is not plain sends the whole body through the full reader, and counts once.
    let url = format!("http://{}/api/shop/orders/_stream_load", server.be(0));
    let plain = String::from_utf8(json_array(&ROWS)).unwrap();
    let odd = plain.replacen(']', ",{\"id\":9,\"name\":[1,2]}]", 1);
    let reply = curl("PUT", &url).headers(&["format: json", "strip_outer_array: true"]).body(odd).send();
    assert_eq!(reply.number("NumberLoadedRows"), ROWS.len() as u64 + 1);
    let mut rows = vec![[Some("9"), Some("[1,2]"), None]];
    rows.extend(ROWS);
    assert_eq!(digest(&server), reference(&rows));
}

#[test]
fn values_that_look_like_marks_have_hashes_of_their_own() {
    let server = counting();
    let hash_of = |body: &str| {
        let url = format!("http://{}/api/shop/orders/_stream_load", server.be(0));
        let reply = curl("PUT", &url).headers(&["format: json", "strip_outer_array: true"]).body(body).send();
        assert_eq!(reply.status(), "Success", "{}", reply.body);
        let digest = digest(&server);
        truncate(&server);
        digest["hash"].as_str().unwrap().to_owned()
    };
    let bodies = [
        r#"[{"id":1,"name":null,"amount":null}]"#,
        r#"[{"id":1,"name":"\\N","amount":null}]"#,
        r#"[{"id":1,"name":"\u0001\\N","amount":null}]"#,
        r#"[{"id":1,"name":"\u0002a\\N","amount":null}]"#,
        r#"[{"id":1,"name":"\u0002N","amount":null}]"#,
    ];
    let mut hashes = bodies.map(hash_of).to_vec();
    hashes.sort();
    hashes.dedup();
    assert_eq!(hashes.len(), bodies.len());
}

#[test]
fn only_committed_transactions_count_and_short_rows_are_filtered() {
    let server = counting();
    server.prepared("kept", "1,tea,5\n");
    server.prepared("dropped", "2,milk,5\n");
    assert_eq!(digest(&server), reference(&[]));
    assert_eq!(server.op("commit", "kept").status(), "OK");
    assert_eq!(server.op("rollback", "dropped").status(), "OK");
    assert_eq!(digest(&server), reference(&ROWS[..1]));
    assert_eq!(server.rows(), 1);
    assert_eq!(server.sql("SELECT COUNT(*) AS cnt FROM shop.orders"), "1\n");
    assert_eq!(server.sql("SELECT COUNT(*) cnt FROM shop.orders"), "1\n");
    assert_eq!(server.sql("SELECT * FROM shop.orders"), "");
    let short = server.load(&["column_separator: ,"], "3,x\n");
    short.expect("Fail", "too many filtered rows");
    assert_eq!(short.number("NumberFilteredRows"), 1);
    assert_eq!(digest(&server), reference(&ROWS[..1]));
}
