//! The notification channels of a configuration, and whether they deliver. It must send nothing without `--send`.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use crate::agent::delivery_settings;
use crate::clock;
use crate::commands::{print, read_boot_clock};
use crate::config::Config;
#[cfg(feature = "email")]
use crate::config::{Channel, Destination, MailTransport};
use crate::notify::{self, DeliveryOutcome, Message};
use crate::outcome::NotificationKind;
use crate::store::Folder;
use crate::store::state::peek;
use crate::terminal::escaped;
use crate::view::message;

/// For all channels together. A mail delivery has several steps, each with its own timeout.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) fn report(config: &Config, send: bool) -> Vec<String> {
    let off = config.disabled_channels.iter().map(|line| format!("{}; this channel is off", escaped(line)));
    let mut problems: Vec<String> = off.collect();
    for (shown, result) in try_channels(config, send) {
        let shown = escaped(&shown).into_owned();
        match result {
            None => print(&format!("Notifies    {shown} (not tried; check --send)")),
            Some(Ok(())) => print(&format!("Notifies    {shown}: test message delivered")),
            Some(Err(why)) => {
                print(&format!("Notifies    {shown}"));
                problems.push(format!("{shown}: test message not delivered: {why}"));
            }
        }
    }
    if !send {
        #[cfg(feature = "email")]
        problems.extend(config.notify.iter().filter_map(|channel| describe_mail_problem(config, channel)));
        problems.extend(last_failures(config));
    }
    problems
}

/// The last errors of channels whose last delivery failed. An unreadable state is reported elsewhere.
fn last_failures(config: &Config) -> Vec<String> {
    let now = read_boot_clock();
    let Ok(Some(saved)) = peek(&Folder::at(&config.state_dir), &now) else { return Vec::new() };
    let is_ours = |id: &str| config.notify.iter().any(|channel| channel.id == id);
    let troubles = saved.outbox.describe_troubles(now.at.now).filter(|(id, _)| is_ours(id));
    troubles.map(|(id, trouble)| format!("{} {trouble}", escaped(id))).collect()
}

fn try_channels(config: &Config, send: bool) -> Vec<(String, Option<Result<(), String>>)> {
    let names = config.notify.iter().map(|channel| channel.shown.clone());
    let names: Vec<String> = names.chain(config.heartbeat.iter().map(|_| "heartbeat, once a minute".into())).collect();
    if !send {
        return names.into_iter().map(|name| (name, None)).collect();
    }
    let delivery = delivery_settings(config);
    let (post, results) = channel();
    let message = test_message();
    for (index, channel) in config.notify.iter().enumerate() {
        let (post, channel, message, delivery) = (post.clone(), channel.clone(), message.clone(), delivery.clone());
        thread::spawn(move || {
            let outcome = match notify::deliver(&channel, &message, &delivery) {
                DeliveryOutcome::Delivered => Ok(()),
                DeliveryOutcome::Refused(why) | DeliveryOutcome::Failed(why, _) => Err(why),
            };
            let _ = post.send((index, outcome)); // fails only after the timeout, when nobody receives any more
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
        match results.recv_timeout(SEND_TIMEOUT.saturating_sub(clock::monotonic() - began)) {
            Ok((index, result)) => found[index] = Some(result),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    let late = || Err(format!("no result within {} s", SEND_TIMEOUT.as_secs()));
    names.into_iter().zip(found).map(|(name, found)| (name, Some(found.unwrap_or_else(late)))).collect()
}

fn test_message() -> Message {
    let (at, host) = (clock::wall(), notify::host_name());
    Message {
        id: format!("{:x}-{:x}-test", at.as_ms(), std::process::id()),
        event: NotificationKind::Test,
        about: None,
        target: None,
        at,
        text: message::test_message(&host),
        host,
        class: None,
        detail: None,
        incident: None,
        attempts: None,
        down_ms: None,
        late: false,
    }
}

/// What would prevent a mail from being sent, as far as is known without sending one.
#[cfg(feature = "email")]
fn describe_mail_problem(config: &Config, channel: &Channel) -> Option<String> {
    let Destination::Email(email) = &channel.destination else { return None };
    let delivery = delivery_settings(config);
    let sendmail = || match email.via {
        MailTransport::Sendmail => notify::find_sendmail(&delivery).err(),
        MailTransport::Smtp(_) => None,
    };
    let why = notify::find_address_error(email, &delivery).or_else(sendmail)?;
    Some(format!("mail to {}: {}", escaped(&email.to), escaped(&why)))
}
