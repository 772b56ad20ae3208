//! From a job file's text to a [`JobSpec`](crate::job::JobSpec): every fault found in one go.
