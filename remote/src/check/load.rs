//! The HTTP side: each FE, where it redirects loads to, and each BE. An FE is asked for its redirect again and again where
//! the BEs cannot be listed; it names them in turn, and nothing is begun by that.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use reqwest::header::{HeaderMap, HeaderValue};
use starlift_common::check::{Backend, Backends, Finding, Outcome, Part, TargetScope};
use starlift_common::datasource::Datasource;
use starlift_common::ids::JobId;
use starlift_common::label::Label;
use starlift_common::problem::{Code, Problem};
use tokio::time::{Instant, timeout};

use super::reach::{self, Unreached};
use super::{AT_ONCE, PATIENCE, Right, outcome_of};
use crate::starrocks::client::{CallError, Client, Redirect, TxnTarget, host_of};

/// A round of redirects that names no new BE so often in a row has met them all, as far as luck goes.
const ROUNDS_WITHOUT_NEWS: u32 = 6;

/// Most redirects asked of one FE.
const ROUNDS_MOST: u32 = 64;

/// Every FE, and the BEs they redirected to. `explores`: as many of those as can be met.
pub(super) async fn frontends(
    scope: &TargetScope,
    datasource: &Datasource,
    explores: bool,
) -> (Vec<Finding>, BTreeSet<String>) {
    let urls = if scope.load_urls.is_empty() { &datasource.load_urls } else { &scope.load_urls };
    if urls.is_empty() {
        let problem = Problem::new(
            Code::InvalidSettings,
            format!("no FE HTTP address for {}", datasource.name),
        )
        .hint(format!("in [{}]: load_url = [\"HOST:8030\"], or loadUrl in the writer step", datasource.name));
        let finding = failed(finding(Part::Frontend, datasource, String::new()), Outcome::Failed, problem);
        return (vec![finding], BTreeSet::new());
    }
    // Made at once, run a few at a time: a lazy stream of them could not be sent between threads.
    let tries: Vec<_> = urls.iter().map(|url| frontend(scope, datasource, url, explores)).collect();
    let tried: Vec<_> = stream::iter(tries).buffered(AT_ONCE).collect().await;
    let (findings, met): (Vec<_>, Vec<_>) = tried.into_iter().unzip();
    (findings, met.into_iter().flatten().collect())
}

async fn frontend(
    scope: &TargetScope,
    datasource: &Datasource,
    url: &str,
    explores: bool,
) -> (Finding, BTreeSet<String>) {
    let began = Instant::now();
    let configured = url.split_once("://").map_or(url, |(_, rest)| rest).trim_end_matches('/');
    let mut found = finding(Part::Frontend, datasource, configured.to_owned());
    let mut met = BTreeSet::new();
    match redirects(scope, datasource, url, explores, &mut found, &mut met).await {
        Ok(()) if met.is_empty() => {}
        Ok(()) => {
            found.told = format!("may INSERT, redirects to {}", shown(&met));
        }
        Err((outcome, problem)) => {
            (found.outcome, found.problem) = (outcome, Some(problem));
        }
    }
    found.took = began.elapsed();
    (found, met)
}

async fn redirects(
    scope: &TargetScope,
    datasource: &Datasource,
    url: &str,
    explores: bool,
    found: &mut Finding,
    met: &mut BTreeSet<String>,
) -> Result<(), (Outcome, Problem)> {
    let client = Client::new(datasource, &[url.to_owned()]).map_err(|problem| (Outcome::Failed, problem))?;
    let Some(frontend) = client.frontends().first() else { return Ok(()) };
    let reached_at = host_of(frontend);
    if reached_at != found.address {
        found.via.clone_from(&reached_at);
    }
    let (host, port) = split(&reached_at);
    // A host that is not allowed gets no credentials; what is wrong with it is told by the call below.
    reach::connect(host, port)
        .await
        .map_err(|unreached| (unreached.outcome, closed(Part::Frontend, datasource, found, &unreached)))?;
    if client.speaks_http(frontend).await.is_err() {
        return Err((Outcome::Failed, not_http(found, reach::greets_as_mysql(host, port).await)));
    }
    let database = scope.database.as_deref().or(datasource.database.as_deref());
    let Some(database) = database.filter(|_| !scope.table.is_empty()) else {
        return Ok(()); // a missing database is told of the query port
    };
    let mut headers = HeaderMap::new();
    if let Some(Ok(warehouse)) = scope.warehouse.as_deref().map(HeaderValue::from_str) {
        headers.insert("warehouse", warehouse);
    }
    let (mut rounds, mut without_news) = (0, 0);
    while without_news < ROUNDS_WITHOUT_NEWS && rounds < ROUNDS_MOST {
        let job = JobId::from_parts(fastrand::u64(..1 << 48), fastrand::u128(..1 << 80));
        let label = Label::probe(&scope.label_prefix, job, fastrand::u32(..));
        let target = TxnTarget { database, table: &scope.table, label: &label };
        let redirect = timeout(2 * PATIENCE, client.redirect_of_load(target, &headers)).await;
        match redirect {
            Ok(Ok(Redirect { registered, .. })) => {
                without_news = if met.insert(registered) { 0 } else { without_news + 1 };
            }
            // What was met is worth more than a later failure.
            _ if !met.is_empty() => return Ok(()),
            Ok(Err(error)) => return Err(refused(datasource, database, &scope.table, &error)),
            Err(_) => {
                let message = format!("no redirect within {} s", 2 * PATIENCE.as_secs());
                let problem = Problem::new(Code::ConnectFailed, message).at(reached_at.clone());
                return Err((Outcome::TimedOut, problem));
            }
        }
        if !explores {
            return Ok(());
        }
        rounds += 1;
    }
    Ok(())
}

fn refused(datasource: &Datasource, database: &str, table: &str, error: &CallError) -> (Outcome, Problem) {
    if let Some(words) = error.missing_right() {
        return (Outcome::NoGrant, Right::Insert.missing(datasource, database, table, words));
    }
    let problem = error.problem();
    let hint = match error {
        CallError::Unauthorized { .. } => format!(
            "correct password (or password_file) and username of [{}] in the data source file",
            datasource.name
        ),
        CallError::NotAllowed { host } => allow(datasource, host),
        _ => return (outcome_of(&problem), problem),
    };
    (outcome_of(&problem), problem.hint(hint))
}

/// What the server listed, and what the FEs redirected to beyond that.
pub(super) fn joined(mut known: Backends, met: &BTreeSet<String>) -> Backends {
    for address in met {
        if known.nodes.iter().all(|node| node.address != *address) {
            known.nodes.push(Backend { address: address.clone(), alive: true });
        }
    }
    known.nodes.sort();
    known
}

/// Every BE: the HTTP port that loads are sent to.
pub(super) async fn backends(backends: &Backends, datasource: &Datasource) -> Vec<Finding> {
    // Addresses of FEs do not matter here, but a client wants one.
    let client = Client::new(datasource, &["127.0.0.1:1".to_owned()]);
    let Ok(client) = client else { return Vec::new() };
    let tries: Vec<_> = backends.nodes.iter().map(|node| backend(&client, node, datasource)).collect();
    stream::iter(tries).buffered(AT_ONCE).collect().await
}

async fn backend(client: &Client, node: &Backend, datasource: &Datasource) -> Finding {
    let began = Instant::now();
    let mut found = finding(Part::Backend, datasource, node.address.clone());
    let url = match client.reachable(&node.address) {
        Ok(url) => url,
        Err(error) => {
            let problem = error.problem();
            let problem = match &error {
                CallError::NotAllowed { host } => problem.hint(allow(datasource, host)),
                _ => problem,
            };
            return failed(found, Outcome::Failed, problem);
        }
    };
    let reached_at = host_of(&url);
    if reached_at != found.address {
        found.via.clone_from(&reached_at);
    }
    if !node.alive {
        found.outcome = Outcome::NotTried;
        found.told = "the FE says that it is down, and sends no load there".into();
        return found;
    }
    let (host, port) = split(&reached_at);
    if let Err(unreached) = reach::connect(host, port).await {
        let problem = closed(Part::Backend, datasource, &found, &unreached);
        found.took = began.elapsed();
        return failed(found, unreached.outcome, problem);
    }
    let spoken = client.speaks_http(&url).await;
    found.took = began.elapsed();
    match spoken {
        Ok(()) => found,
        Err(_) => {
            let message = format!("{reached_at} accepts connections but does not speak HTTP");
            let problem = Problem::new(Code::BackendUnreachable, message)
                .at(found.address.clone())
                .hint(map_line(datasource, &found.address));
            failed(found, Outcome::Failed, problem)
        }
    }
}

/// A node that cannot be reached, and the line that mends it.
fn closed(part: Part, datasource: &Datasource, found: &Finding, unreached: &Unreached) -> Problem {
    let address = &found.address;
    let (code, what) = match part {
        Part::Backend => (Code::BackendUnreachable, format!("cannot reach BE {address} (redirect from FE)")),
        _ => (Code::ConnectFailed, format!("cannot reach FE {address}")),
    };
    let by = if found.via.is_empty() { String::new() } else { format!(", by address_map at {}", found.via) };
    let (_, port) = split(if found.via.is_empty() { address } else { &found.via });
    let hint = match (unreached.outcome, part) {
        (Outcome::Unresolved, _) => map_line(datasource, address),
        (_, Part::Backend) => format!("open port {port} there, or {}", map_line(datasource, address)),
        _ => format!(
            "open port {port} there, correct loadUrl, or {}; the HTTP port of an FE is usually 8030",
            map_line(datasource, address)
        ),
    };
    Problem::new(code, format!("{what}{by}: {}", unreached.reason)).at(address.clone()).hint(hint)
}

fn map_line(datasource: &Datasource, address: &str) -> String {
    format!("map it in [{}]: address_map = {{ \"{address}\" = \"HOST:PORT\" }}", datasource.name)
}

fn allow(datasource: &Datasource, host: &str) -> String {
    let (host, _) = split(host);
    format!("add it in [{}]: allowed_backends = [..., \"{host}\"]", datasource.name)
}

fn not_http(found: &Finding, is_mysql: bool) -> Problem {
    let address = &found.address;
    let what = if is_mysql { "is a query port and does not speak HTTP" } else { "does not speak HTTP" };
    let (host, _) = split(address);
    Problem::new(Code::InvalidSettings, format!("{address} {what}; Stream Load needs the HTTP port of an FE"))
        .at(address.clone())
        .hint(format!("\"loadUrl\": [\"{host}:8030\"] in the writer step, or load_url in the data source"))
}

fn finding(part: Part, datasource: &Datasource, address: String) -> Finding {
    Finding {
        part,
        datasource: datasource.name.clone(),
        address,
        via: String::new(),
        outcome: Outcome::Reached,
        took: Duration::ZERO,
        told: String::new(),
        problem: None,
    }
}

fn failed(mut found: Finding, outcome: Outcome, problem: Problem) -> Finding {
    (found.outcome, found.problem) = (outcome, Some(problem));
    found
}

/// Host and port of an address in normal form.
fn split(address: &str) -> (&str, u16) {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    (host, port.parse().unwrap_or(0))
}

/// The first of many.
fn shown(addresses: &BTreeSet<String>) -> String {
    const MOST: usize = 3;
    let first: Vec<&str> = addresses.iter().take(MOST).map(String::as_str).collect();
    let more =
        if addresses.len() > MOST { format!(" and {} more", addresses.len() - MOST) } else { String::new() };
    format!("{}{more}", first.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::datasource;

    #[test]
    fn backends_that_an_fe_names_are_added_to_those_listed() {
        let node = |address: &str, alive| Backend { address: address.into(), alive };
        let listed = Backends { nodes: vec![node("b:8040", false), node("a:8040", true)], complete: true };
        let met = ["b:8040".to_owned(), "c:8040".to_owned()].into();
        let all = joined(listed, &met);
        assert_eq!(all.nodes, [node("a:8040", true), node("b:8040", false), node("c:8040", true)]);
    }

    #[tokio::test]
    async fn an_unreachable_backend_is_told_with_the_line_that_maps_it() {
        let datasource = datasource();
        let nodes = vec![Backend { address: "no-such-be.invalid:8040".into(), alive: true }];
        let found = backends(&Backends { nodes, complete: true }, &datasource).await;
        let problem = found[0].problem.as_ref().expect("a problem");
        assert_eq!((found[0].outcome, problem.code), (Outcome::Unresolved, Code::BackendUnreachable));
        assert!(
            problem.hint.contains("[target]: address_map = { \"no-such-be.invalid:8040\" = \"HOST:PORT\" }"),
            "{problem}"
        );
    }

    #[tokio::test]
    async fn a_backend_that_is_not_allowed_gets_no_connection() {
        let mut datasource = datasource();
        datasource.allowed_backends = Some(Vec::new());
        let nodes = vec![Backend { address: "127.0.0.1:1".into(), alive: true }];
        let found = backends(&Backends { nodes, complete: true }, &datasource).await;
        let problem = found[0].problem.as_ref().expect("a problem");
        assert_eq!(problem.code, Code::BackendRefused);
        assert!(problem.hint.contains("allowed_backends = [..., \"127.0.0.1\"]"), "{problem}");
    }
}
