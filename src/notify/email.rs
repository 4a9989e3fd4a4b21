//! Messages by mail: written by lettre, sent through the local sendmail or to a mail server. A host or account name
//! that does not form a valid address must never keep a mail from being sent.

use std::path::PathBuf;
use std::time::Duration;

use lettre::Message as Mail;
use lettre::message::header::{ContentType, MIME_VERSION_1_0};
use lettre::message::{Mailbox, MessageBuilder};

use super::{Delivery, DeliveryOutcome, Message, host_name, smtp};
use crate::command::find_program;
use crate::config::{Email, MailTransport};

/// Where to look for sendmail if it is not in PATH, as under cron.
const SENDMAIL_FOLDERS: &str = "/usr/sbin:/usr/lib:/usr/local/sbin:/usr/bin";

pub(super) fn deliver(email: &Email, message: &Message, delivery: &Delivery) -> DeliveryOutcome {
    let mail = match write_mail(email, message, delivery) {
        Ok(mail) => mail,
        // This is not final: a corrected host or account name makes the mail valid.
        Err(why) => return DeliveryOutcome::Failed(why, None),
    };
    match &email.via {
        MailTransport::Sendmail => run_sendmail(&mail, delivery),
        MailTransport::Smtp(server) => smtp::deliver(server, &mail, &message.host, delivery),
    }
}

/// Why no mail can be written for this channel, if one of its addresses is invalid.
pub fn find_address_error(email: &Email, delivery: &Delivery) -> Option<String> {
    choose_sender(email, &host_name(), delivery).and_then(|_| parse_mailbox(&email.to)).err()
}

fn parse_mailbox(text: &str) -> Result<Mailbox, String> {
    text.parse().map_err(|error| format!("{text} is not a valid address: {error}"))
}

/// The sender's address. Account names such as `jane@corp.example` and host names such as `(none)` do not form a valid
/// address, so there are fallbacks.
fn choose_sender(email: &Email, host: &str, delivery: &Delivery) -> Result<Mailbox, String> {
    if let Some(from) = &email.from {
        return parse_mailbox(from);
    }
    let names = [format!("{}@{host}", account_name(delivery)), format!("watchdog@{host}")];
    let mut mailboxes = names.iter().map(|name| parse_mailbox(name));
    mailboxes.find(Result::is_ok).unwrap_or_else(|| parse_mailbox("watchdog@localhost"))
}

fn account_name(delivery: &Delivery) -> String {
    let name =
        delivery.env.iter().find(|(name, _)| name == "USER" || name == "LOGNAME").map(|(_, value)| value.clone());
    let name = name.or_else(|| std::env::var("USER").ok()).or_else(|| std::env::var("LOGNAME").ok());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "watchdog".into())
}

fn write_mail(email: &Email, message: &Message, delivery: &Delivery) -> Result<Mail, String> {
    let (subject, rest) = message.split_first_line();
    let body = if rest.is_empty() { subject } else { rest };
    let from = choose_sender(email, &message.host, delivery)?;
    let domain = from.email.domain().to_owned();
    MessageBuilder::new()
        .from(from)
        .to(parse_mailbox(&email.to)?)
        .subject(subject)
        .message_id(Some(format!("<{}@{domain}>", message.id)))
        .date(std::time::UNIX_EPOCH + Duration::from_millis(u64::try_from(message.at.as_ms()).unwrap_or(0)))
        // Without MIME-Version a mail reader need not decode what the next two headers describe.
        .header(MIME_VERSION_1_0)
        .header(ContentType::TEXT_PLAIN)
        .body(format!("{body}\n"))
        .map_err(|error| format!("cannot write the mail: {error}"))
}

fn run_sendmail(mail: &Mail, delivery: &Delivery) -> DeliveryOutcome {
    let program = match find_sendmail(delivery) {
        Ok(program) => program.display().to_string(),
        Err(error) => return DeliveryOutcome::Failed(error, None),
    };
    let envelope = mail.envelope();
    let from = envelope.from().map(ToString::to_string).unwrap_or_default();
    let mut argv: Vec<String> = [&program, "-i", "-f", &from, "--"].map(ToString::to_string).into();
    argv.extend(envelope.to().iter().map(ToString::to_string));
    delivery.run(argv, &to_local_line_ends(&mail.formatted()), delivery.env.clone())
}

/// Ends lines with LF, as local programs expect. dma, nullmailer and others turn the CR LF of SMTP into CR CR LF.
fn to_local_line_ends(mail: &[u8]) -> Vec<u8> {
    let ends = mail.iter().zip(mail.iter().skip(1).chain([&0])).map(|(byte, next)| (*byte, (*byte, *next)));
    ends.filter(|(_, pair)| *pair != (b'\r', b'\n')).map(|(byte, _)| byte).collect()
}

/// Finds the local sendmail.
/// Errors: there is none; names the folders that were searched.
pub fn find_sendmail(delivery: &Delivery) -> Result<PathBuf, String> {
    let path = delivery.env.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.clone());
    let path = path.or_else(|| std::env::var("PATH").ok()).unwrap_or_default();
    let path = format!("{path}:{SENDMAIL_FOLDERS}");
    find_program("sendmail", &delivery.folder, Some(path.as_ref()))
        .map_err(|_| "no sendmail in PATH, /usr/sbin or /usr/lib; set via: smtp://…".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Scope;
    use crate::config::Secrets;

    #[track_caller]
    fn check_sender(user: &str, machine: &str, expected: &str) {
        let email = Email { to: "ops@example.org".into(), from: None, via: MailTransport::Sendmail };
        let env = vec![("USER".to_owned(), user.to_owned())];
        let delivery = Delivery { folder: "/".into(), env, secrets: Secrets::default(), scope: Scope::default() };
        let sender = choose_sender(&email, machine, &delivery).map(|mailbox| mailbox.to_string());
        assert_eq!(sender, Ok(expected.to_owned()));
    }

    #[test]
    fn the_sender_is_this_account_or_else_a_valid_fallback() {
        check_sender("jane", "srv412", "jane@srv412");
        check_sender("jane", "srv412.example.org", "jane@srv412.example.org");
        check_sender("", "srv412", "watchdog@srv412");
        for user in ["jane@corp.example", "CORP\\jane doe", "jane doe", "<jane>", "a, b"] {
            check_sender(user, "srv412", "watchdog@srv412");
        }
        for machine in ["(none)", "", "my_host!", "a..b", "-"] {
            check_sender("jane", machine, "watchdog@localhost");
        }
    }

    #[test]
    fn sendmail_gets_lines_that_end_with_lf() {
        assert_eq!(to_local_line_ends(b"a\r\n\r\nb\rc\nd\r"), b"a\n\nb\rc\nd\r");
        assert_eq!(to_local_line_ends(b""), b"");
    }
}
