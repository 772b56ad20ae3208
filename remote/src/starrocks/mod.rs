//! StarRocks' HTTP side: the transaction interface of Stream Load ([`client`]) and what its answers mean ([`outcome`]).

pub mod client;
pub mod outcome;
