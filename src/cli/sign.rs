//! Has a decision signed by the user's own OpenSSH: `ssh-keygen -Y sign`, with keys from files, from `ssh-agent` and in security
//! keys.
//!
//! Used by `approve --sign` and `reject --sign`. Never sees a private key or a passphrase: those are between OpenSSH and the
//! terminal.

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    control::api::HoldView,
    hold::{BadProof, NAMESPACE, Proof, Verdict},
    sshsig::SIGNATURE_BYTES_MAX,
};

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotSigned {
    /// There is nothing that could be signed.
    #[error("this hold is not shown whole, so nothing can be signed about it")]
    NotWhole,
    /// OpenSSH is not there.
    #[error("`ssh-keygen` cannot be run, which signs: {0}")]
    NoOpenSsh(#[source] io::Error),
    /// It has refused.
    #[error("`ssh-keygen` has not signed with {}", .0.display())]
    Refused(PathBuf),
    /// What it wrote is no signature of the statement.
    #[error("what `ssh-keygen` wrote cannot be used: {0}")]
    Unusable(#[from] BadProof),
}

/// Has `verdict` on `hold`, as it is shown here, signed with the key in the file `key`.
///
/// # Errors
///
/// See [`NotSigned`].
pub(super) fn sign(
    hold: &HoldView,
    verdict: Verdict,
    comment: Option<&str>,
    key: &Path,
) -> Result<Proof, NotSigned> {
    let statement = hold.statement(verdict, comment).ok_or(NotSigned::NotWhole)?.to_string();
    // What it asks of the user goes to the terminal or to stderr.
    let mut child = Command::new("ssh-keygen")
        .args(["-q", "-Y", "sign", "-n", NAMESPACE, "-f"])
        .arg(key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(NotSigned::NoOpenSsh)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(statement.as_bytes()).map_err(|_| NotSigned::Refused(key.to_owned()))?;
    }
    let mut signature = String::new();
    if let Some(stdout) = child.stdout.take() {
        let limit = SIGNATURE_BYTES_MAX as u64 + 1;
        let _ = stdout.take(limit).read_to_string(&mut signature);
    }
    if !child.wait().map_err(NotSigned::NoOpenSsh)?.success() {
        return Err(NotSigned::Refused(key.to_owned()));
    }
    let proof = Proof { statement, signature };
    proof.verified()?;
    Ok(proof)
}
