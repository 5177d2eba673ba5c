//! Signatures of what goes over the wire between a desk and a service, in both directions.
//!
//! Used by the channels that send and by the desk for what comes in. Pure: what time it is, is told by the caller. Everything is
//! compared in constant time, over the bytes as they came.

use std::fmt;

use aws_lc_rs::hmac;
use base64::prelude::{BASE64_STANDARD, Engine as _};

use crate::digest::Digest;

/// How far the time in a signature may be from ours, in seconds, in both directions.
pub const TOLERANCE_SECONDS: i64 = 300;

/// The longest id of a webhook, in bytes.
const ID_BYTES_MAX: usize = 256;

/// The most signatures that are looked at.
const SIGNATURES_MAX: usize = 8;

/// The shortest secret of a webhook, in bytes (Standard Webhooks asks for 24 to 64).
pub const SECRET_BYTES_MIN: usize = 24;

/// A key of a service. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// A key.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The key itself, for the wire.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// The keys of a webhook, as Standard Webhooks has them: what is sent is signed with each, what comes has to be signed with one.
#[derive(Clone)]
pub struct WebhookKeys(Vec<hmac::Key>);

impl fmt::Debug for WebhookKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebhookKeys({})", self.0.len())
    }
}

/// Why something that came in does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSignature {
    /// A header is missing, or there twice, or no such header.
    #[error("the headers of the signature are not whole")]
    Headers,
    /// Too old, or from the future.
    #[error("the time of the signature is not within five minutes of now")]
    Time,
    /// Not made with a key of ours.
    #[error("the signature is not right")]
    Wrong,
}

/// The three headers of Standard Webhooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WebhookHeaders<'a> {
    /// `webhook-id`.
    pub id: &'a str,
    /// `webhook-timestamp`, in seconds.
    pub timestamp: &'a str,
    /// `webhook-signature`.
    pub signature: &'a str,
}

impl WebhookKeys {
    /// The keys in `secrets`, each written as `whsec_` and base64.
    ///
    /// # Errors
    ///
    /// What is wrong, in words, without the secret.
    pub fn new(secrets: &[Secret]) -> Result<Self, String> {
        let key = |secret: &Secret| {
            let text = secret.expose();
            let bytes = BASE64_STANDARD
                .decode(text.strip_prefix("whsec_").ok_or("a secret begins with `whsec_`")?)
                .map_err(|_| "what follows `whsec_` is base64")?;
            if bytes.len() < SECRET_BYTES_MIN {
                return Err(format!("a secret has at least {SECRET_BYTES_MIN} random bytes"));
            }
            Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
        };
        Ok(Self(secrets.iter().map(key).collect::<Result<_, String>>()?))
    }

    /// The value of `webhook-signature`.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let signed = signed(id, &timestamp.to_string(), body);
        let one = |key| format!("v1,{}", BASE64_STANDARD.encode(hmac::sign(key, &signed)));
        self.0.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    /// Checks what came with `headers` at `now` (seconds).
    ///
    /// # Errors
    ///
    /// See [`BadSignature`].
    pub fn verify(&self, headers: WebhookHeaders<'_>, body: &[u8], now: i64) -> Result<(), BadSignature> {
        let WebhookHeaders { id, timestamp, signature } = headers;
        // With a point in it, the end of an id could be taken for the beginning of a time.
        if id.is_empty() || id.len() > ID_BYTES_MAX || id.contains('.') {
            return Err(BadSignature::Headers);
        }
        check_time(timestamp, now)?;
        let signed = signed(id, timestamp, body);
        let found = signature.split(' ').take(SIGNATURES_MAX).filter_map(|one| {
            // Other versions are of other kinds of keys.
            BASE64_STANDARD.decode(one.strip_prefix("v1,")?).ok()
        });
        let mut right = false;
        for found in found {
            for key in &self.0 {
                right |= hmac::verify(key, &signed, &found).is_ok();
            }
        }
        if right { Ok(()) } else { Err(BadSignature::Wrong) }
    }
}

fn signed(id: &str, timestamp: &str, body: &[u8]) -> Vec<u8> {
    [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat()
}

fn check_time(timestamp: &str, now: i64) -> Result<(), BadSignature> {
    let is_number = !timestamp.is_empty() && timestamp.bytes().all(|byte| byte.is_ascii_digit());
    let at: i64 = timestamp.parse().ok().filter(|_| is_number).ok_or(BadSignature::Headers)?;
    if at.abs_diff(now) <= TOLERANCE_SECONDS.unsigned_abs() { Ok(()) } else { Err(BadSignature::Time) }
}

/// Checks a request of Slack's (`X-Slack-Signature`, version 0) that came at `now` (seconds).
///
/// # Errors
///
/// See [`BadSignature`].
pub fn verify_slack(
    secret: &Secret,
    timestamp: &str,
    signature: &str,
    body: &[u8],
    now: i64,
) -> Result<(), BadSignature> {
    check_time(timestamp, now)?;
    let found = signature.strip_prefix("v0=").and_then(Digest::from_hex).ok_or(BadSignature::Headers)?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    let signed = [b"v0:", timestamp.as_bytes(), b":", body].concat();
    hmac::verify(&key, &signed, &found.0).map_err(|_| BadSignature::Wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(secrets: &[&str]) -> WebhookKeys {
        let secrets: Vec<Secret> = secrets.iter().map(|&secret| Secret::new(secret.to_owned())).collect();
        WebhookKeys::new(&secrets).unwrap()
    }

    /// The example of the Standard Webhooks specification and its libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const OTHER: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD0000";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const AT: i64 = 1_614_265_330;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    #[test]
    fn a_webhook_is_signed_as_the_specification_says() {
        assert_eq!(keys(&[SECRET]).sign(ID, AT, BODY), SIGNATURE);
        let both = keys(&[OTHER, SECRET]).sign(ID, AT, BODY);
        assert_eq!(both.split(' ').count(), 2, "while a key is exchanged");
        assert!(both.ends_with(SIGNATURE));
    }

    #[test]
    fn a_webhook_from_outside_counts_only_as_it_was_signed_and_only_now() {
        let ours = keys(&[SECRET]);
        let timestamp = AT.to_string();
        let headers = WebhookHeaders { id: ID, timestamp: &timestamp, signature: SIGNATURE };
        assert_eq!(ours.verify(headers, BODY, AT), Ok(()));
        assert_eq!(ours.verify(headers, BODY, AT + TOLERANCE_SECONDS), Ok(()));
        for other in [
            "v1a,AAAA v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            "v1,AAAA v2,x v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ] {
            assert_eq!(
                ours.verify(WebhookHeaders { signature: other, ..headers }, BODY, AT),
                Ok(()),
                "{other}"
            );
        }
        assert_eq!(keys(&[OTHER, SECRET]).verify(headers, BODY, AT), Ok(()), "while a key is exchanged");
        assert_eq!(keys(&[OTHER]).verify(headers, BODY, AT), Err(BadSignature::Wrong));
        assert_eq!(
            ours.verify(headers, br#"{"test":2432232314}"#, AT),
            Err(BadSignature::Wrong),
            "written anew"
        );
        for late in [AT + 301, AT - 301] {
            assert_eq!(ours.verify(headers, BODY, late), Err(BadSignature::Time));
        }
        let split = format!("{AT}.x");
        for (id, timestamp) in
            [("", "1614265330"), ("a.b", "1614265330"), (ID, ""), (ID, "+1614265330"), (ID, &split)]
        {
            let odd = WebhookHeaders { id, timestamp, signature: SIGNATURE };
            assert_eq!(ours.verify(odd, BODY, AT), Err(BadSignature::Headers), "{id} {timestamp}");
        }
        for signature in ["", "v1,", "v1", "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="] {
            let odd = WebhookHeaders { signature, ..headers };
            assert_eq!(ours.verify(odd, BODY, AT), Err(BadSignature::Wrong), "{signature}");
        }
    }

    #[test]
    fn a_key_is_as_long_as_it_has_to_be_and_is_never_printed() {
        for bad in ["", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_%%%", "whsec_c2hvcnQ="] {
            let error = WebhookKeys::new(&[Secret::new(bad.to_owned())]).unwrap_err();
            assert!(bad.is_empty() || !error.contains(bad), "{error}");
        }
        assert!(!format!("{:?}{:?}", Secret::new(SECRET.to_owned()), keys(&[SECRET])).contains("MfKQ"));
    }

    #[test]
    fn a_request_of_slacks_is_known_by_its_signature() {
        // The example of Slack's documentation, "Verifying requests from Slack".
        let secret = Secret::new("8f742231b10e8888abcd99yyyzzz85a5".to_owned());
        let body = b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V\
            &channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=\
            https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=\
            398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
        let signature = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503";
        let at = 1_531_420_618;
        let verify =
            |signature: &str, body: &[u8], now| verify_slack(&secret, "1531420618", signature, body, now);
        assert_eq!(verify(signature, body, at), Ok(()));
        for now in [at + 301, at - 301] {
            assert_eq!(verify(signature, body, now), Err(BadSignature::Time));
        }
        assert_eq!(verify(signature, &body[1..], at), Err(BadSignature::Wrong));
        assert_eq!(verify(&signature.replace("v0", "v1"), body, at), Err(BadSignature::Headers));
        assert_eq!(verify(&signature.replace("a2114d", "b2114d"), body, at), Err(BadSignature::Wrong));
    }
}
