//! The tables that are moved: their columns at both ends and their rows, the same ones every time. Pure.

use std::io::Write as _;

/// One source table and its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Table {
    /// As TPC-H has it: 16 columns, about 128 bytes a row.
    LineItem,
    /// The same with four times the rows.
    LineItemLarge,
    /// The same, small, for workers that are held back.
    LineItemSmall,
    /// 121 columns, about 1 KB a row.
    Wide,
    /// 4 columns, about 30 bytes a row.
    Narrow,
    /// Texts of about 60 KB.
    Texts,
}

/// One column at both ends.
pub(crate) struct Column {
    pub(crate) name: String,
    source: &'static str,
    target: &'static str,
}

/// Columns of the wide table beside its key.
const WIDE_COLUMNS: u64 = 120;
/// Lines of an order.
const LINES: u64 = 4;

const WORDS: [&str; 16] = [
    "furiously",
    "quick",
    "deposits",
    "sleep",
    "carefully",
    "ironic",
    "requests",
    "haggle",
    "blithely",
    "final",
    "accounts",
    "nag",
    "slyly",
    "regular",
    "packages",
    "bold",
];
const INSTRUCTIONS: [&str; 4] = ["DELIVER IN PERSON", "COLLECT COD", "NONE", "TAKE BACK RETURN"];
const MODES: [&str; 7] = ["REG AIR", "AIR", "RAIL", "SHIP", "TRUCK", "MAIL", "FOB"];

impl Table {
    pub(crate) const ALL: [Self; 6] =
        [Self::LineItem, Self::LineItemLarge, Self::LineItemSmall, Self::Wide, Self::Narrow, Self::Texts];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::LineItem => "lineitem",
            Self::LineItemLarge => "lineitem_large",
            Self::LineItemSmall => "lineitem_small",
            Self::Wide => "wide",
            Self::Narrow => "narrow",
            Self::Texts => "texts",
        }
    }

    /// Rows of this table where `lineitem` has `rows`.
    pub(crate) fn rows(self, rows: u64) -> u64 {
        let rows = match self {
            Self::LineItem => rows,
            // Short rows take so little that fewer of them could not be told from the clock's own step.
            Self::Narrow | Self::LineItemLarge => rows * 4,
            // As many as 32 tasks of the least size.
            Self::LineItemSmall => rows.min(1_600_000),
            Self::Wide => rows / 10,
            Self::Texts => rows / 500,
        };
        rows.next_multiple_of(LINES)
    }

    /// The column to split by; it begins the primary key and runs from 1 without gaps.
    pub(crate) fn key(self) -> &'static str {
        if self.is_line_item() { "l_orderkey" } else { "id" }
    }

    /// The greatest key where the table has `rows`.
    pub(crate) fn last_key(self, rows: u64) -> u64 {
        if self.is_line_item() { rows / LINES } else { rows }
    }

    fn is_line_item(self) -> bool {
        matches!(self, Self::LineItem | Self::LineItemLarge | Self::LineItemSmall)
    }

    pub(crate) fn columns(self) -> Vec<Column> {
        let column = |(name, source, target): (&str, &'static str, &'static str)| Column {
            name: name.to_owned(),
            source,
            target,
        };
        let narrow = [
            ("id", "BIGINT NOT NULL", "BIGINT NOT NULL"),
            ("a", "INT NOT NULL", "INT NOT NULL"),
            ("b", "INT NULL", "INT NULL"),
            ("c", "CHAR(8) NOT NULL", "VARCHAR(32) NOT NULL"),
        ];
        let key = narrow[0];
        match self {
            Self::LineItem | Self::LineItemLarge | Self::LineItemSmall => LINE_ITEM.map(column).into(),
            Self::Narrow => narrow.map(column).into(),
            Self::Texts => vec![column(key), column(("body", "MEDIUMTEXT NOT NULL", "STRING NOT NULL"))],
            Self::Wide => {
                let kinds = [
                    ("INT NULL", "INT NULL"),
                    ("DECIMAL(12,2) NULL", "DECIMAL(12,2) NULL"),
                    ("DATE NULL", "DATE NULL"),
                    ("VARCHAR(20) NULL", "VARCHAR(80) NULL"),
                ];
                let others = (0..WIDE_COLUMNS).zip(kinds.iter().cycle());
                let others = others.map(|(place, (source, target))| Column {
                    name: format!("c{place:03}"),
                    source,
                    target,
                });
                std::iter::once(column(key)).chain(others).collect()
            }
        }
    }

    pub(crate) fn create_source(self) -> String {
        let columns: Vec<String> =
            self.columns().iter().map(|column| format!("{} {}", column.name, column.source)).collect();
        let key = if self.is_line_item() { "l_orderkey, l_linenumber" } else { "id" };
        format!(
            "CREATE TABLE {} ({}, PRIMARY KEY ({key})) ENGINE=InnoDB DEFAULT CHARSET utf8mb4",
            self.name(),
            columns.join(", ")
        )
    }

    pub(crate) fn create_target(self, database: &str) -> String {
        let columns: Vec<String> =
            self.columns().iter().map(|column| format!("{} {}", column.name, column.target)).collect();
        let key = self.key();
        format!(
            "CREATE TABLE {database}.{} ({}) DUPLICATE KEY({key}) DISTRIBUTED BY HASH({key}) BUCKETS 4",
            self.name(),
            columns.join(", ")
        )
    }

    /// All columns, as a SELECT and a job name them.
    pub(crate) fn column_names(self) -> Vec<String> {
        self.columns().into_iter().map(|column| column.name).collect()
    }

    /// Appends row `number`, counted from 0, as LOAD DATA reads it by default.
    pub(crate) fn write_row(self, number: u64, out: &mut Vec<u8>) {
        let mut random = Random(number.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5157);
        match self {
            Self::LineItem | Self::LineItemLarge | Self::LineItemSmall => line_item(number, &mut random, out),
            Self::Narrow => {
                let (a, b) = (random.below(1_000_000), random.below(10_000));
                put(out, format_args!("{}\t{a}\t{b}\t{:08x}\n", number + 1, random.below(1 << 32)));
            }
            Self::Wide => wide(number, &mut random, out),
            Self::Texts => {
                put(out, format_args!("{}\t", number + 1));
                let end = out.len() + 58_000 + usize::try_from(random.below(4_000)).unwrap_or(0);
                while out.len() < end {
                    out.extend_from_slice(random.pick(&WORDS).as_bytes());
                    out.push(b' ');
                }
                out.push(b'\n');
            }
        }
    }
}

const LINE_ITEM: [(&str, &str, &str); 16] = [
    ("l_orderkey", "BIGINT NOT NULL", "BIGINT NOT NULL"),
    ("l_partkey", "INT NOT NULL", "INT NOT NULL"),
    ("l_suppkey", "INT NOT NULL", "INT NOT NULL"),
    ("l_linenumber", "INT NOT NULL", "INT NOT NULL"),
    ("l_quantity", "DECIMAL(15,2) NOT NULL", "DECIMAL(15,2) NOT NULL"),
    ("l_extendedprice", "DECIMAL(15,2) NOT NULL", "DECIMAL(15,2) NOT NULL"),
    ("l_discount", "DECIMAL(15,2) NOT NULL", "DECIMAL(15,2) NOT NULL"),
    ("l_tax", "DECIMAL(15,2) NOT NULL", "DECIMAL(15,2) NOT NULL"),
    ("l_returnflag", "CHAR(1) NOT NULL", "VARCHAR(4) NOT NULL"),
    ("l_linestatus", "CHAR(1) NOT NULL", "VARCHAR(4) NOT NULL"),
    ("l_shipdate", "DATE NOT NULL", "DATE NOT NULL"),
    ("l_commitdate", "DATE NOT NULL", "DATE NOT NULL"),
    ("l_receiptdate", "DATE NOT NULL", "DATE NOT NULL"),
    ("l_shipinstruct", "CHAR(25) NOT NULL", "VARCHAR(100) NOT NULL"),
    ("l_shipmode", "CHAR(10) NOT NULL", "VARCHAR(40) NOT NULL"),
    ("l_comment", "VARCHAR(44) NOT NULL", "VARCHAR(176) NOT NULL"),
];

fn line_item(number: u64, random: &mut Random, out: &mut Vec<u8>) {
    let quantity = 1 + random.below(50);
    let price = quantity * (90_000 + random.below(120_000));
    let shipped = random.below(2_500);
    put(
        out,
        format_args!(
            "{}\t{}\t{}\t{}\t{quantity}.00\t{}.{:02}\t0.{:02}\t0.{:02}\t{}\t{}\t",
            number / LINES + 1,
            1 + random.below(1_000_000),
            1 + random.below(50_000),
            number % LINES + 1,
            price / 100,
            price % 100,
            random.below(11),
            random.below(9),
            random.pick(&["A", "N", "R"]),
            random.pick(&["F", "O"]),
        ),
    );
    for days in [shipped, shipped + random.below(60), shipped + random.below(30)] {
        put_date(out, days);
        out.push(b'\t');
    }
    put(out, format_args!("{}\t{}\t", random.pick(&INSTRUCTIONS), random.pick(&MODES)));
    let start = out.len();
    let length = 10 + usize::try_from(random.below(34)).unwrap_or(0);
    while out.len() < start + length {
        out.extend_from_slice(random.pick(&WORDS).as_bytes());
        out.push(b' ');
    }
    out.truncate(start + length);
    // A blank at the end would be hard to see in a difference.
    if out.last() == Some(&b' ') {
        out.pop();
    }
    out.push(b'\n');
}

fn wide(number: u64, random: &mut Random, out: &mut Vec<u8>) {
    put(out, format_args!("{}", number + 1));
    for place in 0..WIDE_COLUMNS {
        out.push(b'\t');
        if random.below(10) == 0 {
            out.extend_from_slice(b"\\N");
            continue;
        }
        match place % 4 {
            0 => put(out, format_args!("{}", random.below(1_000_000))),
            1 => put(out, format_args!("{}.{:02}", random.below(100_000), random.below(100))),
            2 => put_date(out, random.below(9_000)),
            _ => put(out, format_args!("{} é", random.pick(&WORDS))),
        }
    }
    out.push(b'\n');
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // A vector takes everything.
    let _ = out.write_fmt(text);
}

/// A date `days` after 1992-01-01, in a calendar with months of 28 days, which all dates of it have.
fn put_date(out: &mut Vec<u8>, days: u64) {
    put(out, format_args!("{:04}-{:02}-{:02}", 1992 + days / 336, days / 28 % 12 + 1, days % 28 + 1));
}

/// SplitMix64: each row begins its own sequence.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        let place = usize::try_from(self.below(from.len() as u64)).unwrap_or(0);
        from[place]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_the_columns_of_its_table_and_its_key() {
        for table in Table::ALL {
            let rows = table.rows(2_000);
            let mut last = 0;
            for number in 0..rows {
                let mut row = Vec::new();
                table.write_row(number, &mut row);
                let text = String::from_utf8(row).unwrap();
                let cells: Vec<&str> = text.trim_end_matches('\n').split('\t').collect();
                assert_eq!(cells.len(), table.columns().len(), "{text}");
                last = cells[0].parse().unwrap();
            }
            assert_eq!(last, table.last_key(rows), "{table:?}");
        }
    }

    #[test]
    fn a_line_item_has_about_128_bytes_with_its_separators() {
        let mut text = Vec::new();
        (2_500_000..2_501_000).for_each(|number| Table::LineItem.write_row(number, &mut text));
        assert!((122_000..136_000).contains(&text.len()), "{}", text.len());
    }
}
