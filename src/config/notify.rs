//! Reads `notify` and `heartbeat`. A `${NAME}` that is not set switches off its channel and nothing else, because
//! monitoring must not depend on the environment that cron provides. It must never show the path or the user of a URL.

use std::collections::BTreeSet;

use super::channel::{Channel, Destination, Email, Format, MailTransport, Security, Smtp, Webhook};
use super::probes::{Address, read_address};
use super::reader::{Keys, Reader};
use super::target::Secret;
use super::tree::{Node, Value};
use super::url;
use crate::outcome::{NotificationKind, short_command};

pub(super) const WEBHOOK: Keys = Keys { known: &[&["webhook", "format", "on"]], per_target: &[], elsewhere: &[] };
pub(super) const EMAIL: Keys =
    Keys { known: &[&["email", "from", "via", "user", "password", "on"]], per_target: &[], elsewhere: &[] };
pub(super) const COMMAND: Keys = Keys { known: &[&["command", "on"]], per_target: &[], elsewhere: &[] };
const DESTINATIONS: [&str; 3] = ["webhook", "email", "command"];
const FORMATS: [(&str, Format); 5] = [
    ("slack", Format::Slack),
    ("discord", Format::Discord),
    ("telegram", Format::Telegram),
    ("ntfy", Format::Ntfy),
    ("json", Format::Json),
];
const KINDS: [(&str, NotificationKind); 4] = [
    ("healed", NotificationKind::Healed),
    ("down", NotificationKind::Down),
    ("up", NotificationKind::Up),
    ("warn", NotificationKind::Warn),
];

/// In bytes: a path that long may contain a token. Redacting shorter ones would make ordinary words unreadable.
const MIN_TOKEN: usize = 16;
/// Far more than anyone reads.
const MAX_CHANNELS: usize = 20;

/// The usable channels, and a line for each one that is switched off.
pub(super) fn read_notify(reader: &mut Reader<'_>, node: &Node) -> (Vec<Channel>, Vec<String>) {
    let (mut channels, mut off) = (Vec::new(), Vec::new());
    if matches!(&node.value, Value::List(items) if items.is_empty()) {
        return (channels, off);
    }
    let items = reader.list(node, "for example [{email: ops@example.org}]").unwrap_or_default();
    if items.len() > MAX_CHANNELS {
        reader.reject(node, format!("has {} channels", items.len()), format!("at most {MAX_CHANNELS}"));
    }
    for item in items {
        let (channel, missing) = read_unless_unset(reader, |reader| read_channel(reader, item));
        match (channel, missing) {
            (Some(channel), None) => channels.push(channel),
            (_, Some(missing)) => off.push(format!("{}: {missing}", display_name(item))),
            (None, None) => {}
        }
    }
    number_duplicates(&mut channels);
    (channels, off)
}

/// The URL to ping, or why the heartbeat is switched off.
pub(super) fn read_heartbeat(reader: &mut Reader<'_>, node: &Node) -> (Option<Webhook>, Option<String>) {
    let (webhook, missing) = read_unless_unset(reader, |reader| read_webhook(reader, node, Some(Format::Json)));
    (webhook.filter(|_| missing.is_none()), missing.map(|missing| format!("heartbeat: {missing}")))
}

/// Reads a channel that an unset `${NAME}` switches off. The second value says which names are not set.
fn read_unless_unset<T>(
    reader: &mut Reader<'_>,
    read: impl FnOnce(&mut Reader<'_>) -> Option<T>,
) -> (Option<T>, Option<String>) {
    reader.unset = Some(Vec::new());
    let found = read(reader);
    let names = reader.unset.take().unwrap_or_default();
    let searched = reader.variables.searched();
    let missing = (!names.is_empty()).then(|| format!("{} is not set ({searched})", names.join(", ")));
    (found, missing)
}

fn read_channel(reader: &mut Reader<'_>, node: &Node) -> Option<Channel> {
    let Value::Map(entries) = &node.value else {
        reader.reject(node, "is not a channel", "for example {email: ops@example.org}");
        return None;
    };
    let mut destinations = entries.iter().filter(|entry| DESTINATIONS.contains(&entry.key.as_str()));
    let Some(first) = destinations.next() else {
        reader.reject_missing_key(node, "has no destination", format!("add one of: {}", DESTINATIONS.join(", ")));
        return None;
    };
    if let Some(second) = destinations.next() {
        let message = format!("`{}` is a second destination next to `{}`", second.key, first.key);
        reader.reject_key(second, message, "split it into two channels");
        return None;
    }
    let (keys, value) = match first.key.as_str() {
        "webhook" => (&WEBHOOK, &first.value),
        "email" => (&EMAIL, &first.value),
        _ => (&COMMAND, &first.value),
    };
    if !reader.has_only(node, keys) {
        return None;
    }
    let on = node.get("on").map_or_else(|| Some(KINDS.map(|(_, kind)| kind).into()), |node| read_on(reader, node));
    let format = node.get("format").map(|node| reader.choice(node, &FORMATS));
    let destination = match first.key.as_str() {
        "webhook" => Destination::Webhook(read_webhook(reader, value, format.flatten())?),
        "email" => Destination::Email(read_email(reader, node, value)?),
        _ => Destination::Command(reader.command(value)?),
    };
    let shown = display_name(node);
    Some(Channel { id: shown.clone(), shown, destination, on: on? })
}

fn read_on(reader: &mut Reader<'_>, node: &Node) -> Option<BTreeSet<NotificationKind>> {
    let items = reader.list(node, "for example [down, up]")?;
    let kinds: Vec<Option<NotificationKind>> = items.iter().map(|item| reader.choice(item, &KINDS)).collect();
    kinds.into_iter().collect()
}

fn read_webhook(reader: &mut Reader<'_>, node: &Node, format: Option<Format>) -> Option<Webhook> {
    let Address { url, authorization, .. } = read_address(reader, node)?;
    // Anyone who knows the URL of a webhook can post to it.
    reader.secrets.add(&url);
    let path = url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map(|(_, path)| path);
    if let Some(path) = path.filter(|path| path.len() >= MIN_TOKEN) {
        reader.secrets.add(path);
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
        reader.reject(node, "has no chat_id", "…/bot<token>/sendMessage?chat_id=<the chat's id>");
        return None;
    }
    Some(Webhook { url: Secret(url), authorization: authorization.map(Secret), format })
}

fn read_email(reader: &mut Reader<'_>, node: &Node, to: &Node) -> Option<Email> {
    if !cfg!(feature = "email") {
        reader.reject(to, "needs mail support, which this build lacks", "build it with the feature `email`");
        return None;
    }
    let to = read_mail_address(reader, to);
    let from = node.get("from").map(|node| read_mail_address(reader, node));
    let user = node.get("user").map(|node| read_credential(reader, node));
    let password = node.get("password").map(|node| read_credential(reader, node));
    if let Some(Some(password)) = &password {
        reader.secrets.add(&password.0);
    }
    let via = match node.get("via") {
        Some(node) if node.as_text() != Some("sendmail") => read_smtp(reader, node),
        Some(_) | None => Some(MailTransport::Sendmail),
    };
    let credentials = match (user, password, node.get("user").or_else(|| node.get("password"))) {
        (Some(user), Some(password), _) => Some((user?, password?)),
        (None, None, _) => None,
        (_, _, Some(one)) => {
            reader.reject(one, "is set alone", "set both `user` and `password`, or neither");
            return None;
        }
        (_, _, None) => None,
    };
    let via = match (via?, credentials) {
        (MailTransport::Smtp(smtp), credentials) => MailTransport::Smtp(Smtp { credentials, ..smtp }),
        (MailTransport::Sendmail, None) => MailTransport::Sendmail,
        (MailTransport::Sendmail, Some(_)) => {
            let advice = "for SMTP add via: smtp://mail.example.org:587";
            reader.reject(node, "has a `user`, but sendmail takes none", advice);
            return None;
        }
    };
    let from = match from {
        Some(from) => Some(from?),
        None => None,
    };
    Some(Email { to: to?, from, via })
}

fn read_credential(reader: &mut Reader<'_>, node: &Node) -> Option<Secret> {
    let raw = reader.text(node)?;
    reader.expand(node, raw).map(Secret)
}

/// Checks only what could change the meaning of a header or a command line; the rest is left to the mail server.
fn read_mail_address(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let raw = reader.text(node)?;
    let text = reader.expand(node, raw)?.trim().to_owned();
    let is_plain = |part: &str| !part.is_empty() && !part.contains(|c: char| c.is_whitespace() || c.is_control());
    let in_brackets = text.strip_suffix('>').and_then(|text| text.rsplit_once('<')).map(|(_, address)| address);
    let address = in_brackets.unwrap_or(&text);
    let parts = address.rsplit_once('@').filter(|(user, domain)| is_plain(user) && is_plain(domain));
    if parts.is_none_or(|(user, _)| user.starts_with('-') || user.contains(['@', ',', '<', '>'])) || text.contains('\n')
    {
        reader.reject(node, "is not a mail address", "for example ops@example.org; one channel per address");
        return None;
    }
    Some(text)
}

fn read_smtp(reader: &mut Reader<'_>, node: &Node) -> Option<MailTransport> {
    const ADVICE: &str = "one of: sendmail, smtp://mail.example.org:587, smtps://mail.example.org";
    let raw = reader.text(node)?;
    let text = reader.expand(node, raw)?;
    let (security, rest, default_port) = match text.split_once("://") {
        Some(("smtp", rest)) => (Security::StartTls, rest, 587),
        Some(("smtps", rest)) => (Security::Tls, rest, 465),
        _ => {
            reader.reject(node, "is not a mail transport", ADVICE);
            return None;
        }
    };
    if rest.contains('@') {
        reader.reject(node, "contains a user", "use the keys `user` and `password` instead");
        return None;
    }
    let rest = rest.trim_end_matches('/');
    let (host, port) = match rest.rsplit_once(':').filter(|(_, port)| !port.contains(']')) {
        Some((host, port)) => (host, port.parse::<u16>().ok().filter(|port| *port > 0)),
        None => (rest, Some(default_port)),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_host = !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || ".-_:".contains(c));
    let Some(port) = port.filter(|_| is_host) else {
        reader.reject(node, "has no valid host and port", ADVICE);
        return None;
    };
    Some(MailTransport::Smtp(Smtp { host: host.to_owned(), port, security, credentials: None }))
}

/// A channel without secrets: of a URL only the host, or the variable that stands for it.
fn display_name(node: &Node) -> String {
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

/// Channels that are shown alike get ids with a number.
fn number_duplicates(channels: &mut [Channel]) {
    for index in 1..channels.len() {
        let same = channels[..index].iter().filter(|other| other.shown == channels[index].shown).count();
        if same > 0 {
            channels[index].id = format!("{}#{}", channels[index].shown, same + 1);
        }
    }
}
