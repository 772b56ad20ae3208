//! What can be done with a job script: validate, check, plan, submit.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::State as Shared;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::{Value, json};
use starlift_common::ids::JobId;
use starlift_common::problem::Problem;
use starlift_common::script::{self, Definition, Parameters, Parsed, Schedule};
use starlift_proto as pb;
use starlift_proto::admin_service_server::AdminService as _;
use tonic::Request;

use super::catalogue::checked;
use super::{Answer, Refusal, Sent, Views};
use crate::clock::UnixMillis;
use crate::plan::document::PlanDocument;

/// A job script.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Script {
    /// The job file: its text, or the object itself.
    script: Value,
    /// Values of parameters by name. Left out, the script has none any more; `$` in it is a dollar.
    parameters: Option<BTreeMap<String, String>>,
    /// `check`: how long workers are waited for; 0: the usual time.
    #[serde(default)]
    wait_ms: u64,
}

/// A job to be run.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Submission {
    script: Value,
    parameters: Option<BTreeMap<String, String>>,
    #[serde(default)]
    name: String,
    /// Whoever makes one can submit the job again without running it twice.
    job_id: Option<String>,
}

/// A script's text with its parameters replaced, and by what.
struct Prepared {
    text: String,
    used: BTreeMap<String, String>,
}

fn text_of(script: &Value) -> String {
    script.as_str().map_or_else(|| script.to_string(), str::to_owned)
}

/// Times in parameters are those of this host's zone.
fn prepare(
    script: &Value,
    parameters: Option<&BTreeMap<String, String>>,
    now: UnixMillis,
) -> Result<Prepared, Vec<Problem>> {
    let text = text_of(script);
    let Some(given) = parameters else { return Ok(Prepared { text, used: BTreeMap::new() }) };
    // A clock beyond the calendar is no clock.
    let moment = i64::try_from(now.0).ok().and_then(|unix| Timestamp::from_millisecond(unix).ok());
    let moment = moment.unwrap_or_default().to_zoned(TimeZone::system()).datetime();
    let definition = |(name, expression): (&String, &String)| Definition {
        name: name.clone(),
        expression: expression.clone(),
        place: format!("parameters/{name}"),
    };
    let definitions: Vec<Definition> = given.iter().map(definition).collect();
    let parameters = Parameters::evaluate(&definitions, Schedule::new(moment, None, None))?;
    let replaced = script::substitute(&text, &parameters)?;
    Ok(Prepared { text: replaced.text, used: replaced.used })
}

/// All faults that can be found without asking anybody, each with its place in the text.
pub(super) async fn validate(Shared(views): Shared<Views>, Sent(sent): Sent<Script>) -> Answer {
    let Script { script, parameters, .. } = sent;
    let text = text_of(&script);
    let parsed = prepare(&script, parameters.as_ref(), views.clock.now().unix)
        .and_then(|prepared| script::parse(&prepared.text))
        .and_then(|parsed| {
            let problems = script::check_datasources(&parsed.spec, &views.datasources.now());
            if problems.is_empty() { Ok(parsed) } else { Err(problems) }
        });
    let (problems, warnings) = match parsed {
        Ok(parsed) => (Vec::new(), parsed.warnings),
        Err(problems) => (problems, Vec::new()),
    };
    let mut problems: Vec<Value> = problems.iter().map(|problem| placed(&text, problem)).collect();
    problems.sort_by_key(|placed| placed["from"].as_u64());
    let parameters = script::parameter_names(&text);
    Ok(Json(json!({ "problems": problems, "warnings": warnings, "parameters": parameters })))
}

/// The problem with the place in the text that it is about; the beginning, where it names none.
fn placed(text: &str, problem: &Problem) -> Value {
    let found = script::locate_line(text, &problem.place).or_else(|| script::locate(text, &problem.place));
    let range = found.unwrap_or(0..text.chars().next().map_or(0, char::len_utf8));
    let before = &text[..range.start];
    let units = |text: &str| text.encode_utf16().count();
    let mut told = problem.to_rest();
    told["line"] = json!(before.matches('\n').count() + 1);
    told["column"] = json!(before.rsplit('\n').next().unwrap_or_default().chars().count() + 1);
    told["from"] = json!(units(before));
    told["to"] = json!(units(&text[..range.end]));
    told
}

/// Tries everything that the job needs, from here and from every worker.
pub(super) async fn check(Shared(views): Shared<Views>, Sent(sent): Sent<Script>) -> Answer {
    let Script { script, parameters, wait_ms } = sent;
    let prepared =
        prepare(&script, parameters.as_ref(), views.clock.now().unix).map_err(Refusal::of_input)?;
    script::parse(&prepared.text).map_err(Refusal::of_input)?;
    let (handle, datasources) = (views.desk.handle()?, views.datasources.now());
    let wait = Duration::from_millis(wait_ms);
    checked(&views, Box::pin(views.checks.run(&prepared.text, wait, &handle, &datasources)).await)
}

/// What would be done. Nothing is.
pub(super) async fn plan(Shared(views): Shared<Views>, Sent(sent): Sent<Script>) -> Answer {
    let Script { script, parameters, .. } = sent;
    let prepared =
        prepare(&script, parameters.as_ref(), views.clock.now().unix).map_err(Refusal::of_input)?;
    let parsed = script::parse(&prepared.text).map_err(Refusal::of_input)?;
    let datasources = views.datasources.now();
    let unknown = script::check_datasources(&parsed.spec, &datasources);
    if !unknown.is_empty() {
        return Err(Refusal::of_input(unknown));
    }
    let planned = Box::pin(crate::plan_job(&parsed.spec, &datasources)).await;
    let mut plan = planned.map_err(Refusal::of_input)?;
    plan.warnings.splice(0..0, parsed.warnings);
    Ok(Json(json!(PlanDocument { parameters: prepared.used, ..PlanDocument::from(&plan) })))
}

pub(super) async fn submit(Shared(views): Shared<Views>, Sent(sent): Sent<Submission>) -> Answer {
    let Submission { script, parameters, name, job_id } = sent;
    let prepared =
        prepare(&script, parameters.as_ref(), views.clock.now().unix).map_err(Refusal::of_input)?;
    script::parse(&prepared.text).and_then(Parsed::to_run).map_err(Refusal::of_input)?;
    let job_id = match job_id {
        Some(given) => given,
        None => JobId::from_parts(views.clock.now().unix.0, fastrand::u128(..)).to_string(),
    };
    let request = pb::SubmitRequest { script: prepared.text, name, job_id };
    let reply = views.services.submit(Request::new(request)).await?;
    Ok(Json(json!(reply.into_inner().job)))
}

#[cfg(test)]
mod tests {
    use starlift_common::problem::Code;

    use super::*;

    #[test]
    fn a_fault_is_placed_as_an_editor_counts() {
        let text = "{\n  \"é😀\": { \"a\": 7 }\n}";
        let told = placed(text, &Problem::new(Code::InvalidScript, "no").at("/é😀/a"));
        assert_eq!((&told["line"], &told["column"]), (&json!(2), &json!(11)));
        assert_eq!((&told["from"], &told["to"]), (&json!(13), &json!(19)));
        let told = placed(text, &Problem::new(Code::UnknownDatasource, "no").at("datasources.toml"));
        assert_eq!((&told["from"], &told["to"]), (&json!(0), &json!(1)));
        assert_eq!(placed("", &Problem::new(Code::InvalidScript, "no"))["to"], json!(0));
    }

    #[test]
    fn a_dollar_is_a_parameter_only_where_parameters_come_with_the_script() {
        let script = json!("{\"where\": \"day = ${d}\"}");
        let text =
            |given: Option<&BTreeMap<_, _>>| prepare(&script, given, UnixMillis(0)).map(|one| one.text);
        assert!(text(None).expect("as it is").contains("${d}"));
        assert_eq!(text(Some(&BTreeMap::new())).unwrap_err()[0].code, Code::UnresolvedParameter);
        let given = BTreeMap::from([("d".to_owned(), "5".to_owned())]);
        assert!(text(Some(&given)).expect("all are known").contains("day = 5"));
    }
}
