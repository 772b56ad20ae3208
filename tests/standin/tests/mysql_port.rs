//! The MySQL port as the `mariadb` command-line client and raw sockets meet it. Numbers in names are those of the
//! conformance checklist.

#![allow(clippy::unwrap_used, reason = "a failing fixture fails its test")]

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use starrocks_standin::mysql::{MysqlSettings, serve};
use starrocks_standin::store::{Store, Stored, convert};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// A MySQL port over an empty store; stopped when dropped.
struct Port {
    store: Store,
    port: u16,
    password: String,
    shutdown: CancellationToken,
    _runtime: Runtime,
    _dir: TempDir,
}

impl Port {
    fn start() -> Self {
        Self::with_password("")
    }

    fn with_password(password: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let settings = MysqlSettings {
            credentials: ("root".to_owned(), password.to_owned()),
            server_version: "8.0.33".to_owned(),
            cluster: None,
        };
        let shutdown = CancellationToken::new();
        runtime.spawn(serve(listener, store.clone(), settings, shutdown.clone()));
        Self { store, port, password: password.to_owned(), shutdown, _runtime: runtime, _dir: dir }
    }

    fn client(&self) -> Command {
        let mut command = Command::new("mariadb");
        command.args([
            "--no-defaults",
            "-h127.0.0.1",
            &format!("-P{}", self.port),
            "-uroot",
            "--batch",
            "--skip-column-names",
        ]);
        command.arg("--default-character-set=utf8mb4");
        if !self.password.is_empty() {
            command.arg(format!("-p{}", self.password));
        }
        command
    }

    fn run(&self, sql: &str) -> Output {
        self.client().args(["-e", sql]).output().expect("the mariadb client is installed")
    }

    /// Standard output of statements that succeed.
    #[track_caller]
    fn query(&self, sql: &str) -> String {
        let output = self.run(sql);
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end_matches('\n').to_owned()
    }

    /// Standard error of a statement that fails.
    #[track_caller]
    fn failure(&self, sql: &str) -> String {
        let output = self.run(sql);
        assert!(!output.status.success(), "{sql} succeeded");
        String::from_utf8(output.stderr).unwrap()
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

const SAMPLE: &str = "
    CREATE DATABASE shop;
    CREATE TABLE shop.sample (
        k BIGINT NOT NULL COMMENT 'the key', b BOOLEAN, t TINYINT, d DECIMAL(9,2), at DATETIME, day DATE, l LARGEINT,
        x DOUBLE, f FLOAT, s VARCHAR(200) DEFAULT 'none', j JSON, v VARBINARY
    ) ENGINE=OLAP DUPLICATE KEY(k) COMMENT 'a sample'
    PARTITION BY RANGE(k) (PARTITION p1 VALUES LESS THAN ('10'), PARTITION p2 VALUES LESS THAN (MAXVALUE))
    DISTRIBUTED BY HASH(k) BUCKETS 3 PROPERTIES ('replication_num' = '1');
    INSERT INTO shop.sample VALUES
        (1, true, 7, 1.5, '2024-02-29 13:45:01', '2024-02-29', 170141183460469231731687303715884105727, 0.1, 0.1, 'héllo', '{\"a\":1}', 'raw'),
        (2, false, NULL, -0.005, '2024-02-29 13:45:01.5', NULL, -1, 8.04303946e16, 709257900, NULL, NULL, NULL);";

impl Port {
    fn with_sample() -> Self {
        let port = Self::start();
        port.query(SAMPLE);
        port
    }

    /// A load of rows with these keys and nothing else, not yet visible.
    fn load(&self, (db, table): (&str, &str), txn: i64, keys: impl IntoIterator<Item = i64>) {
        let table = self.store.table(db, table).unwrap();
        let mut writer = self.store.begin_rows(&table, txn).unwrap();
        for key in keys {
            let mut row = vec![Stored::Null; table.columns.len()];
            row[0] = Stored::Int(key);
            writer.push(&row).unwrap();
        }
        writer.finish().unwrap();
    }
}

/// Waits until `ready` says so, at most half a minute.
fn until(mut ready: impl FnMut() -> bool) {
    for _ in 0..600 {
        if ready() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("it did not happen in half a minute");
}

#[test]
fn c62_values_come_in_the_layout_of_their_type() {
    let port = Port::with_sample();
    assert_eq!(
        port.query("SELECT * FROM shop.sample ORDER BY k"),
        "1\t1\t7\t1.50\t2024-02-29 13:45:01\t2024-02-29\t170141183460469231731687303715884105727\t0.1\t0.1\théllo\t{\"a\": 1}\traw\n\
         2\t0\tNULL\t-0.01\t2024-02-29 13:45:01.500000\tNULL\t-1\t8.04303946e+16\t7.092579e+08\tNULL\tNULL\tNULL"
    );
    assert_eq!(port.query("SELECT true"), "1");
}

#[test]
fn c62_columns_have_their_wire_types_even_without_rows() {
    let port = Port::with_sample();
    let sql = "SELECT *, MAX(l), COUNT(*), SUM(d), CAST(k AS DECIMAL(12,3)), MIN(at), k + 1 FROM shop.sample WHERE 1 = 2 GROUP BY k;
               SELECT MAX(l), COUNT(*), SUM(d), CAST(k AS DECIMAL(12,3)), MIN(at), k + 1, 'x' FROM shop.sample WHERE 1 = 2 GROUP BY k";
    let output = port.client().args(["--table", "--column-type-info", "-e", sql]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = |name: &str| {
        text.lines().filter_map(|line| line.strip_prefix(name)).map(str::trim).collect::<Vec<_>>()
    };
    let types: Vec<&str> =
        lines("Type:").iter().map(|kind| kind.split_whitespace().next().unwrap()).collect();
    let plain = [
        "LONGLONG",
        "TINY",
        "TINY",
        "NEWDECIMAL",
        "DATETIME",
        "DATE",
        "STRING",
        "DOUBLE",
        "FLOAT",
        "VAR_STRING",
        "STRING",
        "STRING",
    ];
    assert_eq!(types[..12], plain, "{text}");
    let computed = ["STRING", "LONGLONG", "NEWDECIMAL", "NEWDECIMAL", "DATETIME", "LONGLONG", "VAR_STRING"];
    assert_eq!(types[18..], computed, "{text}");
    assert!(lines("Flags:").iter().all(|flags| flags.is_empty() || *flags == "NUM"), "{text}");
}

#[test]
fn c62_large_integers_and_decimals_compare_sort_and_add_exactly() {
    let port = Port::start();
    port.query(
        "CREATE DATABASE d; USE d; CREATE TABLE n (k LARGEINT NOT NULL, p DECIMAL(38,3)) DUPLICATE KEY(k) DISTRIBUTED BY HASH(k);
         INSERT INTO n VALUES (9, 0.1), (10, 0.2), (-170141183460469231731687303715884105728, 10), (170141183460469231731687303715884105726, 9),
         (170141183460469231731687303715884105727, 99999999999999999999999999999999999.999)",
    );
    for (sql, expected) in [
        (
            "SELECT MIN(k), MAX(k), COUNT(*) FROM d.n",
            "-170141183460469231731687303715884105728\t170141183460469231731687303715884105727\t5",
        ),
        (
            "SELECT k FROM d.n WHERE k >= 170141183460469231731687303715884105727 OR k < 10 ORDER BY k",
            "-170141183460469231731687303715884105728\n9\n170141183460469231731687303715884105727",
        ),
        (
            "SELECT k FROM d.n WHERE k = 170141183460469231731687303715884105726",
            "170141183460469231731687303715884105726",
        ),
        ("SELECT p FROM d.n WHERE p >= 9 ORDER BY p LIMIT 2", "9.000\n10.000"),
        ("SELECT SUM(p) FROM d.n", "100000000000000000000000000000000019.299"),
        ("SELECT MAX(k) - 1 FROM d.n", "170141183460469231731687303715884105726"),
        ("SELECT SUM(CAST(k AS LARGEINT)) FROM d.n WHERE k IN (9, 10)", "19"),
        ("SELECT COUNT(*) FROM d.n WHERE CAST(p AS DECIMAL(38,1)) > 9", "2"),
        ("SELECT p * 2, p * 1.5, k + 1 FROM d.n WHERE k = 10", "0.400\t0.3000\t11"),
    ] {
        assert_eq!(port.query(sql), expected, "{sql}");
    }
}

#[test]
fn c62_datetimes_compare_by_moment() {
    let port = Port::with_sample();
    assert_eq!(port.query("SELECT k FROM shop.sample WHERE at = '2024-02-29T13:45:01.500'"), "2");
    assert_eq!(port.query("SELECT k FROM shop.sample WHERE at > '2024-02-29 13:45:01'"), "2");
    assert_eq!(
        port.query("SELECT COUNT(*) FROM shop.sample WHERE at >= '2024-02-29' AND at < '2024-03-01'"),
        "2"
    );
    assert_eq!(port.query("SELECT k FROM shop.sample WHERE day = '2024-02-29 00:00:00'"), "1");
}

#[test]
fn c63_the_catalogue_is_there_as_tables() {
    let port = Port::with_sample();
    assert_eq!(
        port.query(
            "SELECT COLUMN_NAME, ORDINAL_POSITION, IS_NULLABLE, DATA_TYPE, COLUMN_TYPE, COLUMN_KEY, COLUMN_DEFAULT
             FROM information_schema.columns WHERE TABLE_SCHEMA = 'shop' AND table_name = 'sample'
             AND COLUMN_NAME IN ('k', 'b', 'd', 'l', 's') ORDER BY ORDINAL_POSITION"
        ),
        "k\t1\tNO\tbigint\tbigint(20)\tDUP\tNULL\n\
         b\t2\tYES\ttinyint\ttinyint(1)\t\tNULL\n\
         d\t4\tYES\tdecimal\tdecimal(9,2)\t\tNULL\n\
         l\t7\tYES\tbigint unsigned\tbigint(20) unsigned\t\tNULL\n\
         s\t10\tYES\tvarchar\tvarchar(200)\t\tnone"
    );
    assert_eq!(
        port.query(
            "SELECT TABLE_TYPE, ENGINE, TABLE_ROWS FROM information_schema.tables WHERE TABLE_SCHEMA='shop'"
        ),
        "BASE TABLE\tStarRocks\t2"
    );
    assert_eq!(
        port.query("SELECT TABLE_MODEL, DISTRIBUTE_BUCKET, SORT_KEY FROM information_schema.tables_config"),
        "DUP_KEYS\t3\t`k`"
    );
    assert_eq!(port.query("SELECT VISIBLE_VERSION FROM information_schema.partitions_meta"), "2\n2");
    assert_eq!(port.query("SHOW DATABASES"), "information_schema\nshop");
    assert_eq!(port.query("SHOW TABLES FROM shop LIKE 'sam%'"), "sample");
    let create = port.query("SHOW CREATE TABLE shop.sample");
    assert!(create.contains("`l` largeint(40) NULL") && create.contains("DUPLICATE KEY(`k`)"), "{create}");
    assert!(create.contains("DISTRIBUTED BY HASH(`k`) BUCKETS 3"), "{create}");
    let described = port.query("DESC shop.sample");
    assert!(described.starts_with("k\tbigint(20)\tNO\ttrue\tNULL\t\nb\tboolean\tYES\tfalse"), "{described}");
    assert!(port.query("USE shop; SHOW FULL COLUMNS FROM sample").contains("the key"));
}

#[test]
fn c63_a_table_made_from_its_own_ddl_is_the_same() {
    let port = Port::with_sample();
    let ddl = |db: &str| {
        let shown = port.query(&format!("SHOW CREATE TABLE {db}.sample")).replace("\\n", "\n");
        shown.split_once('\t').unwrap().1.to_owned()
    };
    port.query(&format!("CREATE DATABASE copy; USE copy; {}", ddl("shop")));
    assert_eq!(ddl("copy"), ddl("shop"));
}

#[test]
fn c63_visible_version_grows_by_one_per_committed_load() {
    let port = Port::with_sample();
    let version = || {
        let shown = port.query("SHOW PARTITIONS FROM shop.sample");
        shown.split('\t').nth(2).unwrap().parse::<i64>().unwrap()
    };
    let before = version();
    port.load(("shop", "sample"), 7, 3..100);
    assert_eq!(version(), before);
    port.store.make_visible(7).unwrap();
    assert_eq!(version(), before + 1);
    port.load(("shop", "sample"), 8, 100..200);
    port.store.discard(8).unwrap();
    assert_eq!(version(), before + 1);
    assert_eq!(port.query("SELECT COUNT(*), MAX(k) FROM shop.sample"), "99\t99");
}

#[test]
fn c64_tablets_are_disjoint_and_complete() {
    let port = Port::with_sample();
    port.load(("shop", "sample"), 1, 3..1000);
    port.store.make_visible(1).unwrap();
    let shown = port.query("SHOW TABLET FROM shop.sample");
    let tablets: Vec<&str> = shown.lines().map(|line| line.split('\t').next().unwrap()).collect();
    assert_eq!(tablets.len(), 3);
    let mut keys: Vec<i64> = Vec::new();
    for tablet in &tablets {
        let part = port.query(&format!("SELECT k FROM shop.sample TABLET({tablet})"));
        assert!(part.lines().count() > 200);
        keys.extend(part.lines().map(|key| key.parse::<i64>().unwrap()));
    }
    keys.sort_unstable();
    assert_eq!(keys, (1..1000).collect::<Vec<_>>());
    let all =
        format!("SELECT COUNT(*) FROM shop.sample PARTITION(p1) TABLET({}) WHERE k > 0", tablets.join(","));
    assert_eq!(port.query(&all), "999");
    assert!(port.failure("SELECT * FROM shop.sample TABLET(1)").contains("Invalid tablet"));
}

/// One packet of the server: number and payload.
fn packet(socket: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut header = [0; 4];
    socket.read_exact(&mut header).unwrap();
    let length = u32::from_le_bytes([header[0], header[1], header[2], 0]);
    let mut payload = vec![0; length as usize];
    socket.read_exact(&mut payload).unwrap();
    (header[3], payload)
}

fn send_packet(socket: &mut TcpStream, number: u8, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
    socket.write_all(&[&length[..3], &[number], payload].concat()).unwrap();
}

#[test]
fn c65_the_greeting_offers_what_starrocks_offers_and_results_have_eof_packets() {
    let port = Port::start();
    let mut socket = TcpStream::connect(("127.0.0.1", port.port)).unwrap();
    let (_, greeting) = packet(&mut socket);
    assert!(greeting.starts_with(b"\x0a8.0.33\0"));
    assert!(greeting.ends_with(b"mysql_native_password\0"));
    let at = b"\x0a8.0.33\0".len() + 4 + 8 + 1;
    let lower = u32::from(u16::from_le_bytes([greeting[at], greeting[at + 1]]));
    let upper = u32::from(u16::from_le_bytes([greeting[at + 5], greeting[at + 6]]));
    let capabilities = upper << 16 | lower;
    let (compress, local_files, deprecate_eof) = (0x20, 0x80, 0x0100_0000);
    assert_eq!(capabilities & (compress | local_files | deprecate_eof), 0);
    assert_eq!(capabilities & 0x0038_820c, 0x0038_820c, "{capabilities:x}");
    // A client that insists on CLIENT_DEPRECATE_EOF is not heard.
    let wanted: u32 = 0x200 | 0x8000 | 0x8_0000 | deprecate_eof;
    let mut login = wanted.to_le_bytes().to_vec();
    login.extend_from_slice(&[0, 0, 0, 1, 33]);
    login.extend_from_slice(&[0; 23]);
    login.extend_from_slice(b"root\0\0mysql_native_password\0");
    send_packet(&mut socket, 1, &login);
    assert_eq!(packet(&mut socket).1[0], 0);
    send_packet(&mut socket, 0, b"\x03SELECT 1");
    assert_eq!(packet(&mut socket).1, [1]);
    assert_eq!(packet(&mut socket).1[0..4], *b"\x03def");
    assert_eq!(packet(&mut socket).1[0], 0xfe);
    assert_eq!(packet(&mut socket).1, *b"\x011");
    let (number, end) = packet(&mut socket);
    assert_eq!((number, end.len(), end[0]), (5, 5, 0xfe));
    send_packet(&mut socket, 0, b"\x0e");
    assert_eq!(packet(&mut socket).1[0], 0);
}

#[test]
fn c65_a_wrong_password_is_error_1045() {
    let port = Port::with_password("secret");
    assert_eq!(port.query("SELECT 1"), "1");
    let address = format!("-P{}", port.port);
    let wrong = Command::new("mariadb")
        .args(["--no-defaults", "-h127.0.0.1", &address, "-uroot", "-pwrong", "-e", "SELECT 1"])
        .output()
        .unwrap();
    let text = String::from_utf8(wrong.stderr).unwrap();
    assert!(text.contains("ERROR 1045 (28000): Access denied for user 'root'"), "{text}");
}

#[test]
fn c66_a_load_appears_at_once_to_concurrent_counts() {
    let port = Port::with_sample();
    let done = AtomicBool::new(false);
    let count = || port.query("SELECT COUNT(*) FROM shop.sample").parse::<i64>().unwrap();
    std::thread::scope(|scope| {
        let counting = scope.spawn(|| {
            let mut seen = BTreeSet::new();
            while !done.load(Ordering::Relaxed) {
                seen.insert(count());
            }
            seen.insert(count());
            seen
        });
        port.load(("shop", "sample"), 1, 3..60_003);
        port.load(("shop", "sample"), 1, 60_003..120_003);
        port.store.make_visible(1).unwrap();
        done.store(true, Ordering::Relaxed);
        assert_eq!(counting.join().unwrap(), BTreeSet::from([2, 120_002]));
    });
}

#[test]
fn a_primary_key_table_keeps_the_last_row_of_a_key() {
    let port = Port::start();
    port.query(
        "CREATE DATABASE d; USE d;
         CREATE TABLE p (a INT, b VARCHAR(10), c INT) PRIMARY KEY(a, b) DISTRIBUTED BY HASH(a) BUCKETS 2;
         INSERT INTO p VALUES (1, 'x', 1), (2, 'x', 2), (1, 'x', 3); INSERT INTO p VALUES (2, 'x', 4), (2, 'y', 5)",
    );
    assert_eq!(port.query("SELECT * FROM d.p ORDER BY a, b"), "1\tx\t3\n2\tx\t4\n2\ty\t5");
    port.query("UPDATE d.p SET c = c * 10 WHERE a = 2");
    assert_eq!(port.query("SELECT * FROM d.p ORDER BY a, b"), "1\tx\t3\n2\tx\t40\n2\ty\t50");
    port.query("DELETE FROM d.p WHERE c = 40");
    assert_eq!(port.query("SELECT * FROM d.p ORDER BY a, b"), "1\tx\t3\n2\ty\t50");
    assert_eq!(port.query("SELECT COUNT(*), MIN(a), MAX(a) FROM d.p WHERE a >= 1 AND a < 3"), "2\t1\t2");
    let table = port.store.table("d", "p").unwrap();
    let mut writer = port.store.begin_rows(&table, 1).unwrap();
    writer.push_delete(&[Stored::Int(1), Stored::Text("x".into()), Stored::Null]).unwrap();
    writer.finish().unwrap();
    assert_eq!(port.query("SELECT COUNT(*) FROM d.p"), "2");
    port.store.make_visible(1).unwrap();
    assert_eq!(port.query("SELECT a, b FROM d.p"), "2\ty");
}

#[test]
fn duplicate_rows_stay_and_are_deleted_by_condition() {
    let port = Port::start();
    port.query(
        "CREATE DATABASE d; USE d; CREATE TABLE t (k INT, s VARCHAR(10)) DUPLICATE KEY(k) DISTRIBUTED BY HASH(k);
         INSERT INTO t VALUES (1, 'a'), (1, 'a'), (NULL, 'b'), (2, 'c')",
    );
    assert_eq!(port.query("SELECT k, COUNT(*) FROM d.t GROUP BY k ORDER BY k"), "NULL\t1\n1\t2\n2\t1");
    port.query("DELETE FROM d.t WHERE k IS NULL; DELETE FROM d.t WHERE k = 2 AND s = 'c'");
    assert_eq!(port.query("SELECT * FROM d.t"), "1\ta\n1\ta");
    port.query("TRUNCATE TABLE d.t");
    assert_eq!(port.query("SELECT COUNT(*) FROM d.t"), "0");
    port.query("INSERT INTO d.t (s) VALUES ('only'); INSERT INTO d.t SELECT 5, s FROM d.t");
    assert_eq!(port.query("SELECT * FROM d.t ORDER BY k"), "NULL\tonly\n5\tonly");
    port.query("CREATE TABLE d.made DISTRIBUTED BY HASH(k) AS SELECT k, CONCAT(s, '!') AS loud, k * 1.5 AS half FROM d.t");
    assert_eq!(port.query("SELECT * FROM d.made ORDER BY k"), "NULL\tonly!\tNULL\n5\tonly!\t7.5");
    port.query("INSERT OVERWRITE d.made SELECT 6, 'x', 0.5; INSERT INTO d.made (loud) VALUES (DEFAULT)");
    assert_eq!(port.query("SELECT * FROM d.made ORDER BY k"), "NULL\tNULL\tNULL\n6\tx\t0.5");
    port.query("CREATE TABLE d.other LIKE d.t; ALTER TABLE d.t SWAP WITH other");
    assert_eq!(port.query("SELECT (SELECT COUNT(*) FROM d.t), (SELECT COUNT(*) FROM d.other)"), "0\t2");
}

#[test]
fn a_load_into_a_table_truncated_meanwhile_fails() {
    let port = Port::with_sample();
    let table = port.store.table("shop", "sample").unwrap();
    let mut writer = port.store.begin_rows(&table, 1).unwrap();
    let mut row = vec![Stored::Null; table.columns.len()];
    row[0] = Stored::Int(5);
    writer.push(&row).unwrap();
    port.query("TRUNCATE TABLE shop.sample");
    let error = writer.finish().unwrap_err().to_string();
    assert_eq!(error, "table 'sample' was truncated or dropped while rows were written");
}

#[test]
fn text_survives_with_every_awkward_character() {
    let port = Port::start();
    port.query(
        "CREATE DATABASE d; CREATE TABLE d.t (k INT, s VARCHAR(200)) DUPLICATE KEY(k) DISTRIBUTED BY HASH(k)",
    );
    port.query(r#"INSERT INTO d.t VALUES (1, 'it''s "q" \\ \t\n 数据 🚚 '''''), (2, "dq 'x'"), (3, '')"#);
    let output = port.client().args(["--raw", "-e", "SELECT s FROM d.t ORDER BY k"]).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "it's \"q\" \\ \t\n 数据 🚚 ''\ndq 'x'\n\n");
    assert_eq!(port.query("SELECT k FROM d.t WHERE s LIKE '%数据%'"), "1");
    assert_eq!(port.query("SELECT k FROM d.t WHERE s LIKE 'DQ%'"), "");
    assert_eq!(port.query("SELECT LENGTH(s), CHAR_LENGTH(s) FROM d.t WHERE k = 1"), "28\t21");
    assert_eq!(port.query("SELECT HEX(s), CONCAT(k, '-', s) FROM d.t WHERE k = 3"), "\t3-");
}

#[test]
fn statements_of_one_text_run_in_order_until_one_fails() {
    let port = Port::start();
    assert_eq!(port.query("SELECT 1; SELECT 'a;b', 2; CREATE DATABASE d; SELECT 3"), "1\na;b\t2\n3");
    let output = port
        .client()
        .args(["--delimiter=//", "-e", "SELECT 1; CREATE DATABASE e; SELECT nothing; SELECT 2"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "1\n");
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("ERROR 1064"), "{text}");
}

#[test]
fn errors_carry_the_numbers_drivers_look_for() {
    let port = Port::with_sample();
    for (sql, expected) in [
        ("SELEC 1", "ERROR 1064 (42000)"),
        ("SELECT * FROM shop.missing", "ERROR 1146 (42S02)"),
        ("SELECT * FROM nowhere.t", "ERROR 1049 (42000)"),
        ("SELECT * FROM t", "ERROR 1046 (3D000)"),
        ("SELECT missing FROM shop.sample", "Column 'missing' cannot be resolved"),
        ("SET nonsense = 1", "Unknown system variable 'nonsense'"),
        ("CREATE DATABASE shop", "ERROR 1007"),
        ("CREATE TABLE shop.sample (k INT) DISTRIBUTED BY HASH(k)", "ERROR 1050"),
        ("CREATE TABLE shop.bad (k NONSENSE)", "Unknown type"),
        ("INSERT INTO shop.sample (k) VALUES (NULL)", "NULL value in non-nullable column 'k'"),
        ("INSERT INTO shop.sample (k, t) VALUES (1, 128)", "out of range"),
        ("INSERT INTO shop.sample (k, s) VALUES (1, REPEAT('x', 300))", "REPEAT"),
        ("UPDATE shop.sample SET s = 'x'", "primary key table"),
        ("KILL 4711", "ERROR 1094"),
    ] {
        let text = port.failure(sql);
        assert!(text.contains(expected), "{sql}: {text}");
    }
    assert!(port.failure("USE nowhere").contains("1049"));
}

#[test]
fn sessions_have_an_id_variables_and_a_database() {
    let port = Port::with_sample();
    for (sql, expected) in [
        ("USE shop; SELECT DATABASE(); SELECT COUNT(*) FROM sample", "shop\n2"),
        (
            "SET query_timeout = 5, time_zone = '+00:00'; SELECT @@query_timeout, @@session.time_zone",
            "5\t+00:00",
        ),
        (
            "SET NAMES utf8mb4; SET autocommit=1; SELECT @@max_allowed_packet, @@wait_timeout",
            "33554432\t28800",
        ),
        ("SELECT current_version()", "3.3.5-standin"),
        ("SELECT @@version_comment LIMIT 1", "StarRocks version 3.3.5-standin"),
        ("SHOW VARIABLES LIKE 'wait_timeout'", "wait_timeout\t28800"),
    ] {
        assert_eq!(port.query(sql), expected, "{sql}");
    }
    let shown = port.query("SELECT CONNECTION_ID(); SHOW PROCESSLIST");
    let mut lines = shown.lines();
    let mine = format!("{}\troot\t", lines.next().unwrap());
    assert!(lines.any(|line| line.starts_with(&mine) && line.contains("SHOW PROCESSLIST")), "{shown}");
}

#[test]
fn a_statement_ends_at_its_timeout() {
    let port = Port::start();
    let text = port
        .client()
        .args(["-c", "-e", "SELECT /*+ SET_VAR(query_timeout=1) */ SLEEP(60)"])
        .output()
        .unwrap()
        .stderr;
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("Query reached its timeout of 1 seconds"), "{text}");
    let text = port.failure(
        "SET query_timeout = 1;
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n",
    );
    assert!(text.contains("Query reached its timeout"), "{text}");
}

/// Logs in as root without password.
fn login(port: &Port) -> TcpStream {
    let mut socket = TcpStream::connect(("127.0.0.1", port.port)).unwrap();
    packet(&mut socket);
    let mut login = (0x200_u32 | 0x8000 | 0x8_0000).to_le_bytes().to_vec();
    login.extend_from_slice(&[0, 0, 0, 1, 33]);
    login.extend_from_slice(&[0; 23]);
    login.extend_from_slice(b"root\0\0mysql_native_password\0");
    send_packet(&mut socket, 1, &login);
    assert_eq!(packet(&mut socket).1[0], 0);
    socket
}

#[test]
fn a_client_that_does_not_read_is_cut_by_the_timeout() {
    let port = Port::with_sample();
    port.query("CREATE TABLE shop.many LIKE shop.sample");
    port.store.fill_demo("shop", "many", 10_000).unwrap();
    let mut socket = login(&port);
    send_packet(
        &mut socket,
        0,
        b"\x03SELECT /*+ SET_VAR(query_timeout=1) */ a.s, b.s FROM shop.many a, shop.many b",
    );
    // Endless for all purposes; what fits into buffers comes, then the error.
    std::thread::sleep(Duration::from_millis(1500));
    loop {
        let (_, payload) = packet(&mut socket);
        if payload[0] == 0xff {
            assert!(String::from_utf8_lossy(&payload).contains("Query reached its timeout of 1 seconds"));
            return;
        }
    }
}

#[test]
fn a_killed_statement_ends_and_leaves_the_process_list() {
    let port = Port::start();
    let find = || {
        let list = port.query("SHOW FULL PROCESSLIST");
        let sleeping = list.lines().find(|line| line.contains("SELECT SLEEP(300)"));
        sleeping.map(|line| line.split('\t').next().unwrap().to_owned())
    };
    port.query("CREATE DATABASE test; CREATE TABLE test.nap (k INT) DUPLICATE KEY(k) DISTRIBUTED BY HASH(k) BUCKETS 1");
    let insert = "INSERT INTO test.nap SELECT SLEEP(300)";
    for (statement, form, expected) in [
        ("SELECT SLEEP(300)", "KILL QUERY", "ERROR 1317"),
        ("SELECT SLEEP(300)", "KILL", "ERROR 2013"),
        (insert, "KILL QUERY", "ERROR 1317"),
        (insert, "KILL", "ERROR 2013"),
    ] {
        let mut sleeper = port.client();
        let mut sleeper = sleeper.args(["-e", statement]).stderr(Stdio::piped()).spawn().unwrap();
        until(|| find().is_some());
        port.query(&format!("{form} {}", find().unwrap()));
        let mut text = String::new();
        sleeper.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        assert!(!sleeper.wait().unwrap().success());
        assert!(text.contains(expected), "{form}: {text}");
        until(|| find().is_none());
    }
    assert_eq!(port.query("SELECT COUNT(*) FROM test.nap"), "0");
}

#[test]
fn demonstration_rows_are_the_same_every_time_and_read_back_whole() {
    let port = Port::with_sample();
    port.query("CREATE TABLE shop.one LIKE shop.sample; CREATE TABLE shop.two LIKE shop.sample");
    port.store.fill_demo("shop", "one", 20_000).unwrap();
    port.store.fill_demo("shop", "two", 20_000).unwrap();
    let digest = port.store.digest("shop", "one").unwrap();
    assert_eq!(digest.rows, 20_000);
    assert_eq!(port.store.digest("shop", "two").unwrap(), digest);
    assert_eq!(
        port.query("SELECT COUNT(*), MIN(k), MAX(k), COUNT(DISTINCT k) FROM shop.one"),
        "20000\t1\t20000\t20000"
    );
    assert_eq!(port.query("SELECT COUNT(*) FROM shop.one WHERE k >= 5000 AND k < 15000"), "10000");
    let whole = port.client().args(["--raw", "-e", "SELECT * FROM shop.one"]).output().unwrap();
    assert!(whole.stdout.len() > 1_000_000);
    port.query(
        "DELETE FROM shop.sample WHERE k <= 2; INSERT INTO shop.sample SELECT * FROM shop.one;
         DELETE FROM shop.two WHERE k = 7",
    );
    assert_eq!(port.store.digest("shop", "sample").unwrap(), digest);
    assert_ne!(port.store.digest("shop", "two").unwrap(), digest);
}

#[test]
fn tables_outlive_the_server_and_unfinished_rows_do_not() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.execute_script(SAMPLE).unwrap();
    let digest = store.digest("shop", "sample").unwrap();
    let table = store.table("shop", "sample").unwrap();
    let mut row = vec![Stored::Null; table.columns.len()];
    row[0] = convert(&table.columns[0], Some(b"77")).unwrap();
    let mut lost = store.begin_rows(&table, 5).unwrap();
    lost.push(&row).unwrap();
    lost.finish().unwrap();
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.digest("shop", "sample").unwrap(), digest);
    store.make_visible(5).unwrap();
    assert_eq!(store.digest("shop", "sample").unwrap(), digest);
    let error = store.execute_script("SELECT 1; TRUNCATE TABLE shop.missing").unwrap_err();
    assert!(error.to_string().contains("Unknown table 'shop.missing'"), "{error}");
}
