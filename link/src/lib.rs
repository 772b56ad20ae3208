//! How the processes of a cluster reach each other: listeners and connections, encrypted or not ([`listen`], [`dial`]),
//! who may ask for what ([`tokens`], [`guard`]), and the certificates of both sides ([`tls`]), which are read again while a
//! server runs ([`readings`]). Knows no message.

pub mod dial;
pub mod guard;
pub mod listen;
pub mod readings;
pub mod session;
pub mod tls;
pub mod tokens;

#[cfg(test)]
mod testing;

use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

/// Bytes both ways, encrypted or not.
pub trait Bytes: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Bytes for T {}

/// One connection. What it is made of matters to nobody.
pub type Wire = Pin<Box<dyn Bytes>>;

/// All causes of an error, the outermost first; what a message has said already is not said again.
pub fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |error| error.source()) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
