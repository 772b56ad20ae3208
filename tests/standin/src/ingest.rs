//! Carries a plan out: body bytes in, rows into the store, counts and error lines out. Blocking work, called from the
//! blocking pool. One `Ingest` lives as long as its transaction, since all its loads are one byte stream.

use std::sync::Arc;

use crate::csv::{CsvReader, Record};
use crate::expr::{Derived, Evaluator, Verdict};
use crate::json;
use crate::packed::Packed;
use crate::params::Format;
use crate::plan::{JsonOptions, Plan, PlanError, Target};
use crate::store::{ColumnType, PlainForm, RowCounter, RowWriter, Store, StoreError, Stored, Table};
use crate::transactions::Counts;
use crate::types::convert;
use crate::walk;

/// How many error lines a load keeps for its ErrorURL.
const ERROR_LINES_MAX: usize = 50;
/// How much of a bad row an error line shows.
const ERROR_ROW_BYTES_MAX: usize = 3000;

/// What a load has come to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) counts: Counts,
    /// Lines for the ErrorURL.
    pub(crate) errors: Vec<String>,
    /// The load cannot be committed, with the server's text.
    pub(crate) failed: Option<String>,
}

/// A load in progress.
pub(crate) struct Ingest {
    packed: Option<Packed>,
    decoder: Decoder,
    rows: Rows,
}

enum Decoder {
    Csv(Box<CsvReader>),
    /// JSON is buffered until the request ends, as a BE does.
    Json(Vec<u8>),
}

struct Rows {
    plan: Plan,
    table: Arc<Table>,
    sink: Sink,
    evaluator: Option<Evaluator>,
    outcome: Outcome,
}

/// Where rows go.
enum Sink {
    Keep(RowWriter),
    Count {
        counter: RowCounter,
        /// For records whose cells stand in the table's order as they are.
        plain: Option<PlainForm>,
    },
}

impl Ingest {
    /// Prepares a load into `table` under `txn`; rows stay invisible until the transaction is made visible. With
    /// `count_only` they are counted then and not kept.
    pub(crate) fn new(
        store: &Store,
        table: &Arc<Table>,
        txn: i64,
        plan: Plan,
        count_only: bool,
    ) -> Result<Self, IngestError> {
        let evaluator = Evaluator::new(&plan, table)?;
        let sink = if count_only {
            let plain = plain_form(&plan, evaluator.is_some());
            Sink::Count { counter: store.begin_count(table, txn), plain }
        } else {
            Sink::Keep(store.begin_rows(table, txn)?)
        };
        let decoder = match plan.format {
            Format::Csv => {
                let mut reader = CsvReader::new(&plan.column_separator, &plan.row_delimiter, &plan.quoting);
                if matches!(sink, Sink::Count { plain: Some(_), .. }) {
                    reader.take_whole();
                }
                Decoder::Csv(Box::new(reader))
            }
            Format::Json => Decoder::Json(Vec::new()),
        };
        let outcome = Outcome::default();
        let packed = plan.codec.map(Packed::new);
        Ok(Self { packed, decoder, rows: Rows { plan, table: table.clone(), sink, evaluator, outcome } })
    }

    /// Takes the next bytes of a body. After a failure the rest is only counted.
    pub(crate) fn feed(&mut self, chunk: &[u8]) {
        self.rows.outcome.counts.bytes += chunk.len() as u64;
        if self.rows.outcome.failed.is_some() {
            return;
        }
        match &mut self.packed {
            Some(packed) => packed.push(chunk),
            None => self.decode(chunk),
        }
    }

    fn decode(&mut self, chunk: &[u8]) {
        match &mut self.decoder {
            Decoder::Csv(reader) => {
                let rows = &mut self.rows;
                if let Err(error) = reader.feed(chunk, &mut |record| rows.csv(record)) {
                    rows.outcome.failed = Some(error.to_string());
                }
            }
            Decoder::Json(body) => body.extend_from_slice(chunk),
        }
    }

    /// Body bytes taken so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.rows.outcome.counts.bytes
    }

    /// One request's body has ended; a packed or a JSON body must be complete by now.
    pub(crate) fn end_of_load(&mut self) {
        if let Some(packed) = &mut self.packed
            && let Err(error) = packed.take().unpack(&mut |chunk| self.decode(chunk))
        {
            self.rows.outcome.failed.get_or_insert(error.to_string());
        }
        if let Decoder::Json(body) = &mut self.decoder {
            let body = std::mem::take(body);
            self.rows.json(&body);
        }
    }

    /// The last request's body has ended: flushes all rows to the store.
    pub(crate) fn finish(mut self) -> Outcome {
        if let Decoder::Csv(reader) = &mut self.decoder
            && self.rows.outcome.failed.is_none()
        {
            let rows = &mut self.rows;
            reader.finish(&mut |record| rows.csv(record));
        }
        let Rows { sink, mut outcome, .. } = self.rows;
        let finished = match sink {
            Sink::Keep(writer) => writer.finish().map(drop),
            Sink::Count { counter, .. } => counter.finish(),
        };
        if let Err(error) = finished {
            outcome.failed.get_or_insert(error.to_string());
        }
        outcome
    }
}

/// Why a load could not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IngestError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The cells of a record, whatever format it came in.
pub(crate) trait Cells {
    fn cell(&self, place: usize) -> Option<&[u8]>;
}

impl Cells for Record<'_> {
    #[inline]
    fn cell(&self, place: usize) -> Option<&[u8]> {
        self.field(place)
    }
}

impl Cells for json::Cells<'_> {
    fn cell(&self, place: usize) -> Option<&[u8]> {
        self.get(place)?.as_deref()
    }
}

impl Rows {
    fn csv(&mut self, record: &Record<'_>) {
        if self.outcome.failed.is_some() {
            return;
        }
        if !record.raw.is_ascii() && std::str::from_utf8(record.raw).is_err() {
            return self.filtered("Invalid UTF-8 row", record.raw);
        }
        if let Sink::Count { counter, plain: Some(form) } = &mut self.sink {
            let cells = count(form.separator, record.raw) + 1;
            if cells != self.plan.sources.len() {
                return self.miscounted(cells, record.raw);
            }
            if !counter.push_record(record.raw, *form) {
                let cells = record.raw.split(|byte| *byte == form.separator);
                counter.push(cells.map(|cell| (cell != b"\\N").then_some(cell)));
            }
            self.outcome.counts.loaded += 1;
            return;
        }
        if record.len() != self.plan.sources.len() {
            return self.miscounted(record.len(), record.raw);
        }
        self.row(record, record.raw);
    }

    fn miscounted(&mut self, cells: usize, raw: &[u8]) {
        let reason = format!(
            "Value count does not match column count: expected = {}, actual = {cells}. Column separator: '{}', Row delimiter: '{}'",
            self.plan.sources.len(),
            Plan::shown(&self.plan.column_separator),
            Plan::shown(&self.plan.row_delimiter),
        );
        self.filtered(&reason, raw);
    }

    fn json(&mut self, body: &[u8]) {
        if self.outcome.failed.is_some() {
            return;
        }
        let (options, sources) = (self.plan.json.clone(), self.plan.sources.clone());
        if self.json_quickly(body, &options, &sources) {
            return;
        }
        let read = json::read(body, &options, &sources, &mut |cells, raw| {
            if self.outcome.failed.is_none() {
                self.row(cells, raw);
            }
        });
        if let Err(error) = read {
            self.outcome.failed.get_or_insert(error.to_string());
        }
    }

    /// Counts the rows of a plain body; `false`, and nothing counted, where it needs the full reader.
    fn json_quickly(&mut self, body: &[u8], options: &JsonOptions, sources: &[String]) -> bool {
        let Sink::Count { counter, .. } = &self.sink else { return false };
        let (Ok(text), None, []) = (std::str::from_utf8(body), &options.paths, options.root.as_slice())
        else {
            return false;
        };
        let (mark, counts) = (counter.mark(), self.outcome.counts);
        let read = walk::read(text, options.strip_outer_array, sources, |cells, raw| {
            if self.outcome.failed.is_none() {
                self.row(cells, raw);
            }
        });
        if read.is_ok() {
            return true;
        }
        if let Sink::Count { counter, .. } = &mut self.sink {
            counter.back_to(mark);
        }
        self.outcome.counts = counts;
        self.outcome.failed = None;
        false
    }

    fn row<C: Cells + ?Sized>(&mut self, cells: &C, raw: &[u8]) {
        let derived = match self.evaluator.as_mut().map(|evaluator| evaluator.row(cells)) {
            None => Vec::new(),
            Some(Ok(Verdict::Row(derived))) => derived,
            Some(Ok(Verdict::Unselected)) => {
                self.outcome.counts.unselected += 1;
                return;
            }
            Some(Err(text)) => {
                self.outcome.failed = Some(text);
                return;
            }
        };
        let delete = self.plan.op.as_ref().is_some_and(|op| is_delete(target_cell(op, cells, &derived)));
        let writer = match &mut self.sink {
            Sink::Keep(writer) => writer,
            Sink::Count { .. } if delete => {
                self.outcome.failed = Some("rows are only counted here, none can be deleted".to_owned());
                return;
            }
            Sink::Count { counter, .. } => {
                counter.push(self.plan.targets.iter().map(|target| target_cell(target, cells, &derived)));
                self.outcome.counts.loaded += 1;
                return;
            }
        };
        let row = match convert_row(&self.plan, &self.table, cells, &derived, delete) {
            Ok(row) => row,
            Err(reason) => return self.filtered(&reason, raw),
        };
        let written = if delete { writer.push_delete(&row) } else { writer.push(&row) };
        match written {
            Ok(()) => self.outcome.counts.loaded += 1,
            Err(error) => self.outcome.failed = Some(error.to_string()),
        }
    }

    fn filtered(&mut self, reason: &str, raw: &[u8]) {
        self.outcome.counts.filtered += 1;
        if self.outcome.errors.len() < ERROR_LINES_MAX {
            let shown = String::from_utf8_lossy(&raw[..raw.len().min(ERROR_ROW_BYTES_MAX)]);
            self.outcome.errors.push(format!("Error: {reason}. Row: {shown}"));
        }
    }
}

/// How often `byte` stands in `text`; quicker on short texts than a search that looks for one after the other.
fn count(byte: u8, text: &[u8]) -> usize {
    // A sum over so many fits a byte, which is what makes this loop quick.
    let pieces = text.chunks(255);
    pieces.map(|piece| usize::from(piece.iter().fold(0_u8, |sum, at| sum + u8::from(*at == byte)))).sum()
}

/// How a CSV load's records can be counted as they stand, if they can.
fn plain_form(plan: &Plan, is_evaluated: bool) -> Option<PlainForm> {
    let in_order = plan.targets.iter().enumerate().all(|(place, target)| *target == Target::Source(place));
    let all = in_order && plan.targets.len() == plan.sources.len();
    let as_written = !plan.quoting.is_quoted() && !plan.quoting.trim_space;
    match plan.column_separator.as_slice() {
        [byte] if all && as_written && !is_evaluated && plan.op.is_none() => {
            Some(PlainForm::new(*byte, &plan.row_delimiter))
        }
        _ => None,
    }
}

/// One row of the table, or why it is filtered. A directly mapped value that does not fit is NULL unless the load is
/// strict; a text too long is refused in any mode when it comes out of an expression. A delete needs only its key.
fn convert_row<'a, C: Cells + ?Sized>(
    plan: &'a Plan,
    table: &Table,
    cells: &'a C,
    derived: &'a [Derived],
    delete: bool,
) -> Result<Vec<Stored<'a>>, String> {
    let mut row = Vec::with_capacity(table.columns.len());
    for (column, target) in table.columns.iter().zip(&plan.targets) {
        if delete && !column.key {
            row.push(Stored::Null);
            continue;
        }
        if let Target::Derived(place) = target
            && let Some(Derived::Binary(bytes)) = derived.get(*place)
            && column.kind == ColumnType::Varbinary
        {
            row.push(Stored::Blob(bytes.into()));
            continue;
        }
        let strict = match target {
            Target::Derived(_) => matches!(column.kind, ColumnType::Char(_) | ColumnType::Varchar(_)),
            Target::Source(_) | Target::Default(_) => plan.strict,
        };
        match convert(column, target_cell(target, cells, derived)) {
            Ok(stored) => row.push(stored),
            Err(error) if strict || !column.nullable => return Err(error.to_string()),
            Err(_) => row.push(Stored::Null),
        }
    }
    Ok(row)
}

#[inline]
fn target_cell<'a, C: Cells + ?Sized>(
    target: &'a Target,
    cells: &'a C,
    derived: &'a [Derived],
) -> Option<&'a [u8]> {
    match target {
        Target::Source(place) => cells.cell(*place),
        Target::Derived(place) => match derived.get(*place)? {
            Derived::Null => None,
            Derived::Text(bytes) | Derived::Binary(bytes) => Some(bytes),
        },
        Target::Default(text) => text.as_deref(),
    }
}

/// `__op`: 1 or `delete`; a missing one is an upsert.
fn is_delete(op: Option<&[u8]>) -> bool {
    op.is_some_and(|op| op == b"1" || op.eq_ignore_ascii_case(b"delete"))
}
