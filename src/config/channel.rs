//! Notification channels, as read from `notify`.
//! Only values are here; sending is the work of the notify room.

use std::collections::BTreeSet;

use super::target::{CommandLine, Secret};
use crate::outcome::NotificationKind;

#[derive(Clone, Debug, PartialEq)]
pub struct Channel {
    /// Unique, and the same after a restart.
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
    /// Slack's incoming webhooks, and services compatible with them.
    Slack,
    Discord,
    /// `sendMessage` of Telegram's bot API.
    Telegram,
    Ntfy,
    /// The watchdog's own generic JSON.
    Json,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Email {
    pub to: String,
    /// Default: this account at this host.
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
    /// A name or an IP address, the latter without brackets.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
    pub security: Security,
    pub credentials: Option<(Secret, Secret)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// STARTTLS where the server offers it; required where a password is sent to another machine.
    StartTls,
    /// TLS from the first byte on.
    Tls,
}
