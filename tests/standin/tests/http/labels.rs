//! Checklist 39 to 43: what the server remembers of a label, and for how long.

use starrocks_standin::{Action, Config, Fault, Op};

use crate::client::{Server, curl, eventually};

const CSV: &str = "column_separator: ,";

#[test]
fn c39_an_unknown_label_has_the_state_unknown() {
    let server = Server::new();
    let reply = curl("GET", &format!("http://{}/api/shop/get_load_state?label=never", server.fe(0))).send();
    assert_eq!((reply.text("state"), reply.text("status")), ("UNKNOWN".into(), "OK".into()));
    assert_eq!(
        (reply.text("code"), reply.text("msg"), reply.text("message")),
        ("0".into(), "Success".into(), "OK".into())
    );
    let unknown = curl("GET", &format!("http://{}/api/nowhere/get_load_state?label=x", server.fe(0))).send();
    assert_eq!(unknown.text("status"), "FAILED");
    assert!(unknown.text("msg").contains("unknown database, database=nowhere"));
    let missing = curl("GET", &format!("http://{}/api/shop/get_load_state", server.fe(0))).send();
    assert!(missing.text("msg").contains("No label selected."));
}

#[test]
fn c40_the_state_follows_the_transaction() {
    let server = Server::with(Config { fe_commit_wait_ms: 50, ..Config::default() });
    server.begun("walk", "1,a,1\n");
    assert_eq!(server.state("walk"), "PREPARE");
    assert_eq!(server.op("prepare", "walk").status(), "OK");
    assert_eq!(server.state("walk"), "PREPARED");
    server.standin().faults().push(Fault::once(Op::Publish, Action::Hold));
    server.op("commit", "walk").expect("FAILED", "publish timeout");
    assert_eq!(server.state("walk"), "COMMITTED");
    server.standin().faults().release();
    eventually("VISIBLE", || server.state("walk") == "VISIBLE");
    server.begun("stop", "1,a,1\n");
    assert_eq!(server.op("rollback", "stop").status(), "OK");
    assert_eq!(server.state("stop"), "ABORTED");
}

#[test]
fn c41_labels_beyond_the_count_are_forgotten_and_accepted_again() {
    let config = Config { label_keep_max_num: 2, transaction_clean_interval_second: 1, ..Config::default() };
    let server = Server::with(config);
    for label in ["label: first", "label: second", "label: third"] {
        server.load(&[CSV, label], "1,a,1\n").expect("Success", "OK");
    }
    eventually("the first label is forgotten", || server.state("first") == "UNKNOWN");
    assert_eq!(server.state("third"), "VISIBLE");
    server.load(&[CSV, "label: first"], "1,a,1\n").expect("Success", "OK");
    assert_eq!(server.rows(), 4);
}

#[test]
fn c42_a_leader_restart_forgets_prepare_only() {
    let server = Server::wide();
    server.load(&[CSV, "label: visible"], "1,a,1\n").expect("Success", "OK");
    server.prepared("prepared", "2,b,2\n");
    server.begun("open", "3,c,3\n");
    server.standin().lead_by(0);
    assert_eq!(server.state("open"), "UNKNOWN");
    assert_eq!(server.state("prepared"), "PREPARED");
    assert_eq!(server.state("visible"), "VISIBLE");
    server
        .op("prepare", "open")
        .expect("FAILED", "Can't find the transaction with db [shop] and label[open]");
    server.op("commit", "open").expect("FAILED", "No transaction found with db[shop] and label[open]");
    server.op("commit", "prepared").expect("OK", "");
    assert_eq!(server.rows(), 2);
}

#[test]
fn c42_the_next_frontend_leads_when_the_leader_goes_down() {
    let server = Server::wide();
    server.prepared("prepared", "2,b,2\n");
    server.block_on(server.standin().frontend_down(0));
    assert_eq!(server.call(server.fe(0), "commit", "prepared").try_send().unwrap_err(), 7);
    server.call(server.fe(2), "commit", "prepared").send().expect("OK", "");
    server.block_on(server.standin().frontend_up(0)).unwrap();
    assert_eq!(server.state("prepared"), "VISIBLE");
}

#[test]
fn c43_cancel_aborts_prepare_and_nothing_else() {
    let server = Server::new();
    server.begun("open", "1,a,1\n");
    let reply = server.cancel("open");
    assert_eq!((reply.text("status"), reply.text("msg")), ("OK".into(), "Success".into()));
    assert_eq!(server.state("open"), "ABORTED");
    assert_eq!(server.reason("open"), "user cancel");
    server.load(&[CSV, "label: done"], "1,a,1\n").expect("Success", "OK");
    let reply = server.cancel("done");
    assert_eq!(reply.text("status"), "FAILED");
    assert!(reply.text("msg").contains("running transaction not found, label=done"));
}

#[test]
fn cancel_takes_the_label_from_the_query_and_goes_to_the_leader() {
    let server = Server::wide();
    server.begun("open", "1,a,1\n");
    let url = format!("http://{}/api/shop/orders/_cancel?label=open", server.fe(1));
    assert_eq!(curl("POST", &url).send().text("status"), "OK");
    assert_eq!(server.state("open"), "ABORTED");
}
