//! StarRocks' HTTP side: the transaction interface of Stream Load ([`client`], kept in [`clients`]) and what its answers mean ([`outcome`]),
//! and how its bodies are packed ([`packing`]).

pub mod client;
pub mod clients;
pub mod outcome;
pub mod packing;
