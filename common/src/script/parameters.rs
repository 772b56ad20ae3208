//! `${name}` and `$name` inside the strings of a script, replaced by what was given on the command line.
//!
//! Replacement is textual and unquoted, as in DataWorks, but happens inside JSON strings only, so that a value can never
//! change the structure of the job. A replaced value is not searched again.

use std::collections::BTreeMap;

use serde_json::Value;

use super::fields::escape;
use super::text;
use crate::problem::{Code, Problem};

/// The script with its parameters replaced, as canonical JSON: equal jobs give equal texts, however the file is laid
/// out. `$$` becomes `$`. A parameter without a value is [`Code::UnresolvedParameter`]; all of them are told at once.
pub fn substitute(script: &str, params: &BTreeMap<String, String>) -> Result<String, Vec<Problem>> {
    let mut value = text::read(script).map_err(|problem| vec![problem])?;
    let mut problems = Vec::new();
    replace_in(&mut value, "", params, &mut problems);
    if problems.is_empty() { Ok(format!("{value:#}\n")) } else { Err(problems) }
}

fn replace_in(
    value: &mut Value,
    pointer: &str,
    params: &BTreeMap<String, String>,
    problems: &mut Vec<Problem>,
) {
    match value {
        Value::String(text) if text.contains('$') => match replace(text, params) {
            Ok(replaced) => *text = replaced,
            Err(unresolved) => {
                problems.extend(unresolved.iter().map(|written| unresolved_problem(written, pointer)));
            }
        },
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                replace_in(item, &format!("{pointer}/{index}"), params, problems);
            }
        }
        Value::Object(map) => {
            for (key, item) in map {
                replace_in(item, &format!("{pointer}/{}", escape(key)), params, problems);
            }
        }
        _ => {}
    }
}

/// What stands after a `$`.
#[derive(Debug, PartialEq, Eq)]
enum Token<'a> {
    /// `$$`
    Dollar,
    /// `${name}` or `$name`
    Name { name: &'a str, written: &'a str },
    /// `${yyyymmdd-1}`, `$[hh24:mi:ss]`
    Time { name: &'a str, written: &'a str },
    /// A dollar that begins no known form, such as one in a regular expression or a JSON path.
    Literal,
}

fn unresolved_problem(written: &str, pointer: &str) -> Problem {
    let field = pointer
        .rsplit('/')
        .find(|token| !token.is_empty() && !token.bytes().all(|byte| byte.is_ascii_digit()))
        .unwrap_or("the script");
    let (message, hint) = match token(written) {
        Token::Time { .. } => (
            format!("time expression {written} in {field} is not evaluated"),
            "write a parameter such as ${day} in its place and pass --param day=...".to_owned(),
        ),
        Token::Name { name, .. } => (
            format!("parameter {written} in {field} has no value"),
            format!("pass --param {name}=..., or write $$ for a dollar sign"),
        ),
        Token::Dollar | Token::Literal => (format!("{written} in {field} has no value"), String::new()),
    };
    Problem::new(Code::UnresolvedParameter, message).at(pointer).hint(hint)
}

/// The text with its parameters replaced, or the parameters that have no value.
fn replace(text: &str, params: &BTreeMap<String, String>) -> Result<String, Vec<String>> {
    let mut out = String::with_capacity(text.len());
    let mut unresolved = Vec::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        rest = &rest[dollar..];
        let taken = match token(rest) {
            Token::Dollar => {
                out.push('$');
                2
            }
            Token::Literal => {
                out.push('$');
                1
            }
            Token::Name { name, written } | Token::Time { name, written } => {
                match value_of(name, params) {
                    Some(value) => out.push_str(value),
                    None => unresolved.push(written.to_owned()),
                }
                written.len()
            }
        };
        rest = &rest[taken..];
    }
    out.push_str(rest);
    if unresolved.is_empty() { Ok(out) } else { Err(unresolved) }
}

/// A value by its name, or by the name without DataWorks' old prefix.
fn value_of<'a>(name: &str, params: &'a BTreeMap<String, String>) -> Option<&'a str> {
    let short = name.strip_prefix("bdp.system.").unwrap_or(name);
    params.get(name).or_else(|| params.get(short)).map(String::as_str)
}

/// The token that `text`, which begins with a dollar, begins with.
fn token(text: &str) -> Token<'_> {
    let after = &text[1..];
    match after.bytes().next() {
        Some(b'$') => Token::Dollar,
        Some(b'{') => enclosed(text, '}'),
        Some(b'[') => enclosed(text, ']'),
        Some(first) if first.is_ascii_alphabetic() || first == b'_' => {
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let len = after.find(|c| !is_name(c)).unwrap_or(after.len());
            Token::Name { name: &after[..len], written: &text[..=len] }
        }
        _ => Token::Literal,
    }
}

/// `${...}` or `$[...]`.
fn enclosed(text: &str, close: char) -> Token<'_> {
    let Some(end) = text.find(close) else {
        return Token::Literal;
    };
    let (inner, written) = (&text[2..end], &text[..=end]);
    let begins_a_name = inner.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let is_name = begins_a_name && inner.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'));
    match close {
        '}' if is_time_format(inner) => Token::Time { name: inner, written },
        '}' if is_name => Token::Name { name: inner, written },
        ']' if begins_a_name => Token::Time { name: inner, written },
        _ => Token::Literal,
    }
}

/// Whether the text begins like a date format, `yyyymmdd` and its pieces.
fn is_time_format(text: &str) -> bool {
    let letters: &str = text.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or("");
    let mut rest = letters;
    while let Some(next) = ["yyyy", "yy", "mm", "dd", "hh24", "hh12", "hh", "mi", "ss"]
        .iter()
        .find_map(|piece| rest.strip_prefix(piece))
    {
        rest = next;
    }
    !letters.is_empty() && rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params() -> BTreeMap<String, String> {
        [("dt", "20260101"), ("d.x", "1"), ("q", "a'b\"c$dt")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    fn replaced(text: &str) -> String {
        replace(text, &params()).expect("every parameter has a value")
    }

    #[test]
    fn both_forms_are_replaced_and_a_value_is_not_searched_again() {
        assert_eq!(replaced("dt = '${dt}' or dt = $dt"), "dt = '20260101' or dt = 20260101");
        assert_eq!(replaced("${d.x}${bdp.system.dt}"), "120260101");
        assert_eq!(replaced("$q"), "a'b\"c$dt");
    }

    #[test]
    fn a_dollar_that_begins_no_known_form_stays() {
        for text in ["^a$", "'$.a[0]'", "$1", "$[0]", "${", "${}", "cost $ 5", "a${1,2}"] {
            assert_eq!(replaced(text), text);
        }
        assert_eq!(replaced("$$dt $${dt}"), "$dt ${dt}");
    }

    #[test]
    fn a_longer_name_is_never_half_replaced() {
        assert_eq!(replace("$dt2", &params()), Err(vec!["$dt2".to_owned()]));
    }

    #[test]
    fn what_has_no_value_is_told_with_its_place_and_a_remedy() {
        let script = r#"{"steps":[{"parameter":{"where":"a > '${day}'","preSql":["delete $bizdate", "x ${yyyymmdd-1} $[hh24]"]}}]}"#;
        let told: Vec<String> = substitute(script, &params())
            .expect_err("nothing has a value")
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            told,
            [
                "/steps/0/parameter/preSql/0: parameter $bizdate in preSql has no value (pass --param bizdate=..., or write $$ for a dollar sign)",
                "/steps/0/parameter/preSql/1: time expression ${yyyymmdd-1} in preSql is not evaluated (write a parameter such as ${day} in its place and pass --param day=...)",
                "/steps/0/parameter/preSql/1: time expression $[hh24] in preSql is not evaluated (write a parameter such as ${day} in its place and pass --param day=...)",
                "/steps/0/parameter/where: parameter ${day} in where has no value (pass --param day=..., or write $$ for a dollar sign)",
            ]
        );
    }

    #[test]
    fn a_value_cannot_change_the_structure_of_the_job() {
        let text = substitute(r#"{"where": "$q", "n": 5000000000}"#, &params()).expect("q has a value");
        let value: Value = serde_json::from_str(&text).expect("still JSON");
        assert_eq!(value, serde_json::json!({ "where": "a'b\"c$dt", "n": 5_000_000_000_u64 }));
    }
}
