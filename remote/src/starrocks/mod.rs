//! StarRocks' HTTP side: the transaction interface of Stream Load ([`client`], kept in [`clients`]), what its calls
//! announce ([`headers`]), what its answers mean ([`outcome`]), and how its bodies are packed ([`packing`]).

pub mod client;
pub mod clients;
pub mod headers;
pub mod outcome;
pub mod packing;
