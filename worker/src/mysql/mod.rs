//! Sources that speak the MySQL protocol: MySQL, MariaDB, and StarRocks' query port.

mod connection;
mod login;
pub(crate) mod packets;
pub(crate) mod source;
mod tls;
