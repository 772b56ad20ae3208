//! The generated wire types and services of Starlift; nothing here is written by hand.
//! Field meanings and units stand in `migration.proto`. Domain types are reached through
//! `starlift_common::wire` only.

tonic::include_proto!("starlift.v1");

/// What KEDA asks.
pub mod externalscaler {
    tonic::include_proto!("externalscaler");
}
