//! What a `postgres://` URL says: where the server is, who asks, and how the connection is protected.
//!
//! Read once, at the start. Never shows a password: not in `Debug`, not in `Display`, not in an error. Whatever would let a
//! connection be read or answered by others without a word is refused here, before a byte is sent.

use std::{
    env, fmt, fs,
    net::IpAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use percent::decode;
use url::Url;

/// The port where none is given.
const PORT_DEFAULT: u16 = 5432;

/// The longest password file that is read, in bytes.
const PASSFILE_BYTES_MAX: u64 = 1 << 20;

/// Why a URL is not one of a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It cannot be read.
    #[error("the store's URL cannot be read: {0}")]
    Unreadable(String),
    /// It has something that this program does not know.
    #[error(
        "the store's URL has `{0}`, which is not known; known are host, sslmode, sslrootcert, passfile and danger_plaintext"
    )]
    Unknown(String),
    /// It says how to protect the connection in a way that protects nothing, or not for certain.
    #[error(
        "`sslmode={0}` can be answered by anybody: use `sslmode=verify-full`, which checks the server's certificate"
    )]
    Unsafe(String),
    /// It wants plain text to another machine.
    #[error(
        "the connection to `{0}` would not be encrypted: remove `sslmode=disable`, or add `danger_plaintext=1` where nobody can listen"
    )]
    Plain(String),
    /// The file with passwords can be read by others.
    #[error("`{}` can be read by others (mode {mode:03o}), so no password is taken from it", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

/// A PostgreSQL database to keep the record in.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrl {
    pub(super) host: Host,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) password: Option<String>,
    pub(super) database: String,
    /// None: the connection is in plain text.
    pub(super) tls: Option<Tls>,
}

/// Where the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    Name(String),
    /// The directory of its socket.
    Socket(PathBuf),
}

/// How the server shows who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tls {
    /// The file with the authorities that may vouch for it; none: those of the system.
    pub(super) roots: Option<PathBuf>,
}

impl fmt::Display for PostgresUrl {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, port, database, .. } = self;
        match &self.host {
            Host::Name(name) if name.contains(':') => {
                write!(f, "postgres://{user}@[{name}]:{port}/{database}")
            }
            Host::Name(name) => write!(f, "postgres://{user}@{name}:{port}/{database}"),
            Host::Socket(dir) => write!(f, "postgres://{user}@:{port}/{database}?host={}", dir.display()),
        }
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresUrl({self})")
    }
}

/// What stands behind the question mark.
#[derive(Default)]
struct Extra {
    host: Option<String>,
    mode: Option<String>,
    roots: Option<PathBuf>,
    passfile: Option<PathBuf>,
    danger_plaintext: bool,
}

impl PostgresUrl {
    /// Whether `text` is the URL of a database, and not the name of a file.
    pub fn is_one(text: &str) -> bool {
        text.starts_with("postgres://") || text.starts_with("postgresql://")
    }

    /// Reads a URL, and what it leaves out from the environment (`PGUSER`, `PGPASSWORD`, `PGDATABASE`, `PGPASSFILE`).
    ///
    /// # Errors
    ///
    /// See [`UrlError`], which never has the password in it.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        // The URL is not repeated in the error, because of its password.
        let url = Url::parse(&with_host(text)).map_err(|error| UrlError::Unreadable(error.to_string()))?;
        let extra = Extra::read(&url)?;
        let named =
            extra.host.clone().or_else(|| url.host_str().map(|host| decode(host.trim_matches(['[', ']']))));
        let host = match named.filter(|host| !host.is_empty()) {
            None => Host::Name("localhost".to_owned()),
            Some(dir) if dir.starts_with('/') => Host::Socket(dir.into()),
            Some(name) => Host::Name(name),
        };
        let port = url.port().unwrap_or(PORT_DEFAULT);
        let user = Some(decode(url.username())).filter(|user| !user.is_empty());
        let user = user.or_else(|| env::var("PGUSER").ok()).or_else(own_name);
        let user = user.ok_or_else(|| UrlError::Unreadable("it names no user".to_owned()))?;
        let database = Some(decode(url.path().trim_start_matches('/'))).filter(|name| !name.is_empty());
        let database = database.or_else(|| env::var("PGDATABASE").ok()).unwrap_or_else(|| user.clone());
        let tls = extra.tls(&host)?;
        let given = url.password().map(decode).or_else(|| env::var("PGPASSWORD").ok());
        let password = match given {
            Some(password) => Some(password),
            None => from_file(extra.passfile, &host, port, &database, &user)?,
        };
        Ok(Self { host, port, user, password, database, tls })
    }
}

/// `text`, in which a host is named: URLs of databases may leave it out, others may not.
fn with_host(text: &str) -> String {
    let begin = text.find("://").map_or(0, |at| at + 3);
    let end = text[begin..].find(['/', '?']).map_or(text.len(), |at| begin + at);
    let host = text[begin..end].rfind('@').map_or(begin, |at| begin + at + 1);
    let is_named = !matches!(text.as_bytes().get(host..end), None | Some([] | [b':', ..]));
    if is_named { text.to_owned() } else { format!("{}localhost{}", &text[..host], &text[host..]) }
}

impl Extra {
    fn read(url: &Url) -> Result<Self, UrlError> {
        let mut extra = Self::default();
        for (name, value) in url.query_pairs() {
            match &*name {
                "host" => extra.host = Some(value.into_owned()),
                "sslmode" => extra.mode = Some(value.into_owned()),
                "sslrootcert" => extra.roots = Some(PathBuf::from(&*value)),
                "passfile" => extra.passfile = Some(PathBuf::from(&*value)),
                "danger_plaintext" => extra.danger_plaintext = &*value == "1",
                other => return Err(UrlError::Unknown(other.to_owned())),
            }
        }
        Ok(extra)
    }

    /// In plain text only where nobody can listen, or where somebody has said so; otherwise the server shows who it is.
    fn tls(&self, host: &Host) -> Result<Option<Tls>, UrlError> {
        let Host::Name(name) = host else { return Ok(None) };
        let is_here = name == "localhost" || name.parse().is_ok_and(|address: IpAddr| address.is_loopback());
        let wants = match self.mode.as_deref() {
            None => !is_here && !self.danger_plaintext || self.roots.is_some(),
            Some("disable") if is_here || self.danger_plaintext => false,
            Some("disable") => return Err(UrlError::Plain(name.clone())),
            Some("require" | "verify-ca" | "verify-full") => true,
            Some(other) => return Err(UrlError::Unsafe(other.to_owned())),
        };
        Ok(wants.then(|| Tls { roots: self.roots.clone() }))
    }
}

fn own_name() -> Option<String> {
    uzers::get_user_by_uid(rustix::process::geteuid().as_raw())
        .map(|user| user.name().to_string_lossy().into_owned())
}

/// The password that the file of passwords has for this connection: lines of `host:port:database:user:password`, where `*` is
/// any.
fn from_file(
    named: Option<PathBuf>,
    host: &Host,
    port: u16,
    database: &str,
    user: &str,
) -> Result<Option<String>, UrlError> {
    let usual = || env::var_os("HOME").map(|home| Path::new(&home).join(".pgpass"));
    let Some(path) = named.or_else(|| env::var_os("PGPASSFILE").map(PathBuf::from)).or_else(usual) else {
        return Ok(None);
    };
    let Ok(metadata) = path.metadata() else { return Ok(None) };
    if !metadata.is_file() || metadata.len() > PASSFILE_BYTES_MAX {
        return Ok(None);
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(UrlError::Open { path, mode });
    }
    let Ok(text) = fs::read_to_string(&path) else { return Ok(None) };
    let host = match host {
        Host::Name(name) => name.as_str(),
        Host::Socket(_) => "localhost",
    };
    let wanted = [host, &port.to_string(), database, user];
    Ok(text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut fields = fields(line).into_iter();
        let fits =
            wanted.iter().all(|wanted| fields.next().is_some_and(|field| field == "*" || field == *wanted));
        fields.next().filter(|_| fits)
    }))
}

/// The fields of a line of passwords: between colons, where `\:` is a colon and `\\` a backslash.
fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut field, mut letters) = (Vec::new(), String::new(), line.chars());
    while let Some(letter) = letters.next() {
        match letter {
            ':' if fields.len() < 4 => fields.push(std::mem::take(&mut field)),
            '\\' => field.extend(letters.next()),
            letter => field.push(letter),
        }
    }
    fields.push(field);
    fields
}

mod percent {
    //! `%41` for `A`, as URLs write what has a meaning of its own.

    pub(super) fn decode(text: &str) -> String {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let [first, after @ ..] = rest {
            let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
            match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| *first == b'%') {
                Some(byte) => {
                    bytes.push(byte);
                    rest = &after[2..];
                }
                None => {
                    bytes.push(*first);
                    rest = after;
                }
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> PostgresUrl {
        PostgresUrl::parse(text).unwrap()
    }

    #[test]
    fn a_url_says_where_and_who_and_never_shows_its_password() {
        let url = parsed("postgres://gate:s%40cret@db.example.com:6000/hold?sslrootcert=/etc/ca.pem");
        assert_eq!((url.user.as_str(), url.password.as_deref()), ("gate", Some("s@cret")));
        assert_eq!((url.port, url.database.as_str()), (6000, "hold"));
        assert_eq!(url.tls, Some(Tls { roots: Some("/etc/ca.pem".into()) }));
        for shown in [url.to_string(), format!("{url:?}")] {
            assert!(!shown.contains("cret") && shown.contains("gate@db.example.com:6000/hold"), "{shown}");
        }
        let socket = parsed("postgresql://gate@/hold?host=/run/postgresql");
        assert_eq!((&socket.host, &socket.tls), (&Host::Socket("/run/postgresql".into()), &None));
        assert_eq!(parsed(&socket.to_string()), socket, "what is shown can be used");
        assert_eq!(parsed("postgres://u:p@:6000/h").host, Host::Name("localhost".to_owned()));
    }

    #[test]
    fn another_machine_is_reached_in_plain_text_only_where_somebody_has_said_so() {
        for (text, is_encrypted) in [
            ("postgres://a:b@db/h", true),
            ("postgres://a:b@db/h?sslmode=require", true),
            ("postgres://a:b@localhost/h", false),
            ("postgres://a:b@[::1]/h", false),
            ("postgres://a:b@127.0.0.1/h?sslmode=verify-full", true),
            ("postgres://a:b@db/h?sslmode=disable&danger_plaintext=1", false),
        ] {
            assert_eq!(parsed(text).tls.is_some(), is_encrypted, "{text}");
        }
        let refused = |text| PostgresUrl::parse(text).unwrap_err();
        assert_eq!(refused("postgres://a:b@db/h?sslmode=disable"), UrlError::Plain("db".to_owned()));
        assert_eq!(refused("postgres://a:b@db/h?sslmode=prefer"), UrlError::Unsafe("prefer".to_owned()));
        assert_eq!(refused("postgres://a:b@db/h?sslmod=require"), UrlError::Unknown("sslmod".to_owned()));
        assert!(
            matches!(refused("postgres://a:secret@db:port/h"), UrlError::Unreadable(why) if !why.contains("secret"))
        );
    }

    #[test]
    fn a_password_is_taken_from_a_file_that_nobody_else_can_read() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pass");
        fs::write(&path, "# a comment\nother:*:*:*:no\ndb:*:hold:gate:p\\:w\\\\d\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let text = format!("postgres://gate@db/hold?passfile={}", path.display());
        assert_eq!(parsed(&text).password.as_deref(), Some("p:w\\d"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(PostgresUrl::parse(&text), Err(UrlError::Open { mode: 0o640, .. })));
    }
}
