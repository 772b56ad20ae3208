use jiff::civil::{date, time};
use proptest::prelude::*;

use super::*;

/// Business date 2025-10-31, scheduled time 2025-11-01 02:30:45.
fn schedule() -> Schedule {
    Schedule::new(date(2025, 11, 1).at(2, 30, 45, 0), None, None)
}

/// The value of an expression with its brackets.
fn value_in(written: &str, schedule: &Schedule) -> Result<String, Fault> {
    let base = if written.starts_with("${") { Base::BusinessDate } else { Base::ScheduledTime };
    evaluate(base, &written[2..written.len() - 1], schedule)
}

fn value(written: &str) -> Result<String, Fault> {
    value_in(written, &schedule())
}

#[test]
fn every_form_has_its_value() {
    for (written, expected) in [
        ("${yyyymmdd}", "20251031"),
        ("$[yyyymmddhh24miss]", "20251101023045"),
        ("${yyyy-mm-dd}", "2025-10-31"),
        ("$[yyyy-mm-dd]", "2025-11-01"),
        ("${yyyymmdd-1}", "20251030"),
        ("$[yyyymmdd-1]", "20251031"),
        ("${yyyymm-1}", "202509"),
        ("$[add_months(yyyymm,-1)]", "202510"),
        ("$[hh24-1/24]", "01"),
        ("$[yyyymmdd-1/24]", "20251101"),
        ("$[hh24:mi:ss-15/24/60]", "02:15:45"),
        ("$[yyyymmdd-3/24]", "20251031"),
        ("$[add_months(yyyymmdd,-12)]", "20241101"),
        ("${yyyymm}", "202510"),
        // The offset is in the smallest unit of the format.
        ("${yyyy-1}", "2024"),
        ("${yyyymm+3}", "202601"),
        ("${yyyymmdd-7*1}", "20251024"),
        ("${yyyymmdd+2*7}", "20251114"),
        ("${yyyy-mm-dd-1}", "2025-10-30"),
        ("${mmdd-31}", "0930"),
        ("${yy/mm}", "25/10"),
        ("${dd.mm.yyyy}", "31.10.2025"),
        ("${yyyy年mm月}", "2025年10月"),
        // Chains, halves of days, the clock.
        ("$[yyyymmdd-1-1/24]", "20251031"),
        ("$[yyyymmddhh24-1-3/24]", "2025103023"),
        ("$[yyyymmdd+7*2]", "20251115"),
        ("$[hh12:mi]", "02:30"),
        ("$[hh:mi+12/24]", "02:30"),
        ("$[hh24:mi+12/24]", "14:30"),
        ("$[hh-2/24-30/24/60]", "12"),
        ("$[mi:ss-46/24/60/60]", "29:59"),
        ("$[yyyymmddhh24miss+1/7]", "20251101055627"),
        ("$[yyyymmddhh24miss-1/7]", "20251031230502"),
        ("$[yyyymm-3/24]", "202510"),
        // Months first, then days, and the end of a month stays one.
        ("$[add_months(yyyymmdd,-1)-15/24/60]", "20251001"),
        ("$[add_months(yyyymmdd,12*2)]", "20271101"),
        ("$[add_months(yyyymmdd,-12*1+1)-1]", "20241130"),
        ("$[add_months(yyyy-mm-dd,+1)]", "2025-12-01"),
        ("$[add_months(yyyymm,-1)-1]", "202509"),
    ] {
        assert_eq!(value(written).as_deref(), Ok(expected), "{written}");
    }
}

#[test]
fn a_month_that_is_too_short_ends_on_its_last_day() {
    let of = |year, month, day| Schedule::new(date(year, month, day).at(0, 0, 0, 0), None, None);
    assert_eq!(value_in("$[add_months(yyyymmdd,-1)]", &of(2025, 3, 31)).as_deref(), Ok("20250228"));
    assert_eq!(value_in("$[add_months(yyyymmdd,-1)]", &of(2024, 3, 31)).as_deref(), Ok("20240229"));
    assert_eq!(value_in("$[add_months(yyyymmdd,1)+1]", &of(2025, 1, 31)).as_deref(), Ok("20250301"));
    // The business date is the day before.
    assert_eq!(value_in("${yyyymm-1}", &of(2025, 4, 1)).as_deref(), Ok("202502"));
    assert_eq!(value_in("${yyyy-1}", &of(2024, 3, 1)).as_deref(), Ok("2023"));
}

#[test]
fn what_has_no_value_is_told_with_the_character_and_a_remedy() {
    for (written, expected) in [
        ("$[yyyymmdd-]", "cannot parse time expression at '-', character 11 of $[yyyymmdd-]"),
        ("$[abc]", "cannot parse time expression at 'a', character 3 of $[abc]"),
        ("$[yyyymm01]", "at '0', character 9"),
        ("${yyyymmdd-1mm}", "at 'm', character 13"),
        ("$[yyyymmdd-1/0]", "at '0', character 14"),
        ("$[yyyymmdd-1//2]", "at '/', character 14"),
        ("$[yyyymmdd--1]", "at '-', character 11"),
        ("$[yyyymmdd=1]", "at '=', character 11"),
        ("$[yyyy年x]", "at 'x', character 8"),
        ("$[add_months(yyyymm)]", "at ')', character 20"),
        ("$[add_months(yyyymm,)]", "at ')', character 21"),
        ("$[add_months(yyyymm,-1/2)]", "at '/', character 23"),
        ("$[add_months(yyyymm,-1]", "at its end, character 23"),
        ("$[add_months(,1)]", "at ',', character 14"),
        ("$[yyyy-1]", "$[yyyy-1]: year offset needs add_months(...)"),
        ("$[yyyymm-1]", "$[yyyymm-1]: month offset needs add_months(...)"),
        ("$[mm+48/24]", "month offset needs add_months(...)"),
        ("${yyyymmdd-1/24}", "${...} has day precision; use $[...] for hours"),
        ("${yyyymmddhh24}", "${...} has day precision; use $[...] for hours"),
        ("${add_months(yyyymm,-1)}", "add_months stands in $[...] only"),
        ("$[yyyy-mm-dd hh24:mi:ss]", "there is a blank at character 13"),
        ("$[yyyymmdd-999999999]", "beyond the years 1 to 9999"),
        ("$[yyyymmdd-9999999999]", "beyond the years 1 to 9999"),
        ("${yyyy-3000}", "beyond the years 1 to 9999"),
        ("$[add_months(yyyy,99999*99999)]", "beyond the years 1 to 9999"),
    ] {
        let fault = value(written).expect_err(written);
        let (message, hint) = fault.describe(&written[2..written.len() - 1], written);
        assert!(message.contains(expected), "{written}: {message}");
        assert!(fault == Fault::OutOfRange || !hint.is_empty(), "{written} has no remedy");
    }
}

#[test]
fn built_in_names_have_the_values_of_their_day() {
    let named = |schedule: Schedule| {
        ["bizdate", "cyctime", "gmtdate", "bizmonth"].map(|name| schedule.built_in(name).unwrap_or_default())
    };
    assert_eq!(named(schedule()), ["20251031", "20251101023045", "20251101", "202510"]);
    // In the current month the month before is meant.
    let mid = Schedule::new(date(2025, 11, 20).at(1, 0, 0, 0), None, None);
    assert_eq!(named(mid), ["20251119", "20251120010000", "20251120", "202510"]);
    assert_eq!(schedule().built_in("jobid"), None);
}

#[test]
fn a_backfill_moves_the_scheduled_time_to_the_day_after() {
    let now = date(2026, 11, 28).at(13, 18, 15, 999);
    let backfill = Schedule::new(now, Some(date(2025, 10, 31)), None);
    assert_eq!(value_in("${yyyymmdd}", &backfill).as_deref(), Ok("20251031"));
    assert_eq!(value_in("$[yyyymmddhh24miss]", &backfill).as_deref(), Ok("20251101131815"));
    assert_eq!(backfill.built_in("gmtdate").as_deref(), Some("20251101"));
    assert_eq!(backfill.built_in("bizmonth").as_deref(), Some("202510"), "not the current month");

    let at = parse_scheduled_time("02:30:45").expect("a time of the day");
    let at_its_time = Schedule::new(now, Some(date(2025, 10, 31)), Some(at));
    assert_eq!(at_its_time.scheduled_time, date(2025, 11, 1).at(2, 30, 45, 0));

    let both = parse_scheduled_time("2025-12-24 02:30:45").expect("date and time");
    let both = Schedule::new(now, Some(date(2025, 10, 31)), Some(both));
    assert_eq!((both.business_date, both.scheduled_time.date()), (date(2025, 10, 31), date(2025, 12, 24)));
}

#[test]
fn a_scheduled_time_alone_decides_every_value() {
    let asked = parse_scheduled_time("2025-11-01T02:30:45").expect("date and time");
    for now in [date(2025, 11, 1).at(3, 0, 0, 0), date(2031, 1, 1).at(0, 0, 0, 0)] {
        assert_eq!(Schedule::new(now, None, Some(asked)), schedule());
    }
}

#[test]
fn a_kept_schedule_serves_every_question_that_it_answers() {
    let kept = schedule();
    let time = |text: &str| Some(parse_scheduled_time(text).expect("a time"));
    assert!(kept.fits(None, None) && kept.fits(Some(date(2025, 10, 31)), None));
    assert!(kept.fits(None, time("2025-11-01 02:30:45")) && kept.fits(None, time("02:30:45")));
    assert!(!kept.fits(Some(date(2025, 10, 30)), None) && !kept.fits(None, time("02:30:46")));
    assert!(!kept.fits(Some(date(2025, 10, 31)), time("2025-11-02 02:30:45")));
    assert_eq!(kept.to_string(), "business date 2025-10-31 and scheduled time 2025-11-01 02:30:45");
    assert_eq!(
        time("2025-11-01T02:30:45").map(|time| time.to_string()).as_deref(),
        Some("2025-11-01 02:30:45")
    );
}

#[test]
fn dates_and_times_are_read_as_people_write_them() {
    assert_eq!(parse_business_date("20251031"), Ok(date(2025, 10, 31)));
    assert_eq!(parse_business_date("2025-10-31"), Ok(date(2025, 10, 31)));
    for wrong in ["2025103", "20251301", "20250229", "31.10.2025", "", "+0251031", "2025-1-31", "99991231"] {
        assert!(parse_business_date(wrong).is_err(), "{wrong}");
    }
    for wrong in ["2025-11-01", "2025-11-01 2", "2025-11-01 25:00:00", "noon", ""] {
        assert!(parse_scheduled_time(wrong).is_err(), "{wrong}");
    }
    let parsed = parse_scheduled_time("20251101 23:59:59").expect("it is a time");
    assert_eq!((parsed.date, parsed.time), (Some(date(2025, 11, 1)), time(23, 59, 59, 0)));
}

/// Days since 1970 by counting, and back: nothing of the calendar in use is asked.
mod naive {
    fn length_of_year(year: i64) -> i64 {
        if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) { 366 } else { 365 }
    }

    pub(super) fn length_of_month(year: i64, month: i64) -> i64 {
        match month {
            2 => length_of_year(year) - 337,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }

    pub(super) fn days(year: i64, month: i64, day: i64) -> i64 {
        let years: i64 = (1600..year).map(length_of_year).sum();
        let months: i64 = (1..month).map(|month| length_of_month(year, month)).sum();
        years + months + day - 1
    }

    pub(super) fn date(mut days: i64) -> (i64, i64, i64) {
        let (mut year, mut month) = (1600, 1);
        while days >= length_of_year(year) {
            days -= length_of_year(year);
            year += 1;
        }
        while days >= length_of_month(year, month) {
            days -= length_of_month(year, month);
            month += 1;
        }
        (year, month, days + 1)
    }
}

/// Every expression is one of these terms, so that the reference can add them up by itself.
#[derive(Debug, Clone)]
struct Offset {
    negative: bool,
    factors: Vec<i64>,
    divisors: Vec<i64>,
}

fn offset(divisors: usize) -> impl Strategy<Value = Offset> {
    let factors = prop::collection::vec(0_i64..40, 1..3);
    (any::<bool>(), factors, prop::collection::vec(prop::sample::select(vec![24_i64, 60, 7]), 0..=divisors))
        .prop_map(|(negative, factors, divisors)| Offset { negative, factors, divisors })
}

impl Offset {
    fn text(&self) -> String {
        let sign = if self.negative { '-' } else { '+' };
        let joined =
            |numbers: &[i64], by: &str| numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(by);
        let divisors: String = self.divisors.iter().map(|divisor| format!("/{divisor}")).collect();
        format!("{sign}{}{divisors}", joined(&self.factors, "*"))
    }

    fn count(&self) -> i64 {
        let product: i64 = self.factors.iter().product();
        if self.negative { -product } else { product }
    }
}

fn moments() -> impl Strategy<Value = DateTime> {
    (1990_i16..2060, 1_i8..=12, 1_i8..=31, 0_i8..24, 0_i8..60, 0_i8..60).prop_map(
        |(year, month, day, h, m, s)| {
            let last = naive::length_of_month(year.into(), month.into());
            date(year, month, day.min(i8::try_from(last).expect("a month's length"))).at(h, m, s, 0)
        },
    )
}

/// Months and days from the scheduled time, against counting seconds.
fn check_scheduled(now: DateTime, months: i64, offsets: &[Offset]) {
    let text: String = offsets.iter().map(Offset::text).collect();
    let written = format!("$[add_months(yyyymmddhh24miss,{months}){text}]");

    let at = i64::from(now.year()) * 12 + i64::from(now.month()) - 1 + months;
    let (year, month) = (at.div_euclid(12), at.rem_euclid(12) + 1);
    let day = i64::from(now.day()).min(naive::length_of_month(year, month));
    let clock = i64::from(now.hour()) * 3600 + i64::from(now.minute()) * 60 + i64::from(now.second());
    // So fine that all divisors of an offset together divide it.
    let scale = 24_i128.pow(3) * 60_i128.pow(3) * 7_i128.pow(3);
    let part =
        |one: &Offset| i128::from(one.count()) * scale / i128::from(one.divisors.iter().product::<i64>());
    let days: i128 = offsets.iter().map(part).sum();
    let start = i128::from(naive::days(year, month, day)) * 86_400 + i128::from(clock);
    let seconds = i64::try_from((start * scale + days * 86_400).div_euclid(scale)).expect("it is near");
    let (year, month, day) = naive::date(seconds.div_euclid(86_400));
    let clock = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    let expected = format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}");
    assert_eq!(value_in(&written, &Schedule::new(now, None, None)), Ok(expected), "{written} at {now}");
}

/// Days and months from the business date, against counting days.
fn check_business(business: Date, offsets: &[Offset]) {
    let text: String = offsets.iter().map(Offset::text).collect();
    let count: i64 = offsets.iter().map(Offset::count).sum();
    let schedule = Schedule::new(business.at(0, 0, 0, 0), Some(business), None);
    let (year, month, day) =
        (i64::from(business.year()), i64::from(business.month()), i64::from(business.day()));

    let (to_year, to_month, to_day) = naive::date(naive::days(year, month, day) + count);
    let by_day = value_in(&format!("${{yyyymmdd{text}}}"), &schedule);
    assert_eq!(by_day, Ok(format!("{to_year:04}{to_month:02}{to_day:02}")), "{text} from {business}");

    let at = year * 12 + month - 1 + count;
    let by_month = value_in(&format!("${{yyyymm{text}}}"), &schedule);
    let expected = format!("{:04}{:02}", at.div_euclid(12), at.rem_euclid(12) + 1);
    assert_eq!(by_month, Ok(expected), "{text} from {business}");
}

fn check_any(text: &str) {
    for base in [Base::BusinessDate, Base::ScheduledTime] {
        if let Err(fault) = evaluate(base, text, &schedule()) {
            assert!(!fault.describe(text, text).0.is_empty());
        }
    }
}

const EXPRESSION_LIKE: &str = "(add_months\\()?[ymdhis24/*+,:)( -]{0,20}[0-9*/+-]{0,30}.{0,3}";

proptest! {
    #[test]
    fn an_offset_in_days_agrees_with_counting_seconds(
        now in moments(),
        months in -40_i64..40,
        offsets in prop::collection::vec(offset(3), 0..4),
    ) {
        check_scheduled(now, months, &offsets);
    }

    #[test]
    fn an_offset_of_the_business_date_agrees_with_counting_days(
        business in moments(),
        offsets in prop::collection::vec(offset(0), 0..3),
    ) {
        check_business(business.date(), &offsets);
    }

    #[test]
    fn no_text_makes_an_expression_panic(text in EXPRESSION_LIKE) {
        check_any(&text);
    }
}

/// The same, many times as long.
mod long {
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100_000))]

        #[test]
        #[ignore = "takes minutes; `make test-long` runs it"]
        fn offsets_agree_with_counting_in_many_tries(
            now in moments(),
            months in -40_i64..40,
            fractions in prop::collection::vec(offset(3), 0..4),
            wholes in prop::collection::vec(offset(0), 0..3),
        ) {
            check_scheduled(now, months, &fractions);
            check_business(now.date(), &wholes);
        }

        #[test]
        #[ignore = "takes minutes; `make test-long` runs it"]
        fn no_text_makes_an_expression_panic_in_many_tries(text in EXPRESSION_LIKE) {
            check_any(&text);
        }
    }
}
