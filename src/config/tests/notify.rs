//! `notify` and `heartbeat`: what is valid, what only switches a channel off, and what is rejected.

use super::*;
use crate::config::channel::{MailTransport, Security};
use crate::outcome::NotificationKind;

fn with(top: &str) -> String {
    format!("{top}\ntargets: [{{name: a, tcp: 'h:1'}}]")
}

fn channel(item: &str) -> Channel {
    let mut config = accepted(&with(&format!("notify: [{item}]")));
    assert_eq!((config.notify.len(), config.disabled_channels.len()), (1, 0), "{item}: {:?}", config.disabled_channels);
    config.notify.remove(0)
}

#[track_caller]
fn webhook(item: &str, format: Format, url: &str) {
    let Destination::Webhook(webhook) = channel(item).destination else { panic!("{item}") };
    assert_eq!((webhook.format, webhook.url.0.as_str()), (format, url), "{item}");
}

#[test]
fn the_format_of_a_webhook_follows_from_its_host_by_default() {
    webhook("{webhook: https://hooks.slack.com/services/x}", Format::Slack, "https://hooks.slack.com/services/x");
    webhook("{webhook: https://discord.com/api/webhooks/1/x}", Format::Discord, "https://discord.com/api/webhooks/1/x");
    webhook("{webhook: https://ntfy.sh/topic}", Format::Ntfy, "https://ntfy.sh/topic");
    webhook("{webhook: 'http://ntfy.example.org:80/t'}", Format::Ntfy, "http://ntfy.example.org:80/t");
    webhook("{webhook: http://notntfy.sh/t}", Format::Json, "http://notntfy.sh/t");
    webhook("{webhook: 'http://${HOST}/x', format: slack}", Format::Slack, "http://h:1/x");
    let telegram = "https://api.telegram.org/bot1:x/sendMessage?chat_id=-5";
    webhook(&format!("{{webhook: '{telegram}'}}"), Format::Telegram, telegram);
    rejected(
        &with("notify: [{webhook: 'https://api.telegram.org/bot1:s3cret/sendMessage'}]"),
        &["w.yaml:1:20: `webhook` has no chat_id", "chat_id="],
    );
}

#[test]
fn mail_goes_through_sendmail_by_default() {
    #[track_caller]
    fn via(item: &str, expected: Option<(&str, u16, Security)>) {
        let Destination::Email(email) = channel(item).destination else { panic!("{item}") };
        let found = match &email.via {
            MailTransport::Sendmail => None,
            MailTransport::Smtp(smtp) => Some((smtp.host.as_str(), smtp.port, smtp.security)),
        };
        assert_eq!(found, expected, "{item}");
    }
    via("{email: a@b}", None);
    via("{email: 'Ops <a@b>', via: sendmail, from: w@b}", None);
    via("{email: a@b, via: 'smtp://mail.b'}", Some(("mail.b", 587, Security::StartTls)));
    via("{email: a@b, via: 'smtp://mail.b:25/'}", Some(("mail.b", 25, Security::StartTls)));
    via("{email: a@b, via: 'smtps://[::1]:4650'}", Some(("::1", 4650, Security::Tls)));
    via("{email: a@b, via: 'smtps://mail.b'}", Some(("mail.b", 465, Security::Tls)));
    let Destination::Email(email) =
        channel("{email: a@b, via: 'smtp://m', user: u, password: '${PASSWORD}'}").destination
    else {
        panic!("a mail")
    };
    let MailTransport::Smtp(smtp) = email.via else { panic!("by SMTP") };
    assert_eq!(smtp.credentials, Some((Secret("u".into()), Secret("p@s/s$%41".into()))));
}

#[test]
fn a_channel_gets_all_four_messages_by_default() {
    let all = [NotificationKind::Healed, NotificationKind::Down, NotificationKind::Up, NotificationKind::Warn];
    assert_eq!(channel("{command: ./notify.sh}").on, all.into());
    assert_eq!(
        channel("{command: [./notify.sh, now], on: [down, up]}").on,
        [NotificationKind::Down, NotificationKind::Up].into()
    );
    let config = accepted(&with("notify: [{command: x}, {email: a@b}, {command: x, on: [warn]}]"));
    let ids: Vec<&str> = config.notify.iter().map(|channel| channel.id.as_str()).collect();
    assert_eq!(ids, ["command x", "a@b through sendmail", "command x#2"]);
    assert!(accepted(&with("notify: []")).notify.is_empty());
}

#[test]
fn an_unset_variable_switches_off_only_its_channel() {
    let config = accepted(&with(
        "heartbeat: '${PING}'\nnotify: [{webhook: 'https://hooks.slack.com/${SLACK}'}, \
         {email: a@b, via: 'smtp://m', user: u, password: '${MAIL}'}, {email: a@b}]",
    ));
    assert_eq!((config.notify.len(), config.heartbeat), (1, None));
    let off = [
        "webhook hooks.slack.com: ${SLACK} is not set",
        "a@b through m: ${MAIL} is not set",
        "heartbeat: ${PING} is not set",
    ];
    assert_eq!(config.disabled_channels.len(), off.len());
    for (found, expected) in config.disabled_channels.iter().zip(off) {
        assert!(found.starts_with(expected), "{found}");
    }
    // An error that does not depend on the environment is still an error.
    rejected(&with("notify: [{webhook: '${SLACK}', on: [dwon]}]"), &["w.yaml:1:37: `on[0]` is not one of"]);
}

#[test]
fn invalid_channels_are_rejected() {
    rejected(&with("notify: x"), &["w.yaml:1:9: `notify` must be a list, not text"]);
    rejected(&with("notify: [x]"), &["w.yaml:1:10: `notify[0]` is not a channel", "{email: ops@example.org}"]);
    rejected(
        &with("notify: [{on: [down]}]"),
        &["w.yaml:1:10: `notify[0]` has no destination", "webhook, email, command"],
    );
    rejected(&with("notify: [{email: a@b, command: x}]"), &["w.yaml:1:23: ", "two channels"]);
    rejected(&with("notify: [{email: a@b, format: slack}]"), &["w.yaml:1:23: unknown key `format`"]);
    rejected(&with("notify: [{webhook: http://h/x, format: slak}]"), &["w.yaml:1:40: `format` is not one of", "slack"]);
    rejected(&with("notify: [{webhook: ftp://h/x}]"), &["w.yaml:1:20: `webhook`"]);
    rejected(&with("notify: [{email: a}]"), &["w.yaml:1:18: `email` is not a mail address"]);
    rejected(&with("notify: [{email: -oQ/tmp@b}]"), &["w.yaml:1:18: `email` is not a mail address"]);
    rejected(&with("notify: [{email: 'a@b, c@d'}]"), &["w.yaml:1:18: `email` is not a mail address"]);
    rejected(&with("notify: [{email: \"a@b\\nBcc: c@d\"}]"), &["w.yaml:1:18: `email` is not a mail address"]);
    rejected(&with("notify: [{email: a@b, via: mail.b}]"), &["w.yaml:1:28: `via` is not a mail transport", "smtp://"]);
    rejected(&with("notify: [{email: a@b, via: 'smtp://m:0'}]"), &["w.yaml:1:28: `via` has no valid host and port"]);
    rejected(&with("notify: [{email: a@b, via: 'smtp://u:s3cret@m'}]"), &["w.yaml:1:28: `via` contains a user"]);
    rejected(
        &with("notify: [{email: a@b, via: 'smtp://m', password: s3cret}]"),
        &["w.yaml:1:50: `password` is set alone"],
    );
    rejected(
        &with("notify: [{email: a@b, user: u, password: s3cret}]"),
        &["w.yaml:1:10: `notify[0]` has a `user`, but sendmail takes none"],
    );
    rejected(&with(&format!("notify: [{}]", "{command: x},".repeat(21))), &["w.yaml:1:9: `notify` has 21 channels"]);
    rejected(&with("heartbeat: ping"), &["w.yaml:1:12: `heartbeat`"]);
}
