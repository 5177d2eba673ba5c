//! Where a record is: a file, or a database server.
//!
//! Read from `--store`, from the environment and from settings, by the commands. Opens nothing, and shows no password.

use std::{
    fmt,
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
