//! The transaction interface of Stream Load over HTTP.
