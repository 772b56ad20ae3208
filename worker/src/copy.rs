//! One task end to end: source, batches, loads, prepared transactions. Sequences only; what a row looks like, where a
//! batch ends, what a failure means is decided in `encode`, `batch`, `load` and `failure`.

use std::pin::pin;
use std::sync::Arc;

use starlift_common::datasource::Datasources;
use starlift_common::job::LoadSpec;
use starlift_common::problem::{Code, Problem};
use starlift_common::retry::FailureClass;
use starlift_common::row::Row;
use starlift_common::task::{LabelsBegun, Outcome, Prepared, PreparedPart};
use starlift_common::wire::Grant;
use starlift_remote::starrocks::client::Client;
use starlift_remote::starrocks::clients::Clients;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::batch::{BatchLimits, Cutter, Piece};
use crate::control::Control;
use crate::encode::ladder::{Form, Rung};
use crate::encode::{EncodeError, Encoder};
use crate::failure::Failure;
use crate::headers::{LoadHeaders, TxnTimes};
use crate::http::Status;
use crate::load::{Ledger, Loader};
use crate::mysql::source::MysqlSource;
use crate::segment::{SEGMENT_BYTES, SegmentPool};
use crate::source::RowSource;
use crate::speed::SpeedLimit;

/// Segments between reading and loading; with those being filled and sent, what a slot holds in memory.
const SEGMENTS_WAITING: usize = 2;
/// The server buffers a whole JSON body.
const JSON_BODY_BYTES_MAX: u64 = 64 << 20;
/// Cell bytes after which progress is told and the speed limit is asked.
const METER_BYTES: u64 = 32 << 10;

/// What all tasks of a worker share.
pub(crate) struct Tools {
    pub datasources: Arc<Datasources>,
    pub clients: Clients,
    pub segments: SegmentPool,
    pub status: Arc<Status>,
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
    let mut ledger = Ledger::new(&grant.load, grant.attempt);
    let ended = tokio::select! {
        biased;
        () = control.stop.cancelled() => Ended::Stopped,
        () = control.give_back.cancelled() => Ended::Leaving,
        result = transfer(grant, tools, control, &client, &mut ledger) => Ended::Result(result),
    };
    let failure = match ended {
        Ended::Result(Ok(prepared)) => {
            return End::Outcome(Outcome::Prepared { prepared, bad_rows: Vec::new() });
        }
        Ended::Result(Err(failure)) => Some(failure),
        Ended::Leaving | Ended::Stopped => None,
    };
    let all_rolled_back = ledger.roll_back(&client).await;
    let begun = ledger.begun();
    match failure {
        Some(failure) => {
            let outcome = failed(grant, &failure, begun, all_rolled_back);
            if matches!(&outcome, Outcome::Failed { problem, .. } if problem.code == Code::LoginFailed) {
                tools.clients.forget(&grant.load);
            }
            End::Outcome(outcome)
        }
        None if control.stop.is_cancelled() => End::Abandoned,
        None => End::Outcome(Outcome::GivenBack { begun, all_rolled_back }),
    }
}

enum Ended {
    Result(Result<Prepared, Failure>),
    Stopped,
    Leaving,
}

fn failed(grant: &Grant, failure: &Failure, begun: LabelsBegun, all_rolled_back: bool) -> Outcome {
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

/// Passes over the range until one form of body holds every row.
async fn transfer(
    grant: &Grant,
    tools: &Tools,
    control: &Control,
    client: &Client,
    ledger: &mut Ledger<'_>,
) -> Result<Prepared, Failure> {
    let mut rung = Rung::Planned;
    let mut retries = 0;
    loop {
        let form = rung.form(&grant.load, std::array::from_fn(|_| fastrand::u8(..)));
        let failure = match pass(grant, tools, control, client, ledger, &form).await {
            Ok((read, parts)) => return prepared(read, parts, retries),
            Err(failure) => failure,
        };
        let next = match &failure {
            Failure::Row { error: EncodeError::Collision { with, .. }, .. } => rung.after(&grant.load, *with),
            _ => None,
        };
        let Some(next) = next else { return Err(failure) };
        info!(rung = ?next, "a value does not fit the form of the bodies, the range is read again for another form");
        ledger.roll_back(client).await;
        control.progress.start_over();
        rung = next;
        retries += 1;
    }
}

fn prepared(read: RowsRead, parts: Vec<PreparedPart>, retries: u64) -> Result<Prepared, Failure> {
    let sent: u64 = parts.iter().map(|part| part.rows_sent).sum();
    if sent != read.rows {
        return Err(Failure::Internal(format!("{} rows were read and {sent} sent", read.rows)));
    }
    Ok(Prepared { parts, rows_read: read.rows, bytes_read: read.bytes, retries, ..Prepared::default() })
}

/// Rows and their cell bytes.
#[derive(Debug, Clone, Copy, Default)]
struct RowsRead {
    rows: u64,
    bytes: u64,
}

/// Reads the range once, and loads it while it is being read.
async fn pass(
    grant: &Grant,
    tools: &Tools,
    control: &Control,
    client: &Client,
    ledger: &mut Ledger<'_>,
    form: &Form,
) -> Result<(RowsRead, Vec<PreparedPart>), Failure> {
    let Grant { read, load, range, .. } = grant;
    let times = TxnTimes::new(load, grant.rows_estimate, grant.bytes_per_second, grant.lease);
    let headers = LoadHeaders::new(load, form, times).map_err(Failure::Setup)?;
    let datasource = tools.datasources.find(&read.datasource, "").map_err(Failure::Setup)?;
    let encoder = Encoder::new(form, &load.columns, &load.cell_kinds);
    let mut source = MysqlSource::open(datasource, read, range).await?;
    let (pieces, received) = mpsc::channel(SEGMENTS_WAITING);
    let cut = Notify::new();
    let reader = Reader {
        cutter: Cutter::new(encoder, batch_limits(load, form), tools.segments.clone()),
        key_column: key_column(grant),
        pieces,
        cut: &cut,
        meter: Meter { tools, control, speed: SpeedLimit::default(), waiting: RowsRead::default() },
    };
    let metrics = &tools.status.metrics;
    let loader = Loader { client, spec: load, headers, times, control, metrics, clock: tools.clock };
    tokio::try_join!(reader.run(&mut source), loader.run(ledger, received, &cut))
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
fn key_column(grant: &Grant) -> Option<usize> {
    let key = grant.read.key.as_ref()?;
    grant.read.names.iter().position(|name| name.eq_ignore_ascii_case(key))
}

/// The reading side: rows in, pieces out.
struct Reader<'a> {
    cutter: Cutter,
    key_column: Option<usize>,
    pieces: mpsc::Sender<Piece>,
    /// The loading side wants the batch to end here.
    cut: &'a Notify,
    meter: Meter<'a>,
}

impl Reader<'_> {
    async fn run<S: RowSource>(mut self, source: &mut S) -> Result<RowsRead, Failure> {
        let mut total = RowsRead::default();
        loop {
            let row = {
                let mut next = pin!(source.next());
                loop {
                    tokio::select! {
                        biased;
                        row = &mut next => break row?,
                        () = self.cut.notified() => {
                            self.cutter.cut();
                            hand_on(&mut self.cutter, &self.pieces).await;
                        }
                    }
                }
            };
            let Some(row) = row else { break };
            let bytes = row.bytes_read();
            self.cutter
                .push(&row)
                .map_err(|error| Failure::Row { error, key: key_of(&row, self.key_column) })?;
            total.rows += 1;
            total.bytes += bytes;
            hand_on(&mut self.cutter, &self.pieces).await;
            self.meter.add(bytes).await;
        }
        self.cutter.cut();
        hand_on(&mut self.cutter, &self.pieces).await;
        send(&self.pieces, Piece::Finish).await;
        self.meter.flush();
        Ok(total)
    }
}

async fn hand_on(cutter: &mut Cutter, pieces: &mpsc::Sender<Piece>) {
    while let Some(piece) = cutter.next_piece() {
        send(pieces, piece).await;
    }
}

/// Waits while the loading side is behind. If that has ended, so has the attempt, and this waits to be dropped.
async fn send(pieces: &mpsc::Sender<Piece>, piece: Piece) {
    if pieces.send(piece).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn key_of(row: &Row<'_>, column: Option<usize>) -> Option<String> {
    let cell = row.cell(column?)?;
    Some(String::from_utf8_lossy(cell).into_owned())
}

/// Tells progress and keeps the speed limit, every few rows.
struct Meter<'a> {
    tools: &'a Tools,
    control: &'a Control,
    speed: SpeedLimit,
    waiting: RowsRead,
}

impl Meter<'_> {
    async fn add(&mut self, bytes: u64) {
        self.waiting.rows += 1;
        self.waiting.bytes += bytes;
        if self.waiting.bytes < METER_BYTES {
            return;
        }
        let now = (self.tools.clock)();
        let wait = self.speed.charge(self.waiting.bytes, self.control.speed(), now);
        self.flush();
        if !wait.is_zero() {
            sleep(wait).await;
        }
    }

    fn flush(&mut self) {
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

    use starlift_common::row::RowBuffer;

    use super::*;
    use crate::encode::Collision;
    use crate::encode::testing::{Cells, buffer, cells};
    use crate::metrics::Metrics;
    use crate::source::ReadError;
    use crate::testing::load_spec;

    /// Hands out given rows, then ends or stalls.
    struct Rows {
        waiting: VecDeque<Cells>,
        current: RowBuffer,
        stalls: bool,
    }

    impl RowSource for Rows {
        async fn next(&mut self) -> Result<Option<Row<'_>>, ReadError> {
            match self.waiting.pop_front() {
                Some(cells) => {
                    self.current = buffer(&cells);
                    Ok(Some(self.current.row()))
                }
                None if self.stalls => std::future::pending().await,
                None => Ok(None),
            }
        }
    }

    fn rows(names: &[&str], stalls: bool) -> Rows {
        let numbered = names.iter().enumerate();
        let waiting = numbered.map(|(id, name)| cells(&[Some(&id.to_string()), Some(name)])).collect();
        Rows { waiting, current: RowBuffer::default(), stalls }
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
                datasources: Arc::default(),
                clients: Clients::new(Arc::default()),
                segments: SegmentPool::new(4),
                status: Arc::new(status),
                clock: crate::agent::now,
            };
            Self { tools, control: Control::new(None), cut: Notify::new() }
        }

        fn reader(&self, pieces: mpsc::Sender<Piece>) -> Reader<'_> {
            let load = load_spec();
            let form = Rung::Planned.form(&load, [0; 32]);
            let encoder = Encoder::new(&form, &load.columns, &load.cell_kinds);
            let limits = BatchLimits { rows: 2, ..batch_limits(&load, &form) };
            let Self { tools, control, cut } = self;
            Reader {
                cutter: Cutter::new(encoder, limits, tools.segments.clone()),
                key_column: Some(0),
                pieces,
                cut,
                meter: Meter { tools, control, speed: SpeedLimit::default(), waiting: RowsRead::default() },
            }
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

    #[tokio::test(start_paused = true)]
    async fn reading_keeps_to_its_speed_limit() {
        let stage = Stage::set();
        stage.control.set_speed(1 << 20);
        let (sender, mut pieces) = mpsc::channel(1024);
        let big = "x".repeat(64 << 10);
        let started = (stage.tools.clock)();
        stage.reader(sender).run(&mut rows(&[big.as_str(); 64], false)).await.expect("read");
        let seconds = ((stage.tools.clock)() - started).as_secs_f64();
        assert!((3.7..4.2).contains(&seconds), "4 MiB at 1 MiB/s took {seconds} s");
        while pieces.recv().await.is_some() {}
    }
}
