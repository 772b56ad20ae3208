//! Asks the target: columns, keys, settings, and by a transaction that is rolled back at once whether loading works.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use starlift_common::datasource::{Datasource, Datasources};
use starlift_common::ids::JobId;
use starlift_common::job::{JobSpec, SourceKind};
use starlift_common::label::Label;
use starlift_common::problem::{Code, Problem};
use starlift_common::query::{table_name, text_literal};
use starlift_common::retry::FailureClass;
use starlift_remote::starrocks::client::{CallError, Client, TxnTarget};
use tracing::warn;

use super::{Asker, catalogue, database_of, refine_starrocks};
use crate::plan::server::{ServerFacts, Version};
use crate::plan::{Model, TargetFacts};

/// How long the check's transaction may live if its rollback gets lost, in seconds.
const CHECK_TIMEOUT_S: u32 = 60;
/// How long a call of a check that carries rows may take.
pub(super) const CHECK_TIMEOUT: Duration = Duration::from_secs(CHECK_TIMEOUT_S as u64);
/// How often the check is begun when its answer gets lost.
pub(super) const CHECK_TRIES: u32 = 3;

/// Asks the target, and tries whether a load could begin. All faults found are told.
pub(crate) async fn target(
    spec: &JobSpec,
    datasources: &Datasources,
    job: JobId,
) -> Result<TargetFacts, Vec<Problem>> {
    let wanted = &spec.target;
    let one = |problem: Problem| vec![problem];
    let datasource = datasources.find(&wanted.datasource, "").map_err(one)?;
    let database = database_of(wanted.database.as_deref(), datasource, "selectedDatabase").map_err(one)?;
    let place = format!("{database}.{}", wanted.table);
    let urls = if wanted.load_urls.is_empty() { &datasource.load_urls } else { &wanted.load_urls };
    let client = Client::new(datasource, urls).map_err(one)?;

    let described = describe_target(datasource, &database, spec, place).await;
    // Without the table a trial would only repeat that it is missing.
    let tried = match &described {
        Err(problem) if problem.code == Code::UnknownTable => Ok(Tried::default()),
        Ok(facts) if facts.is_missing => match try_begin(&client, &database, spec, job).await {
            Err(problem) if problem.code == Code::UnknownTable => Ok(Tried::default()),
            tried => tried,
        },
        _ => try_begin(&client, &database, spec, job).await,
    };
    let (mut facts, tried) = match (described, tried) {
        (Ok(facts), Ok(tried)) => (facts, tried),
        (described, tried) => {
            let mut problems: Vec<Problem> = [described.err(), tried.err()].into_iter().flatten().collect();
            problems.dedup_by(|second, first| {
                first.code == Code::LoginFailed && second.code == Code::LoginFailed
            });
            return Err(problems);
        }
    };
    facts.load_urls.clone_from(urls);
    facts.source_here = source_here(spec, datasources, datasource);
    facts.server.has_transactions = !tried.not_implemented;
    facts.warnings.extend(tried.warning);
    Ok(facts)
}

async fn describe_target(
    datasource: &Datasource,
    database: &str,
    spec: &JobSpec,
    place: String,
) -> Result<TargetFacts, Problem> {
    let table = &spec.target.table;
    let mut asker = Asker::new(datasource, None, place).await?;
    let (is_missing, mut columns) = match catalogue(&mut asker, database, table, SourceKind::Starrocks).await
    {
        Ok(columns) => (false, columns),
        Err(problem) if problem.code == Code::UnknownTable && spec.settings.create_table => {
            if !has_database(&mut asker, database).await? {
                return Err(problem);
            }
            (true, Vec::new())
        }
        Err(problem) => return Err(problem),
    };
    if !is_missing {
        refine_starrocks(&mut asker, database, table, &mut columns).await;
    }
    let model = asker
        .rows(&format!(
            "SELECT TABLE_MODEL FROM information_schema.tables_config WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {}",
            text_literal(database),
            text_literal(table)
        ))
        .await
        .ok()
        .and_then(|mut rows| rows.pop()?.pop()?)
        .and_then(|text| Model::parse(&text));
    let has_rows = if spec.target.pre_sql.is_empty() && !is_missing {
        let rows = asker.rows(&format!("SELECT 1 FROM {} LIMIT 1", table_name(database, table))).await;
        rows.ok().map(|rows| !rows.is_empty())
    } else {
        None
    };
    let server = describe_server(&mut asker).await;
    asker.close().await;
    Ok(TargetFacts {
        database: database.to_owned(),
        is_missing,
        columns,
        model,
        has_rows,
        server,
        load_urls: Vec::new(),
        source_here: None,
        warnings: Vec::new(),
    })
}

async fn has_database(asker: &mut Asker<'_>, database: &str) -> Result<bool, Problem> {
    let name = text_literal(database);
    let sql = format!("SELECT SCHEMA_NAME FROM information_schema.schemata WHERE SCHEMA_NAME = {name}");
    Ok(!asker.rows(&sql).await?.is_empty())
}

/// Version and settings, as far as the account may ask for them.
async fn describe_server(asker: &mut Asker<'_>) -> ServerFacts {
    let version = asker.rows("SELECT current_version()").await.ok();
    let version = version.and_then(|mut rows| rows.pop()?.pop()?);
    ServerFacts {
        version: version.and_then(|text| Version::parse(&text)),
        has_transactions: true,
        open_transactions: setting(asker, "max_running_txn_num_per_db").await,
        labels_kept: setting(asker, "label_keep_max_num").await,
        prepared_s: setting(asker, "prepared_transaction_default_timeout_second")
            .await
            .and_then(|seconds| u32::try_from(seconds).ok()),
    }
}

async fn setting(asker: &mut Asker<'_>, name: &str) -> Option<u64> {
    let rows = asker.named_rows(&format!("ADMIN SHOW FRONTEND CONFIG LIKE '{name}'")).await.ok()?;
    rows.first()?.number("value")
}

/// What the trial showed beside success.
#[derive(Default)]
struct Tried {
    not_implemented: bool,
    warning: Option<String>,
}

/// Begins a transaction and rolls it back: proves that the load URLs answer, that the login works there, that the
/// account may insert, and that a BE is alive and reachable from here. A server without transactions is only asked
/// which BE would take a load: a load without rows would leave a failed one in its history.
async fn try_begin(client: &Client, database: &str, spec: &JobSpec, job: JobId) -> Result<Tried, Problem> {
    let mut tries = 1;
    loop {
        match begin_and_roll_back(client, database, spec, job).await {
            Ok(()) => return Ok(Tried::default()),
            // Whatever was begun under the lost answer was rolled back; the next try has another label.
            Err(error) if error.is_unknown() && tries < CHECK_TRIES => tries += 1,
            Err(error) if error.class() == FailureClass::Distress => {
                let warning = Some(format!("the target is under pressure already: {error}"));
                return Ok(Tried { warning, not_implemented: false });
            }
            Err(CallError::Refused { answer, .. }) if answer.is_not_implemented() => {
                let label = Label::probe(&spec.target.label_prefix, job, fastrand::u32(..));
                let target = TxnTarget { database, table: &spec.target.table, label: &label };
                let chosen = client.choose_backend(target, &HeaderMap::new()).await;
                chosen.map_err(|error| refused_begin(&error))?;
                return Ok(Tried { not_implemented: true, warning: None });
            }
            Err(error) => return Err(refused_begin(&error)),
        }
    }
}

async fn begin_and_roll_back(
    client: &Client,
    database: &str,
    spec: &JobSpec,
    job: JobId,
) -> Result<(), CallError> {
    let label = Label::probe(&spec.target.label_prefix, job, fastrand::u32(..));
    let target = TxnTarget { database, table: &spec.target.table, label: &label };
    let headers = begin_headers(&spec.target.load.headers);
    let begun = client.begin(target, &headers).await.map(|_begun| ());
    if begun.as_ref().err().is_none_or(CallError::is_unknown)
        && let Err(error) = client.rollback(database, &spec.target.table, &label).await
    {
        warn!(%label, %error, "the check's transaction could not be rolled back; it ends by its own timeout");
    }
    begun
}

/// Of a transaction that lives no longer than its check; `job`: the headers that the job asks for.
pub(super) fn begin_headers(job: &BTreeMap<String, String>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(HeaderName::from_static("timeout"), HeaderValue::from(CHECK_TIMEOUT_S));
    if let Some(Ok(value)) = job.get("warehouse").map(|name| HeaderValue::from_str(name)) {
        headers.insert(HeaderName::from_static("warehouse"), value);
    }
    headers
}

/// A refusal of the check is the server's, not the job's: it is mended outside unless the words say otherwise.
fn refused_begin(error: &CallError) -> Problem {
    let mut problem = error.problem();
    let words = problem.message.to_ascii_lowercase();
    if problem.code == Code::LoadFailed {
        problem.code = if words.contains("access denied") || words.contains("privilege") {
            Code::NoPrivilege
        } else if words.contains("unknown table") || words.contains("unknown database") {
            Code::UnknownTable
        } else {
            Code::ConnectFailed
        };
    }
    problem
}

/// Database and table of the source, when it is a table of this very server.
fn source_here(spec: &JobSpec, datasources: &Datasources, target: &Datasource) -> Option<(String, String)> {
    let source = datasources.get(&spec.source.datasource)?;
    let same_address =
        source.port == target.port && source.hosts.iter().any(|host| target.hosts.contains(host));
    let is_here = spec.source.kind == SourceKind::Starrocks && (source.name == target.name || same_address);
    let database = spec.source.database.as_deref().or(source.database.as_deref())?;
    is_here.then(|| (database.to_owned(), spec.source.table.clone()))
}
