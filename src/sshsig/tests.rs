//! Keys and signatures that the real OpenSSH has made, and what is refused. Those of security keys are made and checked with it in
//! `tests/it/signatures.rs`.

use proptest::prelude::*;

use super::*;

const TEXT: &[u8] = include_bytes!("../../tests/fixtures/sshsig/text");
const NAMESPACE: &str = "decision@holdshort";

macro_rules! vector {
    ($name:literal) => {
        (
            include_str!(concat!("../../tests/fixtures/sshsig/", $name, ".pub")),
            include_str!(concat!("../../tests/fixtures/sshsig/", $name, ".sig")),
        )
    };
}

const VECTORS: [(&str, &str); 5] =
    [vector!("ed25519"), vector!("ecdsa256"), vector!("ecdsa384"), vector!("ecdsa521"), vector!("rsa")];

#[test]
fn what_openssh_has_signed_is_verified_with_the_key_that_it_wrote() {
    for (line, armoured) in VECTORS {
        let key = PublicKey::parse(line).unwrap();
        let signature = Signature::parse(armoured).unwrap();
        assert_eq!(signature.key(), &key);
        assert_eq!(signature.verify(NAMESPACE, TEXT), Ok(()), "{}", key.kind());
        assert!(!key.is_hardware());
        assert!(line.starts_with(&key.to_string()), "it is written as it was read");
    }
}

#[test]
fn a_fingerprint_is_the_one_that_openssh_shows() {
    // `ssh-keygen -l -f FILE` of a key that is in many examples: GitHub's, of 2023.
    let line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
    let fingerprint = "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU";
    assert_eq!(PublicKey::parse(line).unwrap().fingerprint(), fingerprint);
}

#[test]
fn another_text_namespace_or_key_is_refused() {
    for (at, (_, armoured)) in VECTORS.iter().enumerate() {
        let signature = Signature::parse(armoured).unwrap();
        assert_eq!(signature.verify(NAMESPACE, b"another text"), Err(SshError::Wrong));
        assert_eq!(signature.verify("file", TEXT), Err(SshError::Namespace));
        let other = PublicKey::parse(VECTORS[(at + 1) % VECTORS.len()].0).unwrap();
        assert!(other.verify(&signature, NAMESPACE, TEXT).is_err());
        let renamed = Signature { namespace: "git".to_owned(), ..signature };
        assert_eq!(renamed.verify("git", TEXT), Err(SshError::Wrong), "the namespace is signed too");
    }
}

#[test]
fn what_is_no_key_is_refused() {
    let good = VECTORS[0].0.trim();
    let cases = [
        ("", SshError::Malformed),
        ("ssh-ed25519", SshError::Malformed),
        ("ssh-ed25519 !!!!", SshError::Malformed),
        ("ssh-dss AAAAB3NzaC1kc3MAAACBAP", SshError::KeyKind),
        ("ssh-ed25519-cert-v01@openssh.com AAAA", SshError::KeyKind),
        // An option would change what the key is good for.
        (&format!("restrict {good}"), SshError::KeyKind),
        (&good.replacen("ssh-ed25519", "ssh-rsa", 1), SshError::Malformed),
        (
            &format!("{}AAAA", good.split_whitespace().take(2).collect::<Vec<_>>().join(" ")),
            SshError::Malformed,
        ),
        (&format!("ssh-ed25519 {}", "A".repeat(KEY_BYTES_MAX)), SshError::TooLong),
    ];
    for (line, error) in cases {
        assert_eq!(PublicKey::parse(line), Err(error), "{line:.60}");
    }
}

#[test]
fn what_is_no_signature_is_refused() {
    let good = VECTORS[0].1;
    for odd in ["", "x", ARMOUR_BEGINS, &good.replace(ARMOUR_ENDS, ""), &good.replace("U1NI", "U1NJ")] {
        assert_eq!(Signature::parse(odd), Err(SshError::Malformed), "{odd:.60}");
    }
    assert_eq!(Signature::parse(&"A".repeat(SIGNATURE_BYTES_MAX + 1)), Err(SshError::TooLong));
}

/// The signature's bytes, without its armour.
fn blob(armoured: &str) -> Vec<u8> {
    let body: String = armoured.lines().filter(|line| !line.starts_with('-')).collect();
    STANDARD.decode(body).unwrap()
}

fn armoured(blob: &[u8]) -> String {
    format!("{ARMOUR_BEGINS}\n{}\n{ARMOUR_ENDS}\n", STANDARD.encode(blob))
}

#[test]
fn no_signature_counts_of_which_one_bit_is_another() {
    for (_, good) in VECTORS {
        let blob = blob(good);
        for at in 0..blob.len() {
            let mut other = blob.clone();
            other[at] ^= 1 << (at % 8);
            let accepted = Signature::parse(&armoured(&other)).and_then(|signature| {
                signature.verify(NAMESPACE, TEXT)?;
                Ok(signature.key().fingerprint())
            });
            // Whatever it is, it is not by that key.
            let own = Signature::parse(good).unwrap().key().fingerprint();
            assert_ne!(accepted, Ok(own), "byte {at}");
        }
        for length in 0..blob.len() {
            assert!(Signature::parse(&armoured(&blob[..length])).is_err(), "cut to {length} bytes");
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Signature::parse(&armoured(&bytes));
        let _ = PublicKey::from_blob(&bytes);
        let mut signed = MAGIC.to_vec();
        signed.extend_from_slice(&[0, 0, 0, 1]);
        signed.extend_from_slice(&bytes);
        let _ = Signature::parse(&armoured(&signed)).map(|signature| signature.verify(NAMESPACE, TEXT));
    }
}
