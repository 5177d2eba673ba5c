//! Who else can change a file: whether what a gate believes is out of the reach of other users.
//!
//! Used by `reload` and `serve`, which refuse what a level does not allow, and by `doctor`, which says why. Looks, and changes nothing.

use std::{
    fs::{self, Metadata},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// The bits of a mode that let the group or everybody write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// The bit of a directory in which each user can only remove what is theirs.
const STICKY: u32 = 0o1000;

/// Why another user than this one and root could replace what is at `path`, in words. None: nobody else can. What does not exist is
/// judged by where it would be.
pub(crate) fn by_others(path: &Path) -> Option<String> {
    // As it is written, and where it leads: either could be replaced.
    let written = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let places = [Some(written), fs::canonicalize(path).ok()];
    places.into_iter().flatten().find_map(|place| place.ancestors().find_map(changeable))
}

fn changeable(place: &Path) -> Option<String> {
    let found = fs::symlink_metadata(place).ok()?;
    let who = why(&found, rustix::process::getuid().as_raw())?;
    Some(format!("`{}` {who}", place.display()))
}

fn why(found: &Metadata, own: u32) -> Option<&'static str> {
    if found.uid() != own && found.uid() != 0 {
        return Some("belongs to another user");
    }
    // A link itself has no mode.
    let is_writable = !found.is_symlink() && found.mode() & WRITABLE_BY_OTHERS != 0;
    let is_shared = found.is_dir() && found.mode() & STICKY != 0;
    (is_writable && !is_shared).then_some("can be written by other users")
}

/// `paths`, and what is in those that are directories.
pub(crate) fn with_entries(paths: &[PathBuf]) -> Vec<PathBuf> {
    let inside =
        |path: &PathBuf| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    paths.iter().cloned().chain(paths.iter().flat_map(inside)).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_others_can_write_or_replace_is_named() {
        let home = tempfile::tempdir().unwrap();
        let (dir, file) = (home.path().join("d"), home.path().join("d/policy.yaml"));
        fs::create_dir(&dir).unwrap();
        fs::write(&file, "").unwrap();
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        set(&dir, 0o755);
        set(&file, 0o644);
        assert_eq!(by_others(&file), None);
        set(&file, 0o664);
        assert!(by_others(&file).unwrap().contains("policy.yaml"), "its group can write it");
        set(&file, 0o600);
        set(&dir, 0o777);
        assert!(by_others(&file).unwrap().contains("/d`"), "it can be replaced");
        assert!(by_others(&dir.join("none")).is_some(), "and so can what is not there yet");
        set(&dir, 0o1777);
        assert_eq!(by_others(&file), None, "but not where each user has their own");
        let link = home.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        set(&dir, 0o777);
        assert!(by_others(&link).is_some(), "where it leads counts too");
    }
}
