//! Messages by mail, written by lettre. Sent by the local sendmail, run as any other command, or to a mail server.

use std::path::PathBuf;
use std::time::Duration;

use lettre::message::header::ContentType;
use lettre::message::{Mailbox, MessageBuilder};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{Message as Mail, SmtpTransport, Transport};

use super::{Means, Message, Outcome, PATIENCE};
use crate::command::find_program;
use crate::config::{Email, Security, Smtp, Via};

/// Where sendmail lies when it is not in PATH, as under cron.
const PLACES: &str = "/usr/sbin:/usr/lib:/usr/local/sbin:/usr/bin";
/// How long a server may be silent between two answers.
const SILENCE: Duration = PATIENCE;

pub(super) fn deliver(email: &Email, message: &Message, means: &Means) -> Outcome {
    let from = match &email.from {
        Some(from) => from.clone(),
        None => format!("{}@{}", account(means), message.host),
    };
    let mail = match write(email, &from, message) {
        Ok(mail) => mail,
        Err(why) => return Outcome::Refused(why),
    };
    match &email.via {
        Via::Sendmail => by_sendmail(&mail, means),
        Via::Smtp(smtp) => by_smtp(smtp, &mail, &message.host, means),
    }
}

/// The name that mail from this account bears.
fn account(means: &Means) -> String {
    let named = means.env.iter().find(|(name, _)| name == "USER" || name == "LOGNAME").map(|(_, value)| value.clone());
    let named = named.or_else(|| std::env::var("USER").ok()).or_else(|| std::env::var("LOGNAME").ok());
    named.filter(|name| !name.is_empty()).unwrap_or_else(|| "watchdog".into())
}

fn write(email: &Email, from: &str, message: &Message) -> Result<Mail, String> {
    let mailbox = |text: &str| text.parse::<Mailbox>().map_err(|error| format!("{text} is no address: {error}"));
    let (subject, rest) = message.parts();
    let body = if rest.is_empty() { subject } else { rest };
    MessageBuilder::new()
        .from(mailbox(from)?)
        .to(mailbox(&email.to)?)
        .subject(subject)
        .message_id(Some(format!("<{}@{}>", message.id, message.host)))
        .date(std::time::UNIX_EPOCH + Duration::from_millis(u64::try_from(message.at.as_ms()).unwrap_or(0)))
        .header(ContentType::TEXT_PLAIN)
        .body(format!("{body}\n"))
        .map_err(|error| format!("no mail can be written: {error}"))
}

fn by_sendmail(mail: &Mail, means: &Means) -> Outcome {
    let program = match sendmail(means) {
        Ok(program) => program.display().to_string(),
        Err(error) => return Outcome::Failed(error, None),
    };
    let envelope = mail.envelope();
    let from = envelope.from().map(ToString::to_string).unwrap_or_default();
    let mut argv: Vec<String> = [&program, "-i", "-f", &from, "--"].map(ToString::to_string).into();
    argv.extend(envelope.to().iter().map(ToString::to_string));
    means.run(argv, &mail.formatted(), means.env.clone())
}

/// The local sendmail.
///
/// # Errors
/// There is none; where it was looked for, in words.
pub fn sendmail(means: &Means) -> Result<PathBuf, String> {
    let path = means.env.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.clone());
    let path = path.or_else(|| std::env::var("PATH").ok()).unwrap_or_default();
    let path = format!("{path}:{PLACES}");
    find_program("sendmail", &means.folder, Some(path.as_ref()))
        .map_err(|_| "there is no sendmail in PATH, /usr/sbin or /usr/lib: write via: smtp://…".into())
}

fn by_smtp(smtp: &Smtp, mail: &Mail, host: &str, means: &Means) -> Outcome {
    let tls = match TlsParameters::new(smtp.host.clone()) {
        Ok(parameters) => parameters,
        Err(error) => return Outcome::Failed(means.tame(&format!("no TLS: {error}")), None),
    };
    let is_near = ["localhost", "127.0.0.1", "::1"].contains(&smtp.host.as_str());
    let tls = match smtp.security {
        Security::Tls => Tls::Wrapper(tls),
        Security::StartTls if smtp.credentials.is_some() && !is_near => Tls::Required(tls),
        Security::StartTls => Tls::Opportunistic(tls),
    };
    let mut transport = SmtpTransport::builder_dangerous(&smtp.host)
        .port(smtp.port)
        .tls(tls)
        .hello_name(ClientId::Domain(host.to_owned()))
        .timeout(Some(SILENCE));
    if let Some((user, password)) = &smtp.credentials {
        transport = transport.credentials(Credentials::new(user.0.clone(), password.0.clone()));
    }
    match transport.build().send(mail) {
        Ok(_) => Outcome::Delivered,
        Err(error) => {
            let why = means.tame(&in_words(&error));
            if error.is_permanent() { Outcome::Refused(why) } else { Outcome::Failed(why, None) }
        }
    }
}

/// An error with its causes.
fn in_words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        cause = error.source();
    }
    words
}
