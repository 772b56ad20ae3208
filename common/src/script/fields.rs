//! Tolerant access to the fields of a JSON object: numbers and truth values may be strings, `null` and blank text mean
//! absent, and every fault is noted with its JSON pointer.

use serde_json::{Map, Value};

use super::faults::Faults;
use crate::nearest::did_you_mean;

/// An object of the script and where it stands.
pub(super) struct Object<'a> {
    pointer: String,
    map: &'a Map<String, Value>,
    faults: &'a Faults,
}

impl<'a> Object<'a> {
    pub(super) fn root(map: &'a Map<String, Value>, faults: &'a Faults) -> Self {
        Self::new("", map, faults)
    }

    pub(super) fn new(pointer: impl Into<String>, map: &'a Map<String, Value>, faults: &'a Faults) -> Self {
        Self { pointer: pointer.into(), map, faults }
    }

    /// The JSON pointer of one of its fields.
    pub(super) fn place(&self, key: &str) -> String {
        format!("{}/{}", self.pointer, escape(key))
    }

    /// All fields that are not `null`.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a str, &'a Value)> + use<'a> {
        let present = self.map.iter().filter(|(_, value)| !value.is_null());
        present.map(|(key, value)| (key.as_str(), value))
    }

    /// A field's value; `null` is absent.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// Keys with a meaning must be spelt as they are, letter by letter: DataWorks and DataX would silently ignore
    /// `splitPK`. Keys nobody knows are a warning.
    pub(super) fn refuse_unknown_keys(&self, known: &[&str], ignored: &[&str]) {
        for (key, _) in self.entries() {
            if known.contains(&key) || ignored.contains(&key) {
                continue;
            }
            let place = self.place(key);
            if let Some(meant) = known.iter().find(|known| known.eq_ignore_ascii_case(key)) {
                let message = format!("unknown key {key}: did you mean {meant}? (keys are case sensitive)");
                self.faults.error(&place, message, format!("write {meant}"));
            } else {
                let guess = did_you_mean(key, known.iter().copied());
                let message = format!("unknown key {key} is ignored; {guess}");
                self.faults.warn(&place, message.trim_end_matches("; "));
            }
        }
    }

    /// Blank text is absent, as for `errorLimit`.
    pub(super) fn object(&self, key: &str) -> Option<Object<'a>> {
        match self.get(key)? {
            Value::Object(map) => Some(Object::new(self.place(key), map, self.faults)),
            blank if is_blank(blank) => None,
            other => {
                self.wrong_type(key, other, "must be an object");
                None
            }
        }
    }

    /// Trimmed text; blank is absent.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        match self.get(key)? {
            Value::String(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
            other => {
                self.wrong_type(key, other, "must be a string");
                None
            }
        }
    }

    pub(super) fn required_text(&self, key: &str, hint: &str) -> Option<String> {
        let text = self.text(key);
        if text.is_none() && self.get(key).is_none_or(Value::is_string) {
            self.faults.error(&self.place(key), format!("parameter.{key} is required"), hint);
        }
        text
    }

    /// `true`, `"true"`, `"TRUE"` and their opposites.
    pub(super) fn boolean(&self, key: &str) -> Option<bool> {
        let value = self.get(key)?;
        match boolean(value) {
            Some(given) => Some(given),
            None if is_blank(value) => None,
            None => {
                self.wrong_type(key, value, "must be true or false");
                None
            }
        }
    }

    /// A whole number from `least` on, or such text; `rule` says what is allowed.
    pub(super) fn integer(&self, key: &str, least: u64, rule: &str) -> Option<u64> {
        let value = self.get(key)?;
        if is_blank(value) {
            return None;
        }
        let number = integer(value).filter(|number| *number >= least);
        if number.is_none() {
            self.wrong_type(key, value, rule);
        }
        number
    }

    /// A list of texts, or one text alone. Blank ones are skipped.
    pub(super) fn texts(&self, key: &str) -> Vec<(String, String)> {
        let list = match self.get(key) {
            None => return Vec::new(),
            Some(Value::Array(list)) => list.as_slice(),
            Some(text @ Value::String(_)) => std::slice::from_ref(text),
            Some(other) => {
                self.wrong_type(key, other, "must be a string or a list of strings");
                return Vec::new();
            }
        };
        let alone = self.get(key).is_some_and(Value::is_string);
        let mut texts = Vec::new();
        for (index, value) in list.iter().enumerate() {
            let place = if alone { self.place(key) } else { format!("{}/{index}", self.place(key)) };
            match value {
                Value::String(text) if text.trim().is_empty() => {}
                Value::String(text) => texts.push((place, text.trim().to_owned())),
                Value::Null => {}
                other => self.faults.error(&place, format!("must be a string, not {}", show(other)), ""),
            }
        }
        texts
    }

    /// Notes that a field has a value it may not have.
    pub(super) fn wrong_type(&self, key: &str, value: &Value, rule: &str) {
        let message = format!("{key} {rule}, not {}", show(value));
        self.faults.error(&self.place(key), message, "");
    }
}

pub(super) fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(given) => Some(*given),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// A whole number, also as plain digits in a string.
pub(super) fn integer(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    }
}

/// -1 and 0 are how DataX writes that there is no limit.
pub(super) fn is_no_limit(value: &Value) -> bool {
    *value == -1 || *value == "-1" || integer(value) == Some(0)
}

pub(super) fn is_blank(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.trim().is_empty())
}

/// The value for a message: short, as JSON. What an object or a list holds is not shown: it may be a password.
pub(super) fn show(value: &Value) -> String {
    match value {
        Value::Object(map) if !map.is_empty() => "an object".to_owned(),
        Value::Array(list) if !list.is_empty() => "a list".to_owned(),
        plain => shorten(&plain.to_string(), 80),
    }
}

/// At most `most` characters of the text.
pub(super) fn shorten(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// A key as one token of a JSON pointer (RFC 6901).
pub(super) fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
