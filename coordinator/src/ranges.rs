//! From what a source knows of its keys to tasks: how many a table becomes, and where it is cut. Pure. Ranges are cut only
//! where the source itself has put one key above another, and the outer ends are open: so every row lies in exactly one.

use starlift_common::task::{Key, KeyRange, TaskPlan, TaskRange};

/// A task should not be larger, so that a retry is cheap.
const ROWS_MOST: u64 = 1_000_000;
const BYTES_MOST: u64 = 256 << 20;

/// Nor smaller, because every transaction makes a version in each tablet it touches.
const ROWS_LEAST: u64 = 50_000;

/// Most tasks of a job.
pub const TASKS_MOST: u64 = 100_000;

/// Pieces that a table is measured in, for each task that it may become: tasks are put together from whole pieces.
const PIECES_PER_TASK: u64 = 2;
/// Smaller pieces tell nothing that matters.
const PIECE_ROWS_LEAST: u64 = 1_000;

/// A stretch of keys: from `from` up to where the next one begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    pub from: Key,
    /// By estimate.
    pub rows: u64,
}

/// What the source says of a key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyFacts {
    /// All rows with a key, in the source's own order. Empty: none, or nobody had to know.
    pub pieces: Vec<Piece>,
    /// Rows without a key, by estimate; `None`: there cannot be any.
    pub nulls: Option<u64>,
}

impl KeyFacts {
    pub fn rows(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.rows).sum::<u64>() + self.nulls.unwrap_or(0)
    }

    /// Neighbours that together are less than one of `count` equal shares become one piece: at most about twice as many
    /// are left, and heavy ones stay alone.
    #[must_use]
    pub fn coalesced(mut self, count: u64) -> Self {
        let total: u64 = self.pieces.iter().map(|piece| piece.rows).sum();
        let share = total / count.max(1);
        self.pieces.dedup_by(|piece, before| {
            let is_light = before.rows + piece.rows <= share;
            if is_light {
                before.rows += piece.rows;
            }
            is_light
        });
        self
    }

    /// As if there were `to` rows for each `from` of them.
    #[must_use]
    pub fn scaled(mut self, to: u64, from: u64) -> Self {
        let scale = |rows: u64| {
            u64::try_from(u128::from(rows) * u128::from(to) / u128::from(from.max(1))).unwrap_or(u64::MAX)
        };
        self.pieces.iter_mut().for_each(|piece| piece.rows = scale(piece.rows));
        self.nulls = self.nulls.map(scale);
        self
    }
}

/// How large a table is, by estimate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Size {
    pub rows: u64,
    /// Bytes; 0 when unknown.
    pub bytes: u64,
}

/// What decides, beside the table's size, how many tasks it becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The job's own number: concurrency × split factor.
    pub wanted: u64,
    /// A task must not be larger, by estimate; makes more tasks than are worth their while if need be.
    pub body_bytes: u64,
    /// Nor may there be more of them, the one for rows without a key among them; makes larger tasks if need be.
    pub tasks_most: u64,
}

/// The tasks of one table split by a key, and what stands out among them.
pub fn split(shard: u32, key: &KeyFacts, size: Size, cut: Cut) -> Vec<TaskPlan> {
    let tasks_most = cut.tasks_most.saturating_sub(u64::from(key.nulls.is_some())).max(1);
    let count = task_count(size, Cut { tasks_most, ..cut });
    let groups = group(&key.pieces, |piece| piece.rows, count, tasks_most);
    let lowers: Vec<&Key> = groups.iter().skip(1).map(|group| &group[0].from).collect();
    let mut tasks: Vec<TaskPlan> = between(&lowers)
        .into_iter()
        .enumerate()
        .map(|(index, range)| {
            // Without pieces there is one range, of which nothing more is known.
            let rows =
                groups.get(index).map_or(size.rows, |group| group.iter().map(|piece| piece.rows).sum());
            TaskPlan { shard, range: TaskRange::Keys(range), rows_estimate: rows }
        })
        .collect();
    if let Some(rows_estimate) = key.nulls {
        tasks.push(TaskPlan { shard, range: TaskRange::NullKeys, rows_estimate });
    }
    tasks
}

/// The tasks of one table split by its tablets, each with its rows.
pub fn split_tablets(shard: u32, tablets: &[(u64, u64)], size: Size, cut: Cut) -> Vec<TaskPlan> {
    let tasks_most = cut.tasks_most.max(1);
    let groups = group(tablets, |(_, rows)| *rows, task_count(size, cut), tasks_most);
    let task = |group: &[(u64, u64)]| TaskPlan {
        shard,
        range: TaskRange::Tablets(group.iter().map(|(id, _)| *id).collect()),
        rows_estimate: group.iter().map(|(_, rows)| rows).sum(),
    };
    groups.into_iter().map(task).collect()
}

/// The only task of a table without a split key.
pub fn whole(shard: u32, size: Size) -> Vec<TaskPlan> {
    vec![TaskPlan { shard, range: TaskRange::Whole, rows_estimate: size.rows }]
}

/// As many as the job wants, more when tasks would be too large, fewer when they would be too small; at least one.
pub fn task_count(size: Size, cut: Cut) -> u64 {
    let by_body = size.bytes.div_ceil(cut.body_bytes.max(1));
    wanted_or_needed(size, cut.wanted)
        .min((size.rows / ROWS_LEAST).max(1))
        .max(by_body)
        .clamp(1, cut.tasks_most.clamp(1, TASKS_MOST))
}

/// How many pieces a table should be measured in, before anybody knows how many tasks the target allows. One: the keys
/// need not be looked at.
pub fn piece_count(size: Size, wanted: u64) -> u64 {
    if size.rows < 2 * ROWS_LEAST && size.bytes < 2 * BYTES_MOST {
        return 1;
    }
    (wanted_or_needed(size, wanted) * PIECES_PER_TASK).min(size.rows / PIECE_ROWS_LEAST).clamp(1, TASKS_MOST)
}

fn wanted_or_needed(size: Size, wanted: u64) -> u64 {
    wanted.max(size.rows.div_ceil(ROWS_MOST)).max(size.bytes.div_ceil(BYTES_MOST))
}

/// Consecutive items put together into at most `most` groups of about the same weight, `count` of them where nothing
/// stands out. An item heavier than a group gets one of its own, as long as there may be enough groups.
fn group<T>(items: &[T], rows: impl Fn(&T) -> u64, count: u64, most: u64) -> Vec<&[T]> {
    let total: u64 = items.iter().map(&rows).sum();
    let share = total.div_ceil(count.max(1)).max(1);
    let is_heavy = |item: &T| rows(item) >= share && count > 1;
    let heavy = items.iter().filter(|item| is_heavy(item)).count() as u64;
    // Each heavy item may leave an incomplete group on either side.
    let light: u64 = items.iter().filter(|item| !is_heavy(item)).map(&rows).sum();
    let groups: Vec<&[T]> = items
        .chunk_by(|before, after| !is_heavy(before) && !is_heavy(after))
        .flat_map(|run| even(run, &rows, light.div_ceil(count.saturating_sub(2 * heavy).max(1)).max(1)))
        .collect();
    let fits = u64::try_from(groups.len()).is_ok_and(|groups| groups <= most);
    if fits { groups } else { even(items, &rows, total.div_ceil(most.max(1)).max(1)).collect() }
}

/// Groups by which share of the weight the middle of an item falls into: never more of them than shares.
fn even<T>(items: &[T], rows: impl Fn(&T) -> u64, share: u64) -> impl Iterator<Item = &[T]> {
    let mut before = 0_u64;
    let shares: Vec<u64> = items
        .iter()
        .map(|item| {
            let middle = before + rows(item) / 2;
            before += rows(item);
            middle / share
        })
        .collect();
    let mut start = 0;
    std::iter::from_fn(move || {
        let first = shares.get(start)?;
        let length = shares[start..].iter().take_while(|share| *share == first).count();
        let group = &items[start..start + length];
        start += length;
        Some(group)
    })
}

/// Integers between `min` and `max`, taken to be spread evenly, in about `count` pieces.
pub fn evenly_spread(min: i128, max: i128, rows: u64, count: u64) -> Vec<Piece> {
    let lowers: Vec<i128> = std::iter::once(min).chain(equal_width(min, max, count)).collect();
    let rows = rows / u64::try_from(lowers.len()).unwrap_or(1);
    lowers.into_iter().map(|from| Piece { from: Key::integer(from), rows }).collect()
}

/// Inner boundaries that cut `min..=max` into `count` parts of about the same width; fewer when there are not so many
/// keys. Strictly rising, each above `min`.
fn equal_width(min: i128, max: i128, count: u64) -> Vec<i128> {
    let (min, max) = (min.min(max), min.max(max));
    let width = max.abs_diff(min);
    let count = u128::from(count).min(width.saturating_add(1)).max(1);
    // The first `extra` parts are one key wider; no product or sum here exceeds the width.
    let (step, extra) = (width / count, width % count);
    let boundary = |part: u128| min.checked_add_unsigned(step * part + extra.min(part));
    (1..count).filter_map(boundary).collect()
}

/// The ranges between boundaries, both outer ends open.
fn between(boundaries: &[&Key]) -> Vec<KeyRange> {
    let ends = || boundaries.iter().map(|key| Some((*key).clone()));
    let (lowers, uppers) = (std::iter::once(None).chain(ends()), ends().chain(std::iter::once(None)));
    lowers.zip(uppers).map(|(lower, upper)| KeyRange { lower, upper }).collect()
}

/// What an operator should know of how the rows of `table` are spread: key values that no cut can part.
pub fn heavy_keys(table: &str, key: &str, facts: &KeyFacts, tasks: &[TaskPlan]) -> Vec<String> {
    const SHOWN: usize = 3;
    let rows: u64 = tasks.iter().map(|task| task.rows_estimate).sum();
    let mean = rows / u64::try_from(tasks.len()).unwrap_or(1).max(1);
    let is_heavy = |rows: u64| rows > 3 * mean && rows > ROWS_LEAST && tasks.len() > 1;
    let mut warnings = Vec::new();
    if let Some(nulls) = facts.nulls.filter(|nulls| is_heavy(*nulls)) {
        warnings.push(format!(
            "about {nulls} rows of {table} have no {key}: they are one task, which cannot be cut; another splitPk may serve better"
        ));
    }
    let heavy = facts.pieces.iter().filter(|piece| is_heavy(piece.rows)).take(SHOWN);
    warnings.extend(heavy.map(|piece| {
        format!(
            "about {} rows of {table} have {key} = {}: a single value cannot be cut, its task is larger than others",
            piece.rows, piece.from
        )
    }));
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(wanted: u64) -> Cut {
        Cut { wanted, body_bytes: u64::MAX, tasks_most: TASKS_MOST }
    }

    fn integer(key: &Key) -> i128 {
        key.as_sql().parse().expect("an integer")
    }

    fn holders(tasks: &[TaskPlan], key: i128) -> usize {
        let holds = |range: &KeyRange| {
            range.lower.as_ref().is_none_or(|lower| integer(lower) <= key)
                && range.upper.as_ref().is_none_or(|upper| key < integer(upper))
        };
        tasks.iter().filter(|task| matches!(&task.range, TaskRange::Keys(range) if holds(range))).count()
    }

    fn pieces(rows: &[u64]) -> Vec<Piece> {
        (0..).zip(rows).map(|(from, rows)| Piece { from: Key::integer(from), rows: *rows }).collect()
    }

    /// Rows of each task of a table with such pieces.
    fn weights(rows: &[u64], cut: Cut) -> Vec<u64> {
        let facts = KeyFacts { pieces: pieces(rows), nulls: None };
        let size = Size { rows: rows.iter().sum(), bytes: 0 };
        split(0, &facts, size, cut).iter().map(|task| task.rows_estimate).collect()
    }

    proptest! {
        #[test]
        fn every_key_lies_in_exactly_one_range(
            min in any::<i64>(), max in any::<i64>(), rows in 0u64..1 << 40, wanted in 1u64..500, key in any::<i64>(),
        ) {
            let (min, max) = (i128::from(min), i128::from(max));
            let pieces = evenly_spread(min.min(max), min.max(max), rows, 700);
            let tasks = split(0, &KeyFacts { pieces, nulls: None }, Size { rows, bytes: 0 }, cut(wanted));
            for key in [key.into(), min, max, min - 1, max + 1, i128::MIN, i128::MAX] {
                prop_assert_eq!(holders(&tasks, key), 1);
            }
        }

        #[test]
        fn pieces_are_all_there_in_order_and_never_in_more_tasks_than_allowed(
            rows in proptest::collection::vec(0u64..3_000_000, 1..300), wanted in 1u64..50, most in 1u64..60,
        ) {
            let cut = Cut { tasks_most: most, ..cut(wanted) };
            let facts = KeyFacts { pieces: pieces(&rows), nulls: Some(7) };
            let size = Size { rows: rows.iter().sum(), bytes: 0 };
            let tasks = split(0, &facts, size, cut);
            prop_assert!(tasks.len() as u64 <= most.max(2), "{} tasks", tasks.len());
            prop_assert_eq!(tasks.iter().map(|task| task.rows_estimate).sum::<u64>(), size.rows + 7);
            for key in 0..rows.len() as i128 {
                prop_assert_eq!(holders(&tasks, key), 1);
            }
        }

        #[test]
        fn a_task_of_many_light_pieces_is_about_the_mean(
            rows in proptest::collection::vec(0u64..10_000, 500..2_000), wanted in 2u64..40,
        ) {
            let total: u64 = rows.iter().sum();
            let weights = weights(&rows, cut(wanted));
            let share = total / weights.len() as u64;
            prop_assert!(weights.iter().all(|rows| *rows <= share * 2 + 10_000), "{weights:?}");
        }

        #[test]
        fn every_key_of_a_narrow_span_lies_in_exactly_one_part(
            min in -50i128..50, width in 0i128..60, count in 1u64..100,
        ) {
            let boundaries = equal_width(min, min + width, count);
            prop_assert!(boundaries.is_sorted_by(|a, b| a < b));
            prop_assert!(boundaries.iter().all(|boundary| min < *boundary && *boundary <= min + width));
        }

        #[test]
        fn widths_differ_little(min in any::<i64>(), width in 1000i128..1 << 60, count in 2u64..200) {
            let min = i128::from(min);
            let boundaries = equal_width(min, min + width, count);
            prop_assert_eq!(boundaries.len() as u64, count - 1);
            let widths: Vec<i128> = boundaries.windows(2).map(|pair| pair[1] - pair[0]).collect();
            if let (Some(least), Some(most)) = (widths.iter().min(), widths.iter().max()) {
                prop_assert!(most - least <= 1);
            }
        }
    }

    #[test]
    fn the_number_of_tasks_follows_the_size() {
        let rows = |rows| Size { rows, bytes: 0 };
        assert_eq!(task_count(rows(0), cut(20)), 1);
        assert_eq!(task_count(rows(60_000), cut(20)), 1);
        assert_eq!(task_count(rows(200_000), cut(20)), 4);
        assert_eq!(task_count(rows(1_000_000), cut(10)), 10);
        assert_eq!(task_count(rows(100_000_000), cut(10)), 100);
        assert_eq!(task_count(Size { rows: 1_000_000, bytes: 4 << 30 }, cut(10)), 16);
        assert_eq!(task_count(rows(u64::MAX), cut(10)), TASKS_MOST);
    }

    #[test]
    fn a_small_table_is_not_measured_and_a_large_one_finely_enough() {
        assert_eq!(piece_count(Size { rows: 99_999, bytes: 0 }, 20), 1);
        assert_eq!(piece_count(Size { rows: 100_000, bytes: 0 }, 20), 40);
        assert_eq!(piece_count(Size { rows: 60_000, bytes: 100 << 30 }, 20), 60);
        assert_eq!(piece_count(Size { rows: 100_000_000, bytes: 0 }, 20), 200);
    }

    #[test]
    fn a_cap_makes_larger_tasks_and_a_body_limit_smaller_ones() {
        let size = Size { rows: 100_000_000, bytes: 0 };
        let capped = Cut { tasks_most: 30, ..cut(10) };
        assert_eq!(task_count(size, capped), 30);
        let facts = KeyFacts { pieces: evenly_spread(1, 1 << 40, size.rows, 200), nulls: Some(0) };
        assert_eq!(split(0, &facts, size, capped).len(), 30, "the task of NULL keys is one of them");
        let wide = Size { rows: 60_000, bytes: 10 << 30 };
        assert_eq!(task_count(wide, cut(10)), 1);
        assert_eq!(task_count(wide, Cut { body_bytes: 1 << 30, ..cut(10) }), 10);
    }

    #[test]
    fn a_heavy_value_gets_a_task_of_its_own() {
        let mut rows = vec![1_000; 300];
        rows[100] = 900_000;
        assert_eq!(weights(&rows, cut(8)), [50_000, 50_000, 900_000, 50_000, 50_000, 50_000, 49_000]);
        let only_two = Cut { tasks_most: 2, ..cut(8) };
        assert_eq!(weights(&rows, only_two).len(), 2);
    }

    #[test]
    fn light_neighbours_become_one_piece_and_no_row_is_lost() {
        let mut rows = vec![1; 10_000];
        rows[5_000] = 9_000;
        let facts = KeyFacts { pieces: pieces(&rows), nulls: Some(3) }.coalesced(100);
        assert!((50..=201).contains(&facts.pieces.len()), "{}", facts.pieces.len());
        assert_eq!(facts.rows(), 9_999 + 9_000 + 3);
        let heavy = facts.pieces.iter().find(|piece| integer(&piece.from) == 5_000);
        assert_eq!(heavy.map(|piece| piece.rows), Some(9_000));
    }

    #[test]
    fn heavy_values_are_told() {
        let mut rows = vec![1_000; 300];
        rows[100] = 900_000;
        let facts = KeyFacts { pieces: pieces(&rows), nulls: Some(2_000_000) };
        let tasks = split(0, &facts, Size { rows: 3_200_000, bytes: 0 }, cut(12));
        let warnings = heavy_keys("shop.orders", "id", &facts, &tasks);
        assert!(warnings[0].contains("about 2000000 rows of shop.orders have no id"), "{warnings:?}");
        assert!(warnings[1].contains("about 900000 rows of shop.orders have id = 100"), "{warnings:?}");
        let even = KeyFacts { pieces: pieces(&[1_000; 300]), nulls: Some(20_000) };
        let tasks = split(0, &even, Size { rows: 300_000, bytes: 0 }, cut(12));
        assert_eq!(heavy_keys("shop.orders", "id", &even, &tasks), Vec::<String>::new());
    }

    #[test]
    fn rows_without_a_key_have_a_task_of_their_own_where_there_can_be_any() {
        let facts = KeyFacts { pieces: evenly_spread(1, 9, 9, 9), nulls: Some(0) };
        let tasks = split(0, &facts, Size { rows: 9, bytes: 0 }, cut(5));
        let ranges: Vec<TaskRange> = tasks.into_iter().map(|task| task.range).collect();
        assert_eq!(ranges, [TaskRange::Keys(KeyRange { lower: None, upper: None }), TaskRange::NullKeys]);
        let empty = split(0, &KeyFacts::default(), Size::default(), cut(5));
        assert_eq!(empty.len(), 1);
    }

    #[test]
    fn tablets_are_dealt_out_whole() {
        let tablets: Vec<(u64, u64)> = (0..32).map(|id| (10_000 + id, 25_000)).collect();
        let tasks = split_tablets(0, &tablets, Size { rows: 800_000, bytes: 0 }, cut(8));
        assert_eq!(tasks.len(), 8);
        assert_eq!(tasks[1].range, TaskRange::Tablets([10_004, 10_005, 10_006, 10_007].into()));
        assert_eq!(tasks[1].rows_estimate, 100_000);
        let empty: Vec<(u64, u64)> = (0..3).map(|id| (id, 0)).collect();
        assert_eq!(split_tablets(0, &empty, Size::default(), cut(8)).len(), 1);
    }
}
