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
    desktop::Desktop,
    endpoint::Endpoint,
    mail::{Encryption, Mail, Server},
    pagerduty::PagerDuty,
    signature::{Secret, WebhookKeys},
    slack::{Clicks, Slack},
    sms::Sms,
    teams::Teams,
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

/// The most addresses of one channel.
const ADDRESSES_MAX: usize = 50;

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
    slack: Option<Spanned<SlackEntry>>,
    teams: Option<Spanned<TeamsEntry>>,
    pagerduty: Option<Spanned<PagerDutyEntry>>,
    mail: Option<Spanned<MailEntry>>,
    sms: Option<Spanned<SmsEntry>>,
    desktop: Option<Spanned<DesktopEntry>>,
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SlackEntry {
    conversation: String,
    token: SecretEntry,
    #[serde(default)]
    workspace: Option<String>,
    #[serde(default)]
    app: Option<String>,
    #[serde(default)]
    signing_secret: Option<SecretEntry>,
    #[serde(default)]
    app_token: Option<SecretEntry>,
    #[serde(default)]
    api: Option<String>,
    #[serde(default)]
    roots: Option<PathBuf>,
    #[serde(default)]
    private_network: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TeamsEntry {
    /// With it, anybody can post: it is a secret.
    url: SecretEntry,
    #[serde(default)]
    roots: Option<PathBuf>,
    #[serde(default)]
    private_network: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PagerDutyEntry {
    routing_key: SecretEntry,
    #[serde(default)]
    severity: Severity,
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    roots: Option<PathBuf>,
    #[serde(default)]
    private_network: bool,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Severity {
    Critical,
    Error,
    #[default]
    Warning,
    Info,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MailEntry {
    server: String,
    #[serde(default)]
    port: Option<u16>,
    #[serde(default)]
    encryption: Encryption,
    #[serde(default)]
    roots: Option<PathBuf>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    password: Option<SecretEntry>,
    from: String,
    to: Vec<String>,
    #[serde(default)]
    links_decide: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SmsEntry {
    account: String,
    token: SecretEntry,
    from: String,
    to: Vec<String>,
    #[serde(default)]
    api: Option<String>,
    #[serde(default)]
    roots: Option<PathBuf>,
    #[serde(default)]
    private_network: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DesktopEntry {}

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
                Some(Ok(kinds)) => channels.extend(kinds.into_iter().map(|(address, kind)| {
                    let outbox = address.map_or_else(|| name.clone(), |address| format!("{name}/{address}"));
                    Arc::new(Channel { name: name.as_str().into(), outbox: outbox.into(), kind })
                })),
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
    fn kind(&self, entry: &Entry) -> Option<Result<Kinds, Refused>> {
        let mut kinds = [
            entry.webhook.as_ref().map(|webhook| self.webhook(&webhook.value).map(one)),
            entry.slack.as_ref().map(|slack| self.slack(&slack.value).map(one)),
            entry.teams.as_ref().map(|teams| self.teams(&teams.value).map(one)),
            entry.pagerduty.as_ref().map(|service| self.pagerduty(&service.value).map(one)),
            entry.mail.as_ref().map(|mail| self.mail(&mail.value)),
            entry.sms.as_ref().map(|sms| self.sms(&sms.value)),
            entry.desktop.as_ref().map(|_| Ok(one(Kind::Desktop(Desktop)))),
        ]
        .into_iter()
        .flatten();
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

    fn slack(&self, entry: &SlackEntry) -> Result<Kind, Refused> {
        let is_id = |text: &str, kinds: &[char]| {
            text.starts_with(kinds)
                && text.len() <= 32
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
        };
        if !is_id(&entry.conversation, &['C', 'G', 'D']) {
            let message = format!("`{}` is not the id of a conversation", entry.conversation);
            return Err((message, "write the id, such as C0123456789, not the name"));
        }
        let has_clicks = entry.signing_secret.is_some() || entry.app_token.is_some();
        let clicks = match (has_clicks, &entry.workspace) {
            (false, None) => None,
            (true, Some(workspace)) if is_id(workspace, &['T', 'E']) => Some(Clicks {
                workspace: workspace.clone(),
                app: entry.app.clone(),
                signing_secret: entry
                    .signing_secret
                    .as_ref()
                    .map(|secret| self.secret(secret))
                    .transpose()?,
                app_token: entry.app_token.as_ref().map(|token| self.secret(token)).transpose()?,
            }),
            _ => {
                let hint = "write `workspace: T0123456789`, and `signing_secret:` or `app_token:`; or none of them, then there are no buttons";
                return Err(("whose clicks count is not wholly said".to_owned(), hint));
            }
        };
        let api = entry.api.as_deref().unwrap_or("https://slack.com/api");
        Ok(Kind::Slack(Slack {
            endpoint: self.endpoint(api, entry.roots.as_deref(), entry.private_network)?,
            token: self.secret(&entry.token)?,
            conversation: entry.conversation.clone(),
            clicks,
        }))
    }

    fn teams(&self, entry: &TeamsEntry) -> Result<Kind, Refused> {
        let url = self.secret(&entry.url)?;
        let endpoint = self.endpoint(url.expose(), entry.roots.as_deref(), entry.private_network)?;
        Ok(Kind::Teams(Teams { endpoint }))
    }

    fn pagerduty(&self, entry: &PagerDutyEntry) -> Result<Kind, Refused> {
        let url = entry.url.as_deref().unwrap_or("https://events.pagerduty.com/v2/enqueue");
        let severity = match entry.severity {
            Severity::Critical => "critical",
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Info => "info",
        };
        Ok(Kind::PagerDuty(PagerDuty {
            endpoint: self.endpoint(url, entry.roots.as_deref(), entry.private_network)?,
            routing_key: self.secret(&entry.routing_key)?,
            severity,
        }))
    }

    fn mail(&self, entry: &MailEntry) -> Result<Kinds, Refused> {
        let roots = entry.roots.as_ref().map(|path| self.dir.join(path));
        let one = |to: &String| {
            let user = match (&entry.user, &entry.password) {
                (None, None) => None,
                (Some(user), Some(password)) => Some((user.as_str(), self.secret(password)?)),
                _ => {
                    let hint = "write both, or neither";
                    return Err(("a `user` has a `password`, and a password has a user".to_owned(), hint));
                }
            };
            let server = Server {
                host: &entry.server,
                port: entry.port,
                encryption: entry.encryption,
                roots: roots.as_deref(),
                user,
            };
            let mail = Mail::new(server, &entry.from, to, entry.links_decide).map_err(|error| {
                (error, "write `from: holdshort@example.com` and `to: [alice@example.com]`")
            })?;
            Ok((Some(to.clone()), Kind::Mail(mail)))
        };
        addresses(&entry.to)?.iter().map(one).collect()
    }

    fn sms(&self, entry: &SmsEntry) -> Result<Kinds, Refused> {
        const HINT: &str = "write it as \"+15551234567\", in quotes";
        if entry.account.is_empty() || !entry.account.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err((format!("`{}` is not the id of an account", entry.account), "it begins with AC"));
        }
        let api = entry.api.as_deref().unwrap_or("https://api.twilio.com");
        let one = |to: &String| {
            let digits = to.strip_prefix('+').unwrap_or_default();
            if !(7..=15).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err((format!("`{to}` is not a telephone number"), HINT));
            }
            let sms = Sms {
                endpoint: self.endpoint(api, entry.roots.as_deref(), entry.private_network)?,
                account: entry.account.clone(),
                token: self.secret(&entry.token)?,
                from: entry.from.clone(),
                to: to.clone(),
            };
            Ok((Some(to.clone()), Kind::Sms(sms)))
        };
        addresses(&entry.to)?.iter().map(one).collect()
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

/// The channels of one entry, each with its address where there can be several.
type Kinds = Vec<(Option<String>, Kind)>;

fn one(kind: Kind) -> Kinds {
    vec![(None, kind)]
}

/// The addresses of an entry: some, not too many, none twice.
fn addresses(written: &[String]) -> Result<&[String], Refused> {
    let distinct: BTreeSet<&String> = written.iter().collect();
    if written.is_empty() || written.len() > ADDRESSES_MAX || distinct.len() != written.len() {
        return Err((format!("`to` has 1 to {ADDRESSES_MAX} addresses, each once"), "write `to: [ADDRESS]`"));
    }
    Ok(written)
}

/// What is wrong, and what to do about it.
type Refused = (String, &'static str);
