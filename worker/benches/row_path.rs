//! What one row costs on its way from packet to body, per form and shape of table. Criterion prints rows as elements.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use starlift_common::job::CellKind;
use starlift_worker::row_path::{Encoding, Sample, walk};

/// Enough that caches see a stream, few enough that a round is short.
const ROWS: usize = 10_000;

/// A table's columns and some of its rows.
struct Table {
    columns: Vec<String>,
    kinds: Vec<CellKind>,
    sample: Sample,
}

impl Table {
    fn new(columns: Vec<(String, CellKind)>, mut row: impl FnMut() -> Vec<Option<String>>) -> Self {
        let mut sample = Sample::new(columns.len());
        for _ in 0..ROWS {
            sample.push(row().iter().map(Option::as_deref));
        }
        let (columns, kinds) = columns.into_iter().unzip();
        Self { columns, kinds, sample }
    }

    /// The shape of TPC-H's lineitem: 16 columns, about 128 bytes.
    fn lineitem() -> Self {
        use CellKind::{Number, Text};
        let columns = [
            ("l_orderkey", Number),
            ("l_partkey", Number),
            ("l_suppkey", Number),
            ("l_linenumber", Number),
            ("l_quantity", Number),
            ("l_extendedprice", Number),
            ("l_discount", Number),
            ("l_tax", Number),
            ("l_returnflag", Text),
            ("l_linestatus", Text),
            ("l_shipdate", Text),
            ("l_commitdate", Text),
            ("l_receiptdate", Text),
            ("l_shipinstruct", Text),
            ("l_shipmode", Text),
            ("l_comment", Text),
        ];
        let mut random = fastrand::Rng::with_seed(7);
        let row = move || {
            let date = |random: &mut fastrand::Rng| {
                format!("199{}-{:02}-{:02}", random.u8(2..9), random.u8(1..13), random.u8(1..29))
            };
            let of =
                |random: &mut fastrand::Rng, texts: &[&str]| texts[random.usize(..texts.len())].to_owned();
            let comment: String = (0..random.usize(10..44)).map(|_| random.lowercase()).collect();
            vec![
                random.u32(1..6_000_000).to_string(),
                random.u32(1..200_000).to_string(),
                random.u32(1..10_000).to_string(),
                random.u8(1..8).to_string(),
                format!("{}.00", random.u8(1..51)),
                format!("{}.{:02}", random.u32(900..105_000), random.u8(..100)),
                format!("0.{:02}", random.u8(..11)),
                format!("0.{:02}", random.u8(..9)),
                of(&mut random, &["A", "N", "R"]),
                of(&mut random, &["F", "O"]),
                date(&mut random),
                date(&mut random),
                date(&mut random),
                of(&mut random, &["COLLECT COD", "DELIVER IN PERSON", "NONE", "TAKE BACK RETURN"]),
                of(&mut random, &["AIR", "FOB", "MAIL", "RAIL", "REG AIR", "SHIP", "TRUCK"]),
                comment,
            ]
        };
        let mut row = row;
        Self::new(columns.map(|(name, kind)| (name.to_owned(), kind)).to_vec(), move || {
            row().into_iter().map(Some).collect()
        })
    }

    /// 121 columns of numbers and short texts, every tenth cell NULL.
    fn wide() -> Self {
        let columns = (0..121).map(|index| {
            (format!("column_{index}"), if index % 2 == 0 { CellKind::Number } else { CellKind::Text })
        });
        let mut random = fastrand::Rng::with_seed(7);
        Self::new(columns.collect(), move || {
            let number = |random: &mut fastrand::Rng| random.u32(..).to_string();
            (0..121).map(|_| (random.u8(..10) > 0).then(|| number(&mut random))).collect()
        })
    }

    /// Three numbers and a short text: about 30 bytes.
    fn slim() -> Self {
        let columns = [
            ("id", CellKind::Number),
            ("a", CellKind::Number),
            ("b", CellKind::Number),
            ("c", CellKind::Text),
        ];
        let mut random = fastrand::Rng::with_seed(7);
        Self::new(columns.map(|(name, kind)| (name.to_owned(), kind)).to_vec(), move || {
            let (a, b) = (random.u32(..1_000_000).to_string(), random.u32(..10_000).to_string());
            let c = format!("{:08x}", random.u32(..));
            vec![Some(random.u32(..5_000_000).to_string()), Some(a), Some(b), Some(c)]
        })
    }

    /// Key, number and two texts with quotes and line ends in them.
    fn narrow() -> Self {
        let columns = [
            ("id", CellKind::Number),
            ("amount", CellKind::Number),
            ("name", CellKind::Text),
            ("note", CellKind::Text),
        ];
        let mut random = fastrand::Rng::with_seed(7);
        Self::new(columns.map(|(name, kind)| (name.to_owned(), kind)).to_vec(), move || {
            let name = format!("nömber {}", random.u16(..));
            let note = format!("said \"{}\"\n\\{}", random.u32(..), random.u32(..));
            vec![Some(random.u32(..).to_string()), Some(random.u16(..).to_string()), Some(name), Some(note)]
        })
    }
}

fn encoders(criterion: &mut Criterion) {
    for (shape, table) in [
        ("lineitem", Table::lineitem()),
        ("wide", Table::wide()),
        ("slim", Table::slim()),
        ("narrow", Table::narrow()),
    ] {
        let mut group = criterion.benchmark_group(shape);
        group.throughput(Throughput::Elements(ROWS as u64));
        let csv = |is_utf8| Encoding::csv(b"\x01", b"\x02", is_utf8).expect("delimiters");
        let long = Encoding::csv(b"\x01\x03\x04\x05", b"\x02\x03\x04\x05", true).expect("delimiters");
        let json = |is_utf8| Encoding::json(&table.columns, &table.kinds, is_utf8);
        let forms = [
            ("csv", csv(true)),
            ("csv, utf-8 checked", csv(false)),
            ("csv, long delimiters", long),
            ("json", json(true)),
            ("json, utf-8 checked", json(false)),
        ];
        let stream = table.sample.stream();
        group.bench_function("walk", |bencher| {
            bencher.iter(|| assert!(walk(black_box(&stream), table.columns.len()).is_some()));
        });
        let mut out = Vec::with_capacity(ROWS * 4096);
        for (form, encoding) in forms {
            group.bench_function(form, |bencher| {
                bencher.iter(|| {
                    out.clear();
                    assert_eq!(encoding.encode(black_box(&table.sample), &mut out), ROWS);
                });
            });
        }
        group.bench_function("csv, cut", |bencher| {
            bencher.iter(|| csv(true).cut(black_box(&table.sample)));
        });
        group.finish();
    }
}

criterion_group!(benches, encoders);
criterion_main!(benches);
