//! Key ranges: how many tasks a table becomes, and where it is cut. Pure. Whatever the probed minimum and maximum were,
//! every key lies in exactly one range: the outer ends are open and inner boundaries rise strictly.

use starlift_common::task::{Key, KeyRange, TaskPlan, TaskRange};

/// A task should not be larger, so that a retry is cheap.
const ROWS_MOST: u64 = 1_000_000;
const BYTES_MOST: u64 = 256 << 20;

/// Nor smaller, because every transaction makes a version in each tablet it touches.
const ROWS_LEAST: u64 = 50_000;

/// Most tasks of a job.
pub const TASKS_MOST: u64 = 100_000;

/// What the source says of a table that is to be split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyFacts {
    /// Smallest and largest key; `None` when there is no row with a key.
    pub bounds: Option<(Key, Key)>,
    /// Whether rows without a key are possible.
    pub nullable: bool,
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

/// The tasks of one table split by an integer key.
pub fn split(shard: u32, key: KeyFacts, size: Size, cut: Cut) -> Vec<TaskPlan> {
    let tasks_most = cut.tasks_most.saturating_sub(u64::from(key.nullable));
    let count = task_count(size, Cut { tasks_most, ..cut });
    let boundaries = key.bounds.map_or_else(Vec::new, |(min, max)| equal_width(min, max, count));
    let ranges = between(&boundaries);
    let rows_estimate = size.rows / u64::try_from(ranges.len()).unwrap_or(1);
    let mut tasks: Vec<TaskPlan> = ranges
        .into_iter()
        .map(|range| TaskPlan { shard, range: TaskRange::Keys(range), rows_estimate })
        .collect();
    if key.nullable {
        tasks.push(TaskPlan { shard, range: TaskRange::NullKeys, rows_estimate: 0 });
    }
    tasks
}

/// The only task of a table without a split key.
pub fn whole(shard: u32, size: Size) -> Vec<TaskPlan> {
    vec![TaskPlan { shard, range: TaskRange::Whole, rows_estimate: size.rows }]
}

/// As many as the job wants, more when tasks would be too large, fewer when they would be too small; at least one.
pub fn task_count(size: Size, cut: Cut) -> u64 {
    let by_size = size.rows.div_ceil(ROWS_MOST).max(size.bytes.div_ceil(BYTES_MOST));
    let worth = (size.rows / ROWS_LEAST).max(1);
    let by_body = size.bytes.div_ceil(cut.body_bytes.max(1));
    cut.wanted.max(by_size).min(worth).max(by_body).clamp(1, cut.tasks_most.clamp(1, TASKS_MOST))
}

/// Inner boundaries that cut `min..=max` into `count` parts of about the same width; fewer when there are not so many
/// keys. Strictly rising, each above `min`.
pub fn equal_width(min: Key, max: Key, count: u64) -> Vec<Key> {
    let (min, max) = (min.min(max), min.max(max));
    let width = max.abs_diff(min);
    let count = u128::from(count).min(width.saturating_add(1)).max(1);
    // The first `extra` parts are one key wider; no product or sum here exceeds the width.
    let (step, extra) = (width / count, width % count);
    let boundary = |part: u128| min.checked_add_unsigned(step * part + extra.min(part));
    (1..count).filter_map(boundary).collect()
}

/// The ranges between strictly rising boundaries, both outer ends open.
pub fn between(boundaries: &[Key]) -> Vec<KeyRange> {
    let lowers = std::iter::once(None).chain(boundaries.iter().copied().map(Some));
    let uppers = boundaries.iter().copied().map(Some).chain(std::iter::once(None));
    lowers.zip(uppers).map(|(lower, upper)| KeyRange { lower, upper }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(wanted: u64) -> Cut {
        Cut { wanted, body_bytes: u64::MAX, tasks_most: TASKS_MOST }
    }

    fn holders(tasks: &[TaskPlan], key: Key) -> usize {
        tasks
            .iter()
            .filter(|task| matches!(task.range, TaskRange::Keys(range) if range.contains(key)))
            .count()
    }

    proptest! {
        #[test]
        fn every_key_lies_in_exactly_one_range(
            min in any::<i128>(), max in any::<i128>(), rows in 0u64..1 << 40, wanted in 1u64..500, key in any::<i128>(),
        ) {
            let facts = KeyFacts { bounds: Some((min, max)), nullable: false };
            let tasks = split(0, facts, Size { rows, bytes: 0 }, cut(wanted));
            for key in [key, min, max, min.saturating_sub(1), max.saturating_add(1), i128::MIN, i128::MAX] {
                prop_assert_eq!(holders(&tasks, key), 1);
            }
        }

        #[test]
        fn every_key_of_a_narrow_span_lies_in_exactly_one_range(
            min in -50i128..50, width in 0i128..60, count in 1u64..100,
        ) {
            let boundaries = equal_width(min, min + width, count);
            prop_assert!(boundaries.is_sorted_by(|a, b| a < b));
            let ranges = between(&boundaries);
            for key in min - 2..=min + width + 2 {
                prop_assert_eq!(ranges.iter().filter(|range| range.contains(key)).count(), 1);
            }
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
    fn a_cap_makes_larger_tasks_and_a_body_limit_smaller_ones() {
        let size = Size { rows: 100_000_000, bytes: 0 };
        let capped = Cut { tasks_most: 30, ..cut(10) };
        assert_eq!(task_count(size, capped), 30);
        let facts = KeyFacts { bounds: Some((1, 1 << 40)), nullable: true };
        assert_eq!(split(0, facts, size, capped).len(), 30, "the task of NULL keys is one of them");
        let wide = Size { rows: 60_000, bytes: 10 << 30 };
        assert_eq!(task_count(wide, cut(10)), 1);
        assert_eq!(task_count(wide, Cut { body_bytes: 1 << 30, ..cut(10) }), 10);
    }

    #[test]
    fn rows_without_a_key_have_a_task_of_their_own_where_there_can_be_any() {
        let tasks =
            split(0, KeyFacts { bounds: Some((1, 9)), nullable: true }, Size { rows: 9, bytes: 0 }, cut(5));
        let ranges: Vec<TaskRange> = tasks.iter().map(|task| task.range).collect();
        assert_eq!(ranges, [TaskRange::Keys(KeyRange { lower: None, upper: None }), TaskRange::NullKeys]);
        let empty = split(0, KeyFacts { bounds: None, nullable: false }, Size::default(), cut(5));
        assert_eq!(empty.len(), 1);
    }
}
