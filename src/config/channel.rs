//! Whom to tell and how, as `notify` was read.

use std::collections::BTreeSet;

use super::target::{CommandLine, Secret};
use crate::outcome::NotificationKind;

#[derive(Clone, Debug, PartialEq)]
pub struct Channel {
    /// Tells it from the others, over restarts too.
    pub id: String,
    pub shown: String,
    pub destination: Destination,
    pub on: BTreeSet<NotificationKind>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Destination {
    Webhook(Webhook),
    Email(Email),
    /// The message as JSON on the standard input of this command.
    Command(CommandLine),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Webhook {
    /// http or https, without user and password.
    pub url: Secret,
    /// The value of the header `Authorization`, from user and password.
    pub authorization: Option<Secret>,
    pub format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Slack's incoming webhooks, and those that speak like them.
    Slack,
    Discord,
    /// `sendMessage` of Telegram's bots.
    Telegram,
    Ntfy,
    /// The contract's own.
    Json,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Email {
    pub to: String,
    /// From whom; else from this account at this host.
    pub from: Option<String>,
    pub via: MailTransport,
}

#[derive(Clone, Debug, PartialEq)]
pub enum MailTransport {
    Sendmail,
    Smtp(Smtp),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Smtp {
    /// A name or an address, without brackets.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
    pub security: Security,
    pub credentials: Option<(Secret, Secret)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// By STARTTLS where it is offered; it must be where a password goes to another machine.
    StartTls,
    /// From the first byte on.
    Tls,
}
