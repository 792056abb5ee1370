//! What tests take for themselves for a while.

use std::ops::Deref;
use std::sync::{Condvar, Mutex};

/// A control plane and what is in it needs half a gigabyte.
const MOST: usize = 2;

/// Made when all are taken, up to two; a test that finds both taken waits for one.
pub struct Pool<T: 'static> {
    /// Those that are free, and how many there are.
    state: Mutex<(Vec<T>, usize)>,
    returned: Condvar,
}

/// One that was taken; it goes back when it is dropped, by a failing test too.
pub struct Taken<T: 'static> {
    pool: &'static Pool<T>,
    item: Option<T>,
}

impl<T> Pool<T> {
    pub const fn new() -> Self {
        Self { state: Mutex::new((Vec::new(), 0)), returned: Condvar::new() }
    }

    pub fn take(&'static self, make: impl FnOnce() -> T) -> Taken<T> {
        let state = self.state.lock().unwrap();
        let mut state = self.returned.wait_while(state, |(free, made)| free.is_empty() && *made == MOST).unwrap();
        if let Some(item) = state.0.pop() {
            return Taken { pool: self, item: Some(item) };
        }
        state.1 += 1;
        drop(state);
        // While it is made, it is counted; when that fails, no more.
        let mut taken = Taken { pool: self, item: None };
        taken.item = Some(make());
        taken
    }
}

impl<T> Deref for Taken<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.item.as_ref().unwrap()
    }
}

impl<T> Drop for Taken<T> {
    fn drop(&mut self) {
        let mut state = self.pool.state.lock().unwrap();
        match self.item.take() {
            Some(item) => state.0.push(item),
            None => state.1 -= 1,
        }
        self.pool.returned.notify_one();
    }
}
