//! Who has signed in with a browser, until the desk ends.
//!
//! Used by `guard`. A session is a random name in a cookie; what is kept of it is the name's digest, so that a copy of the
//! memory is no session. Nothing here is written to a disk.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::digest::{Digest, random_text};

/// Sessions at once; the one that was used longest ago makes room.
const SESSIONS_MAX: usize = 64;

/// How long a session lasts without being used.
const IDLE: Duration = Duration::from_secs(12 * 3600);

/// How long it lasts at most.
const AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// A session, as its requests show it.
#[derive(Clone, Debug)]
pub(super) struct Session {
    /// The digest of its name.
    pub(super) id: Digest,
    /// What a form must say too. Other sites cannot read it.
    pub(super) csrf: String,
    /// Whom the certificate named that it began with; none: the user whose desk this is.
    pub(super) identity: Option<String>,
}

struct Kept {
    csrf: String,
    identity: Option<String>,
    began: Instant,
    used: Instant,
}

/// The sessions of one desk.
#[derive(Default)]
pub(super) struct Sessions {
    kept: Mutex<HashMap<Digest, Kept>>,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}

impl Sessions {
    /// Begins a session, of whoever has a certificate or of the user whose desk this is, and gives its name.
    ///
    /// # Errors
    ///
    /// When the system has no random numbers.
    pub(super) fn begin(&self, identity: Option<String>) -> Result<String, getrandom::Error> {
        self.begin_at(identity, Instant::now())
    }

    fn begin_at(&self, identity: Option<String>, now: Instant) -> Result<String, getrandom::Error> {
        let (name, csrf) = (random_text()?, random_text()?);
        let mut kept = self.kept_at(now);
        if kept.len() >= SESSIONS_MAX {
            let oldest = kept.iter().min_by_key(|(_, session)| session.used).map(|(id, _)| *id);
            oldest.and_then(|id| kept.remove(&id));
        }
        kept.insert(Digest::of(name.as_bytes()), Kept { csrf, identity, began: now, used: now });
        Ok(name)
    }

    /// The session of this name, which has been used now.
    pub(super) fn find(&self, name: &str) -> Option<Session> {
        self.find_at(name, Instant::now())
    }

    fn find_at(&self, name: &str, now: Instant) -> Option<Session> {
        let id = Digest::of(name.as_bytes());
        let mut kept = self.kept_at(now);
        let session = kept.get_mut(&id)?;
        session.used = now;
        Some(Session { id, csrf: session.csrf.clone(), identity: session.identity.clone() })
    }

    /// All that have not ended: how long ago each began and was used last; the newest first.
    pub(super) fn list(&self) -> Vec<(Digest, Duration, Duration)> {
        let now = Instant::now();
        let since = |then| now.saturating_duration_since(then);
        let kept = self.kept_at(now);
        let mut all: Vec<_> =
            kept.iter().map(|(id, session)| (*id, since(session.began), since(session.used))).collect();
        all.sort_by_key(|(_, began, _)| *began);
        all
    }

    /// Whether a session has not ended yet.
    pub(super) fn lives(&self, id: Digest) -> bool {
        self.kept_at(Instant::now()).contains_key(&id)
    }

    /// Ends a session.
    pub(super) fn end(&self, id: Digest) {
        self.kept_at(Instant::now()).remove(&id);
    }

    /// Those that have not run out.
    fn kept_at(&self, now: Instant) -> MutexGuard<'_, HashMap<Digest, Kept>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, session| {
            now.saturating_duration_since(session.used) < IDLE
                && now.saturating_duration_since(session.began) < AGE
        });
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_when_it_is_idle_or_old_or_ended() {
        let sessions = Sessions::default();
        let mut now = Instant::now();
        let name = sessions.begin_at(None, now).unwrap();
        assert!(sessions.find_at("another", now).is_none());
        now += IDLE - Duration::from_secs(1);
        assert!(sessions.find_at(&name, now).is_some());
        now += IDLE - Duration::from_secs(1);
        assert!(sessions.find_at(&name, now).is_some(), "it was used");
        assert!(sessions.find_at(&name, now + IDLE).is_none());
        let name = sessions.begin_at(None, now).unwrap();
        for _ in 0..30 {
            now += IDLE / 2;
            sessions.find_at(&name, now);
        }
        assert!(sessions.find_at(&name, now).is_none(), "older than any session gets");
        let name = sessions.begin(None).unwrap();
        let session = sessions.find(&name).unwrap();
        assert!(sessions.lives(session.id));
        sessions.end(session.id);
        assert!(!sessions.lives(session.id) && sessions.find(&name).is_none());
    }

    #[test]
    fn a_new_session_has_a_name_of_its_own_and_the_oldest_makes_room() {
        let sessions = Sessions::default();
        let now = Instant::now();
        let first = sessions.begin_at(None, now).unwrap();
        for second in 1..=SESSIONS_MAX {
            let other = sessions.begin_at(None, now + Duration::from_secs(second as u64)).unwrap();
            assert_ne!(other, first);
        }
        assert!(sessions.find_at(&first, now).is_none());
    }
}
