//! E-mail: a letter with the call and a link for its one reader, and another one when the hold has ended.
//!
//! Sent by SMTP with TLS, always. Plain text alone, and nothing of a call in a header but its name, encoded. The link opens a page of
//! the desk that shows the call whole; looking decides nothing, and what is sent back by mail is never read. A letter has a
//! Message-ID of its own, the same at every attempt: mail systems know a repetition by it, mostly.

use std::{fmt, path::Path, time::Duration};

use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message as Letter, Tokio1Executor,
    message::{
        Mailbox,
        header::{ContentType, HeaderName, HeaderValue},
    },
    transport::smtp::{
        authentication::Credentials,
        client::{Certificate, CertificateStore, Tls, TlsParameters},
    },
};

use serde::Deserialize;

use super::{NotSent, Telling, message::Message, signature::Secret};
use crate::store::News;

/// Characters of a call that a letter shows.
const CALL_CHARS_MAX: usize = 20_000;

/// The longest subject, in characters.
const SUBJECT_CHARS_MAX: usize = 150;

/// How long one step of SMTP may take.
const STEP: Duration = Duration::from_secs(10);

/// One reader, by one server.
pub struct Mail {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    to: Mailbox,
    /// Whether the link in a letter decides in the name of its reader.
    decides: bool,
}

impl fmt::Debug for Mail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mail").field("to", &self.to.email).finish_non_exhaustive()
    }
}

/// How a server is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Encryption {
    /// From the first byte (RFC 8314).
    Implicit,
    /// By STARTTLS, or not at all.
    #[default]
    StartTls,
}

/// A mail server, as the configuration has it.
pub(super) struct Server<'a> {
    pub(super) host: &'a str,
    pub(super) port: Option<u16>,
    pub(super) encryption: Encryption,
    pub(super) roots: Option<&'a Path>,
    pub(super) user: Option<(&'a str, Secret)>,
}

impl Mail {
    /// For one reader.
    ///
    /// # Errors
    ///
    /// What is wrong with the configuration, in words.
    pub(super) fn new(server: Server<'_>, from: &str, to: &str, decides: bool) -> Result<Self, String> {
        let mailbox = |text: &str| {
            text.parse::<Mailbox>()
                .map_err(|_| format!("`{text}` is not an address such as alice@example.com"))
        };
        let (from, to) = (mailbox(from)?, mailbox(to)?);
        let mut tls = TlsParameters::builder(server.host.to_owned());
        if let Some(path) = server.roots {
            let unusable = |error: &dyn fmt::Display| format!("`{}` cannot be used: {error}", path.display());
            let pem = std::fs::read(path).map_err(|error| unusable(&error))?;
            let root = Certificate::from_pem(&pem).map_err(|error| unusable(&error))?;
            tls = tls.certificate_store(CertificateStore::None).add_root_certificate(root);
        }
        let tls = tls.build_rustls().map_err(|error| format!("TLS cannot be used: {error}"))?;
        let (tls, usual) = match server.encryption {
            Encryption::Implicit => (Tls::Wrapper(tls), 465),
            Encryption::StartTls => (Tls::Required(tls), 587),
        };
        let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(server.host)
            .port(server.port.unwrap_or(usual))
            .tls(tls)
            .timeout(Some(STEP));
        if let Some((name, password)) = server.user {
            transport =
                transport.credentials(Credentials::new(name.to_owned(), password.expose().to_owned()));
        }
        Ok(Self { transport: transport.build(), from, to, decides })
    }

    /// The address of the reader, if the links to them decide.
    pub fn decides_as(&self) -> Option<String> {
        self.decides.then(|| self.to.email.to_string())
    }

    pub(super) async fn tell(&self, telling: &Telling<'_>, name: &str) -> Result<Option<String>, NotSent> {
        let (letter, id) = self.letter(telling, name)?;
        self.send(letter).await?;
        // Later ones belong to the first.
        let first = telling.message.filter(|_| telling.news != News::Held).map(str::to_owned);
        Ok(Some(first.unwrap_or(id)))
    }

    /// What is sent of a hold by the channel `name`, and the letter's Message-ID.
    pub(super) fn letter(&self, telling: &Telling<'_>, name: &str) -> Result<(Letter, String), NotSent> {
        let message = Message::of(telling.hold, CALL_CHARS_MAX);
        let link = match self.decides_as().filter(|_| message.waits) {
            Some(address) => telling.links.link(name, &address, telling.hold),
            None => telling.link.to_owned(),
        };
        let mut text = message.text(&link);
        if message.waits {
            text.push_str("\nThe link shows the whole call and lets you decide. Do not pass it on: whoever has it can decide as you. ");
            text.push_str("Answers to this mail are not read.\n");
        }
        let id = format!("<{}.{}@holdshort.invalid>", telling.id, name_of(&self.to));
        let mut letter = Letter::builder().message_id(Some(id.clone())).subject(subject(&message.title));
        if let Some(first) = telling.message {
            letter = letter.in_reply_to(first.to_owned()).references(first.to_owned());
        }
        Ok((self.written(letter, text)?, id))
    }

    pub(super) async fn test(&self) -> Result<(), NotSent> {
        let letter = Letter::builder().message_id(None).subject(subject("a test"));
        let words = "This is a test of Holdshort: calls that wait for approval will be told here.\n";
        self.send(self.written(letter, words.to_owned())?).await
    }

    fn written(&self, letter: lettre::message::MessageBuilder, text: String) -> Result<Letter, NotSent> {
        letter
            .from(self.from.clone())
            .to(self.to.clone())
            .header(ContentType::TEXT_PLAIN)
            .body(text)
            .map(|mut letter| {
                // Nobody's absence answers it (RFC 3834).
                let name = HeaderName::new_from_ascii_str("Auto-Submitted");
                letter.headers_mut().insert_raw(HeaderValue::new(name, "auto-generated".to_owned()));
                letter
            })
            .map_err(|error| NotSent::Never(error.to_string()))
    }

    async fn send(&self, letter: Letter) -> Result<(), NotSent> {
        match self.transport.send(letter).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_permanent() => Err(NotSent::Never(words(&error))),
            Err(error) => Err(NotSent::again(words(&error))),
        }
    }
}

/// An error with what lies behind it.
fn words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut behind = error.source();
    while let Some(error) = behind {
        words.push_str(&format!(": {error}"));
        behind = error.source();
    }
    words
}

/// An address as a part of a Message-ID.
fn name_of(mailbox: &Mailbox) -> String {
    let digest = crate::digest::Digest::of(mailbox.email.to_string().as_bytes()).to_string();
    digest.chars().take(16).collect()
}

fn subject(title: &str) -> String {
    format!("[Holdshort] {}", title.chars().take(SUBJECT_CHARS_MAX).collect::<String>())
}
