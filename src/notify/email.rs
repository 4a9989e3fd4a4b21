//! Messages by mail, written by lettre. Sent by the local sendmail, run as any other command, or to a mail server.

use std::path::PathBuf;
use std::time::Duration;

use lettre::Message as Mail;
use lettre::message::header::{ContentType, MIME_VERSION_1_0};
use lettre::message::{Mailbox, MessageBuilder};

use super::{Delivery, DeliveryOutcome, Message, host, smtp};
use crate::command::find_program;
use crate::config::{Email, MailTransport};

/// Where sendmail lies when it is not in PATH, as under cron.
const PLACES: &str = "/usr/sbin:/usr/lib:/usr/local/sbin:/usr/bin";

pub(super) fn deliver(email: &Email, message: &Message, means: &Delivery) -> DeliveryOutcome {
    let mail = match write(email, message, means) {
        Ok(mail) => mail,
        // No server has refused it, and a name of this machine or account that is put right makes it good.
        Err(why) => return DeliveryOutcome::Failed(why, None),
    };
    match &email.via {
        MailTransport::Sendmail => by_sendmail(&mail, means),
        MailTransport::Smtp(server) => smtp::deliver(server, &mail, &message.host, means),
    }
}

/// Why no mail can be written on this channel, where an address in it is none.
pub fn cannot_write(email: &Email, means: &Delivery) -> Option<String> {
    sender(email, &host(), means).and_then(|_| mailbox(&email.to)).err()
}

fn mailbox(text: &str) -> Result<Mailbox, String> {
    text.parse().map_err(|error| format!("{text} is no address: {error}"))
}

/// From whom mail comes. What makes no address of this account and this machine (`jane@corp.example` for a user,
/// `(none)` for a host) must not keep mail from leaving.
fn sender(email: &Email, host: &str, means: &Delivery) -> Result<Mailbox, String> {
    if let Some(from) = &email.from {
        return mailbox(from);
    }
    let names = [format!("{}@{host}", account(means)), format!("watchdog@{host}")];
    let mut mailboxes = names.iter().map(|name| mailbox(name));
    mailboxes.find(Result::is_ok).unwrap_or_else(|| mailbox("watchdog@localhost"))
}

fn account(means: &Delivery) -> String {
    let named = means.env.iter().find(|(name, _)| name == "USER" || name == "LOGNAME").map(|(_, value)| value.clone());
    let named = named.or_else(|| std::env::var("USER").ok()).or_else(|| std::env::var("LOGNAME").ok());
    named.filter(|name| !name.is_empty()).unwrap_or_else(|| "watchdog".into())
}

fn write(email: &Email, message: &Message, means: &Delivery) -> Result<Mail, String> {
    let (subject, rest) = message.parts();
    let body = if rest.is_empty() { subject } else { rest };
    let from = sender(email, &message.host, means)?;
    let domain = from.email.domain().to_owned();
    MessageBuilder::new()
        .from(from)
        .to(mailbox(&email.to)?)
        .subject(subject)
        .message_id(Some(format!("<{}@{domain}>", message.id)))
        .date(std::time::UNIX_EPOCH + Duration::from_millis(u64::try_from(message.at.as_ms()).unwrap_or(0)))
        // Without it a reader need not decode what the next two headers say is encoded.
        .header(MIME_VERSION_1_0)
        .header(ContentType::TEXT_PLAIN)
        .body(format!("{body}\n"))
        .map_err(|error| format!("no mail can be written: {error}"))
}

fn by_sendmail(mail: &Mail, means: &Delivery) -> DeliveryOutcome {
    let program = match sendmail(means) {
        Ok(program) => program.display().to_string(),
        Err(error) => return DeliveryOutcome::Failed(error, None),
    };
    let envelope = mail.envelope();
    let from = envelope.from().map(ToString::to_string).unwrap_or_default();
    let mut argv: Vec<String> = [&program, "-i", "-f", &from, "--"].map(ToString::to_string).into();
    argv.extend(envelope.to().iter().map(ToString::to_string));
    means.run(argv, &local_lines(&mail.formatted()), means.env.clone())
}

/// Lines as programs of this system end them. dma, nullmailer and others make CR CR LF of the ends that SMTP wants.
fn local_lines(mail: &[u8]) -> Vec<u8> {
    let ends = mail.iter().zip(mail.iter().skip(1).chain([&0])).map(|(byte, next)| (*byte, (*byte, *next)));
    ends.filter(|(_, pair)| *pair != (b'\r', b'\n')).map(|(byte, _)| byte).collect()
}

/// The local sendmail.
/// Errors: there is none; where it was looked for, in words.
pub fn sendmail(means: &Delivery) -> Result<PathBuf, String> {
    let path = means.env.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.clone());
    let path = path.or_else(|| std::env::var("PATH").ok()).unwrap_or_default();
    let path = format!("{path}:{PLACES}");
    find_program("sendmail", &means.folder, Some(path.as_ref()))
        .map_err(|_| "there is no sendmail in PATH, /usr/sbin or /usr/lib: write via: smtp://…".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Scope;
    use crate::config::Secrets;

    #[track_caller]
    fn check_sender(user: &str, host: &str, expected: &str) {
        let email = Email { to: "ops@example.org".into(), from: None, via: MailTransport::Sendmail };
        let env = vec![("USER".to_owned(), user.to_owned())];
        let means = Delivery { folder: "/".into(), env, secrets: Secrets::default(), scope: Scope::default() };
        let found = sender(&email, host, &means).map(|mailbox| mailbox.to_string());
        assert_eq!(found, Ok(expected.to_owned()));
    }

    #[test]
    fn mail_is_from_this_account_or_in_any_case_from_somebody() {
        check_sender("jane", "srv412", "jane@srv412");
        check_sender("jane", "srv412.example.org", "jane@srv412.example.org");
        check_sender("", "srv412", "watchdog@srv412");
        for user in ["jane@corp.example", "CORP\\jane doe", "jane doe", "<jane>", "a, b"] {
            check_sender(user, "srv412", "watchdog@srv412");
        }
        for host in ["(none)", "", "my_host!", "a..b", "-"] {
            check_sender("jane", host, "watchdog@localhost");
        }
    }

    #[test]
    fn a_local_program_gets_the_lines_of_this_system() {
        assert_eq!(local_lines(b"a\r\n\r\nb\rc\nd\r"), b"a\n\nb\rc\nd\r");
        assert_eq!(local_lines(b""), b"");
    }
}
