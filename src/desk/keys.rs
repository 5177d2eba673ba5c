//! What signs somebody in: links that work once, and personal access tokens. Only their digests are kept.
//!
//! Used by the desk, which asks with every request, and by `holdshort desk link|token`, which add and remove while a desk
//! runs. One file of this user; it is replaced as a whole, under a lock, so that a reader never sees half of it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, random_text};

/// Tokens and links that are kept at once.
pub const KEYS_MAX: usize = 256;

/// The longest name of a token, in characters.
pub const TOKEN_NAME_CHARS_MAX: usize = 64;

/// What a token begins with, so that it is known for one where it should not be.
pub const TOKEN_PREFIX: &str = "hsd_";

/// The largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What a token may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// See what waits and what was, with all arguments.
    Read,
    /// Approve and reject.
    Decide,
    /// Ask how one hold stands, and nothing of what is in it: for the agent's side.
    Status,
    /// Export and verify the record.
    Audit,
}

impl Scope {
    /// The word that is typed for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Decide => "decide",
            Self::Status => "status",
            Self::Audit => "audit",
        }
    }
}

/// A key, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// What a token is called; none for a link that works once.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// The digest of its text.
    sha256: String,
    /// What it may be used for. A link begins a session, which may do everything.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub scopes: Vec<Scope>,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is worth nothing.
    pub expires_at: Timestamp,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    keys: Vec<Key>,
}

/// Why keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file cannot be read or written.
    #[error("cannot use `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The file is not what this program writes.
    #[error("`{}` is damaged: {source}; remove it to begin anew, without the tokens in it", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The system has no random numbers.
    #[error("the system has no random numbers")]
    Random(#[from] getrandom::Error),
    /// As many keys as there may be.
    #[error("there are {KEYS_MAX} keys already; revoke some")]
    Full,
    /// A token of this name is there.
    #[error("there is a token `{0}` already")]
    Taken(String),
    /// Not a name for a token.
    #[error("a token's name has 1 to {TOKEN_NAME_CHARS_MAX} letters, digits, `-`, `_` and `.`, not `{0}`")]
    BadName(String),
    /// No token has this name.
    #[error("there is no token `{0}`")]
    NoSuch(String),
}

/// The keys of one user.
#[derive(Clone, Debug)]
pub struct Keys {
    path: PathBuf,
}

impl Keys {
    /// The keys in this file, whose directory is private to this user.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Adds a key that signs in once, and gives its text. It is kept nowhere else.
    ///
    /// # Errors
    ///
    /// When the file cannot be changed or is full.
    pub fn add_sign_in(&self, expires_at: Timestamp) -> Result<String, KeysError> {
        let text = random_text()?;
        self.add(None, Vec::new(), expires_at, &text)?;
        Ok(text)
    }

    /// Adds a token, and gives its text. It is kept nowhere else.
    ///
    /// # Errors
    ///
    /// When the name is none or taken, or the file cannot be changed or is full.
    pub fn add_token(
        &self,
        name: &str,
        scopes: Vec<Scope>,
        expires_at: Timestamp,
    ) -> Result<String, KeysError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > TOKEN_NAME_CHARS_MAX || !name.chars().all(is_plain) {
            return Err(KeysError::BadName(name.to_owned()));
        }
        let text = format!("{TOKEN_PREFIX}{}", random_text()?);
        self.add(Some(name.to_owned()), scopes, expires_at, &text)?;
        Ok(text)
    }

    fn add(
        &self,
        name: Option<String>,
        scopes: Vec<Scope>,
        expires_at: Timestamp,
        text: &str,
    ) -> Result<(), KeysError> {
        let created_at = Timestamp::now();
        let sha256 = Digest::of(text.as_bytes()).to_string();
        let key = Key { name, sha256, scopes, created_at, expires_at };
        self.change(|keys| {
            if let Some(name) =
                key.name.as_ref().filter(|name| keys.iter().any(|key| key.name.as_ref() == Some(name)))
            {
                return Err(KeysError::Taken(name.clone()));
            }
            if keys.len() >= KEYS_MAX {
                return Err(KeysError::Full);
            }
            keys.push(key);
            Ok(())
        })
    }

    /// The tokens that have not expired.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn tokens(&self) -> Result<Vec<Key>, KeysError> {
        Ok(self.live()?.into_iter().filter(|key| key.name.is_some()).collect())
    }

    /// Removes the token of this name. Whoever uses it is refused from now on.
    ///
    /// # Errors
    ///
    /// When there is none, or the file cannot be changed.
    pub fn revoke(&self, name: &str) -> Result<(), KeysError> {
        self.change(|keys| {
            let before = keys.len();
            keys.retain(|key| key.name.as_deref() != Some(name));
            if keys.len() == before { Err(KeysError::NoSuch(name.to_owned())) } else { Ok(()) }
        })
    }

    /// The token of this text, if it is one.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn token(&self, text: &str) -> Result<Option<Key>, KeysError> {
        if !text.starts_with(TOKEN_PREFIX) {
            return Ok(None);
        }
        let sha256 = Digest::of(text.as_bytes()).to_string();
        Ok(self.tokens()?.into_iter().find(|key| key.sha256 == sha256))
    }

    /// Uses up the sign-in key of this text: whether it was one. Of two that try at once, one is told so.
    ///
    /// # Errors
    ///
    /// When the file cannot be changed.
    pub fn use_sign_in(&self, text: &str) -> Result<bool, KeysError> {
        let sha256 = Digest::of(text.as_bytes()).to_string();
        let is_it = |key: &Key| key.name.is_none() && key.sha256 == sha256;
        // A wrong one changes nothing, and costs no write.
        if !self.live()?.iter().any(is_it) {
            return Ok(false);
        }
        self.change(|keys| {
            let before = keys.len();
            keys.retain(|key| !is_it(key));
            Ok(keys.len() != before)
        })
    }

    fn live(&self) -> Result<Vec<Key>, KeysError> {
        let now = Timestamp::now();
        Ok(self.read()?.keys.into_iter().filter(|key| key.expires_at > now).collect())
    }

    fn read(&self) -> Result<Kept, KeysError> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Kept::default()),
            Err(error) => return Err(self.io(error)),
        };
        let mut text = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut text).map_err(|error| self.io(error))?;
        let damaged = |source| KeysError::Damaged { path: self.path.clone(), source };
        serde_json::from_slice(&text).map_err(damaged)
    }

    /// Changes the keys that have not expired; the others go.
    fn change<T>(&self, change: impl FnOnce(&mut Vec<Key>) -> Result<T, KeysError>) -> Result<T, KeysError> {
        let io = |error| self.io(error);
        let create =
            |path: &Path| OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
        let lock = create(&self.path.with_extension("lock")).map_err(io)?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|error| io(error.into()))?;
        let mut kept = Kept { keys: self.live()? };
        let changed = change(&mut kept.keys)?;
        let text = serde_json::to_vec_pretty(&kept).map_err(|error| io(error.into()))?;
        let new = self.path.with_extension("new");
        let mut file = create(&new).map_err(io)?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(io)?;
        fs::rename(&new, &self.path).map_err(io)?;
        Ok(changed)
    }

    fn io(&self, source: io::Error) -> KeysError {
        KeysError::Io { path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use jiff::SignedDuration;

    use super::*;

    fn keys() -> (tempfile::TempDir, Keys) {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::at(&dir.path().join("desk-keys.json"));
        (dir, keys)
    }

    fn in_an_hour() -> Timestamp {
        Timestamp::now() + SignedDuration::from_hours(1)
    }

    #[test]
    fn a_link_signs_in_once_and_not_after_its_time() {
        let (_dir, keys) = keys();
        let key = keys.add_sign_in(in_an_hour()).unwrap();
        assert!(!keys.use_sign_in("another").unwrap());
        assert!(keys.use_sign_in(&key).unwrap());
        assert!(!keys.use_sign_in(&key).unwrap(), "once");
        let late = keys.add_sign_in(Timestamp::now()).unwrap();
        assert!(!keys.use_sign_in(&late).unwrap());
    }

    #[test]
    fn a_token_is_known_until_it_is_revoked_or_expires_and_its_text_is_nowhere() {
        let (dir, keys) = keys();
        let text = keys.add_token("ci", vec![Scope::Read], in_an_hour()).unwrap();
        let found = keys.token(&text).unwrap().unwrap();
        assert_eq!((found.name.as_deref(), &*found.scopes), (Some("ci"), &[Scope::Read][..]));
        assert!(!keys.use_sign_in(&text).unwrap(), "a token is no link");
        assert!(matches!(keys.add_token("ci", vec![], in_an_hour()), Err(KeysError::Taken(_))));
        for bad in ["", "a b", "../x", &"x".repeat(65)] {
            assert!(matches!(keys.add_token(bad, vec![], in_an_hour()), Err(KeysError::BadName(_))), "{bad}");
        }
        let path = dir.path().join("desk-keys.json");
        let secret = text.strip_prefix(TOKEN_PREFIX).unwrap();
        assert!(!fs::read_to_string(&path).unwrap().contains(secret), "only the digest is kept");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        keys.revoke("ci").unwrap();
        assert!(keys.token(&text).unwrap().is_none());
        assert!(matches!(keys.revoke("ci"), Err(KeysError::NoSuch(_))));
        let late = keys.add_token("late", vec![Scope::Read], Timestamp::now()).unwrap();
        assert!(keys.token(&late).unwrap().is_none() && keys.tokens().unwrap().is_empty());
    }

    #[test]
    fn there_is_room_for_so_many_keys_and_a_damaged_file_lets_nobody_in() {
        let (dir, keys) = keys();
        for _ in 0..KEYS_MAX {
            keys.add_sign_in(in_an_hour()).unwrap();
        }
        assert!(matches!(keys.add_sign_in(in_an_hour()), Err(KeysError::Full)));
        fs::write(dir.path().join("desk-keys.json"), "{}x").unwrap();
        assert!(matches!(keys.token("hsd_x"), Err(KeysError::Damaged { .. })));
        assert!(matches!(keys.use_sign_in("x"), Err(KeysError::Damaged { .. })));
    }
}
