//! Whether whoever asks on the control socket was started by the client whose calls are held.
//!
//! Used by `server` for every connection, before its first byte. To the kernel an agent's shell and its user's are one user; what tells
//! them apart is whose child each is. That is a speed bump and no boundary: a process that detaches itself has other ancestors.

use std::{ffi::OsString, fs, os::unix::ffi::OsStringExt, path::PathBuf};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, getppid, pidfd_open},
};

/// Ancestors that are looked at.
const GENERATIONS_MAX: usize = 256;

/// Shells: with a script they launch something, without one somebody sits at them.
const SHELLS: [&str; 6] = ["sh", "bash", "dash", "zsh", "fish", "ksh"];

/// What starts other programs and stays, by the beginnings of their names.
const LAUNCHERS: [&str; 5] = ["npm", "npx", "uvx", "pipx", "bunx"];

/// What starts everything there is: nobody's client.
const SERVICE_MANAGERS: [&str; 3] = ["systemd", "init", "launchd"];

/// The process that has started this gate to speak with a server: the agent, or the editor that it is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientProcess {
    pid: Pid,
    /// When it began, in ticks since the system did: a number is used again, a number with a time is not.
    began: u64,
}

/// What the kernel says of a process.
#[derive(Debug)]
struct Process {
    name: String,
    parent: Option<Pid>,
    began: u64,
}

impl Process {
    /// None, if there is no such process, or this user may not see it.
    fn read(pid: Pid) -> Option<Self> {
        Self::parse(&fs::read_to_string(proc_file(pid, "stat")).ok()?)
    }

    /// Reads a line of `proc_pid_stat(5)`. A name may have anything in it, also parentheses.
    fn parse(line: &str) -> Option<Self> {
        let (_, rest) = line.split_once('(')?;
        let (name, rest) = rest.rsplit_once(')')?;
        // The first one behind the name is the third of all.
        let mut fields = rest.split_ascii_whitespace();
        let parent = fields.nth(1)?.parse().ok()?;
        let began = fields.nth(17)?.parse().ok()?;
        Some(Self { name: name.to_owned(), parent: Pid::from_raw(parent), began })
    }
}

fn proc_file(pid: Pid, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{}/{name}", pid.as_raw_pid()))
}

/// What a process was started with, each word with a zero behind it.
fn command_line(pid: Pid) -> Vec<u8> {
    fs::read(proc_file(pid, "cmdline")).unwrap_or_default()
}

/// The arguments that a process was started with, without its own name.
fn arguments(pid: Pid) -> Vec<OsString> {
    let line = command_line(pid);
    let words = line.split(|&byte| byte == 0).skip(1).filter(|word| !word.is_empty());
    words.map(|word| OsString::from_vec(word.to_vec())).collect()
}

/// Whether a shell with these arguments runs a script or a command, and nobody sits at it.
fn has_script(arguments: &[OsString]) -> bool {
    arguments.iter().any(|argument| {
        let argument = argument.to_string_lossy();
        match argument.strip_prefix('-') {
            None => true,
            Some(options) => !options.starts_with('-') && options.contains('c'),
        }
    })
}

impl ClientProcess {
    /// Whoever has started this process, looked for above scripts and launchers, and above copies that a program has made of itself. None,
    /// if that is a person at a shell, or the system.
    pub fn of_this_process() -> Option<Self> {
        let mut pid = getppid()?;
        for _ in 0..GENERATIONS_MAX {
            let process = Process::read(pid)?;
            let name = &*process.name;
            let is_shell = SHELLS.contains(&name);
            if pid == Pid::INIT
                || SERVICE_MANAGERS.contains(&name)
                || is_shell && !has_script(&arguments(pid))
            {
                return None;
            }
            if !is_shell && !LAUNCHERS.iter().any(|launcher| name.starts_with(launcher)) {
                return Some(Self { pid, began: process.began }.original());
            }
            pid = process.parent?;
        }
        None
    }

    /// The first of the processes that run the same command line, each the child of the one before: a program that has forked is itself
    /// still.
    fn original(self) -> Self {
        let line = command_line(self.pid);
        let mut first = self;
        for _ in 0..GENERATIONS_MAX {
            let parent = Process::read(first.pid).and_then(|process| process.parent);
            match parent.and_then(|pid| Some((pid, Process::read(pid)?))) {
                Some((pid, above)) if command_line(pid) == line => first = Self { pid, began: above.began },
                _ => return first,
            }
        }
        first
    }

    /// Whether the process `peer` is this one, or was started by it or by what it has started. In doubt it was: also if it has gone
    /// since the kernel named it, and if this process cannot see it (`None`, or a number that is none here).
    pub(super) fn has_started(self, peer: Option<i32>) -> bool {
        let Some(peer) = peer.and_then(Pid::from_raw) else { return true };
        // As long as this is open and the process lives, nobody else has its number.
        let Ok(held) = pidfd_open(peer, PidfdFlags::empty()) else { return true };
        self.is_above(peer) || has_ended(&held)
    }

    fn is_above(self, peer: Pid) -> bool {
        let mut pid = peer;
        let Some(mut process) = Process::read(pid) else { return true };
        for _ in 0..GENERATIONS_MAX {
            if pid == self.pid && process.began == self.began {
                return true;
            }
            let Some(parent) = process.parent else { return false };
            match Process::read(parent) {
                Some(above) => (pid, process) = (parent, above),
                // It has ended just now, and its child has another parent; or it is a stranger's that is not shown.
                None => match Process::read(pid) {
                    Some(again) if again.parent != Some(parent) => process = again,
                    Some(_) => return false,
                    None => return true,
                },
            }
        }
        true
    }
}

/// Whether the process has ended.
fn has_ended(process: &impl std::os::fd::AsFd) -> bool {
    let mut polled = [PollFd::new(process, PollFlags::IN)];
    !matches!(poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0))
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn this() -> ClientProcess {
        let pid = rustix::process::getpid();
        ClientProcess { pid, began: Process::read(pid).unwrap().began }
    }

    /// A process that lives until its stdin is closed.
    fn child() -> Child {
        Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
    }

    fn number(child: &Child) -> Option<i32> {
        i32::try_from(child.id()).ok()
    }

    #[test]
    fn a_line_of_the_kernel_is_read_whatever_a_process_calls_itself() {
        let line = "7 (a) S 1 (b) S 41 7 7 0 -1 4194304 1 0 0 0 1 2 0 0 20 0 1 0 98765 1 1";
        let process = Process::parse(line).unwrap();
        assert_eq!((&*process.name, process.parent, process.began), ("a) S 1 (b", Pid::from_raw(41), 98765));
        for bad in ["", "7", "7 (a", "7 (a) S", "7 (a) S x 7 7", "7 (a) S 41 7 7 0 -1 4194304 1"] {
            assert!(Process::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_shell_at_which_somebody_sits_is_told_from_one_that_runs_a_script() {
        let given = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        for script in [&["-c", "holdshort run"][..], &["-lc", "x"], &["start.sh"], &["-e", "start.sh"]] {
            assert!(has_script(&given(script)), "{script:?}");
        }
        for person in [&[][..], &["-l"], &["-i"], &["--login"], &["--norc", "-i"]] {
            assert!(!has_script(&given(person)), "{person:?}");
        }
    }

    #[test]
    fn what_a_process_has_started_is_below_it_and_nothing_else() {
        let mut started = child();
        assert!(this().has_started(number(&started)), "its child");
        assert!(this().has_started(i32::try_from(std::process::id()).ok()), "itself");
        let parent = getppid().unwrap().as_raw_pid();
        assert!(!this().has_started(Some(parent)), "what has started it");
        let mut sibling = child();
        let pid = Pid::from_child(&started);
        let other = ClientProcess { pid, began: Process::read(pid).unwrap().began };
        assert!(!other.has_started(number(&sibling)), "what was started beside it");
        let reused = ClientProcess { began: other.began + 1, ..other };
        assert!(!reused.has_started(number(&started)), "another process that had the same number");
        for (process, why) in [(None, "not named"), (Some(0), "of another namespace")] {
            assert!(other.has_started(process), "{why}");
        }
        let gone = number(&sibling);
        sibling.kill().unwrap();
        sibling.wait().unwrap();
        assert!(other.has_started(gone), "nobody knows any more whose it was");
        started.kill().unwrap();
        started.wait().unwrap();
    }
}
