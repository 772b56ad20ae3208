//! The rights that a job needs on a table, and the statement that grants them. Pure.

use starlift_common::datasource::{Datasource, DatasourceKind};
use starlift_common::problem::{Code, Problem};
use starlift_common::query::{table_name, text_literal};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    Select,
    Insert,
}

impl Right {
    fn name(self) -> &'static str {
        match self {
            Self::Select => "SELECT",
            Self::Insert => "INSERT",
        }
    }

    /// The problem of an account that lacks it; `words`: the server's own.
    pub fn missing(self, datasource: &Datasource, database: &str, table: &str, words: &str) -> Problem {
        let (user, name) = (&datasource.username, self.name());
        let message = format!("user {user} has no {name} on {database}.{table}: {}", words.trim());
        Problem::new(Code::NoPrivilege, message)
            .at(format!("{database}.{table}"))
            .hint(self.grant(datasource, database, table))
    }

    /// The statement by which an administrator gives it. StarRocks has this form from 3.0 on; before that, rights had
    /// names of their own.
    fn grant(self, datasource: &Datasource, database: &str, table: &str) -> String {
        let (name, account) = (self.name(), format!("{}@'%'", text_literal(&datasource.username)));
        let table = table_name(database, table);
        match datasource.kind {
            DatasourceKind::Mysql => format!("GRANT {name} ON {table} TO {account}"),
            DatasourceKind::Starrocks => {
                let old = match self {
                    Self::Select => "SELECT_PRIV",
                    Self::Insert => "LOAD_PRIV",
                };
                format!(
                    "GRANT {name} ON TABLE {table} TO USER {account}; before StarRocks 3.0: GRANT {old} ON {table} TO {account}"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::datasource;

    #[test]
    fn a_missing_right_is_told_with_the_statement_that_grants_it() {
        let mut target = datasource();
        let problem = Right::Insert.missing(&target, "dw", "t", "Access denied");
        assert_eq!(problem.message, "user loader has no INSERT on dw.t: Access denied");
        assert!(
            problem.hint.starts_with("GRANT INSERT ON TABLE `dw`.`t` TO USER 'loader'@'%'"),
            "{}",
            problem.hint
        );
        target.kind = DatasourceKind::Mysql;
        let problem = Right::Select.missing(&target, "shop", "t", "denied");
        assert_eq!(problem.hint, "GRANT SELECT ON `shop`.`t` TO 'loader'@'%'");
    }
}
