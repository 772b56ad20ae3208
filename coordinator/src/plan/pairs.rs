//! Source columns beside target columns: whether each pair carries its values, what people should know of it, and what a
//! worker does for it. Pure; the matrix is [`crate::columns::fit`].

use starlift_common::job::{CellCheck, CellKind, CellRule, ColumnList, Format, HEX_PREFIX, JobSpec};
use starlift_common::problem::{Code, Problem};
use starlift_common::script::derived_columns;

use super::{Length, Selected, SourceFacts, names};
use crate::columns::fit::{Fit, cell_kind, fit};
use crate::columns::{Column, Kind, Range};

/// One column's way from source to target.
struct Pair<'a> {
    from: &'a Selected,
    to: &'a Column,
    /// What arrives: the target's own type, or a text where the job's `columns` header makes the value of it.
    arrives_as: Kind,
    fit: Fit,
}

fn pairs<'a>(spec: &JobSpec, source: &'a SourceFacts, columns: &[&'a Column]) -> Vec<Pair<'a>> {
    let header = spec.target.load.headers.get("columns");
    let derived = header.map(|header| derived_columns(header)).unwrap_or_default();
    let pair = |(from, &to): (&'a Selected, &&'a Column)| {
        let is_derived = derived.iter().any(|name| name.to_lowercase() == to.name.to_lowercase());
        let arrives_as = if is_derived { Kind::Text } else { to.kind.clone() };
        let fit = fit(spec.source.kind, &from.kind, &arrives_as);
        Pair { from, to, arrives_as, fit }
    };
    source.selected.iter().zip(columns).map(pair).collect()
}

/// Counts and types of both sides; they map by position.
pub(super) fn match_columns(
    spec: &JobSpec,
    source: &SourceFacts,
    columns: &[&Column],
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<String>,
) {
    let wanted = match &spec.target.columns {
        ColumnList::All => columns.len(),
        ColumnList::Listed(names) => names.len(),
    };
    let table = &spec.target.table;
    if source.selected.len() != wanted {
        let message = format!(
            "column counts differ: the reader has {} ({}), the writer {wanted} ({})",
            source.selected.len(),
            names(source.selected.iter().map(|selected| selected.name.as_str())),
            names(columns.iter().map(|column| column.name.as_str())),
        );
        problems
            .push(Problem::new(Code::ColumnMismatch, message).at(table.clone()).hint("they map by position"));
        return;
    }
    if columns.len() != wanted {
        return; // an unknown column was told; positions mean nothing without it
    }
    let pairs = pairs(spec, source, columns);
    problems.extend(pairs.iter().filter_map(|pair| pair.misfit(table)));
    problems.extend(pairs.iter().filter_map(|pair| pair.without_a_way(spec)));
    problems.extend(pairs.iter().filter_map(|pair| pair.too_long(table)));
    warnings.extend(texts_that_may_be_too_long(&pairs));
    warnings.extend(null_where_none_may_be(&pairs));
    warnings.extend(what_is_not_strict(spec, &pairs));
    warnings.extend(time_zone(source));
}

/// How bodies render each cell, and what is looked for in some of them.
pub(super) fn cells(
    spec: &JobSpec,
    source: &SourceFacts,
    columns: &[&Column],
) -> (Vec<CellKind>, Vec<CellCheck>) {
    let pairs = pairs(spec, source, columns);
    let kinds = pairs.iter().map(|pair| cell_kind(&pair.from.kind, &pair.arrives_as)).collect();
    let checks = (0..).zip(&pairs).filter_map(|(column, pair)| match pair.fit {
        Fit::Checked(Some(rule)) => Some(CellCheck { column, rule }),
        _ => None,
    });
    (kinds, checks.collect())
}

/// Indexes of the columns whose text may be too long, by their types.
pub(super) fn lengths_in_doubt(spec: &JobSpec, source: &SourceFacts, columns: &[&Column]) -> Vec<usize> {
    let pairs = pairs(spec, source, columns);
    let in_doubt = pairs.iter().enumerate().filter(|(_, pair)| pair.excess().is_some());
    in_doubt.map(|(index, _)| index).collect()
}

impl Pair<'_> {
    /// `a (int) into b (date)`
    fn both(&self) -> String {
        format!(
            "{} ({}) cannot go into {} ({})",
            self.from.name, self.from.type_text, self.to.name, self.to.type_text
        )
    }

    fn problem(&self, table: &str, hint: String) -> Problem {
        Problem::new(Code::TypeMismatch, self.both()).at(format!("{table}.{}", self.to.name)).hint(hint)
    }

    fn misfit(&self, table: &str) -> Option<Problem> {
        let Fit::Refused { why, remedy } = &self.fit else { return None };
        let why = why.replace("{col}", &self.from.sql);
        let hint = if remedy.is_empty() {
            why
        } else {
            let remedy = remedy.replace("{col}", &self.from.sql);
            format!("{why}; if that is meant, write {remedy} in the reader's column list")
        };
        Some(self.problem(table, hint))
    }

    /// A type that the job's own way of loading leaves no way for.
    fn without_a_way(&self, spec: &JobSpec) -> Option<Problem> {
        if matches!(self.fit, Fit::Refused { .. }) {
            return None;
        }
        let load = &spec.target.load;
        let table = &spec.target.table;
        match &self.arrives_as {
            Kind::Nested(_) if load.format == Format::Csv => {
                Some(self.problem(table, "nested values go as JSON only: set loadProps format json".into()))
            }
            Kind::Binary => {
                let header =
                    ["columns", "jsonpaths"].into_iter().find(|name| load.headers.contains_key(*name));
                let header = header?;
                let hint = format!(
                    "bytes go as hexadecimal digits that a columns header of Starlift's own decodes, and loadProps has \
                     {header}: leave it out, or read HEX({}) and write {}=to_binary(field,'hex') there",
                    self.from.sql, self.to.name
                );
                Some(self.problem(table, hint))
            }
            _ if self.to.name.to_lowercase().starts_with(HEX_PREFIX) => {
                Some(self.problem(table, format!("names that begin with {HEX_PREFIX} are Starlift's own")))
            }
            _ => None,
        }
    }

    /// Bytes of the longest text, and bytes that the target takes, where the first are more.
    fn excess(&self) -> Option<(Length, u64)> {
        if matches!(self.fit, Fit::Refused { .. }) || self.arrives_as != self.to.kind {
            return None;
        }
        let room = self.to.bytes_most?;
        let length = self.from.length.or_else(|| written(&self.from.kind).map(Length::AtMost))?;
        (length.bytes() > room).then_some((length, room))
    }

    fn too_long(&self, table: &str) -> Option<Problem> {
        let (Length::Measured(bytes), room) = self.excess()? else { return None };
        let hint = format!("the longest value has {bytes} bytes and the column takes {room}: widen it");
        Some(self.problem(table, hint))
    }
}

/// Bytes of the longest text that a value which is no text is written as.
fn written(kind: &Kind) -> Option<u64> {
    let digits = |range: &Range| range.min.to_string().len().max(range.max.to_string().len());
    let bytes = match kind {
        Kind::Boolean => 1,
        Kind::Flag(range) | Kind::Integer(range) | Kind::PaddedInteger(range) => digits(range),
        Kind::LargeInt => digits(&Range::LARGEINT),
        Kind::Bits(bits) => digits(&Range::unsigned((*bits).min(64))),
        Kind::Decimal { precision, .. } => return Some(u64::from(*precision) + 3),
        Kind::Float | Kind::ShortFloat | Kind::Double => "-2.2250738585072014e-308".len(),
        Kind::Date => "2024-02-29".len(),
        Kind::DateTime => "2024-02-29 13:45:01.123456".len(),
        Kind::Time => "-838:59:59.000000".len(),
        Kind::Year => 4,
        Kind::Text
        | Kind::PaddedText
        | Kind::Binary
        | Kind::Json
        | Kind::Nested(_)
        | Kind::Null
        | Kind::Refused(_) => {
            return None;
        }
    };
    u64::try_from(bytes).ok()
}

fn texts_that_may_be_too_long(pairs: &[Pair<'_>]) -> Option<String> {
    let long = pairs.iter().filter_map(|pair| match pair.excess()? {
        (Length::AtMost(bytes), room) => {
            Some(format!("{} (up to {bytes} bytes, {} takes {room})", pair.from.name, pair.to.name))
        }
        (Length::Measured(_), _) => None,
    });
    let long: Vec<String> = long.collect();
    (!long.is_empty()).then(|| {
        format!(
            "StarRocks counts bytes, and rows whose text is too long are refused: {}; setting.starlift.probeLengths or \
             plan --probe-lengths tells whether there are any",
            names(long.iter().map(String::as_str))
        )
    })
}

fn null_where_none_may_be(pairs: &[Pair<'_>]) -> Option<String> {
    let is_at_risk = |pair: &&Pair<'_>| {
        let may_be_null = pair.from.nullable == Some(true) || pair.from.kind == Kind::Null;
        may_be_null && !pair.to.nullable && pair.arrives_as == pair.to.kind
    };
    let at_risk: Vec<&str> = pairs.iter().filter(is_at_risk).map(|pair| pair.to.name.as_str()).collect();
    (!at_risk.is_empty()).then(|| {
        format!(
            "the source may hold NULL where the target's column is NOT NULL: rows with NULL for {} are refused",
            names(at_risk.into_iter())
        )
    })
}

/// Without strict mode the server puts NULL for what does not fit.
fn what_is_not_strict(spec: &JobSpec, pairs: &[Pair<'_>]) -> Option<String> {
    if spec.target.load.headers.get("strict_mode").is_none_or(|strict| strict != "false") {
        return None;
    }
    // What the worker looks for itself is an error in any mode.
    let is_at_risk = |pair: &&Pair<'_>| {
        let left_to_the_server = match pair.fit {
            Fit::Exact | Fit::Widened | Fit::Refused { .. } => false,
            Fit::Checked(None) => true,
            Fit::Checked(Some(rule)) => {
                !matches!(rule, CellRule::Truth | CellRule::RealDate | CellRule::Json | CellRule::NoZeroAtEnd)
            }
        };
        left_to_the_server || pair.excess().is_some()
    };
    let at_risk: Vec<&str> = pairs.iter().filter(is_at_risk).map(|pair| pair.to.name.as_str()).collect();
    (!at_risk.is_empty()).then(|| {
        format!(
            "strict_mode is false: values that do not fit become NULL without a word in {}",
            names(at_risk.into_iter())
        )
    })
}

fn time_zone(source: &SourceFacts) -> Option<String> {
    let zone = source.time_zone.as_ref()?;
    let columns = source.selected.iter().filter(|selected| selected.is_instant());
    let columns = names(columns.map(|selected| selected.name.as_str()));
    Some(format!(
        "TIMESTAMP values ({columns}) are written as times of the zone {zone}; setting.common.column.timeZone chooses it"
    ))
}
