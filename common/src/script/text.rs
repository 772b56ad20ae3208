//! From the bytes of a job file to JSON: limits, syntax errors with line and column, comments.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::problem::{Code, Problem};

/// Longest job file.
pub const MAX_BYTES: usize = 1 << 20;

/// The JSON of a job file. Nesting is limited to 128 levels by the parser.
pub(super) fn read(text: &str) -> Result<Value, Problem> {
    if text.len() > MAX_BYTES {
        return Err(Problem::new(
            Code::InvalidScript,
            format!("the job file has {} bytes; at most {MAX_BYTES} are allowed", text.len()),
        )
        .hint("split the job"));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match serde_json::from_str::<Unambiguous>(text) {
        Ok(Unambiguous(value)) => Ok(value),
        Err(error) => Err(syntax_problem(text, &error)),
    }
}

/// Names the cause that people meet most: comments and trailing commas, which DataWorks' samples contain.
fn syntax_problem(text: &str, error: &serde_json::Error) -> Problem {
    if let Some((line, column)) = first_comment(text)
        && line <= error.line()
    {
        return Problem::new(Code::InvalidScript, "not JSON: comments are not allowed")
            .at(format!("line {line}, column {column}"))
            .hint("remove them or use --lenient");
    }
    let full = error.to_string();
    let message = full.split(" at line ").next().unwrap_or(&full);
    let hint = if message.starts_with("trailing comma") { "remove the comma or use --lenient" } else { "" };
    Problem::new(Code::InvalidScript, format!("not JSON: {message}"))
        .at(format!("line {}, column {}", error.line(), error.column()))
        .hint(hint)
}

fn first_comment(text: &str) -> Option<(usize, usize)> {
    let start = Pieces::of(text).find_map(|(kind, range)| (kind == Piece::Comment).then_some(range.start))?;
    let before = &text[..start];
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    Some((before.matches('\n').count() + 1, column))
}

/// Blanks out `//` and `/* */` comments and trailing commas, so that every other character keeps its line and column.
pub fn strip_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut comma = None;
    for (kind, range) in Pieces::of(text) {
        let piece = &text[range];
        match kind {
            Piece::Comment => out.extend(piece.chars().map(|c| if c == '\n' { '\n' } else { ' ' })),
            Piece::Text => {
                comma = None;
                out.push_str(piece);
            }
            Piece::Other => {
                for c in piece.chars() {
                    match c {
                        ',' => comma = Some(out.len()),
                        ']' | '}' => {
                            if let Some(at) = comma.take() {
                                out.replace_range(at..=at, " ");
                            }
                        }
                        c if !c.is_whitespace() => comma = None,
                        _ => {}
                    }
                    out.push(c);
                }
            }
        }
    }
    out
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Piece {
    Comment,
    /// A string literal with its quotes.
    Text,
    Other,
}

/// Walks JSON-like text without understanding it: comments, string literals, and all between.
struct Pieces<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Pieces<'a> {
    fn of(text: &'a str) -> Self {
        Self { text, at: 0 }
    }
}

impl Iterator for Pieces<'_> {
    type Item = (Piece, std::ops::Range<usize>);

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.at;
        let rest = &self.text[start..];
        let (kind, len) = match rest.as_bytes() {
            [] => return None,
            [b'"', ..] => (Piece::Text, literal_len(rest)),
            [b'/', b'/', ..] => (Piece::Comment, rest.find('\n').unwrap_or(rest.len())),
            [b'/', b'*', ..] => {
                let end = rest[2..].find("*/").map_or(rest.len(), |end| end + 4);
                (Piece::Comment, end)
            }
            // A lone slash is one byte of something else.
            bytes => {
                let next = bytes[1..].iter().position(|byte| matches!(byte, b'"' | b'/'));
                (Piece::Other, next.map_or(rest.len(), |next| next + 1))
            }
        };
        self.at += len;
        Some((kind, start..self.at))
    }
}

/// Length of a string literal that `text` begins with; one without an end goes to the end of the text.
fn literal_len(text: &str) -> usize {
    let mut escaped = false;
    for (index, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return index + 1,
            _ => {}
        }
    }
    text.len()
}

/// JSON in which no object names a key twice: a reader of the file could not tell which one counts.
struct Unambiguous(Value);

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue).map(Unambiguous)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Unambiguous(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((key, Unambiguous(value))) = entries.next_entry::<String, _>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!("key \"{key}\" stands twice in one object")));
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> String {
        read(text).expect_err("it is not JSON").to_string()
    }

    #[test]
    fn comments_and_trailing_commas_are_named_with_line_and_column() {
        assert_eq!(
            told("{\n  \"type\": \"job\", // a comment\n}"),
            "line 2, column 18: not JSON: comments are not allowed (remove them or use --lenient)"
        );
        assert_eq!(
            told("{\"a\": [1,]}"),
            "line 1, column 10: not JSON: trailing comma (remove the comma or use --lenient)"
        );
        assert!(
            told("{\"url\": \"http://x\" \"b\": 1}").starts_with("line 1, column 20: not JSON: expected")
        );
    }

    #[test]
    fn a_key_that_stands_twice_is_refused() {
        assert!(told("{\"a\": 1, \"a\": 2}").contains("key \"a\" stands twice"));
    }

    #[test]
    fn size_and_depth_have_limits() {
        assert!(told(&" ".repeat(MAX_BYTES + 1)).contains("at most 1048576"));
        assert!(told(&"[".repeat(200)).contains("recursion limit"));
    }

    #[test]
    fn stripped_comments_leave_everything_else_in_its_place() {
        let text = "{ // one\n \"a\": \"// no\", /* two\n */ \"b\": [1, 2, ], }";
        let stripped = strip_comments(text);
        assert_eq!(stripped, "{       \n \"a\": \"// no\",       \n    \"b\": [1, 2  ]  }");
        assert_eq!(read(&stripped).map(|value| value["b"][1].clone()), Ok(2.into()));
    }
}
