//! Reads job and data source files, offline: every fault is known before anything is contacted.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use starlift_common::datasource::Datasources;
use starlift_common::problem::{Code, Problem};
use starlift_common::script::{self, MAX_BYTES, Parsed};

use crate::args::JobFile;

/// A job file that passed the offline checks.
pub(crate) struct Job {
    /// The script's text with parameters replaced.
    pub script: String,
    pub parsed: Parsed,
    /// The file's name without its ending.
    pub name: String,
}

pub(crate) fn read_job(file: &JobFile) -> Result<Job, Vec<Problem>> {
    let mut text = read_text(&file.path).map_err(|problem| vec![problem])?;
    if file.lenient {
        text = script::strip_comments(&text);
    }
    let parameters: BTreeMap<String, String> = file.parameters.iter().cloned().collect();
    let script = script::substitute(&text, &parameters)?;
    let parsed = script::parse(&script)?;
    let name = file.path.file_stem().map_or_else(|| "job".into(), |stem| stem.to_string_lossy().into_owned());
    Ok(Job { script, parsed, name })
}

fn read_text(path: &Path) -> Result<String, Problem> {
    let place = path.display().to_string();
    let unreadable = |reason: String| {
        Problem::new(Code::InvalidScript, format!("cannot read the job file: {reason}")).at(place.clone())
    };
    let size = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
    if size > MAX_BYTES as u64 {
        return Err(unreadable(format!(
            "it has {size} bytes, more than the {MAX_BYTES} that a job may have"
        )));
    }
    std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))
}

/// Data sources with `${NAME}` taken from this process's environment.
pub(crate) fn read_datasources(path: &Path) -> Result<Arc<Datasources>, Vec<Problem>> {
    Datasources::load(path, &|name| std::env::var(name).ok()).map(Arc::new)
}

/// Both, and that they fit together.
pub(crate) fn read_job_and_datasources(
    file: &JobFile,
    datasources: &Path,
) -> Result<(Job, Arc<Datasources>), Vec<Problem>> {
    let job = read_job(file)?;
    let datasources = read_datasources(datasources)?;
    let problems = script::check_datasources(&job.parsed.spec, &datasources);
    if problems.is_empty() { Ok((job, datasources)) } else { Err(problems) }
}
