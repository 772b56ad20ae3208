//! A StarRocks table for what a job reads: each column of the type that holds every value of its source, by the same
//! rules as [`crate::columns::fit`]. Pure.

use starlift_common::job::{ColumnList, JobSpec};
use starlift_common::problem::{Code, Problem};
use starlift_common::query::{quote, table_name, text_literal};

use crate::columns::{Column, Kind, Range, starrocks_bytes, starrocks_kind};
use crate::plan::{Model, Selected, SourceFacts};

/// Data of one bucket, before StarRocks packs it.
const BUCKET_BYTES: u64 = 2 << 30;
const BUCKETS_MOST: u64 = 128;
/// The longest VARCHAR of every version since 2.1; what may be longer becomes a STRING.
const VARCHAR_BYTES_MOST: u64 = 1_048_576;
/// Digits of a DECIMAL before 4.0; what has more becomes a text.
const DECIMAL_DIGITS_MOST: u32 = 38;

/// A table to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTable {
    pub sql: String,
    /// As the catalogue will tell them.
    pub columns: Vec<Column>,
    pub model: Model,
}

/// The table for the columns that the job reads, under the names that it writes. `database` is the target's.
pub fn new_table(spec: &JobSpec, source: &SourceFacts, database: &str) -> Result<NewTable, Vec<Problem>> {
    let names: Vec<&str> = match &spec.target.columns {
        ColumnList::All => source.selected.iter().map(|selected| selected.name.as_str()).collect(),
        ColumnList::Listed(names) => names.iter().map(String::as_str).collect(),
    };
    let place = format!("{database}.{}", spec.target.table);
    if names.len() != source.selected.len() {
        let message = format!(
            "column counts differ: the reader has {}, the writer {}",
            source.selected.len(),
            names.len()
        );
        return Err(vec![Problem::new(Code::ColumnMismatch, message).at(place).hint("they map by position")]);
    }
    let mut problems = Vec::new();
    let mut columns = Vec::new();
    for (name, selected) in names.iter().zip(&source.selected) {
        match type_of(selected) {
            Ok(type_text) => columns.push(Planned { name, selected, type_text }),
            Err(why) => problems.push(
                Problem::new(
                    Code::TypeMismatch,
                    format!("no StarRocks type holds {} ({})", selected.name, selected.type_text),
                )
                .at(format!("{place}.{name}"))
                .hint(why.replace("{col}", &selected.sql)),
            ),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(assemble(spec, source, database, columns))
}

/// A job that may create its table writes `*` by the names of what it reads: key columns come first in a table that is
/// created, so that positions would mean other columns once it is there.
pub fn with_names(spec: &JobSpec, source: &SourceFacts) -> JobSpec {
    let mut spec = spec.clone();
    if spec.settings.create_table && spec.target.columns == ColumnList::All {
        let names = source.selected.iter().map(|selected| selected.name.clone());
        spec.target.columns = ColumnList::Listed(names.collect());
    }
    spec
}

/// A column to be.
struct Planned<'a> {
    name: &'a str,
    selected: &'a Selected,
    type_text: String,
}

impl Planned<'_> {
    /// Of a type that keys have in every version.
    fn may_be_key(&self) -> bool {
        matches!(
            starrocks_kind(&self.type_text),
            Kind::Integer(_) | Kind::LargeInt | Kind::Date | Kind::DateTime | Kind::Text
        )
    }

    fn is_column(&self, name: &str) -> bool {
        self.selected.is_column && self.selected.name == name
    }
}

fn assemble(spec: &JobSpec, source: &SourceFacts, database: &str, mut columns: Vec<Planned<'_>>) -> NewTable {
    let primary: Vec<usize> = source
        .primary_key
        .iter()
        .filter_map(|name| columns.iter().position(|column| column.is_column(name) && column.may_be_key()))
        .collect();
    let is_primary = !primary.is_empty() && primary.len() == source.primary_key.len();
    let keys = if is_primary { primary } else { duplicate_key(spec, &columns) };
    // Key columns come first, in the order of the key.
    let key_names: Vec<String> = keys.iter().map(|key| columns[*key].name.to_owned()).collect();
    let rank = |column: &Planned<'_>| key_names.iter().position(|key| key == column.name);
    columns.sort_by_key(|column| rank(column).unwrap_or(usize::MAX));
    let described: Vec<Column> = columns
        .iter()
        .map(|column| {
            let is_key = rank(column).is_some();
            let nullable = column.selected.nullable != Some(false) && !(is_key && is_primary);
            describe(column, is_key, is_key && is_primary, nullable)
        })
        .collect();
    let model = if is_primary { Model::Primary } else { Model::Duplicate };
    let sql = text(spec, source, database, &described, &key_names, model);
    NewTable { sql, columns: described, model }
}

/// The split key, else the first column that may be one; none, and the server chooses.
fn duplicate_key(spec: &JobSpec, columns: &[Planned<'_>]) -> Vec<usize> {
    let may_be_key = |column: &&usize| columns[**column].may_be_key();
    let split = spec.source.split_key.as_deref();
    let split = split.and_then(|key| {
        columns.iter().position(|column| {
            column.selected.is_column && column.selected.name.to_lowercase() == key.to_lowercase()
        })
    });
    let first = columns.iter().position(Planned::may_be_key);
    split.as_ref().filter(may_be_key).copied().or(first).into_iter().collect()
}

fn describe(column: &Planned<'_>, is_key: bool, is_primary: bool, nullable: bool) -> Column {
    let lower = column.type_text.to_ascii_lowercase();
    Column {
        name: column.name.to_owned(),
        kind: starrocks_kind(&lower),
        bytes_most: if lower == "string" { Some(VARCHAR_BYTES_MOST) } else { starrocks_bytes(&lower) },
        type_text: lower,
        nullable,
        has_default: false,
        generated: false,
        hidden: false,
        is_key,
        is_primary,
        is_sorted: is_key,
        comment: column.selected.comment.clone(),
    }
}

fn text(
    spec: &JobSpec,
    source: &SourceFacts,
    database: &str,
    columns: &[Column],
    keys: &[String],
    model: Model,
) -> String {
    let lines: Vec<String> = columns
        .iter()
        .map(|column| {
            let null = if column.nullable { "NULL" } else { "NOT NULL" };
            let comment = if column.comment.is_empty() {
                String::new()
            } else {
                format!(" COMMENT {}", text_literal(&column.comment))
            };
            format!("  {} {} {null}{comment}", quote(&column.name), column.type_text.to_ascii_uppercase())
        })
        .collect();
    let buckets = (source.size().bytes / BUCKET_BYTES + 1).min(BUCKETS_MOST);
    let keys = keys.iter().map(|key| quote(key)).collect::<Vec<_>>().join(", ");
    let (key, distribution) = match model {
        _ if keys.is_empty() => (String::new(), "RANDOM".to_owned()),
        Model::Primary => (format!("PRIMARY KEY({keys})\n"), format!("HASH({keys})")),
        Model::Duplicate | Model::Aggregate | Model::Unique => {
            (format!("DUPLICATE KEY({keys})\n"), format!("HASH({keys})"))
        }
    };
    format!(
        "CREATE TABLE IF NOT EXISTS {} (\n{}\n)\n{key}DISTRIBUTED BY {distribution} BUCKETS {buckets}",
        table_name(database, &spec.target.table),
        lines.join(",\n")
    )
}

/// The narrowest type into which every value goes as it is; the error says why there is none.
fn type_of(selected: &Selected) -> Result<String, String> {
    Ok(match &selected.kind {
        Kind::Boolean | Kind::Bits(1) => "BOOLEAN".into(),
        Kind::Flag(range) | Kind::Integer(range) | Kind::PaddedInteger(range) => integer(*range).into(),
        Kind::Bits(bits) => integer(Range::unsigned((*bits).min(64))).into(),
        Kind::LargeInt => "LARGEINT".into(),
        Kind::Year => "SMALLINT".into(),
        Kind::Float | Kind::ShortFloat => "FLOAT".into(),
        Kind::Double => "DOUBLE".into(),
        Kind::Decimal { precision, scale } if *precision <= DECIMAL_DIGITS_MOST => {
            format!("DECIMAL({precision},{scale})")
        }
        // Its digits, a sign, a point, and a zero before it.
        Kind::Decimal { precision, .. } => format!("VARCHAR({})", precision + 3),
        Kind::Text | Kind::PaddedText => match selected.length.map(|length| length.bytes().max(1)) {
            Some(bytes) if bytes <= VARCHAR_BYTES_MOST => format!("VARCHAR({bytes})"),
            _ => "STRING".into(),
        },
        Kind::Binary => "VARBINARY".into(),
        Kind::Json => "JSON".into(),
        Kind::Date => "DATE".into(),
        Kind::DateTime => "DATETIME".into(),
        Kind::Time => "VARCHAR(17)".into(),
        Kind::Nested(text) => text.to_ascii_uppercase(),
        Kind::Null => "STRING".into(),
        Kind::Refused(why) => return Err(why.clone()),
    })
}

fn integer(range: Range) -> &'static str {
    let types = [(8, "TINYINT"), (16, "SMALLINT"), (32, "INT"), (64, "BIGINT")];
    let narrowest = types.into_iter().find(|(bits, _)| Range::signed(*bits).holds(range));
    narrowest.map_or("LARGEINT", |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use starlift_common::job::SourceKind;

    use super::*;
    use crate::columns::fit::{Fit, fit};
    use crate::columns::mysql_kind;
    use crate::plan::Length;
    use crate::plan::tests::{source, spec};

    fn selected(name: &str, type_text: &str, bytes: Option<u64>, nullable: bool) -> Selected {
        Selected {
            sql: quote(name),
            name: name.into(),
            kind: mysql_kind(type_text),
            type_text: type_text.into(),
            length: bytes.map(Length::AtMost),
            nullable: Some(nullable),
            is_column: true,
            comment: String::new(),
        }
    }

    fn of(selected: Vec<Selected>, primary_key: &[&str]) -> NewTable {
        let mut facts = source(selected);
        facts.primary_key = primary_key.iter().map(|name| (*name).to_owned()).collect();
        new_table(&spec(), &facts, "dw").expect("a table")
    }

    #[test]
    fn a_table_with_a_primary_key_keeps_it_and_puts_it_first() {
        let mut name = selected("name", "varchar(50)", Some(200), false);
        name.comment = "who's".into();
        let table = of(vec![name, selected("id", "bigint unsigned", None, false)], &["id"]);
        assert_eq!(
            table.sql,
            "CREATE TABLE IF NOT EXISTS `dw`.`orders` (\n  `id` LARGEINT NOT NULL,\n  `name` VARCHAR(200) NOT NULL \
             COMMENT 'who''s'\n)\nPRIMARY KEY(`id`)\nDISTRIBUTED BY HASH(`id`) BUCKETS 1"
        );
        assert_eq!((table.model, table.columns[0].is_key), (Model::Primary, true));
    }

    #[test]
    fn without_all_of_the_primary_key_rows_of_one_key_stay_apart() {
        let columns = || vec![selected("d", "double", None, true), selected("n", "int", None, true)];
        let table = of(columns(), &["n", "other"]);
        assert!(table.sql.contains("  `n` INT NULL,\n  `d` DOUBLE NULL"), "{}", table.sql);
        assert!(table.sql.contains("DUPLICATE KEY(`n`)\nDISTRIBUTED BY HASH(`n`)"), "{}", table.sql);
        // An expression of the key's name is not the key.
        let mut expression = columns();
        expression[1].is_column = false;
        assert_eq!(of(expression, &["n"]).model, Model::Duplicate);
        let no_key = of(vec![selected("d", "double", None, true)], &[]);
        assert!(no_key.sql.ends_with(")\nDISTRIBUTED BY RANDOM BUCKETS 1"), "{}", no_key.sql);
    }

    #[test]
    fn a_key_that_bytes_or_fractions_make_is_none() {
        for type_text in ["varbinary(16)", "decimal(10,2)", "double"] {
            let table =
                of(vec![selected("k", type_text, None, false), selected("n", "int", None, true)], &["k"]);
            assert!(table.sql.contains("DUPLICATE KEY(`n`)"), "{}", table.sql);
        }
    }

    #[test]
    fn every_value_goes_into_the_type_that_is_chosen_for_it() {
        for type_text in [
            "tinyint",
            "tinyint(1)",
            "tinyint unsigned",
            "smallint",
            "mediumint unsigned",
            "int",
            "int unsigned",
            "int(8) unsigned zerofill",
            "bigint",
            "bigint unsigned",
            "bit(1)",
            "bit(8)",
            "bit(64)",
            "decimal(10,2)",
            "decimal(38,10)",
            "decimal(65,30)",
            "float",
            "double",
            "time(6)",
            "year",
            "varchar(50)",
            "longtext",
            "enum('a')",
            "json",
            "blob",
            "date",
            "datetime(6)",
            "timestamp",
        ] {
            let kind = mysql_kind(type_text);
            let chosen = type_of(&selected("c", type_text, None, true)).expect("a type");
            let fit = fit(SourceKind::Mysql, &kind, &starrocks_kind(&chosen));
            let is_date = matches!(kind, Kind::Date | Kind::DateTime);
            assert!(
                matches!(fit, Fit::Exact | Fit::Widened) || (is_date && matches!(fit, Fit::Checked(_))),
                "{type_text} into {chosen}: {fit:?}"
            );
        }
    }

    #[test]
    fn a_type_that_is_not_carried_is_told_with_its_column() {
        let problems = new_table(&spec(), &source(vec![selected("p", "point", None, true)]), "dw");
        let problems = problems.expect_err("no type");
        assert_eq!(problems[0].place, "dw.orders.p");
        assert!(problems[0].hint.contains("ST_AsText(`p`)"), "{problems:?}");
    }

    #[test]
    fn large_tables_have_more_buckets() {
        let mut facts = source(vec![selected("id", "int", None, false)]);
        facts.shards[0].size.bytes = 9 << 30;
        assert!(new_table(&spec(), &facts, "dw").expect("a table").sql.ends_with("BUCKETS 5"));
        facts.shards[0].size.bytes = u64::MAX;
        assert!(new_table(&spec(), &facts, "dw").expect("a table").sql.ends_with("BUCKETS 128"));
    }
}
