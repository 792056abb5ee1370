//! Clusters that tests use in turn.

use std::ops::Deref;
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How long an item is kept that nobody uses. A control plane that does nothing takes as much CPU time meanwhile as a
/// third of its start.
const KEPT: Duration = Duration::from_secs(90);

/// Makes up to `size` items; a test that finds all of them in use waits.
pub struct Pool<T: 'static> {
    size: usize,
    /// The items that are free, since when, and how many exist.
    state: Mutex<(Vec<(T, Instant)>, usize)>,
    returned: Condvar,
}

/// An item in use. A test that passes returns it when dropped; one that fails may have broken it, so it is discarded.
pub struct PoolGuard<T: Send + 'static> {
    pool: &'static Pool<T>,
    item: Option<T>,
}

impl<T: Send> Pool<T> {
    pub const fn new(size: usize) -> Self {
        Self { size, state: Mutex::new((Vec::new(), 0)), returned: Condvar::new() }
    }

    pub fn take(&'static self, make: impl FnOnce() -> T) -> PoolGuard<T> {
        let state = self.state.lock().unwrap();
        let is_busy = |(free, made): &mut (Vec<(T, Instant)>, usize)| free.is_empty() && *made == self.size;
        let mut state = self.returned.wait_while(state, is_busy).unwrap();
        if let Some((item, _)) = state.0.pop() {
            return PoolGuard { pool: self, item: Some(item) };
        }
        state.1 += 1;
        drop(state);
        // If `make` panics, dropping this uncounts the item.
        let mut guard = PoolGuard { pool: self, item: None };
        guard.item = Some(make());
        guard
    }

    /// Drops what has been free for long.
    fn tidy(&'static self) {
        let mut state = self.state.lock().unwrap();
        let (old, free): (Vec<_>, Vec<_>) = state.0.drain(..).partition(|(_, since)| since.elapsed() >= KEPT);
        state.0 = free;
        state.1 -= old.len();
        drop(state);
        // Stopping takes a while.
        drop(old);
    }
}

impl<T: Send> Deref for PoolGuard<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.item.as_ref().unwrap()
    }
}

impl<T: Send> Drop for PoolGuard<T> {
    fn drop(&mut self) {
        let item = self.item.take().filter(|_| !std::thread::panicking());
        let mut state = self.pool.state.lock().unwrap();
        match item {
            Some(item) => {
                state.0.push((item, Instant::now()));
                let pool = self.pool;
                thread::spawn(move || {
                    thread::sleep(KEPT);
                    pool.tidy();
                });
            }
            None => state.1 -= 1,
        }
        self.pool.returned.notify_one();
    }
}
