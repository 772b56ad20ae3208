//! Committing one prepared part: what has to hold before it is decided, what the server's answers mean, and the calls
//! themselves. The decision is taken and saved in [`crate::state`] before anything here is called; from then on a part
//! is only ever rolled forward. An answer that is in doubt is never taken for a failure: the label is asked.

use std::time::Duration;

use starlift_common::job::{LoadSpec, ReadSpec};
use starlift_common::label::Label;
use starlift_common::problem::{Code, Problem};
use starlift_common::query::{push_where, range_condition, table_name};
use starlift_common::retry::{Backoff, FailureClass};
use starlift_common::task::{AttemptKey, Prepared, TaskRange};
use starlift_remote::starrocks::client::{CallError, Client};
use starlift_remote::starrocks::outcome::{Answer, TxnState};
use tracing::{info, warn};

/// What the server is told to wait for publication, in seconds; its own default of 20 s is too short under load.
const PUBLISH_WAIT_S: u32 = 60;

const RETRY: Backoff = Backoff { first: Duration::from_millis(500), most: Duration::from_secs(30) };

/// How often a label must be unknown in a row before it counts as forgotten: a follower may lag behind.
const UNKNOWN_TRIES: u32 = 4;

/// Tries after which people are told that a commit takes long.
const TRIES_BEFORE_NOTICE: u32 = 3;

/// What became of a part that was to be committed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Committed for good, visible now or soon.
    Committed,
    /// The server rolled it back: its time ran out, or somebody did it by hand.
    Aborted { reason: String },
    /// The server knows nothing of the label; it may have been committed and forgotten.
    Unknown,
}

/// What a message about an attempt names.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    pub attempt: AttemptKey,
    pub read: &'a ReadSpec,
    pub range: &'a TaskRange,
    pub load: &'a LoadSpec,
}

impl Facts<'_> {
    /// The statement by which a human finds out how many rows the target holds of this range.
    fn count_statement(&self) -> String {
        let mut sql = format!("SELECT COUNT(*) FROM {}", table_name(&self.load.database, &self.load.table));
        push_where(&mut sql, None, range_condition(self.read.key.as_deref(), self.range).as_deref());
        if matches!(self.range, TaskRange::Tablets(_)) {
            sql.push_str(" (all rows: the target does not tell the source's tablets apart)");
        }
        sql
    }
}

/// Whether everything a worker says it has prepared may be committed: labels of its own attempt, each once, and every
/// row accounted for.
pub fn verify(prefix: &str, attempt: AttemptKey, prepared: &Prepared) -> Result<(), Problem> {
    let mismatch = |message: String| {
        Problem::new(Code::CountMismatch, message)
            .hint("nothing of this attempt was committed; it is loaded again")
    };
    let mut last = None;
    for part in &prepared.parts {
        let label = &part.label;
        let number = Label::part_number(prefix, attempt, label);
        if number.is_none() || number <= last {
            return Err(mismatch(format!("label {label} is none of {attempt}, or comes twice")));
        }
        last = number;
        let counted = sum([part.rows_loaded, part.rows_filtered, part.rows_unselected]);
        if u128::from(part.rows_sent) != counted {
            return Err(mismatch(format!(
                "{} rows were sent under label {label}, but StarRocks counted {} loaded, {} filtered and {} unselected",
                part.rows_sent, part.rows_loaded, part.rows_filtered, part.rows_unselected
            )));
        }
    }
    let sent = sum(prepared.parts.iter().map(|part| part.rows_sent));
    let (dirty, apart) = (prepared.dirty_records, prepared.apart.total());
    if sum([dirty, apart]) + sent != u128::from(prepared.rows_read) {
        return Err(mismatch(format!(
            "{} rows were read: {sent} were sent, {dirty} left out as bad, {apart} filtered or unselected apart from them",
            prepared.rows_read
        )));
    }
    Ok(())
}

/// Cannot overflow, whatever a worker says.
fn sum(counts: impl IntoIterator<Item = u64>) -> u128 {
    counts.into_iter().map(u128::from).sum()
}

/// A part was rolled back by the server before anything of its task was committed.
pub fn aborted(attempt: AttemptKey, part: u32, prepared: &Prepared, reason: &str) -> Problem {
    let label = label_of(prepared, part);
    let reason = if reason.is_empty() { "no reason given" } else { reason };
    Problem::new(
        Code::LoadFailed,
        format!("StarRocks rolled back the prepared transaction {label}: {reason}"),
    )
    .at(attempt.to_string())
    .hint("it is loaded again; see whether prepared transactions expire too soon or were aborted by hand")
}

/// A commit that has not been settled yet.
fn delayed(label: &Label, reason: &str) -> Problem {
    Problem::new(Code::LoadFailed, format!("the commit of {label} is not confirmed yet: {reason}"))
        .hint("it is decided and is tried until the server says what became of it")
}

/// A part was rolled back by the server after earlier parts of the same task had been committed.
pub fn partly_aborted(facts: Facts<'_>, part: u32, prepared: &Prepared, reason: &str) -> Problem {
    let message = format!(
        "StarRocks rolled back transaction {} (TxnId {}) after {part} of {} transactions of task {} were committed: {reason}",
        label_of(prepared, part),
        txn_of(prepared, part),
        prepared.parts.len(),
        facts.attempt.task.task,
    );
    Problem::new(Code::LoadFailed, message).at(place(facts)).hint(format!(
        "the target holds only a part of this range ({count}); delete it there, then: starlift resolve {job} {task} --redo \
         --reason TEXT; starlift resume {job}",
        count = facts.count_statement(),
        job = facts.attempt.task.job,
        task = facts.attempt.task.task,
    ))
}

/// The server does not know the label that was to be committed.
pub fn unknown(facts: Facts<'_>, part: u32, prepared: &Prepared) -> Problem {
    let rows = usize::try_from(part)
        .ok()
        .and_then(|part| prepared.parts.get(part))
        .map_or(0, |part| part.rows_loaded);
    let message = format!(
        "StarRocks has forgotten transaction {} (TxnId {}), which was to be committed with {rows} rows of task {}; \
         whether it was cannot be told from here",
        label_of(prepared, part),
        txn_of(prepared, part),
        facts.attempt.task.task,
    );
    Problem::new(Code::OutcomeUnknown, message).at(place(facts)).hint(format!(
        "compare {count} with the {read} rows this task has read; then: starlift resolve {job} {task} --committed|--redo \
         --reason TEXT; starlift resume {job}; and raise label_keep_max_num",
        count = facts.count_statement(),
        read = prepared.rows_read,
        job = facts.attempt.task.job,
        task = facts.attempt.task.task,
    ))
}

fn place(facts: Facts<'_>) -> String {
    format!("{} {}", table_name(&facts.read.database, &facts.read.table), facts.range)
}

fn label_of(prepared: &Prepared, part: u32) -> &str {
    prepared.parts.get(part as usize).map_or("", |part| part.label.as_str())
}

fn txn_of(prepared: &Prepared, part: u32) -> i64 {
    prepared.parts.get(part as usize).map_or(0, |part| part.txn_id)
}

/// What to do after the answer to a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Next {
    Done(Verdict),
    /// The answer does not settle it.
    AskState,
    CommitAgain,
    AskAgain,
}

fn after_commit(answer: &Result<Answer, CallError>) -> Next {
    match answer {
        Ok(_) => Next::Done(Verdict::Committed),
        Err(CallError::Connect { .. }) => Next::CommitAgain,
        Err(_) => Next::AskState,
    }
}

/// `unknown` counts the answers UNKNOWN so far, this one included. `refusal` are the server's words to the commit.
fn after_state(state: TxnState, unknown: u32, refusal: &str) -> Next {
    match state {
        TxnState::Committed | TxnState::Visible => Next::Done(Verdict::Committed),
        TxnState::Prepared => Next::CommitAgain,
        TxnState::Aborted => Next::Done(Verdict::Aborted { reason: refusal.to_owned() }),
        TxnState::Unknown if unknown >= UNKNOWN_TRIES => Next::Done(Verdict::Unknown),
        // A prepared transaction never goes back to PREPARE: whoever says so lags behind.
        TxnState::Unknown | TxnState::Prepare => Next::AskAgain,
    }
}

/// Commits one part, however long it takes. Safe to repeat after a crash: a committed label answers OK.
/// `notice` hears of a commit that takes long, and whether the server is in distress.
pub async fn carry_out(
    client: &Client,
    load: &LoadSpec,
    label: &Label,
    notice: &(dyn Fn(Problem, bool) + Sync),
) -> Verdict {
    let (mut tries, mut unknown) = (0u32, 0u32);
    let mut next = Next::CommitAgain;
    let mut refusal = String::new();
    loop {
        if tries > 0 {
            tokio::time::sleep(RETRY.delay(tries - 1, fastrand::f64())).await;
        }
        tries += 1;
        if next == Next::CommitAgain {
            let answer = client.commit(&load.database, &load.table, label, PUBLISH_WAIT_S).await;
            if let Err(error) = &answer {
                warn!(%label, %error, "commit is not confirmed");
                let in_distress = error.class() == FailureClass::Distress;
                if tries >= TRIES_BEFORE_NOTICE || in_distress {
                    notice(delayed(label, &error.to_string()), in_distress);
                }
                refusal = error.answer().map_or_else(String::new, |answer| answer.message.clone());
            }
            next = after_commit(&answer);
        }
        if matches!(next, Next::AskState | Next::AskAgain) {
            next = match client.load_state(&load.database, label).await {
                Ok(state) => {
                    info!(%label, ?state, "asked what became of a commit");
                    unknown = if state == TxnState::Unknown { unknown + 1 } else { 0 };
                    after_state(state, unknown, &refusal)
                }
                Err(error) => {
                    warn!(%label, %error, "the state of a label cannot be asked");
                    if tries >= TRIES_BEFORE_NOTICE {
                        notice(delayed(label, &error.to_string()), false);
                    }
                    Next::AskAgain
                }
            };
        }
        if let Next::Done(verdict) = next {
            return verdict;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use starlift_common::ids::{Epoch, JobId, TaskId, TaskKey};
    use starlift_common::task::PreparedPart;

    fn attempt() -> AttemptKey {
        AttemptKey { task: TaskKey { job: JobId::from_parts(1, 1), task: TaskId(3) }, epoch: Epoch(2) }
    }

    fn part(number: u32, rows: u64) -> PreparedPart {
        PreparedPart {
            label: Label::part("sl", attempt(), number).to_string(),
            txn_id: 100 + i64::from(number),
            rows_sent: rows,
            rows_loaded: rows,
            rows_filtered: 0,
            rows_unselected: 0,
            bytes_sent: 10 * rows,
            loads: 1,
        }
    }

    fn prepared(parts: Vec<PreparedPart>) -> Prepared {
        let rows_read = parts.iter().map(|part| part.rows_sent).sum();
        Prepared { parts, rows_read, ..Prepared::default() }
    }

    #[test]
    fn counted_rows_under_derived_labels_may_be_committed() {
        let mut second = part(1, 5);
        (second.rows_loaded, second.rows_filtered, second.rows_unselected) = (2, 2, 1);
        assert_eq!(verify("sl", attempt(), &prepared(vec![part(0, 7), second])), Ok(()));
        assert_eq!(verify("sl", attempt(), &prepared(vec![])), Ok(()));
    }

    #[test]
    fn a_missing_row_or_a_foreign_label_forbids_the_commit() {
        let mut short = part(0, 7);
        short.rows_loaded = 6;
        assert_eq!(verify("sl", attempt(), &prepared(vec![short])).unwrap_err().code, Code::CountMismatch);
        let mut unread = prepared(vec![part(0, 7)]);
        unread.rows_read = 8;
        assert_eq!(verify("sl", attempt(), &unread).unwrap_err().code, Code::CountMismatch);
        assert_eq!(verify("sl", attempt(), &prepared(vec![part(1, 7), part(3, 7)])), Ok(()), "gaps are fine");
        assert!(verify("sl", attempt(), &prepared(vec![part(1, 7), part(1, 7)])).is_err());
        let other = AttemptKey { epoch: Epoch(3), ..attempt() };
        assert!(verify("sl", other, &prepared(vec![part(0, 7)])).is_err());
        let mut dirty = prepared(vec![part(0, 7)]);
        dirty.dirty_records = 1;
        assert!(verify("sl", attempt(), &dirty).is_err());
        dirty.rows_read = 8;
        assert_eq!(verify("sl", attempt(), &dirty), Ok(()));
    }

    #[test]
    fn only_the_state_settles_a_doubtful_commit() {
        let no_answer = Err(CallError::NoAnswer { host: "fe1:8030".into(), source: None });
        assert_eq!(after_commit(&no_answer), Next::AskState);
        let timeout =
            Answer { status: "FAILED".into(), message: "publish timeout: 20000".into(), ..Answer::default() };
        let refused = Err(CallError::Refused { host: "fe1:8030".into(), answer: Box::new(timeout) });
        assert_eq!(after_commit(&refused), Next::AskState);
        assert_eq!(after_state(TxnState::Committed, 0, ""), Next::Done(Verdict::Committed));
        assert_eq!(after_state(TxnState::Prepared, 0, ""), Next::CommitAgain);
        let reason = "timeout by txn manager";
        assert_eq!(
            after_state(TxnState::Aborted, 0, reason),
            Next::Done(Verdict::Aborted { reason: reason.into() })
        );
    }

    #[test]
    fn one_unknown_is_not_enough_to_call_a_label_forgotten() {
        assert_eq!(after_state(TxnState::Unknown, 1, ""), Next::AskAgain);
        assert_eq!(after_state(TxnState::Unknown, UNKNOWN_TRIES, ""), Next::Done(Verdict::Unknown));
    }
}
