//! The transactions of one attempt: begin, one load per batch, prepare, and rollback of all of them when the attempt
//! fails. Never commits, never repeats a call whose outcome is in doubt, never uses a label twice.

use std::io;
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use reqwest::Body;
use reqwest::header::HeaderMap;
use starlift_common::job::LoadSpec;
use starlift_common::label::Label;
use starlift_common::task::{AttemptKey, LabelsBegun, PreparedPart, RowsApart};
use starlift_remote::starrocks::client::{Begun, CallError, Client, TxnTarget};
use starlift_remote::starrocks::headers::{LoadHeaders, TxnTimes};
use starlift_remote::starrocks::outcome::{Answer, TxnState};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tracing::{debug, info, warn};

use crate::batch::{BatchSize, Piece};
use crate::compress;
use crate::control::Control;
use crate::failure::Failure;
use crate::metrics::Metrics;
use crate::segment::Segment;

/// How long an attempt that has failed tries to close its transactions; the coordinator sweeps what is left.
const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(15);
/// Pause before a rollback is repeated: the server may still be busy with a load that broke off.
const ROLLBACK_PAUSE: Duration = Duration::from_millis(500);

/// The labels of an attempt. Outlives the work, which may be dropped at any await.
pub(crate) struct Ledger<'a> {
    spec: &'a LoadSpec,
    attempt: AttemptKey,
    /// Labels before these may exist at the server.
    begun: LabelsBegun,
    /// Not known to be closed.
    open: Vec<Label>,
}

impl<'a> Ledger<'a> {
    pub(crate) fn new(spec: &'a LoadSpec, attempt: AttemptKey) -> Self {
        Self { spec, attempt, begun: LabelsBegun::default(), open: Vec::new() }
    }

    pub(crate) fn begun(&self) -> LabelsBegun {
        self.begun
    }

    /// A label for the transaction that is about to begin.
    fn next_label(&mut self, purpose: Purpose) -> Label {
        let Self { spec, attempt, .. } = self;
        let prefix = &spec.label_prefix;
        let label = match purpose {
            Purpose::Rows => Label::part(prefix, *attempt, self.begun.parts),
            Purpose::Trial => Label::trial(prefix, *attempt, self.begun.trials),
        };
        *self.begun_of(purpose) += 1;
        self.open.push(label.clone());
        label
    }

    /// The server said that it did not begin the last one: nothing of ours stands under that label.
    fn forget_last(&mut self, purpose: Purpose) {
        if self.open.pop().is_some() {
            *self.begun_of(purpose) -= 1;
        }
    }

    fn begun_of(&mut self, purpose: Purpose) -> &mut u32 {
        match purpose {
            Purpose::Rows => &mut self.begun.parts,
            Purpose::Trial => &mut self.begun.trials,
        }
    }

    /// Whether the server has confirmed, within a bounded time, that this one transaction is closed.
    pub(crate) async fn close(&mut self, client: &Client, label: &Label) -> bool {
        let closing = async {
            loop {
                match self.ask_rollback(client, label).await {
                    Some(TxnState::Aborted) => return true,
                    Some(TxnState::Unknown) => return false,
                    _ => sleep(ROLLBACK_PAUSE).await,
                }
            }
        };
        let is_closed = timeout(ROLLBACK_TIMEOUT, closing).await.unwrap_or(false);
        if is_closed {
            self.open.retain(|open| open != label);
        }
        is_closed
    }

    /// Whether the server has confirmed, within a bounded time, that every transaction of the attempt is closed.
    /// The attempt's requests must have ended before.
    pub(crate) async fn roll_back(&mut self, client: &Client) -> bool {
        let closing = async {
            while self.roll_back_once(client).await {
                sleep(ROLLBACK_PAUSE).await;
            }
        };
        // A label leaves the list only when its end was confirmed, so giving up in the middle loses nothing.
        let _gave_up = timeout(ROLLBACK_TIMEOUT, closing).await;
        if !self.open.is_empty() {
            warn!(
                labels = self.open.len(),
                "transactions could not be rolled back, the coordinator goes on trying"
            );
        }
        self.open.is_empty()
    }

    /// Asks once for every open label. True while asking again may help: what the server does not know today it will
    /// not know in a moment either.
    async fn roll_back_once(&mut self, client: &Client) -> bool {
        let mut index = 0;
        let mut again = false;
        while let Some(label) = self.open.get(index) {
            let state = self.ask_rollback(client, label).await;
            if state == Some(TxnState::Aborted) {
                self.open.remove(index);
            } else {
                index += 1;
                again |= state != Some(TxnState::Unknown);
            }
        }
        again
    }

    /// The label's state after a rollback was asked for; `None`: nobody says.
    async fn ask_rollback(&self, client: &Client, label: &Label) -> Option<TxnState> {
        let LoadSpec { database, table, .. } = self.spec;
        match client.rollback(database, table, label).await {
            Ok(_) => Some(TxnState::Aborted),
            Err(error) => {
                debug!(%label, %error, "rollback was not confirmed");
                client.load_state(database, label).await.ok()
            }
        }
    }
}

/// What a transaction is begun for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Rows that are to be committed.
    Rows,
    /// Trying rows out; always rolled back.
    Trial,
}

/// What an attempt's transactions have come to.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub parts: Vec<PreparedPart>,
    pub apart: RowsApart,
}

/// A transaction that takes loads.
pub(crate) struct OpenPart {
    pub label: Label,
    pub begun: Begun,
    size: BatchSize,
    loads: u32,
    /// Ends at half of the transaction's timeout.
    half_life: Pin<Box<Sleep>>,
}

impl OpenPart {
    /// Whether it is too old to go on with.
    pub(crate) fn is_old(&self, now: Instant) -> bool {
        now >= self.half_life.deadline()
    }

    /// Whether it must be prepared now, and the attempt goes on in another. The timer itself knows that it has run out
    /// only once somebody has waited for it, which nobody does while rows come without a pause.
    pub(crate) fn is_full(&self, bytes_max: u64, now: Instant) -> bool {
        self.size.bytes >= bytes_max || self.is_old(now)
    }
}

/// What a loader is made of.
pub(crate) struct Loader<'a> {
    pub client: &'a Client,
    pub spec: &'a LoadSpec,
    pub headers: LoadHeaders,
    pub times: TxnTimes,
    pub control: &'a Control,
    pub metrics: &'a Metrics,
    pub clock: fn() -> Instant,
    /// Messages must not quote rows.
    pub masked: bool,
}

/// What comes next while no load runs.
enum Next {
    Piece(Piece),
    HalfLife,
    Lost,
}

impl Loader<'_> {
    /// Loads all pieces up to [`Piece::Finish`] and returns what is prepared; nothing when there was no row.
    /// `cut` asks the reading side to end the batch, because the transaction is getting old.
    pub(crate) async fn run(
        &self,
        ledger: &mut Ledger<'_>,
        mut pieces: mpsc::Receiver<Piece>,
        cut: &Notify,
    ) -> Result<Loaded, Failure> {
        let mut loaded = Loaded::default();
        let mut open: Option<OpenPart> = None;
        loop {
            match next(&mut open, &mut pieces).await {
                Next::Piece(Piece::Segment(segment)) => {
                    let mut part = match open.take() {
                        Some(part) => part,
                        None => self.begin(ledger, Purpose::Rows).await?,
                    };
                    self.load(&mut part, segment, &mut pieces, cut).await?;
                    if part.is_full(self.spec.max_part_bytes, (self.clock)()) {
                        self.prepare(part, ledger, &mut loaded).await?;
                    } else {
                        open = Some(part);
                    }
                }
                Next::HalfLife => {
                    if let Some(part) = open.take() {
                        self.prepare(part, ledger, &mut loaded).await?;
                    }
                }
                Next::Piece(Piece::End(_)) => {
                    return Err(Failure::Internal("a batch ended that had not begun".into()));
                }
                Next::Piece(Piece::Finish) => {
                    if let Some(part) = open.take() {
                        self.prepare(part, ledger, &mut loaded).await?;
                    }
                    return Ok(loaded);
                }
                Next::Lost => return Err(lost_reader()),
            }
        }
    }

    pub(crate) async fn begin(&self, ledger: &mut Ledger<'_>, purpose: Purpose) -> Result<OpenPart, Failure> {
        self.control.confirmed().await;
        let label = ledger.next_label(purpose);
        self.control.progress.set_begun(ledger.begun());
        match self.client.begin(self.target(&label), &self.headers.begin).await {
            Ok(begun) => {
                debug!(%label, txn_id = begun.txn_id, "transaction begun");
                let half_life = Box::pin(sleep(self.times.half_life()));
                Ok(OpenPart { label, begun, size: BatchSize::default(), loads: 0, half_life })
            }
            Err(error) => {
                let is_foreign = error.answer().is_some_and(|answer| answer.is_label_conflict());
                if is_foreign || !may_have_begun(&error) {
                    ledger.forget_last(purpose);
                    self.control.progress.set_begun(ledger.begun());
                }
                if is_foreign {
                    return Err(Failure::ForeignLabel { label, found: error.to_string() });
                }
                Err(self.call_failed("begin", &label, error).await)
            }
        }
    }

    /// One batch as the body of one request, sent while it is still being read.
    async fn load(
        &self,
        part: &mut OpenPart,
        first: Segment,
        pieces: &mut mpsc::Receiver<Piece>,
        cut: &Notify,
    ) -> Result<(), Failure> {
        let (frames, body) = body();
        let started = (self.clock)();
        let size = {
            let OpenPart { label, begun, half_life, .. } = &mut *part;
            let patience = self.times.timeout();
            let (client, headers) = (self.client, &self.headers.load);
            let mut call = pin!(client.load(self.target(label), &begun.backend, headers, body, patience));
            let size = tokio::select! {
                biased;
                answer = &mut call => {
                    return Err(match answer {
                        Ok(_) => Failure::EarlyAnswer { label: label.clone() },
                        Err(error) => self.call_failed("load", label, error).await,
                    });
                }
                size = feed(first, pieces, frames, half_life.as_mut(), cut) => size?,
            };
            if let Err(error) = call.await {
                return Err(self.call_failed("load", label, error).await);
            }
            size
        };
        self.loaded(part, size, started);
        Ok(())
    }

    /// One batch that is in memory already.
    pub(crate) async fn load_whole(
        &self,
        part: &mut OpenPart,
        body: Bytes,
        size: BatchSize,
    ) -> Result<(), Failure> {
        let body = self.packed(body).await?;
        let started = (self.clock)();
        if let Err(error) = self.send(part, &self.headers.load, body).await {
            return Err(self.call_failed("load", &part.label, error).await);
        }
        self.loaded(part, size, started);
        Ok(())
    }

    /// The body as the headers of a load announce it.
    pub(crate) async fn packed(&self, body: Bytes) -> Result<Bytes, Failure> {
        compress::whole(self.headers.compression, body).await
    }

    /// The load call alone.
    pub(crate) async fn send(
        &self,
        part: &OpenPart,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Answer, CallError> {
        let target = self.target(&part.label);
        self.client.load(target, &part.begun.backend, headers, body.into(), self.times.timeout()).await
    }

    fn loaded(&self, part: &mut OpenPart, size: BatchSize, started: Instant) {
        let took = (self.clock)() - started;
        self.metrics.load_seconds.observe(took.as_secs_f64());
        self.metrics.rows_sent.inc_by(size.rows);
        self.metrics.bytes_sent.inc_by(size.bytes);
        self.control.progress.sent(size.rows, size.bytes);
        let label = &part.label;
        debug!(%label, rows = size.rows, bytes = size.bytes, seconds = took.as_secs_f64(), "batch loaded");
        part.size.rows += size.rows;
        part.size.bytes += size.bytes;
        part.loads += 1;
    }

    /// The prepare call alone.
    pub(crate) async fn ask_prepare(&self, part: &OpenPart) -> Result<Answer, CallError> {
        let OpenPart { label, begun, .. } = part;
        let patience = self.times.timeout();
        self.client.prepare(self.target(label), &begun.backend, &self.headers.prepare, patience).await
    }

    /// Makes a part of it. Where StarRocks finds nothing to write it refuses and aborts: by its counts the rows are
    /// filtered and unselected all the same, and the transaction is no part of the attempt.
    pub(crate) async fn prepare(
        &self,
        part: OpenPart,
        ledger: &mut Ledger<'_>,
        loaded: &mut Loaded,
    ) -> Result<(), Failure> {
        let answer = self.ask_prepare(&part).await;
        let OpenPart { label, begun, size, loads, .. } = part;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) if error.answer().is_some_and(Answer::wrote_nothing) => {
                let answer =
                    error.answer().filter(|answer| answer.total() == size.rows && answer.loaded_rows == 0);
                let Some(answer) = answer else {
                    return Err(Failure::NothingWritten { label, sent: size.rows });
                };
                if !ledger.close(self.client, &label).await {
                    return Err(Failure::NotClosed);
                }
                info!(%label, rows = size.rows, "no row of a transaction was left to be written");
                loaded.apart.filtered += answer.filtered_rows;
                loaded.apart.unselected += answer.unselected_rows;
                return Ok(());
            }
            // After a lost answer the state may well be PREPARED, but nobody knows how many rows it holds.
            Err(error) => return Err(self.call_failed("prepare", &label, error).await),
        };
        let accounted = answer.total();
        if accounted != size.rows {
            return Err(Failure::Counts { label, sent: size.rows, accounted });
        }
        info!(%label, txn_id = begun.txn_id, rows = size.rows, bytes = size.bytes, loads, "transaction prepared");
        loaded.parts.push(PreparedPart {
            label: label.to_string(),
            txn_id: begun.txn_id,
            rows_sent: size.rows,
            rows_loaded: answer.loaded_rows,
            rows_filtered: answer.filtered_rows,
            rows_unselected: answer.unselected_rows,
            bytes_sent: size.bytes,
            loads,
        });
        Ok(())
    }

    fn target<'t>(&'t self, label: &'t Label) -> TxnTarget<'t> {
        TxnTarget { database: &self.spec.database, table: &self.spec.table, label }
    }

    pub(crate) async fn call_failed(&self, call: &'static str, label: &Label, error: CallError) -> Failure {
        call_failed(self.client, self.masked, call, label, error).await
    }

    /// What the server wrote about the rows it refused; empty when that cannot be had.
    pub(crate) async fn error_log(&self, answer: &Answer) -> String {
        error_log(self.client, answer).await
    }
}

/// A call that ends the attempt, with what the server wrote about refused rows, unless messages must not quote rows.
pub(crate) async fn call_failed(
    client: &Client,
    masked: bool,
    call: &'static str,
    label: &Label,
    error: CallError,
) -> Failure {
    let log = match error.answer() {
        Some(answer) if !masked => error_log(client, answer).await,
        _ => String::new(),
    };
    Failure::Call { call, label: label.clone(), error: Box::new(error), log }
}

async fn error_log(client: &Client, answer: &Answer) -> String {
    match &answer.error_url {
        Some(url) => client.error_log(url).await,
        None => String::new(),
    }
}

/// Never ends without a part, else when the part is old.
pub(crate) async fn half_life(open: &mut Option<OpenPart>) {
    match open {
        Some(part) => part.half_life.as_mut().await,
        None => std::future::pending().await,
    }
}

async fn next(open: &mut Option<OpenPart>, pieces: &mut mpsc::Receiver<Piece>) -> Next {
    let piece = tokio::select! {
        biased;
        piece = pieces.recv() => piece,
        () = half_life(open) => return Next::HalfLife,
    };
    piece.map_or(Next::Lost, Next::Piece)
}

/// Whether a failed begin may have left a transaction behind: it was not answered, or the node that answered may not
/// know what the leader did.
fn may_have_begun(error: &CallError) -> bool {
    use starlift_common::retry::FailureClass::Transient;
    let may_know_little = |answer: &Answer| error.class() == Transient && !answer.says_no_backend();
    error.is_unknown() || error.answer().is_some_and(may_know_little)
}

/// A piece of a request's body on its way to the HTTP client.
pub(crate) enum Frame {
    Bytes(Segment),
    End,
}

/// A body that is written while it is sent. It ends well only with [`Frame::End`]: a writer that goes away breaks the
/// request off, so that half a batch is never taken for a whole one.
pub(crate) fn body() -> (mpsc::Sender<Frame>, Body) {
    let (frames, received) = mpsc::channel(1);
    let stream = stream::unfold(Some(received), async |received: Option<mpsc::Receiver<Frame>>| {
        let mut received = received?;
        match received.recv().await {
            Some(Frame::Bytes(segment)) => Some((Ok(Bytes::from_owner(segment)), Some(received))),
            Some(Frame::End) => None,
            None => Some((Err(io::Error::other("the batch was given up")), None)),
        }
    });
    (frames, Body::wrap_stream(stream))
}

/// Moves pieces into the body up to the batch's end. When the server stops reading early, its answer tells why, and
/// this waits to be dropped.
async fn feed(
    first: Segment,
    pieces: &mut mpsc::Receiver<Piece>,
    frames: mpsc::Sender<Frame>,
    mut half_life: Pin<&mut Sleep>,
    cut: &Notify,
) -> Result<BatchSize, Failure> {
    let mut piece = Piece::Segment(first);
    let mut has_asked = false;
    loop {
        let (frame, size) = match piece {
            Piece::Segment(segment) => (Frame::Bytes(segment), None),
            Piece::End(size) => (Frame::End, Some(size)),
            Piece::Finish => return Err(lost_reader()),
        };
        if frames.send(frame).await.is_err() {
            return std::future::pending().await;
        }
        if let Some(size) = size {
            return Ok(size);
        }
        piece = loop {
            tokio::select! {
                biased;
                piece = pieces.recv() => break piece.ok_or_else(lost_reader)?,
                () = half_life.as_mut(), if !has_asked => {
                    has_asked = true;
                    cut.notify_one();
                }
            }
        };
    }
}

pub(crate) fn lost_reader() -> Failure {
    Failure::Internal("the reading side ended without saying that all rows were read".into())
}

#[cfg(test)]
mod tests {
    use starlift_common::ids::{Epoch, JobId, TaskId, TaskKey};

    use super::*;
    use crate::encode::ladder::Rung;
    use crate::segment::SegmentPool;
    use crate::testing::{FakeStarrocks, load_spec};

    /// An attempt on a fake server, with everything a loader borrows.
    struct Stage {
        server: FakeStarrocks,
        client: Client,
        spec: LoadSpec,
        control: Control,
        metrics: Metrics,
        cut: Notify,
        clock: fn() -> Instant,
    }

    impl Stage {
        async fn set() -> Self {
            let server = FakeStarrocks::start().await;
            let client = server.client();
            let control = Control::new(None);
            control.confirm();
            let (metrics, cut, clock) =
                (Metrics::new(1), Notify::new(), crate::agent::now as fn() -> Instant);
            Self { server, client, spec: load_spec(), control, metrics, cut, clock }
        }

        fn ledger(&self) -> Ledger<'_> {
            let task = TaskKey { job: JobId::from_parts(1, 1), task: TaskId(0) };
            Ledger::new(&self.spec, AttemptKey { task, epoch: Epoch(1) })
        }

        async fn run(
            &self,
            ledger: &mut Ledger<'_>,
            pieces: mpsc::Receiver<Piece>,
        ) -> Result<Loaded, Failure> {
            let times = TxnTimes::new(&self.spec, 0, None, Duration::from_secs(15));
            let form = Rung::Planned.form(&self.spec, [0; 32]);
            let loader = Loader {
                client: &self.client,
                spec: &self.spec,
                headers: LoadHeaders::new(&self.spec, &form, times).expect("plain headers"),
                times,
                control: &self.control,
                metrics: &self.metrics,
                clock: self.clock,
                masked: false,
            };
            loader.run(ledger, pieces, &self.cut).await
        }
    }

    fn rows(count: usize) -> Piece {
        let mut segment = SegmentPool::new(0).take();
        segment.bytes.resize(count, 2);
        Piece::Segment(segment)
    }

    fn end(rows: u64) -> Piece {
        Piece::End(BatchSize { rows, bytes: rows })
    }

    fn script(pieces: impl IntoIterator<Item = Piece>) -> mpsc::Receiver<Piece> {
        let (sender, receiver) = mpsc::channel(16);
        for piece in pieces {
            sender.try_send(piece).expect("room for a short script");
        }
        receiver
    }

    #[tokio::test]
    async fn batches_go_into_one_transaction_that_is_prepared_at_the_end() {
        let stage = Stage::set().await;
        let mut ledger = stage.ledger();
        let pieces = script([rows(2), rows(1), end(3), rows(1), end(1), Piece::Finish]);
        let parts = stage.run(&mut ledger, pieces).await.expect("prepared").parts;
        assert_eq!(stage.server.calls(), ["begin 0", "load 0", "load 0", "prepare 0"]);
        assert_eq!((parts.len(), parts[0].rows_sent, parts[0].rows_loaded, parts[0].loads), (1, 4, 4, 2));
        assert_eq!((parts[0].txn_id, ledger.begun().parts), (7, 1));
        assert_eq!(stage.control.progress.get().rows_sent, 4);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn loads_of_a_transaction_use_their_connections_again_and_ask_no_frontend() {
        let stage = Stage::set().await;
        let (sender, pieces) = mpsc::channel(1);
        let reading = async {
            for _ in 0..50 {
                for piece in [rows(1 << 10), rows(1 << 10), end(2 << 10)] {
                    sender.send(piece).await.expect("it listens");
                }
            }
            sender.send(Piece::Finish).await.expect("it listens");
        };
        let mut ledger = stage.ledger();
        let (loaded, ()) = tokio::join!(stage.run(&mut ledger, pieces), reading);
        assert_eq!(loaded.expect("prepared").parts[0].loads, 50);
        assert_eq!(
            stage.server.calls().len(),
            1 + 50 + 1,
            "begin, loads, prepare, and no question in between"
        );
        // The HTTP client opens a second one now and then, when the first is not yet back in its pool.
        let connections = stage.server.connections();
        assert!(connections <= 10, "{connections} connections for 52 calls");
    }

    #[tokio::test]
    async fn without_rows_nothing_begins() {
        let stage = Stage::set().await;
        let parts =
            stage.run(&mut stage.ledger(), script([Piece::Finish])).await.expect("nothing to do").parts;
        assert_eq!((parts, stage.server.calls()), (vec![], vec![]));
    }

    #[tokio::test]
    async fn a_transaction_without_a_row_to_write_is_no_part_and_its_rows_are_accounted_for() {
        let mut stage = Stage::set().await;
        stage.spec.max_part_bytes = 2;
        let skipped = || {
            let mut segment = SegmentPool::new(0).take();
            segment.bytes.extend_from_slice(b"skip\x02skip\x02");
            [Piece::Segment(segment), end(2)]
        };
        let pieces = || script(skipped().into_iter().chain([rows(1), end(1), Piece::Finish]));
        let mut ledger = stage.ledger();
        let Loaded { parts, apart } = stage.run(&mut ledger, pieces()).await.expect("prepared");
        assert_eq!(apart, RowsApart { filtered: 0, unselected: 2 });
        assert_eq!(parts.iter().map(|part| part.rows_sent).collect::<Vec<_>>(), [1]);
        assert!(parts[0].label.ends_with("_1"), "{}", parts[0].label);
        // Without counts nobody can say what became of them.
        stage.server.keep_counts();
        let failure = stage.run(&mut stage.ledger(), pieces()).await;
        assert!(matches!(failure, Err(Failure::NothingWritten { sent: 2, .. })), "{failure:?}");
    }

    #[tokio::test]
    async fn a_refusal_quotes_the_servers_log_unless_rows_must_not_be_shown() {
        let stage = Stage::set().await;
        let mut bad = SegmentPool::new(0).take();
        bad.bytes.extend_from_slice(b"bad\x02");
        let pieces = script([Piece::Segment(bad), end(1), Piece::Finish]);
        let failure = stage.run(&mut stage.ledger(), pieces).await.expect_err("refused");
        let Failure::Call { call: "prepare", label, error, log } = failure else { panic!("{failure:?}") };
        assert!(log.contains("Row: bad"), "{log}");
        let masked = call_failed(&stage.client, true, "prepare", &label, *error).await;
        assert!(matches!(&masked, Failure::Call { log, .. } if log.is_empty()), "{masked:?}");
    }

    #[tokio::test]
    async fn a_full_part_is_prepared_and_the_next_one_has_another_label() {
        let mut stage = Stage::set().await;
        stage.spec.max_part_bytes = 2;
        let pieces = script([rows(2), end(2), rows(1), end(1), Piece::Finish]);
        let parts = stage.run(&mut stage.ledger(), pieces).await.expect("prepared").parts;
        assert_eq!(
            stage.server.calls(),
            ["begin 0", "load 0", "prepare 0", "begin 1", "load 1", "prepare 1"]
        );
        assert_eq!(parts.iter().map(|part| part.rows_sent).collect::<Vec<_>>(), [2, 1]);
    }

    #[tokio::test]
    async fn nothing_begins_before_the_lease_is_confirmed() {
        let mut stage = Stage::set().await;
        stage.control = Control::new(None);
        let mut ledger = stage.ledger();
        let mut run = pin!(stage.run(&mut ledger, script([rows(1), end(1), Piece::Finish])));
        assert!(timeout(Duration::from_millis(50), &mut run).await.is_err());
        assert!(stage.server.calls().is_empty());
        stage.control.confirm();
        assert!(run.await.is_ok());
    }

    #[tokio::test]
    async fn rows_that_the_server_does_not_account_for_fail_the_attempt() {
        let stage = Stage::set().await;
        let mut ledger = stage.ledger();
        let failure = stage.run(&mut ledger, script([rows(2), end(3), Piece::Finish])).await;
        assert!(matches!(failure, Err(Failure::Counts { sent: 3, accounted: 2, .. })), "{failure:?}");
        assert!(ledger.roll_back(&stage.client).await);
    }

    #[tokio::test]
    async fn a_label_that_exists_is_not_ours_and_is_left_alone() {
        let stage = Stage::set().await;
        stage.server.answer_next(
            "begin",
            200,
            r#"{"Status":"Fail","Message":"Label [x] has already been used."}"#,
        );
        let mut ledger = stage.ledger();
        let failure = stage.run(&mut ledger, script([rows(1), end(1), Piece::Finish])).await;
        assert!(matches!(failure, Err(Failure::ForeignLabel { .. })), "{failure:?}");
        assert!(ledger.roll_back(&stage.client).await);
        assert_eq!((stage.server.calls(), ledger.begun().parts), (vec!["begin 0".to_owned()], 0));
    }

    #[tokio::test]
    async fn a_lost_prepare_answer_is_rolled_back_and_tried_again_by_another_attempt() {
        let stage = Stage::set().await;
        stage.server.answer_next("prepare", 502, "<html>");
        let mut ledger = stage.ledger();
        let failure =
            stage.run(&mut ledger, script([rows(1), end(1), Piece::Finish])).await.expect_err("in doubt");
        assert_eq!(failure.class(), starlift_common::retry::FailureClass::Unknown);
        assert!(ledger.roll_back(&stage.client).await);
        assert_eq!(stage.server.calls().last().map(String::as_str), Some("rollback 0"));
        assert_eq!(ledger.begun().parts, 1);
    }

    #[tokio::test]
    async fn a_rollback_without_an_answer_is_believed_only_when_the_state_says_so() {
        let stage = Stage::set().await;
        stage.server.answer_next("load", 200, r#"{"Status":"INTERNAL_ERROR","Message":"rpc failed"}"#);
        let mut ledger = stage.ledger();
        assert!(stage.run(&mut ledger, script([rows(1), end(1), Piece::Finish])).await.is_err());
        // Done, but not said: the label's state tells.
        stage.server.answer_next("rollback", 502, "<html>");
        assert!(ledger.roll_back(&stage.client).await);
        assert_eq!(stage.server.calls(), ["begin 0", "load 0", "rollback 0"]);
    }

    #[tokio::test]
    async fn a_label_that_the_server_does_not_know_is_left_to_the_coordinator_at_once() {
        let stage = Stage::set().await;
        stage.server.answer_next("begin", 200, r#"{"Status":"THRIFT_RPC_ERROR","Message":"timed out"}"#);
        let mut ledger = stage.ledger();
        assert!(stage.run(&mut ledger, script([rows(1), end(1), Piece::Finish])).await.is_err());
        stage.server.answer_next("rollback", 200, r#"{"Status":"FAILED","Message":"No transaction found"}"#);
        stage.server.forget_labels_after("rollback");
        assert!(!ledger.roll_back(&stage.client).await);
        assert_eq!((stage.server.calls().len(), ledger.begun().parts), (2, 1));
    }

    #[tokio::test]
    async fn an_old_part_is_prepared_although_rows_come_without_a_pause() {
        let mut stage = Stage::set().await;
        stage.clock = || crate::agent::now() + Duration::from_secs(3600);
        let pieces = script([rows(1), end(1), rows(1), end(1), Piece::Finish]);
        let loaded = stage.run(&mut stage.ledger(), pieces).await.expect("prepared");
        assert_eq!(loaded.parts.len(), 2);
        assert_eq!(
            stage.server.calls(),
            ["begin 0", "load 0", "prepare 0", "begin 1", "load 1", "prepare 1"]
        );
    }

    #[tokio::test]
    async fn an_ageing_part_asks_for_the_end_of_the_batch_and_is_prepared() {
        let mut stage = Stage::set().await;
        stage.spec.timeout_s = Some(1);
        let (sender, receiver) = mpsc::channel(16);
        let reading = async {
            sender.send(rows(1)).await.expect("it listens");
            stage.cut.notified().await;
            sender.send(end(1)).await.expect("it listens");
            sender.send(rows(1)).await.expect("it listens");
            sender.send(end(1)).await.expect("it listens");
            sender.send(Piece::Finish).await.expect("it listens");
        };
        let mut ledger = stage.ledger();
        let (parts, ()) = tokio::join!(stage.run(&mut ledger, receiver), reading);
        assert_eq!(parts.expect("prepared").parts.len(), 2);
    }

    #[tokio::test]
    async fn a_reader_that_goes_away_never_makes_a_part() {
        let stage = Stage::set().await;
        let mut ledger = stage.ledger();
        assert!(stage.run(&mut ledger, script([rows(1), end(1)])).await.is_err());
        assert!(stage.run(&mut ledger, script([rows(1)])).await.is_err());
        assert!(!stage.server.calls().iter().any(|call| call.starts_with("prepare")));
        assert!(ledger.roll_back(&stage.client).await);
    }
}
