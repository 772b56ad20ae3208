//! KILL, and ADMIN SHOW / SET FRONTEND CONFIG.

use opensrv_mysql::ErrorKind;

use super::{Listing, Outcome, Server, Session, SqlError, Words};
use crate::accounts::Right;

/// `KILL id` ends a connection, `KILL QUERY id` its running statement.
pub(super) fn kill(server: &Server, words: &mut Words) -> Result<Outcome, SqlError> {
    words.expect("KILL")?;
    let only_statement = words.eat("QUERY");
    let _ = words.eat("CONNECTION");
    let id = words.number()?;
    let entry = server
        .sessions
        .find(id)
        .ok_or_else(|| SqlError::new(ErrorKind::ER_NO_SUCH_THREAD, format!("Unknown thread id: {id}")))?;
    if !only_statement {
        // First, so that the connection is gone before the statement's error can go out on it.
        entry.cancel.cancel();
    }
    entry.kill_statement();
    Ok(Outcome::Changed(0))
}

/// `ADMIN SHOW FRONTEND CONFIG [LIKE pattern]`, `ADMIN SET FRONTEND CONFIG ("name" = "value")`.
pub(super) fn admin(server: &Server, session: &Session, words: &mut Words) -> Result<Outcome, SqlError> {
    words.expect("ADMIN")?;
    server.demand(session, Right::Operate, None)?;
    let cluster =
        server.cluster.as_ref().ok_or_else(|| SqlError::analysis("the server is still starting"))?;
    if words.eat("SET FRONTEND CONFIG") {
        words.expect("(")?;
        loop {
            let name = words.value()?;
            words.expect("=")?;
            cluster.set_frontend_config(&name, &words.value()?).map_err(SqlError::analysis)?;
            if words.eat(")") {
                return Ok(Outcome::Changed(0));
            }
            words.expect(",")?;
        }
    }
    words.expect("SHOW FRONTEND CONFIG")?;
    let pattern = if words.eat("LIKE") { Some(words.string()?) } else { None };
    let rows = cluster
        .frontend_config()
        .into_iter()
        .filter(|(name, _)| pattern.as_deref().is_none_or(|pattern| crate::catalog::like(pattern, name)))
        .map(|(name, value)| {
            let cells = [
                name.to_owned(),
                "[]".to_owned(),
                value,
                "string".to_owned(),
                "true".to_owned(),
                String::new(),
            ];
            cells.into_iter().map(Some).collect()
        })
        .collect();
    Ok(Outcome::Listing(Listing {
        columns: vec!["Key", "AliasNames", "Value", "Type", "IsMutable", "Comment"],
        rows,
    }))
}
