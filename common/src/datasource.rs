//! Data sources: where to connect, under names that jobs use. Passwords live here and nowhere else.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use ipnet::IpNet;

/// What kind of server a data source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatasourceKind {
    Mysql,
    Starrocks,
}

/// A secret that never prints.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself; for the moment of use only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("***")
    }
}

/// Where a password comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Password {
    Inline(Secret),
    /// Read at use, so that a rotated secret is taken up.
    File(PathBuf),
}

/// TLS to the query port.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SslMode {
    #[default]
    Disable,
    /// TLS when the server offers it, any certificate.
    Prefer,
    /// TLS with a certificate of this authority.
    VerifyCa { ca: PathBuf },
}

/// One entry of the data source file.
#[derive(Debug, Clone, PartialEq)]
pub struct Datasource {
    pub name: String,
    pub kind: DatasourceKind,
    /// Query endpoints, tried in order; never empty.
    pub hosts: Vec<String>,
    pub port: u16,
    /// StarRocks: FE HTTP addresses `http[s]://host:port`; the writer step's `loadUrl` wins.
    pub load_urls: Vec<String>,
    pub database: Option<String>,
    pub username: String,
    pub password: Password,
    pub ssl: SslMode,
    /// Registered `host:port` to reachable `host:port`, for BEs and FEs.
    pub address_map: BTreeMap<String, String>,
    /// Networks and host names that credentials may be sent to; `None`: hosts that a configured FE redirected to.
    pub allowed_backends: Option<Vec<AllowedBackend>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedBackend {
    Network(IpNet),
    Host(String),
}

impl Password {
    /// The password itself; a file is read now, its last line break is not part of it.
    pub fn reveal(&self) -> Result<Secret, crate::problem::Problem> {
        match self {
            Self::Inline(secret) => Ok(secret.clone()),
            Self::File(path) => match std::fs::read_to_string(path) {
                Ok(text) => Ok(Secret::new(text.trim_end_matches(['\n', '\r']))),
                Err(error) => Err(crate::problem::Problem::new(
                    crate::problem::Code::InvalidSettings,
                    format!("cannot read the password file: {error}"),
                )
                .at(path.display().to_string())
                .hint("password_file must name a file that this process may read")),
            },
        }
    }
}
