//! Makes a throw-away authority with a certificate for a server and one for a client: `cargo run --example certs -- DIR`.
//!
//! For tests and examples only. What it writes is ignored by git.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// How long the certificates are valid.
const VALID: Duration = Duration::from_secs(7 * 24 * 3600);

type Failed = Box<dyn std::error::Error>;

/// Writes `ca.pem`, `server.pem`, `server.key`, `client.pem` and `client.key` into `dir`.
pub(crate) fn write(dir: &Path) -> Result<(), Failed> {
    fs::create_dir_all(dir)?;
    let mut authority = params("holdshort throw-away authority", &[])?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    fs::write(dir.join("ca.pem"), authority.pem())?;
    let server =
        (params("localhost", &["localhost", "127.0.0.1", "::1"])?, ExtendedKeyUsagePurpose::ServerAuth);
    let client = (params("build-agent", &[])?, ExtendedKeyUsagePurpose::ClientAuth);
    for (name, (mut params, purpose)) in [("server", server), ("client", client)] {
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate()?;
        fs::write(dir.join(format!("{name}.pem")), params.signed_by(&key, &authority)?.pem())?;
        fs::write(dir.join(format!("{name}.key")), key.serialize_pem())?;
    }
    Ok(())
}

fn params(name: &str, alternatives: &[&str]) -> Result<CertificateParams, Failed> {
    let mut params =
        CertificateParams::new(alternatives.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())?;
    params.distinguished_name.push(DnType::CommonName, name);
    let now = SystemTime::now();
    params.not_before = (now - Duration::from_secs(3600)).into();
    params.not_after = (now + VALID).into();
    Ok(params)
}

/// The directory is the only argument.
#[allow(dead_code, reason = "tests use this file as a module")]
fn main() -> Result<(), Failed> {
    let dir = std::env::args_os().nth(1).ok_or("say into which directory")?;
    write(Path::new(&dir))
}
