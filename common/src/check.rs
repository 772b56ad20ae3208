//! A check of what surrounds a job: which addresses, logins and rights it needs ([`Scope`]), and what became of trying
//! them from one place ([`Findings`]). Pure. Holds names of data sources and never a secret: whoever tries has his own.

use std::time::Duration;

use crate::datasource::{Datasource, DatasourceKind};
use crate::job::{JobSpec, LoadSpec, ReadSpec, Relation, RelationSpec, SourceKind};
use crate::problem::Problem;

/// What is to be tried.
#[derive(Debug, Clone, PartialEq)]
pub struct Scope {
    pub sources: Vec<SourceScope>,
    /// `None`: nothing is loaded.
    pub target: Option<TargetScope>,
    /// `None`: whoever tries finds out.
    pub backends: Option<Backends>,
    /// How long it may take; what is not known by then is told as not known.
    pub patience: Duration,
}

/// The tables of one source that a job reads; without any the server alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceScope {
    pub kind: SourceKind,
    pub datasource: String,
    /// `None`: the data source's own.
    pub database: Option<String>,
    pub tables: Vec<String>,
}

/// The table that a job loads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetScope {
    pub datasource: String,
    /// `None`: the data source's own.
    pub database: Option<String>,
    /// Empty: the servers alone, and no table.
    pub table: String,
    /// FE addresses; empty: those of the data source.
    pub load_urls: Vec<String>,
    pub warehouse: Option<String>,
    pub label_prefix: String,
}

/// The nodes that loads may be sent to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Backends {
    pub nodes: Vec<Backend>,
    /// The server listed them itself; otherwise they were met by chance.
    pub complete: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backend {
    /// `host:port` as registered at the FE.
    pub address: String,
    /// As the FE says.
    pub alive: bool,
}

/// One row to be read from the source, loaded in a transaction and rolled back, as the plan would have it done.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    pub read: ReadSpec,
    pub load: LoadSpec,
}

/// What was found from one place.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Findings {
    pub list: Vec<Finding>,
    /// What must be known to read the list rightly.
    pub notes: Vec<String>,
}

/// What became of one thing tried.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    pub part: Part,
    pub datasource: String,
    /// `host:port` as configured or registered; `db.table` for a row.
    pub address: String,
    /// `host:port` as this place reaches it; empty: the same.
    pub via: String,
    pub outcome: Outcome,
    pub took: Duration,
    /// What was learned on the way, or why it was not tried.
    pub told: String,
    /// What is wrong, and the line that mends it.
    pub problem: Option<Problem>,
}

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A query port of a source.
    Source,
    /// A query port of the target.
    Target,
    /// An FE's HTTP port.
    Frontend,
    /// A BE's or CN's HTTP port.
    Backend,
    /// A row in a transaction that is rolled back.
    Row,
    /// The same in a packed body.
    PackedRow,
}

impl Part {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Target => "target",
            Self::Frontend => "fe",
            Self::Backend => "be",
            Self::Row => "row",
            Self::PackedRow => "packed_row",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        const ALL: [Part; 6] =
            [Part::Source, Part::Target, Part::Frontend, Part::Backend, Part::Row, Part::PackedRow];
        ALL.into_iter().find(|part| part.as_str() == text)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// And everything behind it is as it should be.
    Reached,
    /// Nobody listens there.
    Refused,
    /// The name has no address here.
    Unresolved,
    TimedOut,
    LoginRefused,
    NoGrant,
    /// In another way, which the problem tells.
    Failed,
    NotTried,
}

impl Outcome {
    const ALL: [Self; 8] = [
        Self::Reached,
        Self::Refused,
        Self::Unresolved,
        Self::TimedOut,
        Self::LoginRefused,
        Self::NoGrant,
        Self::Failed,
        Self::NotTried,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reached => "reached",
            Self::Refused => "refused",
            Self::Unresolved => "unresolved",
            Self::TimedOut => "timed_out",
            Self::LoginRefused => "login_refused",
            Self::NoGrant => "no_grant",
            Self::Failed => "failed",
            Self::NotTried => "not_tried",
        }
    }

    /// An outcome that a newer peer has given a name of its own is at least none of the good ones.
    pub fn parse(text: &str) -> Self {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == text).unwrap_or(Self::Failed)
    }
}

impl Scope {
    /// What a job needs, as far as its script tells.
    pub fn of(spec: &JobSpec, patience: Duration) -> Self {
        let target = &spec.target;
        let mut sources: Vec<SourceScope> = Vec::new();
        for RelationSpec { datasource, database, relation } in &spec.source.relations {
            let is_known = |one: &SourceScope| one.datasource == *datasource && one.database == *database;
            let index = sources.iter().position(is_known).unwrap_or_else(|| {
                sources.push(SourceScope {
                    kind: spec.source.kind,
                    datasource: datasource.clone(),
                    database: database.clone(),
                    tables: Vec::new(),
                });
                sources.len() - 1
            });
            // Which tables a query reads is the server's to know.
            if let Relation::Table(table) = relation {
                sources[index].tables.push(table.clone());
            }
        }
        Self {
            sources,
            target: Some(TargetScope {
                datasource: target.datasource.clone(),
                database: target.database.clone(),
                table: target.table.clone(),
                load_urls: target.load_urls.clone(),
                warehouse: target.load.headers.get("warehouse").cloned(),
                label_prefix: target.label_prefix.clone(),
            }),
            backends: None,
            patience,
        }
    }

    /// What there is of a data source, without any table: of StarRocks also the ways that loads go.
    pub fn of_datasource(datasource: &Datasource, patience: Duration) -> Self {
        let name = datasource.name.clone();
        let (sources, target) = match datasource.kind {
            DatasourceKind::Mysql => {
                let kind = SourceKind::Mysql;
                (vec![SourceScope { kind, datasource: name, database: None, tables: Vec::new() }], None)
            }
            DatasourceKind::Starrocks => {
                let target = TargetScope {
                    datasource: name,
                    database: None,
                    table: String::new(),
                    load_urls: Vec::new(),
                    warehouse: None,
                    label_prefix: String::new(),
                };
                (Vec::new(), Some(target))
            }
        };
        Self { sources, target, backends: None, patience }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_parts_and_outcomes_are_read_back() {
        for part in [Part::Source, Part::Target, Part::Frontend, Part::Backend, Part::Row, Part::PackedRow] {
            assert_eq!(Part::parse(part.as_str()), Some(part));
        }
        for outcome in [
            Outcome::Reached,
            Outcome::Refused,
            Outcome::Unresolved,
            Outcome::TimedOut,
            Outcome::LoginRefused,
            Outcome::NoGrant,
            Outcome::Failed,
            Outcome::NotTried,
        ] {
            assert_eq!(Outcome::parse(outcome.as_str()), outcome);
        }
        assert_eq!(Outcome::parse("enchanted"), Outcome::Failed);
    }

    #[test]
    fn tables_of_one_database_are_tried_over_one_connection() {
        let relation = |datasource: &str, relation| RelationSpec {
            datasource: datasource.into(),
            database: None,
            relation,
        };
        let script = include_str!("../../tests/scripts/e3-shards.json");
        let mut spec = crate::script::parse(script).expect("a good script").spec;
        spec.source.relations = vec![
            relation("a", Relation::Table("t_0".into())),
            relation("b", Relation::Query("select 1".into())),
            relation("a", Relation::Table("t_1".into())),
        ];
        let sources = Scope::of(&spec, Duration::from_secs(1)).sources;
        let told: Vec<(&str, usize)> =
            sources.iter().map(|one| (one.datasource.as_str(), one.tables.len())).collect();
        assert_eq!(told, [("a", 2), ("b", 0)]);
    }
}
