//! Where the demo keeps its files: a private directory that goes when the demo goes.
//!
//! Made by the demo, read by its agent. It never removes a directory that this process has not made itself.

use std::{
    env,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use crate::hold::HoldId;

/// The policy of the demo.
const POLICY: &str = include_str!("../../../policies/demo.yaml");

/// The demo's files.
#[derive(Clone, Debug)]
pub(super) struct Place {
    dir: PathBuf,
}

impl Place {
    /// The files in `dir`.
    pub(super) fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn policy(&self) -> PathBuf {
        self.dir.join("policy.yaml")
    }

    /// The record.
    pub(super) fn store(&self) -> PathBuf {
        self.dir.join("holdshort.db")
    }

    /// What the billing server has done.
    pub(super) fn ledger(&self) -> PathBuf {
        self.dir.join("ledger")
    }

    /// What the gate and the agent say on stderr.
    pub(super) fn log(&self) -> PathBuf {
        self.dir.join("log")
    }
}

/// A directory of the demo's own, closed to everybody else; removed with all that is in it when this is dropped.
#[derive(Debug)]
pub(super) struct OwnPlace(Place);

impl OwnPlace {
    /// Makes the directory in the usual one for temporary files, with the policy in it.
    ///
    /// # Errors
    ///
    /// When it cannot be made or written to.
    pub(super) fn make() -> io::Result<Self> {
        let name = HoldId::random().map_err(io::Error::other)?;
        let dir = env::temp_dir().join(format!("holdshort-demo-{name}"));
        // Not recursive: a directory that is there already is somebody else's.
        DirBuilder::new().mode(0o700).create(&dir)?;
        let place = Self(Place::at(dir));
        fs::write(place.0.policy(), POLICY)?;
        Ok(place)
    }
}

impl std::ops::Deref for OwnPlace {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.0
    }
}

impl Drop for OwnPlace {
    fn drop(&mut self) {
        // What cannot be removed now is for whoever cleans the directory of temporary files.
        let _ = fs::remove_dir_all(&self.0.dir);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_directory_is_private_and_leaves_nothing_behind() {
        let place = OwnPlace::make().unwrap();
        let dir = place.dir().to_owned();
        assert_eq!(dir.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert!(place.policy().exists());
        drop(place);
        assert!(!dir.exists());
    }
}
