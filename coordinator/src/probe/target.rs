//! Asks the target: columns, keys, settings, and by a transaction that is rolled back at once whether loading works.

use reqwest::header::HeaderMap;
use starlift_common::datasource::{Datasource, Datasources};
use starlift_common::ids::JobId;
use starlift_common::job::{JobSpec, Relation, RelationSpec, SourceKind};
use starlift_common::label::Label;
use starlift_common::problem::{Code, Problem};
use starlift_common::query::{table_name, text_literal};
use starlift_common::retry::FailureClass;
use starlift_remote::check::Right;
use starlift_remote::starrocks::client::{CallError, Client, TxnTarget};
use starlift_remote::starrocks::headers::{self, TxnTimes};
use starlift_remote::trial;
use tracing::warn;

use super::{Asker, catalogue, database_of, refine_starrocks};
use crate::plan::server::{ServerFacts, Version};
use crate::plan::{Model, TargetFacts};

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
    let refused = |error: &CallError| refused_begin(error, datasource, &database, &wanted.table);
    let tried = match &described {
        Err(problem) if problem.code == Code::UnknownTable => Ok(Tried::default()),
        Ok(facts) if facts.is_missing => match try_begin(&client, &database, spec, job).await {
            Err(error) if refused(&error).code == Code::UnknownTable => Ok(Tried::default()),
            tried => tried.map_err(|error| refused(&error)),
        },
        _ => try_begin(&client, &database, spec, job).await.map_err(|error| refused(&error)),
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
    facts.sources_here = sources_here(spec, datasources, datasource);
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
        sources_here: Vec::new(),
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
async fn try_begin(client: &Client, database: &str, spec: &JobSpec, job: JobId) -> Result<Tried, CallError> {
    let mut tries = 1;
    loop {
        match begin_and_roll_back(client, database, spec, job).await {
            Ok(()) => return Ok(Tried::default()),
            // Whatever was begun under the lost answer was rolled back; the next try has another label.
            Err(error) if error.is_unknown() && tries < trial::TRIES => tries += 1,
            Err(error) if error.class() == FailureClass::Distress => {
                let warning = Some(format!("the target is under pressure already: {error}"));
                return Ok(Tried { warning, not_implemented: false });
            }
            Err(CallError::Refused { answer, .. }) if answer.is_not_implemented() => {
                let label = Label::probe(&spec.target.label_prefix, job, fastrand::u32(..));
                let target = TxnTarget { database, table: &spec.target.table, label: &label };
                client.choose_backend(target, &HeaderMap::new()).await?;
                return Ok(Tried { not_implemented: true, warning: None });
            }
            Err(error) => return Err(error),
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
    // A warehouse whose name no header can hold is refused when the job's own headers are made.
    let headers = headers::begin(TxnTimes::brief(trial::TIMEOUT_S), &spec.target.load.headers);
    let headers = headers.unwrap_or_default();
    let begun = client.begin(target, &headers).await.map(|_begun| ());
    if begun.as_ref().err().is_none_or(CallError::is_unknown)
        && let Err(error) = client.rollback(database, &spec.target.table, &label).await
    {
        warn!(%label, %error, "the check's transaction could not be rolled back; it ends by its own timeout");
    }
    begun
}

/// A refusal of the check is the server's, not the job's: it is mended outside unless the words say otherwise.
fn refused_begin(error: &CallError, datasource: &Datasource, database: &str, table: &str) -> Problem {
    if let Some(words) = error.missing_right() {
        return Right::Insert.missing(datasource, database, table, words);
    }
    let mut problem = error.problem();
    let words = problem.message.to_ascii_lowercase();
    if problem.code == Code::LoadFailed {
        problem.code = if words.contains("access denied") {
            Code::NoPrivilege
        } else if words.contains("unknown table") || words.contains("unknown database") {
            Code::UnknownTable
        } else {
            Code::ConnectFailed
        };
    }
    problem
}

/// Database and table of each source that is a table of this very server.
fn sources_here(spec: &JobSpec, datasources: &Datasources, target: &Datasource) -> Vec<(String, String)> {
    if spec.source.kind != SourceKind::Starrocks {
        return Vec::new();
    }
    let here = |relation: &RelationSpec| {
        let Relation::Table(table) = &relation.relation else { return None };
        let source = datasources.get(&relation.datasource)?;
        let same_address =
            source.port == target.port && source.hosts.iter().any(|host| target.hosts.contains(host));
        let database = relation.database.as_deref().or(source.database.as_deref())?;
        (source.name == target.name || same_address).then(|| (database.to_owned(), table.clone()))
    };
    spec.source.relations.iter().filter_map(here).collect()
}
