//! One speed limit for all workers of a job: a token bucket that is handed out in slices. A worker asks when it has used
//! its last slice, so whoever does not read leaves his share to the others at once, whatever starts, ends or waits. The
//! rule ([`Bucket`]) is pure: time is an argument. Nothing of it is stored: a new leader begins with empty buckets.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use starlift_common::ids::{JobId, WorkerId};

/// How long the slices of all readers last together: what the sum may be ahead of the limit.
const ROUND: Duration = Duration::from_millis(100);

/// Time in which nobody asked that is made up for.
const SAVED: Duration = Duration::from_millis(100);

/// Least bytes worth a question, and most questions in a second.
const SLICE_LEAST: u64 = 16 << 10;
const SLICES_PER_SECOND: u64 = 1000;

/// A worker that has not asked for so long reads nothing.
const READS_UNTIL: Duration = Duration::from_secs(2);

/// A bucket that nobody asked for so long belongs to a job that is over, or stands still.
const KEPT: Duration = Duration::from_secs(60);

/// The budget of one job.
#[derive(Debug)]
pub(crate) struct Bucket {
    bytes_per_second: u64,
    /// When all that was handed out is paid for.
    paid_at: Duration,
    /// Who asked lately: for how many tasks, and when.
    readers: BTreeMap<WorkerId, (u32, Duration)>,
    asked: Duration,
}

/// Bytes that may be read after a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) bytes: u64,
    pub(crate) wait: Duration,
}

impl Bucket {
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second: bytes_per_second.max(1),
            paid_at: Duration::ZERO,
            readers: BTreeMap::new(),
            asked: Duration::ZERO,
        }
    }

    /// The next slice, for a worker in which so many tasks of the job read. `now` is any clock that only goes forward.
    pub(crate) fn take(&mut self, worker: WorkerId, tasks: u32, now: Duration) -> Slice {
        self.readers.insert(worker, (tasks.max(1), now));
        self.readers.retain(|_, (_, asked)| now.saturating_sub(*asked) < READS_UNTIL);
        self.asked = now;
        let all: u64 = self.readers.values().map(|(tasks, _)| u64::from(*tasks)).sum();
        let round = self.worth(ROUND) * u128::from(tasks.max(1)) / u128::from(all.max(1));
        let least = SLICE_LEAST.max(self.bytes_per_second / SLICES_PER_SECOND);
        let bytes = u64::try_from(round).unwrap_or(u64::MAX).max(least);
        let start = self.paid_at.max(now.saturating_sub(SAVED));
        self.paid_at = start + self.price(bytes);
        Slice { bytes, wait: start.saturating_sub(now) }
    }

    fn worth(&self, time: Duration) -> u128 {
        u128::from(self.bytes_per_second) * time.as_micros() / 1_000_000
    }

    fn price(&self, bytes: u64) -> Duration {
        let micros = u128::from(bytes) * 1_000_000 / u128::from(self.bytes_per_second);
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }
}

/// The buckets of all jobs that are limited. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Buckets(Arc<Mutex<BTreeMap<JobId, Bucket>>>);

impl Buckets {
    /// `None`: there is no bucket for the job yet.
    pub(crate) fn take(&self, job: JobId, worker: WorkerId, tasks: u32, now: Duration) -> Option<Slice> {
        self.all().get_mut(&job).map(|bucket| bucket.take(worker, tasks, now))
    }

    /// Makes the job's bucket; those that nobody asks any more go.
    pub(crate) fn add(&self, job: JobId, bytes_per_second: u64, now: Duration) {
        let mut all = self.all();
        all.retain(|_, bucket| now.saturating_sub(bucket.asked) < KEPT);
        all.entry(job).or_insert_with(|| Bucket { asked: now, ..Bucket::new(bytes_per_second) });
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<JobId, Bucket>> {
        // A bucket is whole between two calls, whatever became of a panicking one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    /// A worker of the simulation: how fast its source reads, and in which seconds how many of its tasks read.
    struct Reader {
        bytes_per_second: u64,
        tasks: fn(u64) -> u32,
    }

    /// Bytes read in each 10 ms of `seconds`, by all readers together.
    fn simulate(limit: u64, readers: &[Reader], seconds: u64) -> Vec<u64> {
        let mut bucket = Bucket::new(limit);
        let mut read = vec![0; usize::try_from(seconds * 100).unwrap()];
        // Microseconds at which each reader is free for its next slice.
        let mut free: Vec<u64> = vec![0; readers.len()];
        while let Some((index, at)) = free.iter().copied().enumerate().min_by_key(|(_, at)| *at) {
            if at >= seconds * 1_000_000 {
                return read;
            }
            let (reader, now) = (&readers[index], Duration::from_micros(at));
            let tasks = (reader.tasks)(at / 1_000_000);
            if tasks == 0 {
                free[index] = at + 10_000;
                continue;
            }
            let worker = WorkerId(format!("w{index}").into());
            let slice = bucket.take(worker, tasks, now);
            let start = now + slice.wait;
            // The slice is read at the source's own speed, and the next question takes 2 ms.
            let took = slice.bytes * 1_000_000 / reader.bytes_per_second;
            let begin = u64::try_from(start.as_micros()).unwrap();
            for piece in 0..10 {
                let bin = usize::try_from((begin + took * piece / 10) / 10_000).unwrap();
                if let Some(bin) = read.get_mut(bin) {
                    *bin += slice.bytes / 10;
                }
            }
            free[index] = begin + took + 2_000;
        }
        read
    }

    /// Every window of ten seconds from the first one on holds the limit within five percent.
    #[track_caller]
    fn assert_steady(limit: u64, read: &[u64]) {
        for (index, window) in read.windows(1000).enumerate() {
            let rate = window.iter().sum::<u64>() / 10;
            assert!(
                rate * 100 >= limit * 95 && rate * 100 <= limit * 105,
                "{rate} bytes/s instead of {limit} in the ten seconds from {} ms on",
                index * 10
            );
        }
    }

    #[test]
    fn four_workers_hold_one_limit() {
        for limit in [MB, 10 * MB, 300 * MB] {
            let readers: Vec<Reader> =
                (0..4).map(|_| Reader { bytes_per_second: 400 * MB, tasks: |_| 2 }).collect();
            assert_steady(limit, &simulate(limit, &readers, 30));
        }
    }

    #[test]
    fn what_starts_ends_or_waits_leaves_its_share_to_the_others() {
        let readers = [
            Reader { bytes_per_second: 200 * MB, tasks: |_| 1 },
            Reader { bytes_per_second: 200 * MB, tasks: |second| u32::from(second % 7 < 3) },
            // Stands still every other second, as one does whose server is asked to take less.
            Reader { bytes_per_second: 200 * MB, tasks: |second| u32::from(second % 2 == 1) },
            Reader { bytes_per_second: 200 * MB, tasks: |second| u32::from((5..9).contains(&second)) * 8 },
        ];
        assert_steady(20 * MB, &simulate(20 * MB, &readers, 30));
    }

    #[test]
    fn a_single_reader_gets_the_whole_limit_and_a_slow_one_takes_no_more_than_it_reads() {
        let alone = [Reader { bytes_per_second: 200 * MB, tasks: |_| 1 }];
        assert_steady(20 * MB, &simulate(20 * MB, &alone, 20));
        let slow_and_fast = [
            Reader { bytes_per_second: MB, tasks: |_| 8 },
            Reader { bytes_per_second: 200 * MB, tasks: |_| 1 },
        ];
        assert_steady(20 * MB, &simulate(20 * MB, &slow_and_fast, 20));
    }

    #[test]
    fn tasks_share_alike_wherever_they_run() {
        let mut bucket = Bucket::new(100 * MB);
        let mut take =
            |worker: &str, tasks| bucket.take(WorkerId(worker.into()), tasks, Duration::ZERO).bytes;
        take("a", 1);
        take("b", 4);
        assert_eq!(take("b", 4), 4 * take("a", 1));
    }

    #[test]
    fn time_in_which_nobody_asks_is_not_saved_up() {
        let mut bucket = Bucket::new(MB);
        let mut take = |seconds| bucket.take(WorkerId("a".into()), 1, Duration::from_secs(seconds));
        take(0);
        let after = Duration::from_secs(100);
        let bytes: u64 =
            (0..10).map(|_| take(100)).filter(|slice| slice.wait.is_zero()).map(|slice| slice.bytes).sum();
        assert!(bytes <= MB * 3 / 10, "{bytes} at once after {after:?} of silence");
    }

    #[test]
    fn questions_stay_few_however_many_ask() {
        let mut bucket = Bucket::new(1000 * MB);
        let bytes: u64 = (0..1000)
            .map(|number| bucket.take(WorkerId(format!("w{number}").into()), 1, Duration::ZERO).bytes)
            .skip(500)
            .min()
            .unwrap();
        assert!(bytes >= MB, "{bytes}");
    }

    #[test]
    fn a_bucket_is_made_once_and_goes_when_nobody_asks() {
        let (buckets, job) = (Buckets::default(), JobId::from_parts(1, 1));
        let ask = |seconds| buckets.take(job, WorkerId("a".into()), 1, Duration::from_secs(seconds));
        assert_eq!(ask(0), None);
        buckets.add(job, MB, Duration::ZERO);
        let first = ask(0).expect("a bucket");
        buckets.add(job, 100 * MB, Duration::from_secs(1));
        assert_eq!(ask(1).map(|slice| slice.bytes), Some(first.bytes), "the first one stays");
        buckets.add(JobId::from_parts(2, 2), MB, Duration::from_secs(100));
        assert_eq!(ask(100), None);
    }
}
