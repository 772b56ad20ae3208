//! JSON bodies as Stream Load reads them: objects one after another, or an array of objects. Pure. Values keep the text
//! they were written in, so that numbers stay exact. Conversion is elsewhere.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Deserializer;
use serde_json::value::RawValue;

use crate::plan::{JsonOptions, Step};

/// The cells of one record in the order of the source columns; `None` is NULL or missing.
pub(crate) type Cells<'a> = [Option<Cow<'a, [u8]>>];

/// The body cannot be cut into records; the load fails as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct JsonError(String);

impl JsonError {
    fn syntax(error: &serde_json::Error) -> Self {
        Self(format!("Unrecognized json format, stop json loader. {error}"))
    }
}

/// Hands every record of a complete body to `row`, with its text.
pub(crate) fn read<'a>(
    body: &'a [u8],
    options: &JsonOptions,
    sources: &[String],
    row: &mut dyn FnMut(&Cells<'a>, &'a [u8]),
) -> Result<(), JsonError> {
    let Some(first) = body.iter().find(|byte| !byte.is_ascii_whitespace()) else {
        return Ok(());
    };
    if !matches!(first, b'{' | b'[') {
        return Err(JsonError(format!("illegal json started with {}", char::from(*first))));
    }
    let text = std::str::from_utf8(body).map_err(|_| JsonError("Invalid UTF-8 in json body".to_owned()))?;
    let mut reader = Reader { options, sources, row, cells: Vec::with_capacity(sources.len()) };
    let mut documents = Deserializer::from_str(text);
    while documents_left(&mut documents)? {
        let document = <&RawValue as serde::Deserialize>::deserialize(&mut documents)
            .map_err(|error| JsonError::syntax(&error))?;
        reader.document(document)?;
    }
    Ok(())
}

fn documents_left<'a>(documents: &mut Deserializer<serde_json::de::StrRead<'a>>) -> Result<bool, JsonError> {
    match documents.end() {
        Ok(()) => Ok(false),
        Err(error) if error.is_syntax() => Ok(true),
        Err(error) => Err(JsonError::syntax(&error)),
    }
}

struct Reader<'a, 'b> {
    options: &'b JsonOptions,
    sources: &'b [String],
    row: &'b mut dyn FnMut(&Cells<'a>, &'a [u8]),
    cells: Vec<Option<Cow<'a, [u8]>>>,
}

impl<'a> Reader<'a, '_> {
    fn document(&mut self, document: &'a RawValue) -> Result<(), JsonError> {
        let is_array = |value: &RawValue| value.get().starts_with('[');
        if self.options.strip_outer_array {
            if !is_array(document) {
                return Err(JsonError(
                    "the value should be array type with strip_outer_array=true".to_owned(),
                ));
            }
            return self.elements(document, true);
        }
        if !self.options.root.is_empty() {
            return self.rooted(document);
        }
        if is_array(document) {
            let text = "the value is array type in json document stream, set strip_outer_array=true to load its elements";
            return Err(JsonError(text.to_owned()));
        }
        self.record(document)
    }

    /// `json_root` selects the node and expands it if it is an array.
    fn rooted(&mut self, document: &'a RawValue) -> Result<(), JsonError> {
        match follow(document, &self.options.root) {
            Some(node) if node.get().starts_with('[') => self.elements(node, false),
            Some(node) => self.record(node),
            None => Err(JsonError("json_root selects nothing".to_owned())),
        }
    }

    fn elements(&mut self, array: &'a RawValue, outer: bool) -> Result<(), JsonError> {
        let mut reader = Deserializer::from_str(array.get());
        let mut failed = None;
        let each = Elements(|element: &'a RawValue| {
            let done = if outer && !self.options.root.is_empty() {
                self.rooted(element)
            } else {
                self.record(element)
            };
            failed = done.err();
            failed.is_none()
        });
        let read = reader.deserialize_seq(each);
        match failed {
            Some(error) => Err(error),
            None => read.map_err(|error| JsonError::syntax(&error)),
        }
    }

    fn record(&mut self, record: &'a RawValue) -> Result<(), JsonError> {
        self.cells.clear();
        self.cells.resize(self.sources.len(), None);
        if let Some(paths) = &self.options.paths {
            for (cell, path) in self.cells.iter_mut().zip(paths) {
                *cell = follow(record, path).and_then(cell_of);
            }
        } else {
            let fields = Fields { sources: self.sources, cells: &mut self.cells };
            Deserializer::from_str(record.get())
                .deserialize_map(fields)
                .map_err(|error| JsonError::syntax(&error))?;
        }
        (self.row)(&self.cells, record.get().as_bytes());
        Ok(())
    }
}

/// The text a value is converted from. Nested values keep their JSON text.
fn cell_of(value: &RawValue) -> Option<Cow<'_, [u8]>> {
    let text = value.get();
    match text.as_bytes().first()? {
        b'n' => None,
        b't' => Some(Cow::Borrowed(b"1")),
        b'f' => Some(Cow::Borrowed(b"0")),
        b'"' if !text.contains('\\') => Some(Cow::Borrowed(&text.as_bytes()[1..text.len() - 1])),
        b'"' => serde_json::from_str::<String>(text).ok().map(|text| Cow::Owned(text.into_bytes())),
        _ => Some(Cow::Borrowed(text.as_bytes())),
    }
}

fn follow<'a>(value: &'a RawValue, path: &[Step]) -> Option<&'a RawValue> {
    path.iter().try_fold(value, |value, step| {
        let mut found = None;
        let mut reader = Deserializer::from_str(value.get());
        match step {
            Step::Index(index) => {
                let mut place = 0;
                let pick = Elements(|element: &'a RawValue| {
                    if place == *index {
                        found = Some(element);
                    }
                    place += 1;
                    true
                });
                reader.deserialize_seq(pick).ok()?;
            }
            Step::Key(key) => reader.deserialize_map(Lookup { key, found: &mut found }).ok()?,
        }
        found
    })
}

/// Calls back for each element of an array until it answers `false`.
struct Elements<F>(F);

impl<'de, F: FnMut(&'de RawValue) -> bool> Visitor<'de> for Elements<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut array: A) -> Result<(), A::Error> {
        while let Some(element) = array.next_element()? {
            if !(self.0)(element) {
                return Err(A::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

/// Takes the members of an object whose keys are source columns.
struct Fields<'b, 'de> {
    sources: &'b [String],
    cells: &'b mut Vec<Option<Cow<'de, [u8]>>>,
}

impl<'de> Visitor<'de> for Fields<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut guess = 0;
        while let Some(place) = map.next_key_seed(KeyPlace { sources: self.sources, guess })? {
            match place {
                Some(place) => {
                    self.cells[place] = cell_of(map.next_value::<&'de RawValue>()?);
                    guess = place + 1;
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// Finds a key among the sources; keys mostly come in the order of the columns, so the guess is tried first.
struct KeyPlace<'b> {
    sources: &'b [String],
    guess: usize,
}

impl<'de> DeserializeSeed<'de> for KeyPlace<'_> {
    type Value = Option<usize>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyPlace<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        if self.sources.get(self.guess).is_some_and(|source| source == key) {
            return Ok(Some(self.guess));
        }
        Ok(self.sources.iter().position(|source| source == key))
    }
}

struct Lookup<'b, 'de> {
    key: &'b str,
    found: &'b mut Option<&'de RawValue>,
}

impl<'de> Visitor<'de> for Lookup<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            let value = map.next_value::<&'de RawValue>()?;
            if key == self.key {
                *self.found = Some(value);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(
        body: &str,
        options: &JsonOptions,
        sources: &[&str],
    ) -> Result<Vec<Vec<Option<String>>>, JsonError> {
        let sources: Vec<String> = sources.iter().map(|name| (*name).to_owned()).collect();
        let mut rows = Vec::new();
        read(body.as_bytes(), options, &sources, &mut |cells, _| {
            let texts =
                cells.iter().map(|cell| cell.as_ref().map(|text| String::from_utf8_lossy(text).into()));
            rows.push(texts.collect());
        })?;
        Ok(rows)
    }

    fn row(texts: &[Option<&str>]) -> Vec<Option<String>> {
        texts.iter().map(|text| text.map(str::to_owned)).collect()
    }

    #[test]
    fn objects_follow_each_other_with_or_without_newlines() {
        let got =
            rows("{\"a\":1}\n{\"b\":\"x\\n\",\"a\":null}{\"A\":5}", &JsonOptions::default(), &["a", "b"])
                .unwrap();
        assert_eq!(got, vec![row(&[Some("1"), None]), row(&[None, Some("x\n")]), row(&[None, None])]);
    }

    #[test]
    fn an_array_needs_strip_outer_array_and_the_reverse() {
        let strip = JsonOptions { strip_outer_array: true, ..JsonOptions::default() };
        assert_eq!(
            rows("[{\"a\":1},{\"a\":true}]", &strip, &["a"]).unwrap(),
            vec![row(&[Some("1")]), row(&[Some("1")])]
        );
        assert!(rows("{\"a\":1}", &strip, &["a"]).is_err());
        let error = rows("[{\"a\":1}]", &JsonOptions::default(), &["a"]).unwrap_err();
        assert!(error.to_string().contains("strip_outer_array"));
    }

    #[test]
    fn numbers_keep_their_text_and_nested_values_their_json() {
        let got =
            rows(r#"{"a":123456789012345678901.10,"b":{"x":[1, 2]}}"#, &JsonOptions::default(), &["a", "b"])
                .unwrap();
        assert_eq!(got, vec![row(&[Some("123456789012345678901.10"), Some(r#"{"x":[1, 2]}"#)])]);
    }

    #[test]
    fn paths_are_positional_and_a_root_is_expanded() {
        let step = |name: &str| Step::Key(name.to_owned());
        let options = JsonOptions {
            paths: Some(vec![vec![step("id")], vec![step("a"), Step::Index(1)]]),
            root: vec![step("data")],
            strip_outer_array: false,
        };
        let got = rows(r#"{"data":[{"id":1,"a":[5,6]},{"id":2}]}"#, &options, &["x", "y"]).unwrap();
        assert_eq!(got, vec![row(&[Some("1"), Some("6")]), row(&[Some("2"), None])]);
    }

    #[test]
    fn a_syntax_error_stops_the_load() {
        let error = rows("{\"a\":1}\n{\"a\":", &JsonOptions::default(), &["a"]).unwrap_err();
        assert!(error.to_string().contains("Unrecognized json format"));
        assert!(
            rows("x", &JsonOptions::default(), &["a"])
                .unwrap_err()
                .to_string()
                .contains("illegal json started with x")
        );
    }
}
