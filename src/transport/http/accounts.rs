//! What each principal has open, so that none takes what belongs to all.
//!
//! Used by `post`, `held` and `stream`. Only counts; what happens at a limit is for whoever asks.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use crate::principal::Principal;

/// Principals that are remembered before those with nothing open are forgotten.
const ACCOUNTS_MAX: usize = 10_000;

/// What one principal has open.
#[derive(Debug, Default)]
pub(super) struct Account {
    held: AtomicUsize,
    held_bytes: AtomicUsize,
    /// Of bodies that have begun and not ended.
    coming_bytes: AtomicUsize,
    streams: AtomicUsize,
}

/// All of them.
#[derive(Default)]
pub(super) struct Accounts(Mutex<HashMap<Arc<Principal>, Arc<Account>>>);

impl Accounts {
    /// What `principal` has open.
    pub(super) fn of(&self, principal: &Arc<Principal>) -> Arc<Account> {
        let mut accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(account) = accounts.get(principal) {
            return Arc::clone(account);
        }
        if accounts.len() >= ACCOUNTS_MAX {
            accounts.retain(|_, account| Arc::strong_count(account) > 1);
        }
        let account = Arc::<Account>::default();
        accounts.insert(Arc::clone(principal), Arc::clone(&account));
        account
    }
}

/// Something open, until this is dropped.
#[derive(Debug)]
pub(super) struct Open {
    account: Arc<Account>,
    held_bytes: Option<usize>,
}

/// What has come of a body, until this is dropped.
#[derive(Debug)]
pub(super) struct Coming {
    account: Arc<Account>,
    bytes: usize,
}

impl Coming {
    /// A body that begins.
    pub(super) fn new(account: Arc<Account>) -> Self {
        Self { account, bytes: 0 }
    }

    /// How much of it is counted.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// So many bytes of it are here now. Whether that is within what all that comes may be.
    pub(super) fn has(&mut self, bytes: usize, bytes_max: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        self.bytes += more;
        let all = self.account.coming_bytes.fetch_add(more, Relaxed);
        all.saturating_add(more) <= bytes_max
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.account.coming_bytes.fetch_sub(self.bytes, Relaxed);
    }
}

impl Account {
    /// One more held call of `bytes`, if that is within both limits.
    pub(super) fn hold(self: &Arc<Self>, bytes: usize, held_max: usize, bytes_max: usize) -> Option<Open> {
        let held = self.held.fetch_add(1, Relaxed);
        let held_bytes = self.held_bytes.fetch_add(bytes, Relaxed);
        let open = Open { account: Arc::clone(self), held_bytes: Some(bytes) };
        (held < held_max && held_bytes.saturating_add(bytes) <= bytes_max).then_some(open)
    }

    /// One more stream, if that is within the limit.
    pub(super) fn stream(self: &Arc<Self>, streams_max: usize) -> Option<Open> {
        let streams = self.streams.fetch_add(1, Relaxed);
        let open = Open { account: Arc::clone(self), held_bytes: None };
        (streams < streams_max).then_some(open)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        match self.held_bytes {
            Some(bytes) => {
                self.account.held.fetch_sub(1, Relaxed);
                self.account.held_bytes.fetch_sub(bytes, Relaxed);
            }
            None => drop(self.account.streams.fetch_sub(1, Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_reached_and_left_again() {
        let account = Accounts::default().of(&Arc::new(Principal::Anyone));
        let first = account.hold(10, 2, 25).unwrap();
        assert!(account.hold(16, 2, 25).is_none(), "too many bytes");
        let second = account.hold(10, 2, 25).unwrap();
        assert!(account.hold(0, 2, 25).is_none(), "too many calls");
        drop((first, second));
        assert!(account.hold(25, 2, 25).is_some());
        let stream = account.stream(1).unwrap();
        assert!(account.stream(1).is_none());
        drop(stream);
        assert!(account.stream(1).is_some());
    }
}
