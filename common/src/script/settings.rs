//! `setting`: speed, error limit, mode, time zone, and Starlift's own object `starlift`.

use super::faults::Faults;
use super::fields::{Object, integer, is_blank, is_no_limit, show};
use crate::job::{CommitMode, ErrorLimit, Settings, Split};

const KEYS: &[&str] =
    &["speed", "errorLimit", "executeMode", "failoverEnable", "common", "dryRun", "starlift"];
/// What concerns a Java process, or only DataWorks' own bookkeeping.
const IGNORED: &[&str] = &["jvmOption", "jvmMemory", "keyVersion"];

/// As the DataWorks editor proposes.
const DEFAULT_CONCURRENT: u32 = 3;
/// DataWorks offers distributed execution from here.
const DISTRIBUTED_FROM: u32 = 8;
/// `mbps` means megabytes per second, whatever its name says (DataWorks: speed control).
const BYTES_PER_MBPS: u64 = 1 << 20;

pub(super) fn read(setting: &Object<'_>, faults: &Faults) -> Settings {
    setting.refuse_unknown_keys(KEYS, IGNORED);
    let (concurrent, bytes_per_second) = match setting.object("speed") {
        Some(speed) => read_speed(&speed, faults),
        None => (DEFAULT_CONCURRENT, None),
    };
    let error_limit = setting
        .object("errorLimit")
        .map_or_else(ErrorLimit::default, |limit| read_error_limit(&limit, faults));
    check_mode(setting, concurrent, faults);
    // Rerunning a failed job is safe here with or without it.
    setting.boolean("failoverEnable");
    // What it means is for the commands: `Parsed::dry_run`.
    setting.boolean("dryRun");
    let mut settings = Settings {
        concurrent,
        bytes_per_second,
        error_limit,
        commit: CommitMode::default(),
        split: Split::default(),
        time_zone: read_time_zone(setting, faults),
        create_table: false,
        probe_lengths: false,
    };
    if let Some(own) = setting.object("starlift") {
        read_own(&own, &mut settings, faults);
    }
    settings
}

/// Concurrency and the limit in bytes per second.
fn read_speed(speed: &Object<'_>, faults: &Faults) -> (u32, Option<u64>) {
    speed.refuse_unknown_keys(&["concurrent", "throttle", "mbps", "channel", "byte", "record"], &["dmu"]);
    let rule = "must be a positive integer (DataWorks: 1..32)";
    let concurrent = speed.integer("concurrent", 1, rule);
    let channel = speed.integer("channel", 1, rule);
    if concurrent.is_some() && channel.is_some() && concurrent != channel {
        faults.warn(&speed.place("channel"), "channel is ignored because concurrent is given");
    }
    let concurrent = match concurrent.or(channel).map(u32::try_from) {
        None => DEFAULT_CONCURRENT,
        Some(Ok(concurrent)) => concurrent,
        Some(Err(_)) => {
            faults.error(&speed.place("concurrent"), format!("concurrent {rule}"), "");
            DEFAULT_CONCURRENT
        }
    };
    if read_limit(speed, "record", faults).is_some() {
        faults.unsupported(
            &speed.place("record"),
            "a limit in records per second is not supported: rows differ in size, and servers and networks bear bytes",
            "limit bytes: throttle true and mbps",
        );
    }
    (concurrent, read_byte_limit(speed, faults))
}

fn read_byte_limit(speed: &Object<'_>, faults: &Faults) -> Option<u64> {
    let rule = "must be a positive integer (MB/s)";
    let by_mbps = if speed.boolean("throttle") == Some(true) {
        if speed.get("mbps").is_none_or(is_blank) {
            let message = "throttle needs mbps, a positive integer (MB/s)";
            faults.error(&speed.place("mbps"), message, "e.g. 50, or throttle false");
        }
        speed
            .integer("mbps", 1, &format!("{rule}, as throttle needs mbps"))
            .map(|mbps| mbps.saturating_mul(BYTES_PER_MBPS))
    } else {
        if speed.get("mbps").is_some_and(|value| !is_blank(value)) {
            faults.warn(&speed.place("mbps"), "mbps ignored because throttle is false");
        }
        None
    };
    let by_byte = read_limit(speed, "byte", faults);
    [by_mbps, by_byte].into_iter().flatten().min()
}

/// A limit in DataX' words; none where it is said that there is none.
fn read_limit(speed: &Object<'_>, key: &str, faults: &Faults) -> Option<u64> {
    let value = speed.get(key).filter(|value| !is_blank(value) && !is_no_limit(value))?;
    let limit = integer(value);
    if limit.is_none() {
        let message = format!("{key} must be a positive integer, or -1 for no limit, not {}", show(value));
        faults.error(&speed.place(key), message, "");
    }
    limit
}

fn read_error_limit(limit: &Object<'_>, faults: &Faults) -> ErrorLimit {
    limit.refuse_unknown_keys(&["record", "percentage", "strategy"], &[]);
    let record_rule = "must be a non-negative integer or empty for unlimited";
    let record = limit.integer("record", 0, record_rule);
    let record_is_blank = limit.get("record").is_some_and(is_blank);
    let share = read_percentage(limit, faults);
    if record.is_some() && share.is_some() {
        faults.warn(&limit.place("percentage"), "percentage is ignored because record is given");
    }
    let place = limit.place("strategy");
    let strategy = limit.text("strategy");
    if let (Some(strategy @ ("ZeroTolerance" | "Ignore")), Some(_), None) =
        (strategy.as_deref(), share, record)
    {
        let message =
            format!("contradiction: {strategy} has no share of dirty records, but percentage is given");
        faults.error(&limit.place("percentage"), message, "remove one of them");
    }
    match strategy.as_deref() {
        None => match (record, share) {
            (Some(record), _) => ErrorLimit::Records(record),
            (None, Some(share)) => ErrorLimit::Share(share),
            (None, None) if record_is_blank => {
                let message = "errorLimit.record is empty: any number of dirty records is tolerated";
                faults.warn(&limit.place("record"), message);
                ErrorLimit::Unlimited
            }
            (None, None) => ErrorLimit::default(),
        },
        Some("ZeroTolerance") => {
            if record.is_some_and(|record| record > 0) {
                let message = "contradiction: ZeroTolerance allows no dirty record";
                faults.error(&place, message, "set record to 0, or use strategy Tolerance");
            }
            ErrorLimit::Records(0)
        }
        Some("Tolerance") => match record {
            Some(record) if record > 0 => ErrorLimit::Records(record),
            _ => {
                let message = "strategy Tolerance needs record > 0";
                faults.error(&place, message, "give record, or use ZeroTolerance");
                ErrorLimit::default()
            }
        },
        Some("Ignore") => {
            if record.is_some() {
                let message = "contradiction: Ignore tolerates any number, but record is given";
                faults.error(&place, message, "remove record, or use strategy Tolerance");
            }
            ErrorLimit::Unlimited
        }
        Some(other) => {
            let message = format!("strategy must be Ignore, Tolerance or ZeroTolerance, not \"{other}\"");
            faults.error(&place, message, "");
            ErrorLimit::default()
        }
    }
}

/// In millionths.
fn read_percentage(limit: &Object<'_>, faults: &Faults) -> Option<u32> {
    let value = limit.get("percentage").filter(|value| !is_blank(value))?;
    let share = value.as_f64().or_else(|| value.as_str()?.parse().ok());
    let share = share.filter(|share| (0.0..=1.0).contains(share));
    if share.is_none() {
        let message = format!("percentage must be a fraction 0..1 (5 % is 0.05), not {}", show(value));
        faults.error(&limit.place("percentage"), message, "");
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and a million")]
    share.map(|share| (share * 1e6).round() as u32)
}

fn check_mode(setting: &Object<'_>, concurrent: u32, faults: &Faults) {
    let place = setting.place("executeMode");
    match setting.get("executeMode") {
        None => {}
        Some(value) if value == "distribute" && concurrent >= DISTRIBUTED_FROM => {}
        Some(value) if value == "distribute" => {
            let message = format!(
                "DataWorks offers distributed execution from {DISTRIBUTED_FROM}; concurrent is {concurrent}"
            );
            faults.warn(&place, message);
        }
        Some(value) if is_blank(value) => {}
        Some(value) => {
            let message = format!("executeMode must be \"distribute\" or null, not {}", show(value));
            faults.error(&place, message, "");
        }
    }
}

/// A name such as `Asia/Shanghai`, or an offset; `GMT+8` becomes the `+08:00` that servers understand.
fn read_time_zone(setting: &Object<'_>, faults: &Faults) -> Option<String> {
    let common = setting.object("common")?;
    common.refuse_unknown_keys(&["column"], &[]);
    let column = common.object("column")?;
    column.refuse_unknown_keys(&["timeZone"], &[]);
    let zone = column.text("timeZone")?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '+' | '-' | ':');
    if zone.len() > 64 || !zone.chars().all(is_plain) {
        let message = format!("\"{zone}\" is not a time zone");
        faults.error(&column.place("timeZone"), message, "e.g. Asia/Shanghai or +08:00");
        return None;
    }
    Some(offset_of_gmt(&zone).unwrap_or(zone))
}

fn offset_of_gmt(zone: &str) -> Option<String> {
    let rest = zone.strip_prefix("GMT").or_else(|| zone.strip_prefix("UTC"))?;
    let sign = rest.chars().next().filter(|sign| matches!(sign, '+' | '-'))?;
    let (hours, minutes) = rest[1..].split_once(':').unwrap_or((&rest[1..], "0"));
    let (hours, minutes): (u8, u8) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours <= 14 && minutes < 60).then(|| format!("{sign}{hours:02}:{minutes:02}"))
}

/// Our own settings are read strictly: a word that is not understood here was meant for us.
fn read_own(own: &Object<'_>, settings: &mut Settings, faults: &Faults) {
    for (key, value) in own.entries() {
        let place = own.place(key);
        match (key, value.as_str()) {
            ("createTable", _) => settings.create_table = own.boolean(key) == Some(true),
            ("probeLengths", _) => settings.probe_lengths = own.boolean(key) == Some(true),
            ("commit", Some("task")) => settings.commit = CommitMode::Task,
            ("commit", Some("job")) => settings.commit = CommitMode::Job,
            ("commit", _) => {
                let message = format!("commit must be \"task\" or \"job\", not {}", show(value));
                faults.error(&place, message, "");
            }
            ("split", Some("key")) => settings.split = Split::Key,
            ("split", Some("tablet")) => settings.split = Split::Tablet,
            ("split", _) => {
                let message = format!("split must be \"key\" or \"tablet\", not {}", show(value));
                faults.error(&place, message, "");
            }
            // What it allows is for the reader: `script::split_factor_most`.
            ("allowLargeSplitFactor", _) => drop(own.boolean(key)),
            _ => faults.error(
                &place,
                format!("setting.starlift has no key {key}"),
                "known: commit, split, createTable, probeLengths, allowLargeSplitFactor",
            ),
        }
    }
}
