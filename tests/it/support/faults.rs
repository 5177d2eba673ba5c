//! Faults from below, for a process that is started: a wall clock that leaps, and writes to its record that fail.
//!
//! Used by the tests of the crate (which take this file in) and by those of the program. The faults are in a small library
//! (`tests/fixtures/faults.c`) between the process and the system's own, so that the program is the one that people run.

#![allow(dead_code, reason = "each of the two that take this file in uses a part of it")]

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// Names the file with the numbers that tests and library share.
pub(crate) const NUMBERS_VARIABLE: &str = "HOLDSHORT_TEST_FAULTS";

/// The library, built, and the numbers of the process that is started with it.
pub(crate) struct Faults {
    dir: TempDir,
    pub(crate) numbers: Numbers,
}

impl Faults {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("hsfaults").tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/faults.c");
        let mut compile = Command::new("cc");
        compile.args(["-shared", "-fPIC", "-O1", "-o"]).arg(library(&dir)).arg(source).arg("-ldl");
        let built = compile.output().expect("there is a C compiler");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let path = dir.path().join("numbers");
        fs::write(&path, [0; 8 * 5]).unwrap();
        Self { numbers: Numbers::of(&path), dir }
    }

    /// Lets `command` meet them.
    pub(crate) fn preload(&self, command: &mut Command) {
        command.env("LD_PRELOAD", library(&self.dir)).env(NUMBERS_VARIABLE, self.dir.path().join("numbers"));
    }
}

fn library(dir: &TempDir) -> PathBuf {
    dir.path().join("faults.so")
}

/// What the library goes by, at once.
pub(crate) struct Numbers(File);

impl Numbers {
    pub(crate) fn of(path: &Path) -> Self {
        Self(File::options().read(true).write(true).open(path).unwrap())
    }

    fn set(&self, number: u64, value: i64) {
        self.0.write_all_at(&value.to_ne_bytes(), number * 8).unwrap();
    }

    /// The wall clock is off by so many seconds.
    pub(crate) fn leap(&self, seconds: i64) {
        self.set(0, seconds);
    }

    /// The `at`-th write or sync of the record from now fails, and all later ones too if that `lasts`.
    pub(crate) fn fail(&self, at: i64, lasts: bool) {
        self.set(3, 0);
        self.set(2, lasts.into());
        self.set(1, at);
    }

    /// The process dies before the `at`-th write or sync of the record from now.
    pub(crate) fn die(&self, at: i64) {
        self.set(3, 0);
        self.set(2, 2);
        self.set(1, at);
    }

    /// Nothing fails any more.
    pub(crate) fn heal(&self) {
        self.set(1, 0);
    }

    /// How often a fault has happened since the beginning.
    pub(crate) fn fired(&self) -> i64 {
        let mut value = [0; 8];
        self.0.read_exact_at(&mut value, 8 * 4).unwrap();
        i64::from_ne_bytes(value)
    }
}
