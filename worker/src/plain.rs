//! A task on a server without transactions: one Stream Load under the task's own label, which the server commits before
//! it answers. All attempts share that label, so nothing is sent before an earlier attempt's load is known to be gone,
//! and nothing is called failed while it may still be committed. Never closes a label for an attempt that has lost its
//! lease: that one only breaks its request off, which aborts a load that was not sent to its end.

use std::pin::pin;
use std::time::Duration;

use starlift_common::ids::Epoch;
use starlift_common::job::LoadSpec;
use starlift_common::label::Label;
use starlift_common::problem::{Code, Problem};
use starlift_common::task::{LabelsBegun, Outcome, Prepared, PreparedPart};
use starlift_common::wire::Grant;
use starlift_remote::starrocks::client::{CallError, Client, TxnTarget};
use starlift_remote::starrocks::headers::{LoadHeaders, TxnTimes};
use starlift_remote::starrocks::outcome::{Answer, TxnState};
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::batch::{BatchLimits, BatchSize, Piece};
use crate::compress;
use crate::control::Control;
use crate::copy::{End, Reader, RowsRead, SEGMENTS_WAITING, Tools, failed, key_column, open_source};
use crate::encode::ladder::{Form, Rung};
use crate::encode::{EncodeError, Encoder};
use crate::failure::Failure;
use crate::load::{Frame, body, call_failed, lost_reader};
use crate::segment::{SEGMENT_BYTES, Segment};
use crate::source::RowSource;

/// How long a load that was sent to its end may take to be committed after its answer got lost, before it is cancelled.
const COMMIT_PATIENCE: Duration = Duration::from_secs(60);
/// How long a label's fate is asked for in all.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(120);
/// The same when the attempt has failed already; the next one asks again.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(15);
/// Pause between two questions for the same label.
const ASK_PAUSE: Duration = Duration::from_millis(500);
/// The server buffers a whole JSON body, and takes no document above 4 GB.
const JSON_BODY_BYTES_MAX: u64 = 1 << 30;

/// Runs one attempt until its rows are in the target, it has failed, or it is told to stop or to give back.
pub(crate) async fn run(grant: &Grant, tools: &Tools, control: &Control, client: &Client) -> End {
    let mut load = PlainLoad::new(grant, tools, control, client);
    tokio::select! {
        biased;
        // Dropping the request is all that is done: the label may be another attempt's by now.
        () = control.stop.cancelled() => End::Abandoned,
        outcome = load.run() => End::Outcome(outcome),
    }
}

/// What of this task may stand at the server under its label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Nothing,
    /// A load that has no end, or one of an earlier attempt.
    Open,
    /// A load of ours with all its rows.
    Whole,
}

/// What became of a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Loaded,
    Aborted,
    /// The server knows no such label: nothing was begun, or it has forgotten.
    Unknown,
}

/// The rows of an attempt that is done; `None` when their number is not known.
type Loaded = Option<Prepared>;

struct PlainLoad<'a> {
    grant: &'a Grant,
    tools: &'a Tools,
    control: &'a Control,
    client: &'a Client,
    label: Label,
    standing: Standing,
    /// A pass of this attempt has used the label.
    has_begun: bool,
}

impl<'a> PlainLoad<'a> {
    fn new(grant: &'a Grant, tools: &'a Tools, control: &'a Control, client: &'a Client) -> Self {
        let label = Label::plain(&grant.load.label_prefix, grant.attempt.task);
        let standing = if is_redo(grant) { Standing::Open } else { Standing::Nothing };
        let load = Self { grant, tools, control, client, label, standing, has_begun: false };
        load.control.progress.set_begun(load.begun());
        load
    }

    fn begun(&self) -> LabelsBegun {
        LabelsBegun { parts: u32::from(self.standing != Standing::Nothing), trials: 0 }
    }

    fn stand(&mut self, standing: Standing) {
        self.standing = standing;
        self.control.progress.set_begun(self.begun());
    }

    async fn run(&mut self) -> Outcome {
        let control = self.control;
        let ended = tokio::select! {
            biased;
            () = control.give_back.cancelled() => None,
            result = self.transfer() => Some(result),
        };
        // Whatever request there was is broken off by now.
        let failure = match ended {
            Some(Ok(loaded)) => return outcome(loaded),
            Some(Err(
                failure @ (Failure::Unsettled { .. }
                | Failure::ForeignLabel { .. }
                | Failure::Truncated { .. }),
            )) => {
                return failed(self.grant, &failure, self.begun(), self.standing == Standing::Nothing);
            }
            Some(Err(failure)) => Some(failure),
            None => None,
        };
        let was_whole = self.standing == Standing::Whole;
        let begun = self.begun();
        if self.standing != Standing::Nothing
            && let Ok(Ok(Fate::Loaded)) = timeout(CLOSE_TIMEOUT, self.close()).await
            && (was_whole || is_redo(self.grant))
        {
            return outcome(None);
        }
        let all_closed = self.standing == Standing::Nothing;
        match failure {
            Some(failure) => failed(self.grant, &failure, begun, all_closed),
            None => Outcome::GivenBack { begun, all_rolled_back: all_closed },
        }
    }

    /// Passes over the range until one form of body holds every row.
    async fn transfer(&mut self) -> Result<Loaded, Failure> {
        if self.standing != Standing::Nothing && self.close().await? == Fate::Loaded {
            return self.found_loaded();
        }
        let mut rung = Rung::Planned;
        let mut retries = 0;
        loop {
            let form = rung.form(&self.grant.load, std::array::from_fn(|_| fastrand::u8(..)));
            let failure = match self.pass(&form).await {
                Ok(loaded) => return Ok(loaded.map(|prepared| Prepared { retries, ..prepared })),
                Err(failure) => failure,
            };
            let next = match &failure {
                Failure::Row { error: EncodeError::Collision { with, .. }, .. } => {
                    rung.after(&self.grant.load, *with)
                }
                _ => None,
            };
            let Some(next) = next else { return Err(failure) };
            info!(rung = ?next, "a value does not fit the form of the body, the range is read again for another form");
            if self.standing != Standing::Nothing && self.close().await? == Fate::Loaded {
                return self.found_loaded();
            }
            self.control.progress.start_over();
            rung = next;
            retries += 1;
        }
    }

    /// A load that this attempt did not send to its end is in the target: an earlier attempt's, or nobody's of ours.
    fn found_loaded(&self) -> Result<Loaded, Failure> {
        if is_redo(self.grant) {
            info!(label = %self.label, "an earlier attempt's load is in the target");
            return Ok(None);
        }
        Err(Failure::Truncated { label: self.label.clone() })
    }

    /// Reads the range once, and loads it while it is being read.
    async fn pass(&mut self, form: &Form) -> Result<Loaded, Failure> {
        let (grant, tools, control) = (self.grant, self.tools, self.control);
        let load = &grant.load;
        let times = TxnTimes::new(load, grant.rows_estimate, grant.bytes_per_second, grant.lease);
        let headers = LoadHeaders::new(load, form, times).map_err(Failure::Setup)?;
        let mut source = open_source(grant, tools).await?;
        let (pieces, received) = mpsc::channel(SEGMENTS_WAITING);
        let cut = Notify::new();
        let cutting = (Encoder::of(load, form, source.is_utf8()), limits(load, form));
        let reader = Reader::new(tools, control, cutting, key_column(grant), pieces, &cut);
        let (packing, packed) = compress::stage(headers.compression, received);
        let (read, (), load) =
            tokio::try_join!(reader.run(&mut source), packing, self.load(&headers, times.timeout(), packed))?;
        Ok(loaded(read, load))
    }

    /// All pieces as the body of one request; `None` when there was none.
    async fn load(
        &mut self,
        headers: &LoadHeaders,
        patience: Duration,
        mut pieces: mpsc::Receiver<Piece>,
    ) -> Result<Option<Counted>, Failure> {
        let first = match pieces.recv().await {
            Some(Piece::Segment(segment)) => segment,
            Some(Piece::Finish) => return Ok(None),
            Some(Piece::End(_)) | None => return Err(lost_reader()),
        };
        self.control.confirmed().await;
        if !self.has_begun && !is_redo(self.grant) {
            self.must_be_free().await?;
        }
        let (client, label) = (self.client, self.label.clone());
        let LoadSpec { database, table, .. } = &self.grant.load;
        let target = TxnTarget { database, table, label: &label };
        let backend = match client.choose_backend(target, &headers.load).await {
            Ok(backend) => backend,
            Err(error) => return Err(self.call_failed(error).await),
        };
        let is_first = !self.has_begun;
        self.has_begun = true;
        self.stand(Standing::Open);
        let (frames, body) = body();
        let started = (self.tools.clock)();
        let patience = patience + COMMIT_PATIENCE;
        let ended = {
            let mut call = pin!(client.stream_load(target, &backend, &headers.load, body, patience));
            let fed = tokio::select! {
                biased;
                answer = &mut call => Err(answer),
                size = feed(first, &mut pieces, frames) => Ok(size?),
            };
            match fed {
                Ok(size) => {
                    self.stand(Standing::Whole);
                    (call.await, Some(size))
                }
                Err(answer) => (answer, None),
            }
        };
        let (answer, size) = match ended {
            (Ok(answer), Some(size)) => (answer, size),
            (Ok(_), None) => return Err(Failure::Truncated { label }),
            (Err(error), size) => return self.not_loaded(error, size, is_first).await.map(Some),
        };
        let took = (self.tools.clock)() - started;
        let metrics = &self.tools.status.metrics;
        metrics.load_seconds.observe(took.as_secs_f64());
        metrics.rows_sent.inc_by(size.rows);
        metrics.bytes_sent.inc_by(size.bytes);
        self.control.progress.sent(size.rows, size.bytes);
        info!(%label, txn_id = answer.txn_id, rows = size.rows, bytes = size.bytes, seconds = took.as_secs_f64(), "loaded");
        Ok(Some(self.counted(&answer, size)))
    }

    /// Nobody has used the label yet. A server that knows it refuses the load before it has read the body, and that
    /// answer may get lost with the connection; what it says of the label afterwards could then be taken for ours.
    async fn must_be_free(&self) -> Result<(), Failure> {
        match self.client.load_state(&self.grant.load.database, &self.label).await {
            Ok(TxnState::Unknown | TxnState::Aborted) => Ok(()),
            Ok(state) => {
                let found = format!("the server calls it {state:?}");
                Err(Failure::ForeignLabel { label: self.label.clone(), found })
            }
            Err(error) => Err(self.call_failed(error).await),
        }
    }

    /// What a request means that was not answered with success. `size`: of the body, when it was sent to its end.
    async fn not_loaded(
        &mut self,
        error: CallError,
        size: Option<BatchSize>,
        is_first: bool,
    ) -> Result<Counted, Failure> {
        if matches!(error, CallError::Connect { .. } | CallError::NotAllowed { .. }) {
            self.stand(Standing::Nothing);
            return Err(self.call_failed(error).await);
        }
        if error.answer().is_some_and(Answer::is_label_conflict) {
            if is_first && !is_redo(self.grant) {
                self.stand(Standing::Nothing);
                return Err(Failure::ForeignLabel { label: self.label.clone(), found: error.to_string() });
            }
            self.stand(Standing::Open);
            return match self.close().await? {
                Fate::Loaded => self.found_loaded().map(|_| Counted::Unknown),
                Fate::Aborted | Fate::Unknown => Err(self.call_failed(error).await),
            };
        }
        if let (Some(answer), Some(size)) = (error.answer().filter(|answer| answer.is_empty_load()), size) {
            self.stand(Standing::Nothing);
            if !self.grant.load.headers.contains_key("where") && answer.unselected_rows != size.rows {
                let (label, accounted) = (self.label.clone(), answer.unselected_rows);
                return Err(Failure::Counts { label, sent: size.rows, accounted });
            }
            return Ok(Counted::Unselected(size.rows));
        }
        debug!(label = %self.label, %error, "the load was not answered with success, its label is asked for");
        let patience = if size.is_some() { COMMIT_PATIENCE } else { Duration::ZERO };
        let fate = self.settle(patience).await?;
        match (fate, size) {
            (Fate::Loaded, Some(size)) => Ok(self.assumed(size)),
            (Fate::Loaded, None) => self.found_loaded().map(|_| Counted::Unknown),
            (Fate::Unknown, Some(_)) if !is_refusal(&error) => {
                Err(Failure::Unsettled { label: self.label.clone() })
            }
            (Fate::Aborted | Fate::Unknown, _) => {
                self.stand(Standing::Nothing);
                Err(self.call_failed(error).await)
            }
        }
    }

    /// As the server counted.
    fn counted(&self, answer: &Answer, size: BatchSize) -> Counted {
        if answer.loaded_rows + answer.filtered_rows + answer.unselected_rows == 0 {
            return self.assumed(size);
        }
        Counted::Part(self.part(answer, size))
    }

    fn part(&self, answer: &Answer, size: BatchSize) -> PreparedPart {
        PreparedPart {
            label: self.label.to_string(),
            txn_id: answer.txn_id.unwrap_or(-1),
            rows_sent: size.rows,
            rows_loaded: answer.loaded_rows,
            rows_filtered: answer.filtered_rows,
            rows_unselected: answer.unselected_rows,
            bytes_sent: size.bytes,
            loads: 1,
        }
    }

    /// Committed, but without the server's counts: they follow when no row could be left out.
    fn assumed(&self, size: BatchSize) -> Counted {
        if !takes_all_or_nothing(&self.grant.load) {
            return Counted::Unknown;
        }
        let answer = Answer { loaded_rows: size.rows, ..Answer::default() };
        Counted::Part(self.part(&answer, size))
    }

    /// Makes sure that no load runs under the label any more. The requests of this attempt must have ended before.
    async fn close(&mut self) -> Result<Fate, Failure> {
        // Asking for the cancel first costs nothing, and finds the leader: old followers do not know what runs.
        self.cancel().await;
        let fate = self.settle(Duration::ZERO).await?;
        if fate != Fate::Loaded {
            self.stand(Standing::Nothing);
        }
        Ok(fate)
    }

    /// Asks what became of the label until that is decided. What still runs after `patience` is cancelled.
    async fn settle(&self, patience: Duration) -> Result<Fate, Failure> {
        let started = (self.tools.clock)();
        let mut is_unknown = false;
        loop {
            let age = (self.tools.clock)() - started;
            let state = self.client.load_state(&self.grant.load.database, &self.label).await;
            match state {
                Ok(TxnState::Committed | TxnState::Visible) => return Ok(Fate::Loaded),
                Ok(TxnState::Aborted) => return Ok(Fate::Aborted),
                Ok(TxnState::Unknown) if is_unknown => return Ok(Fate::Unknown),
                Ok(TxnState::Unknown) => {
                    // Asked of a follower, perhaps; the cancel goes to the leader, and so will the next question.
                    is_unknown = true;
                    self.cancel().await;
                    continue;
                }
                Ok(TxnState::Prepare | TxnState::Prepared) if age >= patience => self.cancel().await,
                Ok(TxnState::Prepare | TxnState::Prepared) => {}
                Err(error) => debug!(label = %self.label, %error, "the label cannot be asked for"),
            }
            if age >= SETTLE_TIMEOUT {
                warn!(label = %self.label, "what became of the load cannot be told");
                return Err(Failure::Unsettled { label: self.label.clone() });
            }
            sleep(ASK_PAUSE).await;
        }
    }

    async fn cancel(&self) {
        if let Err(error) = self.client.cancel(&self.grant.load.database, &self.label).await {
            debug!(label = %self.label, %error, "nothing was cancelled");
        }
    }

    async fn call_failed(&self, error: CallError) -> Failure {
        call_failed(self.client, self.tools.dirty.masked, "load", &self.label, error).await
    }
}

/// What a load that is done holds.
#[derive(Debug)]
enum Counted {
    Part(PreparedPart),
    /// No row was left to write, so the server aborted it; all were rejected by `where`.
    Unselected(u64),
    Unknown,
}

/// Whether an earlier attempt may have used the label.
fn is_redo(grant: &Grant) -> bool {
    grant.attempt.epoch > Epoch(1)
}

/// Whether the server said itself that it did not load, and was in a position to know.
fn is_refusal(error: &CallError) -> bool {
    error.answer().is_some_and(|answer| !answer.is_commit_in_doubt())
}

/// Whether a committed load holds every row that was sent.
fn takes_all_or_nothing(load: &LoadSpec) -> bool {
    let ratio = load.headers.get("max_filter_ratio").map_or("0", String::as_str);
    ratio.trim().parse() == Ok(0.0) && !load.headers.contains_key("where")
}

/// One batch, which is the body.
fn limits(load: &LoadSpec, form: &Form) -> BatchLimits {
    let bytes = match form {
        Form::Csv { .. } => load.max_part_bytes,
        Form::Json => load.max_part_bytes.min(JSON_BODY_BYTES_MAX),
    };
    BatchLimits { rows: u64::MAX, bytes, segment_bytes: SEGMENT_BYTES }
}

fn loaded(read: RowsRead, load: Option<Counted>) -> Loaded {
    let mut prepared = Prepared { rows_read: read.rows, bytes_read: read.bytes, ..Prepared::default() };
    match load {
        Some(Counted::Unknown) => return None,
        Some(Counted::Part(part)) => prepared.parts.push(part),
        Some(Counted::Unselected(rows)) => prepared.apart.unselected = rows,
        None => {}
    }
    Some(prepared)
}

fn outcome(loaded: Loaded) -> Outcome {
    let counted = loaded.is_some();
    Outcome::Loaded { prepared: loaded.unwrap_or_default(), counted }
}

/// Moves pieces into the body. It ends only when the reading side has said that nothing follows: a load that ends is
/// committed.
async fn feed(
    first: Segment,
    pieces: &mut mpsc::Receiver<Piece>,
    frames: mpsc::Sender<Frame>,
) -> Result<BatchSize, Failure> {
    let mut piece = Piece::Segment(first);
    let mut size = None;
    loop {
        let frame = match (piece, size) {
            (Piece::Segment(segment), None) => Frame::Bytes(segment),
            (Piece::Segment(_), Some(BatchSize { bytes, .. })) => return Err(too_large(bytes)),
            (Piece::End(ended), None) => {
                size = Some(ended);
                piece = pieces.recv().await.ok_or_else(lost_reader)?;
                continue;
            }
            (Piece::Finish, Some(_)) => Frame::End,
            (Piece::Finish, None) | (Piece::End(_), Some(_)) => return Err(lost_reader()),
        };
        if frames.send(frame).await.is_err() {
            // The server stopped reading; its answer tells why, and this waits to be dropped.
            return std::future::pending().await;
        }
        if let Some(size) = size {
            return Ok(size);
        }
        piece = pieces.recv().await.ok_or_else(lost_reader)?;
    }
}

fn too_large(bytes: u64) -> Failure {
    let message = format!(
        "the rows of the task make more than one body of {} MiB, and a load without transactions has only one",
        bytes >> 20
    );
    let hint = "make smaller tasks: name a splitPk, or raise splitFactor; or use format csv";
    Failure::Setup(Problem::new(Code::InvalidSettings, message).hint(hint))
}

#[cfg(test)]
mod tests;
