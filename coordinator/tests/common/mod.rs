//! What the tests and benches of the state share: the plan of a job, its workers, and what they report. Decides nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use starlift_common::ids::{JobId, WorkerId};
use starlift_common::job::{
    CellKind, CommitMode, Delimiter, ErrorLimit, Format, LoadMode, LoadSpec, OnError, ReadSpec, SourceKind,
};
use starlift_common::label::Label;
use starlift_common::task::{AttemptKey, Key, KeyRange, Prepared, PreparedPart, TaskPlan, TaskRange};
use starlift_coordinator::clock::Now;
use starlift_coordinator::plan::{PREPARED_LIFETIME_DEFAULT_S, Plan};
use starlift_coordinator::state::{Event, Rules, State, Ticket, WorkerInfo};

pub(crate) const PREFIX: &str = "sl";

/// Rows of a task by estimate, and the most that a part holds here.
pub(crate) const ROWS: u64 = 10;

#[allow(dead_code, reason = "not every test binary makes its own rules")]
const RULES: Rules = Rules::new(Duration::from_secs(15), 3);

/// A worker of so many slots.
pub(crate) fn info(id: &str, slots: u32) -> WorkerInfo {
    WorkerInfo {
        id: WorkerId(id.into()),
        host: String::new(),
        version: String::new(),
        slots,
        http: String::new(),
        draining: false,
    }
}

/// `tasks` neighbouring ranges of one table, each of [`ROWS`] rows by estimate.
pub(crate) fn plan(tasks: u32, commit: CommitMode) -> Plan {
    let range = |number: u32| {
        let lower = (number > 0).then(|| Key::integer(i128::from(number) * 100));
        let upper = (number + 1 < tasks).then(|| Key::integer((i128::from(number) + 1) * 100));
        TaskPlan { shard: 0, range: TaskRange::Keys(KeyRange { lower, upper }), rows_estimate: ROWS }
    };
    Plan {
        shards: vec![ReadSpec {
            datasource: "src".into(),
            kind: SourceKind::Mysql,
            database: "shop".into(),
            table: "orders".into(),
            hint: None,
            select: vec!["`id`".into()],
            names: vec!["id".into()],
            filter: None,
            key: Some("id".into()),
            time_zone: None,
            query: None,
        }],
        load: LoadSpec {
            datasource: "dw".into(),
            database: "dw".into(),
            table: "orders".into(),
            columns: vec!["id".into()],
            cell_kinds: vec![CellKind::Number],
            checks: Vec::new(),
            load_urls: vec!["http://fe1:8030".into()],
            format: Format::Csv,
            column_separator: Delimiter::new(vec![1]).unwrap(),
            row_delimiter: Delimiter::new(vec![2]).unwrap(),
            named_delimiters: false,
            headers: BTreeMap::new(),
            max_batch_rows: 1000,
            max_batch_bytes: 1 << 20,
            label_prefix: PREFIX.into(),
            timeout_s: None,
            max_part_bytes: 1 << 30,
            on_error: OnError::Exit,
            mode: LoadMode::Transaction,
            prepared_timeout_s: None,
            compression: None,
        },
        tasks: (0..tasks).map(range).collect(),
        pre_sql: Vec::new(),
        post_sql: Vec::new(),
        concurrent: 4,
        bytes_per_second: None,
        commit,
        error_limit: ErrorLimit::default(),
        prepared_lifetime_s: PREPARED_LIFETIME_DEFAULT_S,
        warnings: Vec::new(),
    }
}

/// A state in which so many jobs of so many tasks run, none of which is granted yet.
#[allow(dead_code, reason = "not every test binary needs many jobs")]
pub(crate) fn running_jobs(jobs: u32, tasks: u32, concurrent: u32) -> State {
    let mut state = State::new(RULES);
    for number in 0..jobs {
        let job = JobId::from_parts(number.into(), 7);
        let plan = Plan { concurrent, ..plan(tasks, CommitMode::Task) };
        let events = vec![
            Event::Submit { ticket: Ticket(number.into()), job, name: "orders".into(), script: "{}".into() },
            Event::Planned { job, result: Ok(Box::new(plan)) },
        ];
        state.apply(events, Now::default());
    }
    state
}

/// An attempt's prepared parts under these numbers, every row loaded.
#[allow(dead_code, reason = "not every test binary needs reports")]
pub(crate) fn prepared(attempt: AttemptKey, parts: impl IntoIterator<Item = u32>) -> Prepared {
    let part = |number: u32| PreparedPart {
        label: Label::part(PREFIX, attempt, number).to_string(),
        txn_id: i64::try_from(attempt.epoch.0).expect("epochs of tests are small") * 1000 + i64::from(number),
        rows_sent: ROWS,
        rows_loaded: ROWS,
        rows_filtered: 0,
        rows_unselected: 0,
        bytes_sent: 100,
        loads: 1,
    };
    let parts: Vec<PreparedPart> = parts.into_iter().map(part).collect();
    let rows_read = ROWS * parts.len() as u64;
    Prepared { parts, rows_read, bytes_read: 5 * rows_read, ..Prepared::default() }
}
