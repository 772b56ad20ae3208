//! Data sources: which there are, whether they are reached, what is in them, and which types go together.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use starlift_common::datasource::{Datasource, SslMode};
use starlift_common::job::{CellRule, SourceKind};
use starlift_common::problem::{Code, Mend, Problem};
use starlift_proto as pb;

use super::{Answer, Nothing, Refusal, Sent, Views};
use crate::check::NotChecked;
use crate::columns::fit::{Fit, fit};
use crate::columns::{mysql_kind, starrocks_bytes, starrocks_kind};
use crate::probe::listing;

/// Without any secret.
pub(super) async fn list(Shared(views): Shared<Views>) -> Answer {
    let datasources = views.datasources.now();
    let entries = datasources.names().filter_map(|name| datasources.get(name)).map(shown);
    Ok(Json(json!({ "datasources": entries.collect::<Vec<_>>() })))
}

fn shown(datasource: &Datasource) -> Value {
    let ssl = match &datasource.ssl {
        SslMode::Disable => "disable",
        SslMode::Prefer => "prefer",
        SslMode::VerifyCa { .. } => "verify-ca",
    };
    json!({
        "name": datasource.name,
        "type": datasource.kind.as_str(),
        "host": datasource.hosts,
        "port": datasource.port,
        "database": datasource.database,
        "username": datasource.username,
        "load_url": datasource.load_urls,
        "ssl": ssl,
    })
}

/// Tries every address of the data source, from here and from every worker.
pub(super) async fn check(
    Shared(views): Shared<Views>,
    Path(name): Path<String>,
    Sent(Nothing {}): Sent<Nothing>,
) -> Answer {
    let (handle, datasources) = (views.desk.handle()?, views.datasources.now());
    let reply = Box::pin(views.checks.run_datasource(&name, Duration::ZERO, &handle, &datasources)).await;
    checked(&views, reply)
}

pub(super) fn checked(views: &Views, reply: Result<pb::CheckReply, NotChecked>) -> Answer {
    reply.map(|reply| Json(json!(reply))).map_err(|why| match why {
        NotChecked::Refused(problem) => refused(problem),
        NotChecked::Stopped => views.desk.not_leading().into(),
    })
}

/// What cannot be asked of a data source is the caller's fault, or that of what lies behind us.
fn refused(problem: Problem) -> Refusal {
    let status = match problem.code {
        Code::UnknownDatasource | Code::UnknownTable => StatusCode::NOT_FOUND,
        Code::WrongState => StatusCode::CONFLICT,
        code if code.mend() == Mend::Outside => StatusCode::BAD_GATEWAY,
        _ => StatusCode::BAD_REQUEST,
    };
    Refusal::new(status, problem)
}

pub(super) async fn databases(Shared(views): Shared<Views>, Path(name): Path<String>) -> Answer {
    let datasources = views.datasources.now();
    let datasource = datasources.find(&name, "").map_err(refused)?;
    Ok(Json(json!({ "databases": listing::databases(datasource).await.map_err(refused)? })))
}

pub(super) async fn tables(
    Shared(views): Shared<Views>,
    Path((name, database)): Path<(String, String)>,
) -> Answer {
    let datasources = views.datasources.now();
    let datasource = datasources.find(&name, "").map_err(refused)?;
    Ok(Json(json!({ "tables": listing::tables(datasource, &database).await.map_err(refused)? })))
}

pub(super) async fn columns(
    Shared(views): Shared<Views>,
    Path((name, database, table)): Path<(String, String, String)>,
) -> Answer {
    let datasources = views.datasources.now();
    let datasource = datasources.find(&name, "").map_err(refused)?;
    Ok(Json(json!(listing::columns(datasource, &database, &table).await.map_err(refused)?)))
}

/// Pairs of types as the catalogues of both sides write them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mapping {
    source: Source,
    pairs: Vec<Pair>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Source {
    Mysql,
    Starrocks,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    source_type: String,
    /// Of the longest text in UTF-8, where the catalogue tells.
    source_bytes: Option<u64>,
    target_type: String,
}

/// How values of the one type fit into the other, as the plan would have it.
pub(super) async fn mapping(Sent(Mapping { source, pairs }): Sent<Mapping>) -> Answer {
    let fits = pairs.iter().map(|pair| {
        let (system, kind) = match source {
            Source::Mysql => (SourceKind::Mysql, mysql_kind(&pair.source_type)),
            Source::Starrocks => (SourceKind::Starrocks, starrocks_kind(&pair.source_type)),
        };
        let room = starrocks_bytes(&pair.target_type).filter(|room| pair.source_bytes > Some(*room));
        let fit = fit(system, &kind, &starrocks_kind(&pair.target_type));
        let (name, why, remedy) = match (fit, room) {
            (Fit::Exact | Fit::Widened, Some(bytes)) => {
                ("checked", checked_for(&format!("texts of at most {bytes} bytes")), String::new())
            }
            (Fit::Exact, None) => ("exact", "every value arrives as it left".into(), String::new()),
            (Fit::Widened, None) => {
                ("widened", "the target holds more; every value arrives".into(), String::new())
            }
            (Fit::Checked(rule), _) => ("checked", checked_for(&fitting(rule)), String::new()),
            (Fit::Refused { why, remedy }, _) => ("refused", why, remedy),
        };
        json!({ "fit": name, "why": why, "remedy": remedy })
    });
    Ok(Json(json!({ "fits": fits.collect::<Vec<_>>() })))
}

fn checked_for(fitting: &str) -> String {
    format!("only {fitting} go in; any other makes its row an error")
}

/// The values that pass a rule.
fn fitting(rule: Option<CellRule>) -> String {
    match rule {
        None => "values that the target holds".into(),
        Some(CellRule::Truth) => "0, 1, true and false".into(),
        Some(CellRule::WholeNumber) => "whole numbers".into(),
        Some(CellRule::Decimal { scale }) => format!("numbers with at most {scale} digits behind the point"),
        Some(CellRule::Date) => "dates as YYYY-MM-DD".into(),
        Some(CellRule::DateTime) => "dates, and times as YYYY-MM-DD HH:MM:SS".into(),
        Some(CellRule::RealDate) => "dates without a zero part".into(),
        Some(CellRule::Json) => "JSON documents".into(),
        Some(CellRule::NoZeroAtEnd) => "texts without a zero byte at the end".into(),
    }
}
