//! Signatures of OpenSSH over files (SSHSIG): keys as `authorized_keys` writes them, and what `ssh-keygen -Y sign` makes.
//!
//! Read by `policy` (the keys of people) and verified by the gate, in this process, just before a call goes on. Nothing is signed here:
//! private keys are the business of the user's own OpenSSH. After PROTOCOL.sshsig and PROTOCOL.u2f of OpenSSH, RFC 4253
//! section 6.6, RFC 5656, RFC 8332 and RFC 8709. Pure.

mod wire;

use std::fmt;

use aws_lc_rs::{
    digest::{SHA256, SHA512, digest},
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
        EcdsaVerificationAlgorithm, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA512,
        RsaPublicKeyComponents, UnparsedPublicKey,
    },
};
use base64::{Engine, engine::general_purpose::STANDARD, engine::general_purpose::STANDARD_NO_PAD};

use self::wire::Reader;
use crate::digest::Digest;

/// The longest line of a public key, in bytes: RSA keys of 8192 bits have some 1,450.
pub const KEY_BYTES_MAX: usize = 4 << 10;

/// The longest signature, in its armour, in bytes: one by an RSA key of 8192 bits has some 2,900.
pub const SIGNATURE_BYTES_MAX: usize = 8 << 10;

const ARMOUR_BEGINS: &str = "-----BEGIN SSH SIGNATURE-----";
const ARMOUR_ENDS: &str = "-----END SSH SIGNATURE-----";

/// What a signature and what is signed begin with.
const MAGIC: &[u8; 6] = b"SSHSIG";

/// The only version of the format.
const VERSION: u32 = 1;

/// The flag of a security key that says: somebody has touched it (PROTOCOL.u2f).
const TOUCHED: u8 = 1;

/// Why a key or a signature is not accepted. Its text is for people, and never holds anything that a stranger wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SshError {
    /// It is too long.
    #[error("it is too long")]
    TooLong,
    /// It is not what OpenSSH writes.
    #[error("it is not in the form that OpenSSH writes")]
    Malformed,
    /// Another kind of key.
    #[error("keys of this kind are not accepted: ssh-ed25519, ecdsa-sha2-nistp*, ssh-rsa and sk-* are")]
    KeyKind,
    /// An RSA signature with SHA-1, or another algorithm that does not belong to the key.
    #[error("the signature's algorithm is not one for this key")]
    Algorithm,
    /// It was made for something else.
    #[error("the signature was made for something else: its namespace is another one")]
    Namespace,
    /// The signature of a security key that nobody touched.
    #[error("nobody has touched the security key for this signature")]
    NotTouched,
    /// It is not a signature of this key over this text.
    #[error("the signature is not one of this key over this text")]
    Wrong,
}

/// A public key.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PublicKey {
    blob: Box<[u8]>,
    material: Material,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Material {
    Ed25519(Box<[u8]>),
    Ecdsa(Curve, Box<[u8]>),
    Rsa { exponent: Box<[u8]>, modulus: Box<[u8]> },
    SkEd25519 { key: Box<[u8]>, application: Box<[u8]> },
    SkEcdsa { point: Box<[u8]>, application: Box<[u8]> },
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    const ALL: [Self; 3] = [Self::P256, Self::P384, Self::P521];

    fn name(self) -> &'static str {
        match self {
            Self::P256 => "nistp256",
            Self::P384 => "nistp384",
            Self::P521 => "nistp521",
        }
    }

    /// The length of a number of its field.
    fn bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    fn algorithm(self) -> &'static EcdsaVerificationAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_FIXED,
            Self::P384 => &ECDSA_P384_SHA384_FIXED,
            Self::P521 => &ECDSA_P521_SHA512_FIXED,
        }
    }
}

const ED25519_NAME: &str = "ssh-ed25519";
const RSA_NAME: &str = "ssh-rsa";
const SK_ED25519_NAME: &str = "sk-ssh-ed25519@openssh.com";
const SK_ECDSA_NAME: &str = "sk-ecdsa-sha2-nistp256@openssh.com";
const ECDSA_PREFIX: &str = "ecdsa-sha2-";

impl PublicKey {
    /// Reads `ssh-ed25519 AAAA… comment`, as a `.pub` file has it. Options before the kind are refused.
    ///
    /// # Errors
    ///
    /// See [`SshError`].
    pub fn parse(line: &str) -> Result<Self, SshError> {
        if line.len() > KEY_BYTES_MAX {
            return Err(SshError::TooLong);
        }
        let mut words = line.split_ascii_whitespace();
        let (kind, blob) = (words.next(), words.next());
        let (Some(kind), Some(blob)) = (kind, blob) else { return Err(SshError::Malformed) };
        if !is_known(kind) {
            return Err(SshError::KeyKind);
        }
        let key = Self::from_blob(&STANDARD.decode(blob).map_err(|_| SshError::Malformed)?)?;
        if key.kind() == kind { Ok(key) } else { Err(SshError::Malformed) }
    }

    fn from_blob(blob: &[u8]) -> Result<Self, SshError> {
        let mut reader = Reader::new(blob);
        let kind = reader.text()?;
        let material = match kind {
            ED25519_NAME => Material::Ed25519(reader.exactly(32)?.into()),
            RSA_NAME => {
                Material::Rsa { exponent: reader.positive()?.into(), modulus: reader.positive()?.into() }
            }
            SK_ED25519_NAME => {
                Material::SkEd25519 { key: reader.exactly(32)?.into(), application: reader.string()?.into() }
            }
            SK_ECDSA_NAME => {
                let (curve, point) = curve_and_point(&mut reader)?;
                if curve != Curve::P256 {
                    return Err(SshError::Malformed);
                }
                Material::SkEcdsa { point, application: reader.string()?.into() }
            }
            _ => {
                let named = kind.strip_prefix(ECDSA_PREFIX).ok_or(SshError::KeyKind)?;
                let (curve, point) = curve_and_point(&mut reader)?;
                if curve.name() != named {
                    return Err(SshError::Malformed);
                }
                Material::Ecdsa(curve, point)
            }
        };
        reader.end()?;
        Ok(Self { blob: blob.into(), material })
    }

    /// What OpenSSH calls this kind of key.
    pub fn kind(&self) -> &'static str {
        match &self.material {
            Material::Ed25519(_) => ED25519_NAME,
            Material::Ecdsa(Curve::P256, _) => "ecdsa-sha2-nistp256",
            Material::Ecdsa(Curve::P384, _) => "ecdsa-sha2-nistp384",
            Material::Ecdsa(Curve::P521, _) => "ecdsa-sha2-nistp521",
            Material::Rsa { .. } => RSA_NAME,
            Material::SkEd25519 { .. } => SK_ED25519_NAME,
            Material::SkEcdsa { .. } => SK_ECDSA_NAME,
        }
    }

    /// Whether its private half is in a security key that signs only when it is touched.
    pub fn is_hardware(&self) -> bool {
        matches!(self.material, Material::SkEd25519 { .. } | Material::SkEcdsa { .. })
    }

    /// `SHA256:` and the digest of the key in base 64, as `ssh-keygen -l` shows it.
    pub fn fingerprint(&self) -> String {
        format!("SHA256:{}", STANDARD_NO_PAD.encode(Digest::of(&self.blob).0))
    }

    /// Verifies `signature` over `text` for `namespace`.
    fn verify(&self, signature: &Signature, namespace: &str, text: &[u8]) -> Result<(), SshError> {
        if signature.namespace != namespace {
            return Err(SshError::Namespace);
        }
        let hashed = match signature.hash {
            Hash::Sha256 => digest(&SHA256, text),
            Hash::Sha512 => digest(&SHA512, text),
        };
        let mut signed = MAGIC.to_vec();
        for part in [namespace.as_bytes(), b"", signature.hash.name().as_bytes(), hashed.as_ref()] {
            wire::put_string(&mut signed, part)?;
        }
        let mut reader = Reader::new(&signature.raw);
        let algorithm = reader.text()?;
        let raw = reader.string()?;
        match &self.material {
            Material::Ed25519(key) => {
                expect(algorithm == ED25519_NAME)?;
                reader.end()?;
                verified(UnparsedPublicKey::new(&ED25519, key).verify(&signed, raw))
            }
            Material::Ecdsa(curve, point) => {
                expect(algorithm == self.kind())?;
                reader.end()?;
                let fixed = fixed(raw, *curve)?;
                verified(UnparsedPublicKey::new(curve.algorithm(), point).verify(&signed, &fixed))
            }
            Material::Rsa { exponent, modulus } => {
                let parameters = match algorithm {
                    "rsa-sha2-512" => &RSA_PKCS1_2048_8192_SHA512,
                    "rsa-sha2-256" => &RSA_PKCS1_2048_8192_SHA256,
                    _ => return Err(SshError::Algorithm),
                };
                reader.end()?;
                let key = RsaPublicKeyComponents { n: modulus, e: exponent };
                verified(key.verify(parameters, &signed, raw))
            }
            Material::SkEd25519 { key, application } => {
                expect(algorithm == SK_ED25519_NAME)?;
                let signed = by_security_key(&mut reader, application, &signed)?;
                verified(UnparsedPublicKey::new(&ED25519, key).verify(&signed, raw))
            }
            Material::SkEcdsa { point, application } => {
                expect(algorithm == SK_ECDSA_NAME)?;
                let signed = by_security_key(&mut reader, application, &signed)?;
                let fixed = fixed(raw, Curve::P256)?;
                verified(UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(&signed, &fixed))
            }
        }
    }
}

impl fmt::Display for PublicKey {
    /// The line of a `.pub` file, without a comment.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), STANDARD.encode(&self.blob))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.fingerprint())
    }
}

fn is_known(kind: &str) -> bool {
    let curve = |curve: Curve| kind.strip_prefix(ECDSA_PREFIX) == Some(curve.name());
    [ED25519_NAME, RSA_NAME, SK_ED25519_NAME, SK_ECDSA_NAME].contains(&kind)
        || Curve::ALL.into_iter().any(curve)
}

fn curve_and_point(reader: &mut Reader<'_>) -> Result<(Curve, Box<[u8]>), SshError> {
    let name = reader.text()?;
    let curve = Curve::ALL.into_iter().find(|curve| curve.name() == name).ok_or(SshError::KeyKind)?;
    // Uncompressed: 0x04 and two numbers of the field.
    let point = reader.exactly(1 + 2 * curve.bytes())?;
    Ok((curve, point.into()))
}

fn expect(is_so: bool) -> Result<(), SshError> {
    if is_so { Ok(()) } else { Err(SshError::Algorithm) }
}

fn verified(result: Result<(), aws_lc_rs::error::Unspecified>) -> Result<(), SshError> {
    result.map_err(|_| SshError::Wrong)
}

/// The two numbers of an ECDSA signature, each as long as the curve's.
fn fixed(raw: &[u8], curve: Curve) -> Result<Vec<u8>, SshError> {
    let mut reader = Reader::new(raw);
    let mut fixed = Vec::with_capacity(2 * curve.bytes());
    for _ in 0..2 {
        let number = reader.positive()?;
        let blank = curve.bytes().checked_sub(number.len()).ok_or(SshError::Malformed)?;
        fixed.resize(fixed.len() + blank, 0);
        fixed.extend_from_slice(number);
    }
    reader.end()?;
    Ok(fixed)
}

/// What a security key signs: the digest of its application, whether it was touched, its counter, and the digest of `signed`.
fn by_security_key(reader: &mut Reader<'_>, application: &[u8], signed: &[u8]) -> Result<Vec<u8>, SshError> {
    let (flags, counter) = (reader.byte()?, reader.number()?);
    reader.end()?;
    if flags & TOUCHED == 0 {
        return Err(SshError::NotTouched);
    }
    let mut all = Digest::of(application).0.to_vec();
    all.push(flags);
    all.extend_from_slice(&counter.to_be_bytes());
    all.extend_from_slice(&Digest::of(signed).0);
    Ok(all)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hash {
    Sha256,
    Sha512,
}

impl Hash {
    fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }
}

/// A signature that was read, and not verified yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    key: PublicKey,
    namespace: String,
    hash: Hash,
    raw: Box<[u8]>,
}

impl Signature {
    /// Reads what `ssh-keygen -Y sign` writes.
    ///
    /// # Errors
    ///
    /// See [`SshError`].
    pub fn parse(armoured: &str) -> Result<Self, SshError> {
        if armoured.len() > SIGNATURE_BYTES_MAX {
            return Err(SshError::TooLong);
        }
        let body =
            armoured.trim().strip_prefix(ARMOUR_BEGINS).and_then(|rest| rest.strip_suffix(ARMOUR_ENDS));
        let body: String = body.ok_or(SshError::Malformed)?.split_ascii_whitespace().collect();
        let blob = STANDARD.decode(body).map_err(|_| SshError::Malformed)?;
        let mut reader = Reader::new(&blob);
        if reader.take(MAGIC.len())? != MAGIC || reader.number()? != VERSION {
            return Err(SshError::Malformed);
        }
        let key = PublicKey::from_blob(reader.string()?)?;
        let namespace = reader.text()?.to_owned();
        let reserved = reader.string()?;
        let hash = match reader.text()? {
            "sha256" => Hash::Sha256,
            "sha512" => Hash::Sha512,
            _ => return Err(SshError::Algorithm),
        };
        let raw = reader.string()?.into();
        reader.end()?;
        if !reserved.is_empty() {
            return Err(SshError::Malformed);
        }
        Ok(Self { key, namespace, hash, raw })
    }

    /// The key that it says it is by. Whether that is so, [`Signature::verify`] tells; whose key it is, the policy.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Whether it is by its key, over exactly `text`, made for `namespace`.
    ///
    /// # Errors
    ///
    /// See [`SshError`].
    pub fn verify(&self, namespace: &str, text: &[u8]) -> Result<(), SshError> {
        self.key.verify(self, namespace, text)
    }
}

#[cfg(test)]
mod tests;
