//! The servers outside, as both halves reach them: query connections ([`mysql`]) and StarRocks' load interface
//! ([`starrocks`]). Sends and receives; what an answer means is decided in pure code beside it.

pub mod mysql;
pub mod starrocks;
