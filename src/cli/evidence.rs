//! `holdshort audit evidence`: what proves a decision to somebody who has nothing of this program and does not trust the record.
//!
//! Used by `audit`. Writes files beside each other: the call, each signed statement, its signature, and the keys. What it says of a
//! signature it has verified; whose key that is, is the word of the policy that was in force then.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use super::{
    audit::{open, store_path},
    render,
};
use crate::{
    control::client::AskError,
    digest::Digest,
    exit::Exit,
    hold::{HoldRecord, NAMESPACE},
};

/// Ids that one beginning may stand for before it is not looked into further.
const FOUND_MAX: usize = 10;

/// The file of the keys, in the form that `ssh-keygen -Y verify` reads.
const SIGNERS: &str = "allowed_signers";

/// The file of the call, as it was received.
const CALL: &str = "call.json";

/// Why no evidence was written.
#[derive(Debug, thiserror::Error)]
enum NotWritten {
    /// Nothing is written over.
    #[error("`{}` is there already: give --out a directory that is not", .0.display())]
    Exists(PathBuf),
    /// The system refused.
    #[error("evidence cannot be written to `{}`: {}", .0.display(), .1)]
    Io(PathBuf, #[source] io::Error),
}

pub(super) async fn write(prefix: &str, out: &Path, store: Option<&Path>) -> Result<Exit, AskError> {
    let store = open(&store_path(store)?).await?;
    let mut found = store.find(prefix, FOUND_MAX).await?;
    let record = match (found.len(), found.pop()) {
        (1, Some(record)) => record,
        (0, _) => return Err(AskError::NotFound(prefix.to_owned())),
        (_, last) => {
            let ids = found.iter().chain(&last).map(|record| record.hold.id).collect();
            return Err(AskError::Ambiguous { prefix: prefix.to_owned(), ids });
        }
    };
    match write_all(&record, out) {
        Ok(0) => {
            render::talk("nobody has signed a decision on this call: there is nothing to prove it with");
            Ok(Exit::Failed)
        }
        Ok(_) => Ok(Exit::Done),
        Err(error) => Ok(render::failed(&match error.kind() {
            io::ErrorKind::AlreadyExists => NotWritten::Exists(out.to_owned()),
            _ => NotWritten::Io(out.to_owned(), error),
        })),
    }
}

/// Writes the evidence, and prints the command that proves each part of it. Gives how many signatures there are.
fn write_all(record: &HoldRecord, out: &Path) -> io::Result<usize> {
    let signed: Vec<_> = record.votes.iter().filter_map(|vote| Some((vote, vote.proof.as_ref()?))).collect();
    if signed.is_empty() {
        return Ok(0);
    }
    DirBuilder::new().mode(0o700).create(out)?;
    fs::write(out.join(CALL), &record.hold.frame)?;
    let mut signers = BTreeSet::new();
    render::line(&format!("{CALL} has the SHA-256 {}", Digest::of(&record.hold.frame)));
    for (at, (vote, proof)) in signed.iter().enumerate() {
        let (name, who) =
            (format!("{}.statement", at + 1), signer(vote.person.as_deref().unwrap_or(&vote.by)));
        fs::write(out.join(&name), &proof.statement)?;
        fs::write(out.join(format!("{name}.sig")), &proof.signature)?;
        match proof.verified() {
            Ok((statement, key)) => {
                signers.insert(format!("{who} namespaces=\"{NAMESPACE}\" {key}\n"));
                let is_about = if statement.request == record.hold.id { "" } else { " ABOUT ANOTHER HOLD" };
                render::line(&format!("{name}: signed{is_about} with {} {}", key.kind(), key.fingerprint()));
            }
            Err(error) => render::line(&format!("{name}: PROVES NOTHING: {error}")),
        }
        render::line(&format!(
            "  ssh-keygen -Y verify -f {SIGNERS} -I {who} -n {NAMESPACE} -s {name}.sig < {name}"
        ));
    }
    fs::write(out.join(SIGNERS), signers.into_iter().collect::<String>())?;
    Ok(signed.len())
}

/// A person's name as a word of a shell and of the file of signers.
fn signer(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
    name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect()
}
