//! Checklist 1 to 17: how requests travel.

use starrocks_standin::Config;

use crate::client::{Server, Socket, curl, request};

const PATH: &str = "/api/shop/orders/_stream_load";

#[test]
fn c01_put_without_authorization_is_401_with_a_realm() {
    let server = Server::new();
    let reply = curl("PUT", &format!("http://{}{PATH}", server.fe(0))).user(None).send();
    assert_eq!(reply.code(), 401);
    assert_eq!(reply.header("WWW-Authenticate"), Some("Basic realm=\"\""));
    assert_eq!(reply.text("status"), "FAILED");
    assert_eq!(reply.text("msg"), "Need auth information.");
}

#[test]
fn c02_put_with_a_wrong_password_is_401_access_denied() {
    let server = Server::new();
    let reply = curl("PUT", &format!("http://{}{PATH}", server.fe(0))).user(Some("root:wrong")).send();
    assert_eq!(reply.code(), 401);
    assert!(reply.text("message").starts_with("Access denied for root@127.0.0.1"));
}

#[test]
fn c03_put_without_expect_fails_with_http_200_and_no_redirect() {
    let server = Server::new();
    let reply =
        curl("PUT", &format!("http://{}{PATH}", server.fe(0))).headers(&["Expect:"]).body("1,a,2\n").send();
    assert_eq!(reply.heads.len(), 1);
    assert_eq!(reply.header("Connection"), Some("close"));
    reply.expect("FAILED", "There is no 100-continue header");
}

#[test]
fn c04_put_with_expect_is_redirected_without_userinfo_and_the_connection_closes() {
    let server = Server::new();
    let mut socket = Socket::open(server.fe(0));
    socket.write(&request("PUT", PATH, &["Expect: 100-continue", "Content-Length: 6"]));
    let answer = socket.read_all();
    assert!(answer.starts_with("HTTP/1.1 307 Temporary Redirect\r\n"), "{answer}");
    let location = format!("\r\nLocation: http://{}{PATH}\r\n", server.be(0));
    assert!(answer.contains(&location), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "the body is empty: {answer}");
    assert!(answer.contains("Content-Length: 0"), "{answer}");
}

#[test]
fn c05_the_query_string_is_kept_in_the_location() {
    let server = Server::new();
    let url = format!("http://{}{PATH}?a=1&b=%20x", server.fe(0));
    let reply = curl("PUT", &url).headers(&["Expect: 100-continue"]).one_hop().send();
    assert_eq!(reply.code(), 307);
    let location = format!("http://{}{PATH}?a=1&b=%20x", server.be(0));
    assert_eq!(reply.header("Location"), Some(location.as_str()));
}

#[test]
fn c06_a_follower_redirects_straight_to_a_backend() {
    let server = Server::wide();
    let reply = curl("PUT", &format!("http://{}{PATH}", server.fe(2)))
        .headers(&["Expect: 100-continue"])
        .one_hop()
        .send();
    let location = reply.header("Location").unwrap();
    assert!(
        location.contains(&server.be(0).to_string()) || location.contains(&server.be(1).to_string()),
        "{location}"
    );
}

#[test]
fn c07_no_alive_backend_is_failed_with_http_200() {
    let server = Server::new();
    server.block_on(server.standin().backend_down(0, std::time::Duration::ZERO));
    server.load(&[], "1,a,2\n").expect("FAILED", "No backend");
    server.op("begin", "a").expect("FAILED", "No backend");
}

#[test]
fn c08_locations_rotate_over_the_alive_backends() {
    let server = Server::with(Config::nodes(1, 3));
    server.block_on(server.standin().backend_down(1, std::time::Duration::ZERO));
    let next = || {
        let put = curl("PUT", &format!("http://{}{PATH}", server.fe(0))).headers(&["Expect: 100-continue"]);
        put.one_hop().send().header("Location").unwrap().to_owned()
    };
    let seen: Vec<String> = (0..4).map(|_| next()).collect();
    assert_ne!(seen[0], seen[1]);
    assert_eq!(seen[0..2], seen[2..4]);
    assert!(seen.iter().all(|location| !location.contains(&server.be(1).to_string())));
}

#[test]
fn c09_put_straight_to_the_backend_needs_no_expect() {
    let server = Server::new();
    let reply = curl("PUT", &format!("http://{}{PATH}", server.be(0)))
        .headers(&["Expect:", "column_separator: ,"])
        .body("1,a,2\n")
        .send();
    assert_eq!(reply.heads.len(), 1);
    reply.expect("Success", "OK");
}

#[test]
fn c10_the_backend_sends_100_continue_when_expected() {
    let server = Server::new();
    let mut socket = Socket::open(server.be(0));
    socket.write(&request(
        "PUT",
        PATH,
        &["Expect: 100-continue", "Content-Length: 6", "column_separator: ,", "Connection: close"],
    ));
    assert!(socket.read_head().starts_with("HTTP/1.1 100 Continue"));
    socket.write("1,a,2\n");
    let answer = socket.read_all();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.contains("\"Status\": \"Success\""), "{answer}");
}

#[test]
fn c11_bad_credentials_at_the_backend_are_fail_with_http_200() {
    let server = Server::new();
    let put = || curl("PUT", &format!("http://{}{PATH}", server.be(0))).body("1,a,2\n");
    put().user(None).send().expect("Fail", "no valid Basic authorization");
    put().user(Some("root:wrong")).send().expect("Fail", "Access denied");
}

#[test]
fn c12_a_chunked_body_is_taken() {
    let server = Server::new();
    let put = curl("PUT", &format!("http://{}{PATH}", server.be(0))).headers(&["column_separator: ,"]);
    let reply = put.chunked("1,a,2\n2,b,3\n").send();
    reply.expect("Success", "OK");
    assert_eq!(reply.number("NumberLoadedRows"), 2);
}

#[test]
fn c13_a_body_over_the_limit_is_refused_before_it_is_read() {
    let server = Server::with(Config { streaming_load_max_mb: 1, ..Config::default() });
    let mut socket = Socket::open(server.be(0));
    socket.write(&request("PUT", PATH, &["Expect: 100-continue", "Content-Length: 2000000"]));
    let answer = socket.read_head();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "no 100 Continue: {answer}");
    let reply = curl("PUT", &format!("http://{}{PATH}", server.be(0))).body(vec![b'x'; 2_000_000]).send();
    reply.expect("Fail", "body size 2000000 exceed limit");
}

#[test]
fn c14_json_over_the_batch_size_needs_ignore_json_size() {
    let server = Server::with(Config { streaming_load_max_batch_size_mb: 1, ..Config::default() });
    let body = format!("{{\"id\":1,\"name\":\"{}\"}}", " ".repeat(1_200_000));
    let put = |headers: &[&str]| {
        curl("PUT", &format!("http://{}{PATH}", server.be(0)))
            .headers(&["format: json"])
            .headers(headers)
            .body(body.clone())
            .send()
    };
    put(&[]).expect("Fail", "ignore_json_size");
    put(&["ignore_json_size: true"]).expect("Success", "OK");
}

#[test]
fn c15_an_unknown_format_is_refused() {
    let server = Server::new();
    server.load(&["format: parquet"], "x").expect("Fail", "unknown data format");
}

#[test]
fn c16_a_timeout_must_be_a_number_in_range() {
    let server = Server::new();
    server.load(&["timeout: abc"], "1,a,2\n").expect("Fail", "Invalid timeout format");
    for timeout in ["timeout: 0", "timeout: 300000"] {
        server.load(&[timeout], "1,a,2\n").expect("Fail", "Timeout should between 1 and 259200 seconds");
    }
}

#[test]
fn c17_an_unknown_backend_path_is_404() {
    let server = Server::new();
    let reply = curl("GET", &format!("http://{}/api/nothing", server.be(0))).send();
    assert_eq!((reply.code(), reply.body.as_str()), (404, "Not Found"));
}

#[test]
fn a_post_without_any_length_is_an_empty_body() {
    let server = Server::new();
    let mut socket = Socket::open(server.be(0));
    let headers = ["label: bare", "db: shop", "table: orders"];
    socket.write(&request("POST", "/api/transaction/begin", &headers));
    assert!(socket.read_head().starts_with("HTTP/1.1 200 OK"));
    assert_eq!(server.state("bare"), "PREPARE");
}

#[test]
fn health_counts_backends() {
    let server = Server::wide();
    let reply = curl("GET", &format!("http://{}/api/health", server.fe(1))).user(None).send();
    assert_eq!((reply.number("total_backend_num"), reply.number("online_backend_num")), (2, 2));
}

#[test]
fn an_advertised_backend_stands_in_the_location() {
    let config = Config { advertised_be: vec!["be-0.internal:8040".into()], ..Config::default() };
    let server = Server::with(config);
    let put =
        curl("PUT", &format!("http://{}{PATH}", server.fe(0))).headers(&["Expect: 100-continue"]).one_hop();
    assert_eq!(put.send().header("Location"), Some("http://be-0.internal:8040/api/shop/orders/_stream_load"));
}
