//! SSH keys and signatures: made by the real OpenSSH, and those of a security key as PROTOCOL.u2f of OpenSSH describes them.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use aws_lc_rs::{
    digest::{SHA256, SHA512, digest},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use holdshort::hold::{NAMESPACE, Proof};

/// A key in a file, made by `ssh-keygen`.
pub(crate) struct FileKey {
    pub(crate) file: PathBuf,
    pub(crate) line: String,
}

impl FileKey {
    /// A key such as `["-t", "ed25519"]` in `dir`.
    pub(crate) fn new(dir: &Path, name: &str, kind: &[&str]) -> Self {
        let file = dir.join(name);
        let made = Command::new("ssh-keygen")
            .args(["-q", "-N", "", "-C", name])
            .args(kind)
            .arg("-f")
            .arg(&file)
            .status();
        assert!(made.expect("OpenSSH is installed").success());
        let line = fs::read_to_string(file.with_extension("pub")).unwrap().trim().to_owned();
        Self { file, line }
    }

    /// What OpenSSH makes of `text`.
    pub(crate) fn sign_for(&self, namespace: &str, text: &str) -> String {
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-Y", "sign", "-n", namespace, "-f"]).arg(&self.file);
        let (signed, output) = piped(command, text);
        assert!(signed);
        output
    }

    pub(crate) fn sign(&self, statement: &str) -> Proof {
        Proof { statement: statement.to_owned(), signature: self.sign_for(NAMESPACE, statement) }
    }
}

/// Runs `command` with `input`: whether it succeeds, and what it says.
fn piped(mut command: Command, input: &str) -> (bool, String) {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

/// Whether the real `ssh-keygen -Y verify` finds that the owner of `line` has signed `proof`.
pub(crate) fn openssh_verifies(dir: &Path, line: &str, proof: &Proof) -> bool {
    let (signers, signature) = (dir.join("signers"), dir.join("signature"));
    fs::write(&signers, format!("somebody {line}\n")).unwrap();
    fs::write(&signature, &proof.signature).unwrap();
    let mut command = Command::new("ssh-keygen");
    command
        .args(["-Y", "verify", "-n", NAMESPACE, "-I", "somebody", "-f"])
        .arg(signers)
        .arg("-s")
        .arg(signature);
    piped(command, &proof.statement).0
}

/// A security key in memory: it signs as one of the kinds sk-ssh-ed25519 and sk-ecdsa-sha2-nistp256 does.
pub(crate) enum SecurityKey {
    Ed25519(Ed25519KeyPair),
    Ecdsa(EcdsaKeyPair),
}

const APPLICATION: &str = "ssh:";

impl SecurityKey {
    pub(crate) fn new() -> Self {
        Self::Ed25519(Ed25519KeyPair::generate().unwrap())
    }

    pub(crate) fn ecdsa() -> Self {
        Self::Ecdsa(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Ed25519(_) => "sk-ssh-ed25519@openssh.com",
            Self::Ecdsa(_) => "sk-ecdsa-sha2-nistp256@openssh.com",
        }
    }

    fn blob(&self) -> Vec<u8> {
        let kind = self.kind().as_bytes();
        let parts: Vec<&[u8]> = match self {
            Self::Ed25519(pair) => vec![kind, pair.public_key().as_ref(), APPLICATION.as_bytes()],
            Self::Ecdsa(pair) => vec![kind, b"nistp256", pair.public_key().as_ref(), APPLICATION.as_bytes()],
        };
        parts.into_iter().flat_map(string).collect()
    }

    /// The line of its `.pub` file.
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.kind(), STANDARD.encode(self.blob()))
    }

    /// What the key itself signs, as its kind is written.
    fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Ed25519(pair) => pair.sign(bytes).as_ref().to_vec(),
            Self::Ecdsa(pair) => {
                let signed = pair.sign(&SystemRandom::new(), bytes).unwrap();
                let (r, s) = signed.as_ref().split_at(32);
                [r, s].into_iter().flat_map(integer).collect()
            }
        }
    }

    /// Signs `statement`, with a touch or without one.
    pub(crate) fn sign(&self, statement: &str, touched: bool) -> Proof {
        let hashed = digest(&SHA512, statement.as_bytes());
        let parts = [NAMESPACE.as_bytes(), b"", b"sha512", hashed.as_ref()];
        let signed: Vec<u8> = b"SSHSIG".iter().copied().chain(parts.into_iter().flat_map(string)).collect();
        let (flags, counter) = (u8::from(touched), 7_u32.to_be_bytes());
        let mut by_key = digest(&SHA256, APPLICATION.as_bytes()).as_ref().to_vec();
        by_key.push(flags);
        by_key.extend_from_slice(&counter);
        by_key.extend_from_slice(digest(&SHA256, &signed).as_ref());
        let mut raw = string(self.kind().as_bytes());
        raw.extend(string(&self.raw(&by_key)));
        raw.push(flags);
        raw.extend_from_slice(&counter);
        let mut blob = b"SSHSIG\0\0\0\x01".to_vec();
        for part in [&self.blob(), NAMESPACE.as_bytes(), b"", b"sha512", &raw] {
            blob.extend(string(part));
        }
        let body = STANDARD.encode(blob);
        let rows: Vec<&str> =
            body.as_bytes().chunks(70).map(|row| std::str::from_utf8(row).unwrap()).collect();
        let signature =
            format!("-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n", rows.join("\n"));
        Proof { statement: statement.to_owned(), signature }
    }
}

/// A number that is not negative, as SSH writes it (RFC 4251, `mpint`).
fn integer(bytes: &[u8]) -> Vec<u8> {
    let digits: Vec<u8> = bytes.iter().copied().skip_while(|&byte| byte == 0).collect();
    let sign = digits.first().filter(|&&first| first >= 0x80).map(|_| 0);
    string(&sign.into_iter().chain(digits).collect::<Vec<u8>>())
}

fn string(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    length.iter().chain(bytes).copied().collect()
}
