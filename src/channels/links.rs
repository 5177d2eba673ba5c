//! The links in mails: who may decide by one on which hold, until when.
//!
//! Made for a letter, read by the desk. A link says all of that itself and is signed with a key of the desks of this user, so
//! nothing has to be kept. Whoever has the link is taken for the reader of the mail. That it counts once is for the record.

use std::{
    fmt,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use aws_lc_rs::hmac;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use jiff::Timestamp;

use crate::{control::api::HoldView, hold::HoldId};

/// The length of the key, in bytes.
const KEY_BYTES: usize = 32;

/// The longest link, in characters, without where the desk is.
const LINK_CHARS_MAX: usize = 1024;

/// What makes and reads links.
pub struct Links {
    key: hmac::Key,
    origin: String,
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links").field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// What a link says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The hold.
    pub hold: HoldId,
    /// The address of the reader.
    pub address: String,
    /// From when on it is worth nothing.
    pub until: Timestamp,
}

impl Links {
    /// For the desk at `origin`, with the key in the file at `path`, which is made if it is not there. Its directory is private.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or made.
    pub fn open(path: &Path, origin: String) -> io::Result<Self> {
        let key = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::make_key(path)?,
            key => key?,
        };
        if key.len() != KEY_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the key of links is damaged; remove it to make another",
            ));
        }
        Ok(Self { key: hmac::Key::new(hmac::HMAC_SHA256, &key), origin })
    }

    /// Makes a key, or takes the one that another desk has made just now.
    fn make_key(path: &Path) -> io::Result<Vec<u8>> {
        let mut key = [0; KEY_BYTES];
        getrandom::fill(&mut key).map_err(io::Error::other)?;
        let new = path.with_extension(format!("new-{}", std::process::id()));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&key).and_then(|()| file.sync_all())?;
        // Whoever links first has made it.
        let linked = fs::hard_link(&new, path);
        fs::remove_file(&new)?;
        match linked {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => fs::read(path),
        }
    }

    /// A link by which the reader of the channel `name` at `address` decides on `hold`, as long as it waits.
    pub fn link(&self, name: &str, address: &str, hold: &HoldView) -> String {
        let mut said = hold.id.0.to_vec();
        said.extend(hold.expires_at.as_second().to_be_bytes());
        said.extend(address.as_bytes());
        let mac = hmac::sign(&self.key, &signed(name, &said));
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        format!("{}/mail/{name}/{}.{}", self.origin, encode(&said), encode(mac.as_ref()))
    }

    /// What a link of the channel `name` says at `now`, if it is one of ours and still worth something.
    pub fn read(&self, name: &str, text: &str, now: Timestamp) -> Option<Link> {
        let decode = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).ok();
        let (said, mac) = text.split_once('.').filter(|_| text.len() <= LINK_CHARS_MAX)?;
        let (said, mac) = (decode(said)?, decode(mac)?);
        hmac::verify(&self.key, &signed(name, &said), &mac).ok()?;
        let (hold, rest) = said.split_first_chunk::<16>()?;
        let (until, address) = rest.split_first_chunk::<8>()?;
        let until = Timestamp::from_second(i64::from_be_bytes(*until)).ok().filter(|until| now < *until)?;
        Some(Link { hold: HoldId(*hold), address: String::from_utf8(address.to_vec()).ok()?, until })
    }
}

/// What is signed: with a word of its own, so that the key signs nothing else.
fn signed(name: &str, said: &[u8]) -> Vec<u8> {
    [b"mail link\0", name.as_bytes(), b"\0", said].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channels::message::tests::held;

    #[test]
    fn a_link_is_worth_something_as_it_was_made_for_its_channel_until_the_hold_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("links.key");
        let links = Links::open(&path, "https://desk.example.com".to_owned()).unwrap();
        let hold = held("send_refund", "{}");
        let link = links.link("mail", "alice@example.com", &hold);
        let text = link.strip_prefix("https://desk.example.com/mail/mail/").unwrap();
        let now = Timestamp::now();
        let read = links.read("mail", text, now).unwrap();
        assert_eq!((read.hold, &*read.address), (hold.id, "alice@example.com"));
        let again = Links::open(&path, String::new()).unwrap();
        assert_eq!(again.read("mail", text, now), Some(read), "another desk of this user");
        assert_eq!(links.read("other", text, now), None);
        assert_eq!(links.read("mail", text, hold.expires_at), None);
        for at in 0..text.len() {
            let mut other = text.as_bytes().to_vec();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(links.read("mail", std::str::from_utf8(&other).unwrap(), now), None, "{at}");
        }
        for bad in ["", ".", "AAAA", &text.replace('.', ""), &"A".repeat(5000)] {
            assert_eq!(links.read("mail", bad, now), None);
        }
        let stranger = Links::open(&dir.path().join("other.key"), String::new()).unwrap();
        assert_eq!(stranger.read("mail", text, now), None);
    }
}
