//! Asks a source how the values of a split key are spread. Of a large indexed MySQL table the index is asked, by a few keys
//! and estimates ([`crate::dives`]); of all others the source groups its keys, or a random share of them, and puts them in
//! order. Either way each boundary is a value that the source itself has put above the one before.

use starlift_common::job::SourceKind;
use starlift_common::problem::{Code, Problem};
use starlift_common::query::{push_where, quote, text_literal};

use super::Asker;
use crate::dives::{At, Dives, Halves, Question, Span};
use crate::keys::KeyType;
use crate::ranges::{KeyFacts, Piece, Size, evenly_spread};

/// Tables of fewer rows are grouped as a whole rather than asked by their index.
const DIVES_FROM_ROWS: u64 = 200_000;
/// Rows looked at for each piece, so that chance moves its weight by a tenth.
const SAMPLE_PER_PIECE: u64 = 100;
const SAMPLE_LEAST: u64 = 50_000;
const SAMPLE_MOST: u64 = 300_000;
/// Pieces kept for each one that was asked for.
const FINENESS: u64 = 4;
/// Most keys taken into memory; when there are more, the estimate was wrong and a smaller share is looked at.
const KEYS_MOST: usize = 500_000;

/// What is read, and how.
pub(super) struct Table<'a> {
    pub(super) kind: SourceKind,
    /// Quoted, with its database.
    pub(super) name: &'a str,
    pub(super) hint: Option<&'a str>,
    pub(super) filter: Option<&'a str>,
}

pub(super) struct KeyColumn<'a> {
    /// Unquoted.
    pub(super) name: &'a str,
    pub(super) key_type: KeyType,
    pub(super) nullable: bool,
    /// That begins with the column.
    pub(super) index: Option<String>,
}

/// The collation of a text column.
pub(super) async fn collation(
    asker: &mut Asker<'_>,
    database: &str,
    table: &str,
    column: &str,
) -> Result<Option<String>, Problem> {
    let which = in_catalogue(database, table, column);
    let sql = format!("SELECT COLLATION_NAME FROM information_schema.columns WHERE {which}");
    Ok(first_cell(asker, &sql).await?.filter(|name| !name.is_empty()))
}

/// An index of a MySQL table that begins with the whole column: the primary key where it does.
pub(super) async fn index(
    asker: &mut Asker<'_>,
    database: &str,
    table: &str,
    column: &str,
) -> Result<Option<String>, Problem> {
    let which = in_catalogue(database, table, column);
    let sql = format!(
        "SELECT INDEX_NAME FROM information_schema.statistics WHERE {which} AND SEQ_IN_INDEX = 1 AND SUB_PART IS NULL \
         AND INDEX_TYPE = 'BTREE' ORDER BY INDEX_NAME <> 'PRIMARY', NON_UNIQUE LIMIT 1"
    );
    first_cell(asker, &sql).await
}

/// What picks one column out of a catalogue's table.
fn in_catalogue(database: &str, table: &str, column: &str) -> String {
    format!(
        "TABLE_SCHEMA = {} AND TABLE_NAME = {} AND COLUMN_NAME = {}",
        text_literal(database),
        text_literal(table),
        text_literal(column)
    )
}

async fn first_cell(asker: &mut Asker<'_>, sql: &str) -> Result<Option<String>, Problem> {
    Ok(asker.rows(sql).await?.pop().and_then(|mut row| row.pop()?))
}

/// The tablets of a StarRocks table with their rows; every replica is listed there.
pub(super) async fn tablets(asker: &mut Asker<'_>, table: &str) -> Result<Vec<(u64, u64)>, Problem> {
    let rows = asker.named_rows(&format!("SHOW TABLET FROM {table}")).await?;
    let mut tablets = std::collections::BTreeMap::new();
    for row in &rows {
        let Some(id) = row.number("tabletid") else {
            return Err(Problem::new(Code::ReadFailed, "SHOW TABLET tells no ids of tablets")
                .at(asker.place.clone())
                .hint("use split \"key\" and a splitPk"));
        };
        let known = tablets.entry(id).or_insert(0);
        *known = row.number("rowcount").unwrap_or(0).max(*known);
    }
    Ok(tablets.into_iter().collect())
}

/// How the keys are spread, in about `pieces` pieces or finer. Corrects the size where more became known.
pub(super) async fn spread(
    asker: &mut Asker<'_>,
    table: &Table<'_>,
    key: &KeyColumn<'_>,
    pieces: u64,
    size: &mut Size,
    warnings: &mut Vec<String>,
) -> Result<KeyFacts, Problem> {
    if pieces <= 1 {
        return Ok(KeyFacts { pieces: Vec::new(), nulls: key.nullable.then_some(0) });
    }
    match &key.index {
        Some(index)
            if table.kind == SourceKind::Mysql && table.filter.is_none() && size.rows >= DIVES_FROM_ROWS =>
        {
            Diver { asker, table, key, index }.dive(pieces, *size).await
        }
        _ => group(asker, table, key, pieces, size, warnings).await,
    }
}

/// Groups the keys, or a random share of the rows.
async fn group(
    asker: &mut Asker<'_>,
    table: &Table<'_>,
    key: &KeyColumn<'_>,
    pieces: u64,
    size: &mut Size,
    warnings: &mut Vec<String>,
) -> Result<KeyFacts, Problem> {
    let sample = (pieces * SAMPLE_PER_PIECE).clamp(SAMPLE_LEAST, SAMPLE_MOST);
    let mut one_of = if size.rows >= 2 * sample { size.rows / sample } else { 1 };
    loop {
        let groups = match asker.rows(&grouping(table, key, one_of)).await {
            Ok(groups) => groups,
            Err(problem) if problem.code == Code::InvalidSql && one_of > 1 => {
                return evenly(asker, table, key, pieces, *size, &problem, warnings).await;
            }
            Err(problem) => return Err(problem),
        };
        if groups.len() <= KEYS_MOST {
            let counted = facts_of(table.kind, key, groups);
            let rows = counted.rows();
            // What the optimizer makes of a filter is a guess; this is better.
            if table.kind == SourceKind::Mysql && table.filter.is_some() {
                let row_bytes = size.bytes / size.rows.max(1);
                let found = rows.saturating_mul(one_of);
                *size = Size { rows: found, bytes: found.saturating_mul(row_bytes) };
            }
            return Ok(counted.coalesced(FINENESS * pieces).scaled(size.rows, rows));
        }
        one_of *= 16;
    }
}

fn grouping(table: &Table<'_>, key: &KeyColumn<'_>, one_of: u64) -> String {
    let quoted = quote(key.name);
    let hint = table.hint.map(|hint| format!("{hint} ")).unwrap_or_default();
    let mut sql = format!("SELECT {hint}{}, COUNT(*) FROM {}", key.key_type.shown(&quoted), table.name);
    let share = (one_of > 1).then(|| format!("RAND() * {one_of} < 1"));
    push_where(&mut sql, table.filter, share.as_deref());
    sql + &format!(" GROUP BY {quoted} ORDER BY {quoted} LIMIT {}", KEYS_MOST + 1)
}

/// A piece from each key that can be written; others go with the one before. Rows are those that were looked at.
fn facts_of(kind: SourceKind, key: &KeyColumn<'_>, groups: Vec<Vec<Option<String>>>) -> KeyFacts {
    let (mut pieces, mut nulls, mut leading): (Vec<Piece>, u64, u64) = (Vec::new(), 0, 0);
    for group in groups {
        let mut cells = group.into_iter();
        let value = cells.next().flatten();
        let rows = cells.next().flatten().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let Some(value) = value else {
            nulls += rows;
            continue;
        };
        match (key.key_type.literal(kind, &value), pieces.last_mut()) {
            (Some(from), _) => pieces.push(Piece { from, rows: rows + std::mem::take(&mut leading) }),
            (None, Some(before)) => before.rows += rows,
            (None, None) => leading += rows,
        }
    }
    KeyFacts { pieces: key.key_type.rising(pieces), nulls: key.nullable.then_some(nulls) }
}

/// What remains where the source does not deal out a random share: integers are taken to be spread evenly, and other keys
/// are not cut.
async fn evenly(
    asker: &mut Asker<'_>,
    table: &Table<'_>,
    key: &KeyColumn<'_>,
    pieces: u64,
    size: Size,
    why: &Problem,
    warnings: &mut Vec<String>,
) -> Result<KeyFacts, Problem> {
    let quoted = quote(key.name);
    let mut sql = format!("SELECT MIN({quoted}), MAX({quoted}) FROM {}", table.name);
    push_where(&mut sql, table.filter, None);
    let row = asker.rows(&sql).await?.pop().unwrap_or_default();
    let ends: Vec<i128> = row.into_iter().flatten().filter_map(|text| text.trim().parse().ok()).collect();
    let what = match ends.as_slice() {
        [_, _] => "tasks are cut by the width of their ranges",
        _ => "the table is read in one task",
    };
    warnings
        .push(format!("how the keys of {} are spread cannot be asked ({}): {what}", table.name, why.message));
    let pieces = match ends.as_slice() {
        [min, max] if key.key_type == KeyType::Integer => evenly_spread(*min, *max, size.rows, pieces),
        _ => Vec::new(),
    };
    Ok(KeyFacts { pieces, nulls: key.nullable.then_some(0) })
}

/// Asks the index of a MySQL table.
struct Diver<'d, 'a> {
    asker: &'d mut Asker<'a>,
    table: &'d Table<'d>,
    key: &'d KeyColumn<'d>,
    index: &'d str,
}

impl Diver<'_, '_> {
    async fn dive(mut self, pieces: u64, size: Size) -> Result<KeyFacts, Problem> {
        let nulls = match self.key.nullable {
            // One row is what the server says of none.
            true => Some(self.explain(&format!("{} IS NULL", quote(self.key.name))).await?)
                .map(|rows| if rows > 1 { rows } else { 0 }),
            false => None,
        };
        let Some((min, max)) = self.end("").await?.zip(self.end(" DESC").await?) else {
            return Ok(KeyFacts { pieces: Vec::new(), nulls });
        };
        let rows = size.rows.saturating_sub(nulls.unwrap_or(0));
        let mut dives = Dives::new(self.key.key_type, self.table.kind, Span { min, max, rows }, pieces);
        while let Some(question) = dives.ask() {
            let halves = self.halves(&question).await?;
            dives.answer(&question, halves);
        }
        Ok(KeyFacts { pieces: self.key.key_type.rising(dives.finish(rows)), nulls })
    }

    /// The first key, or the last one.
    async fn end(&mut self, order: &str) -> Result<Option<String>, Problem> {
        self.first(&format!("{} IS NOT NULL", quote(self.key.name)), order, 0).await
    }

    async fn halves(&mut self, question: &Question) -> Result<Option<Halves>, Problem> {
        let Question { span, at } = question;
        let at = match at {
            At::Value(value) => Some(value.clone()),
            At::Rows(rows) => {
                self.first(&self.within(&[(">=", &span.min), ("<=", &span.max)]), "", *rows).await?
            }
        };
        let Some(at) = at else { return Ok(None) };
        let above = self.within(&[(">", &span.min), (">=", &at), ("<=", &span.max)]);
        let right_min = match self.first(&above, "", 0).await {
            Ok(Some(right_min)) => right_min,
            Ok(None) => return Ok(None),
            // A guess may have letters that the column's character set lacks.
            Err(problem) if problem.code == Code::InvalidSql => return Ok(None),
            Err(problem) => return Err(problem),
        };
        // A key that cannot be written is no boundary; and where the span's own begin could not be, it may come again.
        if right_min == span.min || self.literal(&right_min).is_none() {
            return Ok(None);
        }
        let below = self.within(&[(">=", &span.min), ("<", &right_min)]);
        let Some(left_max) = self.first(&below, " DESC", 0).await? else { return Ok(None) };
        let left = self.explain(&below).await?;
        let right = self.explain(&self.within(&[(">=", &right_min), ("<=", &span.max)])).await?;
        Ok(Some(Halves {
            left: Span { min: span.min.clone(), max: left_max, rows: left },
            right: Span { min: right_min, max: span.max.clone(), rows: right },
        }))
    }

    fn literal(&self, value: &str) -> Option<starlift_common::task::Key> {
        self.key.key_type.literal(self.table.kind, value)
    }

    /// Bounds that cannot be written are the table's own ends, and left out.
    fn within(&self, bounds: &[(&str, &String)]) -> String {
        let quoted = quote(self.key.name);
        let bounds = bounds
            .iter()
            .filter_map(|(sign, value)| Some(format!("{quoted} {sign} {}", self.literal(value)?)));
        let mut bounds: Vec<String> = bounds.collect();
        if bounds.is_empty() {
            bounds.push(format!("{quoted} IS NOT NULL"));
        }
        bounds.join(" AND ")
    }

    /// The first key under the condition, in this order, after so many rows.
    async fn first(&mut self, condition: &str, order: &str, offset: u64) -> Result<Option<String>, Problem> {
        let quoted = quote(self.key.name);
        let sql = format!(
            "SELECT {} FROM {} FORCE INDEX ({}) WHERE {condition} ORDER BY {quoted}{order} LIMIT 1 OFFSET {offset}",
            self.key.key_type.shown(&quoted),
            self.table.name,
            quote(self.index)
        );
        first_cell(self.asker, &sql).await
    }

    /// Rows under the condition, as the index estimates them; at least one.
    async fn explain(&mut self, condition: &str) -> Result<u64, Problem> {
        let quoted = quote(self.key.name);
        let index = quote(self.index);
        let sql = format!(
            "EXPLAIN SELECT {quoted} FROM {} FORCE INDEX ({index}) WHERE {condition}",
            self.table.name
        );
        let rows = self.asker.named_rows(&sql).await?;
        Ok(rows.first().and_then(|row| row.number("rows")).unwrap_or(0).max(1))
    }
}
