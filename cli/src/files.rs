//! Reads job, parameter and data source files, offline: every fault is known before anything is contacted.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use starlift_common::datasource::{Datasource, Datasources};
use starlift_common::problem::{Code, Problem};
use starlift_common::script::{self, Definition, MAX_BYTES, Parameters, Parsed, Schedule};

use crate::args::{JobFile, Times};

/// A job file that passed the offline checks.
pub(crate) struct Job {
    /// The script's text with parameters replaced.
    pub script: String,
    pub parsed: Parsed,
    /// The file's name without its ending.
    pub name: String,
    /// What was replaced in the file, as it is written there, and by what.
    pub parameters: BTreeMap<String, String>,
    /// Whether another schedule would make another job of the file.
    pub depends_on_time: bool,
    /// What a DataX file has in place of a data source file.
    datasources: Option<Vec<Datasource>>,
}

/// The base times of a command that starts `unix` after 1970.
pub(crate) fn schedule(times: &Times, unix: Duration) -> Schedule {
    let zone = times.schedule_zone.clone().unwrap_or_else(TimeZone::system);
    // A clock beyond the calendar is no clock.
    let seconds = i64::try_from(unix.as_secs()).unwrap_or_default();
    let now = Timestamp::from_second(seconds).unwrap_or_default().to_zoned(zone).datetime();
    Schedule::new(now, times.bizdate, times.scheduled_time)
}

/// A job for a coordinator, which takes no DataX file: it would have to keep the accounts in it.
pub(crate) fn read_script(file: &JobFile, schedule: Schedule) -> Result<Job, Vec<Problem>> {
    let text = read_text(&file.path, file.lenient)?;
    if script::is_datax(&text) {
        script::parse(&text)?;
    }
    prepare(file, &text, schedule)
}

impl Job {
    /// The same, unless the job says that it is not to be run.
    pub(crate) fn unless_dry(self) -> Result<Self, Vec<Problem>> {
        Ok(Self { parsed: self.parsed.to_run()?, ..self })
    }
}

/// A job to be planned or run here, with the data sources that it names.
pub(crate) fn read_job_and_datasources(
    file: &JobFile,
    schedule: Schedule,
    datasources: &Path,
) -> Result<(Job, Datasources), Vec<Problem>> {
    let text = read_text(&file.path, file.lenient)?;
    let mut job = prepare(file, &text, schedule)?;
    let datasources = match job.datasources.take() {
        Some(brought) => Datasources::of(brought),
        None => load_datasources(datasources)?,
    };
    let problems = script::check_datasources(&job.parsed.spec, &datasources);
    if problems.is_empty() { Ok((job, datasources)) } else { Err(problems) }
}

fn prepare(file: &JobFile, text: &str, schedule: Schedule) -> Result<Job, Vec<Problem>> {
    let parameters = Parameters::evaluate(&definitions(file)?, schedule)?;
    let replaced = script::substitute(text, &parameters)?;
    let (script, parsed, datasources) = if script::is_datax(&replaced.text) {
        let converted = script::convert(&replaced.text)?;
        let parsed = converted.parse()?;
        (converted.script, parsed, Some(converted.datasources))
    } else {
        let parsed = script::parse(&replaced.text)?;
        (replaced.text, parsed, None)
    };
    let name = file.path.file_stem().map_or_else(|| "job".into(), |stem| stem.to_string_lossy().into_owned());
    let (parameters, depends_on_time) = (replaced.used, replaced.depends_on_time);
    Ok(Job { script, parsed, name, parameters, depends_on_time, datasources })
}

/// Those of the file first: of two with one name the later counts.
fn definitions(file: &JobFile) -> Result<Vec<Definition>, Vec<Problem>> {
    let mut definitions = Vec::new();
    if let Some(path) = &file.params_file {
        let place = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| {
            let message = format!("cannot read the file of parameters: {error}");
            vec![Problem::new(Code::InvalidSettings, message).at(place.clone())]
        })?;
        definitions = script::parse_parameters(&text, &place)?;
    }
    definitions.extend(file.parameters.iter().map(|(name, expression)| Definition {
        name: name.clone(),
        expression: expression.clone(),
        place: format!("--param {name}"),
    }));
    Ok(definitions)
}

/// The text of a job file; with `lenient` without its comments.
pub(crate) fn read_text(path: &Path, lenient: bool) -> Result<String, Vec<Problem>> {
    let place = path.display().to_string();
    let unreadable = |reason: String| {
        let message = format!("cannot read the job file: {reason}");
        vec![Problem::new(Code::InvalidScript, message).at(place.clone())]
    };
    let size = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
    if size > MAX_BYTES as u64 {
        return Err(unreadable(format!(
            "it has {size} bytes, more than the {MAX_BYTES} that a job may have"
        )));
    }
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    Ok(if lenient { script::strip_comments(&text) } else { text })
}

/// Data sources with `${NAME}` taken from this process's environment.
pub(crate) fn load_datasources(path: &Path) -> Result<Datasources, Vec<Problem>> {
    Datasources::load(path, &|name| std::env::var(name).ok())
}
