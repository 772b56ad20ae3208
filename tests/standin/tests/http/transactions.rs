//! Checklist 44 to 61c and 66: the transaction interface.

use std::time::Duration;

use starrocks_standin::{Action, Config, Fault, Op};

use crate::client::{Server, Socket, curl, eventually, request};

/// Timers that pass within a test.
fn quick() -> Config {
    Config { timeout_check_ms: 50, ..Config::nodes(1, 2) }
}

#[test]
fn c44_begin_at_a_follower_takes_two_hops() {
    let server = Server::wide();
    let reply = server.call(server.fe(1), "begin", "hops").send();
    let locations: Vec<&String> =
        reply.heads.iter().filter(|head| head.contains("307 Temporary Redirect")).collect();
    assert_eq!(locations.len(), 2, "{reply:?}");
    assert!(locations[0].contains(&format!("http://{}/api/transaction/begin", server.fe(0))), "{reply:?}");
    reply.expect("OK", "");
    assert_eq!(reply.text("Label"), "hops");
    assert!(reply.number("TxnId") > 0);
    assert_eq!(server.state("hops"), "PREPARE");
}

#[test]
fn c45_load_before_begin_finds_no_transaction() {
    let server = Server::new();
    server.load_txn("none", &[], "1,a,1\n").expect("FAILED", "Can't find the transaction");
    let straight = server.call(server.be(0), "load", "none").body("1,a,1\n").send();
    straight.expect("TXN_NOT_EXISTS", "Transaction with label none not exists");
}

#[test]
fn c46_a_load_with_other_headers_rolls_back() {
    let server = Server::new();
    server.begun("changed", "1,a,1\n");
    server
        .load_txn("changed", &["columns: id, amount, name"], "2,2,b\n")
        .expect("INTERNAL_ERROR", "load request not equal last.");
    assert_eq!(server.state("changed"), "ABORTED");
}

#[test]
fn c47_of_two_simultaneous_loads_one_is_told_to_come_back() {
    let server = Server::new();
    assert_eq!(server.op("begin", "busy").status(), "OK");
    let headers = [
        "label: busy",
        "db: shop",
        "table: orders",
        "column_separator: ,",
        "Expect: 100-continue",
        "Content-Length: 12",
    ];
    let mut first = Socket::open(server.be(0));
    first.write(&request("PUT", "/api/transaction/load", &headers));
    assert!(first.read_head().starts_with("HTTP/1.1 100"));
    first.write("1,a,1\n");
    let mut second = Socket::open(server.be(0));
    second.write(&request("PUT", "/api/transaction/load", &headers));
    assert!(second.read_head().starts_with("HTTP/1.1 200"), "the second load is refused before its body");
    server.load_txn("busy", &[], "9,z,9\n").expect("TXN_IN_PROCESSING", "Transaction in processing");
    first.write("2,b,2\n");
    assert!(first.read_head().starts_with("HTTP/1.1 200"));
    assert_eq!(server.op("prepare", "busy").number("NumberLoadedRows"), 2);
}

#[test]
fn c48_loads_add_up_and_stay_invisible_until_the_commit() {
    let server = Server::new();
    server.begun("sum", "1,a,1\n2,b,2\n");
    let second = server.load_txn("sum", &[], "3,c,3\n");
    second.expect("OK", "");
    assert_eq!(second.number("LoadBytes"), 6);
    let prepared = server.op("prepare", "sum");
    prepared.expect("OK", "");
    assert_eq!(prepared.number("NumberTotalRows"), 3);
    assert_eq!(prepared.number("NumberLoadedRows"), 3);
    assert_eq!(prepared.number("LoadBytes"), 18);
    assert_eq!(server.rows(), 0);
    let committed = server.op("commit", "sum");
    committed.expect("OK", "");
    assert_eq!(committed.text("Label"), "sum");
    assert_eq!(server.rows(), 3);
}

#[test]
fn c48_a_record_may_span_two_loads() {
    let server = Server::new();
    server.begun("span", "1,a,1\n2,b");
    server.load_txn("span", &[], "c,2\n").expect("OK", "");
    assert_eq!(server.op("prepare", "span").number("NumberTotalRows"), 2);
    server.op("commit", "span").expect("OK", "");
    assert_eq!(server.sql("SELECT name FROM shop.orders WHERE id = 2"), "bc\n");
}

#[test]
fn c49_prepare_without_a_load_rolls_back() {
    let server = Server::new();
    server.op("begin", "hollow").expect("OK", "");
    server.op("prepare", "hollow").expect("INTERNAL_ERROR", "hasn't send any data yet");
    assert_eq!(server.state("hollow"), "ABORTED");
}

#[test]
fn c50_a_second_prepare_finds_nothing_and_the_state_stays() {
    let server = Server::new();
    server.prepared("twice", "1,a,1\n");
    server.op("prepare", "twice").expect("TXN_NOT_EXISTS", "not exists");
    server.load_txn("twice", &[], "2,b,2\n").expect("TXN_NOT_EXISTS", "not exists");
    assert_eq!(server.state("twice"), "PREPARED");
}

#[test]
fn c51_any_frontend_commits_what_is_prepared_without_its_backend() {
    let server = Server::wide();
    server.prepared("orphan", "1,a,1\n");
    for backend in 0..2 {
        server.block_on(server.standin().backend_down(backend, Duration::ZERO));
    }
    server.call(server.fe(2), "commit", "orphan").send().expect("OK", "");
    assert_eq!(server.rows(), 1);
}

#[test]
fn c52_a_second_commit_is_ok() {
    let server = Server::new();
    server.prepared("again", "1,a,1\n");
    server.op("commit", "again").expect("OK", "");
    server.op("commit", "again").expect("OK", "has already committed");
    assert_eq!(server.rows(), 1);
}

#[test]
fn c53_commit_after_rollback_is_refused() {
    let server = Server::new();
    server.prepared("undone", "1,a,1\n");
    server.op("rollback", "undone").expect("OK", "");
    server.op("commit", "undone").expect("FAILED", "Can not commit ABORTED transaction");
    assert_eq!(server.rows(), 0);
}

#[test]
fn c54_rollback_is_idempotent_until_the_commit() {
    let server = Server::new();
    server.begun("open", "1,a,1\n");
    server.op("rollback", "open").expect("OK", "");
    server.op("rollback", "open").expect("OK", "has already aborted");
    server.prepared("done", "1,a,1\n");
    server.op("commit", "done").expect("OK", "");
    server.op("rollback", "done").expect("FAILED", "Can not abort VISIBLE transaction");
}

#[test]
fn c55_a_commit_whose_publication_is_slow_fails_although_it_is_committed() {
    let server = Server::new();
    server.prepared("slow", "1,a,1\n");
    server.standin().faults().push(Fault::once(Op::Publish, Action::Hold));
    server.op_with("commit", "slow", &["timeout: 1"]).expect("FAILED", "publish timeout: 1000");
    assert_eq!(server.state("slow"), "COMMITTED");
    server.standin().faults().release();
    eventually("VISIBLE", || server.state("slow") == "VISIBLE");
}

#[test]
fn c56_begin_over_the_running_limit_registers_nothing() {
    let server = Server::with(Config { max_running_txn_num_per_db: 1, ..Config::default() });
    server.op("begin", "one").expect("OK", "");
    let reply = server.op("begin", "two");
    assert_ne!(reply.status(), "OK");
    let message = reply.text("Message");
    assert!(
        message.contains("current running txns on db") && message.contains("larger than limit 1"),
        "{message}"
    );
    assert_eq!(server.state("two"), "UNKNOWN");
    server.op("rollback", "one").expect("OK", "");
    server.op("begin", "two").expect("OK", "");
}

#[test]
fn c57_a_dead_backend_loses_prepare_and_keeps_prepared() {
    let server = Server::new();
    server.prepared("kept", "1,a,1\n");
    server.begun("lost", "2,b,2\n");
    server.block_on(server.standin().backend_down(0, Duration::ZERO));
    assert_eq!(
        (server.state("lost"), server.reason("lost")),
        ("ABORTED".into(), "coordinate BE is down".into())
    );
    assert_eq!(server.state("kept"), "PREPARED");
}

#[test]
fn c58_a_prepared_transaction_expires() {
    let server = Server::with(quick());
    server.begun("old", "1,a,1\n");
    server.op_with("prepare", "old", &["prepared_timeout: 1"]).expect("OK", "");
    eventually("ABORTED", || server.state("old") == "ABORTED");
    assert_eq!(server.reason("old"), "timeout by txn manager");
}

#[test]
fn c59_an_idle_transaction_expires() {
    let server = Server::with(quick());
    server.op_with("begin", "idle", &["idle_transaction_timeout: 1"]).expect("OK", "");
    server.load_txn("idle", &[], "1,a,1\n").expect("OK", "");
    eventually("ABORTED", || server.state("idle") == "ABORTED");
    assert_eq!(server.reason("idle"), "transaction is aborted by idle timeout 1 seconds.");
}

#[test]
fn a_transaction_in_prepare_expires() {
    let server = Server::with(quick());
    server.op_with("begin", "late", &["timeout: 1"]).expect("OK", "");
    eventually("ABORTED", || server.state("late") == "ABORTED");
    server.op("begin", "late").expect("OK", "");
}

#[test]
fn c60_commit_without_prepare_is_allowed() {
    let server = Server::new();
    server.begun("short", "1,a,1\n");
    let reply = server.op("commit", "short");
    reply.expect("OK", "");
    assert_eq!(reply.number("NumberLoadedRows"), 1);
    assert_eq!(server.state("short"), "VISIBLE");
    assert_eq!(server.rows(), 1);
}

#[test]
fn c61_a_broken_load_leaves_prepare_and_can_be_redone() {
    let server = Server::new();
    assert_eq!(server.op("begin", "torn").status(), "OK");
    let headers = ["label: torn", "db: shop", "table: orders", "column_separator: ,", "Content-Length: 600"];
    let mut socket = Socket::open(server.be(0));
    socket.write(&request("PUT", "/api/transaction/load", &headers));
    socket.write("1,a,1\n2,b,2\n");
    drop(socket);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(server.state("torn"), "PREPARE");
    eventually("the load has let go", || server.op("rollback", "torn").status() == "OK");
    assert_eq!(server.state("torn"), "ABORTED");
    server.prepared("torn", "1,a,1\n2,b,2\n");
    server.op("commit", "torn").expect("OK", "");
    assert_eq!(server.rows(), 2);
}

#[test]
fn c61a_a_late_load_is_taken_into_the_new_transaction_of_the_label() {
    let server = Server::new();
    server.begun("shared", "1,a,1\n");
    server.op("rollback", "shared").expect("OK", "");
    server.begun("shared", "1,a,1\n");
    server.load_txn("shared", &[], "2,b,2\n").expect("OK", "");
    assert_eq!(server.op("prepare", "shared").number("NumberLoadedRows"), 2);
}

#[test]
fn c61b_with_its_backend_down_only_cancel_helps() {
    let server = Server::new();
    server.begun("stuck", "1,a,1\n");
    server.block_on(server.standin().backend_down(0, Duration::from_secs(60)));
    assert_eq!(server.call(server.fe(0), "rollback", "stuck").try_send().unwrap_err(), 7);
    assert_eq!(server.cancel("stuck").text("status"), "OK");
    assert_eq!(server.state("stuck"), "ABORTED");
}

#[test]
fn c61c_of_two_attempts_only_the_committed_one_counts() {
    let server = Server::with(Config::nodes(1, 2));
    server.prepared("chunk_1", "1,a,1\n");
    server.prepared("chunk_2", "1,a,1\n");
    server.op("commit", "chunk_2").expect("OK", "");
    server.op("rollback", "chunk_1").expect("OK", "");
    assert_eq!(server.rows(), 1);
}

#[test]
fn c66_a_load_appears_all_at_once() {
    let server = Server::new();
    let body: String = (0..20_000).map(|row| format!("{row},n,1\n")).collect();
    server.prepared("bulk", &body);
    let seen = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut seen = vec![server.rows()];
            while *seen.last().unwrap() == 0 {
                seen.push(server.rows());
            }
            seen
        });
        server.op("commit", "bulk").expect("OK", "");
        watcher.join().unwrap()
    });
    assert!(seen.iter().all(|rows| *rows == 0 || *rows == 20_000), "{seen:?}");
}

#[test]
fn begin_on_a_live_label_leaves_the_live_transaction_alone() {
    let server = Server::new();
    server.begun("live", "1,a,1\n");
    let reply = server.op("begin", "live");
    reply.expect("LABEL_ALREADY_EXISTS", "");
    assert_eq!((reply.text("ExistingJobStatus"), reply.text("Message")), (String::new(), String::new()));
    assert_eq!(server.op("prepare", "live").number("NumberLoadedRows"), 1);
}

#[test]
fn a_bad_row_shows_at_prepare_and_rolls_back() {
    let server = Server::new();
    server.begun("bad", "1,a,1\n2,b\n");
    let reply = server.op("prepare", "bad");
    reply.expect("INTERNAL_ERROR", "too many filtered rows");
    assert!(curl("GET", &reply.text("ErrorURL")).user(None).send().body.contains("Row: 2,b"));
    assert_eq!(server.state("bad"), "ABORTED");
}

#[test]
fn missing_names_and_unknown_operations_are_refused_with_http_200() {
    let server = Server::new();
    let post = |op: &str, headers: &[&str]| {
        curl("POST", &format!("http://{}/api/transaction/{op}", server.fe(0))).headers(headers).send()
    };
    post("begin", &["db: shop"]).expect("FAILED", "Empty label.");
    post("begin", &["label: x"]).expect("FAILED", "No database selected.");
    post("fly", &["label: x", "db: shop"]).expect("FAILED", "Unknown transaction operation: fly");
}

#[test]
fn an_old_server_does_not_know_transactions() {
    let server = Server::with(old(1));
    for op in ["begin", "load", "prepare", "commit", "rollback"] {
        let reply = server.op(op, "x");
        assert_eq!(
            (reply.text("status"), reply.text("msg")),
            ("FAILED".into(), "Not implemented".into()),
            "{op}"
        );
    }
    let at_be = curl("POST", &format!("http://{}/api/transaction/begin", server.be(0))).send();
    assert_eq!((at_be.code(), at_be.body.as_str()), (404, "Not Found"));
    assert_eq!(server.sql("SELECT current_version()"), "2.3.1-standin\n");
}

#[test]
fn an_old_server_takes_plain_loads() {
    let server = Server::with(old(1));
    server.load(&["label: one", "column_separator: ,"], "1,a,1\n").expect("Success", "OK");
    server
        .load(&["label: one", "column_separator: ,"], "1,a,1\n")
        .expect("Label Already Exists", "already been used");
    assert_eq!((server.state("one").as_str(), server.rows()), ("VISIBLE", 1));
    let path = format!("http://{}/api/shop/orders/_stream_load", server.fe(0));
    let reply = curl("PUT", &path).headers(&["Expect:"]).body("1,a,1\n").send();
    assert_eq!(
        (reply.code(), reply.text("status"), reply.text("msg")),
        (200, "FAILED".into(), "There is no 100-continue header".into())
    );
}

#[test]
fn an_old_follower_does_not_know_what_runs_but_cancels_it_through_the_leader() {
    let server = Server::with(old(2));
    let state = |fe: usize| {
        curl("GET", &format!("http://{}/api/shop/get_load_state?label=run", server.fe(fe)))
            .send()
            .text("state")
    };
    let mut socket = Socket::open(server.be(0));
    let headers = ["label: run", "column_separator: ,", "Content-Length: 100"];
    socket.write(&request("PUT", "/api/shop/orders/_stream_load", &headers));
    eventually("the load to run", || state(0) == "PREPARE");
    assert_eq!(state(1), "UNKNOWN");
    let cancelled = curl("POST", &format!("http://{}/api/shop/run/_cancel", server.fe(1))).send();
    assert_eq!(cancelled.text("status"), "OK");
    assert_eq!((state(0).as_str(), state(1).as_str()), ("ABORTED", "ABORTED"));
}

/// A server before 2.4.
fn old(frontends: usize) -> Config {
    let starrocks_version = "2.3.1-standin".to_owned();
    Config { no_transactions: true, starrocks_version, ..Config::nodes(frontends, 1) }
}

#[test]
fn enclose_is_not_parsed_in_a_transaction() {
    let server = Server::new();
    assert_eq!(server.op("begin", "plain").status(), "OK");
    server.load_txn("plain", &["enclose: \""], "1,\"a\",1\n").expect("OK", "");
    server.op("commit", "plain").expect("OK", "");
    assert_eq!(server.sql("SELECT name FROM shop.orders"), "\"a\"\n");
}

#[test]
fn a_thousand_rows_go_through_begin_load_prepare_commit() {
    let server = Server::wide();
    let body: String = (0..1000).map(|row| format!("{row},name {row},{}\n", row * 7)).collect();
    server.prepared("thousand", &body);
    server.op("commit", "thousand").expect("OK", "");
    assert_eq!(server.sql("SELECT COUNT(*), SUM(amount) FROM shop.orders"), "1000\t3496500\n");
}

#[test]
fn faults_refuse_do_and_fail_hold_and_cut() {
    let server = Server::new();
    let faults = server.standin().faults();
    let refuse = Action::Refuse { status: "INTERNAL_ERROR".into(), message: "too many versions".into() };
    faults.push(Fault::once(Op::Begin, refuse));
    server.op("begin", "f").expect("INTERNAL_ERROR", "too many versions");
    assert_eq!(server.state("f"), "UNKNOWN");
    server.begun("f", "1,a,1\n");

    faults.push(Fault::once(Op::Prepare, Action::DoThenCut));
    assert_eq!(server.call(server.fe(0), "prepare", "f").try_send().unwrap_err(), 52);
    assert_eq!(server.state("f"), "PREPARED");

    faults.push(Fault::once(Op::Commit, Action::Hold).label("f"));
    std::thread::scope(|scope| {
        let commit = scope.spawn(|| server.op("commit", "f"));
        server.block_on(faults.wait_held(1));
        assert_eq!(server.state("f"), "PREPARED");
        faults.release();
        commit.join().unwrap().expect("OK", "");
    });

    server.op("begin", "g").expect("OK", "");
    faults.push(Fault::once(Op::Load, Action::CutBody { after_bytes: 8 }));
    let load =
        server.call(server.fe(0), "load", "g").headers(&["column_separator: ,"]).body("1,a,1\n2,b,2\n");
    assert!(load.try_send().is_err());
    eventually("the load has let go", || server.op("rollback", "g").status() == "OK");
    assert_eq!(server.rows(), 1);
}
