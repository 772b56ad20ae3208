//! One task end to end: source, batches, loads, prepared transactions. Sequences only; what a row looks like, where a
//! batch ends, what a failure means is decided in `encode`, `batch`, `load` and `failure`.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use starlift_common::datasource::LiveDatasources;
use starlift_common::job::{LoadMode, LoadSpec, OnError};
use starlift_common::problem::{Code, Problem};
use starlift_common::retry::FailureClass;
use starlift_common::row::Row;
use starlift_common::task::{BadRow, LabelsBegun, Outcome, Prepared};
use starlift_common::wire::Grant;
use starlift_remote::starrocks::client::Client;
use starlift_remote::starrocks::clients::Clients;
use starlift_remote::starrocks::headers::{LoadHeaders, TxnTimes};
use tokio::sync::{Notify, mpsc};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use crate::batch::{BatchLimits, Cutter, KeptRows, Piece};
use crate::budget::Paid;
use crate::compress;
use crate::control::Control;
use crate::dirty::{DirtyRows, DirtySettings};
use crate::encode::ladder::{Form, Rung};
use crate::encode::{EncodeError, Encoder};
use crate::failure::Failure;
use crate::http::Status;
use crate::load::{Ledger, Loaded, Loader};
use crate::mysql::source::MysqlSource;
use crate::segment::{SEGMENT_BYTES, SEGMENTS, SEGMENTS_PER_ROW, SegmentPool};
use crate::source::RowSource;
use crate::speed::SpeedLimit;
use crate::trial::{self, Isolating, KEPT_BYTES_MAX, Told};

/// Segments between reading and loading.
pub(crate) const SEGMENTS_WAITING: usize = 2;
/// The server buffers a whole JSON body.
const JSON_BODY_BYTES_MAX: u64 = 64 << 20;
/// How long the trial with one row may take.
const ONE_ROW_TIMEOUT: Duration = Duration::from_secs(20);
/// Cell bytes after which progress is told and the speed limit is asked.
const METER_BYTES: u64 = 32 << 10;

/// What all tasks of a worker share.
pub(crate) struct Tools {
    pub datasources: LiveDatasources,
    pub clients: Clients,
    pub status: Arc<Status>,
    pub dirty: DirtySettings,
    pub clock: fn() -> Instant,
}

/// How a task ended.
pub(crate) enum End {
    Outcome(Outcome),
    /// The lease is gone or the coordinator said stop: there is nothing to report.
    Abandoned,
}

/// Runs one attempt until it is prepared, has failed, or is told to stop or to give back. In every case but the first
/// its transactions were rolled back as far as the server answered.
pub(crate) async fn run(grant: &Grant, tools: &Tools, control: &Control) -> End {
    let client = match tools.clients.get(&grant.load) {
        Ok(client) => client,
        Err(problem) => {
            return End::Outcome(failed(grant, &Failure::Setup(problem), LabelsBegun::default(), true));
        }
    };
    let end = match grant.load.mode {
        LoadMode::Transaction => by_transactions(grant, tools, control, &client).await,
        LoadMode::Plain => crate::plain::run(grant, tools, control, &client).await,
    };
    if matches!(&end, End::Outcome(Outcome::Failed { problem, .. }) if problem.code == Code::LoginFailed) {
        tools.clients.forget(&grant.load);
    }
    end
}

async fn by_transactions(grant: &Grant, tools: &Tools, control: &Control, client: &Client) -> End {
    let mut ledger = Ledger::new(&grant.load, grant.attempt);
    let ended = tokio::select! {
        biased;
        () = control.stop.cancelled() => Ended::Stopped,
        () = control.give_back.cancelled() => Ended::Leaving,
        result = transfer(grant, tools, control, client, &mut ledger) => Ended::Result(result),
    };
    let failure = match ended {
        Ended::Result(Ok((prepared, bad_rows))) => {
            #[cfg(feature = "workers-commit")]
            commit_unasked(grant, client, &prepared).await;
            return End::Outcome(Outcome::Prepared { prepared, bad_rows });
        }
        Ended::Result(Err(failure)) => Some(failure),
        Ended::Leaving | Ended::Stopped => None,
    };
    let mut all_rolled_back = ledger.roll_back(client).await;
    match failure {
        Some(mut failure) => {
            // An attempt ends with its first load that is not answered, so the second one is met by a later attempt.
            if failure.is_unanswered_load() && grant.attempt_number >= 2 {
                failure = explained(grant, tools, control, client, &mut ledger, failure).await;
                all_rolled_back = ledger.roll_back(client).await;
            }
            End::Outcome(failed(grant, &failure, ledger.begun(), all_rolled_back))
        }
        None if control.stop.is_cancelled() => End::Abandoned,
        None => End::Outcome(Outcome::GivenBack { begun: ledger.begun(), all_rolled_back }),
    }
}

/// The fault that the chaos tests must be able to find; see the feature in `Cargo.toml`.
#[cfg(feature = "workers-commit")]
async fn commit_unasked(grant: &Grant, client: &Client, prepared: &Prepared) {
    use starlift_common::label::Label;

    let Grant { load, attempt, .. } = grant;
    for part in &prepared.parts {
        if let Some(number) = Label::part_number(&load.label_prefix, *attempt, &part.label) {
            let label = Label::part(&load.label_prefix, *attempt, number);
            let done = client.commit(&load.database, &load.table, &label, 10).await;
            warn!(%label, done = done.is_ok(), "committed by the worker itself");
        }
    }
}

enum Ended {
    Result(Result<(Prepared, Vec<BadRow>), Failure>),
    Stopped,
    Leaving,
}

pub(crate) fn failed(grant: &Grant, failure: &Failure, begun: LabelsBegun, all_rolled_back: bool) -> Outcome {
    let problem = failure.problem(&grant.read, &grant.range, &grant.load);
    let class = failure.class();
    // The message may quote refused rows, so only the code is logged.
    warn!(code = %problem.code, ?class, ?begun, all_rolled_back, "attempt failed");
    Outcome::Failed { class, problem, begun, all_rolled_back }
}

/// The outcome of an attempt that panicked; which of its transactions are open is not known.
pub(crate) fn panicked(control: &Control) -> Outcome {
    let problem = Problem::new(Code::Internal, "the worker hit a fault of its own while it ran the task")
        .hint("its log has the details");
    Outcome::Failed {
        class: FailureClass::Transient,
        problem,
        begun: control.progress.get().begun,
        all_rolled_back: false,
    }
}

/// Has the server tell about one row what it does not tell about a whole load.
async fn explained(
    grant: &Grant,
    tools: &Tools,
    control: &Control,
    client: &Client,
    ledger: &mut Ledger<'_>,
    failure: Failure,
) -> Failure {
    let told = tokio::select! {
        biased;
        () = control.stop.cancelled() => None,
        () = control.give_back.cancelled() => None,
        told = timeout(ONE_ROW_TIMEOUT, ask_about_one_row(grant, tools, control, client, ledger)) => {
            told.ok().and_then(Result::ok).flatten()
        }
    };
    let Some(Told { words, refusal }) = told else { return failure };
    let may_leave_out = grant.load.on_error == OnError::BatchDirtyData;
    let is_permanent = refusal.is_some_and(|answer| {
        answer.class() == FailureClass::Permanent && !(may_leave_out && answer.refuses_rows())
    });
    let class = if is_permanent { FailureClass::Permanent } else { failure.class() };
    Failure::Unanswered { failure: Box::new(failure), told: words, class }
}

/// `None`: the range has no row that could be sent.
async fn ask_about_one_row(
    grant: &Grant,
    tools: &Tools,
    control: &Control,
    client: &Client,
    ledger: &mut Ledger<'_>,
) -> Result<Option<Told>, Failure> {
    let form = Rung::Planned.form(&grant.load, [0; 32]);
    let loader = loader(grant, tools, control, client, &form)?;
    let mut source = open_source(grant, tools).await?;
    let mut kept = kept_rows(grant, &form, source.is_utf8());
    source.fill().await?;
    match source.row()? {
        Some(row) if kept.push(&row) == Ok(true) => {}
        _ => return Ok(None),
    }
    trial::ask_with_one_row(&loader, ledger, kept.body(0..1).0).await.map(Some)
}

/// One way of passing over the range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Way {
    rung: Rung,
    /// Bad rows are looked for and left out.
    isolating: bool,
}

impl Way {
    /// The way that may get past this failure, if there is one.
    fn after(self, failure: &Failure, load: &LoadSpec) -> Option<Self> {
        if let Failure::Row { error: EncodeError::Collision { with, .. }, .. } = failure
            && let Some(rung) = self.rung.after(load, *with)
        {
            return Some(Self { rung, ..self });
        }
        let may_leave_out = load.on_error == OnError::BatchDirtyData && !self.isolating;
        (may_leave_out && failure.is_about_rows()).then_some(Self { isolating: true, ..self })
    }
}

/// What a pass that got through the range has come to.
struct Passed {
    read: RowsRead,
    loaded: Loaded,
    dirty_records: u64,
    dirty_file: String,
    bad_rows: Vec<BadRow>,
}

/// Passes over the range until one way of doing so gets through.
async fn transfer(
    grant: &Grant,
    tools: &Tools,
    control: &Control,
    client: &Client,
    ledger: &mut Ledger<'_>,
) -> Result<(Prepared, Vec<BadRow>), Failure> {
    let mut way = Way { rung: Rung::Planned, isolating: false };
    let mut retries = 0;
    loop {
        let form = way.rung.form(&grant.load, std::array::from_fn(|_| fastrand::u8(..)));
        let passed = if way.isolating {
            isolating_pass(grant, tools, control, client, ledger, &form, way.rung).await
        } else {
            pass(grant, tools, control, client, ledger, &form).await
        };
        let failure = match passed {
            Ok(passed) => return prepared(passed, retries),
            Err(failure) => failure,
        };
        let Some(next) = way.after(&failure, &grant.load) else { return Err(failure) };
        info!(way = ?next, "rows of the range cannot be loaded in this way, it is read again for another");
        // The next pass knows nothing of these labels, and what is reported prepared is not swept.
        if !ledger.roll_back(client).await {
            return Err(Failure::NotClosed);
        }
        control.progress.start_over();
        way = next;
        retries += 1;
    }
}

fn prepared(passed: Passed, retries: u64) -> Result<(Prepared, Vec<BadRow>), Failure> {
    let Passed { read, loaded, dirty_records, dirty_file, bad_rows } = passed;
    let Loaded { parts, apart } = loaded;
    let sent: u64 = parts.iter().map(|part| part.rows_sent).sum();
    if sent + dirty_records + apart.total() != read.rows {
        let message =
            format!("{} rows were read, {sent} sent, {dirty_records} left out, {apart:?} apart", read.rows);
        return Err(Failure::Internal(message));
    }
    let RowsRead { rows: rows_read, bytes: bytes_read } = read;
    Ok((Prepared { parts, rows_read, bytes_read, retries, dirty_records, dirty_file, apart }, bad_rows))
}

/// Rows and their cell bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RowsRead {
    pub rows: u64,
    pub bytes: u64,
}

impl RowsRead {
    fn add(&mut self, more: Self) {
        self.rows += more.rows;
        self.bytes += more.bytes;
    }
}

/// Reads the range once, and loads it while it is being read.
async fn pass(
    grant: &Grant,
    tools: &Tools,
    control: &Control,
    client: &Client,
    ledger: &mut Ledger<'_>,
    form: &Form,
) -> Result<Passed, Failure> {
    let loader = loader(grant, tools, control, client, form)?;
    let mut source = open_source(grant, tools).await?;
    let (pieces, received) = mpsc::channel(SEGMENTS_WAITING);
    let cut = Notify::new();
    let cutting = (Encoder::of(&grant.load, form, source.is_utf8()), batch_limits(&grant.load, form));
    let reader = Reader::new(tools, control, cutting, key_column(grant), pieces, &cut);
    let (packing, packed) = compress::stage(loader.headers.compression, received);
    let (read, (), loaded) =
        tokio::try_join!(reader.run(&mut source), packing, loader.run(ledger, packed, &cut))?;
    Ok(Passed { read, loaded, dirty_records: 0, dirty_file: String::new(), bad_rows: Vec::new() })
}

/// Reads the range once, and loads all but its bad rows.
async fn isolating_pass(
    grant: &Grant,
    tools: &Tools,
    control: &Control,
    client: &Client,
    ledger: &mut Ledger<'_>,
    form: &Form,
    rung: Rung,
) -> Result<Passed, Failure> {
    let load = &grant.load;
    let mut loader = loader(grant, tools, control, client, form)?;
    let counting = loader.headers.load_with_filter_ratio("1");
    loader.headers.load = loader.headers.load_with_filter_ratio("0");
    let isolating =
        Isolating { loader, counting, rung, key_column: key_column(grant), allowed: grant.dirty_allowed };
    let mut source = open_source(grant, tools).await?;
    let mut dirty = DirtyRows::new(&tools.dirty, grant.attempt, &load.columns);
    let (kept, meter) = (kept_rows(grant, form, source.is_utf8()), Meter::new(tools, control));
    let (read, loaded) = isolating.run(ledger, &mut source, kept, meter, &mut dirty).await?;
    let dirty_records = dirty.count();
    let (bad_rows, dirty_file) = dirty.finish().await.map_err(Failure::Keep)?;
    Ok(Passed { read, loaded, dirty_records, dirty_file, bad_rows })
}

fn loader<'a>(
    grant: &'a Grant,
    tools: &'a Tools,
    control: &'a Control,
    client: &'a Client,
    form: &Form,
) -> Result<Loader<'a>, Failure> {
    let load = &grant.load;
    let times = TxnTimes::new(load, grant.rows_estimate, grant.bytes_per_second, grant.lease);
    let headers = LoadHeaders::new(load, form, times).map_err(Failure::Setup)?;
    let (metrics, masked) = (&tools.status.metrics, tools.dirty.masked);
    Ok(Loader { client, spec: load, headers, times, control, metrics, clock: tools.clock, masked })
}

pub(crate) async fn open_source(grant: &Grant, tools: &Tools) -> Result<MysqlSource, Failure> {
    let datasources = tools.datasources.now();
    let datasource = datasources.find(&grant.read.datasource, "").map_err(Failure::Setup)?;
    Ok(MysqlSource::open(datasource, &grant.read, &grant.range).await?)
}

/// Room for a batch of an isolating pass.
fn kept_rows(grant: &Grant, form: &Form, is_utf8: bool) -> KeptRows {
    let load = &grant.load;
    let limits = batch_limits(load, form);
    let limits = BatchLimits { bytes: limits.bytes.min(KEPT_BYTES_MAX), ..limits };
    KeptRows::new(Encoder::of(load, form, is_utf8), limits, load.columns.len())
}

fn batch_limits(load: &LoadSpec, form: &Form) -> BatchLimits {
    let bytes_max = match form {
        Form::Csv { .. } => u64::MAX,
        Form::Json => JSON_BODY_BYTES_MAX,
    };
    BatchLimits {
        rows: load.max_batch_rows,
        bytes: load.max_batch_bytes.min(load.max_part_bytes).min(bytes_max),
        segment_bytes: SEGMENT_BYTES,
    }
}

/// Where the split key stands among the columns; messages name a row by it.
pub(crate) fn key_column(grant: &Grant) -> Option<usize> {
    let key = grant.read.key.as_ref()?;
    grant.read.names.iter().position(|name| name.eq_ignore_ascii_case(key))
}

/// The reading side: rows in, pieces out.
pub(crate) struct Reader<'a> {
    cutter: Cutter,
    /// Where the cutter takes its segments from.
    pool: SegmentPool,
    key_column: Option<usize>,
    pieces: mpsc::Sender<Piece>,
    /// The loading side wants the batch to end here.
    cut: &'a Notify,
    meter: Meter<'a>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(
        tools: &'a Tools,
        control: &'a Control,
        cutting: (Encoder, BatchLimits),
        key_column: Option<usize>,
        pieces: mpsc::Sender<Piece>,
        cut: &'a Notify,
    ) -> Self {
        let (encoder, limits) = cutting;
        let pool = SegmentPool::new(SEGMENTS);
        Reader {
            cutter: Cutter::new(encoder, limits, pool.clone()),
            pool,
            key_column,
            pieces,
            cut,
            meter: Meter::new(tools, control),
        }
    }

    /// Waits for nothing between two rows that are in memory, unless they filled a segment or are due to be told.
    pub(crate) async fn run<S: RowSource>(mut self, source: &mut S) -> Result<RowsRead, Failure> {
        let mut total = RowsRead::default();
        while self.fill(source).await? {
            loop {
                let taken = self.take(source)?;
                total.add(taken);
                if self.meter.add(taken) {
                    self.meter.tell().await;
                }
                if taken.rows == 0 {
                    break;
                }
                if let Some(piece) = self.cutter.next_piece() {
                    self.hand_on(piece).await;
                    self.pool.room(SEGMENTS_PER_ROW).await;
                    // A source that never makes us wait would keep the other stages of this task from running.
                    yield_now().await;
                }
            }
        }
        self.cut().await;
        send(&self.pieces, Piece::Finish).await;
        self.meter.flush();
        Ok(total)
    }

    /// Takes the rows that are in memory, until a piece is ready or they are due to be told; no row: there is none. Rows are
    /// looked at together; where that finds something, one by one.
    fn take<S: RowSource>(&mut self, source: &mut S) -> Result<RowsRead, Failure> {
        let bytes_most = self.meter.bytes_most();
        // Up to where rows are looked at, and how many from there on one by one.
        let (mut settled, mut taken, mut one_by_one) = (source.mark(), RowsRead::default(), 0);
        let mut unsettled = RowsRead::default();
        loop {
            let row = source.row()?;
            if let Some(row) = &row
                && one_by_one == 0
                && taken.bytes + unsettled.bytes < bytes_most
                && self.cutter.join(row)
            {
                unsettled.rows += 1;
                unsettled.bytes += row.bytes_read();
                continue;
            }
            if let Err(rows) = self.cutter.settle() {
                one_by_one = rows;
                unsettled = RowsRead::default();
                source.rewind(settled);
                continue;
            }
            taken.add(std::mem::take(&mut unsettled));
            let Some(row) = row else { return Ok(taken) };
            let bytes = row.bytes_read();
            self.cutter
                .push(&row)
                .map_err(|error| Failure::Row { error, key: key_of(&row, self.key_column) })?;
            taken.add(RowsRead { rows: 1, bytes });
            one_by_one = one_by_one.saturating_sub(1);
            if self.cutter.is_ready() || taken.bytes >= bytes_most {
                return Ok(taken);
            }
            settled = source.mark();
        }
    }

    /// As [`RowSource::fill`]; meanwhile a batch that must end does not wait for rows.
    async fn fill<S: RowSource>(&mut self, source: &mut S) -> Result<bool, Failure> {
        let mut filling = pin!(source.fill());
        loop {
            tokio::select! {
                biased;
                () = self.cut.notified() => {
                    self.cut().await;
                    self.pool.room(SEGMENTS_PER_ROW).await;
                }
                filled = &mut filling => return Ok(filled?),
            }
        }
    }

    /// Ends the batch here.
    async fn cut(&mut self) {
        self.cutter.cut();
        if let Some(piece) = self.cutter.next_piece() {
            self.hand_on(piece).await;
        }
    }

    /// This piece, and those that are ready behind it.
    async fn hand_on(&mut self, piece: Piece) {
        send(&self.pieces, piece).await;
        while let Some(piece) = self.cutter.next_piece() {
            send(&self.pieces, piece).await;
        }
    }
}

/// Waits while the next stage is behind. If that has ended, so has the attempt, and this waits to be dropped.
pub(crate) async fn send(pieces: &mpsc::Sender<Piece>, piece: Piece) {
    if pieces.send(piece).await.is_err() {
        std::future::pending::<()>().await;
    }
}

pub(crate) fn key_of(row: &Row<'_>, column: Option<usize>) -> Option<String> {
    let cell = row.cell(column?)?;
    Some(String::from_utf8_lossy(cell).into_owned())
}

/// Tells progress and keeps the speed limit, every few rows.
pub(crate) struct Meter<'a> {
    tools: &'a Tools,
    control: &'a Control,
    speed: SpeedLimit,
    waiting: RowsRead,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(tools: &'a Tools, control: &'a Control) -> Self {
        Self { tools, control, speed: SpeedLimit::default(), waiting: RowsRead::default() }
    }

    /// Notes rows; true when it is time to [`Meter::tell`].
    pub(crate) fn add(&mut self, read: RowsRead) -> bool {
        self.waiting.add(read);
        self.waiting.bytes >= METER_BYTES
    }

    /// Bytes that may be read before it is time to tell: any number, unless there is a speed limit.
    fn bytes_most(&self) -> u64 {
        self.control.speed().map_or(u64::MAX, |_| METER_BYTES)
    }

    /// Tells progress; waits while reading is ahead of its speed limit.
    pub(crate) async fn tell(&mut self) {
        let bytes = self.waiting.bytes;
        self.flush();
        if let Some(purse) = &self.control.purse
            && purse.pay(bytes).await == Paid::ByBudget
        {
            return;
        }
        let wait = self.speed.charge(bytes, self.control.speed(), (self.tools.clock)());
        if !wait.is_zero() {
            sleep(wait).await;
        }
    }

    pub(crate) fn flush(&mut self) {
        let RowsRead { rows, bytes } = std::mem::take(&mut self.waiting);
        self.control.progress.read(rows, bytes);
        self.tools.status.metrics.rows_read.inc_by(rows);
        self.tools.status.metrics.bytes_read.inc_by(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::encode::testing::{Cells, buffer};
    use crate::encode::{Collision, EncodeError};
    use crate::metrics::Metrics;
    use crate::segment::Segment;
    use crate::source::{Mark, ReadError};
    use crate::testing::{Rows, load_spec};

    fn rows(names: &[&str], stalls: bool) -> Rows {
        Rows::numbered(names, stalls)
    }

    /// Everything a reader borrows.
    struct Stage {
        tools: Tools,
        control: Control,
        cut: Notify,
    }

    impl Stage {
        fn set() -> Self {
            let status = Status { metrics: Metrics::new(1), ready: AtomicBool::new(false) };
            let tools = Tools {
                datasources: LiveDatasources::default(),
                clients: Clients::new(LiveDatasources::default()),
                status: Arc::new(status),
                dirty: DirtySettings::default(),
                clock: crate::agent::now,
            };
            Self { tools, control: Control::new(None), cut: Notify::new() }
        }

        fn reader(&self, pieces: mpsc::Sender<Piece>) -> Reader<'_> {
            let load = load_spec();
            let form = Rung::Planned.form(&load, [0; 32]);
            let encoder = Encoder::of(&load, &form, false);
            let limits = BatchLimits { rows: 2, ..batch_limits(&load, &form) };
            Reader::new(&self.tools, &self.control, (encoder, limits), Some(0), pieces, &self.cut)
        }
    }

    /// Has the next row ready whenever it is asked, and the batch asked to end as often.
    struct Endless<'a> {
        rows: Rows,
        is_filled: bool,
        cut: &'a Notify,
    }

    impl RowSource for Endless<'_> {
        fn row(&mut self) -> Result<Option<Row<'_>>, ReadError> {
            if std::mem::take(&mut self.is_filled) { self.rows.row() } else { Ok(None) }
        }

        fn mark(&self) -> Mark {
            self.rows.mark()
        }

        fn rewind(&mut self, mark: Mark) {
            self.is_filled = true;
            self.rows.rewind(mark);
        }

        async fn fill(&mut self) -> Result<bool, ReadError> {
            self.is_filled = true;
            self.cut.notify_one();
            Ok(true)
        }

        fn is_utf8(&self) -> bool {
            false
        }
    }

    fn text(piece: Option<Piece>) -> String {
        match piece {
            Some(Piece::Segment(segment)) => String::from_utf8(segment.bytes.clone()).expect("UTF-8"),
            Some(Piece::End(size)) => format!("end of {}", size.rows),
            Some(Piece::Finish) => "finish".into(),
            None => "nothing".into(),
        }
    }

    #[tokio::test]
    async fn every_row_comes_out_once_and_the_finish_comes_last() {
        let stage = Stage::set();
        let (sender, mut pieces) = mpsc::channel(16);
        let read = stage.reader(sender).run(&mut rows(&["a", "b", "c"], false)).await.expect("read");
        let mut heard = Vec::new();
        while let Some(piece) = pieces.recv().await {
            heard.push(text(Some(piece)));
        }
        assert_eq!(heard, ["0\x01a\x021\x01b\x02", "end of 2", "2\x01c\x02", "end of 1", "finish"]);
        assert_eq!((read.rows, read.bytes), (3, 6));
        assert_eq!(stage.control.progress.get().rows_read, 3);
    }

    /// What comes out of rows that a reader takes all at once, batch by batch, or the row at fault.
    async fn read_through(all: &[Cells], limits: BatchLimits) -> Result<Vec<Vec<u8>>, (EncodeError, String)> {
        let stage = Stage::set();
        let (sender, mut pieces) = mpsc::channel(1024);
        let load = load_spec();
        let form = Rung::Planned.form(&load, [0; 32]);
        let encoder = Encoder::new(&form, &load.columns, &load.cell_kinds, false);
        let reader =
            Reader::new(&stage.tools, &stage.control, (encoder, limits), Some(0), sender, &stage.cut);
        let mut source = Rows::new(all.to_vec(), false);
        let receiving = async {
            let (mut batches, mut body) = (Vec::new(), Vec::new());
            while let Some(piece) = pieces.recv().await {
                match piece {
                    Piece::Segment(segment) => body.extend_from_slice(&segment.bytes),
                    Piece::End(_) => batches.push(std::mem::take(&mut body)),
                    Piece::Finish => break,
                }
            }
            batches
        };
        let (read, batches) = tokio::join!(reader.run(&mut source), receiving);
        match read {
            Ok(read) => {
                assert_eq!(read.rows, all.len() as u64);
                Ok(batches)
            }
            Err(Failure::Row { error, key }) => Err((error, key.expect("the key is selected"))),
            Err(other) => panic!("{other:?}"),
        }
    }

    /// The same, each row by itself.
    fn one_by_one(all: &[Cells], limits: BatchLimits) -> Result<Vec<Vec<u8>>, (EncodeError, String)> {
        let load = load_spec();
        let form = Rung::Planned.form(&load, [0; 32]);
        let encoder = Encoder::new(&form, &load.columns, &load.cell_kinds, false);
        let (mut batches, mut body, mut rows) = (Vec::new(), Vec::new(), 0);
        for cells in all {
            let (buffer, mut row) = (buffer(cells), Vec::new());
            encoder.encode(&buffer.row(), &mut row).map_err(|error| {
                (error, String::from_utf8(cells[0].clone().expect("a key")).expect("digits"))
            })?;
            if rows > 0 && (rows >= limits.rows || (body.len() + row.len()) as u64 > limits.bytes) {
                batches.push(std::mem::take(&mut body));
                rows = 0;
            }
            body.extend_from_slice(&row);
            rows += 1;
        }
        if rows > 0 {
            batches.push(body);
        }
        Ok(batches)
    }

    proptest::proptest! {
        #[test]
        fn rows_looked_at_together_come_out_as_rows_looked_at_one_by_one(
            texts in proptest::collection::vec(
                proptest::option::of(proptest::prop_oneof![
                    20 => "[a-z]{0,9}", 3 => "[ab\\\\N]{0,3}", 1 => "[\\x01\\x02]", 3 => "[a-z]{30,90}",
                ]),
                1..60,
            ),
            damaged in proptest::option::weighted(0.2, 0usize..60),
            rows in 1u64..40, bytes in 1u64..900, segment_bytes in 1usize..300,
        ) {
            let mut all: Vec<Cells> = (0..)
                .zip(&texts)
                .map(|(id, text): (u32, _)| vec![Some(id.to_string().into_bytes()), text.clone().map(String::into_bytes)])
                .collect();
            if let Some(row) = damaged.and_then(|row| all.get_mut(row)) {
                row[1] = Some(vec![0xff]);
            }
            let limits = BatchLimits { rows, bytes, segment_bytes };
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let together = runtime.block_on(read_through(&all, limits));
            proptest::prop_assert_eq!(together, one_by_one(&all, limits));
        }
    }

    #[tokio::test]
    async fn a_stalled_source_does_not_hold_up_a_batch_that_must_end() {
        let stage = Stage::set();
        let (sender, mut pieces) = mpsc::channel(16);
        let mut source = rows(&["a"], true);
        let mut reading = pin!(stage.reader(sender).run(&mut source));
        let waiting = async {
            tokio::task::yield_now().await;
            stage.cut.notify_one();
            (text(pieces.recv().await), text(pieces.recv().await))
        };
        tokio::select! {
            biased;
            _ = &mut reading => panic!("the source never ends"),
            heard = waiting => assert_eq!(heard, ("0\x01a\x02".to_owned(), "end of 1".to_owned())),
        }
    }

    #[tokio::test]
    async fn reading_stops_while_its_buffers_are_under_way() {
        let stage = Stage::set();
        let (sender, mut pieces) = mpsc::channel(1024);
        let reader = stage.reader(sender);
        let pool = reader.pool.clone();
        // Every second row ends a batch, and some rows fill a segment of their own.
        let names: Vec<String> = (0..40).map(|row| "x".repeat([10, 100, 3 << 19][row % 3])).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut source = rows(&names, false);
        let mut reading = pin!(reader.run(&mut source));
        let (mut under_way, mut rows_ended, mut waits) = (VecDeque::new(), 0, 0);
        let mut take = |under_way: &mut VecDeque<Segment>, piece| match piece {
            Piece::Segment(segment) => under_way.push_back(segment),
            Piece::End(size) => rows_ended += size.rows,
            Piece::Finish => {}
        };
        let read = loop {
            tokio::select! {
                biased;
                read = &mut reading => break read.expect("read"),
                // The channel has room for all of it, so it is for buffers that the reader waits.
                () = async { for _ in 0..3 { yield_now().await } } => waits += 1,
            }
            while let Ok(piece) = pieces.try_recv() {
                take(&mut under_way, piece);
            }
            let out = pool.out();
            assert!(out <= SEGMENTS && out + SEGMENTS_PER_ROW > SEGMENTS, "it waits with {out} segments");
            drop(under_way.pop_front().expect("segments under way"));
        };
        while let Ok(piece) = pieces.try_recv() {
            take(&mut under_way, piece);
        }
        assert_eq!((read.rows, rows_ended), (40, 40));
        assert!(waits > 10, "{waits}");
    }

    #[tokio::test]
    async fn a_batch_ends_on_request_although_rows_are_always_there() {
        let stage = Stage::set();
        let (sender, mut pieces) = mpsc::channel(16);
        let mut source = Endless { rows: rows(&["a"; 100], false), is_filled: false, cut: &stage.cut };
        let mut reading = pin!(stage.reader(sender).run(&mut source));
        let waiting = async {
            loop {
                if let Some(Piece::End(size)) = pieces.recv().await {
                    return size.rows;
                }
            }
        };
        tokio::select! {
            biased;
            ended = waiting => assert_eq!(ended, 1, "not the limit of two rows"),
            _ = &mut reading => panic!("the source never ends"),
        }
    }

    #[tokio::test]
    async fn a_row_that_fits_no_form_is_named_by_its_key() {
        let stage = Stage::set();
        let (sender, _pieces) = mpsc::channel(16);
        let failure = stage.reader(sender).run(&mut rows(&["a", "b\x01"], false)).await;
        let Err(Failure::Row { error, key }) = failure else {
            panic!("a separator in a value was let through")
        };
        assert_eq!(error, EncodeError::Collision { column: 1, with: Collision::Delimiter });
        assert_eq!(key.as_deref(), Some("1"));
    }

    #[test]
    fn a_range_is_sifted_only_where_the_job_says_so_and_only_for_its_rows() {
        let row = |error| Failure::Row { error, key: None };
        let first = Way { rung: Rung::Planned, isolating: false };
        let collision = row(EncodeError::Collision { column: 0, with: Collision::NullMark });
        let not_text = row(EncodeError::NotUtf8 { column: 0 });
        let mut load = load_spec();
        let json = Way { rung: Rung::Json, isolating: false };
        assert_eq!(first.after(&collision, &load), Some(json), "another form comes first");
        assert_eq!(first.after(&not_text, &load), None);

        load.on_error = OnError::BatchDirtyData;
        assert_eq!(first.after(&collision, &load), Some(json));
        let sifting = Way { isolating: true, ..first };
        assert_eq!(first.after(&not_text, &load), Some(sifting));
        assert_eq!(sifting.after(&collision, &load), Some(Way { isolating: true, ..json }));
        assert_eq!(sifting.after(&not_text, &load), None, "once is enough");
        assert_eq!(first.after(&Failure::NotClosed, &load), None);
        load.named_delimiters = true;
        assert_eq!(first.after(&collision, &load), Some(sifting));
    }

    #[tokio::test(start_paused = true)]
    async fn reading_keeps_to_its_speed_limit() {
        let stage = Stage::set();
        stage.control.set_speed(1 << 20);
        let (sender, mut pieces) = mpsc::channel(1024);
        let big = "x".repeat(64 << 10);
        let mut source = rows(&[big.as_str(); 64], false);
        let started = (stage.tools.clock)();
        let reading = async { stage.reader(sender).run(&mut source).await.expect("read") };
        tokio::join!(reading, async { while pieces.recv().await.is_some() {} });
        let seconds = ((stage.tools.clock)() - started).as_secs_f64();
        assert!((3.7..4.2).contains(&seconds), "4 MiB at 1 MiB/s took {seconds} s");
    }
}
