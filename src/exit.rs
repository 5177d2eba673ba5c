//! What the program's exit code says. Part of the command line's contract, printed by `--help`.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It did what was asked.
    Done,
    /// It failed.
    Failed,
    /// The command line, the configuration or the policy is wrong.
    Usage,
    /// A person, the policy or the gate said no.
    Refused,
    /// The hold has ended already, or there is none.
    Gone,
    /// No gate runs that could be reached, or one that runs does not answer.
    NoGate,
    /// `run`: the server's own code, or 128 plus the number of the signal that ended it.
    Server(u8),
}

/// The exit codes as `--help` shows them.
pub const HELP: &str = "Exit codes: 0 done; 1 failed; 2 usage, configuration or policy; 3 refused; 4 expired or not \
found; 5 no gate reachable, or not all that run. `run` returns the server's own code, or 128+n for a signal.";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Refused => 3,
            Exit::Gone => 4,
            Exit::NoGate => 5,
            Exit::Server(code) => code,
        })
    }
}
