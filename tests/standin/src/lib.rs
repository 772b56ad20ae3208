//! A faithful single-process StarRocks: several frontends and backends over HTTP, one MySQL port, one
//! transaction state machine, and a store whose rows appear atomically. It never shares code with the product.
//! Start reading at `cluster.rs` (what the nodes share), then `fe.rs` and `be.rs` (what a client meets).

pub mod store;
pub mod types;
pub mod types;
pub mod view;
