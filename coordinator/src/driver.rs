//! The one loop: take what waits, decide, save, act. It sequences and never decides; decisions stand in
//! [`crate::state`]. Nothing is visible outside before it is durable: answers, reads and effects all come after the save.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use starlift_common::ids::TaskKey;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::clock::{Millis, Now, UnixMillis, whole_millis};
use crate::perform::Performer;
use crate::record::{Ending, Standing};
use crate::state::{Action, Answer, Change, Event, State, Ticket};
use crate::store::{self, Store, StoreError};

/// Most events that one save covers.
const BATCH: usize = 256;

/// Requests that may wait for the loop; beyond it callers wait to be let in.
const INBOX: usize = 4096;

/// How often time itself is looked at: the precision of leases and delays.
const TICK: Duration = Duration::from_millis(200);

/// The way to the loop. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Handle {
    inbox: mpsc::Sender<Message>,
    next_ticket: Arc<AtomicU64>,
    clock: Clock,
}

/// The loop has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the coordinator is stopping")]
pub(crate) struct Stopped;

type Reader = Box<dyn FnOnce(&State, Now) + Send>;

enum Message {
    Tell(Event),
    Ask { ticket: Ticket, event: Event, reply: oneshot::Sender<Answer> },
    Read(Reader),
}

impl Handle {
    /// Tells the state something that nobody waits for.
    pub(crate) async fn tell(&self, event: Event) -> Result<(), Stopped> {
        self.inbox.send(Message::Tell(event)).await.map_err(|_| Stopped)
    }

    /// Tells the state something that may get lost when it is busy.
    pub(crate) fn mention(&self, event: Event) {
        let _ = self.inbox.try_send(Message::Tell(event));
    }

    /// Tells the state something and waits for its answer, which is durable when it comes.
    pub(crate) async fn ask(&self, event: impl FnOnce(Ticket) -> Event) -> Result<Answer, Stopped> {
        let ticket = Ticket(self.next_ticket.fetch_add(1, Ordering::Relaxed));
        let (reply, answer) = oneshot::channel();
        let message = Message::Ask { ticket, event: event(ticket), reply };
        self.inbox.send(message).await.map_err(|_| Stopped)?;
        let mut wait = Wait { handle: self, ticket, is_over: false };
        let answer = answer.await;
        wait.is_over = true;
        answer.map_err(|_| Stopped)
    }

    /// Looks at the state as it is saved.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&State, Now) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        let reader: Reader = Box::new(move |state, now| {
            // The asker may have gone; then nobody wants to know.
            let _ = reply.send(look(state, now));
        });
        self.inbox.send(Message::Read(reader)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// A moment from now on the clock that the state decides by.
    pub(crate) fn deadline(&self, wait: Duration) -> Millis {
        self.clock.monotonic().plus(wait)
    }
}

/// Somebody waits for an answer; when he goes before it comes, the loop hears of it.
struct Wait<'a> {
    handle: &'a Handle,
    ticket: Ticket,
    is_over: bool,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            // When the inbox is full, the next tick finds out.
            self.handle.mention(Event::Gone { ticket: self.ticket });
        }
    }
}

/// Both clocks of this process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { start: Instant::now() }
    }

    fn monotonic(&self) -> Millis {
        Millis(whole_millis(self.start.elapsed()))
    }

    #[expect(clippy::disallowed_methods, reason = "the one reading of the wall clock")]
    pub(crate) fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Now { monotonic: self.monotonic(), unix: UnixMillis(whole_millis(unix)) }
    }
}

/// How the journal has kept up, since this process started.
#[derive(Debug, Default)]
pub(crate) struct Saves {
    pub(crate) done: AtomicU64,
    /// What those took together.
    pub(crate) micros: AtomicU64,
    pub(crate) failed: AtomicU64,
}

impl Saves {
    fn note(&self, took: Duration, is_done: bool) {
        if !is_done {
            self.failed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}

/// The loop before it runs.
pub(crate) struct Driver<S> {
    state: State,
    store: S,
    clock: Clock,
    saves: Arc<Saves>,
    inbox: mpsc::Receiver<Message>,
    replies: BTreeMap<Ticket, oneshot::Sender<Answer>>,
}

impl<S: Store> Driver<S> {
    /// Takes the state and the store it was read from.
    pub(crate) fn new(state: State, store: S, clock: Clock, saves: Arc<Saves>) -> (Self, Handle) {
        let (sender, inbox) = mpsc::channel(INBOX);
        let handle = Handle { inbox: sender, next_ticket: Arc::default(), clock };
        (Self { state, store, clock, saves, inbox, replies: BTreeMap::new() }, handle)
    }

    /// Runs until `shutdown`. An error of the store ends it: what it holds may then differ from what is saved.
    pub(crate) async fn run(
        mut self,
        first: Vec<Action>,
        performer: &mut Performer,
        shutdown: &CancellationToken,
    ) -> Result<(), StoreError> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.act(first, performer);
        loop {
            let mut messages = Vec::with_capacity(BATCH);
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                count = self.inbox.recv_many(&mut messages, BATCH) => if count == 0 { return Ok(()) },
                _ = ticks.tick() => messages.extend(self.gone()),
            }
            let (events, readers) = self.sort(messages);
            let now = self.clock.now();
            let turn = self.state.apply(events, now);
            self.save(&turn.changes).await?;
            turn.changes.iter().for_each(log);
            self.act(turn.actions, performer);
            for read in readers {
                read(&self.state, now);
            }
        }
    }

    async fn save(&self, changes: &[Change]) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        let began = self.clock.start.elapsed();
        let saved = store::save(&self.store, changes).await;
        self.saves.note(self.clock.start.elapsed().saturating_sub(began), saved.is_ok());
        saved
    }

    /// Those who have gone and could not say so.
    fn gone(&self) -> impl Iterator<Item = Message> {
        let gone = self.replies.iter().filter(|(_, reply)| reply.is_closed());
        gone.map(|(ticket, _)| Message::Tell(Event::Gone { ticket: *ticket }))
    }

    /// Puts the messages in order and remembers who waits.
    fn sort(&mut self, messages: Vec<Message>) -> (Vec<Event>, Vec<Reader>) {
        let mut events = Vec::with_capacity(messages.len());
        let mut readers = Vec::new();
        for message in messages {
            match message {
                Message::Tell(event) => {
                    if let Event::Gone { ticket } = &event {
                        self.replies.remove(ticket);
                    }
                    events.push(event);
                }
                Message::Ask { ticket, event, reply } => {
                    self.replies.insert(ticket, reply);
                    events.push(event);
                }
                Message::Read(reader) => readers.push(reader),
            }
        }
        (events, readers)
    }

    fn act(&mut self, actions: Vec<Action>, performer: &mut Performer) {
        for action in actions {
            match action {
                Action::Answer { ticket, answer } => {
                    if let Some(reply) = self.replies.remove(&ticket) {
                        // Whoever asked may be gone; what was decided stands, and a lost grant expires.
                        let _ = reply.send(answer);
                    }
                }
                other => performer.perform(other),
            }
        }
    }
}

/// What an operator would like to know of a change that is now durable.
fn log(change: &Change) {
    match change {
        Change::Job(job, record) => {
            info!(job_id = %job, state = %record.state, "job");
            if let Some(Ending::Failed(problem)) = record.ending.as_ref().filter(|_| record.state.is_final())
            {
                // The message may quote refused rows, so only the code is logged; the report has all of it.
                error!(job_id = %job, code = %problem.code, "job failed");
            }
        }
        Change::Task(TaskKey { job, task }, record) => {
            let (epoch, worker) = (record.epoch, record.worker.as_ref().map_or("", |worker| &*worker.0));
            match (&record.standing, &record.problem) {
                (Standing::Waiting | Standing::Failed | Standing::Undecided { .. }, Some(problem)) => {
                    warn!(job_id = %job, task_id = %task, %epoch, worker_id = worker, code = %problem.code, "attempt failed");
                }
                (Standing::Done { prepared }, _) => {
                    info!(job_id = %job, task_id = %task, %epoch, worker_id = worker, rows = prepared.rows_read, "task committed");
                }
                (standing, _) => {
                    debug!(job_id = %job, task_id = %task, %epoch, worker_id = worker, ?standing, "task");
                }
            }
        }
        Change::Sweep(attempt, record) => {
            debug!(job_id = %attempt.task.job, task_id = %attempt.task.task, epoch = %attempt.epoch, ?record, "labels to sweep");
        }
        Change::Swept(attempt) => {
            info!(job_id = %attempt.task.job, task_id = %attempt.task.task, epoch = %attempt.epoch, "dead labels are closed");
        }
        Change::Script(..)
        | Change::Plan(..)
        | Change::Report(..)
        | Change::NoReport(..)
        | Change::BadRows(..)
        | Change::Forgotten(..) => {}
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicBool;

    use starlift_common::datasource::LiveDatasources;
    use starlift_common::ids::JobId;
    use starlift_common::job::JobState;
    use starlift_common::problem::Code;

    use super::*;
    use crate::state::Rules;
    use crate::store::Write;

    /// A store in memory that can be told to fail.
    #[derive(Clone, Default)]
    pub(crate) struct MemoryStore {
        pairs: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
        pub(crate) is_broken: Arc<AtomicBool>,
    }

    impl MemoryStore {
        fn keys(&self) -> Vec<String> {
            self.pairs.lock().unwrap().keys().cloned().collect()
        }
    }

    impl Store for MemoryStore {
        async fn load(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
            Ok(self.pairs.lock().unwrap().clone().into_iter().collect())
        }

        async fn save(&self, writes: Vec<Write>) -> Result<(), StoreError> {
            if self.is_broken.load(Ordering::Relaxed) {
                return Err(StoreError::Failed { operation: "write", source: "the disk is full".into() });
            }
            let mut pairs = self.pairs.lock().unwrap();
            for Write { key, value } in writes {
                match value {
                    Some(value) => pairs.insert(key, value),
                    None => pairs.remove(&key),
                };
            }
            Ok(())
        }
    }

    fn job() -> JobId {
        JobId::from_parts(1, 1)
    }

    pub(crate) fn submit(ticket: Ticket) -> Event {
        Event::Submit { ticket, job: job(), name: "orders".into(), script: "{ not json".into() }
    }

    /// A running loop over `store`.
    fn start(
        store: &MemoryStore,
        shutdown: &CancellationToken,
    ) -> (Handle, tokio::task::JoinHandle<Result<(), StoreError>>) {
        let rules = Rules::new(Duration::from_secs(15), 3);
        let (driver, handle) = Driver::new(State::new(rules), store.clone(), Clock::start(), Arc::default());
        let mut performer = Performer::new(handle.clone(), LiveDatasources::default());
        let shutdown = shutdown.clone();
        let running = tokio::spawn(async move { driver.run(Vec::new(), &mut performer, &shutdown).await });
        (handle, running)
    }

    #[tokio::test]
    async fn an_answer_comes_after_the_save_and_effects_are_carried_out() {
        let (store, shutdown) = (MemoryStore::default(), CancellationToken::new());
        let (handle, running) = start(&store, &shutdown);
        assert_eq!(handle.ask(submit).await, Ok(Answer::Accepted));
        assert!(store.keys().contains(&format!("job/{}", job())), "{:?}", store.keys());
        // Planning reads the script, which is broken: the job fails, with a report.
        let code = loop {
            let look = |state: &State, _| state.job(job()).and_then(|job| job.report().cloned());
            if let Some(report) = handle.read(look).await.unwrap() {
                assert_eq!(report.state, JobState::Failed);
                break report.error.as_ref().map(|problem| problem.code);
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(code, Some(Code::InvalidScript));
        assert!(store.keys().contains(&format!("report/{}", job())));
        shutdown.cancel();
        assert!(running.await.unwrap().is_ok());
        assert_eq!(handle.ask(submit).await, Err(Stopped));
    }

    #[tokio::test]
    async fn a_failed_save_answers_nobody_and_ends_the_loop() {
        let (store, shutdown) = (MemoryStore::default(), CancellationToken::new());
        let (handle, running) = start(&store, &shutdown);
        store.is_broken.store(true, Ordering::Relaxed);
        assert_eq!(handle.ask(submit).await, Err(Stopped));
        assert!(matches!(running.await.unwrap(), Err(StoreError::Failed { .. })));
        assert_eq!(store.keys(), Vec::<String>::new());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_for_work_is_answered_when_its_wait_is_over() {
        let (store, shutdown) = (MemoryStore::default(), CancellationToken::new());
        let (handle, _running) = start(&store, &shutdown);
        let until = handle.deadline(Duration::from_secs(5));
        let worker = crate::state::tests::info("w1");
        let began = Instant::now();
        let answer = handle.ask(|ticket| Event::Acquire { ticket, worker, free_slots: 1, until }).await;
        assert_eq!(answer, Ok(Answer::Granted { grants: Vec::new(), drain: false }));
        assert!(began.elapsed() >= Duration::from_secs(5));
        shutdown.cancel();
    }
}
