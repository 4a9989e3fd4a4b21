//! Who is told, and whether a message gets there. Only `--send` sends one.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use crate::agent::delivery_of;
use crate::clock;
use crate::commands::{now, say};
use crate::config::Config;
#[cfg(feature = "email")]
use crate::config::{Channel, Destination, MailTransport};
use crate::notify::{self, DeliveryOutcome, Message};
use crate::outcome::NotificationKind;
use crate::store::Folder;
use crate::store::state::peek;
use crate::terminal::escaped;
use crate::view::message;

/// How long a message may be on its way. A mail server may take several steps, each within its own time.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn report(config: &Config, send: bool) -> Vec<String> {
    let mut wrong: Vec<String> = config.off.iter().map(|line| format!("{}: switched off", escaped(line))).collect();
    for (shown, result) in attempts(config, send) {
        let shown = escaped(&shown).into_owned();
        match result {
            None => say(&format!("Tells       {shown} (not tried: check --send)")),
            Some(Ok(())) => say(&format!("Tells       {shown}: a test message was taken")),
            Some(Err(why)) => {
                say(&format!("Tells       {shown}"));
                wrong.push(format!("{shown} got no test message: {why}"));
            }
        }
    }
    if !send {
        #[cfg(feature = "email")]
        wrong.extend(config.notify.iter().filter_map(|channel| no_mail(config, channel)));
        wrong.extend(last_answers(config));
    }
    wrong
}

/// What the channels said last that did not take a message. A state that cannot be read is not told here.
fn last_answers(config: &Config) -> Vec<String> {
    let now = now();
    let Ok(Some(saved)) = peek(&Folder::at(&config.state_dir), &now) else { return Vec::new() };
    let is_ours = |id: &str| config.notify.iter().any(|channel| channel.id == id);
    let troubles = saved.outbox.troubles(now.at.now).filter(|(id, _)| is_ours(id));
    troubles.map(|(id, words)| format!("{} {words}", escaped(id))).collect()
}

fn attempts(config: &Config, send: bool) -> Vec<(String, Option<Result<(), String>>)> {
    let names = config.notify.iter().map(|channel| channel.shown.clone());
    let names: Vec<String> = names.chain(config.heartbeat.iter().map(|_| "heartbeat, once a minute".into())).collect();
    if !send {
        return names.into_iter().map(|name| (name, None)).collect();
    }
    let delivery = delivery_of(config);
    let (post, results) = channel();
    let message = test_message();
    for (index, channel) in config.notify.iter().enumerate() {
        let (post, channel, message, delivery) = (post.clone(), channel.clone(), message.clone(), delivery.clone());
        thread::spawn(move || {
            let outcome = match notify::deliver(&channel, &message, &delivery) {
                DeliveryOutcome::Delivered => Ok(()),
                DeliveryOutcome::Refused(why) | DeliveryOutcome::Failed(why, _) => Err(why),
            };
            let _ = post.send((index, outcome)); // nobody listens any more: it took too long
        });
    }
    if let Some(webhook) = config.heartbeat.clone() {
        let index = config.notify.len();
        thread::spawn(move || {
            let _ = post.send((index, notify::ping(&webhook, &delivery))); // as above
        });
    } else {
        drop(post);
    }
    let mut found: Vec<Option<Result<(), String>>> = names.iter().map(|_| None).collect();
    let began = clock::monotonic();
    while found.iter().any(Option::is_none) {
        match results.recv_timeout(PATIENCE.saturating_sub(clock::monotonic() - began)) {
            Ok((index, result)) => found[index] = Some(result),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    let late = || Err(format!("nothing came of it in {} s", PATIENCE.as_secs()));
    names.into_iter().zip(found).map(|(name, found)| (name, Some(found.unwrap_or_else(late)))).collect()
}

fn test_message() -> Message {
    let (at, host) = (clock::wall(), notify::host());
    Message {
        id: format!("{:x}-{:x}-test", at.as_ms(), std::process::id()),
        event: NotificationKind::Test,
        about: None,
        target: None,
        at,
        text: message::test(&host),
        host,
        class: None,
        detail: None,
        incident: None,
        attempts: None,
        down_ms: None,
        late: false,
    }
}

/// What would keep mail from leaving, as far as can be told without sending any.
#[cfg(feature = "email")]
fn no_mail(config: &Config, channel: &Channel) -> Option<String> {
    let Destination::Email(email) = &channel.destination else { return None };
    let delivery = delivery_of(config);
    let sendmail = || match email.via {
        MailTransport::Sendmail => notify::sendmail(&delivery).err(),
        MailTransport::Smtp(_) => None,
    };
    let why = notify::cannot_write(email, &delivery).or_else(sendmail)?;
    Some(format!("mail to {}: {}", escaped(&email.to), escaped(&why)))
}
