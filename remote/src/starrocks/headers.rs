//! The headers of a transaction's calls. Pure. Every load of a transaction carries the same ones: the server refuses a load
//! whose parameters differ from the first one's, and rolls back.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use starlift_common::job::{Compression, Delimiter, Format, LoadMode, LoadSpec, TIMEOUT_MAX_S};
use starlift_common::problem::{Code, Problem};

/// The form of every body of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    Csv { column: Delimiter, row: Delimiter },
    Json,
}

impl Form {
    /// As the job's plan has it.
    pub fn planned(load: &LoadSpec) -> Self {
        match load.format {
            Format::Csv => {
                Self::Csv { column: load.column_separator.clone(), row: load.row_delimiter.clone() }
            }
            Format::Json => Self::Json,
        }
    }
}

/// What transaction loads do not parse, what we set ourselves, and what would announce a body that we do not send.
const NEVER_SENT: &[&str] = &[
    "enclose",
    "escape",
    "trim_space",
    "skip_header",
    "log_rejected_record_num",
    "label",
    "db",
    "table",
    "format",
    "column_separator",
    "row_delimiter",
    "strip_outer_array",
    "ignore_json_size",
    "timeout",
    "idle_transaction_timeout",
    "prepared_timeout",
    "compression",
    "content-encoding",
    "content-length",
    "content-type",
    "transfer-encoding",
    "expect",
    "authorization",
    "host",
    "connection",
];

/// Headers of the three calls; a plain load has those of `load` alone.
#[derive(Debug)]
pub struct LoadHeaders {
    pub begin: HeaderMap,
    pub load: HeaderMap,
    pub prepare: HeaderMap,
    /// How the body is packed that goes with `load`.
    pub compression: Option<Compression>,
}

impl LoadHeaders {
    pub fn new(load: &LoadSpec, form: &Form, times: TxnTimes) -> Result<Self, Problem> {
        let compression = compression(load, form);
        let begin = begin(times, &load.headers)?;
        let mut headers = Self { begin, load: HeaderMap::new(), prepare: HeaderMap::new(), compression };
        if let Some(seconds) = load.prepared_timeout_s {
            set(&mut headers.prepare, "prepared_timeout", &seconds.to_string())?;
        }
        if load.mode == LoadMode::Plain {
            set(&mut headers.load, "timeout", &times.timeout_s.to_string())?;
        }
        set(&mut headers.load, "columns", &load.columns_header())?;
        set(&mut headers.load, "strict_mode", "true")?;
        set(&mut headers.load, "max_filter_ratio", "0")?;
        for (name, value) in &load.headers {
            if !NEVER_SENT.contains(&name.to_ascii_lowercase().as_str()) {
                set(&mut headers.load, name, value)?;
            }
        }
        match form {
            Form::Csv { column, row } => {
                set(&mut headers.load, "format", compression.map_or("csv", Compression::csv_format))?;
                set(&mut headers.load, "column_separator", &column.header())?;
                set(&mut headers.load, "row_delimiter", &row.header())?;
            }
            Form::Json => {
                set(&mut headers.load, "format", "json")?;
                set(&mut headers.load, "strip_outer_array", "true")?;
                set(&mut headers.load, "ignore_json_size", "true")?;
                if let Some(compression) = compression {
                    set(&mut headers.load, "compression", compression.name())?;
                }
            }
        }
        Ok(headers)
    }

    /// The headers of a load that has its own `max_filter_ratio`, whatever the job says.
    pub fn load_with_filter_ratio(&self, ratio: &'static str) -> HeaderMap {
        let mut load = self.load.clone();
        load.insert("max_filter_ratio", HeaderValue::from_static(ratio));
        load
    }

    /// The headers of a load that only shows whether loading works: no row is refused for its content, none is left
    /// unselected.
    pub fn load_of_any_row(&self) -> HeaderMap {
        let mut load = self.load_with_filter_ratio("1");
        load.insert("strict_mode", HeaderValue::from_static("false"));
        load.remove("where");
        load
    }
}

/// The headers of a begin; `job`: what the job asks to be sent.
pub fn begin(times: TxnTimes, job: &BTreeMap<String, String>) -> Result<HeaderMap, Problem> {
    let mut headers = HeaderMap::new();
    set(&mut headers, "timeout", &times.timeout_s.to_string())?;
    set(&mut headers, "idle_transaction_timeout", &times.idle_s.to_string())?;
    if let Some(warehouse) = job.get("warehouse") {
        set(&mut headers, "warehouse", warehouse)?;
    }
    Ok(headers)
}

/// The plan has found out whether the server unpacks bodies in the planned format. Of another it knows nothing, as the
/// two are announced in different ways and by servers of different ages.
fn compression(load: &LoadSpec, form: &Form) -> Option<Compression> {
    match (form, load.format) {
        (Form::Csv { .. }, Format::Csv) | (Form::Json, Format::Json) => load.compression,
        (Form::Csv { .. }, Format::Json) | (Form::Json, Format::Csv) => None,
    }
}

fn set(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), Problem> {
    let unusable = || Problem::new(Code::InvalidSettings, format!("header {name} cannot be sent: `{value}`"));
    let key: HeaderName = name.parse().map_err(|_| unusable())?;
    headers.insert(key, HeaderValue::from_bytes(value.as_bytes()).map_err(|_| unusable())?);
    Ok(())
}

/// How long a transaction may live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TxnTimes {
    timeout_s: u64,
    idle_s: u64,
}

impl TxnTimes {
    /// `timeout`: as the job says, else four times the estimate. A part is closed at half of it, and waits for rows no
    /// longer than that, so that the idle timeout never meets a living worker; a dead one's transactions end by it.
    pub fn new(load: &LoadSpec, rows_estimate: u64, bytes_per_second: Option<u64>, lease: Duration) -> Self {
        let timeout_s = load.transaction_timeout_s(rows_estimate, bytes_per_second);
        let idle_s = (4 * lease.as_secs()).max(timeout_s / 2 + 60).min(TIMEOUT_MAX_S);
        Self { timeout_s, idle_s }
    }

    /// Of a transaction that is rolled back within so many seconds.
    pub fn brief(timeout_s: u32) -> Self {
        Self { timeout_s: timeout_s.into(), idle_s: timeout_s.into() }
    }

    pub fn timeout(self) -> Duration {
        Duration::from_secs(self.timeout_s)
    }

    pub fn half_life(self) -> Duration {
        self.timeout() / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::load_spec;

    const LEASE: Duration = Duration::from_secs(15);

    fn headers_of(load: &LoadSpec, form: &Form) -> LoadHeaders {
        let times = TxnTimes::new(load, 0, None, LEASE);
        LoadHeaders::new(load, form, times).expect("headers")
    }

    fn headers(load: &LoadSpec) -> LoadHeaders {
        headers_of(load, &Form::planned(load))
    }

    #[test]
    fn a_csv_load_is_strict_and_names_its_columns() {
        let headers = headers(&load_spec());
        assert_eq!(headers.load["columns"], "`id`,`na``me`");
        assert_eq!(headers.load["column_separator"], "\\x01");
        assert_eq!(
            (&headers.load["strict_mode"], &headers.load["max_filter_ratio"]),
            (&"true".parse().expect("a value"), &"0".parse().expect("a value"))
        );
        assert_eq!(headers.begin["timeout"], "600");
        assert_eq!(headers.begin["idle_transaction_timeout"], "360");
    }

    #[test]
    fn the_job_overrides_what_it_may_and_nothing_else() {
        let mut load = load_spec();
        for (name, value) in
            [("strict_mode", "false"), ("enclose", "\""), ("format", "json"), ("warehouse", "w1")]
        {
            load.headers.insert(name.into(), value.into());
        }
        let headers = headers(&load);
        assert_eq!(headers.load["strict_mode"], "false");
        assert_eq!(headers.load["format"], "csv");
        assert!(!headers.load.contains_key("enclose"));
        assert_eq!(
            (&headers.load["warehouse"], &headers.begin["warehouse"]),
            (&"w1".parse().expect("a value"), &"w1".parse().expect("a value"))
        );
    }

    #[test]
    fn times_go_where_the_server_looks_for_them() {
        let mut load = load_spec();
        load.prepared_timeout_s = Some(90_000);
        let transaction = headers(&load);
        assert_eq!(transaction.prepare["prepared_timeout"], "90000");
        assert!(!transaction.load.contains_key("timeout"));
        load.mode = LoadMode::Plain;
        assert_eq!(headers(&load).load["timeout"], "600");
    }

    #[test]
    fn a_trial_has_its_own_filter_ratio() {
        let mut load = load_spec();
        load.headers.insert("max_filter_ratio".into(), "0.2".into());
        let headers = headers(&load);
        assert_eq!(headers.load["max_filter_ratio"], "0.2");
        assert_eq!(headers.load_with_filter_ratio("1")["max_filter_ratio"], "1");
        assert_eq!(headers.load_with_filter_ratio("1").len(), headers.load.len());
    }

    #[test]
    fn a_load_that_judges_no_row_is_announced_as_the_jobs_own() {
        let mut load = load_spec();
        for (name, value) in [("where", "id > 0"), ("partial_update", "true"), ("strict_mode", "true")] {
            load.headers.insert(name.into(), value.into());
        }
        let any_row = headers(&load).load_of_any_row();
        assert_eq!(
            (&any_row["strict_mode"], &any_row["max_filter_ratio"]),
            (&"false".parse().expect("a value"), &"1".parse().expect("a value"))
        );
        assert!(any_row.contains_key("partial_update") && !any_row.contains_key("where"));
        assert_eq!(any_row["format"], headers(&load).load["format"]);
    }

    #[test]
    fn json_bodies_are_arrays_without_a_size_limit() {
        let headers = headers_of(&load_spec(), &Form::Json);
        assert_eq!(headers.load["strip_outer_array"], "true");
        assert_eq!(headers.load["ignore_json_size"], "true");
        assert!(!headers.load.contains_key("column_separator"));
    }

    #[test]
    fn packed_csv_is_named_by_its_format_and_packed_json_by_its_compression() {
        let mut load = load_spec();
        load.compression = Some(Compression::Lz4Frame);
        let csv = headers(&load);
        assert_eq!(
            (csv.compression, &csv.load["format"]),
            (load.compression, &HeaderValue::from_static("lz4"))
        );
        assert!(!csv.load.contains_key("compression"));

        let other = headers_of(&load, &Form::Json);
        assert_eq!((other.compression, other.load.get("compression")), (None, None), "it was not tried");

        load.format = Format::Json;
        let json = headers(&load);
        assert_eq!(json.load["format"], "json");
        assert_eq!(
            (json.compression, &json.load["compression"]),
            (load.compression, &HeaderValue::from_static("lz4_frame"))
        );
    }

    #[test]
    fn a_transaction_may_live_four_times_as_long_as_its_task() {
        let seconds = |rows, speed| TxnTimes::new(&load_spec(), rows, speed, LEASE).timeout_s;
        assert_eq!(seconds(1_000_000, None), 600);
        assert_eq!(seconds(10_000_000, None), 4000);
        assert_eq!(seconds(1_000_000, Some(1_000_000)), 1024);
        assert_eq!(seconds(u64::MAX, None), 259_200);
    }
}
