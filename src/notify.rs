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

use crate::command::{self, KEPT, Remains, Scope, Spec, memory_output};
use crate::config::{Channel, Secrets, Way};
use crate::outcome::{Ending, in_words};
use crate::terminal::escaped;

#[cfg(feature = "email")]
pub use email::{cannot_write, sendmail};
pub use message::Message;
pub use outbox::{Due, Given, Outbox};
pub use webhook::ping;

/// How long one delivery may take. A mail server that drips may take longer, and holds up nothing but its channel.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// What a pipe holds on Linux without a reader.
const PIPE: usize = 64 << 10;
/// Characters of what a server or a command says that are repeated.
const SHOWN: usize = 200;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Delivered,
    /// Whoever should take it says that it never will: why.
    Refused(String),
    /// It may be taken later: why not now, and how long to wait at least, where that was said.
    Failed(String, Option<Duration>),
}

#[derive(Clone, Debug)]
pub struct Means {
    pub folder: PathBuf,
    pub env: Vec<(String, String)>,
    pub secrets: Secrets,
    /// Commands end with it; what they leave running lives on.
    pub scope: Scope,
}

impl Means {
    /// What a stranger said, fit to be repeated.
    fn tame(&self, text: &str) -> String {
        let text = self.secrets.strike(text.trim()).into_owned();
        let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(SHOWN).collect();
        escaped(&line).into_owned()
    }

    fn run(&self, argv: Vec<String>, input: &[u8], env: Vec<(String, String)>) -> Outcome {
        let prepared = given(input).and_then(|stdin| Ok((stdin, memory_output()?)));
        let (stdin, output) = match prepared {
            Ok(files) => files,
            Err(error) => return Outcome::Failed(format!("no place for the message: {}", in_words(&error)), None),
        };
        let said = output.try_clone();
        let (folder, unset) = (self.folder.clone(), Vec::new());
        let (scope, remains) = (self.scope.clone(), Remains::Live);
        let (timeout, keep, stdin) = (PATIENCE, KEPT, Some(stdin));
        let spec = Spec { argv, folder, unset, env, timeout, keep, stdin, output, scope, remains };
        let ending = command::run(spec, |_| {}).ending;
        let how = match ending {
            Ending::Exited(0) => return Outcome::Delivered,
            Ending::Exited(code) => format!("exited {code}"),
            Ending::Killed(signal) => format!("was killed by signal {signal}"),
            Ending::TimedOut => format!("did not end in {} s", PATIENCE.as_secs()),
            Ending::NotStarted(reason) => format!("could not be started: {reason}"),
            Ending::Lost => "was lost".into(),
        };
        let words = said.ok().and_then(|file| last_line(file).ok()).unwrap_or_default();
        let words = if words.is_empty() { words } else { format!(", saying: {}", self.tame(&words)) };
        Outcome::Failed(how + &words, None)
    }
}

pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

pub fn deliver(channel: &Channel, message: &Message, means: &Means) -> Outcome {
    match &channel.way {
        Way::Webhook(webhook) => webhook::deliver(webhook, message, means),
        Way::Command(command) => means.run(command.argv(), message.json().as_bytes(), means.env.clone()),
        #[cfg(feature = "email")]
        Way::Email(email) => email::deliver(email, message, means),
        #[cfg(not(feature = "email"))]
        Way::Email(_) => Outcome::Failed("this build cannot write mails".into(), None),
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
    file.take(KEPT).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default().to_owned())
}
