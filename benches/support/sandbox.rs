//! A place of its own for what a bench starts, and the policies that it starts it with.
//!
//! Used by the benches that run the program itself. Nothing of the person who runs them is read or written.

use std::{
    fs::{self, DirBuilder, File},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A place of its own for everything that `holdshort` keeps: settings, records, sockets. Gone when dropped.
pub(crate) struct Sandbox(tempfile::TempDir);

/// Allows every call, by a rule as people write it.
pub(crate) const ALLOW_ALL: &str = "\
version: 1
default: hold
rules:
  - name: everything
    tool: \"*\"
    action: allow
";

/// Holds every call.
pub(crate) const HOLD_ALL: &str = "version: 1\ndefault: hold\n";

impl Sandbox {
    pub(crate) fn new(policy: &str) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("holdshort-bench-").tempdir()?;
        for name in ["home", "state", "runtime", "config"] {
            DirBuilder::new().mode(0o700).create(directory.path().join(name))?;
        }
        let sandbox = Self(directory);
        fs::write(sandbox.policy(), policy)?;
        Ok(sandbox)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// The policy. Its directory is watched, so nothing else may be written there, as with a user's own settings.
    pub(crate) fn policy(&self) -> PathBuf {
        self.path().join("config/policy.yaml")
    }

    /// Where `holdshort` keeps its record.
    pub(crate) fn record(&self) -> PathBuf {
        self.path().join("state/record.db")
    }

    fn errors(&self) -> PathBuf {
        self.path().join("stderr.txt")
    }

    /// Gives `command` pipes, and this place instead of the user's own.
    pub(crate) fn confine(&self, command: &mut Command) -> anyhow::Result<()> {
        let errors = File::options().create(true).append(true).open(self.errors())?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors).current_dir(self.path());
        for (name, directory) in [
            ("HOME", "home"),
            ("XDG_STATE_HOME", "state"),
            ("XDG_DATA_HOME", "state"),
            ("XDG_RUNTIME_DIR", "runtime"),
            ("XDG_CONFIG_HOME", "config"),
        ] {
            command.env(name, self.path().join(directory));
        }
        command.env_remove("RUST_LOG");
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HOLDSHORT"))
        {
            command.env_remove(name);
        }
        Ok(())
    }

    /// What the programs said, for the person who looks for the reason of a failure.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.errors()).unwrap_or_default()
    }
}
