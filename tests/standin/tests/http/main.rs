//! Conformance of the HTTP side: the stand-in is driven with curl and raw sockets only, as any client would. The number
//! in a test's name is that of the checklist of StarRocks behaviour.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod client;
mod counting;
mod labels;
mod rights;
mod stream_load;
mod transactions;
mod transport;
