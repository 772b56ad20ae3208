//! Who was asked to check, who has answered, and when to give up. Pure: time is an argument. A worker hears of the order
//! with the answer to its next call, and again when its own answer does not come; nothing of this is stored.

use std::collections::BTreeMap;
use std::time::Duration;

use starlift_common::check::Findings;
use starlift_common::ids::WorkerId;

use crate::clock::Millis;

/// A worker that was silent for so long before the round began is not waited for. One that holds nothing calls every 15 s.
const SILENT: Duration = Duration::from_secs(30);

/// How long the order is not repeated to a worker that was told.
const TELL_AGAIN: Duration = Duration::from_secs(3);

/// One check of all workers.
#[derive(Debug)]
pub(crate) struct Round {
    asked: BTreeMap<WorkerId, Asked>,
    ends: Millis,
}

/// A worker that is to answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Asked {
    pub(crate) host: String,
    pub(crate) version: String,
    pub(crate) heard: Millis,
    /// `None`: it has not answered yet.
    pub(crate) findings: Option<Findings>,
    told: Option<Millis>,
    is_awaited: bool,
}

impl Asked {
    /// A worker as it was last heard.
    pub(crate) fn new(host: String, version: String, heard: Millis) -> Self {
        Self { host, version, heard, findings: None, told: None, is_awaited: true }
    }
}

impl Round {
    /// Begins now and ends after `patience`, or when all have answered who are expected to.
    pub(crate) fn begin(
        workers: impl IntoIterator<Item = (WorkerId, Asked)>,
        now: Millis,
        patience: Duration,
    ) -> Self {
        let awaited = |mut asked: Asked| {
            asked.is_awaited = now.since(asked.heard) < SILENT;
            asked
        };
        let asked = workers.into_iter().map(|(id, asked)| (id, awaited(asked))).collect();
        Self { asked, ends: now.plus(patience) }
    }

    /// Whether the order goes out to this worker, which calls now. The silent one that calls is awaited again.
    pub(crate) fn tells(&mut self, worker: &WorkerId, now: Millis) -> bool {
        let Some(asked) = self.asked.get_mut(worker).filter(|asked| asked.findings.is_none()) else {
            return false;
        };
        asked.is_awaited = true;
        let is_due = asked.told.is_none_or(|told| now.since(told) >= TELL_AGAIN);
        if is_due {
            asked.told = Some(now);
        }
        is_due
    }

    /// Takes an answer; the first one of a worker stands.
    pub(crate) fn answered(&mut self, worker: &WorkerId, findings: Findings) {
        if let Some(asked) = self.asked.get_mut(worker) {
            asked.findings.get_or_insert(findings);
        }
    }

    pub(crate) fn is_over(&self, now: Millis) -> bool {
        now >= self.ends || !self.asked.values().any(|asked| asked.is_awaited && asked.findings.is_none())
    }

    /// All who were asked, with what they found.
    pub(crate) fn close(self) -> BTreeMap<WorkerId, Asked> {
        self.asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(name: &str) -> WorkerId {
        WorkerId(name.into())
    }

    fn heard(at: u64) -> Asked {
        Asked::new("node".into(), "0.1.0".into(), Millis(at))
    }

    /// Two workers, asked at 100 s.
    fn round(a_heard: u64, b_heard: u64) -> Round {
        let workers = [(worker("a"), heard(a_heard)), (worker("b"), heard(b_heard))];
        Round::begin(workers, Millis(100_000), Duration::from_secs(40))
    }

    #[test]
    fn a_round_is_over_when_all_have_answered() {
        let mut round = round(90_000, 99_000);
        assert!(!round.is_over(Millis(100_000)));
        round.answered(&worker("a"), Findings::default());
        round.answered(&worker("stranger"), Findings::default());
        assert!(!round.is_over(Millis(101_000)));
        round.answered(&worker("b"), Findings::default());
        assert!(round.is_over(Millis(101_000)));
    }

    #[test]
    fn who_does_not_answer_is_given_up_in_time() {
        let mut round = round(90_000, 99_000);
        round.answered(&worker("a"), Findings::default());
        assert!(!round.is_over(Millis(139_999)) && round.is_over(Millis(140_000)));
        let asked = round.close();
        assert!(asked[&worker("a")].findings.is_some() && asked[&worker("b")].findings.is_none());
    }

    #[test]
    fn who_was_silent_before_is_waited_for_only_when_it_calls() {
        let mut round = round(99_000, 60_000);
        round.answered(&worker("a"), Findings::default());
        assert!(round.is_over(Millis(100_001)));
        assert!(round.tells(&worker("b"), Millis(100_002)));
        assert!(!round.is_over(Millis(100_003)));
    }

    #[test]
    fn the_order_is_repeated_until_it_is_answered_and_not_in_a_hurry() {
        let mut round = round(99_000, 99_000);
        let mut tells = |at| round.tells(&worker("a"), Millis(at));
        assert_eq!(
            [tells(100_000), tells(100_100), tells(102_999), tells(103_000)],
            [true, false, false, true]
        );
        round.answered(&worker("a"), Findings::default());
        assert!(!round.tells(&worker("a"), Millis(110_000)));
        assert!(!round.tells(&worker("stranger"), Millis(110_000)));
    }

    #[test]
    fn the_first_answer_of_a_worker_stands() {
        let mut round = round(99_000, 99_000);
        let noted = |note: &str| Findings { list: Vec::new(), notes: vec![note.into()] };
        round.answered(&worker("a"), noted("first"));
        round.answered(&worker("a"), noted("second"));
        assert_eq!(round.close()[&worker("a")].findings, Some(noted("first")));
    }

    #[test]
    fn without_workers_there_is_nothing_to_wait_for() {
        assert!(Round::begin([], Millis(5), Duration::from_secs(40)).is_over(Millis(5)));
    }
}
