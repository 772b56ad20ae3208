//! Data sources: where to connect, under names that jobs use. Passwords live here and nowhere else: they reach no log,
//! no message, no state store and no wire. How the file is read stands in [`file`], how an entry is written in [`entry`].

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use ipnet::IpNet;

use crate::nearest::did_you_mean;
use crate::problem::{Code, Problem};

mod entry;
mod file;

pub use entry::Entry;

/// All entries of one data source file, by name.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Datasources {
    entries: BTreeMap<String, Datasource>,
}

impl Datasources {
    /// Reads the TOML file at `path`; `${NAME}` inside a string is replaced by what `env` knows. All faults are told
    /// together ([`Code::InvalidSettings`]), each with its place in the file.
    pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Vec<Problem>> {
        let place = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| {
            vec![
                Problem::new(Code::InvalidSettings, format!("cannot read the data source file: {error}"))
                    .at(place.clone())
                    .hint("name the file with --datasources"),
            ]
        })?;
        Self::parse(&text, env).map_err(|problems| {
            let placed = |mut problem: Problem| {
                problem.place = format!("{place} {}", problem.place).trim_end().to_owned();
                problem
            };
            problems.into_iter().map(placed).collect()
        })
    }

    /// [`Self::load`] without the file.
    pub fn parse(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Vec<Problem>> {
        let entries = file::parse(text, env)?;
        Ok(Self { entries })
    }

    /// Those that a job brought along.
    pub fn of(entries: impl IntoIterator<Item = Datasource>) -> Self {
        Self { entries: entries.into_iter().map(|entry| (entry.name.clone(), entry)).collect() }
    }

    pub fn get(&self, name: &str) -> Option<&Datasource> {
        self.entries.get(name)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The entry of that name, or a problem at `place` ([`Code::UnknownDatasource`]) that lists what is known.
    pub fn find(&self, name: &str, place: &str) -> Result<&Datasource, Problem> {
        self.get(name).ok_or_else(|| {
            let known = match self.entries.len() {
                0 => "no data source is defined".to_owned(),
                _ => format!("known: {}", self.names().collect::<Vec<_>>().join(", ")),
            };
            let guess = did_you_mean(name, self.names());
            Problem::new(Code::UnknownDatasource, format!("unknown data source \"{name}\""))
                .at(place)
                .hint(if guess.is_empty() { known } else { format!("{guess} {known}") })
        })
    }
}

/// The entries that hold now: a long-lived process may read its file again. Cheap to clone; whoever begins something
/// takes [`Self::now`] and stays with it to the end.
#[derive(Debug, Clone, Default)]
pub struct LiveDatasources(Arc<RwLock<Arc<Datasources>>>);

impl LiveDatasources {
    pub fn new(datasources: Datasources) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(datasources))))
    }

    pub fn now(&self) -> Arc<Datasources> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether these entries are others than before.
    pub fn replace(&self, datasources: Datasources) -> bool {
        let mut present = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let differs = **present != datasources;
        if differs {
            *present = Arc::new(datasources);
        }
        differs
    }
}

/// What kind of server a data source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatasourceKind {
    Mysql,
    Starrocks,
}

/// A secret that never prints.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl DatasourceKind {
    /// As the file and the job script write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mysql => "mysql",
            Self::Starrocks => "starrocks",
        }
    }
}

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

/// TLS to the query port, and the authority of `https` FEs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SslMode {
    #[default]
    Disable,
    /// TLS when the server offers it, any certificate.
    Prefer,
    /// TLS with a certificate of this authority; an `https` FE must have one of it, too.
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
    pub fn reveal(&self) -> Result<Secret, Problem> {
        match self {
            Self::Inline(secret) => Ok(secret.clone()),
            Self::File(path) => match std::fs::read_to_string(path) {
                Ok(text) => Ok(Secret::new(text.trim_end_matches(['\n', '\r']))),
                Err(error) => Err(Problem::new(
                    Code::InvalidSettings,
                    format!("cannot read the password file: {error}"),
                )
                .at(path.display().to_string())
                .hint("password_file must name a file that this process may read")),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let text = "[shop]\ntype = 'mysql'\nhost = 'db'\nusername = 'u'\npassword = 'hidden'\n";
        let sources = Datasources::parse(text, &|_| None).expect("a good file");
        let problem = sources.find("shpo", "/steps/0/parameter/datasource").expect_err("it is not there");
        assert_eq!(problem.code, Code::UnknownDatasource);
        assert_eq!(
            problem.to_string(),
            "/steps/0/parameter/datasource: unknown data source \"shpo\" (did you mean `shop`? known: shop)"
        );
        assert!(!format!("{sources:?}").contains("hidden"));
    }

    #[test]
    fn a_password_file_is_read_at_use_without_its_line_break() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), "first\n").expect("it is writable");
        let password = Password::File(file.path().to_owned());
        assert_eq!(password.reveal().expect("it is there").expose(), "first");
        std::fs::write(file.path(), "rotated\r\n").expect("it is writable");
        assert_eq!(password.reveal().expect("it is there").expose(), "rotated");
        assert_eq!(
            Password::File("/nowhere/at/all".into()).reveal().expect_err("it is missing").place,
            "/nowhere/at/all"
        );
    }
}
