//! Messages by HTTP, each in the form that its service documents. It must never follow a redirect, or take what a
//! server answers for more than a few words.

use std::time::Duration;

use ureq::http::{Request, Response};
use ureq::{Agent, Body};

use super::fit::fit;
use super::{Delivery, DeliveryOutcome, Message, TIMEOUT};
use crate::config::{Format, Webhook};
use crate::outcome::{NotificationKind, describe_io_error};
use crate::time::parse_http_date;

/// What is read of an answer.
const ANSWER: u64 = 4 << 10;
/// The longest texts that the services take whole. Discord and Telegram count characters; UTF-16, which they compute
/// with, never counts fewer. Slack makes several messages of a longer one. ntfy makes a file of it that nobody opens,
/// and counts bytes.
const DISCORD_LONGEST: usize = 2_000;
const TELEGRAM_LONGEST: usize = 4_096;
const SLACK_LONGEST: usize = 4_000;
const NTFY_LONGEST: usize = 4_096;
/// They say that this very message cannot be taken. Any other may be over tomorrow: a token is put right.
const NEVER: [u16; 6] = [400, 410, 413, 414, 415, 422];

#[derive(Debug, PartialEq)]
struct Form {
    body: String,
    headers: Vec<(&'static str, String)>,
}

pub(super) fn deliver(webhook: &Webhook, message: &Message, means: &Delivery) -> DeliveryOutcome {
    let Form { body, headers } = form(webhook.format, message);
    let mut request = Request::post(&webhook.url.0);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    if let Some(authorization) = &webhook.authorization {
        request = request.header("Authorization", &authorization.0);
    }
    let request = match request.body(body) {
        Ok(request) => request,
        Err(error) => return DeliveryOutcome::Failed(format!("no request can be made of it: {error}"), None),
    };
    match send(request) {
        Ok(response) => judge(response, means),
        Err(error) => DeliveryOutcome::Failed(means.sanitize(&error), None),
    }
}

/// Asks for an address and for nothing else.
/// Errors: it did not answer with 200 to 299; why, in words.
pub fn ping(webhook: &Webhook, means: &Delivery) -> Result<(), String> {
    let mut request = Request::get(&webhook.url.0);
    if let Some(authorization) = &webhook.authorization {
        request = request.header("Authorization", &authorization.0);
    }
    let request = request.body(String::new()).map_err(|error| error.to_string())?;
    match send(request).map(|response| judge(response, means)) {
        Ok(DeliveryOutcome::Delivered) => Ok(()),
        Ok(DeliveryOutcome::Refused(why) | DeliveryOutcome::Failed(why, _)) => Err(why),
        Err(why) => Err(means.sanitize(&why)),
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
            // The system has no certificates to verify others by.
            Err(ureq::Error::Rustls(_)) => Agent::new_with_config(trusting(RootCerts::WebPki)).run(request),
            found => found,
        }
        .map_err(|error| words(&error))
    }
    #[cfg(not(feature = "tls"))]
    Agent::new_with_config(config().build()).run(request).map_err(|error| words(&error))
}

fn words(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) => describe_io_error(error),
        error => error.to_string(),
    }
}

fn judge(response: Response<Body>, means: &Delivery) -> DeliveryOutcome {
    let status = response.status().as_u16();
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    let after = header("retry-after").and_then(|value| retry_after(value, header("date")));
    let said = response.into_body().into_with_config().limit(ANSWER).read_to_string().unwrap_or_default();
    if (200..300).contains(&status) {
        return DeliveryOutcome::Delivered;
    }
    let words = means.sanitize(&said);
    let why = if words.is_empty() { format!("status {status}") } else { format!("status {status}: {words}") };
    match NEVER.contains(&status) {
        true => DeliveryOutcome::Refused(why),
        false => DeliveryOutcome::Failed(why, after.or_else(|| asked_pause(&said))),
    }
}

/// How long `Retry-After` asks to wait: seconds, or a date, which is compared with the server's own date.
fn retry_after(value: &str, date: Option<&str>) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse::<f64>() {
        return in_seconds(seconds);
    }
    Some(parse_http_date(value)?.since(parse_http_date(date?)?))
}

fn in_seconds(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds.ceil()).ok()
}

/// Discord and Telegram say in the body how long to wait, in seconds.
fn asked_pause(body: &str) -> Option<Duration> {
    let answer: serde_json::Value = serde_json::from_str(body).ok()?;
    let seconds = answer.get("retry_after").or_else(|| answer.pointer("/parameters/retry_after"))?.as_f64()?;
    in_seconds(seconds)
}

fn form(format: Format, message: &Message) -> Form {
    let json = |value: serde_json::Value| Form {
        body: value.to_string(),
        headers: vec![("Content-Type", "application/json".into())],
    };
    let text = &message.text;
    match format {
        Format::Json => Form { body: message.json(), headers: vec![("Content-Type", "application/json".into())] },
        // These three have a meaning there, and no others.
        Format::Slack => {
            let size = |letter| match letter {
                '&' => 5,
                '<' | '>' => 4,
                letter => letter.len_utf16(),
            };
            let text = fit(text, SLACK_LONGEST, size);
            let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            json(serde_json::json!({"text": text}))
        }
        Format::Discord => {
            let text = fit(text, DISCORD_LONGEST, char::len_utf16);
            json(serde_json::json!({"content": text, "allowed_mentions": {"parse": []}}))
        }
        Format::Telegram => json(serde_json::json!({"text": fit(text, TELEGRAM_LONGEST, char::len_utf16)})),
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
            Form { body: fit(text, NTFY_LONGEST, char::len_utf8), headers }
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
        let found = form(format, &message(text));
        let shown: Vec<String> = found.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        assert_eq!((found.body.as_str(), shown.join("; ").as_str()), (body, headers));
    }

    #[test]
    fn each_service_gets_the_form_that_it_documents() {
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

    /// A text of each letter, as it stands in what is posted.
    fn posted(format: Format, text: &str) -> String {
        let body = form(format, &message(text)).body;
        match serde_json::from_str::<serde_json::Value>(&body) {
            Ok(body) => body["content"].as_str().or(body["text"].as_str()).expect("a text").to_owned(),
            Err(_) => body,
        }
    }

    #[test]
    fn what_the_system_says_is_told_without_its_number() {
        let refused = std::io::Error::from_raw_os_error(rustix::io::Errno::CONNREFUSED.raw_os_error());
        assert_eq!(words(&ureq::Error::Io(refused)), "connection refused");
        assert_eq!(words(&ureq::Error::ConnectionFailed), "connection failed");
    }

    #[test]
    fn texts_fit_what_a_service_takes() {
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
    fn a_pause_is_asked_for_in_seconds_or_until_a_date_of_the_servers_own() {
        let of = |value, date| retry_after(value, date).map(|pause| pause.as_secs());
        let date = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(of(" 120 ", None), Some(120));
        assert_eq!(of("0.5", None), Some(1));
        assert_eq!(of("Sun, 06 Nov 1994 08:51:37 GMT", date), Some(120));
        assert_eq!(of("Sun, 06 Nov 1994 08:40:00 GMT", date), Some(0), "it is over");
        assert_eq!(of("Fri, 31 Dec 9999 23:59:59 GMT", None), None, "no clock to compare it with");
        assert!(of("99999999999", None) > Some(3_600), "the outbox has the last word");
        for nonsense in ["", "soon", "-5", "NaN", "inf", "1e300", "12 s"] {
            assert_eq!(of(nonsense, date), None, "{nonsense}");
        }
    }

    #[test]
    fn a_pause_is_asked_for_in_the_body_too() {
        let seconds = |body: &str| asked_pause(body).map(|pause| pause.as_secs());
        assert_eq!(seconds(r#"{"retry_after": 64.57}"#), Some(65));
        assert_eq!(seconds(r#"{"ok":false,"parameters":{"retry_after":7}}"#), Some(7));
        for nonsense in
            ["", "{}", "[]", r#"{"retry_after": -1}"#, r#"{"retry_after": "x"}"#, r#"{"retry_after":1e300}"#]
        {
            assert_eq!(seconds(nonsense), None, "{nonsense}");
        }
    }
}
