//! Messages over HTTP, each in the format that its service documents. It must never follow a redirect, and never read
//! or show more than the beginning of a server's reply.

use std::time::Duration;

use ureq::http::{Request, Response};
use ureq::{Agent, Body};

use super::fit::fit;
use super::{Delivery, DeliveryOutcome, Message, TIMEOUT};
use crate::config::{Format, Webhook};
use crate::outcome::{NotificationKind, describe_io_error};
use crate::time::parse_http_date;

const MAX_REPLY_BYTES: u64 = 4 << 10;
/// The longest texts that the services show whole. Discord and Telegram document a limit in characters and compute in
/// UTF-16, which never counts fewer. Slack splits a longer text into several messages. ntfy counts bytes, and turns a
/// longer text into an attachment.
const DISCORD_MAX_CHARS: usize = 2_000;
const TELEGRAM_MAX_CHARS: usize = 4_096;
const SLACK_MAX_CHARS: usize = 4_000;
const NTFY_MAX_BYTES: usize = 4_096;
/// Statuses that mean that this message will never be accepted. Any other failure, such as an invalid token, may be
/// fixed by tomorrow.
const PERMANENT_STATUSES: [u16; 6] = [400, 410, 413, 414, 415, 422];

#[derive(Debug, PartialEq)]
struct RequestParts {
    body: String,
    headers: Vec<(&'static str, String)>,
}

pub(super) fn deliver(webhook: &Webhook, message: &Message, delivery: &Delivery) -> DeliveryOutcome {
    let RequestParts { body, headers } = format_message(webhook.format, message);
    let mut request = Request::post(&webhook.url.0);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    if let Some(authorization) = &webhook.authorization {
        request = request.header("Authorization", &authorization.0);
    }
    let request = match request.body(body) {
        Ok(request) => request,
        Err(error) => return DeliveryOutcome::Failed(format!("cannot build the request: {error}"), None),
    };
    match send(request) {
        Ok(response) => read_outcome(response, delivery),
        Err(error) => DeliveryOutcome::Failed(delivery.sanitize(&error), None),
    }
}

/// Sends a GET request without content.
/// Errors: why there was no reply with a status from 200 to 299.
pub fn ping(webhook: &Webhook, delivery: &Delivery) -> Result<(), String> {
    let mut request = Request::get(&webhook.url.0);
    if let Some(authorization) = &webhook.authorization {
        request = request.header("Authorization", &authorization.0);
    }
    let request = request.body(String::new()).map_err(|error| error.to_string())?;
    match send(request).map(|response| read_outcome(response, delivery)) {
        Ok(DeliveryOutcome::Delivered) => Ok(()),
        Ok(DeliveryOutcome::Refused(why) | DeliveryOutcome::Failed(why, _)) => Err(why),
        Err(why) => Err(delivery.sanitize(&why)),
    }
}

fn send(request: Request<String>) -> Result<Response<Body>, String> {
    let config = || {
        Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .max_idle_connections(0)
            .user_agent(concat!("watchdog-agent/", env!("CARGO_PKG_VERSION")))
    };
    #[cfg(feature = "tls")]
    {
        use ureq::tls::{RootCerts, TlsConfig};
        let trusting = |roots| config().tls_config(TlsConfig::builder().root_certs(roots).build()).build();
        match Agent::new_with_config(trusting(RootCerts::PlatformVerifier)).run(request.clone()) {
            // The system has no root certificates.
            Err(ureq::Error::Rustls(_)) => Agent::new_with_config(trusting(RootCerts::WebPki)).run(request),
            found => found,
        }
        .map_err(|error| describe_error(&error))
    }
    #[cfg(not(feature = "tls"))]
    Agent::new_with_config(config().build()).run(request).map_err(|error| describe_error(&error))
}

fn describe_error(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) => describe_io_error(error),
        error => error.to_string(),
    }
}

fn read_outcome(response: Response<Body>, delivery: &Delivery) -> DeliveryOutcome {
    let status = response.status().as_u16();
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    let after = header("retry-after").and_then(|value| retry_after(value, header("date")));
    let reply = response.into_body().into_with_config().limit(MAX_REPLY_BYTES).read_to_string().unwrap_or_default();
    if (200..300).contains(&status) {
        return DeliveryOutcome::Delivered;
    }
    let shown = delivery.sanitize(&reply);
    let why = if shown.is_empty() { format!("status {status}") } else { format!("status {status}: {shown}") };
    match PERMANENT_STATUSES.contains(&status) {
        true => DeliveryOutcome::Refused(why),
        false => DeliveryOutcome::Failed(why, after.or_else(|| retry_after_in_body(&reply))),
    }
}

/// The pause that `Retry-After` asks for: seconds, or a date, which is compared with the server's own `Date`.
fn retry_after(value: &str, date: Option<&str>) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse::<f64>() {
        return in_seconds(seconds);
    }
    Some(parse_http_date(value)?.since(parse_http_date(date?)?))
}

fn in_seconds(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds.ceil()).ok()
}

/// Discord and Telegram give the pause in the body, in seconds.
fn retry_after_in_body(body: &str) -> Option<Duration> {
    let reply: serde_json::Value = serde_json::from_str(body).ok()?;
    let seconds = reply.get("retry_after").or_else(|| reply.pointer("/parameters/retry_after"))?.as_f64()?;
    in_seconds(seconds)
}

fn format_message(format: Format, message: &Message) -> RequestParts {
    let json = |value: serde_json::Value| RequestParts {
        body: value.to_string(),
        headers: vec![("Content-Type", "application/json".into())],
    };
    let text = &message.text;
    match format {
        Format::Json => {
            RequestParts { body: message.json(), headers: vec![("Content-Type", "application/json".into())] }
        }
        // Slack interprets these three characters and needs them escaped.
        Format::Slack => {
            let size = |letter| match letter {
                '&' => 5,
                '<' | '>' => 4,
                letter => letter.len_utf16(),
            };
            let text = fit(text, SLACK_MAX_CHARS, size);
            let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            json(serde_json::json!({"text": text}))
        }
        Format::Discord => {
            let text = fit(text, DISCORD_MAX_CHARS, char::len_utf16);
            json(serde_json::json!({"content": text, "allowed_mentions": {"parse": []}}))
        }
        Format::Telegram => json(serde_json::json!({"text": fit(text, TELEGRAM_MAX_CHARS, char::len_utf16)})),
        Format::Ntfy => {
            let (priority, tag) = match message.event {
                NotificationKind::Down => ("high", "rotating_light"),
                NotificationKind::Warn => ("default", "warning"),
                NotificationKind::Up | NotificationKind::Healed => ("default", "white_check_mark"),
                NotificationKind::Test => ("low", "wave"),
            };
            let headers = vec![
                ("Content-Type", "text/plain; charset=utf-8".into()),
                ("Priority", priority.into()),
                ("Tags", tag.into()),
            ];
            RequestParts { body: fit(text, NTFY_MAX_BYTES, char::len_utf8), headers }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::WallTime;

    fn message(text: &str) -> Message {
        Message {
            id: "1a-1".into(),
            event: NotificationKind::Down,
            about: None,
            target: Some("api".into()),
            host: "srv412".into(),
            at: WallTime::from_ms(1_795_313_530_123),
            text: text.into(),
            class: Some(crate::outcome::Class::Refused),
            detail: Some("refused".into()),
            incident: Some("1122-0313".into()),
            attempts: Some(2),
            down_ms: Some(64_000),
            late: false,
        }
    }

    #[track_caller]
    fn check(format: Format, text: &str, body: &str, headers: &str) {
        let found = format_message(format, &message(text));
        let shown: Vec<String> = found.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        assert_eq!((found.body.as_str(), shown.join("; ").as_str()), (body, headers));
    }

    #[test]
    fn each_service_gets_the_format_that_it_documents() {
        let json = "Content-Type: application/json";
        let own = [
            r#"{"id":"1a-1","event":"down","about":null,"target":"api","host":"srv412""#,
            r#""at":"2026-11-22T02:12:10.123Z""#,
            r#""text":"[DOWN] api\nmore","class":"refused","detail":"refused","incident":"1122-0313","attempts":2"#,
            r#""down_ms":64000,"late":false}"#,
        ];
        check(Format::Json, "[DOWN] api\nmore", &own.join(","), json);
        check(Format::Slack, "a <!channel> & b", r#"{"text":"a &lt;!channel&gt; &amp; b"}"#, json);
        check(Format::Discord, "@everyone", r#"{"allowed_mentions":{"parse":[]},"content":"@everyone"}"#, json);
        check(Format::Telegram, "a <b>\nc", r#"{"text":"a <b>\nc"}"#, json);
        let plain = "Content-Type: text/plain; charset=utf-8; Priority: high; Tags: rotating_light";
        check(Format::Ntfy, "größer\nb", "größer\nb", plain);
    }

    /// The text in the posted body.
    fn posted(format: Format, text: &str) -> String {
        let body = format_message(format, &message(text)).body;
        match serde_json::from_str::<serde_json::Value>(&body) {
            Ok(body) => body["content"].as_str().or(body["text"].as_str()).expect("a text").to_owned(),
            Err(_) => body,
        }
    }

    #[test]
    fn a_system_error_is_described_without_its_number() {
        let refused = std::io::Error::from_raw_os_error(rustix::io::Errno::CONNREFUSED.raw_os_error());
        assert_eq!(describe_error(&ureq::Error::Io(refused)), "connection refused");
        assert_eq!(describe_error(&ureq::Error::ConnectionFailed), "connection failed");
    }

    #[test]
    fn texts_fit_the_limit_of_each_service() {
        for letter in ["a", "ä", "€", "🦀", "&", "<\n"] {
            let text = format!("[DOWN] api on srv412\n{}\nMore: watchdog incident last", letter.repeat(9_000));
            let check = |format, most: usize, of: fn(&str) -> usize| {
                let posted = posted(format, &text);
                let size = of(&posted);
                assert!(size <= most && size + 8 > most, "{format:?} {letter}: {size} of {most}");
                assert!(posted.starts_with("[DOWN] api on srv412\n") && posted.ends_with("incident last"), "{posted}");
            };
            let utf16 = |text: &str| text.encode_utf16().count();
            check(Format::Discord, 2_000, utf16);
            check(Format::Telegram, 4_096, utf16);
            check(Format::Slack, 4_000, utf16);
            check(Format::Ntfy, 4_096, str::len);
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_by_the_servers_clock() {
        let seconds = |value, date| retry_after(value, date).map(|pause| pause.as_secs());
        let date = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(seconds(" 120 ", None), Some(120));
        assert_eq!(seconds("0.5", None), Some(1));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:51:37 GMT", date), Some(120));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:40:00 GMT", date), Some(0), "the date has passed");
        assert_eq!(seconds("Fri, 31 Dec 9999 23:59:59 GMT", None), None, "no Date header to compare with");
        assert!(seconds("99999999999", None) > Some(3_600), "the outbox limits it");
        for nonsense in ["", "soon", "-5", "NaN", "inf", "1e300", "12 s"] {
            assert_eq!(seconds(nonsense, date), None, "{nonsense}");
        }
    }

    #[test]
    fn a_pause_is_also_read_from_the_body() {
        let seconds = |body: &str| retry_after_in_body(body).map(|pause| pause.as_secs());
        assert_eq!(seconds(r#"{"retry_after": 64.57}"#), Some(65));
        assert_eq!(seconds(r#"{"ok":false,"parameters":{"retry_after":7}}"#), Some(7));
        for nonsense in
            ["", "{}", "[]", r#"{"retry_after": -1}"#, r#"{"retry_after": "x"}"#, r#"{"retry_after":1e300}"#]
        {
            assert_eq!(seconds(nonsense), None, "{nonsense}");
        }
    }
}
