//! The seam between sources and the rest of the row path: whatever reads rows hands out borrowed cells, one row at a
//! time, without waiting between rows that are there already. Nothing behind this trait knows which driver or protocol is in front of it.

use starlift_common::problem::Problem;
use starlift_common::retry::FailureClass;
use starlift_common::row::Row;

/// A stream of rows, in memory that does not grow with the table. Dropping it early makes the server stop sending.
/// Neither function is called again after an error.
pub(crate) trait RowSource {
    /// The next row that is in memory, valid until the following call; `None`: ask [`RowSource::fill`].
    fn row(&mut self) -> Result<Option<Row<'_>>, ReadError>;

    /// Where the next row begins.
    fn mark(&self) -> Mark;

    /// Goes back to a mark that is no older than the last call of [`RowSource::fill`].
    fn rewind(&mut self, mark: Mark);

    /// Waits for rows; false after the last one. May be dropped and asked again: nothing is lost.
    fn fill(&mut self) -> impl Future<Output = Result<bool, ReadError>> + Send;

    /// Whether the server guarantees that every cell is UTF-8.
    fn is_utf8(&self) -> bool;
}

/// A place among the rows in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) at: usize,
    /// The number of the packet there.
    pub(crate) sequence: u8,
}

/// Why rows cannot be read (on).
#[derive(Debug, Clone, thiserror::Error)]
#[error("{problem}")]
pub(crate) struct ReadError {
    pub problem: Problem,
    pub class: FailureClass,
}
