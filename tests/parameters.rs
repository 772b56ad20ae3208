//! Values in job files: given ones, built-in ones, times; and that a moved clock makes no other job of a file.

use serde_json::json;

use crate::cluster::{Outcome, run, starlift, workspace, write_job};
use crate::mariadb::MariaDb;
use crate::migration::{
    assert_identical, create_target, datasources, fill_source, orders_job, run_and_interrupt,
};
use crate::process::output;
use crate::standin::Standin;

#[tokio::test(flavor = "multi_thread")]
async fn plan_shows_each_parameter_with_its_value() {
    let (source, target) = (MariaDb::start().await, Standin::start(&[]).await);
    fill_source(&source, 100).await;
    create_target(&target).await;
    let dir = workspace(&datasources(&source, &target));
    let statement = "delete from @table where day >= '${d0}' and day < '$[yyyy-mm-dd]' and shop = $shop";
    let file = write_job(dir.path(), &orders_job(json!({ "preSql": [statement] }), json!({})));
    let parameters = "# a day, half open\nd0=${yyyy-mm-dd}\nshop=1\n";
    std::fs::write(dir.path().join("params.txt"), parameters).expect("the test's directory is writable");
    let plan = async |flags: &[&str]| -> Outcome {
        let mut command = starlift(dir.path());
        command.arg("plan").arg(&file).args(["--params-file", "params.txt"]).args(flags);
        output(command).await.into()
    };
    let wanted = "delete from orders where day >= '2025-10-31' and day < '2025-11-01' and shop = 7";
    let document = plan(&["--bizdate", "20251031", "--param", "shop=7", "--json"]).await.succeeded().json();
    assert_eq!(
        document["parameters"],
        json!({ "$[yyyy-mm-dd]": "2025-11-01", "${d0}": "2025-10-31", "$shop": "7" })
    );
    assert_eq!(document["pre_sql"], json!([wanted]));
    let text =
        plan(&["--scheduled-time", "2025-11-01 02:30:45", "--param", "shop=7"]).await.succeeded().stdout;
    assert!(text.contains("parameter ${d0} = 2025-10-31\n"), "{text}");
    assert!(text.contains("parameter $[yyyy-mm-dd] = 2025-11-01\n"), "{text}");
    assert!(text.contains(&format!("before: {wanted}\n")), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_run_goes_on_with_the_times_it_began_with() {
    let (source, target) = (MariaDb::start().await, Standin::start(&[]).await);
    fill_source(&source, 2_000).await;
    create_target(&target).await;
    target.run(&["CREATE TABLE dw.ran (at VARCHAR(20)) DUPLICATE KEY(at)"]).await;
    let dir = workspace(&datasources(&source, &target));
    // Another second, another statement.
    let script = orders_job(json!({ "preSql": ["insert into dw.ran values ('$cyctime')"] }), json!({}));
    run_and_interrupt(dir.path(), &script, &target).await;

    let asked = run(dir.path(), &script, &["--bizdate", "20200101"]).await;
    assert_eq!((asked.code, &asked.json()["error"]["code"]), (2, &json!("JOB_CHANGED")), "{asked:?}");

    let resumed = run(dir.path(), &script, &[]).await.succeeded();
    assert!(resumed.stderr.contains("with the times it began with: business date "), "{}", resumed.stderr);
    assert_eq!(resumed.json()["rows_loaded"], 2_000);
    assert_eq!(target.count("dw.ran").await, 1, "a preSql that had completed was run again");
    assert_identical(&source, &target).await;

    // What is over goes on with nothing: the next run is the next day's.
    target.run(&["TRUNCATE TABLE dw.orders"]).await;
    let next = run(dir.path(), &script, &["--bizdate", "20200101"]).await.succeeded();
    assert_ne!(next.json()["job_id"], resumed.json()["job_id"]);
    assert_eq!(target.count("dw.ran").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_is_planned_and_nothing_else() {
    let (source, target) = (MariaDb::start().await, Standin::start(&[]).await);
    fill_source(&source, 100).await;
    create_target(&target).await;
    target.run(&["INSERT INTO dw.orders (id, shop) VALUES (1, 1)"]).await;
    let dir = workspace(&datasources(&source, &target));
    let script = orders_job(json!({ "preSql": ["truncate table @table"] }), json!({ "dryRun": true }));
    let document = run(dir.path(), &script, &[]).await.succeeded().json();
    assert!(document["tasks"].as_array().is_some_and(|tasks| !tasks.is_empty()), "{document:#}");
    assert_eq!(target.count("dw.orders").await, 1);
    assert!(!dir.path().join(".starlift").exists(), "there is nothing to go on with");
}
