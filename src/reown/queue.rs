//! Work that one thread has to spare and another takes.

use std::sync::atomic::{AtomicIsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};

/// A stack of tasks. It is at its end when every thread waits, or when it was stopped.
#[derive(Debug)]
pub struct Queue<T> {
    state: Mutex<State<T>>,
    woken: Condvar,
    /// Threads that wait, less tasks that lie ready: above 0, somebody has nothing to do.
    hungry: AtomicIsize,
    threads: usize,
}

#[derive(Debug)]
struct State<T> {
    tasks: Vec<T>,
    waiting: usize,
    ended: bool,
}

impl<T> Queue<T> {
    pub fn new(threads: usize, first: T) -> Self {
        let state = State { tasks: vec![first], waiting: 0, ended: false };
        Self { state: Mutex::new(state), woken: Condvar::new(), hungry: AtomicIsize::new(-1), threads }
    }

    /// Whether a thread waits for work. A hint: cheap, and out of date at once.
    pub fn is_hungry(&self) -> bool {
        self.hungry.load(Ordering::Relaxed) > 0
    }

    pub fn give(&self, task: T) {
        let mut state = self.lock();
        state.tasks.push(task);
        self.note(&state);
        self.woken.notify_one();
    }

    /// The next task; `None` at the end.
    pub fn take(&self) -> Option<T> {
        let mut state = self.lock();
        state.waiting += 1;
        if state.waiting == self.threads && state.tasks.is_empty() {
            state.ended = true;
            self.woken.notify_all();
        }
        loop {
            if state.ended {
                return None;
            }
            if let Some(task) = state.tasks.pop() {
                state.waiting -= 1;
                self.note(&state);
                return Some(task);
            }
            self.note(&state);
            state = self.woken.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }

    /// Ends the work: nobody gets another task.
    pub fn stop(&self) {
        let mut state = self.lock();
        state.ended = true;
        state.tasks.clear();
        self.woken.notify_all();
    }

    fn note(&self, state: &State<T>) {
        // Both are far below isize::MAX: threads and tasks that fit in memory.
        self.hungry.store(state.waiting as isize - state.tasks.len() as isize, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
