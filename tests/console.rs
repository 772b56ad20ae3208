//! The console in a real browser: a job made without a line of JSON, steered, and read to its report; who gets in and who
//! does not; faults at their places; pages that stay fast and open to everybody.

use std::path::Path;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::browser::{Browser, DESK, PHONE};
use crate::cluster::Cluster;
use crate::mariadb::MariaDb;
use crate::migration::{assert_identical, create_target, datasources, fill_source, orders_job};
use crate::standin::Standin;

const ROWS: u32 = 60_000;
/// So that there is something to see on the way.
const BYTES_PER_SECOND: &str = "700000";

/// A source, a target that is not fast, and a cluster between them.
struct Stage {
    source: MariaDb,
    target: Standin,
    cluster: Cluster,
}

impl Stage {
    async fn start(flags: &[&str]) -> Self {
        let limited = ["--be-bytes-per-second", BYTES_PER_SECOND];
        let (mut source, target) = tokio::join!(MariaDb::start(), Standin::start(&limited));
        fill_source(&source, ROWS).await;
        source.claim_rows("orders", 1_200_000).await;
        create_target(&target).await;
        let cluster = Cluster::start_with(&datasources(&source, &target), 2, 2, flags).await;
        Self { source, target, cluster }
    }
}

/// A page as it must be: for everybody, in both themes, on a desk and on a phone.
async fn look_at(browser: &Browser, name: &str) {
    for theme in ["light", "dark"] {
        choose(browser, "#theme", theme).await;
        assert_eq!(browser.barriers().await, Vec::<String>::new(), "{name}, {theme}");
    }
    browser.screenshot(&format!("{name}-dark")).await;
    browser.resize(PHONE).await;
    let wide = browser.run("return document.documentElement.scrollWidth - window.innerWidth").await;
    assert!(wide.as_i64() <= Some(0), "{name}: {wide} pixels too wide for a phone");
    browser.screenshot(&format!("{name}-phone")).await;
    choose(browser, "#theme", "light").await;
    browser.resize(DESK).await;
    browser.screenshot(name).await;
}

/// In a list, as a person would.
async fn choose(browser: &Browser, css: &str, value: &str) {
    let script = format!(
        "const list = document.querySelector('{css}'); list.value = '{value}'; \
         list.dispatchEvent(new Event('input', {{ bubbles: true }})); \
         list.dispatchEvent(new Event('change', {{ bubbles: true }})); return list.value"
    );
    assert_eq!(browser.run(&script).await, json!(value), "{css} has no {value}");
}

/// Nothing was asked of another host, and the browser found nothing to complain of but what the test expects.
async fn stays_at_home(browser: &Browser, home: &str, expected: &[&str]) {
    let (requests, complaints) = browser.requests_and_complaints().await;
    // A new window shows a page of the browser's own first.
    let is_foreign = |url: &&String| !["data:", "chrome:", home].iter().any(|known| url.starts_with(known));
    assert_eq!(requests.iter().find(is_foreign), None);
    assert!(requests.len() > 5, "the log of requests is read: {requests:?}");
    let is_news = |text: &&String| !expected.iter().any(|known| text.contains(known));
    assert_eq!(complaints.iter().find(is_news), None);
}

/// Waits until the job's page says so.
async fn until_state(browser: &Browser, state: &str) {
    let is_so = format!("document.querySelector('#job-state')?.textContent.includes('{state}')");
    browser.until(&format!("the job to be {state}"), &is_so).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_made_in_the_form_and_read_to_its_report() {
    let (stage, browser) = tokio::join!(Stage::start(&[]), Browser::start());
    let home = stage.cluster.rest();
    browser.open(&home).await;
    browser.until_page("jobs").await;
    look_at(&browser, "jobs-none").await;

    browser.open(&format!("{home}/#/sources")).await;
    browser.until_page("sources").await;
    browser.click("tr[data-source=target] button[data-test]").await;
    browser.until("the matrix of the target", "document.querySelector('.check-matrix')").await;
    look_at(&browser, "sources").await;

    browser.open(&format!("{home}/#/new")).await;
    browser.until_page("new").await;
    browser.click("#tab-form").await;
    for (side, datasource, database) in [("source", "source", "shop"), ("target", "target", "dw")] {
        pick(&browser, &format!("#{side}-datasource"), datasource).await;
        pick(&browser, &format!("#{side}-database"), database).await;
        pick(&browser, &format!("#{side}-table"), "orders").await;
    }
    let all_fit = "document.querySelectorAll('#mapping tr[data-column] td[data-fit]').length === 9 && \
                   [...document.querySelectorAll('#mapping td[data-fit]')].every(cell => \
                   ['exact', 'widened', 'checked'].includes(cell.dataset.fit))";
    browser.until("nine columns that fit", all_fit).await;
    // The table has no primary key; its index suggests itself.
    browser.until("a suggested splitPk", "document.querySelector('#split-pk').value === 'id'").await;
    browser.enter("#job-name", "orders to the warehouse").await;
    look_at(&browser, "new-form").await;

    browser.click("#check").await;
    browser.until("what the check found", "document.querySelector('#check-result .check-matrix')").await;
    browser.screenshot("new-check").await;
    browser.click("#plan").await;
    browser.until("the plan", "document.querySelector('#plan-result')?.textContent.includes('SELECT')").await;
    assert_eq!(stage.target.count("dw.orders").await, 0, "a plan touches nothing");
    look_at(&browser, "new-plan").await;

    // One task is held before its end, so that there is time to look.
    stage.target.fault(json!({ "op": "prepare", "label": "sl_", "count": 1, "do": "hold" })).await;
    browser.click("#start").await;
    browser.until_page("job").await;
    let of_state = |letter: &str| {
        format!(
            "Number(document.querySelector('#task-map')?.closest('section')\
             .querySelector('.legend li[data-key={letter}]')?.textContent.replace(/\\D/g, '') ?? 0)"
        )
    };
    let (done, running) = (of_state("D"), of_state("R"));
    browser.until("the map to fill", &format!("{done} > 0")).await;
    browser.until("all but one task to be done", &format!("{running} === 1 && {done} > 10")).await;
    let before = browser.run(&format!("return {done}")).await.as_f64();
    look_at(&browser, "job-running").await;
    stage.target.clear_faults().await;
    until_state(&browser, "SUCCEEDED").await;
    let after = browser.run(&format!("return {done}")).await.as_f64();
    assert_eq!(before.map(|tasks| tasks + 1.0), after, "the map is full");
    browser.until("the report", "document.querySelector('#job-report')").await;
    look_at(&browser, "job-report").await;

    let report = browser.text("#job-report").await;
    assert!(report.contains("60,000"), "{report}");
    assert_eq!(stage.target.count("dw.orders").await, u64::from(ROWS));
    assert_identical(&stage.source, &stage.target).await;

    browser.open(&format!("{home}/#/jobs")).await;
    browser.until_page("jobs").await;
    browser.until("the job in the list", "document.querySelector('tr[data-job-id]')").await;
    look_at(&browser, "jobs").await;
    browser.open(&format!("{home}/#/workers")).await;
    browser.until_page("workers").await;
    browser
        .until("both workers", "document.querySelectorAll('#workers-table tr[data-worker-id]').length === 2")
        .await;
    look_at(&browser, "workers").await;
    stays_at_home(&browser, &home, &[]).await;
}

/// From a list or into a field.
async fn pick(browser: &Browser, css: &str, value: &str) {
    let is_there = format!(
        "(field => field && !field.disabled && (field.tagName !== 'SELECT' || \
         [...field.options].some(one => one.value === '{value}')))(document.querySelector('{css}'))"
    );
    browser.until(&format!("{value} in {css}"), &is_there).await;
    choose(browser, css, value).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_paused_resumed_and_cancelled_from_its_page() {
    let (stage, browser) = tokio::join!(Stage::start(&[]), Browser::start());
    let home = stage.cluster.rest();
    // It does not end before it is told to.
    stage.target.fault(json!({ "op": "prepare", "label": "sl_", "count": 1, "do": "hold" })).await;
    let job_id = stage.cluster.submit(&orders_job(json!({}), json!({}))).await;
    browser.open(&format!("{home}/#/jobs/{job_id}")).await;
    browser.until_page("job").await;
    until_state(&browser, "RUNNING").await;
    for (button, state) in
        [("#job-pause", "PAUSED"), ("#job-resume", "RUNNING"), ("#job-cancel", "CANCELLED")]
    {
        browser.click(button).await;
        browser.until("a question", "document.querySelector('dialog[open]')").await;
        if button == "#job-cancel" {
            assert_eq!(browser.barriers().await, Vec::<String>::new(), "the question");
            browser.screenshot("job-cancel").await;
        }
        browser.click("#confirm-yes").await;
        until_state(&browser, state).await;
    }
    stage.target.clear_faults().await;
    assert_eq!(stage.cluster.status(&job_id).await["state"], "CANCELLED");
    browser.until("the report", "document.querySelector('#job-report')").await;
    // What the job was is the beginning of another one.
    browser.open(&format!("{home}/#/new?from={job_id}")).await;
    browser.until_page("new").await;
    browser.click("#tab-code").await;
    browser.until("its script", "document.querySelector('#script').value.includes('orders')").await;

    // A job that fails says why and what to do; one that leaves rows out shows the first of them.
    let narrow = "CREATE TABLE dw.narrow (id BIGINT NULL, shop INT NOT NULL, city VARCHAR(6) NULL) DUPLICATE KEY(id) \
                  DISTRIBUTED BY HASH(id) BUCKETS 1";
    stage.target.run(&[narrow]).await;
    let mut script = orders_job(json!({ "table": "narrow" }), json!({}));
    for step in [0, 1] {
        script["steps"][step]["parameter"]["column"] = json!(["id", "shop", "city"]);
    }
    let job_id = stage.cluster.submit(&script).await;
    browser.open(&format!("{home}/#/jobs/{job_id}")).await;
    until_state(&browser, "FAILED").await;
    browser.until("the report", "document.querySelector('#job-report')").await;
    browser.until("the reason", "document.querySelector('main').innerText.includes('ROWS_REFUSED')").await;
    look_at(&browser, "job-failed").await;
    script["steps"][1]["parameter"]["strategyOnError"] = json!("batchDirtyData");
    script["steps"][0]["parameter"]["where"] = json!("shop = 1");
    script["setting"]["errorLimit"]["record"] = json!(100_000);
    let job_id = stage.cluster.submit(&script).await;
    browser.open(&format!("{home}/#/jobs/{job_id}")).await;
    until_state(&browser, "SUCCEEDED").await;
    browser.until("bad rows", "document.querySelectorAll('.bad-rows tbody tr').length > 0").await;
    let odd = "[...document.querySelectorAll('main td, main dd')].find(cell => /NaN|undefined/.test(cell.textContent))";
    assert_eq!(browser.run(&format!("return {odd} ?? null")).await, Value::Null, "every number is one");
    look_at(&browser, "job-dirty").await;

    browser.open(&format!("{home}/#/workers")).await;
    browser.until_page("workers").await;
    browser.click("tr[data-worker-id] button").await;
    browser.click("#confirm-yes").await;
    browser
        .until(
            "a worker to leave",
            "document.querySelector('#workers-table').textContent.includes('DRAINING')",
        )
        .await;
    stage.target.wait_until_nothing_is_open().await;
    stays_at_home(&browser, &home, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_in_without_a_token_and_who_may_look_only_looks() {
    let dir = tempfile::tempdir().expect("a directory");
    let tokens = dir.path().join("tokens");
    let (user, reader) = ("user-token-of-the-console", "read-token-of-the-console");
    std::fs::write(&tokens, format!("user {user}\nread {reader}\nworker worker-token-of-the-console\n"))
        .expect("it is writable");
    let flags = ["--token-file", tokens.to_str().expect("a plain name")];
    let (cluster, browser) = tokio::join!(Cluster::start_with(&[], 0, 0, &flags), Browser::start());
    let home = cluster.rest();
    browser.open(&home).await;
    browser.until_page("login").await;
    look_at(&browser, "login").await;

    browser.enter("#login-token", "not-a-token-of-anybody").await;
    browser.click("#login-submit").await;
    browser
        .until("a refusal", "document.querySelector('#login-error')?.textContent.includes('not known')")
        .await;
    assert_eq!(browser.barriers().await, Vec::<String>::new(), "a refused token");
    browser.screenshot("login-refused").await;

    browser.enter("#login-token", reader).await;
    browser.click("#login-submit").await;
    browser.until_page("jobs").await;
    assert_eq!(browser.run("return document.cookie").await, json!(""), "no script sees the token");
    let ask = "const answer = await fetch('/api/v1/validate', { method: 'POST', \
               headers: { 'Content-Type': 'application/json' }, body: '{\"script\": \"{}\"}' }); return answer.status";
    assert_eq!(browser.run_async(ask).await, json!(403));
    browser.open(&format!("{home}/#/new")).await;
    browser.until_page("new").await;
    assert_eq!(browser.run("return document.querySelector('#start')").await, Value::Null);
    look_at(&browser, "new-read-only").await;

    browser.click("#sign-out").await;
    browser.until_page("login").await;
    browser.enter("#login-token", user).await;
    browser.click("#login-submit").await;
    browser.until("to be in again", "document.querySelector('main').dataset.page !== 'login'").await;
    assert_eq!(browser.run_async(ask).await, json!(200));
    stays_at_home(&browser, &home, &["401", "403"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_faults_are_marked_at_their_three_places() {
    let entries = [
        "[source]\ntype = \"mysql\"\nhost = \"127.0.0.1\"\nport = 1\ndatabase = \"shop\"\nusername = \"u\"\npassword = \"p\"\n",
        "[target]\ntype = \"starrocks\"\nhost = \"127.0.0.1\"\nport = 1\ndatabase = \"dw\"\nload_url = [\"127.0.0.1:1\"]\n\
         username = \"u\"\npassword = \"p\"\n",
    ];
    let entries = entries.map(str::to_owned);
    let (cluster, browser) = tokio::join!(Cluster::start(&entries, 0, 0), Browser::start());
    let home = cluster.rest();
    browser.open(&format!("{home}/#/new")).await;
    browser.until_page("new").await;
    browser.click("#tab-code").await;

    let mut script = orders_job(json!({ "maxBatchRows": "many" }), json!({ "speed": { "concurrent": 0 } }));
    script["steps"][0]["parameter"]["where"] = json!(["id > 5"]);
    let text = serde_json::to_string_pretty(&script).expect("it is JSON");
    browser.run(&format!("const area = document.querySelector('#script'); area.value = {}; area.dispatchEvent(new Event('input', {{ bubbles: true }}))", json!(text))).await;
    browser.until("three faults", "document.querySelectorAll('#faults li.fault').length === 3").await;
    let pointers =
        ["/setting/speed/concurrent", "/steps/0/parameter/where", "/steps/1/parameter/maxBatchRows"];
    for place in ["#faults li.fault", ".fault-mark", "mark.fault"] {
        let told = browser
            .run(&format!(
                "return [...document.querySelectorAll('{place}')].map(one => one.dataset.pointer).sort()"
            ))
            .await;
        assert_eq!(told, json!(pointers), "{place}");
    }
    // What is marked is what is at fault.
    let marked = browser
        .run("return [...document.querySelectorAll('mark.fault')].map(one => one.textContent).join(' ')")
        .await;
    for fault in ["where", "\"many\"", "0"] {
        assert!(marked.as_str().is_some_and(|text| text.contains(fault)), "{fault}: {marked}");
    }
    assert_eq!(browser.run("return document.querySelector('#start').disabled").await, json!(true));
    look_at(&browser, "new-faults").await;

    // Mended, it may start.
    let mended = serde_json::to_string(&orders_job(json!({}), json!({}))).expect("it is JSON");
    browser.run(&format!("const area = document.querySelector('#script'); area.value = {}; area.dispatchEvent(new Event('input', {{ bubbles: true }}))", json!(mended))).await;
    browser
        .until(
            "no fault",
            "!document.querySelector('#faults li.fault') && !document.querySelector('#start').disabled",
        )
        .await;
    // The form changes of a script what it shows, and keeps the rest.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("readable").path();
        let text = std::fs::read_to_string(&path).expect("a script");
        if text.contains("\"job\":") {
            continue; // of DataX
        }
        let kept = browser
            .run_async(&format!(
                "const {{ fromScript, toScript }} = await import('/script.js'); const script = JSON.parse({}); \
                 const sorted = one => JSON.stringify(one, (_, value) => value && typeof value === 'object' && \
                   !Array.isArray(value) ? Object.fromEntries(Object.entries(value).sort()) : value); \
                 return [sorted(toScript(fromScript(script))), sorted(script)]",
                json!(text)
            ))
            .await;
        assert_eq!(kept[0], kept[1], "{}", path.display());
    }
    stays_at_home(&browser, &home, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tasks_and_many_jobs_stay_fast() {
    const JOBS: usize = 10_000;
    let flags = ["--keep-jobs", "20000"];
    let (cluster, browser) = tokio::join!(Cluster::start_with(&[], 0, 0, &flags), Browser::start());
    let home = cluster.rest();
    // Jobs of data sources that are not there end at once.
    let script = orders_job(json!({}), json!({})).to_string();
    let http = reqwest::Client::builder().no_proxy().build().expect("a plain HTTP client");
    let mut callers = JoinSet::new();
    for caller in 0..50 {
        let (http, url, script) = (http.clone(), format!("{home}/api/v1/jobs"), script.clone());
        callers.spawn(async move {
            for number in (caller..JOBS).step_by(50) {
                let job = json!({ "script": script, "name": format!("job {number}") });
                let reply = http.post(&url).json(&job).send().await.expect("REST answers");
                assert_eq!(reply.status(), 200);
            }
        });
    }
    callers.join_all().await;

    browser.open(&home).await;
    browser.until_page("jobs").await;
    // Without the network, which is none: what the server takes and what the browser takes.
    let asked = browser
        .run_async(
            "let best; for (let turn = 0; turn < 5; turn++) { const began = performance.now(); \
               const answer = await fetch('/api/v1/jobs?limit=100'); const page = await answer.json(); \
               const took = performance.now() - began; \
               if (!best || took < best[2]) best = [page.jobs.length, page.total, took]; } return best",
        )
        .await;
    assert_eq!((&asked[0], &asked[1]), (&json!(100), &json!(JOBS)), "{asked}");
    assert!(asked[2].as_f64() < Some(500.0), "a page of the list took {} ms", asked[2]);
    browser.enter("#jobs-search", "job 7777").await;
    browser.until("the one job", "document.querySelectorAll('tr[data-job-id]').length === 1").await;
    assert!(browser.text("tr[data-job-id]").await.contains("job 7777"));
    browser.screenshot("jobs-search").await;

    let drawn = browser
        .run_async(
            "const { render } = await import('/taskmap.js'); const canvas = document.createElement('canvas'); \
             canvas.style.width = '1000px'; canvas.style.height = '300px'; document.querySelector('main').append(canvas); \
             const draw = count => { const states = [...Array(count).keys()].map(task => 'WRCDFU'[task % 6]).join(''); \
               const rows = [...Array(count).keys()].map(task => 1 + task * 7919 % 100000); \
               return Math.min(...[1, 2, 3].map(() => { const began = performance.now(); \
                 render(canvas, states, rows); return performance.now() - began; })); }; \
             return [draw(5000), draw(100000)]",
        )
        .await;
    assert!(drawn[0].as_f64() < Some(50.0), "5,000 tasks took {} ms", drawn[0]);
    assert!(drawn[1].as_f64() < Some(1000.0), "100,000 tasks took {} ms", drawn[1]);
    stays_at_home(&browser, &home, &[]).await;
}
