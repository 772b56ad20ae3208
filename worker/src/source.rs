//! The seam between sources and the rest of the row path: whatever reads rows hands out borrowed cells, one row at a
//! time. Nothing behind this trait knows which driver or protocol is in front of it.

use starlift_common::problem::Problem;
use starlift_common::retry::FailureClass;
use starlift_common::row::Row;

/// A stream of rows, in memory that does not grow with the table. Dropping it early makes the server stop sending.
pub(crate) trait RowSource {
    /// The next row, valid until the following call; `None` after the last one. Never called again after an error.
    fn next(&mut self) -> impl Future<Output = Result<Option<Row<'_>>, ReadError>> + Send;
}

/// Why rows cannot be read (on).
#[derive(Debug, Clone, thiserror::Error)]
#[error("{problem}")]
pub(crate) struct ReadError {
    pub problem: Problem,
    pub class: FailureClass,
}
