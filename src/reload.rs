//! Keeps a gate's policy in step with its files: read again when they change, or when an operator says so.
//!
//! Started by the commands that have a gate; asked by `control`. Only a policy without mistakes comes into force, as a whole;
//! otherwise the last good one stays. It reads files and never decides: what waits is the gate's, and keeps what it waits for.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    },
    thread,
    time::Duration,
};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use crate::{
    digest::Digest,
    gate::Gate,
    hold::Assurance,
    policy::{Diagnostic, Policy, PolicyErrors, Severity, Source},
    reachable,
};

/// Who reloads when a file has changed.
pub const WHO_FILES: &str = "gate:files";

/// How long the files have to be left alone before they are read: editors write in several steps.
const QUIET: Duration = Duration::from_millis(150);

/// The longest that changes without end put off reading.
const PATIENCE: Duration = Duration::from_secs(2);

/// The most of a refusal that is kept in the record, in characters.
const REASON_CHARS_MAX: usize = 500;

/// A policy that has come into force, or was in force already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// Its digest.
    pub digest: Digest,
    /// How many rules it has.
    pub rules: usize,
    /// Whether it is another one than before.
    pub changed: bool,
}

/// Finds the files of the policy: those that were named, or the usual ones as they are now.
pub type FindFiles = Box<dyn Fn() -> Vec<PathBuf> + Send + Sync>;

/// The files of a gate's policy.
pub struct PolicyFiles {
    gate: Arc<Gate>,
    find: FindFiles,
    deployed: Assurance,
    /// One reads at a time, so that an older text never comes after a newer.
    turn: Mutex<()>,
}

impl std::fmt::Debug for PolicyFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PolicyFiles").field("files", &(self.find)()).finish_non_exhaustive()
    }
}

/// Watches the files until it is dropped.
#[derive(Debug)]
pub struct Watching {
    _watcher: RecommendedWatcher,
}

impl PolicyFiles {
    /// The files that `find` gives, for `gate`, which is `deployed` so.
    pub fn new(gate: Arc<Gate>, find: FindFiles, deployed: Assurance) -> Self {
        Self { gate, find, deployed, turn: Mutex::new(()) }
    }

    /// Reads the files and puts what they say into force. `who` asked for it, for the record.
    ///
    /// # Errors
    ///
    /// With all that is wrong in them; then nothing has changed.
    pub fn reload(&self, who: &str) -> Result<Reloaded, PolicyErrors> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        match load(&(self.find)(), self.deployed) {
            Ok(policy) => {
                let (digest, rules) = (policy.digest(), policy.rules().len());
                let changed = self.gate.replace_policy(policy, who);
                if changed {
                    tracing::warn!(who, %digest, rules, "the policy has changed");
                }
                Ok(Reloaded { digest, rules, changed })
            }
            Err(errors) => {
                tracing::error!(
                    who,
                    "the changed policy has mistakes and is not used; the last good one stays\n{errors}"
                );
                self.gate.policy_refused(&summary(&errors), who);
                Err(errors)
            }
        }
    }

    /// Reloads whenever the files change, in a thread of its own.
    ///
    /// # Errors
    ///
    /// When the system cannot watch them.
    pub fn watch(self: &Arc<Self>) -> notify::Result<Option<Watching>> {
        let mut places: Vec<PathBuf> = (self.find)().iter().filter_map(|path| watched(path)).collect();
        places.sort();
        places.dedup();
        if places.is_empty() {
            return Ok(None);
        }
        let (tell, told) = mpsc::sync_channel(1);
        let mut watcher = notify::recommended_watcher(move |event| changed(&event, &tell))?;
        for place in &places {
            watcher.watch(place, RecursiveMode::NonRecursive)?;
        }
        let files = Arc::clone(self);
        thread::Builder::new().name("holdshort-policy".to_owned()).spawn(move || files.serve(&told))?;
        Ok(Some(Watching { _watcher: watcher }))
    }

    /// Reads whenever it is told that something has changed and has been left alone since; ends with the watcher.
    fn serve(&self, told: &Receiver<()>) {
        let mut seen = Seen::default();
        while told.recv().is_ok() {
            let mut waited = Duration::ZERO;
            while waited < PATIENCE {
                match told.recv_timeout(QUIET) {
                    Ok(()) => waited += QUIET,
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
            if seen.is_news(Policy::digest_of_files(&(self.find)())) {
                // Whatever is wrong has been told and recorded.
                let _ = self.reload(WHO_FILES);
            }
        }
    }
}

/// What the files said when they were looked at last. Much else may change in their directory, and what is wrong with a policy is
/// told and recorded once.
#[derive(Default)]
struct Seen(Option<Option<Digest>>);

impl Seen {
    /// Whether the files, of this digest or unreadable, are other than last time.
    fn is_news(&mut self, now: Option<Digest>) -> bool {
        self.0.replace(now) != Some(now)
    }
}

/// The policy in `paths` for a gate that is `deployed` so; the one that holds everything where there are none.
///
/// # Errors
///
/// See [`Policy::load`]. Where agents are said to be out of reach, also if other users can change the files (P0009).
pub fn load(paths: &[PathBuf], deployed: Assurance) -> Result<Policy, PolicyErrors> {
    if paths.is_empty() {
        return Ok(Policy::hold_everything());
    }
    if deployed >= Assurance::L2 {
        out_of_reach(paths)?;
    }
    Policy::load(paths)
}

/// Refuses a policy that other users can change.
fn out_of_reach(paths: &[PathBuf]) -> Result<(), PolicyErrors> {
    let found = reachable::with_entries(paths)
        .into_iter()
        .find_map(|file| Some((reachable::by_others(&file)?, file)));
    let Some((why, file)) = found else { return Ok(()) };
    let source = Arc::new(Source { name: file.display().to_string(), text: String::new() });
    let told = format!("other users of this machine can change the policy: {why}");
    let hint = "give it to this user or root, and take the right to write away from others".to_owned();
    Err(PolicyErrors::new(vec![Diagnostic::error("P0009", &source, 0..0, told).hint(hint)]))
}

/// The directory to watch for `path`: files are mostly replaced, and a watch on the old one would see nothing more.
fn watched(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    if path.is_dir() { Some(path) } else { path.parent().map(Path::to_owned) }
}

/// Something near the files has changed. Reading a file is no change, else reading would never end.
fn changed(event: &notify::Result<notify::Event>, tell: &SyncSender<()>) {
    let is_change = match event {
        Ok(event) => matches!(event.kind, EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_)),
        Err(error) => {
            tracing::warn!(%error, "the policy's files may have changed");
            true
        }
    };
    if is_change {
        // Full means that it is told already.
        let _ = tell.try_send(());
    }
}

/// The first mistake in one line, and how many more there are.
fn summary(errors: &PolicyErrors) -> String {
    let mut found = errors.diagnostics().iter().filter(|found| found.severity() == Severity::Error);
    let first =
        found.next().map_or_else(String::new, |first| format!("{}: {}", first.code(), first.message()));
    let more = found.count();
    let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
    let first: String = first.chars().take(REASON_CHARS_MAX).collect();
    format!("{first}{more}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_else_changes_beside_the_files_is_no_news() {
        let (one, other) = (Digest::of(b"one"), Digest::of(b"other"));
        let mut seen = Seen::default();
        let looks = [Some(one), Some(one), None, None, Some(one), Some(other), Some(other)];
        assert_eq!(looks.map(|now| seen.is_news(now)), [true, false, true, false, true, true, false]);
    }
}
