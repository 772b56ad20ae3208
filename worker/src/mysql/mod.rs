//! Sources that speak the MySQL protocol: MySQL, MariaDB, and StarRocks' query port.

pub(crate) mod source;
