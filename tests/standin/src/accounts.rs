//! Accounts beside the administrator, and what they may do. A right holds for all tables: who may do what is a matter of
//! tests, not of SQL here; GRANT and REVOKE are taken and change nothing.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// `name:password:RIGHT+RIGHT`, for example `loader:secret:SELECT+INSERT`; a right that is not named is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Account {
    pub(crate) name: String,
    pub(crate) password: String,
    rights: Vec<Right>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    Select,
    Insert,
    /// Looking at nodes and settings.
    Operate,
}

impl Right {
    fn name(self) -> &'static str {
        match self {
            Self::Select => "SELECT",
            Self::Insert => "INSERT",
            Self::Operate => "OPERATE",
        }
    }

    /// What the server says to an account that lacks it; `table`: of a right on a table.
    pub(crate) fn denied(self, table: Option<&str>) -> String {
        let place = table.map(|table| format!(" on TABLE {table}")).unwrap_or_default();
        format!(
            "Access denied; you need (at least one of) the {} privilege(s){place} for this operation",
            self.name()
        )
    }
}

impl Account {
    pub(crate) fn may(&self, right: Right) -> bool {
        self.rights.contains(&right)
    }
}

impl FromStr for Account {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("`{text}` is not of the form name:password:SELECT+INSERT+OPERATE");
        let mut parts = text.splitn(3, ':');
        let mut next = || parts.next().ok_or_else(wrong);
        let (name, password, rights) = (next()?, next()?, next()?);
        let all = [Right::Select, Right::Insert, Right::Operate];
        let named = rights.split('+').filter(|right| !right.is_empty()).map(|named| {
            all.into_iter().find(|right| right.name().eq_ignore_ascii_case(named)).ok_or_else(wrong)
        });
        Ok(Self {
            name: name.to_owned(),
            password: password.to_owned(),
            rights: named.collect::<Result<_, _>>()?,
        })
    }
}

impl TryFrom<String> for Account {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Account> for String {
    fn from(account: Account) -> Self {
        let rights: Vec<&str> = account.rights.iter().map(|right| right.name()).collect();
        format!("{}:{}:{}", account.name, account.password, rights.join("+"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_written_as_name_password_and_rights() {
        let account: Account = "loader:se:SELECT+insert".parse().unwrap();
        assert!(account.may(Right::Select) && account.may(Right::Insert) && !account.may(Right::Operate));
        assert!("loader:se:".parse::<Account>().is_ok_and(|account| !account.may(Right::Select)));
        assert!("loader:se".parse::<Account>().is_err() && "a:b:DANCE".parse::<Account>().is_err());
    }
}
