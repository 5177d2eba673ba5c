//! Where gates are found: directories, registrations, and what a dead process has left behind.
//!
//! Each running gate keeps a file in `<state>/gates/`, locked for as long as the process lives (the kernel lets go of the
//! lock however the process ends), which says where its control socket is. So whoever looks needs no configuration, also
//! when the gate was started by a client that passes on only part of the environment. Nothing here is ever removed that
//! is not ours: a socket is unlinked only if it is a socket, belongs to this user and its gate is dead.

use std::{
    env,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

/// Registrations that are looked at in one directory; more than that many live gates are not expected of one user.
const GATES_MAX: usize = 4096;

/// The longest registration that is read, in bytes.
const REGISTRATION_BYTES_MAX: u64 = 4096;

/// Bytes of a Unix socket's path that every system takes (108 on Linux, 104 elsewhere, with the final NUL).
const SOCKET_PATH_BYTES_MAX: usize = 103;

/// The record's file in the state directory.
const STORE_FILE: &str = "holdshort.db";

/// Something is wrong with a directory or a file that gates are found by.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// There is no home directory to work in.
    #[error("neither XDG_STATE_HOME nor HOME is an absolute path, so there is no place for the record")]
    NoHome,
    /// A directory cannot be used.
    #[error("cannot use `{}`", path.display())]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Somebody else could write into a directory that only we may write into.
    #[error("`{}` must belong to you and be closed to others (mode 0700); it is not used as it is", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
    },
    /// The socket's path is longer than systems take.
    #[error("`{}` is too long for a socket; set XDG_RUNTIME_DIR to a shorter directory", path.display())]
    TooLong {
        /// The path.
        path: PathBuf,
    },
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> PlaceError {
    let path = path.to_owned();
    |source| PlaceError::Io { path, source }
}

/// An absolute path from the environment; a relative one is ignored, as the XDG specification says.
fn absolute(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// The directories that may hold this user's records and registrations, the one to use first. The second differs only
/// where `XDG_STATE_HOME` is set: a client may have started a gate without it.
pub fn state_dirs() -> Vec<PathBuf> {
    let named = absolute("XDG_STATE_HOME");
    let usual = absolute("HOME").map(|home| home.join(".local/state"));
    let mut dirs: Vec<_> = [named, usual].into_iter().flatten().map(|dir| dir.join("holdshort")).collect();
    dirs.dedup();
    dirs
}

/// The record where no `--store` is given.
///
/// # Errors
///
/// When there is no home directory.
pub fn default_store() -> Result<PathBuf, PlaceError> {
    state_dirs().into_iter().next().map(|dir| dir.join(STORE_FILE)).ok_or(PlaceError::NoHome)
}

/// The directory of the policy where no `--policy` is given: `$XDG_CONFIG_HOME/holdshort` or `~/.config/holdshort`.
pub fn config_dir() -> Option<PathBuf> {
    absolute("XDG_CONFIG_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".config")))
        .map(|dir| dir.join("holdshort"))
}

/// Makes sure that `path` is a directory of this user that is closed to everybody else.
///
/// # Errors
///
/// When it cannot be made, or is not so.
pub fn private_dir(path: &Path) -> Result<(), PlaceError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error(path))?;
    // Not through a symbolic link that somebody else could turn round.
    let metadata = fs::symlink_metadata(path).map_err(io_error(path))?;
    let ours = metadata.uid() == rustix::process::getuid().as_raw();
    if !metadata.is_dir() || !ours || metadata.mode() & 0o077 != 0 {
        return Err(PlaceError::Open { path: path.to_owned() });
    }
    Ok(())
}

/// Where this process's control socket goes: `$XDG_RUNTIME_DIR/holdshort`, the runtime directory of this user where the
/// variable is missing (clients do not pass it on), or the directory of the record.
///
/// # Errors
///
/// When no private directory can be had.
fn socket_dir(state: &Path) -> Result<PathBuf, PlaceError> {
    let run_user = PathBuf::from(format!("/run/user/{}", rustix::process::getuid().as_raw()));
    let runtime = absolute("XDG_RUNTIME_DIR").unwrap_or(run_user);
    let dir = if runtime.is_dir() { runtime.join("holdshort") } else { state.join("run") };
    match private_dir(&dir) {
        Ok(()) => Ok(dir),
        Err(_) => {
            let dir = state.join("run");
            private_dir(&dir)?;
            Ok(dir)
        }
    }
}

/// What a registration says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registered {
    /// The gate's random name.
    pub instance: String,
    /// Its process.
    pub pid: u32,
    /// Where it listens.
    pub socket: PathBuf,
}

/// This process's registration; gone when it is dropped, void when the process dies.
#[derive(Debug)]
pub struct Registration {
    files: Vec<(PathBuf, File)>,
    /// Where the control socket belongs.
    pub socket: PathBuf,
}

/// Registers this process as the gate `instance`: in the usual state directory, where it is looked for, and beside its
/// record, where others that use the same record see whether it lives.
///
/// # Errors
///
/// When a private directory cannot be had or the registration cannot be written.
pub fn register(instance: &str, store: &Path) -> Result<Registration, PlaceError> {
    let state = state_dirs().into_iter().next().ok_or(PlaceError::NoHome)?;
    private_dir(&state)?;
    let socket = socket_dir(&state)?.join(format!("{instance}.sock"));
    if socket.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        return Err(PlaceError::TooLong { path: socket });
    }
    let mut registration = Registration { files: Vec::new(), socket };
    let mut dirs = vec![state.join("gates"), gates_beside(store)];
    dirs.dedup();
    for dir in dirs {
        private_dir(&dir)?;
        let path = dir.join(instance);
        let file = write_registration(&path, instance, &registration.socket).map_err(io_error(&path))?;
        registration.files.push((path, file));
    }
    Ok(registration)
}

/// The registrations of the gates that use `store`. Beside the usual record, that is where gates are looked for.
fn gates_beside(store: &Path) -> PathBuf {
    let dir = store.parent().unwrap_or(Path::new("."));
    match store.file_name() {
        Some(name) if name != STORE_FILE => dir.join(format!("{}.gates", name.to_string_lossy())),
        _ => dir.join("gates"),
    }
}

fn write_registration(path: &Path, instance: &str, socket: &Path) -> io::Result<File> {
    let registered =
        Registered { instance: instance.to_owned(), pid: std::process::id(), socket: socket.to_owned() };
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    // Locked before it says anything: an unlocked registration with words in it is that of a dead gate. Whoever looks
    // at it just now has it locked for a moment only.
    flock(&file, FlockOperation::LockExclusive)?;
    file.write_all(&serde_json::to_vec(&registered)?)?;
    Ok(file)
}

impl Drop for Registration {
    fn drop(&mut self) {
        remove_own_socket(&self.socket);
        for (path, _) in &self.files {
            let _ = fs::remove_file(path);
        }
    }
}

/// Unlinks `path` if it is a socket of this user, and nothing else.
fn remove_own_socket(path: &Path) {
    let ours = |metadata: &fs::Metadata| {
        metadata.file_type().is_socket() && metadata.uid() == rustix::process::getuid().as_raw()
    };
    if fs::symlink_metadata(path).is_ok_and(|metadata| ours(&metadata)) {
        let _ = fs::remove_file(path);
    }
}

/// The gates of this user that live, in all places where they may have registered.
pub fn live_gates() -> Vec<Registered> {
    let mut gates = Vec::new();
    for dir in state_dirs() {
        for (_, life) in registrations(&dir.join("gates")) {
            if let Life::Alive(Some(registered)) = life {
                gates.push(registered);
            }
        }
    }
    gates.sort_by(|one, other| one.instance.cmp(&other.instance));
    gates.dedup_by(|one, other| one.instance == other.instance);
    gates
}

/// The names of the gates on `store` that live.
pub fn live_instances(store: &Path) -> Vec<String> {
    let alive = |(path, life): (PathBuf, Life)| match life {
        Life::Alive(_) => path.file_name().map(|name| name.to_string_lossy().into_owned()),
        Life::Dead(_) => None,
    };
    registrations(&gates_beside(store)).into_iter().filter_map(alive).collect()
}

/// Clears away what dead gates have left in this user's directories and beside `store`.
pub fn clear_dead(store: &Path) {
    let dirs = state_dirs().into_iter().map(|dir| dir.join("gates")).chain([gates_beside(store)]);
    for (path, life) in dirs.flat_map(|dir| registrations(&dir)) {
        if let Life::Dead(registered) = life {
            if let Some(registered) = registered {
                remove_own_socket(&registered.socket);
            }
            let _ = fs::remove_file(path);
        }
    }
}

/// Whether the process behind a registration lives, and what it says.
enum Life {
    Alive(Option<Registered>),
    Dead(Option<Registered>),
}

fn registrations(dir: &Path) -> Vec<(PathBuf, Life)> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.take(GATES_MAX).filter_map(Result::ok).map(|entry| entry.path());
    paths.filter_map(|path| read_registration(&path).map(|life| (path, life)).ok()).collect()
}

fn read_registration(path: &Path) -> io::Result<Life> {
    let file = OpenOptions::new().read(true).custom_flags(no_follow()).open(path)?;
    let mut text = String::new();
    (&file).take(REGISTRATION_BYTES_MAX).read_to_string(&mut text)?;
    let registered = serde_json::from_str(&text).ok();
    Ok(match flock(&file, FlockOperation::NonBlockingLockShared) {
        // One that has said nothing yet is only just being written.
        Ok(()) if text.is_empty() => Life::Alive(None),
        Ok(()) => Life::Dead(registered),
        Err(_) => Life::Alive(registered),
    })
}

/// `O_NOFOLLOW`: a registration is a file, never a link to one.
fn no_follow() -> i32 {
    i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0)
}
