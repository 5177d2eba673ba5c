//! Policy files on disk: which ones are meant by a path, and what is in them.
//!
//! Called by [`Policy::load`](super::Policy::load) and by the test runner. The only part of `policy` that touches files; it
//! only reads.

use std::{
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    diagnostic::{Diagnostic, PolicyErrors, Source},
    is_test_file,
    yaml::FILE_BYTES_MAX,
};

/// How many files one policy may have.
const FILES_MAX: usize = 1_000;

/// The sources behind `paths`, in their order; those of a directory in the order of their names.
pub(super) fn read_all(paths: &[PathBuf]) -> Result<Vec<Source>, PolicyErrors> {
    let mut problems = Vec::new();
    let mut sources = Vec::new();
    if paths.is_empty() {
        problems.push(complaint(Path::new("policy"), "no policy file was named"));
    }
    for path in paths {
        match files_of(path) {
            Ok(files) if files.is_empty() => {
                problems
                    .push(complaint(path, "no policy in this directory: there is no *.yaml and no *.yml"));
            }
            Ok(files) if sources.len() + files.len() > FILES_MAX => {
                problems.push(complaint(path, &format!("a policy has at most {FILES_MAX} files")));
            }
            Ok(files) => {
                for file in files {
                    match read_one(&file) {
                        Ok(source) => sources.push(source),
                        Err(problem) => problems.push(problem),
                    }
                }
            }
            Err(error) => problems.push(complaint(path, &format!("cannot be read: {error}"))),
        }
    }
    if problems.is_empty() { Ok(sources) } else { Err(PolicyErrors::new(problems)) }
}

/// One file's text.
pub(super) fn read_one(path: &Path) -> Result<Source, Diagnostic> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        // One byte more than may be read shows that there is too much, whatever the file's size claims to be.
        let limit = u64::try_from(FILE_BYTES_MAX + 1).unwrap_or(u64::MAX);
        fs::File::open(path)?.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error| complaint(path, &format!("cannot be read: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|_| complaint(path, "the file is not UTF-8 text"))?;
    Ok(Source { name: path.display().to_string(), text })
}

fn files_of(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let file = entry?.path();
        let yaml = file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        if yaml && !is_test_file(&file) {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn complaint(path: &Path, message: &str) -> Diagnostic {
    let source = Source { name: path.display().to_string(), text: String::new() };
    Diagnostic::error("P0001", &Arc::new(source), 0..0, message)
}
