//! Where a record is: a file, or a database server.
//!
//! Read from `--store`, from the environment and from settings, by the commands. Opens nothing, and shows no password.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use super::{PostgresUrl, UrlError};

/// The place of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A file, for the processes of one user on one machine.
    File(PathBuf),
    /// A PostgreSQL database, for a fleet.
    Postgres(PostgresUrl),
}

impl Location {
    /// The file, if it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Postgres(_) => None,
        }
    }

    /// What a command was given as its record.
    ///
    /// # Errors
    ///
    /// When it is a URL that cannot be one, or no text.
    pub fn named(named: &Path) -> Result<Self, UrlError> {
        match named.to_str() {
            Some(text) => text.parse(),
            None => Ok(Self::File(named.to_owned())),
        }
    }

    /// The same, with an absolute path.
    ///
    /// # Errors
    ///
    /// When the current directory is not known.
    pub fn absolute(self) -> io::Result<Self> {
        match self {
            Self::File(path) => Ok(Self::File(std::path::absolute(path)?)),
            Self::Postgres(_) => Ok(self),
        }
    }

    /// Whether there may be a record: not where there is no file. A server is asked later.
    pub fn may_exist(&self) -> bool {
        self.file().is_none_or(Path::exists)
    }

    /// The same, with a relative path seen from `dir`.
    #[must_use]
    pub fn seen_from(self, dir: &Path) -> Self {
        match self {
            Self::File(path) => Self::File(dir.join(path)),
            Self::Postgres(_) => self,
        }
    }
}

impl FromStr for Location {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        if PostgresUrl::is_one(text) {
            PostgresUrl::parse(text).map(Self::Postgres)
        } else {
            Ok(Self::File(text.into()))
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Postgres(url) => url.fmt(f),
        }
    }
}
