//! The servers outside, as both halves reach them: query connections ([`mysql`]), StarRocks' load interface
//! ([`starrocks`]), one row from the one into the other ([`trial`]), and whether all of them can be reached at all
//! ([`check`]). Sends and receives; what an answer means is decided in pure code beside it.

pub mod check;
pub mod mysql;
pub mod rows;
pub mod starrocks;
#[cfg(test)]
mod testing;
pub mod trial;
