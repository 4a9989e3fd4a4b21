//! Messages to people: their content, the outbox where they wait until they are delivered, and the delivery over each
//! kind of channel. `deliver` and `ping` must never be called on the main loop's thread, because a server may be slow.

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

use crate::command::{self, CommandSpec, Leftovers, MAX_OUTPUT, Scope, create_memory_output};
use crate::config::{Channel, Destination, Secrets};
use crate::outcome::{Exit, describe_io_error};
use crate::terminal::escaped;

#[cfg(feature = "email")]
pub use email::{find_address_error, find_sendmail};
pub use message::Message;
pub use outbox::{DroppedMessage, DueMessage, Outbox};
pub use webhook::ping;

/// The time limit of one delivery. A slow mail server may take longer, which delays only its own channel.
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// What a pipe on Linux holds without a reader.
const PIPE_CAPACITY: usize = 64 << 10;
/// How many characters of a server's or command's reply are shown.
const MAX_REPLY_CHARS: usize = 200;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryOutcome {
    Delivered,
    /// The receiver will never accept this message; the reason.
    Refused(String),
    /// A later try may succeed; the reason, and the least time to wait if the receiver named one.
    Failed(String, Option<Duration>),
}

/// What a delivery needs besides the message and its channel.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub folder: PathBuf,
    pub env: Vec<(String, String)>,
    pub secrets: Secrets,
    /// Ends the commands when it is closed; what they leave running survives.
    pub scope: Scope,
}

impl Delivery {
    /// Makes a reply of a server or command safe to show: redacted, on one line, shortened and escaped.
    fn sanitize(&self, text: &str) -> String {
        let text = self.secrets.redact(text.trim()).into_owned();
        let line: String =
            text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(MAX_REPLY_CHARS).collect();
        escaped(&line).into_owned()
    }

    fn run(&self, argv: Vec<String>, input: &[u8], env: Vec<(String, String)>) -> DeliveryOutcome {
        let prepared = fill_pipe(input).and_then(|stdin| Ok((stdin, create_memory_output()?)));
        let (stdin, output) = match prepared {
            Ok(files) => files,
            Err(error) => {
                return DeliveryOutcome::Failed(
                    format!("cannot pass the message to the command: {}", describe_io_error(&error)),
                    None,
                );
            }
        };
        let reply = output.try_clone();
        let (folder, unset) = (self.folder.clone(), Vec::new());
        let (scope, leftovers) = (self.scope.clone(), Leftovers::Live);
        let (timeout, keep, stdin) = (TIMEOUT, MAX_OUTPUT, Some(stdin));
        let spec = CommandSpec { argv, folder, unset, env, timeout, max_output: keep, stdin, output, scope, leftovers };
        let failure = match command::run(spec, |_| {}).exit {
            Exit::Exited(0) => return DeliveryOutcome::Delivered,
            Exit::Exited(code) => format!("exited {code}"),
            Exit::Killed(signal) => format!("was killed by signal {signal}"),
            Exit::TimedOut => format!("timed out after {} s", TIMEOUT.as_secs()),
            Exit::NotStarted(reason) => format!("could not be started: {reason}"),
            Exit::Lost => "ended with an unknown result".into(),
        };
        let reply = reply.ok().and_then(|file| read_last_line(file).ok()).unwrap_or_default();
        let reply = if reply.is_empty() { reply } else { format!(": {}", self.sanitize(&reply)) };
        DeliveryOutcome::Failed(failure + &reply, None)
    }
}

pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

pub fn deliver(channel: &Channel, message: &Message, delivery: &Delivery) -> DeliveryOutcome {
    match &channel.destination {
        Destination::Webhook(webhook) => webhook::deliver(webhook, message, delivery),
        Destination::Command(command) => delivery.run(command.argv(), message.json().as_bytes(), delivery.env.clone()),
        #[cfg(feature = "email")]
        Destination::Email(email) => email::deliver(email, message, delivery),
        #[cfg(not(feature = "email"))]
        Destination::Email(_) => {
            DeliveryOutcome::Failed("this build has no support for mail (feature `email`)".into(), None)
        }
    }
}

/// A pipe that already holds all of `bytes`.
fn fill_pipe(bytes: &[u8]) -> io::Result<OwnedFd> {
    if bytes.len() > PIPE_CAPACITY {
        return Err(io::Error::other("the message is longer than 64 KiB"));
    }
    let (reader, mut writer) = io::pipe()?;
    writer.write_all(bytes)?;
    Ok(reader.into())
}

fn read_last_line(mut file: File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(MAX_OUTPUT).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default().to_owned())
}
