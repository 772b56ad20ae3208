//! Where in a job file's text something stands that a problem names. Pure; expects text that is JSON, and finds nothing in
//! other text rather than the wrong thing.

use std::ops::Range;

/// The place of a JSON pointer, in bytes of the text: a member with its key, an element by itself; of an object or array
/// only the key or the bracket that it begins with. What is not there is shown by what it should be in.
pub fn locate(text: &str, pointer: &str) -> Option<Range<usize>> {
    let mut scan = Scan { bytes: text.as_bytes(), at: if text.starts_with('\u{feff}') { 3 } else { 0 } };
    let mut found = scan.shown(None)?;
    for step in pointer.split('/').skip(1) {
        let step = step.replace("~1", "/").replace("~0", "~");
        match scan.enter(&step)? {
            Some(place) => found = place,
            None => break,
        }
    }
    Some(found)
}

/// The place of `line L, column C`, as syntax problems name it: the character there, or the last one of the text.
pub fn locate_line(text: &str, place: &str) -> Option<Range<usize>> {
    let (line, column) = place.strip_prefix("line ")?.split_once(", column ")?;
    let (line, column): (usize, usize) = (line.parse().ok()?, column.parse().ok()?);
    let before: usize = text.split_inclusive('\n').take(line.checked_sub(1)?).map(str::len).sum();
    let wanted = (before + column.saturating_sub(1)).min(text.len());
    let start = (0..=wanted).rev().find(|at| text.is_char_boundary(*at))?;
    match text[start..].chars().next() {
        Some(first) => Some(start..start + first.len_utf8()),
        None => text.char_indices().next_back().map(|(at, last)| at..at + last.len_utf8()),
    }
}

/// Stands in front of a value, possibly behind blanks.
struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    /// Goes to that member or element of the value; `Some(None)`: there is none.
    fn enter(&mut self, step: &str) -> Option<Option<Range<usize>>> {
        let open = self.peek()?;
        if open != b'{' && open != b'[' {
            return Some(None);
        }
        self.at += 1;
        for index in 0.. {
            if matches!(self.peek()?, b'}' | b']') {
                return Some(None);
            }
            let key = if open == b'{' { Some(self.key()?) } else { None };
            let is_wanted = match &key {
                Some((_, name)) => name == step,
                None => step.parse() == Ok(index),
            };
            if is_wanted {
                return self.shown(key.map(|(start, _)| start)).map(Some);
            }
            self.skip()?;
            if self.peek()? == b',' {
                self.at += 1;
            }
        }
        None
    }

    /// What is shown of the value here, whose key begins at `key`. Goes nowhere.
    fn shown(&mut self, key: Option<usize>) -> Option<Range<usize>> {
        let (first, start) = (self.peek()?, self.at);
        let end = match (first, key) {
            (b'{' | b'[', Some(key)) => Scan { bytes: self.bytes, at: key }.string_end()?,
            (b'{' | b'[', None) => start + 1,
            _ => Scan { bytes: self.bytes, at: start }.skip()?,
        };
        Some(key.unwrap_or(start)..end)
    }

    /// The start and the name of the member here; goes to its value.
    fn key(&mut self) -> Option<(usize, String)> {
        self.peek()?;
        let start = self.at;
        let end = self.string_end()?;
        let name = serde_json::from_slice(&self.bytes[start..end]).ok()?;
        self.at = end;
        (self.peek()? == b':').then(|| self.at += 1)?;
        Some((start, name))
    }

    /// Goes behind the value here and answers where that is.
    fn skip(&mut self) -> Option<usize> {
        self.peek()?;
        let mut depth = 0_usize;
        loop {
            match self.bytes.get(self.at)? {
                b'"' => self.at = self.string_end()?,
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1)?;
                    self.at += 1;
                }
                b',' | b':' | b' ' | b'\t' | b'\r' | b'\n' if depth > 0 => self.at += 1,
                _ => {
                    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
                    let length = self.bytes[self.at..].iter().take_while(|byte| is_word(byte)).count();
                    self.at += (length > 0).then_some(length)?;
                }
            }
            if depth == 0 {
                return Some(self.at);
            }
        }
    }

    /// The byte behind the string that begins here.
    fn string_end(&self) -> Option<usize> {
        let mut escaped = false;
        for (index, byte) in self.bytes.iter().enumerate().skip(self.at + 1) {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => return Some(index + 1),
                _ => {}
            }
        }
        None
    }

    /// The next byte that is not blank; goes there.
    fn peek(&mut self) -> Option<u8> {
        let blanks = self.bytes.get(self.at..)?.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        self.at += blanks;
        self.bytes.get(self.at).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{
  "type": "job",
  "a/b": { "x~y": [10, "zwei, \"drei\"", { "vier": null }], "empty": {} },
  "é": true
}"#;

    fn found(pointer: &str) -> &'static str {
        locate(TEXT, pointer).map_or("", |range| &TEXT[range])
    }

    #[test]
    fn a_pointer_leads_to_the_text_of_its_value() {
        for (pointer, text) in [
            ("", "{"),
            ("/type", r#""type": "job""#),
            ("/a~1b", r#""a/b""#),
            ("/a~1b/x~0y", r#""x~y""#),
            ("/a~1b/x~0y/0", "10"),
            ("/a~1b/x~0y/1", r#""zwei, \"drei\"""#),
            ("/a~1b/x~0y/2", "{"),
            ("/a~1b/x~0y/2/vier", r#""vier": null"#),
            ("/é", "\"é\": true"),
        ] {
            assert_eq!(found(pointer), text, "{pointer}");
        }
    }

    #[test]
    fn what_is_missing_is_shown_by_what_it_should_be_in() {
        for (pointer, text) in [
            ("/steps", "{"),
            ("/type/0", r#""type": "job""#),
            ("/a~1b/x~0y/7", r#""x~y""#),
            ("/a~1b/empty/z/deeper", r#""empty""#),
        ] {
            assert_eq!(found(pointer), text, "{pointer}");
        }
    }

    #[test]
    fn text_that_is_no_json_is_walked_without_harm() {
        for end in 0..TEXT.len() {
            if TEXT.is_char_boundary(end) {
                for pointer in ["", "/a~1b/x~0y/2/vier", "/é", "/steps/0"] {
                    if let Some(range) = locate(&TEXT[..end], pointer) {
                        assert!(range.start < range.end && range.end <= end, "{end} {pointer}");
                    }
                }
            }
        }
        assert_eq!(locate("", ""), None);
        assert_eq!(locate("[}", "/0/0"), Some(0..1));
    }

    #[test]
    fn a_line_and_column_lead_to_one_character() {
        let text = "{\n  \"é\": x\n}";
        for (place, wanted) in [
            ("line 1, column 1", Some(0..1)),
            ("line 2, column 9", Some(10..11)),
            ("line 3, column 1", Some(12..13)),
            ("line 3, column 2", Some(12..13)),
            ("line 9, column 9", Some(12..13)),
            ("line 0, column 0", None),
            ("/type", None),
        ] {
            assert_eq!(locate_line(text, place), wanted, "{place}");
        }
    }
}
