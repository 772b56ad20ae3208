//! Trial transactions: rows are begun, loaded and prepared under a label of their own, only to hear what the server says
//! of them, and are always rolled back. And the isolating pass, which reads a range with bad rows in it and loads all but
//! those. Which rows to try is decided in `isolate.rs`.
//!
//! A pass that was refused for its rows is followed by an isolating one where the job says `batchDirtyData`. Each batch
//! stays in memory and is tried before its bytes go into the attempt's own transaction, so that one never holds a bad
//! row. Each trial is confirmed closed before the next begins: a slot has at most two transactions that take loads.
//!
//! `max_filter_ratio` and bad rows: in the ordinary pass the job's ratio holds, and what the server filters within it is
//! `rows_filtered`. Once a transaction is refused because of its rows, the isolating pass allows no filtered row in the
//! attempt's own transactions, and all bad rows of the range are dirty records; none is then `rows_filtered`.
//!
//! A server remembers each trial as an aborted transaction, and with its default `label_keep_max_num` of 1000 a task with
//! hundreds of bad rows makes it forget older labels sooner; that is one more reason to raise that setting.
//!
//! Only the server's word about rows makes a row dirty. Whatever else goes wrong ends the attempt by its own class.

use std::ops::Range;
use std::pin::pin;

use bytes::Bytes;
use reqwest::header::HeaderMap;
use starlift_common::row::Row;
use starlift_common::task::BAD_ROWS_MAX;
use starlift_remote::starrocks::client::CallError;
use starlift_remote::starrocks::outcome::Answer;
use tokio::time::Instant;
use tracing::{debug, info};

use crate::batch::{BatchSize, KeptRows};
use crate::copy::{Meter, RowsRead, key_of};
use crate::dirty::{DirtyRows, ROWS_IN_A_MESSAGE};
use crate::encode::EncodeError;
use crate::encode::ladder::Rung;
use crate::failure::{Failure, row_reason};
use crate::isolate::{Bad, Isolation, Reason, Verdict, reason_of};
use crate::load::{Ledger, Loaded, Loader, OpenPart, Purpose, half_life};
use crate::source::RowSource;

/// Body bytes of a batch that is kept in memory.
pub(crate) const KEPT_BYTES_MAX: u64 = 16 << 20;
/// Most of the server's words about one row that is quoted.
const WORDS_MAX: usize = 1000;

/// The isolating pass over one range.
pub(crate) struct Isolating<'a> {
    /// Its load headers allow no filtered row.
    pub loader: Loader<'a>,
    /// For trials of many rows: bad ones are counted and refuse nothing.
    pub counting: HeaderMap,
    /// The form of the bodies.
    pub rung: Rung,
    pub key_column: Option<usize>,
    /// Bad rows that the job still tolerates.
    pub allowed: u64,
}

/// What the attempt's own transactions hold so far.
#[derive(Default)]
struct Own {
    open: Option<OpenPart>,
    loaded: Loaded,
}

impl Isolating<'_> {
    /// Reads the source to its end. A row that another form may hold ends the pass; one that none can hold is bad.
    pub(crate) async fn run<S: RowSource>(
        &self,
        ledger: &mut Ledger<'_>,
        source: &mut S,
        mut kept: KeptRows,
        mut meter: Meter<'_>,
        dirty: &mut DirtyRows<'_>,
    ) -> Result<(RowsRead, Loaded), Failure> {
        let mut own = Own::default();
        let mut total = RowsRead::default();
        while self.fill(source, ledger, &mut own).await? {
            while let Some(row) = source.row()? {
                let bytes = row.bytes_read();
                let pushed = loop {
                    match kept.push(&row) {
                        Ok(true) => break Ok(()),
                        Ok(false) => {
                            self.batch(ledger, &kept, &mut own, dirty).await?;
                            kept.clear();
                        }
                        Err(error) => break Err(error),
                    }
                };
                match pushed {
                    Ok(()) => {}
                    Err(error) if self.fits_no_form(error) => {
                        let reason = row_reason(error, &self.loader.spec.columns);
                        self.leave_out(&row, Some(reason), dirty).await?;
                        self.check_allowed(dirty.count(), dirty)?;
                    }
                    Err(error) => return Err(Failure::Row { error, key: key_of(&row, self.key_column) }),
                }
                total.rows += 1;
                total.bytes += bytes;
                if meter.add(RowsRead { rows: 1, bytes }) {
                    meter.tell().await;
                }
            }
        }
        self.batch(ledger, &kept, &mut own, dirty).await?;
        self.prepare(ledger, &mut own).await?;
        meter.flush();
        Ok((total, own.loaded))
    }

    /// As [`RowSource::fill`]; meanwhile an old transaction does not wait for rows.
    async fn fill<S: RowSource>(
        &self,
        source: &mut S,
        ledger: &mut Ledger<'_>,
        own: &mut Own,
    ) -> Result<bool, Failure> {
        let mut filling = pin!(source.fill());
        loop {
            tokio::select! {
                biased;
                filled = &mut filling => return Ok(filled?),
                () = half_life(&mut own.open) => self.prepare(ledger, own).await?,
            }
        }
    }

    /// Finds the bad rows of a batch and loads the others.
    async fn batch(
        &self,
        ledger: &mut Ledger<'_>,
        kept: &KeptRows,
        own: &mut Own,
        dirty: &mut DirtyRows<'_>,
    ) -> Result<(), Failure> {
        let explain = usize::try_from(dirty.count()).map_or(0, |count| BAD_ROWS_MAX.saturating_sub(count));
        let mut isolation = Isolation::new(kept.len(), explain);
        let mut least = 0;
        while let Some(rows) = isolation.next() {
            self.prepare_if_old(ledger, own).await?;
            let (verdict, reason) = self.try_rows(ledger, kept, rows.clone()).await?;
            isolation.answer(verdict, reason).map_err(|_| Failure::Contradiction)?;
            if let (Verdict::Counted(bad), true) = (verdict, rows.len() == kept.len()) {
                least = bad;
            }
            least = least.max(isolation.found());
            let is_shown = isolation.found() >= ROWS_IN_A_MESSAGE.min(least);
            if is_shown && self.check_allowed(dirty.count() + as_u64(least), dirty).is_err() {
                break;
            }
        }
        let bad = isolation.into_bad();
        for bad in &bad {
            self.leave_out(&kept.row(bad.row), bad.reason.clone(), dirty).await?;
        }
        // The loop above may have ended early, and then it is this that ends the attempt.
        self.check_allowed(dirty.count() + as_u64(least.saturating_sub(bad.len())), dirty)?;

        let (body, size) = all_but(kept, &bad);
        if size.rows == 0 {
            return Ok(());
        }
        if !bad.is_empty() {
            info!(rows = size.rows, dirty_records = bad.len(), "bad rows of a batch are left out");
            self.try_rest(ledger, body.clone(), size).await?;
        }
        self.load(ledger, own, body, size).await
    }

    /// What is left of a batch must be good as a whole.
    async fn try_rest(&self, ledger: &mut Ledger<'_>, body: Bytes, size: BatchSize) -> Result<(), Failure> {
        match self.try_body(ledger, body, size).await?.0 {
            Verdict::Counted(0) | Verdict::Unclear => Ok(()),
            Verdict::Counted(_) | Verdict::Refused => Err(Failure::Contradiction),
        }
    }

    async fn load(
        &self,
        ledger: &mut Ledger<'_>,
        own: &mut Own,
        body: Bytes,
        size: BatchSize,
    ) -> Result<(), Failure> {
        self.prepare_if_old(ledger, own).await?;
        let mut part = match own.open.take() {
            Some(part) => part,
            None => self.loader.begin(ledger, Purpose::Rows).await?,
        };
        self.loader.load_whole(&mut part, body, size).await?;
        let is_full = part.is_full(self.loader.spec.max_part_bytes, (self.loader.clock)());
        own.open = Some(part);
        if is_full { self.prepare(ledger, own).await } else { Ok(()) }
    }

    async fn prepare_if_old(&self, ledger: &mut Ledger<'_>, own: &mut Own) -> Result<(), Failure> {
        let now: Instant = (self.loader.clock)();
        if own.open.as_ref().is_some_and(|part| part.is_old(now)) {
            self.prepare(ledger, own).await
        } else {
            Ok(())
        }
    }

    async fn prepare(&self, ledger: &mut Ledger<'_>, own: &mut Own) -> Result<(), Failure> {
        match own.open.take() {
            Some(part) => self.loader.prepare(part, ledger, &mut own.loaded).await,
            None => Ok(()),
        }
    }

    async fn leave_out(
        &self,
        row: &Row<'_>,
        reason: Option<Reason>,
        dirty: &mut DirtyRows<'_>,
    ) -> Result<(), Failure> {
        self.loader.metrics.rows_dirty.inc();
        let key = key_of(row, self.key_column).unwrap_or_default();
        dirty.add(row, key, reason).await.map_err(Failure::Keep)
    }

    /// `found`: bad rows there are at the least.
    fn check_allowed(&self, found: u64, dirty: &DirtyRows<'_>) -> Result<(), Failure> {
        if found <= self.allowed {
            return Ok(());
        }
        Err(Failure::TooManyBadRows { found, allowed: self.allowed, first: dirty.first_in_words() })
    }

    async fn try_rows(
        &self,
        ledger: &mut Ledger<'_>,
        kept: &KeptRows,
        rows: Range<usize>,
    ) -> Result<(Verdict, Reason), Failure> {
        let (body, size) = kept.body(rows);
        self.try_body(ledger, body, size).await
    }

    /// One trial. One row alone is tried without tolerance, so that its refusal is the server's plain word.
    async fn try_body(
        &self,
        ledger: &mut Ledger<'_>,
        body: Bytes,
        size: BatchSize,
    ) -> Result<(Verdict, Reason), Failure> {
        let loader = &self.loader;
        let headers = if size.rows == 1 { &loader.headers.load } else { &self.counting };
        let Trial { part, call, answered } = Trial::make(loader, ledger, headers, body).await?;
        let Some(verdict) = verdict(&answered, size.rows) else {
            return Err(match answered {
                Ok(answer) => {
                    Failure::Counts { label: part.label, sent: size.rows, accounted: answer.total() }
                }
                Err(error) => loader.call_failed(call, &part.label, error).await,
            });
        };
        let reason = match (&answered, verdict) {
            (_, Verdict::Counted(0)) => Reason::default(),
            (Err(CallError::Refused { answer, .. }), _) if size.rows == 1 => self.reason(answer).await,
            (Ok(answer), _) if size.rows == 1 => self.reason(answer).await,
            _ => Reason::default(),
        };
        debug!(label = %part.label, rows = size.rows, ?verdict, "rows tried");
        if ledger.close(loader.client, &part.label).await {
            Ok((verdict, reason))
        } else {
            Err(Failure::NotClosed)
        }
    }

    async fn reason(&self, answer: &Answer) -> Reason {
        let log = self.loader.error_log(answer).await;
        let words = if log.trim().is_empty() { answer.text() } else { log };
        reason_of(&words, &self.loader.spec.columns)
    }

    fn fits_no_form(&self, error: EncodeError) -> bool {
        match error {
            EncodeError::Collision { with, .. } => self.rung.after(self.loader.spec, with).is_none(),
            EncodeError::NotUtf8 { .. } | EncodeError::Unfit { .. } | EncodeError::TooLong { .. } => true,
        }
    }
}

/// A transaction that was begun, loaded and prepared as far as the server let it. Still to be closed.
struct Trial {
    part: OpenPart,
    /// The last call, and what it was answered.
    call: &'static str,
    answered: Result<Answer, CallError>,
}

impl Trial {
    async fn make(
        loader: &Loader<'_>,
        ledger: &mut Ledger<'_>,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Self, Failure> {
        let body = loader.packed(body).await?;
        let part = loader.begin(ledger, Purpose::Trial).await?;
        loader.metrics.trials.inc();
        let (call, answered) = match loader.send(&part, headers, body).await {
            Ok(_) => ("prepare", loader.ask_prepare(&part).await),
            Err(error) => ("load", Err(error)),
        };
        Ok(Self { part, call, answered })
    }
}

/// `bad` is in order.
fn all_but(kept: &KeptRows, bad: &[Bad]) -> (Bytes, BatchSize) {
    let mut bad = bad.iter().map(|bad| bad.row).peekable();
    kept.body((0..kept.len()).filter(|row| bad.next_if_eq(row).is_none()))
}

/// What a trial of `rows` rows says of them; `None`: nothing about rows, or counts that do not add up.
fn verdict(answered: &Result<Answer, CallError>, rows: u64) -> Option<Verdict> {
    let counted = |answer: &Answer| {
        let filtered = usize::try_from(answer.filtered_rows).ok()?;
        (answer.total() == rows).then_some(Verdict::Counted(filtered))
    };
    let answer = match answered {
        Ok(answer) => return counted(answer),
        Err(error) => error.answer()?,
    };
    if answer.refuses_rows() {
        return Some(Verdict::Refused);
    }
    if !answer.wrote_nothing() {
        return None;
    }
    match counted(answer) {
        Some(verdict) => Some(verdict),
        // Of one row that is not tolerated: were it bad, the server would have refused it for that.
        None if rows == 1 => Some(Verdict::Counted(0)),
        None => Some(Verdict::Unclear),
    }
}

/// What came of a trial that was to make the server speak.
#[derive(Debug)]
pub(crate) struct Told {
    /// For people, after a semicolon.
    pub words: String,
    /// The server's answer, where it gave one that is no OK.
    pub refusal: Option<Box<Answer>>,
}

/// Sends one row in a trial transaction of its own; for when whole loads get no answer. The caller rolls back.
pub(crate) async fn ask_with_one_row(
    loader: &Loader<'_>,
    ledger: &mut Ledger<'_>,
    body: Bytes,
) -> Result<Told, Failure> {
    let Trial { answered, .. } = Trial::make(loader, ledger, &loader.headers.load, body).await?;
    let told = |words: String, refusal| Told { words, refusal };
    Ok(match answered {
        Ok(_) => told("a trial with one row of the range was accepted".into(), None),
        Err(CallError::Refused { answer, .. }) => {
            let log = if loader.masked { String::new() } else { loader.error_log(&answer).await };
            let log: String = log.replace(char::is_control, " ").chars().take(WORDS_MAX).collect();
            let words = format!("a trial with one row of the range was refused: {} {log}", answer.text());
            told(words.trim_end().to_owned(), Some(answer))
        }
        Err(error) => told(format!("a trial with one row of the range failed as well: {error}"), None),
    })
}

fn as_u64(count: usize) -> u64 {
    count as u64 // no platform has a wider usize
}

#[cfg(test)]
mod tests {
    use starlift_common::datasource::LiveDatasources;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    use starlift_common::ids::{Epoch, JobId, TaskId, TaskKey};
    use starlift_common::job::LoadSpec;
    use starlift_common::retry::FailureClass;
    use starlift_common::task::{AttemptKey, BadRow};
    use starlift_remote::starrocks::client::Client;
    use starlift_remote::starrocks::clients::Clients;
    use starlift_remote::starrocks::headers::{LoadHeaders, TxnTimes};

    use super::*;
    use crate::batch::BatchLimits;
    use crate::control::Control;
    use crate::copy::Tools;
    use crate::dirty::DirtySettings;
    use crate::encode::Encoder;
    use crate::encode::testing::cells;
    use crate::http::Status;
    use crate::metrics::Metrics;
    use crate::testing::{FakeStarrocks, Rows, load_spec};

    /// An attempt on a fake server, with everything an isolating pass borrows.
    struct Stage {
        server: FakeStarrocks,
        client: Client,
        spec: LoadSpec,
        control: Control,
        tools: Tools,
        allowed: u64,
        batch_rows: u64,
    }

    type Sifted = Result<(Vec<starlift_common::task::PreparedPart>, Vec<BadRow>, u64), Failure>;

    impl Stage {
        async fn set() -> Self {
            let server = FakeStarrocks::start().await;
            let client = server.client();
            let control = Control::new(None);
            control.confirm();
            let status = Status { metrics: Metrics::new(1), ready: AtomicBool::new(false) };
            let tools = Tools {
                datasources: LiveDatasources::default(),
                clients: Clients::new(LiveDatasources::default()),
                status: Arc::new(status),
                dirty: DirtySettings::default(),
                clock: crate::agent::now,
            };
            Self { server, client, spec: load_spec(), control, tools, allowed: u64::MAX, batch_rows: 100 }
        }

        fn attempt() -> AttemptKey {
            AttemptKey { task: TaskKey { job: JobId::from_parts(1, 1), task: TaskId(0) }, epoch: Epoch(1) }
        }

        fn ledger(&self) -> Ledger<'_> {
            Ledger::new(&self.spec, Self::attempt())
        }

        async fn sift(&self, ledger: &mut Ledger<'_>, mut source: Rows) -> Sifted {
            let Self { client, spec, control, tools, .. } = self;
            let form = Rung::Planned.form(spec, [0; 32]);
            let times = TxnTimes::new(spec, 0, None, Duration::from_secs(15));
            let headers = LoadHeaders::new(spec, &form, times).expect("plain headers");
            let counting = headers.load_with_filter_ratio("1");
            let metrics = &tools.status.metrics;
            let (clock, masked) = (tools.clock, false);
            let loader = Loader { client, spec, headers, times, control, metrics, clock, masked };
            let limits = BatchLimits { rows: self.batch_rows, bytes: KEPT_BYTES_MAX, segment_bytes: 0 };
            let kept = KeptRows::new(Encoder::of(spec, &form, false), limits, 2);
            let mut dirty = DirtyRows::new(&tools.dirty, Self::attempt(), &spec.columns);
            let isolating = Isolating {
                loader,
                counting,
                rung: Rung::Planned,
                key_column: Some(0),
                allowed: self.allowed,
            };
            let meter = Meter::new(tools, control);
            let (read, Loaded { parts, .. }) =
                isolating.run(ledger, &mut source, kept, meter, &mut dirty).await?;
            let sent: u64 = parts.iter().map(|part| part.rows_sent).sum();
            assert_eq!(sent + dirty.count(), read.rows);
            let count = dirty.count();
            Ok((parts, dirty.finish().await.expect("no file").0, count))
        }
    }

    /// `count` rows, those at `bad` refused by the server.
    fn names(count: usize, bad: &[usize]) -> Vec<&'static str> {
        (0..count).map(|row| if bad.contains(&row) { "bad" } else { "good" }).collect()
    }

    fn keys(bad: &[BadRow]) -> Vec<usize> {
        bad.iter().map(|row| row.key.parse().expect("a number")).collect()
    }

    #[tokio::test]
    async fn all_rows_but_the_bad_ones_are_loaded_and_no_trial_stays_open() {
        for keeps_counts in [false, true] {
            let stage = Stage::set().await;
            if keeps_counts {
                stage.server.keep_counts();
            }
            let bad = [0, 7, 8, 150, 249];
            let mut ledger = stage.ledger();
            let rows = Rows::numbered(&names(250, &bad), false);
            let (parts, found, count) = stage.sift(&mut ledger, rows).await.expect("sifted");
            assert_eq!((keys(&found), count), (bad.to_vec(), 5));
            assert_eq!(
                (found[0].column.as_str(), found[0].reason.as_str()),
                ("id", "Value 'bad' is out of range. The type of 'id' is INT")
            );
            let good: Vec<String> =
                (0..250).filter(|row| !bad.contains(row)).map(|row| format!("{row}\u{1}good")).collect();
            assert_eq!(stage.server.prepared_rows(), good);
            assert_eq!((parts.len(), parts[0].rows_loaded, parts[0].loads), (1, 245, 3));
            assert_eq!(stage.server.most_open(), 2, "the attempt's own and one trial");
            let begun = stage.server.calls().iter().filter(|call| call.starts_with("begin t")).count();
            assert_eq!((ledger.begun().parts, ledger.begun().trials as usize), (1, begun));
            assert!(begun < 60, "{begun} trials");
            assert_eq!(stage.control.progress.get().begun, ledger.begun());
        }
    }

    #[tokio::test]
    async fn a_range_of_bad_rows_alone_makes_no_part() {
        let stage = Stage::set().await;
        let mut ledger = stage.ledger();
        let rows = Rows::numbered(&names(30, &(0..30).collect::<Vec<_>>()), false);
        let (parts, found, count) = stage.sift(&mut ledger, rows).await.expect("sifted");
        assert_eq!((parts, found.len(), count), (vec![], 30, 30));
        assert_eq!((stage.server.prepared_rows(), ledger.begun().trials), (vec![], 31));
    }

    #[tokio::test]
    async fn rows_that_fit_no_form_are_bad_without_asking_the_server() {
        let mut stage = Stage::set().await;
        stage.spec.named_delimiters = true;
        let mut rows = vec![cells(&[Some("1"), Some("a")]), cells(&[Some("2"), Some("b\u{1}")])];
        rows.push(vec![Some(b"3".to_vec()), Some(b"\xff".to_vec())]);
        let mut ledger = stage.ledger();
        let (parts, found, _) = stage.sift(&mut ledger, Rows::new(rows, false)).await.expect("sifted");
        assert_eq!((parts[0].rows_sent, keys(&found), ledger.begun().trials), (1, vec![2, 3], 1));
        assert_eq!(found[1].column, "na`me");
    }

    #[tokio::test]
    async fn unselected_rows_are_never_bad() {
        for keeps_counts in [false, true] {
            let mut stage = Stage::set().await;
            stage.batch_rows = 4;
            if keeps_counts {
                stage.server.keep_counts();
            }
            let mut ledger = stage.ledger();
            let rows = ["skip", "skip", "bad", "skip", "good", "bad", "skip", "good"];
            let (parts, found, _) =
                stage.sift(&mut ledger, Rows::numbered(&rows, false)).await.expect("sifted");
            assert_eq!(keys(&found), [2, 5]);
            assert_eq!((parts[0].rows_sent, parts[0].rows_loaded, parts[0].rows_unselected), (6, 2, 4));
        }
    }

    #[tokio::test]
    async fn more_bad_rows_than_allowed_end_the_attempt_with_the_first_of_them() {
        let mut stage = Stage::set().await;
        stage.allowed = 10;
        let bad: Vec<usize> = (0..40).map(|row| 5 * row).collect();
        let mut ledger = stage.ledger();
        let rows = Rows::numbered(&names(200, &bad), false);
        let failure = stage.sift(&mut ledger, rows).await.expect_err("too many");
        let Failure::TooManyBadRows { found, allowed, first } = &failure else {
            panic!("another failure: {failure:?}");
        };
        assert_eq!((*found, *allowed, failure.class()), (20, 10, FailureClass::Permanent));
        assert!(first.starts_with("row 0: Value 'bad' is out of range"), "{first}");
        assert!(ledger.begun().trials < 20, "{} trials although the count was known", ledger.begun().trials);
        assert!(ledger.roll_back(&stage.client).await);
        assert_eq!(stage.server.prepared_rows(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn trouble_of_the_server_is_no_bad_row() {
        let pressure = r#"{"Status":"MEM_LIMIT_EXCEEDED","Message":"Memory limit exceeded"}"#;
        for (operation, status, body, class) in [
            ("prepare", 200, pressure, FailureClass::Distress),
            ("load", 502, "<html>", FailureClass::Unknown),
            ("prepare", 502, "<html>", FailureClass::Unknown),
            ("prepare", 200, r#"{"Status":"TIMEOUT","Message":"timed out"}"#, FailureClass::Transient),
            ("prepare", 200, r#"{"Status":"OK","NumberLoadedRows":1}"#, FailureClass::Transient),
        ] {
            let stage = Stage::set().await;
            stage.server.answer_next(operation, status, body);
            let mut ledger = stage.ledger();
            let failure = stage.sift(&mut ledger, Rows::numbered(&["a", "b"], false)).await;
            let failure = failure.expect_err("a trial failed");
            assert_eq!(failure.class(), class, "{operation} {body}: {failure:?}");
            assert!(ledger.roll_back(&stage.client).await);
        }
    }

    #[tokio::test]
    async fn a_trial_that_may_be_open_ends_the_attempt() {
        let stage = Stage::set().await;
        stage.server.answer_next("rollback", 200, r#"{"Status":"FAILED","Message":"No transaction found"}"#);
        stage.server.forget_labels_after("rollback");
        let mut ledger = stage.ledger();
        let failure = stage.sift(&mut ledger, Rows::numbered(&["a"], false)).await;
        assert!(matches!(failure, Err(Failure::NotClosed)), "{failure:?}");
        assert_eq!(ledger.begun().trials, 1);
    }

    #[tokio::test]
    async fn an_old_part_is_prepared_while_the_source_stalls() {
        let mut stage = Stage::set().await;
        stage.spec.timeout_s = Some(1);
        stage.batch_rows = 1;
        let mut ledger = stage.ledger();
        {
            let mut sifting = pin!(stage.sift(&mut ledger, Rows::numbered(&["a", "b"], true)));
            let prepared = async {
                while stage.server.prepared_rows().is_empty() {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                _ = &mut sifting => panic!("the source never ends"),
                () = prepared => {}
            }
        }
        assert_eq!(stage.server.prepared_rows(), ["0\u{1}a"], "the second row waits for a full batch");
    }

    #[tokio::test]
    async fn one_row_makes_the_server_speak() {
        let stage = Stage::set().await;
        let Stage { client, spec, control, tools, .. } = &stage;
        let form = Rung::Planned.form(spec, [0; 32]);
        let times = TxnTimes::new(spec, 0, None, Duration::from_secs(15));
        let headers = LoadHeaders::new(spec, &form, times).expect("plain headers");
        let (metrics, clock) = (&tools.status.metrics, tools.clock);
        let loader = Loader { client, spec, headers, times, control, metrics, clock, masked: false };
        let mut ledger = stage.ledger();
        let told = ask_with_one_row(&loader, &mut ledger, Bytes::from_static(b"1\x01bad\x02")).await;
        let told = told.expect("answered");
        assert!(
            told.words.contains("refused: INTERNAL_ERROR: too many filtered rows Error: Value 'bad'"),
            "{}",
            told.words
        );
        let told = ask_with_one_row(&loader, &mut ledger, Bytes::from_static(b"1\x01a\x02")).await;
        assert!(told.expect("answered").refusal.is_none());
        assert!(ledger.roll_back(client).await);
        assert_eq!(ledger.begun().trials, 2);
        assert_eq!(stage.server.prepared_rows(), Vec::<String>::new());
    }
}
