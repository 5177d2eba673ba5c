//! The configuration of a desk: which channels there are, and where their secrets lie.
//!
//! A YAML file, read and checked as a whole before anything is sent. Used by the desk, by `holdshort channels`, and by
//! `holdshort policy check`, which asks for names alone. A key that is not known is an error with its place. A secret is never
//! written here: a file or a variable holds it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs, io,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::{
    Channel, Channels, Kind,
    endpoint::Endpoint,
    signature::{Secret, WebhookKeys},
    webhook::Webhook,
};
use crate::{
    hold::{CHANNEL_NAME_CHARS_MAX, is_channel_name},
    policy::{Diagnostic, Source},
};

/// The largest configuration, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The most channels of one desk.
const CHANNELS_MAX: usize = 100;

/// The largest file of a secret, in bytes.
const SECRET_BYTES_MAX: u64 = 16 << 10;

/// Why a configuration is refused: all that was found, with its places.
#[derive(Debug)]
pub struct SettingsError(Vec<Diagnostic>);

impl SettingsError {
    /// Everything, with an empty line between findings.
    pub fn render(&self, color: bool) -> String {
        let rendered: Vec<String> = self.0.iter().map(|found| found.render(color)).collect();
        rendered.join("\n\n")
    }
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for SettingsError {}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    channels: BTreeMap<String, Spanned<Entry>>,
    #[serde(default)]
    default_channels: Option<Spanned<Vec<String>>>,
}

/// One channel: exactly one of these.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Entry {
    webhook: Option<Spanned<WebhookEntry>>,
}

/// Where a secret is: one of both.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretEntry {
    #[serde(default)]
    env: Option<String>,
    #[serde(default)]
    file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WebhookEntry {
    url: String,
    secret: SecretEntry,
    #[serde(default)]
    old_secret: Option<SecretEntry>,
    #[serde(default)]
    roots: Option<PathBuf>,
    #[serde(default)]
    private_network: bool,
    #[serde(default)]
    decisions: bool,
}

/// The names of the channels in the file at `path`. Nothing else of it is looked at: no secret is read.
///
/// # Errors
///
/// When the file cannot be read or is not of this form.
pub fn names(path: &Path) -> Result<BTreeSet<String>, SettingsError> {
    let (_, document) = read(path)?;
    Ok(document.channels.into_keys().collect())
}

impl Channels {
    /// Reads the file at `path`; paths in it are relative to its directory.
    ///
    /// # Errors
    ///
    /// With everything that is wrong in it.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        let (source, document) = read(path)?;
        let dir = path.parent().unwrap_or(Path::new("")).to_owned();
        let mut reader = Reader { source, problems: Vec::new(), dir };
        let channels = reader.document(document);
        if reader.problems.is_empty() { Ok(channels) } else { Err(SettingsError(reader.problems)) }
    }
}

fn read(path: &Path) -> Result<(Arc<Source>, Document), SettingsError> {
    let read = || -> io::Result<String> {
        let mut text = String::new();
        fs::File::open(path)?.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
        Ok(text)
    };
    let name = path.display().to_string();
    let refuse = |source: Source, at: usize, message: String| {
        SettingsError(vec![Diagnostic::error("C0003", &Arc::new(source), at..at, message)])
    };
    let source = match read() {
        Ok(text) => Source { name, text },
        Err(error) => {
            let message = format!("the configuration cannot be read: {error}");
            return Err(refuse(Source { name, text: String::new() }, 0, message));
        }
    };
    match serde_saphyr::from_str::<Document>(&source.text) {
        Ok(document) => Ok((Arc::new(source), document)),
        Err(error) => {
            let at = error.location().map_or(0, |place| source.offset(place.line(), place.column()));
            let says = error.without_snippet().to_string();
            Err(refuse(source, at, says.lines().next().unwrap_or_default().to_owned()))
        }
    }
}

struct Reader {
    source: Arc<Source>,
    problems: Vec<Diagnostic>,
    dir: PathBuf,
}

impl Reader {
    fn fail<T>(&mut self, at: &Spanned<T>, message: &str, hint: &str) {
        let at = self.source.offset(at.referenced.line(), at.referenced.column());
        let found = Diagnostic::error("C0003", &self.source, at..at, message);
        self.problems.push(found.hint(Some(hint.to_owned())));
    }

    fn document(&mut self, document: Document) -> Channels {
        let mut channels = Vec::new();
        for (name, entry) in &document.channels {
            if !is_channel_name(name) {
                let hint = format!("use up to {CHANNEL_NAME_CHARS_MAX} letters, digits, `-` and `_`");
                self.fail(entry, &format!("`{name}` cannot be the name of a channel"), &hint);
            }
            if channels.len() == CHANNELS_MAX {
                self.fail(
                    entry,
                    &format!("there are more than {CHANNELS_MAX} channels"),
                    "use several desks",
                );
                break;
            }
            match self.kind(&entry.value) {
                Some(Ok(kind)) => channels.push(Arc::new(Channel { name: name.as_str().into(), kind })),
                Some(Err((message, hint))) => self.fail(entry, &message, hint),
                None => {
                    self.fail(
                        entry,
                        "a channel is of exactly one kind",
                        "write for example `webhook:` below it",
                    );
                }
            }
        }
        let usual = document.default_channels.map(|usual| {
            for name in usual.value.iter().filter(|name| !document.channels.contains_key(*name)) {
                self.fail(
                    &usual,
                    &format!("there is no channel `{name}`"),
                    "write it below `channels:` first",
                );
            }
            usual.value.clone()
        });
        Channels { channels, usual }
    }

    /// What kind of channel it is, or why it cannot be; none where it is not of exactly one.
    fn kind(&self, entry: &Entry) -> Option<Result<Kind, Refused>> {
        let mut kinds =
            [entry.webhook.as_ref().map(|webhook| self.webhook(&webhook.value))].into_iter().flatten();
        let kind = kinds.next();
        kind.filter(|_| kinds.next().is_none())
    }

    fn webhook(&self, entry: &WebhookEntry) -> Result<Kind, Refused> {
        let mut secrets = vec![self.secret(&entry.secret)?];
        if let Some(old) = &entry.old_secret {
            secrets.push(self.secret(old)?);
        }
        let keys = WebhookKeys::new(&secrets)
            .map_err(|error| (error, "make one: `printf 'whsec_%s' \"$(openssl rand -base64 32)\"`"))?;
        let endpoint = self.endpoint(&entry.url, entry.roots.as_deref(), entry.private_network)?;
        Ok(Kind::Webhook(Webhook { endpoint, keys, decisions: entry.decisions }))
    }

    fn endpoint(&self, url: &str, roots: Option<&Path>, private_network: bool) -> Result<Endpoint, Refused> {
        let roots = roots.map(|path| self.dir.join(path));
        let endpoint = Endpoint::new(url, roots.as_deref(), private_network);
        endpoint.map_err(|error| (error, "write it as https://hooks.example.com/path"))
    }

    /// The secret itself, from wherever it is.
    fn secret(&self, entry: &SecretEntry) -> Result<Secret, Refused> {
        const HINT: &str =
            "write `{env: VARIABLE}` or `{file: PATH}`; the secret itself does not belong here";
        let found = match (&entry.env, &entry.file) {
            (Some(variable), None) => {
                std::env::var(variable).map_err(|_| format!("the variable `{variable}` is not set"))
            }
            (None, Some(path)) => {
                let path = self.dir.join(path);
                let read = || -> io::Result<String> {
                    let mut text = String::new();
                    fs::File::open(&path)?.take(SECRET_BYTES_MAX).read_to_string(&mut text)?;
                    Ok(text)
                };
                read().map_err(|error| format!("`{}` cannot be read: {error}", path.display()))
            }
            _ => Err("it is not said where the secret is".to_owned()),
        };
        let found = found.map_err(|error| (error, HINT))?;
        let secret = found.trim_end_matches(['\r', '\n']);
        if secret.is_empty() || secret.contains(char::is_control) {
            return Err(("a secret is one line of text".to_owned(), HINT));
        }
        Ok(Secret::new(secret.to_owned()))
    }
}

/// What is wrong, and what to do about it.
type Refused = (String, &'static str);
