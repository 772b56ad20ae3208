//! Which waiting task of a job is next, and how many of the job may run at once. Pure. Largest estimate first; a task
//! that failed waits, and goes to another worker when there is one. How many a table bears is said in [`crate::pressure`].

use std::cmp::Reverse;
use std::collections::BTreeSet;

use starlift_common::ids::TaskId;

use crate::clock::Millis;

/// How many ready tasks are looked at for one that the asking worker has not failed at.
const LOOK_AHEAD: usize = 64;

/// The waiting tasks of one job.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Queue {
    /// Ordered by estimate, largest first.
    ready: BTreeSet<(Reverse<u64>, TaskId)>,
    /// Not before the moment in front.
    delayed: BTreeSet<(Millis, u64, TaskId)>,
    /// Most tasks at once that the job asks for.
    most: u32,
    /// Tasks running, counted here so that a request never scans the job.
    running: u32,
}

impl Queue {
    pub fn new(most: u32) -> Self {
        Self { ready: BTreeSet::new(), delayed: BTreeSet::new(), most: most.max(1), running: 0 }
    }

    /// Makes a task available at `due`.
    pub fn push(&mut self, task: TaskId, rows_estimate: u64, due: Option<Millis>) {
        match due {
            None => self.ready.insert((Reverse(rows_estimate), task)),
            Some(due) => self.delayed.insert((due, rows_estimate, task)),
        };
    }

    /// Moves the tasks that have waited long enough to the ready ones.
    pub fn wake(&mut self, now: Millis) {
        while let Some(&(due, rows_estimate, task)) = self.delayed.first() {
            if due > now {
                return;
            }
            self.delayed.pop_first();
            self.ready.insert((Reverse(rows_estimate), task));
        }
    }

    /// Takes the next task if one may start; `avoid` says which ones the asking worker should rather not get.
    pub fn pop(&mut self, avoid: impl Fn(TaskId) -> bool) -> Option<TaskId> {
        if self.running >= self.most {
            return None;
        }
        let next = *self.ready.iter().take(LOOK_AHEAD).find(|(_, task)| !avoid(*task))?;
        self.ready.remove(&next);
        self.running += 1;
        Some(next.1)
    }

    /// Counts a task as running that was leased before a restart.
    pub fn adopt(&mut self) {
        self.running += 1;
    }

    /// A task runs no more.
    pub fn release(&mut self) {
        self.running -= 1;
    }

    /// Takes away everything that waits; nothing more is granted.
    pub fn clear(&mut self) {
        self.ready.clear();
        self.delayed.clear();
    }

    pub fn has_ready(&self) -> bool {
        self.running < self.most && !self.ready.is_empty()
    }

    pub fn running(&self) -> u32 {
        self.running
    }

    /// Tasks that could be running at once, as far as the job goes: what a speed limit is shared by.
    pub fn width(&self) -> u64 {
        let waiting = self.ready.len() + self.delayed.len();
        u64::from(self.running).saturating_add(waiting as u64).min(u64::from(self.most)).max(1)
    }

    /// Tasks that wait, delayed ones included.
    pub fn depth(&self) -> usize {
        self.ready.len() + self.delayed.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_task_goes_first_and_the_limit_holds() {
        let mut queue = Queue::new(2);
        for (task, rows) in [(0, 10), (1, 30), (2, 20)] {
            queue.push(TaskId(task), rows, None);
        }
        assert_eq!(queue.pop(|_| false), Some(TaskId(1)));
        assert_eq!(queue.pop(|_| false), Some(TaskId(2)));
        assert_eq!(queue.pop(|_| false), None);
        queue.release();
        assert_eq!(queue.pop(|_| false), Some(TaskId(0)));
    }

    #[test]
    fn a_delayed_task_waits_for_its_moment() {
        let mut queue = Queue::new(2);
        queue.push(TaskId(0), 1, Some(Millis(100)));
        queue.wake(Millis(99));
        assert!(!queue.has_ready());
        queue.wake(Millis(100));
        assert_eq!(queue.pop(|_| false), Some(TaskId(0)));
    }

    #[test]
    fn an_avoided_task_is_left_for_others() {
        let mut queue = Queue::new(9);
        queue.push(TaskId(0), 9, None);
        queue.push(TaskId(1), 1, None);
        assert_eq!(queue.pop(|task| task == TaskId(0)), Some(TaskId(1)));
        assert_eq!(queue.pop(|task| task == TaskId(0)), None);
        assert_eq!(queue.pop(|_| false), Some(TaskId(0)));
    }
}
