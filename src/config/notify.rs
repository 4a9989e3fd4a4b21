//! Whom to tell: reading `notify` and `heartbeat`. A `${NAME}` that is not set switches its channel off and nothing
//! else: the watch must not depend on what cron has in its environment.

use std::collections::BTreeSet;

use super::channel::{Channel, Destination, Email, Format, MailTransport, Security, Smtp, Webhook};
use super::probes::{Address, address};
use super::reader::{Keys, Reader};
use super::target::Secret;
use super::tree::{Node, Value};
use super::url;
use crate::outcome::{NotificationKind, short_command};

pub(super) const WEBHOOK: Keys = Keys { known: &[&["webhook", "format", "on"]], elsewhere: &[] };
pub(super) const EMAIL: Keys = Keys { known: &[&["email", "from", "via", "user", "password", "on"]], elsewhere: &[] };
pub(super) const COMMAND: Keys = Keys { known: &[&["command", "on"]], elsewhere: &[] };
const WAYS: [&str; 3] = ["webhook", "email", "command"];
const FORMATS: [(&str, Format); 5] = [
    ("slack", Format::Slack),
    ("discord", Format::Discord),
    ("telegram", Format::Telegram),
    ("ntfy", Format::Ntfy),
    ("json", Format::Json),
];
const TOPICS: [(&str, NotificationKind); 4] = [
    ("healed", NotificationKind::Healed),
    ("down", NotificationKind::Down),
    ("up", NotificationKind::Up),
    ("warn", NotificationKind::Warn),
];

/// A path of so many bytes may have a token in it; striking out shorter ones would make words unreadable.
const TOKEN: usize = 16;
/// More channels than anybody reads.
const MOST: usize = 20;

/// The channels that can be used, and a complaint for each that is switched off.
pub(super) fn notify(reading: &mut Reader<'_>, node: &Node) -> (Vec<Channel>, Vec<String>) {
    let (mut channels, mut off) = (Vec::new(), Vec::new());
    if matches!(&node.value, Value::List(items) if items.is_empty()) {
        return (channels, off);
    }
    let items = reading.list(node, "such as [{email: ops@example.org}]").unwrap_or_default();
    if items.len() > MOST {
        reading.complain(node, "has too many channels", format!("at most {MOST}"));
    }
    for item in items {
        let (channel, missing) = unless_unset(reading, |reading| channel(reading, item));
        match (channel, missing) {
            (Some(channel), None) => channels.push(channel),
            (_, Some(missing)) => off.push(format!("{}: {missing}", shown_way(item))),
            (None, None) => {}
        }
    }
    number_doubles(&mut channels);
    (channels, off)
}

/// The address that is pinged; where it is switched off, why.
pub(super) fn heartbeat(reading: &mut Reader<'_>, node: &Node) -> (Option<Webhook>, Option<String>) {
    let (webhook, missing) = unless_unset(reading, |reading| webhook(reading, node, Some(Format::Json)));
    (webhook.filter(|_| missing.is_none()), missing.map(|missing| format!("heartbeat: {missing}")))
}

/// Reads what a `${NAME}` that is not set only switches off; which names that were, in words.
fn unless_unset<T>(
    reading: &mut Reader<'_>,
    read: impl FnOnce(&mut Reader<'_>) -> Option<T>,
) -> (Option<T>, Option<String>) {
    reading.unset = Some(Vec::new());
    let found = read(reading);
    let names = reading.unset.take().unwrap_or_default();
    let places = reading.variables.places();
    let missing = (!names.is_empty()).then(|| format!("{} is not set ({places})", names.join(", ")));
    (found, missing)
}

fn channel(reading: &mut Reader<'_>, node: &Node) -> Option<Channel> {
    let Value::Map(entries) = &node.value else {
        reading.complain(node, "is no channel", "such as {email: ops@example.org}");
        return None;
    };
    let mut ways = entries.iter().filter(|entry| WAYS.contains(&entry.key.as_str()));
    let Some(first) = ways.next() else {
        reading.complain_of_missing(node, "tells nobody", format!("write one of {}", WAYS.join(", ")));
        return None;
    };
    if let Some(second) = ways.next() {
        let message = format!("a second way, `{}`, beside `{}`", second.key, first.key);
        reading.complain_of_key(second, message, "make two channels of it");
        return None;
    }
    let (keys, value) = match first.key.as_str() {
        "webhook" => (&WEBHOOK, &first.value),
        "email" => (&EMAIL, &first.value),
        _ => (&COMMAND, &first.value),
    };
    if !reading.has_only(node, keys) {
        return None;
    }
    let on = node.get("on").map_or_else(|| Some(TOPICS.map(|(_, topic)| topic).into()), |node| on(reading, node));
    let format = node.get("format").map(|node| reading.word(node, &FORMATS));
    let way = match first.key.as_str() {
        "webhook" => Destination::Webhook(webhook(reading, value, format.flatten())?),
        "email" => Destination::Email(email(reading, node, value)?),
        _ => Destination::Command(reading.command(value)?),
    };
    let shown = shown_way(node);
    Some(Channel { id: shown.clone(), shown, destination: way, on: on? })
}

fn on(reading: &mut Reader<'_>, node: &Node) -> Option<BTreeSet<NotificationKind>> {
    let items = reading.list(node, "such as [down, up]")?;
    let topics: Vec<Option<NotificationKind>> = items.iter().map(|item| reading.word(item, &TOPICS)).collect();
    topics.into_iter().collect()
}

fn webhook(reading: &mut Reader<'_>, node: &Node, format: Option<Format>) -> Option<Webhook> {
    let Address { url, authorization, .. } = address(reading, node)?;
    // Whoever knows such an address may post to it.
    reading.secrets.add(&url);
    let path = url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map(|(_, path)| path);
    if let Some(path) = path.filter(|path| path.len() >= TOKEN) {
        reading.secrets.add(path);
    }
    let host = url::host_and_port(&url).map(|(host, _)| host.to_ascii_lowercase()).unwrap_or_default();
    let format = format.unwrap_or(match host.as_str() {
        "hooks.slack.com" => Format::Slack,
        "discord.com" | "discordapp.com" => Format::Discord,
        "api.telegram.org" => Format::Telegram,
        host if host == "ntfy.sh" || host.starts_with("ntfy.") => Format::Ntfy,
        _ => Format::Json,
    });
    if format == Format::Telegram && !url.contains("chat_id=") {
        reading.complain(node, "names no chat", "…/bot<token>/sendMessage?chat_id=<the chat's number>");
        return None;
    }
    Some(Webhook { url: Secret(url), authorization: authorization.map(Secret), format })
}

fn email(reading: &mut Reader<'_>, node: &Node, to: &Node) -> Option<Email> {
    if !cfg!(feature = "email") {
        reading.complain(to, "is a mail, which this build cannot write", "build it with the feature `email`");
        return None;
    }
    let to = mailbox(reading, to);
    let from = node.get("from").map(|node| mailbox(reading, node));
    let user = node.get("user").map(|node| credential(reading, node));
    let password = node.get("password").map(|node| credential(reading, node));
    if let Some(Some(password)) = &password {
        reading.secrets.add(&password.0);
    }
    let via = match node.get("via") {
        Some(node) if node.as_text() != Some("sendmail") => smtp(reading, node),
        Some(_) | None => Some(MailTransport::Sendmail),
    };
    let credentials = match (user, password, node.get("user").or_else(|| node.get("password"))) {
        (Some(user), Some(password), _) => Some((user?, password?)),
        (None, None, _) => None,
        (_, _, Some(one)) => {
            reading.complain(one, "stands alone", "`user` and `password` belong together");
            return None;
        }
        (_, _, None) => None,
    };
    let via = match (via?, credentials) {
        (MailTransport::Smtp(smtp), credentials) => MailTransport::Smtp(Smtp { credentials, ..smtp }),
        (MailTransport::Sendmail, None) => MailTransport::Sendmail,
        (MailTransport::Sendmail, Some(_)) => {
            reading.complain(
                node,
                "has a `user`, but sendmail asks for none",
                "write via: smtp://mail.example.org:587",
            );
            return None;
        }
    };
    let from = match from {
        Some(from) => Some(from?),
        None => None,
    };
    Some(Email { to: to?, from, via })
}

fn credential(reading: &mut Reader<'_>, node: &Node) -> Option<Secret> {
    let raw = reading.text(node)?;
    reading.expand(node, raw).map(Secret)
}

/// An address for mail. The rest of what is no address is for the mail server to say.
fn mailbox(reading: &mut Reader<'_>, node: &Node) -> Option<String> {
    let raw = reading.text(node)?;
    let text = reading.expand(node, raw)?.trim().to_owned();
    let is_plain = |part: &str| !part.is_empty() && !part.contains(|c: char| c.is_whitespace() || c.is_control());
    let in_brackets = text.strip_suffix('>').and_then(|text| text.rsplit_once('<')).map(|(_, address)| address);
    let address = in_brackets.unwrap_or(&text);
    let parts = address.rsplit_once('@').filter(|(user, domain)| is_plain(user) && is_plain(domain));
    if parts.is_none_or(|(user, _)| user.starts_with('-') || user.contains(['@', ',', '<', '>'])) || text.contains('\n')
    {
        reading.complain(node, "is no address for mail", "such as ops@example.org; one channel for each");
        return None;
    }
    Some(text)
}

fn smtp(reading: &mut Reader<'_>, node: &Node) -> Option<MailTransport> {
    const ADVICE: &str = "sendmail, smtp://mail.example.org:587 or smtps://mail.example.org";
    let raw = reading.text(node)?;
    let text = reading.expand(node, raw)?;
    let (security, rest, usual) = match text.split_once("://") {
        Some(("smtp", rest)) => (Security::StartTls, rest, 587),
        Some(("smtps", rest)) => (Security::Tls, rest, 465),
        _ => {
            reading.complain(node, "is no way for mail", ADVICE);
            return None;
        }
    };
    if rest.contains('@') {
        reading.complain(node, "has a user in it", "write `user` and `password` beside it");
        return None;
    }
    let rest = rest.trim_end_matches('/');
    let (host, port) = match rest.rsplit_once(':').filter(|(_, port)| !port.contains(']')) {
        Some((host, port)) => (host, port.parse::<u16>().ok().filter(|port| *port > 0)),
        None => (rest, Some(usual)),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_host = !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || ".-_:".contains(c));
    let Some(port) = port.filter(|_| is_host) else {
        reading.complain(node, "has no valid host and port", ADVICE);
        return None;
    };
    Some(MailTransport::Smtp(Smtp { host: host.to_owned(), port, security, credentials: None }))
}

/// A channel as it may be shown: the host of an address, or the variable that has it; never a path, a user or a query.
fn shown_way(node: &Node) -> String {
    let text = |key: &str| node.get(key).and_then(Node::as_text).map(str::trim);
    if let Some(text) = text("webhook") {
        let (address, _) = url::split_userinfo(text);
        let rest = address.split_once("://").map_or(address.as_str(), |(_, rest)| rest);
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        return format!("webhook {host}");
    }
    if let Some(to) = text("email") {
        let through = match text("via") {
            Some(via) if via != "sendmail" => via.split_once("://").map_or(via, |(_, rest)| rest).to_owned(),
            Some(_) | None => "sendmail".to_owned(),
        };
        return format!("{to} through {through}");
    }
    match node.get("command").map(|node| &node.value) {
        Some(Value::Text(command)) => format!("command {}", short_command(command)),
        Some(Value::List(words)) => {
            let words: Vec<&str> = words.iter().filter_map(Node::as_text).collect();
            format!("command {}", short_command(&words.join(" ")))
        }
        _ => "a channel".into(),
    }
}

/// Two channels that look alike are told apart by their numbers.
fn number_doubles(channels: &mut [Channel]) {
    for index in 1..channels.len() {
        let same = channels[..index].iter().filter(|other| other.shown == channels[index].shown).count();
        if same > 0 {
            channels[index].id = format!("{}#{}", channels[index].shown, same + 1);
        }
    }
}
