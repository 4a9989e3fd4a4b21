//! Messages to people: what one is, where it waits until it has arrived, and how it gets to its channels.
//! Whoever delivers must do it on a thread of its own: a server may take as long as it likes.

#[cfg(feature = "email")]
mod email;
mod fit;
mod message;
mod outbox;
#[cfg(feature = "email")]
mod smtp;
mod webhook;

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use crate::command::{self, CommandSpec, Leftovers, MAX_KEPT, Scope, memory_output};
use crate::config::{Channel, Destination, Secrets};
use crate::outcome::{Exit, describe_io_error};
use crate::terminal::escaped;

#[cfg(feature = "email")]
pub use email::{cannot_write, sendmail};
pub use message::Message;
pub use outbox::{Dropped, Due, Outbox};
pub use webhook::ping;

/// How long one delivery may take. A mail server that drips may take longer, and holds up nothing but its channel.
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// What a pipe holds on Linux without a reader.
const PIPE: usize = 64 << 10;
/// Characters of what a server or a command says that are repeated.
const SHOWN: usize = 200;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryOutcome {
    Delivered,
    /// Whoever should take it says that it never will: why.
    Refused(String),
    /// It may be taken later: why not now, and how long to wait at least, where that was said.
    Failed(String, Option<Duration>),
}

#[derive(Clone, Debug)]
pub struct Delivery {
    pub folder: PathBuf,
    pub env: Vec<(String, String)>,
    pub secrets: Secrets,
    /// Commands end with it; what they leave running lives on.
    pub scope: Scope,
}

impl Delivery {
    /// What a stranger said, fit to be repeated.
    fn sanitize(&self, text: &str) -> String {
        let text = self.secrets.redact(text.trim()).into_owned();
        let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(SHOWN).collect();
        escaped(&line).into_owned()
    }

    fn run(&self, argv: Vec<String>, input: &[u8], env: Vec<(String, String)>) -> DeliveryOutcome {
        let prepared = given(input).and_then(|stdin| Ok((stdin, memory_output()?)));
        let (stdin, output) = match prepared {
            Ok(files) => files,
            Err(error) => {
                return DeliveryOutcome::Failed(
                    format!("no place for the message: {}", describe_io_error(&error)),
                    None,
                );
            }
        };
        let said = output.try_clone();
        let (folder, unset) = (self.folder.clone(), Vec::new());
        let (scope, remains) = (self.scope.clone(), Leftovers::Live);
        let (timeout, keep, stdin) = (TIMEOUT, MAX_KEPT, Some(stdin));
        let spec = CommandSpec { argv, folder, unset, env, timeout, keep, stdin, output, scope, leftovers: remains };
        let ending = command::run(spec, |_| {}).exit;
        let how = match ending {
            Exit::Exited(0) => return DeliveryOutcome::Delivered,
            Exit::Exited(code) => format!("exited {code}"),
            Exit::Killed(signal) => format!("was killed by signal {signal}"),
            Exit::TimedOut => format!("did not end in {} s", TIMEOUT.as_secs()),
            Exit::NotStarted(reason) => format!("could not be started: {reason}"),
            Exit::Lost => "was lost".into(),
        };
        let words = said.ok().and_then(|file| last_line(file).ok()).unwrap_or_default();
        let words = if words.is_empty() { words } else { format!(", saying: {}", self.sanitize(&words)) };
        DeliveryOutcome::Failed(how + &words, None)
    }
}

pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

pub fn deliver(channel: &Channel, message: &Message, means: &Delivery) -> DeliveryOutcome {
    match &channel.destination {
        Destination::Webhook(webhook) => webhook::deliver(webhook, message, means),
        Destination::Command(command) => means.run(command.argv(), message.json().as_bytes(), means.env.clone()),
        #[cfg(feature = "email")]
        Destination::Email(email) => email::deliver(email, message, means),
        #[cfg(not(feature = "email"))]
        Destination::Email(_) => DeliveryOutcome::Failed("this build cannot write mails".into(), None),
    }
}

/// A pipe with `bytes` in it, all of which it holds before anybody reads.
fn given(bytes: &[u8]) -> io::Result<OwnedFd> {
    if bytes.len() > PIPE {
        return Err(io::Error::other("the message is too long"));
    }
    let (reader, mut writer) = io::pipe()?;
    writer.write_all(bytes)?;
    Ok(reader.into())
}

fn last_line(mut file: File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(MAX_KEPT).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default().to_owned())
}
