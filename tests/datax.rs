//! DataX files: run as they are, or converted; their passwords stay out of everything that is kept or printed.

use std::path::Path;

use serde_json::{Value, json};

use crate::cluster::{Outcome, run, starlift, workspace, write_job};
use crate::mariadb::{self, MariaDb};
use crate::process::output;
use crate::rows;
use crate::standin::{self, Standin};

/// The goods of the fifth example, at servers that are there.
struct Shop {
    source: MariaDb,
    target: Standin,
    file: Value,
}

impl Shop {
    async fn start() -> Self {
        let (source, target) = (MariaDb::start().await, Standin::start(&[]).await);
        source
            .run(&[
                "CREATE TABLE goods (id INT PRIMARY KEY, title VARCHAR(40), price DECIMAL(10,2)) DEFAULT CHARSET utf8mb4",
                "INSERT INTO goods SELECT seq, CONCAT('商品\\t', seq), seq / 100 FROM seq_1_to_500",
            ])
            .await;
        target
            .run(&[
                "CREATE DATABASE dw",
                "CREATE TABLE dw.goods (id INT, title VARCHAR(160) NULL, price DECIMAL(10,2) NULL) DUPLICATE KEY(id)",
                "INSERT INTO dw.goods VALUES (7, 'old', 0)",
            ])
            .await;
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/e5-datax-mysql.json");
        let text = std::fs::read(path).expect("the example is there");
        let mut file: Value = serde_json::from_slice(&text).expect("the example is JSON");
        let reader = &mut file["job"]["content"][0]["reader"]["parameter"];
        reader["username"] = json!(mariadb::USER);
        reader["password"] = json!("${source_password}");
        let url = format!("jdbc:mysql://127.0.0.1:{}/{}?useSSL=false", source.port, mariadb::DATABASE);
        reader["connection"][0]["jdbcUrl"] = json!([url]);
        let writer = &mut file["job"]["content"][0]["writer"]["parameter"];
        writer["username"] = json!(standin::USER);
        writer["password"] = json!(standin::PASSWORD);
        writer["connection"][0]["jdbcUrl"] = json!(format!("jdbc:mysql://{}/", target.addresses.mysql));
        writer["loadUrl"] = json!(target.addresses.fe_http);
        Self { source, target, file }
    }

    async fn assert_loaded(&self) {
        let wanted =
            rows::read(self.source.connect().await, "SELECT id, title, price FROM goods WHERE id > 0").await;
        let found = rows::read(self.target.connect().await, "SELECT id, title, price FROM dw.goods").await;
        rows::assert_same(&wanted, &found);
    }
}

fn assert_no_password_in(text: &[u8], place: &str) {
    for secret in [mariadb::PASSWORD, standin::PASSWORD] {
        let found = text.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "a password is in {place}");
    }
}

fn assert_no_password_under(directory: &Path) {
    for entry in std::fs::read_dir(directory).expect("the directory is there") {
        let path = entry.expect("a readable directory").path();
        if path.is_dir() {
            assert_no_password_under(&path);
        } else {
            assert_no_password_in(
                &std::fs::read(&path).expect("a readable file"),
                &path.display().to_string(),
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_datax_file_runs_as_it_is_and_its_passwords_are_kept_nowhere() {
    let shop = Shop::start().await;
    let dir = workspace(&[]);
    let parameters = format!("source_password={}\n", mariadb::PASSWORD);
    std::fs::write(dir.path().join("secrets.txt"), parameters).expect("the test's directory is writable");
    let outcome = run(dir.path(), &shop.file, &["--params-file", "secrets.txt"]).await.succeeded();
    assert_eq!(outcome.json()["rows_loaded"], 500);
    shop.assert_loaded().await;
    assert_no_password_in(format!("{}{}", outcome.stdout, outcome.stderr).as_bytes(), "the output");
    assert_no_password_under(&dir.path().join(".starlift"));
    let labels = shop.target.transactions().await;
    assert!(labels.iter().any(|one| one.label.starts_with("goods__")), "labelPrefix is kept: {labels:?}");

    let mut command = starlift(dir.path());
    command.arg("plan").arg("job.json").args(["--json", "--params-file", "secrets.txt"]);
    let planned = Outcome::from(output(command).await).succeeded();
    assert_eq!(planned.json()["parameters"], json!({}), "a secret is no parameter to be shown");
    assert_no_password_in(format!("{}{}", planned.stdout, planned.stderr).as_bytes(), "the plan");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_converted_file_runs_with_the_entries_that_came_with_it() {
    let mut shop = Shop::start().await;
    shop.file["job"]["content"][0]["reader"]["parameter"]["password"] = json!(mariadb::PASSWORD);
    let dir = workspace(&[]);
    let file = write_job(dir.path(), &shop.file);
    let convert = async |flags: &[&str]| -> Outcome {
        let mut command = starlift(dir.path());
        command.arg("convert").arg(&file).args(flags);
        output(command).await.into()
    };
    let alone = convert(&[]).await.succeeded();
    assert_no_password_in(format!("{}{}", alone.stdout, alone.stderr).as_bytes(), "what convert prints");
    let entries = &alone.stderr;
    assert!(entries.contains("[shop_127_0_0_1_") && entries.contains("_PASSWORD}\""), "{entries}");

    let refused = convert(&["--with-passwords"]).await;
    assert_eq!(refused.code, 2, "passwords go into a file or nowhere: {refused:?}");
    let script = convert(&["--with-passwords", "--datasources-out", "entries.toml"]).await.succeeded().json();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode =
            std::fs::metadata(dir.path().join("entries.toml")).expect("it was written").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "others must not read it");
    }
    let again = convert(&["--datasources-out", "entries.toml"]).await;
    assert_eq!(again.code, 2, "an entry file is never overwritten: {again:?}");
    assert_eq!(again.stdout, "");

    std::fs::rename(dir.path().join("entries.toml"), dir.path().join("datasources.toml"))
        .expect("it was written");
    let outcome = run(dir.path(), &script, &[]).await.succeeded();
    assert_eq!(outcome.json()["rows_loaded"], 500);
    shop.assert_loaded().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_datax_file_is_not_submitted() {
    let dir = workspace(&[]);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/e5-datax-mysql.json");
    let mut command = starlift(dir.path());
    command.arg("submit").arg(path);
    let refused = Outcome::from(output(command).await);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("starlift convert"), "{}", refused.stderr);
}
