//! Which waiting task of a job is next, and how many may run at once. Pure. Largest estimate first; a task that failed
//! waits, and goes to another worker when there is one.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

use starlift_common::ids::TaskId;

use crate::clock::Millis;

/// How many ready tasks are looked at for one that the asking worker has not failed at.
const LOOK_AHEAD: usize = 64;

/// The pause between two lowerings of the cap, and before it rises again: failures under load come in crowds.
const CAP_PAUSE: Duration = Duration::from_secs(10);

/// The waiting tasks of one job.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Queue {
    /// Ordered by estimate, largest first.
    ready: BTreeSet<(Reverse<u64>, TaskId)>,
    /// Not before the moment in front.
    delayed: BTreeSet<(Millis, u64, TaskId)>,
    /// Most tasks at once that the job asks for.
    most: u32,
    /// Most tasks at once for now: lower after the server asked for less load.
    cap: u32,
    cap_changed: Option<Millis>,
    /// Tasks running, counted here so that a request never scans the job.
    running: u32,
}

impl Queue {
    pub fn new(most: u32) -> Self {
        let most = most.max(1);
        Self {
            ready: BTreeSet::new(),
            delayed: BTreeSet::new(),
            most,
            cap: most,
            cap_changed: None,
            running: 0,
        }
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
        if self.running >= self.cap {
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

    /// The server asked for less load.
    pub fn lower_cap(&mut self, now: Millis) {
        if self.may_change_cap(now) {
            self.cap = (self.cap.min(self.running.max(1)) / 2).max(1);
            self.cap_changed = Some(now);
        }
    }

    /// A task went well: the cap may rise by one.
    pub fn raise_cap(&mut self, now: Millis) {
        if self.cap < self.most && self.may_change_cap(now) {
            self.cap += 1;
            self.cap_changed = Some(now);
        }
    }

    fn may_change_cap(&self, now: Millis) -> bool {
        self.cap_changed.is_none_or(|changed| now.since(changed) >= CAP_PAUSE)
    }

    /// Takes away everything that waits; nothing more is granted.
    pub fn clear(&mut self) {
        self.ready.clear();
        self.delayed.clear();
    }

    pub fn has_ready(&self) -> bool {
        self.running < self.cap && !self.ready.is_empty()
    }

    pub fn running(&self) -> u32 {
        self.running
    }

    /// Tasks that could be running at once, as far as the job goes: what a speed limit is shared by.
    pub fn width(&self) -> u64 {
        let waiting = self.ready.len() + self.delayed.len();
        u64::from(self.running).saturating_add(waiting as u64).min(u64::from(self.cap)).max(1)
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
    fn the_largest_task_goes_first_and_the_cap_holds() {
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

    #[test]
    fn a_crowd_of_distressed_tasks_halves_the_cap_once_and_it_rises_slowly() {
        let mut queue = Queue::new(8);
        for task in 0..20 {
            queue.push(TaskId(task), 1, None);
        }
        while queue.pop(|_| false).is_some() {}
        assert_eq!(queue.running(), 8);
        for _ in 0..8 {
            queue.lower_cap(Millis(0));
            queue.release();
        }
        while queue.pop(|_| false).is_some() {}
        assert_eq!(queue.running(), 4);
        queue.raise_cap(Millis(1));
        assert_eq!(queue.pop(|_| false), None);
        queue.raise_cap(Millis(10_000));
        assert!(queue.pop(|_| false).is_some());
    }
}
