//! A quick way through plain JSON bodies: objects of texts, numbers and words, one after another or in one array, as
//! loads of many rows are written. Each byte is met about once. What is not of that kind is not refused here: the caller
//! gives the whole body to `json.rs`, which knows the rules. Pure.

use std::borrow::Cow;

use crate::json::Cells;

/// The body is not plain, or not JSON at all.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotPlain;

/// Hands every record of `body` to `row`, with its text. `in_array`: the body is one array of records.
pub(crate) fn read<'a>(
    body: &'a str,
    in_array: bool,
    sources: &[String],
    mut row: impl FnMut(&Cells<'a>, &'a [u8]),
) -> Result<(), NotPlain> {
    let mut walk = Walk { text: body.as_bytes(), at: 0 };
    let mut cells: Vec<Option<Cow<'a, [u8]>>> = vec![None; sources.len()];
    if in_array {
        walk.expect(b'[')?;
        if walk.eat(b']') {
            return walk.expect_end();
        }
    }
    loop {
        if !in_array && walk.is_at_end() {
            return Ok(());
        }
        walk.skip_space();
        let start = walk.at;
        cells.fill(None);
        walk.object(sources, &mut cells)?;
        row(&cells, &walk.text[start..walk.at]);
        if in_array && !walk.eat(b',') {
            walk.expect(b']')?;
            return walk.expect_end();
        }
    }
}

struct Walk<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Walk<'a> {
    fn object(&mut self, sources: &[String], cells: &mut [Option<Cow<'a, [u8]>>]) -> Result<(), NotPlain> {
        self.expect(b'{')?;
        if self.eat(b'}') {
            return Ok(());
        }
        // Keys mostly come in the order of the columns.
        let mut guess = 0;
        loop {
            let key = self.key()?;
            self.expect(b':')?;
            let value = self.value()?;
            let is_key = |name: &String| name.as_bytes() == key;
            let place = if sources.get(guess).is_some_and(is_key) {
                Some(guess)
            } else {
                sources.iter().position(is_key)
            };
            if let Some(place) = place {
                cells[place] = value;
                guess = place + 1;
            }
            if !self.eat(b',') {
                return self.expect(b'}');
            }
        }
    }

    fn key(&mut self) -> Result<&'a [u8], NotPlain> {
        match self.string()? {
            Cow::Borrowed(key) => Ok(key),
            Cow::Owned(_) => Err(NotPlain),
        }
    }

    /// The text a value is converted from; `None` is NULL.
    fn value(&mut self) -> Result<Option<Cow<'a, [u8]>>, NotPlain> {
        self.skip_space();
        let word = |walk: &mut Self, word: &[u8], text: Option<&'static [u8]>| {
            if !walk.text[walk.at..].starts_with(word) {
                return Err(NotPlain);
            }
            walk.at += word.len();
            Ok(text.map(Cow::Borrowed))
        };
        match self.text.get(self.at) {
            Some(b'"') => self.string().map(Some),
            Some(b'-' | b'0'..=b'9') => self.number().map(|number| Some(Cow::Borrowed(number))),
            Some(b'n') => word(self, b"null", None),
            Some(b't') => word(self, b"true", Some(b"1")),
            Some(b'f') => word(self, b"false", Some(b"0")),
            _ => Err(NotPlain),
        }
    }

    fn string(&mut self) -> Result<Cow<'a, [u8]>, NotPlain> {
        self.skip_space();
        let start = self.at;
        if self.text.get(start) != Some(&b'"') {
            return Err(NotPlain);
        }
        let mut end = start + 1;
        let mut is_escaped = false;
        loop {
            end += memchr::memchr2(b'"', b'\\', &self.text[end..]).ok_or(NotPlain)?;
            if self.text[end] == b'"' {
                break;
            }
            is_escaped = true;
            end += 2;
            if end > self.text.len() {
                return Err(NotPlain);
            }
        }
        self.at = end + 1;
        let inner = &self.text[start + 1..end];
        if is_escaped {
            let text: String = serde_json::from_slice(&self.text[start..self.at]).map_err(|_| NotPlain)?;
            return Ok(Cow::Owned(text.into_bytes()));
        }
        if inner.iter().fold(false, |found, byte| found | (*byte < b' ')) {
            return Err(NotPlain);
        }
        Ok(Cow::Borrowed(inner))
    }

    fn number(&mut self) -> Result<&'a [u8], NotPlain> {
        let start = self.at;
        self.at += usize::from(self.text[start] == b'-');
        let first = self.at;
        self.digits()?;
        if self.text[first] == b'0' && self.at > first + 1 {
            return Err(NotPlain);
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.text.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.text.get(self.at), Some(b'+' | b'-')));
            self.digits()?;
        }
        Ok(&self.text[start..self.at])
    }

    fn digits(&mut self) -> Result<(), NotPlain> {
        let start = self.at;
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(NotPlain) }
    }

    fn skip_space(&mut self) {
        while matches!(self.text.get(self.at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        self.skip_space();
        let is_next = self.text.get(self.at) == Some(&byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn expect(&mut self, byte: u8) -> Result<(), NotPlain> {
        if self.eat(byte) { Ok(()) } else { Err(NotPlain) }
    }

    fn is_at_end(&mut self) -> bool {
        self.skip_space();
        self.at == self.text.len()
    }

    fn expect_end(&mut self) -> Result<(), NotPlain> {
        if self.is_at_end() { Ok(()) } else { Err(NotPlain) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::json;
    use crate::plan::JsonOptions;

    type Rows = Vec<(Vec<Option<Vec<u8>>>, Vec<u8>)>;

    fn owned(cells: &Cells<'_>, raw: &[u8]) -> (Vec<Option<Vec<u8>>>, Vec<u8>) {
        (cells.iter().map(|cell| cell.as_deref().map(<[u8]>::to_vec)).collect(), raw.to_vec())
    }

    fn walked(body: &str, in_array: bool, sources: &[String]) -> Option<Rows> {
        let mut rows = Vec::new();
        read(body, in_array, sources, |cells, raw| rows.push(owned(cells, raw))).ok()?;
        Some(rows)
    }

    fn parsed(body: &str, in_array: bool, sources: &[String]) -> Option<Rows> {
        let options = JsonOptions { strip_outer_array: in_array, ..JsonOptions::default() };
        let mut rows = Vec::new();
        json::read(body.as_bytes(), &options, sources, &mut |cells, raw| rows.push(owned(cells, raw)))
            .ok()?;
        Some(rows)
    }

    fn names() -> Vec<String> {
        ["a", "b", "c"].map(str::to_owned).to_vec()
    }

    #[test]
    fn plain_bodies_give_what_the_full_reader_gives() {
        for body in [
            r#"[{"a":1,"b":"x","c":null},{"b":"","a":-0.5e+3},{}]"#,
            " [ { \"a\" : true , \"d\" : 7, \"c\" : false } , {\"a\":\"\\u00e9\\n\\\"\"} ] \n",
            "[]",
            "",
        ] {
            let in_array = body.contains('[');
            assert_eq!(walked(body, in_array, &names()), parsed(body, in_array, &names()), "{body}");
            assert!(walked(body, in_array, &names()).is_some(), "{body}");
        }
        let stream = "{\"a\":1}\n{\"a\":2}{\"a\":3}";
        assert_eq!(walked(stream, false, &names()), parsed(stream, false, &names()));
        assert_eq!(walked(stream, false, &names()).unwrap().len(), 3);
    }

    #[test]
    fn what_is_nested_or_no_json_is_left_to_the_full_reader() {
        for body in [
            r#"[{"a":{"x":1}}]"#,
            r#"[{"a":[1]}]"#,
            r#"[{"\u0061":1}]"#,
            r#"[{"a":01}]"#,
            r#"[{"a":1.}]"#,
            r#"[{"a":nul}]"#,
            "[{\"a\":\"\n\"}]",
            r#"[{"a":"x}]"#,
            r#"[{"a":"\"}]"#,
            r#"[{"a":1},]"#,
            r#"[{"a":1}"#,
            r#"[{"a":1}] x"#,
            "7",
        ] {
            assert_eq!(walked(body, true, &names()), None, "{body}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_walked_is_what_the_full_reader_finds(pieces in prop::collection::vec(
            prop::sample::select(vec![
                "[", "]", "{", "}", ",", ":", "\"a\"", "\"b\"", "\"x\\\"y\"", "\"é\"", "1", "-", "0.5", "e2", "null",
                "true", " ", "\\", "\"",
            ]), 0..24), in_array: bool) {
            let body = pieces.concat();
            if let Some(rows) = walked(&body, in_array, &names()) {
                prop_assert_eq!(Some(rows), parsed(&body, in_array, &names()));
            }
        }
    }
}
