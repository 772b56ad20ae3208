//! What to do after a failure: the one place that decides between trying again, waiting for a server in distress,
//! giving up, and asking the server what happened.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a failure means for the attempt it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// Trying again may help: a connection broke, a node went away. Costs an attempt.
    Transient,
    /// Trying again cannot help: data, schema, rights. Fails the task at once.
    Permanent,
    /// The server asks for less load. Costs no attempt; the task waits.
    Distress,
    /// A call was not answered, so whether it was done is unknown. What the attempt began is rolled back and the range
    /// is loaded again under other labels: costs an attempt.
    Unknown,
}

/// Words of StarRocks that ask for less load (spec: pressure signals). Compared without case, as a part of the message,
/// because the same error is wrapped differently from version to version.
const DISTRESS: &[&str] = &[
    "current running txns",
    "too many versions",
    "version count exceed",
    "too large compaction score",
    "memory limit exceeded",
    "memory of ",
    "mem_limit_exceeded",
    "exceed http cuncurrent limit",
    "txn num per be exceeds limit",
    "resource_busy",
    "lock timeout",
    "get database write lock timeout",
];

/// Words that say trying again cannot help.
const PERMANENT: &[&str] = &[
    "too many filtered rows",
    "access denied",
    "need auth information",
    "no valid basic authorization",
    "unknown database",
    "unknown table",
    "unknown data format",
    "label format error",
    "only primary key table support partial update",
    "primary key size exceed the limit",
    "invalid delimiter",
    "invalid strict mode",
    "invalid timeout",
    "timeout should between",
    "unknown column",
    "illegal json",
    "unrecognized json format",
    "exceed the max size",
    "body size",
    "disable_load_job",
    "exceeds quota",
    "capacity exceeds limit",
    "load request not equal last",
    "not implemented",
];

/// Classes a refusal by its server text (status name and message joined). What is not known is transient: a retry
/// is bounded and safe, because an attempt never commits.
pub fn classify_server_text(text: &str) -> FailureClass {
    let text = text.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(DISTRESS) {
        FailureClass::Distress
    } else if says(PERMANENT) {
        FailureClass::Permanent
    } else {
        FailureClass::Transient
    }
}

/// Exponential backoff with full jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    pub first: Duration,
    pub most: Duration,
}

impl Backoff {
    /// How long to wait before retry number `retry` (from 0): anything from nothing up to a ceiling that doubles, so that
    /// those who failed together do not come back together. `random` in 0..1 comes from the caller; who must not ask in
    /// a tight loop sets a least wait of its own.
    pub fn delay(&self, retry: u32, random: f64) -> Duration {
        let ceiling = self.first.saturating_mul(1 << retry.min(20)).min(self.most);
        ceiling.mul_f64(random.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_distress_however_it_is_wrapped() {
        let text = "Fail: stream_load_task:1, error_msg:Current running txns on db 10005 is 1000, larger than limit 1000";
        assert_eq!(classify_server_text(text), FailureClass::Distress);
    }

    #[test]
    fn bad_rows_are_permanent_and_an_unknown_word_is_transient() {
        assert_eq!(classify_server_text("Fail: too many filtered rows"), FailureClass::Permanent);
        assert_eq!(
            classify_server_text("INTERNAL_ERROR: close index channel failed"),
            FailureClass::Transient
        );
    }

    #[test]
    fn a_delay_stays_within_its_ceiling() {
        let backoff = Backoff { first: Duration::from_millis(100), most: Duration::from_secs(5) };
        assert_eq!(backoff.delay(0, 1.0), Duration::from_millis(100));
        assert_eq!(backoff.delay(3, 0.5), Duration::from_millis(400));
        assert_eq!(backoff.delay(60, 1.0), Duration::from_secs(5));
    }
}
