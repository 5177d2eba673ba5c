//! Where gates are found: directories, registrations, and what a dead process has left behind.
//!
//! Each running gate keeps two files, both locked for as long as the process lives (the kernel lets go of a lock however
//! the process ends). One in `<state>/gates/` says where its control socket is, so that whoever looks needs no
//! configuration, also when the gate was started by a client that passes on only part of the environment. One beside its
//! record, in `<record's file>.gates/`, shows to the others that use the same record that it lives. A desk keeps one in
//! `<state>/desks/`, which says its URL to whoever makes links to it.
//!
//! Nothing is ever removed that is not ours: a registration only out of a private directory of this user, under the name
//! of a gate, and saying that name itself; a socket only where this program puts sockets, under its dead gate's name.

use std::{
    env,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use rustix::fs::{FlockOperation, OFlags, flock};
use serde::{Deserialize, Serialize};

use crate::hold::HoldId;

/// Registrations that are looked at in one directory; more than that many live gates are not expected of one user.
const GATES_MAX: usize = 4096;

/// The longest registration that is read, in bytes.
const REGISTRATION_BYTES_MAX: u64 = 4096;

/// How old an empty registration has to be before it counts as one whose gate died while it wrote it. Writing takes
/// microseconds.
const EMPTY_DEAD_AFTER: Duration = Duration::from_secs(60);

/// Bytes of a Unix socket's path that every system takes (108 on Linux, 104 elsewhere, with the final NUL).
const SOCKET_PATH_BYTES_MAX: usize = 103;

/// The directory in the state directory in which desks say where they are.
const DESKS: &str = "desks";

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
    check_private(path)
}

/// The same for a directory that is not made if it is missing.
///
/// # Errors
///
/// When it is missing, or is not so.
pub fn check_private(path: &Path) -> Result<(), PlaceError> {
    // Not through a symbolic link that somebody else could turn round.
    let metadata = fs::symlink_metadata(path).map_err(io_error(path))?;
    if !metadata.is_dir() || !is_own(&metadata) || metadata.mode() & 0o077 != 0 {
        return Err(PlaceError::Open { path: path.to_owned() });
    }
    Ok(())
}

fn is_own(metadata: &fs::Metadata) -> bool {
    metadata.uid() == rustix::process::getuid().as_raw()
}

/// The runtime directories that sockets may be in, the one to use first: `$XDG_RUNTIME_DIR`, and the one that this user
/// usually has, for where clients do not pass the variable on.
fn runtime_dirs() -> Vec<PathBuf> {
    let usual = PathBuf::from(format!("/run/user/{}", rustix::process::getuid().as_raw()));
    absolute("XDG_RUNTIME_DIR").into_iter().chain([usual]).map(|dir| dir.join("holdshort")).collect()
}

/// Where this process's control socket goes: `$XDG_RUNTIME_DIR/holdshort`, the runtime directory of this user where the
/// variable is missing, or the directory of the record.
///
/// # Errors
///
/// When no private directory can be had.
fn socket_dir(state: &Path) -> Result<PathBuf, PlaceError> {
    let runtime = runtime_dirs().into_iter().next();
    // A runtime directory is the system's to make, not ours.
    let runtime = runtime.filter(|dir| dir.parent().is_some_and(Path::is_dir));
    if let Some(dir) = runtime.filter(|dir| private_dir(dir).is_ok()) {
        return Ok(dir);
    }
    let dir = state.join("run");
    private_dir(&dir)?;
    Ok(dir)
}

/// Every directory that [`socket_dir`] could have given to a gate of this user.
fn socket_dirs() -> impl Iterator<Item = PathBuf> {
    runtime_dirs().into_iter().chain(state_dirs().into_iter().map(|state| state.join("run")))
}

/// What a registration says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registered {
    /// The gate's random name.
    pub instance: String,
    /// Its process.
    pub pid: u32,
    /// Where it listens: a gate's socket, a desk's URL; empty in what only shows that it lives.
    pub socket: PathBuf,
}

/// A locked file that says that this process lives; gone when it is dropped, void when the process dies.
#[derive(Debug)]
struct Mark {
    path: PathBuf,
    _locked: File,
}

impl Drop for Mark {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Shows that this process lives to the others that use its record, until it is dropped.
#[derive(Debug)]
pub struct Liveness {
    _mark: Mark,
}

/// Where this process is found, until it is dropped. Its socket goes with it.
#[derive(Debug)]
pub struct Registration {
    _mark: Mark,
    instance: String,
    /// Where the control socket belongs.
    pub socket: PathBuf,
}

impl Drop for Registration {
    fn drop(&mut self) {
        remove_socket(&self.socket, &self.instance);
    }
}

/// Shows that the gate `instance` of this process lives, beside its record. Whoever holds a call without this is taken for
/// dead, and its calls with it.
///
/// # Errors
///
/// When the directory beside the record is not private or cannot be written.
pub fn show_life(instance: &str, store: &Path) -> Result<Liveness, PlaceError> {
    // Nobody connects by this file: it says no socket.
    let mark = write_mark(&gates_beside(store), instance, Path::new(""))?;
    Ok(Liveness { _mark: mark })
}

/// Registers this process as the gate `instance` in the usual state directory, where gates are looked for.
///
/// # Errors
///
/// When a private directory cannot be had or the registration cannot be written.
pub fn register(instance: &str) -> Result<Registration, PlaceError> {
    let state = state_dirs().into_iter().next().ok_or(PlaceError::NoHome)?;
    private_dir(&state)?;
    let socket = socket_dir(&state)?.join(socket_name(instance));
    if socket.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        return Err(PlaceError::TooLong { path: socket });
    }
    let mark = write_mark(&state.join("gates"), instance, &socket)?;
    Ok(Registration { _mark: mark, instance: instance.to_owned(), socket })
}

/// Where the desk of this process is found, until it is dropped.
#[derive(Debug)]
pub struct DeskShown {
    _mark: Mark,
}

/// Shows that a desk of this process is at `url`, beside its keys in the state directory `state`.
///
/// # Errors
///
/// When there are no random numbers, or the directory is not private or cannot be written.
pub fn show_desk(state: &Path, url: &str) -> Result<DeskShown, PlaceError> {
    clear_dead(None);
    let dir = state.join(DESKS);
    let name = HoldId::random().map_err(|error| io_error(&dir)(io::Error::other(error)))?;
    Ok(DeskShown { _mark: write_mark(&dir, &name.to_string(), Path::new(url))? })
}

/// The URLs of the desks that live and keep their keys in the state directory `state`. None where others could have written them:
/// what opens a desk is not for whoever listens elsewhere.
pub fn live_desks(state: &Path) -> Vec<String> {
    let dir = state.join(DESKS);
    if check_private(&dir).is_err() {
        return Vec::new();
    }
    let found = registrations(&dir).into_iter().filter(|found| found.life == Life::Alive);
    let urls = found.filter_map(|found| found.registered?.socket.into_os_string().into_string().ok());
    // They are shown on terminals.
    let mut urls: Vec<_> = urls.filter(|url| url.bytes().all(|byte| byte.is_ascii_graphic())).collect();
    urls.sort_unstable();
    urls.dedup();
    urls
}

fn socket_name(instance: &str) -> String {
    format!("{instance}.sock")
}

/// Where the gates that use `store` show that they live. Named after the file, so that it is nobody else's directory.
fn gates_beside(store: &Path) -> PathBuf {
    let mut name = store.file_name().unwrap_or_default().to_owned();
    name.push(".gates");
    store.with_file_name(name)
}

/// Whether `store` is an empty file, and no gate has ever shown beside it that it lives: so nobody is about to make a record of it.
pub fn is_no_record_yet(store: &Path) -> bool {
    store.metadata().is_ok_and(|found| found.len() == 0) && !gates_beside(store).exists()
}

fn write_mark(dir: &Path, instance: &str, socket: &Path) -> Result<Mark, PlaceError> {
    private_dir(dir)?;
    let path = dir.join(instance);
    let registered =
        Registered { instance: instance.to_owned(), pid: std::process::id(), socket: socket.to_owned() };
    let text = serde_json::to_vec(&registered).map_err(|error| io_error(&path)(error.into()))?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(io_error(&path))?;
    // From here on the file goes with the mark, also when it cannot be written.
    let mark = Mark { path, _locked: file };
    let mut file = &mark._locked;
    // Locked before it says anything: an unlocked registration with words in it is that of a dead gate. Whoever looks
    // at it just now has it locked for a moment only.
    flock(file, FlockOperation::LockExclusive).map_err(|error| io_error(&mark.path)(error.into()))?;
    file.write_all(&text).map_err(io_error(&mark.path))?;
    Ok(mark)
}

/// Unlinks `path` if it is the socket of this user's gate `instance` in a place where this program puts sockets.
fn remove_socket(path: &Path, instance: &str) {
    let is_named = path.file_name().is_some_and(|name| name == socket_name(instance).as_str());
    let is_placed = path
        .parent()
        .is_some_and(|parent| socket_dirs().any(|dir| dir == parent) && check_private(parent).is_ok());
    let is_own_socket = |metadata: &fs::Metadata| metadata.file_type().is_socket() && is_own(metadata);
    if is_named && is_placed && fs::symlink_metadata(path).is_ok_and(|metadata| is_own_socket(&metadata)) {
        let _ = fs::remove_file(path);
    }
}

/// The gates of this user that live, in all places where they may have registered.
pub fn live_gates() -> Vec<Registered> {
    let found = state_dirs().into_iter().flat_map(|dir| registrations(&dir.join("gates")));
    let mut gates: Vec<_> =
        found.filter(|found| found.life == Life::Alive).filter_map(|found| found.registered).collect();
    gates.sort_by(|one, other| one.instance.cmp(&other.instance));
    gates.dedup_by(|one, other| one.instance == other.instance);
    gates
}

/// The same, but only those on the record in the file `store`, if one is named.
pub fn live_gates_on(store: Option<&Path>) -> Vec<Registered> {
    let mut gates = live_gates();
    if let Some(store) = store {
        let on_it = live_instances(store);
        gates.retain(|gate| on_it.contains(&gate.instance));
    }
    gates
}

/// Whether the gate that has registered so lives still.
pub fn is_live(registered: &Registered) -> bool {
    live_gates().iter().any(|live| live.instance == registered.instance)
}

/// How many gates have died and left their registrations in this user's state directories.
pub fn dead_gates() -> usize {
    let found = state_dirs().into_iter().flat_map(|dir| registrations(&dir.join("gates")));
    found.filter(|found| found.life == Life::Dead && found.is_own).count()
}

/// The names of the gates on `store` that live.
pub fn live_instances(store: &Path) -> Vec<String> {
    let found = registrations(&gates_beside(store)).into_iter();
    found.filter(|found| found.life == Life::Alive).map(|found| found.instance).collect()
}

/// Whether the gate `instance` on `store` is dead for certain. In doubt it lives: only a dead gate's calls may be ended.
pub fn is_dead(store: &Path, instance: &str) -> bool {
    let dir = gates_beside(store);
    // No gate has another name, so none is there that could live.
    let Some(name) = gate_name(instance) else { return true };
    match check_private(&dir).map(|()| look(&dir.join(&name), &name)) {
        Ok(Ok(found)) => found.is_some_and(|found| found.life == Life::Dead),
        Ok(Err(error)) => error.kind() == io::ErrorKind::NotFound,
        Err(_) => false,
    }
}

/// Clears away what dead gates and desks have left in this user's directories, and gates beside `store`, where that is a file.
pub fn clear_dead(store: Option<&Path>) {
    let own = state_dirs().into_iter().flat_map(|dir| [dir.join("gates"), dir.join(DESKS)]);
    let dirs = own.chain(store.map(gates_beside));
    for found in dirs.filter(|dir| check_private(dir).is_ok()).flat_map(|dir| registrations(&dir)) {
        if found.life == Life::Dead && found.is_own {
            if let Some(registered) = &found.registered {
                remove_socket(&registered.socket, &found.instance);
            }
            let _ = fs::remove_file(found.path);
        }
    }
}

/// Whether the process behind a registration lives.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    Alive,
    Dead,
}

/// A registration.
struct Found {
    path: PathBuf,
    instance: String,
    life: Life,
    is_own: bool,
    registered: Option<Registered>,
}

/// `name` if it is one that a gate can have: a random one, in the only way in which it is written.
fn gate_name(name: &str) -> Option<String> {
    HoldId::from_str(name).ok().map(|id| id.to_string()).filter(|written| written == name)
}

fn registrations(dir: &Path) -> Vec<Found> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let named = entries.filter_map(Result::ok).filter_map(|entry| {
        let name = gate_name(entry.file_name().to_str()?)?;
        look(&entry.path(), &name).ok()?
    });
    named.take(GATES_MAX).collect()
}

/// What the registration at `path` of the gate `instance` shows. None if the file is none: something else is left alone.
fn look(path: &Path, instance: &str) -> io::Result<Option<Found>> {
    // A registration is a file, never a link to one; and opening a pipe must not wait for whoever writes into it.
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or(0);
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(None);
    }
    let is_locked = flock(&file, FlockOperation::NonBlockingLockShared).is_err();
    let mut text = Vec::new();
    (&file).take(REGISTRATION_BYTES_MAX).read_to_end(&mut text)?;
    let registered: Option<Registered> = serde_json::from_slice(&text).ok();
    let registered = registered.filter(|registered| registered.instance == instance);
    let is_new = metadata.modified()?.elapsed().is_ok_and(|age| age < EMPTY_DEAD_AFTER);
    let life = match (is_locked, text.is_empty(), &registered) {
        (true, ..) => Life::Alive,
        // One that has said nothing yet may only just be being written.
        (false, true, _) => {
            if is_new {
                Life::Alive
            } else {
                Life::Dead
            }
        }
        (false, false, Some(_)) => Life::Dead,
        (false, false, None) => return Ok(None),
    };
    let (path, instance, is_own) = (path.to_owned(), instance.to_owned(), is_own(&metadata));
    Ok(Some(Found { path, instance, life, is_own, registered }))
}
