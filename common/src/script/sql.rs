//! Enough of SQL's surface to split statements and to refuse a `where` that is more than a condition: literals, quoted
//! names, comments, parentheses. Understands no grammar; the server does that.

/// One piece of SQL text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece<'a> {
    /// Letters, digits, `_` and `$`, and everything beyond ASCII.
    Word(&'a str),
    /// A literal or a quoted name, with its quotes.
    Quoted,
    Comment,
    Space,
    Other(char),
}

/// A literal, quoted name or comment that never ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unterminated {
    /// Byte where it begins.
    start: usize,
    what: &'static str,
}

impl Unterminated {
    /// "unterminated string literal at column 14"; columns count characters from 1.
    pub(super) fn describe(self, sql: &str) -> String {
        let column = sql[..self.start].chars().count() + 1;
        format!("unterminated {} at column {column}", self.what)
    }
}

/// Pieces with the byte range of each.
fn pieces(sql: &str) -> impl Iterator<Item = Result<(Piece<'_>, usize, usize), Unterminated>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at;
        let rest = sql.get(start..).filter(|rest| !rest.is_empty())?;
        match piece(rest) {
            Ok((piece, len)) => {
                at += len;
                Some(Ok((piece, start, at)))
            }
            Err(what) => {
                at = sql.len();
                Some(Err(Unterminated { start, what }))
            }
        }
    })
}

/// The piece that `rest` begins with, and its length in bytes.
fn piece(rest: &str) -> Result<(Piece<'_>, usize), &'static str> {
    let first = rest.chars().next().unwrap_or(' ');
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii();
    let line_end = || rest.find('\n').unwrap_or(rest.len());
    Ok(match first {
        '\'' => (Piece::Quoted, quoted_len(rest, '\'').ok_or("string literal")?),
        '"' => (Piece::Quoted, quoted_len(rest, '"').ok_or("string literal")?),
        '`' => (Piece::Quoted, quoted_len(rest, '`').ok_or("quoted name")?),
        '#' => (Piece::Comment, line_end()),
        '-' if rest.starts_with("--") => (Piece::Comment, line_end()),
        '/' if rest.starts_with("/*") => (Piece::Comment, rest.find("*/").ok_or("comment")? + 2),
        c if c.is_whitespace() => (Piece::Space, c.len_utf8()),
        c if is_word(c) => {
            let len = rest.find(|c: char| !is_word(c) || c.is_whitespace()).unwrap_or(rest.len());
            (Piece::Word(&rest[..len]), len)
        }
        other => (Piece::Other(other), other.len_utf8()),
    })
}

/// A quote is doubled or, except in names, escaped with a backslash.
fn quoted_len(text: &str, quote: char) -> Option<usize> {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((index, c)) = chars.next() {
        match c {
            '\\' if quote != '`' => {
                chars.next();
            }
            c if c == quote => match chars.peek() {
                Some((_, next)) if *next == quote => {
                    chars.next();
                }
                _ => return Some(index + quote.len_utf8()),
            },
            _ => {}
        }
    }
    None
}

/// The statements of `sql`, parted by semicolons outside of literals and comments. Empty ones, and those of comments
/// alone, are left out.
pub(super) fn split_statements(sql: &str) -> Result<Vec<String>, Unterminated> {
    let mut statements = Vec::new();
    let mut start = 0;
    let mut says_something = false;
    for piece in pieces(sql) {
        let (piece, from, to) = piece?;
        match piece {
            Piece::Other(';' | '；') => {
                if says_something {
                    statements.push(sql[start..from].trim().to_owned());
                }
                (start, says_something) = (to, false);
            }
            Piece::Space | Piece::Comment => {}
            _ => says_something = true,
        }
    }
    if says_something {
        statements.push(sql[start..].trim().to_owned());
    }
    Ok(statements)
}

/// What is wrong with a `where` condition; `None` when it may be pasted between parentheses.
pub(super) fn condition_fault(condition: &str) -> Option<String> {
    let mut depth = 0_u32;
    let mut previous = String::new();
    for piece in pieces(condition) {
        let (piece, from, _) = match piece {
            Ok(piece) => piece,
            Err(unterminated) => return Some(format!("{} of where", unterminated.describe(condition))),
        };
        let column = || condition[..from].chars().count() + 1;
        match piece {
            Piece::Comment if !condition[from..].starts_with("/*") => {
                let mark = if condition[from..].starts_with('#') { "#" } else { "--" };
                return Some(format!("comment {mark} at column {} of where is not allowed", column()));
            }
            Piece::Other(';' | '；') => {
                return Some(format!(
                    "where is one condition only; there is a semicolon at column {}",
                    column()
                ));
            }
            Piece::Other('(') => depth += 1,
            Piece::Other(')') if depth == 0 => {
                return Some(format!(
                    "closing parenthesis without an opening one at column {} of where",
                    column()
                ));
            }
            Piece::Other(')') => depth -= 1,
            Piece::Word(word) if depth == 0 => {
                let word = word.to_ascii_uppercase();
                if let Some(clause) = clause(&previous, &word) {
                    return Some(format!("where is a condition only; {clause} is not allowed"));
                }
                previous = word;
                continue;
            }
            Piece::Space | Piece::Comment => continue,
            _ => {}
        }
        previous.clear();
    }
    (depth > 0).then(|| format!("{depth} opening parenthesis without a closing one in where"))
}

/// The clause that these two words begin, if it has no place in a condition.
fn clause(previous: &str, word: &str) -> Option<&'static str> {
    match (previous, word) {
        (_, "LIMIT") => Some("LIMIT"),
        ("ORDER", "BY") => Some("ORDER BY"),
        ("GROUP", "BY") => Some("GROUP BY"),
        (_, "HAVING") => Some("HAVING"),
        (_, "UNION") => Some("UNION"),
        (_, "WHERE") => Some("the word WHERE"),
        _ => None,
    }
}

/// Whether the statement reads and does nothing else, by its first word.
pub(super) fn is_select(sql: &str) -> bool {
    let mut words = pieces(sql).filter_map(|piece| match piece {
        Ok((Piece::Word(word), ..)) => Some(word),
        _ => None,
    });
    words.next().is_some_and(|word| word.eq_ignore_ascii_case("select") || word.eq_ignore_ascii_case("with"))
}

/// The elements of a list parted by commas outside of quotes; blank ones are left out.
pub(super) fn split_list(text: &str) -> Vec<&str> {
    let commas = pieces(text).filter_map(|piece| match piece {
        Ok((Piece::Other(','), from, _)) => Some(from),
        _ => None,
    });
    let mut start = 0;
    let mut elements: Vec<&str> = commas
        .map(|comma| {
            let element = &text[start..comma];
            start = comma + 1;
            element
        })
        .collect();
    elements.push(&text[start..]);
    elements.into_iter().map(str::trim).filter(|element| !element.is_empty()).collect()
}

/// The parts of a possibly quoted, possibly qualified name: `` `my.db`.t `` is `my.db` and `t`. `None` when it is none.
pub(super) fn name_parts(text: &str) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    let mut rest = text.trim();
    loop {
        let end =
            if rest.starts_with('`') { quoted_len(rest, '`')? } else { rest.find('.').unwrap_or(rest.len()) };
        let part = unquote(&rest[..end])?;
        parts.push(part);
        rest = match rest[end..].strip_prefix('.') {
            Some(next) => next,
            None if rest.len() == end => return Some(parts),
            None => return None,
        };
    }
}

/// A name without its backticks; `None` when it is empty or more than one name.
pub(super) fn unquote(text: &str) -> Option<String> {
    let text = text.trim();
    let name = match text.strip_prefix('`').and_then(|inner| inner.strip_suffix('`')) {
        Some(inner) => inner.replace("``", "`"),
        None if text.contains(['`', '(', ')', ',', ';', '\'', '"']) => return None,
        None if text.contains(char::is_whitespace) => return None,
        None => text.to_owned(),
    };
    (!name.trim().is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_part_at_semicolons_outside_of_text_and_comments() {
        let sql =
            "delete from t where a = ';' ; -- why; not\n insert into t values (\"x\\\";y\", `a;b`) /* ; */;;";
        assert_eq!(
            split_statements(sql).expect("all is terminated"),
            [
                "delete from t where a = ';'",
                "-- why; not\n insert into t values (\"x\\\";y\", `a;b`) /* ; */"
            ]
        );
        assert_eq!(split_statements(" ; -- nothing").expect("all is terminated"), Vec::<String>::new());
        assert_eq!(
            split_statements("select 'it''s").expect_err("it has no end").describe("select 'it''s"),
            "unterminated string literal at column 8"
        );
    }

    #[test]
    fn a_condition_is_a_condition() {
        for good in [
            "a = 1 or b in (select x from y order by z limit 3)",
            "note = 'order by -- # limit'",
            "`limit` > 3 and `order` = 5 /* fine */",
            "order_by = 1 and limits > 2",
            "名 = '値'",
        ] {
            assert_eq!(condition_fault(good), None, "{good}");
        }
        for (bad, part) in [
            ("limit 10", "LIMIT"),
            ("a=1 order\n by b", "ORDER BY"),
            ("a=1 group by b", "GROUP BY"),
            ("where a=1", "WHERE"),
            ("a=1; drop table t", "semicolon at column 4"),
            ("a=1 -- c", "-- at column 5"),
            ("a=1 # c", "# at column 5"),
            ("name = 'it", "unterminated string literal at column 8 of where"),
            ("(a=1", "without a closing"),
            ("a=1)", "closing parenthesis"),
            ("a=1 /* c", "unterminated comment"),
        ] {
            let fault = condition_fault(bad).unwrap_or_default();
            assert!(fault.contains(part), "{bad}: {fault}");
        }
    }

    #[test]
    fn a_list_parts_at_commas_outside_of_quotes() {
        assert_eq!(split_list("a, `b,c` ,,d"), ["a", "`b,c`", "d"]);
        assert_eq!(split_list(" "), Vec::<&str>::new());
    }

    #[test]
    fn only_statements_that_read_are_selects() {
        assert!(is_select("/* why */ (SELECT 1)") && is_select("with a as (select 1) select * from a"));
        assert!(!is_select("delete from t") && !is_select(""));
    }

    #[test]
    fn names_lose_their_backticks() {
        assert_eq!(name_parts("`my.db`.t"), Some(vec!["my.db".to_owned(), "t".to_owned()]));
        assert_eq!(name_parts("`a``b`"), Some(vec!["a`b".to_owned()]));
        for bad in ["", "a.", "a b", "`a", "f(x)", "a,b", "`a`b"] {
            assert_eq!(name_parts(bad), None, "{bad}");
        }
    }
}
