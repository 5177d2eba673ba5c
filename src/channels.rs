//! Channels: how people hear of what waits where they are anyway, and what outside systems hear of decisions.
//!
//! Run by the desk. `settings` reads which channels there are; `dispatch` fills the outbox of the record from the audit log and
//! empties it; a file for each kind says how that service is spoken to. A channel tells and asks. What comes back from one is
//! checked by its kind, and goes to a gate through the desk's one way for verdicts: nothing here decides.
//!
//! What is sent is sent once across all processes on a record, as long as none dies between a service's answer and writing it
//! down; then it is sent again. Where a service takes a key for such repetitions (webhooks, PagerDuty, mail), it gets one.

pub mod settings;
pub mod signature;
#[cfg(test)]
mod corpus;
mod desktop;
mod dispatch;
pub(crate) mod endpoint;
mod links;
mod mail;
mod message;
mod pagerduty;
mod slack;
mod sms;
mod socket_mode;
mod teams;
mod webhook;

use std::{sync::Arc, time::Duration};

pub use self::{
    dispatch::{Dispatcher, pause},
    links::{Link, Links},
    mail::Mail,
    slack::{BadClick, Click, Slack},
    socket_mode::{Delivered as DeliveredClick, Socket},
    webhook::{BadDecision, Webhook},
};
use crate::{control::api::HoldView, store};

/// How long one attempt to send may take.
pub const SEND_SECONDS_MAX: u64 = 30;

/// All channels of a desk.
#[derive(Debug, Default)]
pub struct Channels {
    channels: Vec<Arc<Channel>>,
    /// Those that hear of a call whose rules name none; none: all of them.
    usual: Option<Vec<String>>,
}

impl Channels {
    /// The channels of this name: several, where it has several addresses.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Arc<Channel>> {
        self.channels.iter().filter(move |channel| &*channel.name == name)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Channel>> {
        self.channels.iter()
    }

    fn is_usual(&self, name: &str) -> bool {
        self.usual.as_ref().is_none_or(|usual| usual.iter().any(|usual| usual == name))
    }
}

/// One channel.
#[derive(Debug)]
pub struct Channel {
    /// What rules and paths call it.
    pub name: Arc<str>,
    /// What the outbox calls it: with the address, where it has several.
    pub outbox: Arc<str>,
    /// Which service it is.
    pub kind: Kind,
}

/// The services.
#[derive(Debug)]
pub enum Kind {
    /// Any program that takes signed webhooks.
    Webhook(Webhook),
    /// A conversation in Slack.
    Slack(Slack),
    /// A workflow in Microsoft Teams.
    Teams(teams::Teams),
    /// A service in PagerDuty.
    PagerDuty(pagerduty::PagerDuty),
    /// A reader of mail.
    Mail(Mail),
    /// A telephone.
    Sms(sms::Sms),
    /// The desktop of whoever runs the desk.
    Desktop(desktop::Desktop),
}

impl Kind {
    /// The word that the configuration has for it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::Slack(_) => "slack",
            Self::Teams(_) => "teams",
            Self::PagerDuty(_) => "pagerduty",
            Self::Mail(_) => "mail",
            Self::Sms(_) => "sms",
            Self::Desktop(_) => "desktop",
        }
    }

    /// Whether each piece of news is sent for itself, also of a hold that nothing was said about before.
    fn tells_everything(&self) -> bool {
        matches!(self, Self::Webhook(_))
    }
}

/// What a channel is to tell now.
#[derive(Debug)]
pub struct Telling<'a> {
    /// What has happened.
    pub news: store::News,
    /// The hold as it is now, whole.
    pub hold: &'a HoldView,
    /// A name of this piece of news: the same at every attempt, and no other has it.
    pub id: &'a str,
    /// Where the hold's page is.
    pub link: &'a str,
    /// The name that the service gave to the message about this hold, if there is one.
    pub message: Option<&'a str>,
    /// What makes links that decide.
    pub links: &'a Links,
}

/// Why something was not sent.
#[derive(Debug, thiserror::Error)]
pub enum NotSent {
    /// It can be tried again, not before this time.
    #[error("{why}")]
    Again {
        /// What went wrong.
        why: String,
        /// How long the service wants to be left alone.
        after: Option<Duration>,
    },
    /// Trying again would come to the same.
    #[error("{0}")]
    Never(String),
}

impl NotSent {
    fn again(why: impl ToString) -> Self {
        Self::Again { why: why.to_string(), after: None }
    }
}

impl Channel {
    /// Tells it. Gives the name of the message, by which it can be changed later or answered to.
    ///
    /// # Errors
    ///
    /// When the service did not take it, or nobody knows whether it did.
    pub async fn tell(&self, telling: &Telling<'_>) -> Result<Option<String>, NotSent> {
        in_time(async {
            match &self.kind {
                Kind::Webhook(webhook) => webhook.tell(telling).await.map(|()| None),
                Kind::Slack(slack) => slack.tell(telling).await,
                Kind::Teams(teams) => teams.tell(telling).await,
                Kind::PagerDuty(service) => service.tell(telling).await,
                Kind::Mail(mail) => mail.tell(telling, &self.name).await,
                Kind::Sms(sms) => sms.tell(telling).await,
                Kind::Desktop(desktop) => desktop.tell(telling).await,
            }
        })
        .await
    }

    /// Sends a message that says that it is a test.
    ///
    /// # Errors
    ///
    /// As [`Channel::tell`].
    pub async fn test(&self) -> Result<(), NotSent> {
        in_time(async {
            match &self.kind {
                Kind::Webhook(webhook) => webhook.test().await,
                Kind::Slack(slack) => slack.test().await,
                Kind::Teams(teams) => teams.test().await,
                Kind::PagerDuty(service) => service.test().await,
                Kind::Mail(mail) => mail.test().await,
                Kind::Sms(sms) => sms.test().await,
                Kind::Desktop(desktop) => desktop.test().await,
            }
        })
        .await
    }
}

async fn in_time<T>(sent: impl Future<Output = Result<T, NotSent>>) -> Result<T, NotSent> {
    let most = Duration::from_secs(SEND_SECONDS_MAX);
    tokio::time::timeout(most, sent).await.unwrap_or_else(|_| Err(NotSent::again("it took too long")))
}
