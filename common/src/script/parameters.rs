//! Parameters inside the strings of a script: `${name}` and `$name`, and the time expressions of [`super::schedule`].
//!
//! Replacement is textual and unquoted, as in DataWorks, but happens inside JSON strings only, so that a value can never
//! change the structure of the job. A replaced value is not searched again.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::DateTime;
use serde_json::Value;

use super::fields::escape;
use super::schedule::{self, Base, Schedule};
use super::text;
use crate::problem::{Code, Problem};

/// A parameter as it is given: `first=${yyyymm}01`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    pub name: String,
    /// Text with built-in names and time expressions in it.
    pub expression: String,
    /// Where it was given, for messages.
    pub place: String,
}

/// All values that a script may name.
#[derive(Debug, Clone)]
pub struct Parameters {
    values: BTreeMap<String, Resolved>,
    schedule: Schedule,
}

/// A script with its parameters replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Substituted {
    /// Canonical JSON: equal jobs give equal texts, however the file is laid out.
    pub text: String,
    /// What was replaced, as it is written in the script, and by what.
    pub used: BTreeMap<String, String>,
    /// Whether another time would have given another text.
    pub depends_on_time: bool,
}

#[derive(Debug, Clone)]
struct Resolved {
    value: String,
    depends_on_time: bool,
}

/// Longest file of parameters.
const FILE_BYTES_MOST: usize = 1 << 20;

/// Lines `name=expression`, as DataWorks' scheduling panel has them; blank lines and those that begin with `#` say
/// nothing. What is around a name or an expression is no part of it. `file` is its name, for messages.
pub fn parse_file(text: &str, file: &str) -> Result<Vec<Definition>, Vec<Problem>> {
    if text.len() > FILE_BYTES_MOST {
        let message = format!("the file of parameters has {} bytes; at most {FILE_BYTES_MOST}", text.len());
        return Err(vec![Problem::new(Code::InvalidSettings, message).at(file)]);
    }
    let mut definitions: Vec<Definition> = Vec::new();
    let mut names = BTreeSet::new();
    let mut problems = Vec::new();
    let lines = text.trim_start_matches('\u{feff}').lines().enumerate();
    for (index, line) in lines.map(|(index, line)| (index, line.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let place = format!("{file} line {}", index + 1);
        let mut refuse = |message: String, hint: &str| {
            problems.push(Problem::new(Code::InvalidSettings, message).at(place.clone()).hint(hint));
        };
        match line.split_once('=').map(|(name, expression)| (name.trim(), expression.trim())) {
            Some((name, _)) if names.contains(name) => {
                refuse(format!("parameter {name} is given twice"), "keep one of them");
            }
            Some((name, expression)) if !name.is_empty() => {
                names.insert(name);
                definitions.push(Definition { name: name.into(), expression: expression.into(), place });
            }
            _ => refuse("this line is not name=expression".into(), "e.g. day=${yyyy-mm-dd}"),
        }
    }
    if problems.is_empty() { Ok(definitions) } else { Err(problems) }
}

impl Parameters {
    /// Of definitions with the same name the last one counts. Their expressions may use built-in names and time
    /// expressions, but not each other. All faults are told together ([`Code::InvalidSettings`]).
    pub fn evaluate(definitions: &[Definition], schedule: Schedule) -> Result<Self, Vec<Problem>> {
        let mut parameters = Self { values: BTreeMap::new(), schedule };
        let built_in = parameters.clone();
        let mut problems = Vec::new();
        for Definition { name, expression, place } in definitions {
            let mut used = Used::default();
            match replace(expression, &built_in, &mut used) {
                Ok(value) => {
                    let resolved = Resolved { value, depends_on_time: used.depends_on_time };
                    parameters.values.insert(name.clone(), resolved);
                }
                Err(faults) => problems.extend(faults.into_iter().map(|fault| {
                    let (message, hint) = fault.describe(&format!("the value of {name}"));
                    Problem::new(Code::InvalidSettings, message).at(place.clone()).hint(hint)
                })),
            }
        }
        if problems.is_empty() { Ok(parameters) } else { Err(problems) }
    }

    /// A given value by its name, or by the name without DataWorks' old prefix; else the built-in of that name.
    fn value_of(&self, name: &str) -> Option<Resolved> {
        let short = name.strip_prefix("bdp.system.").unwrap_or(name);
        let given = self.values.get(name).or_else(|| self.values.get(short));
        given.cloned().or_else(|| {
            let value = self.schedule.built_in(short)?;
            Some(Resolved { value, depends_on_time: true })
        })
    }
}

/// The script with its parameters replaced. `$$` becomes `$`. A parameter without a value is
/// [`Code::UnresolvedParameter`], an expression that cannot be read [`Code::InvalidScript`]; all are told at once.
pub fn substitute(script: &str, parameters: &Parameters) -> Result<Substituted, Vec<Problem>> {
    let mut value = text::read(script).map_err(|problem| vec![problem])?;
    let mut walk = Walk { parameters, used: Used::default(), problems: Vec::new() };
    walk.replace_in(&mut value, "", "");
    let Walk { used: Used { values, depends_on_time }, problems, .. } = walk;
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Substituted { text: format!("{value:#}\n"), used: values, depends_on_time })
}

/// Names of the parameters in a script's text that somebody has to give; what is built in is not among them.
pub fn parameter_names(text: &str) -> BTreeSet<String> {
    let schedule = Schedule::new(DateTime::constant(2000, 1, 1, 0, 0, 0, 0), None, None);
    let nothing_given = Parameters { values: BTreeMap::new(), schedule };
    let mut names = BTreeSet::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        rest = &rest[dollar..];
        let length = match token(rest) {
            Token::Dollar => 2,
            Token::Literal => 1,
            Token::Time { written, .. } => written.len(),
            Token::Name { name, written } => {
                if let Err(Fault::NoValue { name, .. }) = named(name, written, &nothing_given) {
                    names.insert(name.to_owned());
                }
                written.len()
            }
        };
        rest = &rest[length..];
    }
    names
}

#[derive(Default)]
struct Used {
    values: BTreeMap<String, String>,
    depends_on_time: bool,
}

struct Walk<'a> {
    parameters: &'a Parameters,
    used: Used,
    problems: Vec<Problem>,
}

impl Walk<'_> {
    /// `key` is the nearest one above the value.
    fn replace_in(&mut self, value: &mut Value, pointer: &str, key: &str) {
        match value {
            Value::String(text) if text.contains('$') && is_secret(key) => self.replace_in_secret(text),
            Value::String(text) if text.contains('$') => {
                match replace(text, self.parameters, &mut self.used) {
                    Ok(replaced) => *text = replaced,
                    Err(faults) => self.problems.extend(faults.into_iter().map(|fault| {
                        let place = if key.is_empty() { "the script" } else { key };
                        let (message, hint) = fault.describe(place);
                        Problem::new(fault.code(), message).at(pointer).hint(hint)
                    })),
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.replace_in(item, &format!("{pointer}/{index}"), key);
                }
            }
            Value::Object(map) => {
                for (key, item) in map {
                    self.replace_in(item, &format!("{pointer}/{}", escape(key)), key);
                }
            }
            _ => {}
        }
    }

    /// A secret may hold any dollar, and nothing of it may be told: what cannot be replaced stays.
    fn replace_in_secret(&mut self, text: &mut String) {
        if let Ok(replaced) = replace(text, self.parameters, &mut Used::default()) {
            *text = replaced;
        }
    }
}

/// DataX files have their accounts inline, and addresses that may hold one.
fn is_secret(key: &str) -> bool {
    matches!(key, "password" | "jdbcUrl")
}

/// What stands after a `$`.
#[derive(Debug, PartialEq, Eq)]
enum Token<'a> {
    /// `$$`
    Dollar,
    /// `${...}` or `$name`
    Name { name: &'a str, written: &'a str },
    /// `$[...]`
    Time { inner: &'a str, written: &'a str },
    /// A dollar that begins no known form, such as one in a regular expression or a JSON path.
    Literal,
}

/// Why a token has no value.
#[derive(Debug, PartialEq, Eq)]
enum Fault<'a> {
    NoValue {
        name: &'a str,
        written: &'a str,
    },
    /// `${day-1}`
    NotAName {
        written: &'a str,
    },
    Time {
        fault: schedule::Fault,
        inner: &'a str,
        written: &'a str,
    },
}

impl Fault<'_> {
    fn code(&self) -> Code {
        match self {
            Self::NoValue { .. } => Code::UnresolvedParameter,
            Self::NotAName { .. } | Self::Time { .. } => Code::InvalidScript,
        }
    }

    /// Message and hint; `place` is the field that the token stands in.
    fn describe(&self, place: &str) -> (String, String) {
        match *self {
            Self::NoValue { name, written } => {
                let message = format!("parameter {written} in {place} has no value");
                let lower = name.to_ascii_lowercase();
                let hint = if lower != name && schedule::begins_like_a_format(&lower) {
                    format!("date formats are lower case: ${{{lower}}}")
                } else {
                    format!("pass --param {name}=..., or write $$ for a dollar sign")
                };
                (message, hint)
            }
            Self::NotAName { written } => (
                format!("{written} in {place} is neither a parameter nor a time expression"),
                "only date formats take an offset, e.g. ${yyyymmdd-1}; $$ is a dollar sign".to_owned(),
            ),
            Self::Time { fault, inner, written } => {
                let (message, hint) = fault.describe(inner, written);
                (format!("{message}, in {place}"), hint)
            }
        }
    }
}

/// The text with its parameters replaced, or all that have no value.
fn replace<'a>(text: &'a str, parameters: &Parameters, used: &mut Used) -> Result<String, Vec<Fault<'a>>> {
    let mut out = String::with_capacity(text.len());
    let mut faults = Vec::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        rest = &rest[dollar..];
        let (resolved, written) = match token(rest) {
            Token::Dollar => {
                out.push('$');
                rest = &rest[2..];
                continue;
            }
            Token::Literal => {
                out.push('$');
                rest = &rest[1..];
                continue;
            }
            Token::Name { name, written } => (named(name, written, parameters), written),
            Token::Time { inner, written } => {
                (timed(Base::ScheduledTime, inner, written, parameters), written)
            }
        };
        match resolved {
            Ok(Resolved { value, depends_on_time }) => {
                out.push_str(&value);
                used.depends_on_time |= depends_on_time;
                used.values.insert(written.to_owned(), value);
            }
            Err(fault) => faults.push(fault),
        }
        rest = &rest[written.len()..];
    }
    out.push_str(rest);
    if faults.is_empty() { Ok(out) } else { Err(faults) }
}

/// What is given goes before what is built in, even if it bears the name of a date format.
fn named<'a>(name: &'a str, written: &'a str, parameters: &Parameters) -> Result<Resolved, Fault<'a>> {
    if let Some(resolved) = parameters.value_of(name) {
        return Ok(resolved);
    }
    let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'));
    if written.starts_with("${") && schedule::begins_like_a_format(name) {
        let timed = timed(Base::BusinessDate, name, written, parameters);
        // `${mm_code}` begins like one, but is nothing but a name.
        return timed.map_err(|fault| if is_name { no_value_unless_clock(fault, name) } else { fault });
    }
    Err(if is_name { Fault::NoValue { name, written } } else { Fault::NotAName { written } })
}

fn no_value_unless_clock<'a>(fault: Fault<'a>, name: &'a str) -> Fault<'a> {
    match fault {
        Fault::Time { fault: schedule::Fault::Unreadable { .. }, written, .. } => {
            Fault::NoValue { name, written }
        }
        other => other,
    }
}

fn timed<'a>(
    base: Base,
    inner: &'a str,
    written: &'a str,
    parameters: &Parameters,
) -> Result<Resolved, Fault<'a>> {
    let value = schedule::evaluate(base, inner, &parameters.schedule);
    let value = value.map_err(|fault| Fault::Time { fault, inner, written })?;
    Ok(Resolved { value, depends_on_time: true })
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

/// `${...}` or `$[...]`, if a name begins in it.
fn enclosed(text: &str, close: char) -> Token<'_> {
    let Some(end) = text.find(close) else {
        return Token::Literal;
    };
    let (inner, written) = (&text[2..end], &text[..=end]);
    match close {
        _ if !inner.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') => Token::Literal,
        '}' => Token::Name { name: inner, written },
        _ => Token::Time { inner, written },
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    /// Scheduled at 2025-11-01 02:30:45, with these definitions.
    fn parameters(given: &[(&str, &str)]) -> Parameters {
        Parameters::evaluate(&definitions(given), schedule())
            .unwrap_or_else(|problems| panic!("{problems:?}"))
    }

    fn schedule() -> Schedule {
        Schedule::new(date(2025, 11, 1).at(2, 30, 45, 0), None, None)
    }

    fn definitions(given: &[(&str, &str)]) -> Vec<Definition> {
        let define = |(name, expression): &(&str, &str)| Definition {
            name: (*name).to_owned(),
            expression: (*expression).to_owned(),
            place: format!("--param {name}"),
        };
        given.iter().map(define).collect()
    }

    #[test]
    fn what_has_to_be_given_is_named_once_and_nothing_that_is_built_in() {
        let text = "${d} $d $$x ${bizdate} ${yyyymmdd-1} $[yyyymmdd] ${mm_code} ${a.b} ${} ${no name} $1 $";
        assert_eq!(parameter_names(text).into_iter().collect::<Vec<_>>(), ["a.b", "d", "mm_code"]);
    }

    const GIVEN: &[(&str, &str)] = &[("dt", "20260101"), ("d.x", "1"), ("q", "a'b\"c$$dt")];

    fn replaced(text: &str) -> String {
        replace(text, &parameters(GIVEN), &mut Used::default()).expect("every parameter has a value")
    }

    #[test]
    fn both_forms_are_replaced_and_a_value_is_not_searched_again() {
        assert_eq!(replaced("dt = '${dt}' or dt = $dt"), "dt = '20260101' or dt = 20260101");
        assert_eq!(replaced("${d.x}${bdp.system.dt}"), "120260101");
        assert_eq!(replaced("$q"), "a'b\"c$dt");
    }

    #[test]
    fn a_dollar_that_begins_no_known_form_stays() {
        for text in ["^a$", "'$.a[0]'", "$1", "$[0]", "${", "${}", "cost $ 5", "a${1,2}", "$[yyyy"] {
            assert_eq!(replaced(text), text);
        }
        assert_eq!(replaced("$$dt $${dt} $$[yyyy]"), "$dt ${dt} $[yyyy]");
    }

    #[test]
    fn a_longer_name_is_never_half_replaced() {
        let fault = Fault::NoValue { name: "dt2", written: "$dt2" };
        assert_eq!(replace("$dt2", &parameters(GIVEN), &mut Used::default()), Err(vec![fault]));
    }

    #[test]
    fn built_in_names_and_expressions_stand_in_a_script_and_in_values() {
        assert_eq!(replaced("dt = '$bizdate'"), "dt = '20251031'");
        assert_eq!(replaced("${bizdate} ${bdp.system.bizdate}"), "20251031 20251031");
        assert_eq!(replaced("${bdp.system.cyctime}$gmtdate$bizmonth"), "2025110102304520251101202510");
        assert_eq!(replaced("'${yyyymm}01' '$[yyyy-mm-dd]'"), "'20251001' '2025-11-01'");
        let given = [("first", "${yyyymm}01"), ("d0", "$[yyyy-mm-dd]"), ("t", "'$cyctime'"), ("pad", " x ")];
        let value = |name: &str| parameters(&given).value_of(name).map(|resolved| resolved.value);
        assert_eq!(value("first").as_deref(), Some("20251001"));
        assert_eq!(value("d0").as_deref(), Some("2025-11-01"));
        assert_eq!(value("t").as_deref(), Some("'20251101023045'"), "quotes are part of a value");
        assert_eq!(value("pad").as_deref(), Some(" x "));
    }

    #[test]
    fn what_is_given_shadows_what_is_built_in() {
        let given = parameters(&[("bizdate", "$bizdate-x"), ("mm", "millimetres"), ("jobid", "7")]);
        let replaced = |text| replace(text, &given, &mut Used::default());
        assert_eq!(replaced("$bizdate ${bizdate}").as_deref(), Ok("20251031-x 20251031-x"));
        assert_eq!(replaced("${mm} ${mm-1} $[mm]").as_deref(), Ok("millimetres 09 11"));
        assert_eq!(replaced("$jobid").as_deref(), Ok("7"));
        assert!(replaced("$nodeid").is_err(), "an id is known only where it is given");
        let last = parameters(&[("a", "1"), ("a", "2")]);
        assert_eq!(replace("$a", &last, &mut Used::default()).as_deref(), Ok("2"));
    }

    #[test]
    fn values_do_not_name_each_other() {
        let problems =
            Parameters::evaluate(&definitions(&[("a", "1"), ("b", "$a"), ("c", "$[yyyy-]")]), schedule());
        let told: Vec<String> = problems.expect_err("two faults").iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("--param b: parameter $a in the value of b has no value"), "{told:?}");
        assert!(told[1].starts_with("--param c: cannot parse time expression at '-'"), "{told:?}");
    }

    #[test]
    fn what_has_no_value_is_told_with_its_place_and_a_remedy() {
        let script = r#"{"steps":[{"parameter":{"where":"a > '${day}'","preSql":["delete $cyctim", "x ${day-1} $[abc]"],
            "table":"t_${YYYYMM}"}}]}"#;
        let problems = substitute(script, &parameters(&[])).expect_err("nothing has a value");
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "/steps/0/parameter/preSql/0: parameter $cyctim in preSql has no value (pass --param cyctim=..., or write $$ for a dollar sign)",
                "/steps/0/parameter/preSql/1: ${day-1} in preSql is neither a parameter nor a time expression (only date formats take an offset, e.g. ${yyyymmdd-1}; $$ is a dollar sign)",
                "/steps/0/parameter/preSql/1: cannot parse time expression at 'a', character 3 of $[abc], in preSql (e.g. ${yyyymmdd-1} or $[hh24:mi-15/24/60]; $$ is a dollar sign)",
                "/steps/0/parameter/table: parameter ${YYYYMM} in table has no value (date formats are lower case: ${yyyymm})",
                "/steps/0/parameter/where: parameter ${day} in where has no value (pass --param day=..., or write $$ for a dollar sign)",
            ]
        );
        assert_eq!(problems[0].code, Code::UnresolvedParameter);
        assert_eq!(problems[2].code, Code::InvalidScript);
    }

    #[test]
    fn a_name_that_begins_like_a_format_is_still_a_name() {
        let given = parameters(&[("mm_code", "7")]);
        assert_eq!(replace("${mm_code}", &given, &mut Used::default()).as_deref(), Ok("7"));
        let faults = replace("${dd_code} ${hh24}", &given, &mut Used::default()).expect_err("two faults");
        assert_eq!(faults[0], Fault::NoValue { name: "dd_code", written: "${dd_code}" });
        assert!(faults[1].describe("where").0.contains("${...} has day precision"));
    }

    #[test]
    fn what_was_used_is_told_and_whether_time_had_a_part_in_it() {
        let given = parameters(&[("d0", "$[yyyy-mm-dd]"), ("n", "5"), ("idle", "$bizdate")]);
        let of = |script: &str| substitute(script, &given).expect("all have values");
        let timed = of(r#"{"where": "a > '${d0}' and b < $n"}"#);
        let used: Vec<(&str, &str)> =
            timed.used.iter().map(|(written, value)| (written.as_str(), value.as_str())).collect();
        assert_eq!((used, timed.depends_on_time), (vec![("$n", "5"), ("${d0}", "2025-11-01")], true));
        assert!(!of(r#"{"where": "b < $n"}"#).depends_on_time);
        assert!(of(r#"{"where": "b < $cyctime"}"#).depends_on_time);
    }

    #[test]
    fn a_value_cannot_change_the_structure_of_the_job() {
        let substituted =
            substitute(r#"{"where": "$q", "n": 5000000000}"#, &parameters(GIVEN)).expect("q is given");
        let value: Value = serde_json::from_str(&substituted.text).expect("still JSON");
        assert_eq!(value, serde_json::json!({ "where": "a'b\"c$dt", "n": 5_000_000_000_u64 }));
    }

    #[test]
    fn a_secret_is_replaced_where_it_can_be_and_never_told() {
        let script = r#"{"password": "${pw}", "a": {"password": ["pa$word"], "jdbcUrl": "jdbc:x?p=$cret"}}"#;
        let given = parameters(&[("pw", "hidden")]);
        let substituted = substitute(script, &given).expect("a secret is never a fault");
        assert!(substituted.used.is_empty(), "{:?}", substituted.used);
        let value: Value = serde_json::from_str(&substituted.text).expect("still JSON");
        assert_eq!(value["password"], "hidden");
        assert_eq!(
            (&value["a"]["password"][0], &value["a"]["jdbcUrl"]),
            (&"pa$word".into(), &"jdbc:x?p=$cret".into())
        );
    }

    #[test]
    fn a_file_has_a_definition_on_each_line() {
        let text = "\u{feff}# the month's first day\nfirst=${yyyymm}01\r\n\n  d0 = $[yyyy-mm-dd] \nfilter=a=b\nempty=\n";
        let definitions = parse_file(text, "params.txt").expect("a good file");
        let read: Vec<(&str, &str)> =
            definitions.iter().map(|one| (one.name.as_str(), one.expression.as_str())).collect();
        assert_eq!(
            read,
            [("first", "${yyyymm}01"), ("d0", "$[yyyy-mm-dd]"), ("filter", "a=b"), ("empty", "")]
        );
        let problems = parse_file("a=1\nb\n=2\na=3\n", "params.txt").expect_err("three faults");
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[0].starts_with("params.txt line 2: this line is not name=expression"), "{told:?}");
        assert!(told[1].starts_with("params.txt line 3: "), "{told:?}");
        assert_eq!(told[2], "params.txt line 4: parameter a is given twice (keep one of them)");
        assert!(parse_file(&"#".repeat(FILE_BYTES_MOST + 1), "f").is_err());
    }
}
