//! Accounts that may not do everything: what they are told on each port (1.2 and 8.4 of the specification of the server).

use std::process::Command;

use starrocks_standin::Config;

use crate::client::{Server, curl};

/// `reader` may not insert, `loader` may not look at nodes, `writer` may not read.
fn server() -> Server {
    let account = |text: &str| text.parse().unwrap();
    let accounts =
        vec![account("reader:r:SELECT"), account("loader:l:SELECT+INSERT"), account("writer:w:INSERT")];
    Server::with(Config { accounts, ..Config::default() })
}

/// What the mariadb client prints, errors included.
fn ask(server: &Server, user: &str, password: &str, sql: &str) -> String {
    let mut command = Command::new("mariadb");
    let port = format!("-P{}", server.standin().addresses().mysql.port());
    command.args(["--no-defaults", "-h127.0.0.1", &port, "--skip-ssl", "--batch", "--skip-column-names"]);
    command.args([format!("-u{user}"), format!("-p{password}"), "-e".into(), sql.into()]);
    let output = command.output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn without_insert_a_frontend_answers_401_and_names_the_privilege() {
    let server = server();
    let url = format!("http://{}/api/shop/orders/_stream_load", server.fe(0));
    let headers = ["Expect: 100-continue"];
    let refused = curl("PUT", &url).user(Some("reader:r")).headers(&headers).one_hop().send();
    assert_eq!(refused.code(), 401);
    assert!(
        refused.text("msg").contains("the INSERT privilege(s) on TABLE orders"),
        "{}",
        refused.text("msg")
    );
    let redirected = curl("PUT", &url).user(Some("loader:l")).headers(&headers).one_hop().send();
    assert_eq!(redirected.code(), 307);
    let wrong = curl("PUT", &url).user(Some("loader:r")).headers(&headers).one_hop().send();
    assert!(wrong.text("msg").starts_with("Access denied for loader@"), "{}", wrong.text("msg"));
}

#[test]
fn without_insert_a_backend_begins_nothing() {
    let server = server();
    let url = format!("http://{}/api/transaction/begin", server.fe(0));
    let headers = ["label: l1", "db: shop", "table: orders"];
    let refused = curl("POST", &url).user(Some("reader:r")).headers(&headers).send();
    assert!(refused.text("Message").contains("the INSERT privilege(s)"), "{}", refused.text("Message"));
    assert_eq!(server.state("l1"), "UNKNOWN");
    curl("POST", &url).user(Some("loader:l")).headers(&headers).send().expect("OK", "");
}

#[test]
fn without_operate_nodes_and_settings_are_not_shown() {
    let server = server();
    for sql in ["SHOW BACKENDS", "SHOW COMPUTE NODES", "SHOW FRONTENDS", "ADMIN SHOW FRONTEND CONFIG"] {
        let refused = ask(&server, "loader", "l", sql);
        assert!(refused.contains("1227") && refused.contains("the OPERATE privilege(s)"), "{sql}: {refused}");
    }
    assert!(ask(&server, "loader", "l", "SELECT COUNT(*) FROM shop.orders").contains('0'));
}

#[test]
fn without_select_no_row_is_read_and_the_table_is_still_known() {
    let server = server();
    let refused = ask(&server, "writer", "w", "SELECT 1 FROM shop.orders WHERE 1 = 2");
    assert!(refused.contains("the SELECT privilege(s) on TABLE orders"), "{refused}");
    let known = "SELECT COUNT(*) FROM information_schema.columns WHERE TABLE_NAME = 'orders' AND TABLE_SCHEMA = 'shop'";
    assert!(ask(&server, "writer", "w", known).contains('3'));
    assert!(ask(&server, "writer", "x", "SELECT 1").contains("Access denied for user 'writer'"));
}
