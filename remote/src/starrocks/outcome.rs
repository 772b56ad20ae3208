//! What StarRocks' answers to load calls mean. Pure. The server says 200 to everything; only the JSON decides, and its
//! keys, their case and their order differ between FE and BE and between versions.

use starlift_common::retry::{FailureClass, classify_server_text};

/// State of a label, as `get_load_state` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TxnState {
    /// No such label: never begun, lost with the leader, or forgotten.
    Unknown,
    /// Running.
    Prepare,
    /// Durable and undecided.
    Prepared,
    Committed,
    Visible,
    Aborted,
}

impl TxnState {
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_uppercase().as_str() {
            "UNKNOWN" => Self::Unknown,
            "PREPARE" => Self::Prepare,
            "PREPARED" => Self::Prepared,
            "COMMITTED" => Self::Committed,
            "VISIBLE" => Self::Visible,
            "ABORTED" => Self::Aborted,
            _ => return None,
        })
    }
}

/// An answer's fields that anyone looks at; missing ones are empty or zero.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// Status name as the server wrote it.
    pub status: String,
    pub message: String,
    pub label: String,
    pub txn_id: Option<i64>,
    /// `get_load_state` only.
    pub state: Option<TxnState>,
    pub existing_job_status: String,
    pub total_rows: u64,
    pub loaded_rows: u64,
    pub filtered_rows: u64,
    pub unselected_rows: u64,
    pub load_bytes: u64,
    pub error_url: Option<String>,
}

impl Answer {
    /// Reads an answer's JSON without regard to the case of keys; `None` when it is no JSON object with a status.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let value: serde_json::Value = serde_json::from_slice(body).ok()?;
        let mut answer = Self::default();
        let mut has_status = false;
        for (key, value) in value.as_object()? {
            let text = || value.as_str().map(str::to_owned).unwrap_or_default();
            let number = || value.as_u64().unwrap_or_default();
            match key.to_ascii_lowercase().as_str() {
                "status" => {
                    has_status = true;
                    answer.status = text();
                }
                "message" => answer.message = text(),
                "msg" if answer.message.is_empty() => answer.message = text(),
                "label" => answer.label = text(),
                "txnid" => answer.txn_id = value.as_i64(),
                "state" => answer.state = value.as_str().and_then(TxnState::parse),
                "existingjobstatus" => answer.existing_job_status = text(),
                "numbertotalrows" => answer.total_rows = number(),
                "numberloadedrows" => answer.loaded_rows = number(),
                "numberfilteredrows" => answer.filtered_rows = number(),
                "numberunselectedrows" => answer.unselected_rows = number(),
                "loadbytes" => answer.load_bytes = number(),
                "errorurl" => answer.error_url = value.as_str().map(str::to_owned),
                _ => {}
            }
        }
        has_status.then_some(answer)
    }

    /// Rows that the counts account for.
    pub fn total(&self) -> u64 {
        self.loaded_rows.saturating_add(self.filtered_rows).saturating_add(self.unselected_rows)
    }

    /// Whether a transaction call was done. Only `OK` says so.
    pub fn is_ok(&self) -> bool {
        self.status.eq_ignore_ascii_case("ok")
    }

    /// Whether a plain load is committed; its rows may become visible a little later.
    pub fn is_loaded(&self) -> bool {
        self.status.eq_ignore_ascii_case("Success") || self.status.eq_ignore_ascii_case("Publish Timeout")
    }

    /// A plain load in which no row was left to write; aborted, and nothing is wrong.
    pub fn is_empty_load(&self) -> bool {
        self.says("all partitions have no load data") && self.loaded_rows == 0 && self.filtered_rows == 0
    }

    /// A plain load whose commit call got lost between BE and FE: it may be done although this is a refusal.
    pub fn is_commit_in_doubt(&self) -> bool {
        self.says("transaction status unknown") || self.says("commit transaction fail")
    }

    /// Another transaction that is not aborted holds the label. Some versions say so in words only.
    pub fn is_label_conflict(&self) -> bool {
        self.status.eq_ignore_ascii_case("LABEL_ALREADY_EXISTS")
            || self.status.eq_ignore_ascii_case("Label Already Exists")
            || self.says("has already been used")
    }

    /// The server has no such transaction (any more); proves nothing about what became of it.
    pub fn is_txn_missing(&self) -> bool {
        self.status.eq_ignore_ascii_case("TXN_NOT_EXISTS")
            || self.says("txn_not_exists")
            || self.says("not exists")
            || self.says("no transaction found")
            || self.says("can't find the transaction")
            || self.says("has no backend")
    }

    /// A server before 2.4, which has no transaction interface.
    pub fn is_not_implemented(&self) -> bool {
        self.says("not implemented")
    }

    /// Every node that could take the load is down.
    pub fn says_no_backend(&self) -> bool {
        self.says("no backend")
    }

    /// The server takes the load for what it is and refuses rows in it; never said in distress or for want of a node.
    pub fn refuses_rows(&self) -> bool {
        const WORDS: [&str; 4] = [
            "too many filtered rows",
            "unrecognized json format",
            "illegal json",
            "primary key size exceed the limit",
        ];
        self.class() != FailureClass::Distress && WORDS.iter().any(|words| self.says(words))
    }

    /// A load that holds no row to be written, because all were filtered or unselected, or none came.
    pub fn wrote_nothing(&self) -> bool {
        self.class() != FailureClass::Distress && self.says("all partitions have no load data")
    }

    /// The commit took longer than the server was told to wait for; it may be committed all the same.
    pub fn is_publish_timeout(&self) -> bool {
        self.status.eq_ignore_ascii_case("PUBLISH_TIMEOUT") || self.says("publish timeout")
    }

    pub fn class(&self) -> FailureClass {
        classify_server_text(&self.text())
    }

    /// Status and message in one line, for messages to people.
    pub fn text(&self) -> String {
        if self.message.is_empty() {
            self.status.clone()
        } else {
            format!("{}: {}", self.status, self.message)
        }
    }

    fn says(&self, words: &str) -> bool {
        self.message.to_ascii_lowercase().contains(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fe_and_be_answers_are_read_alike() {
        let be =
            Answer::parse(br#"{"Status":"OK","Message":"","Label":"L1","TxnId":1011,"NumberLoadedRows":7}"#)
                .unwrap();
        assert!(be.is_ok());
        assert_eq!((be.txn_id, be.loaded_rows), (Some(1011), 7));
        let fe = Answer::parse(br#"{"status":"FAILED","code":"1","msg":"Not implemented"}"#).unwrap();
        assert!(!fe.is_ok() && fe.is_not_implemented());
    }

    #[test]
    fn a_label_conflict_is_seen_in_its_wrapped_form_too() {
        let wrapped = Answer::parse(br#"{"Status":"Fail","Message":"cancel stream task for exception: Label [L1] has already been used."}"#);
        assert!(wrapped.unwrap().is_label_conflict());
    }

    #[test]
    fn a_plain_load_is_done_when_it_is_committed_visible_or_not() {
        let loaded = |status: &str| Answer { status: status.into(), ..Answer::default() }.is_loaded();
        assert!(loaded("Success") && loaded("Publish Timeout"));
        assert!(!loaded("Fail") && !loaded("Label Already Exists") && !loaded("OK"));
    }

    #[test]
    fn trouble_of_the_server_is_never_a_refusal_of_rows() {
        let answer = |message: &str| Answer { message: message.to_owned(), ..Answer::default() };
        assert!(answer("too many filtered rows").refuses_rows());
        assert!(
            answer("Memory limit exceeded; all partitions have no load data").class()
                == FailureClass::Distress
        );
        for trouble in ["Memory limit exceeded; too many filtered rows", "timeout", "No backend alive", ""] {
            assert!(!answer(trouble).refuses_rows() && !answer(trouble).wrote_nothing(), "{trouble}");
        }
    }

    #[test]
    fn what_is_no_answer_is_not_taken_for_one() {
        assert_eq!(Answer::parse(b"<html>502</html>"), None);
        assert_eq!(Answer::parse(br#"{"TxnId":1}"#), None);
    }

    #[test]
    fn a_load_state_is_read() {
        let answer =
            Answer::parse(br#"{"state":"PREPARED","status":"OK","code":"0","msg":"Success","message":"OK"}"#)
                .unwrap();
        assert_eq!(answer.state, Some(TxnState::Prepared));
    }
}
