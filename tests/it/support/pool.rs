//! Clusters that tests use in turn.

use std::ops::Deref;
use std::sync::{Condvar, Mutex};

/// Makes up to `size` items; a test that finds all of them in use waits.
pub struct Pool<T: 'static> {
    size: usize,
    /// The items that are free, and how many exist.
    state: Mutex<(Vec<T>, usize)>,
    returned: Condvar,
}

/// An item in use. A test that passes returns it when dropped; one that fails may have broken it, so it is discarded.
pub struct PoolGuard<T: 'static> {
    pool: &'static Pool<T>,
    item: Option<T>,
}

impl<T> Pool<T> {
    pub const fn new(size: usize) -> Self {
        Self { size, state: Mutex::new((Vec::new(), 0)), returned: Condvar::new() }
    }

    pub fn take(&'static self, make: impl FnOnce() -> T) -> PoolGuard<T> {
        let state = self.state.lock().unwrap();
        let is_busy = |(free, made): &mut (Vec<T>, usize)| free.is_empty() && *made == self.size;
        let mut state = self.returned.wait_while(state, is_busy).unwrap();
        if let Some(item) = state.0.pop() {
            return PoolGuard { pool: self, item: Some(item) };
        }
        state.1 += 1;
        drop(state);
        // If `make` panics, dropping this uncounts the item.
        let mut guard = PoolGuard { pool: self, item: None };
        guard.item = Some(make());
        guard
    }
}

impl<T> Deref for PoolGuard<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.item.as_ref().unwrap()
    }
}

impl<T> Drop for PoolGuard<T> {
    fn drop(&mut self) {
        let item = self.item.take().filter(|_| !std::thread::panicking());
        let mut state = self.pool.state.lock().unwrap();
        match item {
            Some(item) => state.0.push(item),
            None => state.1 -= 1,
        }
        self.pool.returned.notify_one();
    }
}
