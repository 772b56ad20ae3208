//! Time expressions of a job script: `${yyyymmdd-1}` counts from the business date, `$[hh24:mi:ss-15/24/60]` from the
//! scheduled time. Pure: both base times are given, no clock is read.
//!
//! The rules are DataWorks' (its page "Supported formats for scheduling parameters"). What it would misread in silence
//! is refused with the character that does not fit.

use std::fmt::{self, Write as _};

use jiff::civil::{Date, DateTime, Time};
use jiff::{SignedDuration, Span};
use serde::{Deserialize, Serialize};

/// What the time expressions of one run count from. Kept with an unfinished `starlift run`, so that the clock may move
/// on without making another job of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Base of `${...}`.
    pub business_date: Date,
    /// Base of `$[...]`, in whole seconds of the schedule's zone.
    pub scheduled_time: DateTime,
    /// The current date, which `$bizmonth` looks at.
    today: Date,
}

/// A scheduled time as it is asked for; without a date it is that time of the day which follows the business date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScheduledTime {
    date: Option<Date>,
    time: Time,
}

impl fmt::Display for Schedule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (date, time) = (self.scheduled_time.date(), self.scheduled_time.time());
        write!(out, "business date {} and scheduled time {date} {time}", self.business_date)
    }
}

impl fmt::Display for ScheduledTime {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.date {
            Some(date) => write!(out, "{date} {}", self.time),
            None => write!(out, "{}", self.time),
        }
    }
}

impl Schedule {
    /// Unless they are asked for, the scheduled time is `now` and the business date the day before it. A business date
    /// alone, as for a backfill, takes the scheduled time with it, to the day after.
    pub fn new(now: DateTime, business_date: Option<Date>, scheduled: Option<ScheduledTime>) -> Self {
        let asked_date = scheduled.and_then(|scheduled| scheduled.date);
        let time = scheduled.map_or_else(|| now.time(), |scheduled| scheduled.time);
        let date = asked_date.or_else(|| business_date?.tomorrow().ok()).unwrap_or_else(|| now.date());
        Self {
            // The calendar has no day before its first and none after its last; no job has a use for either.
            business_date: business_date.unwrap_or_else(|| date.yesterday().unwrap_or(date)),
            scheduled_time: date.to_datetime(whole_second(time)),
            today: asked_date.unwrap_or_else(|| now.date()),
        }
    }

    /// Whether it is one that was asked for like this.
    pub fn fits(&self, business_date: Option<Date>, scheduled: Option<ScheduledTime>) -> bool {
        let is_date = business_date.is_none_or(|date| date == self.business_date);
        is_date
            && scheduled.is_none_or(|asked| {
                asked.date.is_none_or(|date| date == self.scheduled_time.date())
                    && asked.time == self.scheduled_time.time()
            })
    }

    /// The value of `$name`, for DataWorks' own names.
    pub(super) fn built_in(&self, name: &str) -> Option<String> {
        let business = self.business_date;
        Some(match name {
            "bizdate" => digits_of(business),
            "gmtdate" => digits_of(business.tomorrow().unwrap_or(business)),
            "bizmonth" => {
                let is_current =
                    (business.year(), business.month()) == (self.today.year(), self.today.month());
                let before = business.first_of_month().yesterday().unwrap_or(business);
                let month = if is_current { before } else { business };
                format!("{:04}{:02}", month.year(), month.month())
            }
            "cyctime" => {
                let time = self.scheduled_time.time();
                let clock = format!("{:02}{:02}{:02}", time.hour(), time.minute(), time.second());
                digits_of(self.scheduled_time.date()) + &clock
            }
            _ => return None,
        })
    }
}

fn digits_of(date: Date) -> String {
    format!("{:04}{:02}{:02}", date.year(), date.month(), date.day())
}

fn whole_second(time: Time) -> Time {
    time.with().subsec_nanosecond(0).build().unwrap_or(time)
}

/// `20251031`, or with hyphens.
pub fn parse_business_date(text: &str) -> Result<Date, String> {
    let wrong = || "write a date as YYYYMMDD, for example 20251031".to_owned();
    let format = match (text.len(), text.contains('-')) {
        (8, false) => "%Y%m%d",
        (10, true) => "%Y-%m-%d",
        _ => return Err(wrong()),
    };
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    let date = Date::strptime(format, text).ok().filter(|date| is_plain && (1..9999).contains(&date.year()));
    date.ok_or_else(wrong)
}

/// `2025-11-01 02:30:45`, or a time of the day alone.
pub fn parse_scheduled_time(text: &str) -> Result<ScheduledTime, String> {
    let (date, time) = match text.split_once([' ', 'T']) {
        Some((date, time)) => (Some(date), time),
        None => (None, text),
    };
    let wrong =
        || "write \"YYYY-MM-DD HH:MM:SS\", for example \"2025-11-01 02:30:45\", or HH:MM:SS".to_owned();
    let date = date.map(parse_business_date).transpose().map_err(|_| wrong())?;
    let time = Time::strptime("%H:%M:%S", time).map_err(|_| wrong())?;
    Ok(ScheduledTime { date, time })
}

/// What an expression counts from, told by its brackets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Base {
    /// `${...}`: days, months or years from the business date.
    BusinessDate,
    /// `$[...]`: days and fractions of days from the scheduled time.
    ScheduledTime,
}

/// Why an expression has no value. Offsets are bytes of the text between the brackets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Unreadable {
        at: usize,
    },
    Blank {
        at: usize,
    },
    /// `$[yyyy-1]` would be one day, and is hardly ever meant so.
    YearOffset,
    MonthOffset,
    /// Hours or fractions in `${...}`.
    DayPrecision,
    /// `${add_months(...)}`
    FunctionOnBusinessDate,
    /// A number, or the time that it leads to, is beyond all calendars.
    OutOfRange,
}

impl Fault {
    /// What is wrong with the expression `written`, and what to write instead.
    pub(super) fn describe(self, inner: &str, written: &str) -> (String, String) {
        let character = |at: usize| inner[..at].chars().count() + 3;
        let (message, hint) = match self {
            Self::Unreadable { at } => {
                let what = inner[at..].chars().next().map_or_else(|| "its end".into(), |c| format!("'{c}'"));
                let message = format!(
                    "cannot parse time expression at {what}, character {} of {written}",
                    character(at)
                );
                return (message, "e.g. ${yyyymmdd-1} or $[hh24:mi-15/24/60]; $$ is a dollar sign".into());
            }
            Self::Blank { at } => {
                let message = format!("there is a blank at character {} of {written}", character(at));
                return (message, "part it into two, e.g. $[yyyy-mm-dd] $[hh24:mi:ss]".into());
            }
            Self::YearOffset => ("year offset needs add_months(...)", "e.g. $[add_months(yyyy,-12)]"),
            Self::MonthOffset => ("month offset needs add_months(...)", "e.g. $[add_months(yyyymm,-1)]"),
            Self::DayPrecision => ("${...} has day precision; use $[...] for hours", "e.g. $[hh24-1/24]"),
            Self::FunctionOnBusinessDate => {
                ("add_months stands in $[...] only", "e.g. ${yyyymm-1}, or $[add_months(yyyymm,-1)]")
            }
            Self::OutOfRange => ("its offset leads beyond the years 1 to 9999", ""),
        };
        (format!("time expression {written}: {message}"), hint.to_owned())
    }
}

/// Whether the text begins as a time expression does: letters that are date formats, or the function.
pub(super) fn begins_like_a_format(inner: &str) -> bool {
    let letters = inner.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or("");
    let mut rest = letters;
    while let Some((text, _)) = FORMATS.iter().find(|(text, _)| rest.starts_with(text)) {
        rest = &rest[text.len()..];
    }
    (!letters.is_empty() && rest.is_empty()) || inner.starts_with(FUNCTION)
}

/// The value of the expression that stands as `inner` between its brackets.
pub(super) fn evaluate(base: Base, inner: &str, schedule: &Schedule) -> Result<String, Fault> {
    let expression = Parser { base, text: inner, at: 0 }.expression()?;
    expression.value(schedule)
}

/// A piece of a date or a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Year,
    YearOfCentury,
    Month,
    Day,
    Hour,
    HourOfHalfDay,
    Minute,
    Second,
}

/// Longer ones before their own beginnings.
const FORMATS: &[(&str, Field)] = &[
    ("yyyy", Field::Year),
    ("yy", Field::YearOfCentury),
    ("mm", Field::Month),
    ("dd", Field::Day),
    ("hh24", Field::Hour),
    ("hh12", Field::HourOfHalfDay),
    ("hh", Field::HourOfHalfDay),
    ("mi", Field::Minute),
    ("ss", Field::Second),
];

const FUNCTION: &str = "add_months(";
/// Digits of one number; four of them multiplied still fit.
const DIGITS_MOST: usize = 9;
const SECONDS_OF_DAY: i128 = 86_400;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Field(Field),
    Literal(char),
}

impl Field {
    fn is_of_clock(self) -> bool {
        matches!(self, Self::Hour | Self::HourOfHalfDay | Self::Minute | Self::Second)
    }
}

/// A fraction in lowest terms; the denominator is positive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fraction {
    numerator: i128,
    denominator: i128,
}

impl Fraction {
    const ZERO: Self = Self { numerator: 0, denominator: 1 };

    /// `None` when a number becomes too large, or the denominator is zero.
    fn new(numerator: i128, denominator: i128) -> Option<Self> {
        let divisor = greatest_common_divisor(numerator.unsigned_abs(), denominator.unsigned_abs());
        let divisor = i128::try_from(divisor).ok().filter(|_| denominator > 0)?;
        Some(Self { numerator: numerator / divisor, denominator: denominator / divisor })
    }

    fn plus(self, other: Self) -> Option<Self> {
        let left = self.numerator.checked_mul(other.denominator)?;
        let right = other.numerator.checked_mul(self.denominator)?;
        Self::new(left.checked_add(right)?, self.denominator.checked_mul(other.denominator)?)
    }

    fn is_whole(self) -> bool {
        self.denominator == 1
    }
}

fn greatest_common_divisor(mut left: u128, mut right: u128) -> u128 {
    while right != 0 {
        (left, right) = (right, left % right);
    }
    left
}

/// An expression that was understood.
#[derive(Debug, PartialEq, Eq)]
struct Expression {
    base: Base,
    pieces: Vec<Piece>,
    /// Added first, the day cut to the length of the month.
    months: i128,
    /// In days, or for the business date in its smallest unit.
    offset: Fraction,
}

impl Expression {
    fn value(&self, schedule: &Schedule) -> Result<String, Fault> {
        let time = match self.base {
            Base::BusinessDate => self.on_business_date(schedule.business_date).map(DateTime::from),
            Base::ScheduledTime => self.at_scheduled_time(schedule.scheduled_time),
        };
        let time = time.filter(|time| (1..=9999).contains(&time.year())).ok_or(Fault::OutOfRange)?;
        Ok(render(&self.pieces, time))
    }

    fn has(&self, wanted: &[Field]) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Field(field) if wanted.contains(field)))
    }

    fn on_business_date(&self, date: Date) -> Option<Date> {
        let count = i64::try_from(self.offset.numerator).ok()?;
        let span = if self.has(&[Field::Day]) {
            Span::new().try_days(count)
        } else if self.has(&[Field::Month]) {
            Span::new().try_months(count)
        } else {
            Span::new().try_years(count)
        };
        date.checked_add(span.ok()?).ok()
    }

    fn at_scheduled_time(&self, time: DateTime) -> Option<DateTime> {
        let months = Span::new().try_months(i64::try_from(self.months).ok()?).ok()?;
        let seconds = self.offset.numerator.checked_mul(SECONDS_OF_DAY)?;
        // A fraction of a second is cut off: the clock shows the second that has begun.
        let seconds = i64::try_from(seconds.div_euclid(self.offset.denominator)).ok()?;
        time.checked_add(months).ok()?.checked_add(SignedDuration::from_secs(seconds)).ok()
    }
}

fn render(pieces: &[Piece], time: DateTime) -> String {
    let mut out = String::new();
    for piece in pieces {
        let written = match piece {
            Piece::Literal(c) => {
                out.push(*c);
                continue;
            }
            Piece::Field(Field::Year) => write!(out, "{:04}", time.year()),
            Piece::Field(Field::YearOfCentury) => write!(out, "{:02}", time.year() % 100),
            Piece::Field(Field::Month) => write!(out, "{:02}", time.month()),
            Piece::Field(Field::Day) => write!(out, "{:02}", time.day()),
            Piece::Field(Field::Hour) => write!(out, "{:02}", time.hour()),
            Piece::Field(Field::HourOfHalfDay) => write!(out, "{:02}", (time.hour() + 11) % 12 + 1),
            Piece::Field(Field::Minute) => write!(out, "{:02}", time.minute()),
            Piece::Field(Field::Second) => write!(out, "{:02}", time.second()),
        };
        written.expect("writing to a string cannot fail");
    }
    out
}

/// Walks the text between the brackets once.
struct Parser<'a> {
    base: Base,
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn expression(mut self) -> Result<Expression, Fault> {
        if let Some(at) = self.text.find(char::is_whitespace) {
            return Err(Fault::Blank { at });
        }
        let is_function = self.rest().starts_with(FUNCTION);
        if is_function && self.base == Base::BusinessDate {
            return Err(Fault::FunctionOnBusinessDate);
        }
        let mut months = 0;
        let pieces = if is_function {
            self.at += FUNCTION.len();
            let pieces = self.format(",")?;
            self.expect(',')?;
            months = self.months()?;
            self.expect(')')?;
            pieces
        } else {
            self.format("")?
        };
        let offset = self.offsets()?;
        let expression = Expression { base: self.base, pieces, months, offset };
        if self.base == Base::ScheduledTime && !is_function {
            refuse_calendar_offset(&expression)?;
        }
        Ok(expression)
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn unreadable<T>(&self) -> Result<T, Fault> {
        Err(Fault::Unreadable { at: self.at })
    }

    fn expect(&mut self, wanted: char) -> Result<(), Fault> {
        if self.peek() != Some(wanted) {
            return self.unreadable();
        }
        self.at += wanted.len_utf8();
        Ok(())
    }

    /// Fields and what stands between them, up to an offset or one of `ends`. Begins with a field.
    fn format(&mut self, ends: &str) -> Result<Vec<Piece>, Fault> {
        let mut pieces = Vec::new();
        while let Some(next) = self.peek().filter(|next| !ends.contains(*next)) {
            if let Some((text, field)) = FORMATS.iter().find(|(text, _)| self.rest().starts_with(text)) {
                if field.is_of_clock() && self.base == Base::BusinessDate {
                    return Err(Fault::DayPrecision);
                }
                self.at += text.len();
                pieces.push(Piece::Field(*field));
                continue;
            }
            // A sign before a letter parts two fields, before a digit it begins an offset.
            let after = self.rest().chars().nth(1);
            let is_sign = matches!(next, '+' | '-');
            if is_sign && after.is_some_and(|after| after.is_ascii_digit()) && !pieces.is_empty() {
                break;
            }
            let is_bare_sign = is_sign && !after.is_some_and(|after| after.is_ascii_alphabetic());
            let is_punctuation = !next.is_ascii_alphanumeric() && !"=$(){}[]*\"\\".contains(next);
            if pieces.is_empty() || is_bare_sign || !is_punctuation {
                return self.unreadable();
            }
            self.at += next.len_utf8();
            pieces.push(Piece::Literal(next));
        }
        if pieces.is_empty() { self.unreadable() } else { Ok(pieces) }
    }

    /// The second argument of the function: a sum of products of whole numbers, the first of which needs no sign.
    fn months(&mut self) -> Result<i128, Fault> {
        let mut sum: i128 = 0;
        let mut is_first = true;
        while is_first || matches!(self.peek(), Some('+' | '-')) {
            let is_signed = !is_first || matches!(self.peek(), Some('+' | '-'));
            let sign = if is_signed { self.sign()? } else { 1 };
            let product = self.product()?.checked_mul(sign).ok_or(Fault::OutOfRange)?;
            sum = sum.checked_add(product).ok_or(Fault::OutOfRange)?;
            is_first = false;
        }
        Ok(sum)
    }

    /// `+1-7*2-15/24/60` up to the end of the text.
    fn offsets(&mut self) -> Result<Fraction, Fault> {
        let mut sum = Fraction::ZERO;
        while self.peek().is_some() {
            let sign = self.sign()?;
            let numerator = self.product()?.checked_mul(sign).ok_or(Fault::OutOfRange)?;
            let mut denominator: i128 = 1;
            while self.peek() == Some('/') {
                if self.base == Base::BusinessDate {
                    return Err(Fault::DayPrecision);
                }
                self.at += 1;
                let start = self.at;
                let divisor = self.number()?;
                if divisor == 0 {
                    return Err(Fault::Unreadable { at: start });
                }
                denominator = denominator.checked_mul(divisor).ok_or(Fault::OutOfRange)?;
            }
            let term = Fraction::new(numerator, denominator);
            sum = term.and_then(|term| sum.plus(term)).ok_or(Fault::OutOfRange)?;
        }
        Ok(sum)
    }

    fn sign(&mut self) -> Result<i128, Fault> {
        let sign = match self.peek() {
            Some('+') => 1,
            Some('-') => -1,
            _ => return self.unreadable(),
        };
        self.at += 1;
        Ok(sign)
    }

    fn product(&mut self) -> Result<i128, Fault> {
        let mut product = self.number()?;
        while self.peek() == Some('*') {
            self.at += 1;
            product = product.checked_mul(self.number()?).ok_or(Fault::OutOfRange)?;
        }
        Ok(product)
    }

    fn number(&mut self) -> Result<i128, Fault> {
        let rest = self.rest();
        let len = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        if len == 0 {
            return self.unreadable();
        }
        let digits = &rest[..len];
        let number = if len > DIGITS_MOST { None } else { digits.parse().ok() };
        self.at += len;
        number.ok_or(Fault::OutOfRange)
    }
}

/// In a format without a day, a whole number of days was hardly meant: DataWorks calls such offsets invalid.
fn refuse_calendar_offset(expression: &Expression) -> Result<(), Fault> {
    let is_fine = [Field::Day, Field::Hour, Field::HourOfHalfDay, Field::Minute, Field::Second];
    if expression.offset == Fraction::ZERO || !expression.offset.is_whole() || expression.has(&is_fine) {
        return Ok(());
    }
    Err(if expression.has(&[Field::Month]) { Fault::MonthOffset } else { Fault::YearOffset })
}

#[cfg(test)]
mod tests;
