//! What both halves of Starlift and the command line must agree on: names, the job, tasks and key ranges, labels,
//! SQL text, failure classes, and the door between wire and domain.
//!
//! Opens no socket, reads no clock, and depends on neither half. Start with [`job`] and [`task`].

pub mod check;
pub mod datasource;
pub mod ids;
pub mod job;
pub mod label;
pub mod load_url;
pub mod nearest;
pub mod problem;
pub mod query;
pub mod retry;
pub mod row;
pub mod script;
pub mod task;
pub mod telemetry;
pub mod wire;
