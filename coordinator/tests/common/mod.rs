//! What the model and the simulation share: the plan of a job, and its workers. Decides nothing.

use std::collections::BTreeMap;

use starlift_common::ids::WorkerId;
use starlift_common::job::{
    CellKind, CommitMode, Delimiter, ErrorLimit, Format, LoadMode, LoadSpec, OnError, ReadSpec, SourceKind,
};
use starlift_common::task::{KeyRange, TaskPlan, TaskRange};
use starlift_coordinator::plan::{PREPARED_LIFETIME_DEFAULT_S, Plan};
use starlift_coordinator::state::WorkerInfo;

pub(crate) const PREFIX: &str = "sl";

/// Rows of a task by estimate, and the most that a part holds here.
pub(crate) const ROWS: u64 = 10;

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
        let lower = (number > 0).then(|| i128::from(number) * 100);
        let upper = (number + 1 < tasks).then(|| (i128::from(number) + 1) * 100);
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
        }],
        load: LoadSpec {
            datasource: "dw".into(),
            database: "dw".into(),
            table: "orders".into(),
            columns: vec!["id".into()],
            cell_kinds: vec![CellKind::Number],
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
