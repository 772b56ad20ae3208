//! The rows that an attempt has left out: how many, the first ones for the report, and all of them in a file when the
//! worker was given a directory. The file counts once the attempt is prepared: until then it has another name, and an
//! attempt that ends otherwise leaves none. Never writes a value into a log.

use std::io;
use std::path::{Path, PathBuf};

use starlift_common::problem::{Code, Problem};
use starlift_common::row::Row;
use starlift_common::task::{AttemptKey, BAD_ROW_BYTES_PER_REPORT, BAD_ROWS_MAX, BadRow};
use tokio::fs::{self, DirBuilder, File, OpenOptions};
use tokio::io::{AsyncWriteExt, BufWriter};

use crate::isolate::Reason;

/// Most of a reason, and of a key, in a report: both may quote a value of any length.
const TEXT_BYTES_MAX: usize = 1024;
/// Bad rows that a message about a failed attempt names.
pub(crate) const ROWS_IN_A_MESSAGE: usize = 3;
/// For rows beyond those that are tried alone.
const UNEXPLAINED: &str = "filtered by the server, like every row around it";

/// What the worker was told about bad rows.
#[derive(Debug, Clone, Default)]
pub(crate) struct DirtySettings {
    pub dir: Option<PathBuf>,
    /// This machine's name, for people who look for the file.
    pub host: String,
    /// Lengths stand for values.
    pub masked: bool,
}

/// The bad rows of one pass over a range.
pub(crate) struct DirtyRows<'a> {
    settings: &'a DirtySettings,
    attempt: AttemptKey,
    columns: &'a [String],
    count: u64,
    first: Vec<BadRow>,
    first_bytes: usize,
    file: Option<DirtyFile>,
}

impl<'a> DirtyRows<'a> {
    pub(crate) fn new(settings: &'a DirtySettings, attempt: AttemptKey, columns: &'a [String]) -> Self {
        Self { settings, attempt, columns, count: 0, first: Vec::new(), first_bytes: 0, file: None }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// `key`: the row's split key, empty where it was not selected. Fails when the file cannot be written.
    pub(crate) async fn add(
        &mut self,
        row: &Row<'_>,
        key: String,
        reason: Option<Reason>,
    ) -> Result<(), Problem> {
        let Reason { column, text } =
            reason.unwrap_or_else(|| Reason { column: String::new(), text: UNEXPLAINED.to_owned() });
        let text = if self.settings.masked { masked(&text).to_owned() } else { text };
        let bad = BadRow { key, column, reason: text };
        if let Some(dir) = &self.settings.dir {
            let file = match &mut self.file {
                Some(file) => file,
                None => self.file.insert(DirtyFile::create(dir, self.attempt).await?),
            };
            let line = serde_json::json!({
                "key": &bad.key,
                "column": &bad.column,
                "reason": &bad.reason,
                "row": row_json(row, self.columns, self.settings.masked),
            });
            file.write(&line.to_string()).await?;
        }
        self.count += 1;
        self.keep(bad);
        Ok(())
    }

    fn keep(&mut self, mut bad: BadRow) {
        cut(&mut bad.key);
        cut(&mut bad.reason);
        let bytes = self.first_bytes + bad.size();
        if self.first.len() < BAD_ROWS_MAX && bytes <= BAD_ROW_BYTES_PER_REPORT {
            self.first_bytes = bytes;
            self.first.push(bad);
        }
    }

    /// The first bad rows on one line, for a message.
    pub(crate) fn first_in_words(&self) -> String {
        let rows = self.first.iter().take(ROWS_IN_A_MESSAGE).map(|row| {
            let key = if row.key.is_empty() { String::new() } else { format!("row {}: ", row.key) };
            format!("{key}{}", row.reason)
        });
        rows.collect::<Vec<_>>().join(" | ")
    }

    /// The first bad rows, and `host:path` of the file that holds all of them (empty when there is none).
    pub(crate) async fn finish(self) -> Result<(Vec<BadRow>, String), Problem> {
        let place = match self.file {
            Some(file) => format!("{}:{}", self.settings.host, file.finish().await?.display()),
            None => String::new(),
        };
        Ok((self.first, place))
    }
}

/// Shortens to a whole number of characters.
fn cut(text: &mut String) {
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        text.push_str("...");
    }
}

/// `DIR/JOB/TASK_EPOCH.jsonl`, by another name until it is finished. Dropped before, it is removed.
struct DirtyFile {
    out: BufWriter<File>,
    unfinished: PathBuf,
    path: PathBuf,
    is_finished: bool,
}

impl DirtyFile {
    async fn create(dir: &Path, attempt: AttemptKey) -> Result<Self, Problem> {
        let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
        let dir = dir.join(attempt.task.job.to_string());
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .await
            .map_err(|error| unwritable(&dir, &error))?;
        let name = format!("{}_{}.jsonl", attempt.task.task, attempt.epoch);
        let (path, unfinished) = (dir.join(&name), dir.join(name + ".part"));
        // Its rows are for whoever runs the worker.
        let file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished).await;
        let file = file.map_err(|error| unwritable(&unfinished, &error))?;
        Ok(Self { out: BufWriter::new(file), unfinished, path, is_finished: false })
    }

    async fn write(&mut self, line: &str) -> Result<(), Problem> {
        let written = async {
            self.out.write_all(line.as_bytes()).await?;
            self.out.write_all(b"\n").await
        };
        written.await.map_err(|error| unwritable(&self.unfinished, &error))
    }

    async fn finish(mut self) -> Result<PathBuf, Problem> {
        let finished = async {
            self.out.flush().await?;
            self.out.get_ref().sync_all().await?;
            fs::rename(&self.unfinished, &self.path).await
        };
        finished.await.map_err(|error| unwritable(&self.path, &error))?;
        self.is_finished = true;
        Ok(self.path.clone())
    }
}

impl Drop for DirtyFile {
    fn drop(&mut self) {
        if !self.is_finished {
            // It may be half written, and nobody is told of it: what cannot be removed does no harm.
            let _removed = std::fs::remove_file(&self.unfinished);
        }
    }
}

fn unwritable(path: &Path, error: &io::Error) -> Problem {
    Problem::new(Code::Internal, format!("cannot write the file of bad rows: {error}"))
        .at(path.display().to_string())
        .hint("make the worker's --dirty-dir writable, with room for the rows, or leave it out")
}

/// The words less every value: what kind of fault it is, for where values must not be shown.
fn masked(text: &str) -> &'static str {
    const KINDS: [&str; 15] = [
        "NULL value in non-nullable column",
        "is too long",
        "is out of range",
        "Value count does not match column count",
        "UTF-8",
        "partition",
        "delimiter of the job",
        "CSV reads as NULL",
        "neither 0, 1, true nor false",
        "no whole number",
        "no decimal number",
        "zero year, month or day",
        "YYYY-MM-DD",
        "JSON document",
        "zero byte",
    ];
    KINDS.into_iter().find(|kind| text.contains(kind)).unwrap_or("refused by the server")
}

/// A row's cells as one JSON object: text, `null`, `{"hex": ..}` for what is no text; masked:
/// the bytes of each cell.
fn row_json(row: &Row<'_>, columns: &[String], masked: bool) -> serde_json::Value {
    let value = |cell: Option<&[u8]>| match (cell, masked) {
        (None, _) => serde_json::Value::Null,
        (Some(cell), true) => cell.len().into(),
        (Some(cell), false) => match std::str::from_utf8(cell) {
            Ok(text) => text.into(),
            Err(_) => serde_json::json!({ "hex": hex(cell) }),
        },
    };
    columns.iter().cloned().zip(row.cells().map(value)).collect::<serde_json::Map<_, _>>().into()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use starlift_common::ids::{Epoch, JobId, TaskId, TaskKey};

    use super::*;
    use crate::encode::testing::{buffer, cells};

    fn attempt() -> AttemptKey {
        let task = TaskKey { job: JobId::from_parts(1, 1), task: TaskId(7) };
        AttemptKey { task, epoch: Epoch(3) }
    }

    fn settings(dir: Option<&Path>, masked: bool) -> DirtySettings {
        DirtySettings { dir: dir.map(Path::to_owned), host: "node1".into(), masked }
    }

    fn reason() -> Option<Reason> {
        Some(Reason { column: "name".into(), text: "String 'secret' is too long".into() })
    }

    fn files(dir: &Path) -> Vec<String> {
        let job = dir.join(attempt().task.job.to_string());
        let entries = std::fs::read_dir(job).expect("a directory");
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
    }

    #[tokio::test]
    async fn all_rows_are_in_the_file_once_it_is_finished() {
        let dir = tempfile::tempdir().expect("a directory");
        let settings = settings(Some(dir.path()), false);
        let columns = ["id".to_owned(), "name".to_owned()];
        let mut rows = DirtyRows::new(&settings, attempt(), &columns);
        for id in ["1", "2"] {
            let row = buffer(&cells(&[Some(id), Some("secret")]));
            rows.add(&row.row(), id.into(), reason()).await.expect("written");
        }
        assert_eq!((rows.count(), files(dir.path())), (2, vec!["7_3.jsonl.part".to_owned()]));
        let (first, place) = rows.finish().await.expect("finished");
        assert_eq!((first.len(), first[1].key.as_str(), first[1].column.as_str()), (2, "2", "name"));
        let path = place.strip_prefix("node1:").expect("host:path");
        let text = std::fs::read_to_string(path).expect("the file");
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines[0]["row"], serde_json::json!({ "id": "1", "name": "secret" }));
        assert_eq!((lines.len(), files(dir.path())), (2, vec!["7_3.jsonl".to_owned()]));
    }

    #[tokio::test]
    async fn an_attempt_that_fails_leaves_no_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let settings = settings(Some(dir.path()), false);
        let mut rows = DirtyRows::new(&settings, attempt(), &[]);
        rows.add(&buffer(&vec![]).row(), String::new(), None).await.expect("written");
        drop(rows);
        assert_eq!(files(dir.path()), Vec::<String>::new());
    }

    #[tokio::test]
    async fn masked_rows_show_no_value_but_the_key() {
        let settings = settings(None, true);
        let mut rows = DirtyRows::new(&settings, attempt(), &[]);
        let row = buffer(&cells(&[Some("secret")]));
        rows.add(&row.row(), "17".into(), reason()).await.expect("nothing to write");
        assert_eq!(rows.first_in_words(), "row 17: is too long");
        assert_eq!(
            rows.finish().await,
            Ok((
                vec![BadRow { key: "17".into(), column: "name".into(), reason: "is too long".into() }],
                String::new()
            ))
        );
        assert_eq!(masked("what 'secret' is this"), "refused by the server");
    }

    #[tokio::test]
    async fn a_report_holds_so_many_rows_and_no_more() {
        let settings = settings(None, false);
        let mut rows = DirtyRows::new(&settings, attempt(), &[]);
        for _ in 0..=BAD_ROWS_MAX {
            let long = Reason { column: String::new(), text: "ü".repeat(5000) };
            rows.add(&buffer(&vec![]).row(), String::new(), Some(long)).await.expect("nothing to write");
        }
        assert_eq!(rows.count(), BAD_ROWS_MAX as u64 + 1);
        let (first, _) = rows.finish().await.expect("no file");
        let bytes: usize = first.iter().map(BadRow::size).sum();
        assert!(
            first.len() > 200 && bytes <= BAD_ROW_BYTES_PER_REPORT,
            "{} rows, {bytes} bytes",
            first.len()
        );
    }

    #[test]
    fn a_row_is_kept_with_its_values_or_with_their_lengths() {
        let kept = buffer(&vec![Some(b"\xff".to_vec()), None, Some(b"abc".to_vec())]);
        let columns = ["a".to_owned(), "b".to_owned(), "c".to_owned()];
        let plain = row_json(&kept.row(), &columns, false);
        assert_eq!(plain, serde_json::json!({ "a": { "hex": "ff" }, "b": null, "c": "abc" }));
        let masked = row_json(&kept.row(), &columns, true);
        assert_eq!(masked, serde_json::json!({ "a": 1, "b": null, "c": 3 }));
    }
}
