//! Checklist 18 to 38: what one stream load does with its rows.

use starrocks_standin::{Config, Op};

use crate::client::{Server, curl, eventually};

const CSV: &str = "column_separator: ,";
const STRICT: &str = "strict_mode: true";

#[test]
fn c18_a_good_load_is_success_with_exact_counts() {
    let server = Server::new();
    let reply = server.load(&[CSV, "label: good"], "1,a,10\n2,b,20\n3,c,30\n");
    reply.expect("Success", "OK");
    assert_eq!(reply.text("Label"), "good");
    assert_eq!(reply.number("NumberTotalRows"), 3);
    assert_eq!(reply.number("NumberLoadedRows"), 3);
    assert_eq!(reply.number("NumberFilteredRows"), 0);
    assert_eq!(reply.number("NumberUnselectedRows"), 0);
    assert_eq!(reply.number("LoadBytes"), 21);
    assert!(reply.number("TxnId") > 0);
    assert_eq!(server.state("good"), "VISIBLE");
    assert_eq!(server.sql("SELECT * FROM shop.orders ORDER BY id"), "1\ta\t10\n2\tb\t20\n3\tc\t30\n");
}

#[test]
fn c19_a_used_label_is_reported_as_finished_and_loads_nothing() {
    let server = Server::new();
    server.load(&[CSV, "label: once"], "1,a,10\n").expect("Success", "OK");
    let again = server.load(&[CSV, "label: once"], "1,a,10\n");
    again.expect("Label Already Exists", "has already been used");
    assert_eq!(again.text("ExistingJobStatus"), "FINISHED");
    assert_eq!(again.json()["TxnId"], -1);
    assert_eq!(server.rows(), 1);
}

#[test]
fn c20_a_label_in_use_is_reported_as_running() {
    let server = Server::new();
    server.op("begin", "busy");
    let reply = server.load(&[CSV, "label: busy"], "1,a,10\n");
    reply.expect("Label Already Exists", "has already been used");
    assert_eq!(reply.text("ExistingJobStatus"), "RUNNING");
}

#[test]
fn c20_label_conflicts_come_as_fail_in_the_wrapped_variant() {
    let server = Server::with(Config { wrapped_begin_errors: true, ..Config::default() });
    server.load(&[CSV, "label: once"], "1,a,10\n").expect("Success", "OK");
    let again = server.load(&[CSV, "label: once"], "1,a,10\n");
    again.expect("Fail", "Label [once] has already been used.");
    assert!(again.json().get("ExistingJobStatus").is_none());
    server
        .load(&[CSV, "label: a.b"], "1,a,10\n")
        .expect("Fail", "error_msg:cancel stream task for exception: Label format error");
}

#[test]
fn c21_the_label_of_a_failed_load_is_free() {
    let server = Server::new();
    server.load(&[CSV, "label: retry", STRICT], "x,a,10\n").expect("Fail", "too many filtered rows");
    assert_eq!(server.state("retry"), "ABORTED");
    server.load(&[CSV, "label: retry", STRICT], "1,a,10\n").expect("Success", "OK");
    assert_eq!(server.state("retry"), "VISIBLE");
}

#[test]
fn c22_labels_belong_to_a_database() {
    let server = Server::new();
    server.load_into("shop/orders", &[CSV, "label: same"], "1,a,10\n").expect("Success", "OK");
    server.load_into("other/orders", &[CSV, "label: same"], "1,a,10\n").expect("Success", "OK");
}

#[test]
fn c23_a_label_has_one_to_128_word_characters() {
    let server = Server::new();
    for label in [format!("label: {}", "x".repeat(129)), "label: a b".into(), "label: a.b".into()] {
        server.load(&[CSV, &label], "1,a,10\n").expect("Fail", "Label format error");
    }
    server.load(&[CSV, &format!("label: {}", "x".repeat(128))], "1,a,10\n").expect("Success", "OK");
}

#[test]
fn c24_a_missing_label_is_made_up() {
    let server = Server::new();
    let reply = server.load(&[CSV], "1,a,10\n");
    assert!(reply.text("Label").len() >= 32);
    assert_eq!(server.state(&reply.text("Label")), "VISIBLE");
}

#[test]
fn c25_slow_publication_is_publish_timeout_and_the_rows_come_by_themselves() {
    let server = Server::with(Config { be_publish_wait_ms: 50, ..Config::default() });
    server
        .standin()
        .faults()
        .push(starrocks_standin::Fault::once(Op::Publish, starrocks_standin::Action::Hold));
    server
        .load(&[CSV, "label: slow"], "1,a,10\n")
        .expect("Publish Timeout", "Publish timeout. The data will be visible after a while");
    assert_eq!(server.state("slow"), "COMMITTED");
    assert_eq!(server.rows(), 0);
    server.standin().faults().release();
    eventually("VISIBLE", || server.state("slow") == "VISIBLE");
    assert_eq!(server.rows(), 1);
}

#[test]
fn c26_backslash_n_is_null_and_filtered_where_null_is_not_allowed() {
    let server = Server::new();
    let reply = server.load(&[CSV, "max_filter_ratio: 0.5"], "1,\\N,\\N\n\\N,b,20\n");
    reply.expect("Success", "OK");
    assert_eq!((reply.number("NumberLoadedRows"), reply.number("NumberFilteredRows")), (1, 1));
    assert_eq!(server.sql("SELECT * FROM shop.orders"), "1\tNULL\tNULL\n");
}

#[test]
fn c27_an_empty_field_is_an_empty_text_but_no_number() {
    let server = Server::new();
    server.load(&[CSV], "1,,\n").expect("Success", "OK");
    assert_eq!(server.sql("SELECT name = '', amount IS NULL FROM shop.orders"), "1\t1\n");
    server.load(&[CSV, STRICT], "2,,\n").expect("Fail", "too many filtered rows");
}

#[test]
fn c28_a_text_in_a_number_column_is_null_or_filtered_by_mode() {
    let server = Server::new();
    let reply = server.load(&[CSV], "1,a,abc\n");
    reply.expect("Success", "OK");
    assert_eq!(server.sql("SELECT amount IS NULL FROM shop.orders"), "1\n");
    let strict = server.load(&[CSV, STRICT], "2,a,abc\n");
    strict.expect("Fail", "too many filtered rows");
    assert_eq!(strict.number("NumberFilteredRows"), 1);
    assert_eq!(server.rows(), 1);
}

#[test]
fn c29_a_text_too_long_is_null_or_filtered_by_mode() {
    let server = Server::new();
    server.load(&[CSV], "1,elf Zeichen,1\n").expect("Success", "OK");
    assert_eq!(server.sql("SELECT name IS NULL FROM shop.orders"), "1\n");
    server.load(&[CSV, STRICT], "2,äöüäöü,1\n").expect("Fail", "too many filtered rows");
}

#[test]
fn c30_a_wrong_number_of_columns_is_filtered_in_both_modes_with_an_error_url() {
    let server = Server::new();
    for mode in ["strict_mode: false", STRICT] {
        for row in ["1,a\n", "1,a,2,3\n", "1,a,2,\n"] {
            let reply = server.load(&[CSV, mode], row);
            reply.expect("Fail", "too many filtered rows");
            assert!(reply.text("ErrorURL").contains("/api/_load_error_log?file=error_log_"));
        }
    }
}

#[test]
fn c31_a_filter_ratio_lets_bad_rows_go() {
    let server = Server::new();
    let reply = server.load(&[CSV, STRICT, "max_filter_ratio: 0.5"], "1,a,1\nx,b,2\n3,c,3\n");
    reply.expect("Success", "OK");
    assert_eq!((reply.number("NumberFilteredRows"), reply.number("NumberTotalRows")), (1, 3));
    assert_eq!(server.rows(), 2);
}

#[test]
fn c32_rows_rejected_by_where_are_unselected() {
    let server = Server::new();
    let reply = server.load(
        &[CSV, "columns: id, name, amount", "where: amount > 9 and name <> 'c'"],
        "1,a,9\n2,b,10\n3,c,11\n",
    );
    reply.expect("Success", "OK");
    assert_eq!((reply.number("NumberLoadedRows"), reply.number("NumberUnselectedRows")), (1, 2));
    assert_eq!(server.sql("SELECT id FROM shop.orders"), "2\n");
}

#[test]
fn c33_no_rows_at_all_is_a_failure() {
    let server = Server::new();
    for body in ["", "\n\n"] {
        server.load(&[CSV, "label: empty"], body).expect("Fail", "all partitions have no load data");
    }
    assert_eq!(server.state("empty"), "ABORTED");
}

#[test]
fn c34_the_error_url_shows_reasons_and_rows_without_credentials() {
    let server = Server::new();
    let body: String = (0..80).map(|row| format!("{row},foo\n")).collect();
    let url = server.load(&[CSV], &body).text("ErrorURL");
    let reply = curl("GET", &url).user(None).send();
    assert_eq!(reply.code(), 200);
    assert!(reply.header("Content-Type").unwrap().starts_with("text/plain"));
    assert!(reply.body.lines().count() <= 50, "{}", reply.body);
    let first = reply.body.lines().next().unwrap();
    assert!(first.starts_with("Error: ") && first.ends_with(". Row: 0,foo"), "{first}");
    assert!(first.contains("expected = 3, actual = 2"), "{first}");
}

#[test]
fn c35_delimiters_are_given_in_hex() {
    let server = Server::new();
    let body = "1\u{1}a\u{1}10\u{2}2\u{1}b\u{1}20\u{2}";
    server.load(&["column_separator: \\x01", "row_delimiter: \\x02"], body).expect("Success", "OK");
    let body = "3\u{1}\u{2}c\u{1}\u{2}30\n";
    server.load(&["column_separator: \\x0102"], body).expect("Success", "OK");
    assert_eq!(server.sql("SELECT * FROM shop.orders ORDER BY id"), "1\ta\t10\n2\tb\t20\n3\tc\t30\n");
    server.load(&["column_separator: \\x0"], body).expect("Fail", "Invalid delimiter");
}

#[test]
fn c36_json_objects_follow_each_other_or_stand_in_an_array() {
    let server = Server::new();
    let lines = "{\"id\":1,\"name\":\"a\"}\n{\"id\":2,\"NAME\":\"b\",\"amount\":\"20\"}";
    server.load(&["format: json"], lines).expect("Success", "OK");
    let array = "[{\"id\":3,\"name\":{\"x\":1},\"amount\":true},{\"id\":4,\"name\":null}]";
    server.load(&["format: json", "strip_outer_array: true"], array).expect("Success", "OK");
    let want = "1\ta\tNULL\n2\tNULL\t20\n3\t{\"x\":1}\t1\n4\tNULL\tNULL\n";
    assert_eq!(server.sql("SELECT * FROM shop.orders ORDER BY id").replace("\": ", "\":"), want);
    server.load(&["format: json"], array).expect("Fail", "strip_outer_array");
    server.load(&["format: json"], "{\"id\":5},").expect("Fail", "Unrecognized json format");
}

#[test]
fn c36_json_paths_are_positional() {
    let server = Server::new();
    let headers = ["format: json", "jsonpaths: [\"$.key\",\"$.v[1]\"]", "columns: id, name"];
    server.load(&headers, "{\"key\":7,\"v\":[\"x\",\"y\"]}").expect("Success", "OK");
    assert_eq!(server.sql("SELECT id, name, amount IS NULL FROM shop.orders"), "7\ty\t1\n");
}

#[test]
fn c37_exclusive_headers_exclude_each_other() {
    let server = Server::new();
    let both = [CSV, "partitions: p1", "temporary_partitions: p2"];
    server.load(&both, "1,a,1\n").expect("Fail", "Can not specify both partitions and temporary partitions");
    let both = ["format: json", "compression: gzip", "Content-Encoding: gzip"];
    server
        .load(&both, "{}")
        .expect("Fail", "Only one of http header content-encoding and compression can be set");
}

#[test]
fn c38_booleans_datetimes_decimals_and_large_integers_are_read() {
    let server = Server::new();
    let body = "1,true,2024-02-29 13:45:01,1.5,170141183460469231731687303715884105727\n\
                2,0,2024-02-29 13:45:01.5,-12.345,\\N\n\
                3,TRUE,2024-02-29T13:45:01.123456,7,-1\n\
                4,1,2024-02-29,0.005,0\n";
    server.load_into("shop/kinds", &[CSV, STRICT], body).expect("Success", "OK");
    let want = "1\t1\t2024-02-29 13:45:01\t1.50\t170141183460469231731687303715884105727\n\
                2\t0\t2024-02-29 13:45:01.500000\t-12.35\tNULL\n\
                3\t1\t2024-02-29 13:45:01.123456\t7.00\t-1\n\
                4\t1\t2024-02-29 00:00:00\t0.01\t0\n";
    assert_eq!(server.sql("SELECT * FROM shop.kinds ORDER BY id"), want);
}

#[test]
fn derived_columns_are_computed_from_texts() {
    let server = Server::new();
    let headers = [CSV, "columns: id, first, last, name = concat(first, '-', last), amount = length(first)"];
    server.load(&headers, "1,ab,c\n").expect("Success", "OK");
    assert_eq!(server.sql("SELECT * FROM shop.orders"), "1\tab-c\t2\n");
    server.load(&[CSV, "columns: id, name = nonsense(id)"], "1\n").expect("Fail", "");
}

#[test]
fn unmentioned_columns_are_null_and_a_required_one_is_missed() {
    let server = Server::new();
    server.load(&[CSV, "columns: name, id"], "a,1\n").expect("Success", "OK");
    assert_eq!(server.sql("SELECT * FROM shop.orders"), "1\ta\tNULL\n");
    server.load(&[CSV, "columns: name"], "a\n").expect("Fail", "id");
}

#[test]
fn unknown_databases_and_tables_are_named() {
    let server = Server::new();
    server
        .load_into("nowhere/orders", &[CSV], "1,a,1\n")
        .expect("Fail", "unknown database, database=nowhere");
    server.load_into("shop/nothing", &[CSV], "1,a,1\n").expect("Fail", "unknown table \"shop.nothing\"");
}

#[test]
fn enclose_and_escape_work_in_a_plain_load() {
    let server = Server::new();
    let headers = [CSV, "enclose: \"", "escape: \\", "skip_header: 1"];
    server.load(&headers, "id,name,amount\n1,\"a,\"\"b\n\",5\n").expect("Success", "OK");
    assert_eq!(server.sql("SELECT name = 'a,\"b\n' FROM shop.orders"), "1\n");
}

#[test]
fn a_row_that_is_no_utf8_is_filtered() {
    let server = Server::new();
    let url = format!("http://{}/api/shop/orders/_stream_load", server.be(0));
    let reply = curl("PUT", &url).headers(&[CSV]).body(b"1,\xff,2\n".to_vec()).send();
    reply.expect("Fail", "too many filtered rows");
    assert!(curl("GET", &reply.text("ErrorURL")).send().body.contains("Invalid UTF-8 row"));
}

#[test]
fn packed_csv_is_named_by_its_format_and_packed_json_by_its_compression() {
    let server = Server::new();
    let url = format!("http://{}/api/shop/orders/_stream_load", server.be(0));
    let csv = zstd::encode_all("1,a,2\n2,b,3\n".as_bytes(), 1).unwrap();
    let reply =
        curl("PUT", &url).headers(&[CSV, "format: zstd", "compression: zstd"]).body(csv.clone()).send();
    assert_eq!(reply.number("NumberLoadedRows"), 2);
    assert_eq!(reply.number("LoadBytes"), csv.len() as u64);
    let json = zstd::encode_all("{\"id\":3}".as_bytes(), 1).unwrap();
    curl("PUT", &url)
        .headers(&["format: json", "compression: zstd"])
        .body(json)
        .send()
        .expect("Success", "OK");
    let as_text = curl("PUT", &url).headers(&[CSV, "format: csv", "compression: zstd"]).body(csv).send();
    as_text.expect("Fail", "too many filtered rows");
    assert_eq!(server.rows(), 3);
}

#[test]
fn a_primary_key_table_takes_upserts_and_deletes() {
    let server = Server::new();
    let users =
        |headers: &[&str], body| server.load_into("shop/users", headers, body).expect("Success", "OK");
    users(&[CSV, "columns: id, name"], "1,a\n2,b\n3,c\n");
    users(&[CSV, "columns: id, name, __op"], "1,A,0\n2,,1\n");
    users(&["format: json"], "{\"id\":3,\"__op\":1}{\"id\":4,\"name\":\"d\"}");
    assert_eq!(server.sql("SELECT id, name FROM shop.users ORDER BY id"), "1\tA\n4\td\n");
    server.load(&[CSV, "partial_update: true"], "1,a,1\n").expect("Fail", "Only primary key table");
}

#[test]
fn binary_columns_take_to_binary() {
    let server = Server::new();
    let headers = [CSV, STRICT, "columns: id, name, t, photo = to_binary(t, 'hex')"];
    server.load_into("shop/users", &headers, "1,a,00ff0a\n2,b,\\N\n").expect("Success", "OK");
    let want = "1\t00FF0A\t0\n2\t\t1\n";
    let got = server.sql("SELECT id, COALESCE(hex(photo), ''), photo IS NULL FROM shop.users ORDER BY id");
    assert_eq!(got, want);
}

#[test]
fn digits_under_a_name_of_their_own_become_bytes_in_both_formats() {
    let server = Server::new();
    let columns = "columns: `id`,`name`,`digits_2`,`photo`=to_binary(`digits_2`,'hex')";
    server.load_into("shop/users", &[CSV, STRICT, columns], "1,a,00FF0A5C4E\n2,b,\n").expect("Success", "OK");
    let json = ["format: json", "strip_outer_array: true", STRICT, columns];
    let body = r#"[{"id":3,"name":"c","digits_2":"00FF0A5C4E"},{"id":4,"name":"d","digits_2":null}]"#;
    server.load_into("shop/users", &json, body).expect("Success", "OK");
    let got = server.sql("SELECT id, hex(photo), photo IS NULL FROM shop.users ORDER BY id");
    assert_eq!(got, "1\t00FF0A5C4E\t0\n2\t\t0\n3\t00FF0A5C4E\t0\n4\t\t1\n");
}

#[test]
fn plain_text_for_a_binary_column_is_base64_or_else_the_bytes_themselves() {
    let server = Server::new();
    server.load_into("shop/users", &[CSV, STRICT], "1,a,QUJD\n2,b,no base64!\n").expect("Success", "OK");
    let got = server.sql("SELECT id, hex(photo) FROM shop.users ORDER BY id");
    assert_eq!(got, "1\t414243\n2\t6E6F2062617365363421\n");
}

#[test]
fn strict_mode_still_changes_some_values_without_a_word() {
    let server = Server::new();
    server.sql(
        "CREATE TABLE shop.silent (id INT NOT NULL, n INT, b BOOLEAN, d DATE, p DECIMAL(9,2), c CHAR(9)) \
         DUPLICATE KEY(id) DISTRIBUTED BY HASH(id) BUCKETS 1",
    );
    let body = "1,1.9,7,2024-02-29 13:45:01,0.005,a\u{0}\n2,-1.9,-1,69-01-02,-0.005,b\n";
    let reply = server.load_into("shop/silent", &[CSV, STRICT, "max_filter_ratio: 0"], body);
    reply.expect("Success", "OK");
    assert_eq!((reply.number("NumberLoadedRows"), reply.number("NumberFilteredRows")), (2, 0));
    let want = "1\t1\t1\t2024-02-29\t0.01\ta\n2\t-1\t1\t2069-01-02\t-0.01\tb\n";
    assert_eq!(server.sql("SELECT * FROM shop.silent ORDER BY id"), want);
}

#[test]
fn a_rate_limit_slows_one_connection() {
    let server = Server::with(Config { be_bytes_per_second: 10_000, ..Config::default() });
    let body = "1,abcd,1\n".repeat(500);
    let reply = server.load(&[CSV], &body);
    reply.expect("Success", "OK");
    assert!(reply.number("ReadDataTimeMs") >= 400, "{}", reply.body);
}
