//! Dates and times without zone: the texts that DATE and DATETIME columns accept, and the one layout they are kept in.
//! Pure. The rules are those of the backend's `time_types.cpp`; tests are with `convert.rs`.

/// A date and time without zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CivilTime {
    year: u32,
    month: u32,
    day: u32,
    hour: u32,
    minute: u32,
    second: u32,
    micros: u32,
}

impl CivilTime {
    /// Any accepted text of a DATE or DATETIME; a date alone is its midnight.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Digits { bytes: bytes.trim_ascii() };
        let run = cursor.leading();
        let (year, month, day, mut time) = match run {
            14 | 12 => {
                let year = if run == 14 { cursor.take(4)? } else { two_digit_year(cursor.take(2)?) };
                let date = (year, cursor.take(2)?, cursor.take(2)?);
                (date.0, date.1, date.2, Some((cursor.take(2)?, cursor.take(2)?, cursor.take(2)?)))
            }
            8 | 6 => {
                let year = if run == 8 { cursor.take(4)? } else { two_digit_year(cursor.take(2)?) };
                (year, cursor.take(2)?, cursor.take(2)?, None)
            }
            4 | 2 => {
                let year = cursor.take(run)?;
                let year = if run == 2 { two_digit_year(year) } else { year };
                cursor.eat(b'-')?;
                let month = cursor.one_or_two()?;
                cursor.eat(b'-')?;
                (year, month, cursor.one_or_two()?, None)
            }
            _ => return None,
        };
        if time.is_none() && !cursor.bytes.is_empty() {
            cursor.eat_separator()?;
            let hour = cursor.one_or_two()?;
            cursor.eat(b':')?;
            let minute = cursor.one_or_two()?;
            cursor.eat(b':')?;
            time = Some((hour, minute, cursor.one_or_two()?));
        }
        let micros = if time.is_some() { cursor.fraction()? } else { 0 };
        let (hour, minute, second) = time.unwrap_or_default();
        let civil = Self { year, month, day, hour, minute, second, micros };
        (cursor.bytes.is_empty() && civil.is_real()).then_some(civil)
    }

    fn is_real(&self) -> bool {
        let leap =
            (self.year.is_multiple_of(4) && !self.year.is_multiple_of(100)) || self.year.is_multiple_of(400);
        let days = match self.month {
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            4 | 6 | 9 | 11 => 30,
            2 if leap => 29,
            2 => 28,
            _ => 0,
        };
        (1..=days).contains(&self.day) && self.hour < 24 && self.minute < 60 && self.second < 60
    }

    pub(crate) fn date(&self) -> Layout {
        let mut layout = Layout::default();
        layout.push(self.year, 4, b'-');
        layout.push(self.month, 2, b'-');
        layout.push(self.day, 2, b' ');
        layout.len -= 1;
        layout
    }

    /// 19 bytes, or 26 when there are microseconds.
    pub(crate) fn date_time(&self) -> Layout {
        let mut layout = self.date();
        layout.len += 1;
        layout.push(self.hour, 2, b':');
        layout.push(self.minute, 2, b':');
        layout.push(self.second, 2, b'.');
        if self.micros > 0 {
            layout.push(self.micros, 6, b' ');
        }
        layout.len -= 1;
        layout
    }
}

fn two_digit_year(year: u32) -> u32 {
    if year < 70 { 2000 + year } else { 1900 + year }
}

/// The canonical text of a date or datetime, on the stack.
#[derive(Default)]
pub(crate) struct Layout {
    bytes: [u8; 28],
    len: usize,
}

impl Layout {
    fn push(&mut self, number: u32, width: usize, after: u8) {
        let mut rest = number;
        for at in (self.len..self.len + width).rev() {
            self.bytes[at] = b'0' + u8::try_from(rest % 10).unwrap_or_default();
            rest /= 10;
        }
        self.bytes[self.len + width] = after;
        self.len += width + 1;
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_bytes().iter().try_for_each(|&byte| write!(f, "{}", char::from(byte)))
    }
}

/// What is left of a date text.
struct Digits<'a> {
    bytes: &'a [u8],
}

impl Digits<'_> {
    fn leading(&self) -> usize {
        self.bytes.iter().take_while(|byte| byte.is_ascii_digit()).count()
    }

    fn take(&mut self, count: usize) -> Option<u32> {
        let (head, tail) = self.bytes.split_at_checked(count)?;
        self.bytes = tail;
        head.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u32::from(byte - b'0')))
    }

    fn one_or_two(&mut self) -> Option<u32> {
        match self.leading() {
            count @ (1 | 2) => self.take(count),
            _ => None,
        }
    }

    fn eat(&mut self, expected: u8) -> Option<()> {
        self.bytes = self.bytes.strip_prefix(&[expected])?;
        Some(())
    }

    /// `T` or blanks between date and time.
    fn eat_separator(&mut self) -> Option<()> {
        if self.eat(b'T').is_some() {
            return Some(());
        }
        let blanks = self.bytes.iter().take_while(|&&byte| byte == b' ').count();
        self.bytes = &self.bytes[blanks..];
        (blanks > 0).then_some(())
    }

    /// `.` and one to six digits, or nothing: microseconds.
    fn fraction(&mut self) -> Option<u32> {
        if self.eat(b'.').is_none() {
            return Some(0);
        }
        let count = self.leading();
        if !(1..=6).contains(&count) {
            return None;
        }
        let value = self.take(count)?;
        Some(value * 10_u32.pow(u32::try_from(6 - count).ok()?))
    }
}
