//! Encryption, certificates and tokens between the processes, and that no secret is left anywhere a job leaves traces.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::{Outcome, starlift, workspace, write_job};
use crate::etcd;
use crate::mariadb::{self, MariaDb};
use crate::migration::{assert_identical, create_target, fill_source, orders_job};
use crate::process::{Process, free_address, output, until};
use crate::standin::{self, Standin};

const WORKER: &str = "worker-token-0123456789";
const USER: &str = "user-token-0123456789";
const READ: &str = "read-token-0123456789";
const ETCD_PASSWORD: &str = "3tcd-s3cr3t";

#[tokio::test]
async fn nothing_is_reachable_from_other_hosts_by_accident() {
    let dir = workspace(&[]);
    let files = Authority::new(dir.path());
    files.issue("server", |_| {});
    write_tokens(dir.path());
    let tls = ["--tls-cert", "server.crt", "--tls-key", "server.key"];
    let tokens = ["--token-file", "tokens"];
    let everywhere = "0.0.0.0:0";
    for server in ["coordinator", "worker"] {
        for flags in [&[] as &[&str], &tls, &tokens] {
            let mut command = starlift(dir.path());
            command.args([server, "--http", everywhere]).args(flags);
            let refused: Outcome = output(command).await.into();
            assert_eq!(refused.code, 2, "{server} {flags:?}: {refused:?}");
            assert!(refused.stderr.contains("refusing to be reachable from other hosts"), "{refused:?}");
            assert!(refused.stderr.contains("--insecure"), "{refused:?}");
        }
    }
    let mut command = starlift(dir.path());
    command.args(["coordinator", "--grpc", everywhere, "--http", "127.0.0.1:0"]);
    let refused: Outcome = output(command).await.into();
    assert_eq!(refused.code, 2, "{refused:?}");

    // With both it starts, and nothing is said of insecurity; without them only on request, and with a warning.
    for (flags, is_warned) in [([&tls[..], &tokens].concat(), false), (vec!["--insecure"], true)] {
        let state = if is_warned { "file:open" } else { "file:safe" };
        let mut command = starlift(dir.path());
        command.args(["coordinator", "--grpc", everywhere, "--http", everywhere, "--state", state]);
        command.args(["--datasources", "datasources.toml"]).args(&flags);
        let coordinator = Process::start("coordinator", &mut command, dir.path());
        until("the coordinator to be up", || async { coordinator.log().contains("coordinator is up") }).await;
        assert_eq!(coordinator.log().contains("without encryption"), is_warned, "{}", coordinator.log());
    }
}

#[tokio::test]
async fn strangers_are_turned_away_with_the_right_status() {
    let dir = workspace(&[]);
    let files = Authority::new(dir.path());
    files.issue("server", |_| {});
    files.issue("client", |_| {});
    files.issue("expired", |params| params.not_after = date_time_ymd(2020, 1, 1));
    let foreign = dir.path().join("foreign");
    std::fs::create_dir(&foreign).expect("it is writable");
    Authority::new(&foreign).issue("client", |_| {});
    write_tokens(dir.path());
    let (grpc, http) = (free_address().to_string(), free_address().to_string());
    let mut command = starlift(dir.path());
    command.args(["coordinator", "--grpc", &grpc, "--http", &http, "--state", "file:state", "--mutual-tls"]);
    command.args(["--datasources", "datasources.toml", "--token-file", "tokens"]);
    command.args(["--tls-cert", "server.crt", "--tls-key", "server.key", "--tls-ca", "ca.crt"]);
    let coordinator = Process::start("coordinator", &mut command, dir.path());
    // Probes need neither certificate nor token.
    let page =
        async |path: &str, flags: &[&str]| curl(dir.path(), &format!("https://{http}{path}"), flags).await;
    until("the coordinator to be ready", || async { page("/readyz", &[]).await.0 == "200" }).await;
    assert_eq!(page("/livez", &[]).await.0, "200");

    let own = ["--cert", "client.crt", "--key", "client.key"];
    let bearer = |token: &str| vec!["-H".to_owned(), format!("Authorization: Bearer {token}")];
    let with = |token: &str| own.map(str::to_owned).into_iter().chain(bearer(token)).collect::<Vec<_>>();
    for (flags, status, code) in [
        (vec![], "401", "a client certificate is needed"),
        (bearer(USER), "401", "a client certificate is needed"),
        (own.map(str::to_owned).to_vec(), "401", "a token is needed"),
        (with("wrong-token-0123456789"), "401", "the token is not known here"),
        (with(WORKER), "403", "this needs a read token, not a worker token"),
        (with(READ), "200", "\"jobs\":[]"),
        (with(USER), "200", "\"jobs\":[]"),
    ] {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let (answered, text) = page("/api/v1/jobs", &flags).await;
        assert_eq!(answered, status, "{flags:?}: {text}");
        assert!(text.contains(code), "{flags:?}: {text}");
    }
    let reading = with(READ);
    let reading: Vec<&str> = reading.iter().map(String::as_str).chain(["-d", "{}"]).collect();
    assert_eq!(page("/api/v1/check", &reading).await.0, "403", "a check is not for who may only look");
    for (cert, key) in [("foreign/client.crt", "foreign/client.key"), ("expired.crt", "expired.key")] {
        let (status, _) = page("/livez", &["--cert", cert, "--key", key]).await;
        assert_eq!(status, "000", "{cert} is refused in the handshake");
    }
    // Without encryption there is no answer.
    assert_ne!(curl(dir.path(), &format!("http://{http}/livez"), &[]).await.0, "200");

    let list = async |url: &str, flags: &[&str]| -> Outcome {
        let mut command = starlift(dir.path());
        command.args(["list", "--json", "--coordinator", url]).args(flags);
        output(command).await.into()
    };
    let url = format!("https://{grpc}");
    let ca = ["--tls-ca", "ca.crt"];
    let own = ["--tls-ca", "ca.crt", "--tls-cert", "client.crt", "--tls-key", "client.key"];
    std::fs::write(dir.path().join("wrong"), "user wrong-token-0123456789\n").expect("it is writable");
    std::fs::write(dir.path().join("reader"), format!("read {READ}\n")).expect("it is writable");
    let with = |token: &'static str| [&own[..], &["--token-file", token]].concat();
    list(&url, &with("tokens")).await.succeeded();
    for (flags, exit, text) in [
        (with("wrong"), 2, "the token is not known here"),
        (own.to_vec(), 2, "a token is needed"),
        (with("reader"), 2, "no line for the role `user`"),
        ([&ca[..], &["--token-file", "tokens"]].concat(), 3, "--tls-cert"),
        (vec![], 3, "--tls-ca"),
        (
            vec![
                "--tls-ca",
                "ca.crt",
                "--tls-cert",
                "expired.crt",
                "--tls-key",
                "expired.key",
                "--token-file",
                "tokens",
            ],
            3,
            "CertificateExpired",
        ),
        (
            vec![
                "--tls-ca",
                "ca.crt",
                "--tls-cert",
                "foreign/client.crt",
                "--tls-key",
                "foreign/client.key",
                "--token-file",
                "tokens",
            ],
            3,
            "alert",
        ),
        (vec!["--tls-ca", "foreign/ca.crt", "--token-file", "tokens"], 3, "invalid peer certificate"),
        ([with("tokens"), vec!["--tls-server-name", "other.example"]].concat(), 3, "other.example"),
    ] {
        let refused = list(&url, &flags).await;
        assert_eq!(refused.code, exit, "{flags:?}: {refused:?}");
        assert!(refused.stderr.contains(text), "{flags:?} without {text}: {refused:?}");
    }
    // A token does not travel in the open to another host.
    let refused = list("http://192.0.2.1:9470", &["--token-file", "tokens"]).await;
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("unencrypted"), "{refused:?}");
    assert!(!coordinator.log().contains("panicked"), "{}", coordinator.log());
}

#[tokio::test]
async fn a_worker_whose_certificate_is_refused_says_so_and_the_coordinator_says_why() {
    let dir = workspace(&[]);
    let files = Authority::new(dir.path());
    files.issue("server", |_| {});
    files.issue("expired", |params| params.not_after = date_time_ymd(2020, 1, 1));
    let foreign = dir.path().join("foreign");
    std::fs::create_dir(&foreign).expect("it is writable");
    Authority::new(&foreign).issue("client", |_| {});
    for (cert, reason, alert, hint) in [
        ("foreign/client", "invalid peer certificate", "received fatal alert", "compare --tls-cert"),
        ("expired", "certificate expired", "received fatal alert: CertificateExpired", "renew --tls-cert"),
    ] {
        let grpc = free_address().to_string();
        let mut command = starlift(dir.path());
        command.args([
            "coordinator",
            "--grpc",
            &grpc,
            "--http",
            "127.0.0.1:0",
            "--state",
            &format!("file:{cert}.d"),
        ]);
        command.args(["--datasources", "datasources.toml", "--mutual-tls", "--tls-ca", "ca.crt"]);
        command.args(["--tls-cert", "server.crt", "--tls-key", "server.key"]);
        let coordinator = Process::start("coordinator", &mut command, dir.path());
        until("the coordinator to be up", || async { coordinator.log().contains("leading") }).await;
        // Whoever only looks whether somebody listens is no news.
        drop(std::net::TcpStream::connect(&grpc).expect("it listens"));

        let mut command = starlift(dir.path());
        command.args(["worker", "--coordinator", &format!("https://{grpc}"), "--http", "127.0.0.1:0"]);
        command.args(["--datasources", "datasources.toml", "--tls-ca", "ca.crt", "--log", "debug"]);
        command.args(["--tls-cert", &format!("{cert}.crt"), "--tls-key", &format!("{cert}.key")]);
        let worker = Process::start("worker", &mut command, dir.path());
        until("the worker to have tried again and again", || async {
            worker.log().matches("no coordinator answers").count() > 3
        })
        .await;
        let said = worker.log();
        let first = said.lines().find(|line| line.contains("trying again")).expect("it is warned of");
        assert!(first.contains(alert) && first.contains(hint), "{first}");
        let said = coordinator.log();
        let told: Vec<&str> = said.lines().filter(|line| line.contains("turned away")).collect();
        assert_eq!(told.len(), 1, "once a minute, not at each attempt: {said}");
        assert!(told[0].contains("WARN") && told[0].contains("address=127.0.0.1:"), "{}", told[0]);
        assert!(told[0].contains(reason), "{}", told[0]);
    }
}

/// A coordinator and a worker with a certificate that can be renewed under them.
pub(crate) struct Renewed {
    files: Authority,
    dir: TempDir,
    servers: [Process; 2],
    /// Where they tell their numbers to everybody.
    pub(crate) metrics: [String; 2],
}

impl Renewed {
    /// `days`: how long the first certificate is good.
    pub(crate) async fn start(days: i64) -> Self {
        let dir = workspace(&[]);
        let files = Authority::new(dir.path());
        let (grpc, metrics) =
            (free_address().to_string(), [free_address().to_string(), free_address().to_string()]);
        let url = format!("https://{grpc}");
        let servers = ["coordinator", "worker"];
        expiring(&files, days);
        let servers = std::array::from_fn(|number| {
            let mut command = starlift(dir.path());
            command.args([servers[number], "--http", "127.0.0.1:0", "--metrics", &metrics[number]]);
            command.args(["--datasources", "datasources.toml", "--tls-ca", "ca.crt"]);
            command.args(["--tls-cert", "server.crt", "--tls-key", "server.key"]);
            let own = [["--grpc", &grpc, "--state", "file:state"], ["--coordinator", &url, "--slots", "1"]];
            Process::start(servers[number], command.args(own[number]), dir.path())
        });
        let renewed = Self { files, dir, servers, metrics };
        renewed.show("build_info").await;
        renewed
    }

    /// Has both read `file` with this text in it.
    pub(crate) fn read_again(&self, file: &str, text: &str) {
        std::fs::write(self.dir.path().join(file), text).expect("it is writable");
        self.hang_up();
    }

    fn hang_up(&self) {
        for server in &self.servers {
            server.signal("HUP");
        }
    }

    /// Both show this line, behind their own prefix.
    pub(crate) async fn show(&self, line: &str) {
        for (address, prefix) in self.metrics.iter().zip(["starlift_coordinator_", "starlift_worker_"]) {
            let url = format!("http://{address}/metrics");
            until(line, || async {
                curl(self.dir.path(), &url, &[]).await.1.contains(&format!("{prefix}{line}"))
            })
            .await;
        }
    }
}

/// `server.crt` that is good for so many days from now; Unix time of its end.
#[expect(clippy::disallowed_methods, reason = "the servers look at the wall clock, too")]
fn expiring(files: &Authority, days: i64) -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let end_s = now.as_secs().checked_add_signed(days * 24 * 3600).expect("not that long ago");
    files.issue("server", |params| {
        params.not_after = date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(end_s);
    });
    end_s
}

#[tokio::test]
async fn operators_are_warned_before_a_certificate_runs_out_and_of_files_not_taken_up() {
    let cluster = Renewed::start(10).await;
    let said = |text: &str, times: usize| {
        for server in &cluster.servers {
            let lines =
                server.log().lines().filter(|line| line.contains("WARN") && line.contains(text)).count();
            assert_eq!(lines, times, "{text}: {}", server.log());
        }
    };
    said("the certificate runs out", 1);
    said("file=server.crt", 1);

    cluster.read_again("server.key", "no key");
    cluster.show("reloads_failed_total{file=\"certificates_or_tokens\"} 1").await;
    cluster.read_again("datasources.toml", "no table");
    cluster.show("reloads_failed_total{file=\"datasources\"} 1").await;
    said("the certificate runs out", 1);

    for days in [9, -1, 90] {
        let end_s = expiring(&cluster.files, days);
        cluster.hang_up();
        cluster.show(&format!("certificate_expiry_timestamp_seconds {end_s}\n")).await;
    }
    said("the certificate runs out", 2);
    said("the certificate has expired", 1);
}

/// Two coordinators on an encrypted etcd with a password, mutual TLS and tokens everywhere; a job that succeeds, one that
/// fails on its password, one that is refused. Then everything that was written anywhere is searched for every secret.
#[tokio::test(flavor = "multi_thread")]
async fn a_whole_cluster_is_encrypted_and_leaves_no_secret_anywhere() {
    let (source, target) = tokio::join!(MariaDb::start(), Standin::start(&[]));
    source
        .run(&["CREATE USER mover@'%' IDENTIFIED BY 's0urc3-s3cr3t'", "GRANT SELECT ON *.* TO mover@'%'"])
        .await;
    fill_source(&source, 2_000).await;
    create_target(&target).await;
    let entries = |password: &str| {
        [
            source.datasource("source").replace(mariadb::USER, "mover").replace(mariadb::PASSWORD, password),
            target.datasource("target", "dw"),
        ]
    };
    let dir = workspace(&entries("s0urc3-s3cr3t"));
    let mut command = starlift(dir.path());
    command.args(["tls", "init", "tls"]);
    Outcome::from(output(command).await).succeeded();
    let etcd = SafeEtcd::start(dir.path(), ETCD_PASSWORD).await;
    std::fs::write(dir.path().join("etcd.password"), format!("{ETCD_PASSWORD}\n")).expect("it is writable");

    let link = ["--tls-cert", "tls/server.crt", "--tls-key", "tls/server.key", "--tls-ca", "tls/ca.crt"];
    let addresses: [(String, String); 2] =
        std::array::from_fn(|_| (free_address().to_string(), free_address().to_string()));
    let mut servers = Vec::new();
    for (number, (grpc, http)) in addresses.iter().enumerate() {
        let mut command = starlift(dir.path());
        command.args(["coordinator", "--grpc", grpc, "--http", http, "--state", &etcd.state]).args(link);
        command.args(["--mutual-tls", "--token-file", "tls/tokens", "--datasources", "datasources.toml"]);
        command.args([
            "--etcd-ca",
            "tls/ca.crt",
            "--etcd-cert",
            "tls/client.crt",
            "--etcd-key",
            "tls/client.key",
        ]);
        command.args(["--etcd-user", "root", "--etcd-password-file", "etcd.password", "--log", "debug"]);
        let server = Process::start(&format!("coordinator-{number}"), &mut command, dir.path());
        until("a coordinator to lead or to follow", || async {
            server.log().contains("leading") || server.log().contains("following")
        })
        .await;
        servers.push(server);
    }
    let urls: Vec<String> = addresses.iter().map(|(grpc, _)| format!("https://{grpc}")).collect();
    let worker_http = free_address().to_string();
    let mut command = starlift(dir.path());
    command
        .args(["worker", "--coordinator", &urls.join(","), "--http", &worker_http, "--slots", "2"])
        .args(link);
    command.args([
        "--token-file",
        "tls/worker.tokens",
        "--datasources",
        "datasources.toml",
        "--log",
        "debug",
    ]);
    servers.push(Process::start("worker", &mut command, dir.path()));

    // Asked through the one that follows, which hands everything on.
    let mut said = String::new();
    let mut client = async |arguments: &[&str]| -> Outcome {
        let mut command = starlift(dir.path());
        command.args(arguments).args([
            "--coordinator",
            &urls[1],
            "--log",
            "debug",
            "--token-file",
            "tls/user.token",
        ]);
        command.args([
            "--tls-cert",
            "tls/client.crt",
            "--tls-key",
            "tls/client.key",
            "--tls-ca",
            "tls/ca.crt",
        ]);
        let outcome = Outcome::from(output(command).await);
        said += &format!("{}{}", outcome.stdout, outcome.stderr);
        outcome
    };
    let script = orders_job(json!({}), json!({ "speed": { "concurrent": 2 } }));
    let job = write_job(dir.path(), &script).display().to_string();
    let report = client(&["submit", &job, "--watch", "--json"]).await.succeeded().json();
    assert_eq!(report["state"], "SUCCEEDED", "{report:#}");
    assert_identical(&source, &target).await;
    client(&["check", &job, "--from-workers", "--json"]).await;

    // The password changes under the cluster: jobs fail, until SIGHUP has everybody read it again.
    source.run(&["ALTER USER mover@'%' IDENTIFIED BY 'r0t4t3d-s3cr3t'"]).await;
    let failed = client(&["submit", &job, "--watch", "--json"]).await;
    assert_eq!(failed.code, 3, "{failed:?}");
    std::fs::write(dir.path().join("datasources.toml"), entries("r0t4t3d-s3cr3t").join("\n"))
        .expect("it is writable");
    for server in &servers {
        server.signal("HUP");
        until("the data sources to be read again", || async {
            server.log().contains("data sources were read again")
        })
        .await;
    }
    client(&["submit", &job, "--watch", "--json"]).await.succeeded();
    let nonsense = json!({ "type": "job", "steps": [{ "parameter": { "password": "1nl1n3-s3cr3t" } }] });
    let nonsense = write_job(dir.path(), &nonsense).display().to_string();
    assert_eq!(client(&["submit", &nonsense, "--json"]).await.code, 2);

    let tokens = std::fs::read_to_string(dir.path().join("tls/tokens")).expect("it was made");
    let tokens: Vec<&str> =
        tokens.lines().filter_map(|line| line.split_once(' ').map(|(_, token)| token)).collect();
    let bearer = |token: &str| format!("Authorization: Bearer {token}");
    let id = report["job_id"].as_str().expect("an id");
    let mut pages = Vec::new();
    for (_, http) in &addresses {
        for path in [
            "/metrics",
            "/api/v1/jobs",
            &format!("/api/v1/jobs/{id}"),
            &format!("/api/v1/jobs/{id}/report"),
            &format!("/api/v1/jobs/{id}/tasks"),
            &format!("/api/v1/jobs/{id}/script"),
            &format!("/api/v1/jobs/{id}/throughput"),
            &format!("/api/v1/jobs/{id}/events"),
            "/api/v1/workers",
            "/api/v1/datasources",
            "/api/v1/session",
            "/",
        ] {
            pages.push((http.clone(), path.to_owned()));
        }
    }
    pages.push((worker_http, "/metrics".into()));
    for (host, path) in pages {
        // Scripts are not for who may only look; a worker knows no user.
        let bearer = bearer(if path.ends_with("/script") { tokens[1] } else { tokens[2] });
        let flags = ["--cert", "tls/client.crt", "--key", "tls/client.key", "-H", &bearer];
        let (status, text) =
            curl_with(dir.path(), "tls/ca.crt", &format!("https://{host}{path}"), &flags).await;
        assert_eq!(status, "200", "{host}{path}: {text}");
        said += &text;
    }
    // A browser signs in once, and its cookie is good for both.
    let with_cookies = async |host: &str, path: &str, flags: &[&str]| {
        let own = ["--cert", "tls/client.crt", "--key", "tls/client.key", "-b", "cookies", "-c", "cookies"];
        let flags = [&own[..], flags].concat();
        curl_with(dir.path(), "tls/ca.crt", &format!("https://{host}{path}"), &flags).await
    };
    let login = json!({ "token": tokens[1] }).to_string();
    let json = ["-H", "Content-Type: application/json", "-d", &login];
    let (status, text) = with_cookies(&addresses[1].1, "/api/v1/session", &json).await;
    assert!(status == "200" && text.contains("\"user\""), "{status} {text}");
    let cookies = std::fs::read_to_string(dir.path().join("cookies")).expect("curl keeps them");
    assert!(cookies.contains("#HttpOnly_") && cookies.contains("__Host-starlift"), "{cookies}");
    for (_, http) in &addresses {
        let (status, text) = with_cookies(http, &format!("/api/v1/jobs/{id}/script"), &[]).await;
        assert!(status == "200" && text.contains("orders"), "{status} {text}");
    }
    with_cookies(&addresses[0].1, "/api/v1/session", &["-X", "DELETE"]).await;
    assert_eq!(with_cookies(&addresses[0].1, "/api/v1/jobs", &[]).await.0, "401");

    let stored = SafeEtcd::everything(dir.path());
    assert!(stored.contains("SUCCEEDED") && stored.contains("orders"), "the search sees what is stored");
    for server in &servers {
        said += &server.log();
    }
    let mut secrets =
        vec!["s0urc3-s3cr3t", standin::PASSWORD, ETCD_PASSWORD, "r0t4t3d-s3cr3t", "1nl1n3-s3cr3t"];
    secrets.extend(&tokens);
    for secret in secrets {
        // As they are, and as HTTP's basic authentication would show the end of them.
        let shown: Vec<String> = (0..3)
            .map(|shift| {
                BASE64_STANDARD.encode(format!("{}{secret}", "x".repeat(shift)))[4..]
                    .trim_end_matches('=')
                    .to_owned()
            })
            .map(|text| text[..text.len().saturating_sub(2)].to_owned())
            // Of a short secret too little is left to tell it from chance.
            .filter(|text| text.len() > 7)
            .collect();
        for text in [&said, &stored] {
            // What etcd itself writes down of its users is its own affair.
            if std::ptr::eq(text, &stored) && secret == ETCD_PASSWORD {
                continue;
            }
            let found =
                text.find(secret).or_else(|| shown.iter().find_map(|shown| text.find(shown.as_str())));
            assert!(found.is_none(), "a secret was left: ...{}...", around(text, found.unwrap_or(0)));
        }
    }
}

/// Enough of the text around a place to see who wrote it.
fn around(text: &str, place: usize) -> String {
    text.chars().skip(text[..place].chars().count().saturating_sub(200)).take(400).collect()
}

/// An etcd that wants certificates and a password.
struct SafeEtcd {
    address: String,
    state: String,
    _server: Process,
}

impl SafeEtcd {
    /// `tls/` in `dir` holds the certificates.
    async fn start(dir: &Path, password: &str) -> Self {
        let (client, peer) = (free_address().to_string(), free_address().to_string());
        let mut command = etcd::command(None, Path::new("etcd-data"), &format!("https://{client}"), &peer);
        command.current_dir(dir);
        command.args(["--cert-file", "tls/server.crt", "--key-file", "tls/server.key"]);
        command.args(["--client-cert-auth", "--trusted-ca-file", "tls/ca.crt"]);
        let server = Process::start("etcd", &mut command, dir);
        let etcd = Self { state: format!("etcd://{client}/starlift"), address: client, _server: server };
        until("etcd to answer", || async { etcd.does(dir, "kv/range", &json!({ "key": "eA==" })).await })
            .await;
        for (path, body) in [
            ("auth/role/add", json!({ "name": "root" })),
            ("auth/user/add", json!({ "name": "root", "password": password })),
            ("auth/user/grant", json!({ "user": "root", "role": "root" })),
            ("auth/enable", json!({})),
        ] {
            assert!(etcd.does(dir, path, &body).await, "etcd refuses {path}");
        }
        etcd
    }

    /// Everything it has written to its disk.
    fn everything(dir: &Path) -> String {
        fn read(dir: &Path, text: &mut String) {
            for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
                match entry.path() {
                    path if path.is_dir() => read(&path, text),
                    path => *text += &String::from_utf8_lossy(&std::fs::read(path).expect("a file")),
                }
            }
        }
        let mut text = String::new();
        read(&dir.join("etcd-data"), &mut text);
        text
    }

    /// Whether it does it. Works as long as no password is asked for.
    async fn does(&self, dir: &Path, path: &str, body: &Value) -> bool {
        let (url, body) = (format!("https://{}/v3/{path}", self.address), body.to_string());
        let flags = ["--cert", "tls/client.crt", "--key", "tls/client.key", "-d", &body];
        curl_with(dir, "tls/ca.crt", &url, &flags).await.0 == "200"
    }
}

/// Status and body; the status is 000 when there was no answer.
async fn curl(dir: &Path, url: &str, flags: &[&str]) -> (String, String) {
    curl_with(dir, "ca.crt", url, flags).await
}

async fn curl_with(dir: &Path, ca: &str, url: &str, flags: &[&str]) -> (String, String) {
    let mut command = Command::new("curl");
    command.current_dir(dir).args(["-s", "--noproxy", "*", "--max-time", "10", "--cacert", ca]);
    command.args(["-w", "\n%{http_code}", url]).args(flags);
    let done = output(command).await;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').unwrap_or(("", "000"));
    (status.to_owned(), body.to_owned())
}

fn write_tokens(dir: &Path) {
    let text = format!("worker {WORKER}\nuser {USER}\nread {READ}\n");
    std::fs::write(dir.join("tokens"), text).expect("it is writable");
}

/// An authority whose certificates are as good or as bad as a test wants them.
struct Authority {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(dir: &Path) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        std::fs::write(dir.join("ca.crt"), certificate.pem()).expect("it is writable");
        Self { dir: dir.to_owned(), issuer: Issuer::new(params, key) }
    }

    /// `FILE.crt` and `FILE.key` for both sides of a connection on this machine.
    fn issue(&self, file: &str, change: impl FnOnce(&mut CertificateParams)) {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("good names");
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        // A leaf by the name of its authority would pass for one that signed itself.
        params.distinguished_name.push(DnType::CommonName, file);
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        std::fs::write(self.dir.join(format!("{file}.crt")), certificate.pem()).expect("it is writable");
        std::fs::write(self.dir.join(format!("{file}.key")), key.serialize_pem()).expect("it is writable");
    }
}
