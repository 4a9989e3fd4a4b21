//! Collects what a probe observes, as evidence in case it fails.
//! It must never keep a secret: neither one of the configuration nor the value of a header whose name suggests one.

use std::time::Duration;

use crate::config::{CutEnds, Secrets};
use crate::outcome::{Evidence, Phases};

use super::trace::{SharedTrace, Trace};

/// Bytes of a body or of a command's output that are kept.
pub(super) const MAX_EXCERPT: usize = 1 << 10;
/// Characters of each header that are kept.
const MAX_HEADER: usize = 200;
/// A header with one of these words in its name may hold a credential.
const SECRET_WORDS: [&str; 10] =
    ["auth", "cookie", "token", "secret", "key", "session", "password", "credential", "csrf", "signature"];

/// What a probe has observed so far. Times are measured from its start.
#[derive(Debug, Default)]
pub(super) struct Observations {
    /// Later than the start of the probe if the thread for this address took its time to start.
    pub(super) started: Duration,
    pub(super) resolved: Option<Duration>,
    pub(super) connected: Option<Duration>,
    pub(super) exchange: Option<SharedTrace>,
    pub(super) body: Vec<u8>,
    pub(super) output: Option<String>,
}

impl Observations {
    pub(super) fn into_evidence(self, ended: Duration, secrets: &Secrets) -> Evidence {
        let trace = self.exchange.as_ref().map(SharedTrace::lock);
        let status = trace.as_ref().and_then(|trace| trace.status).map(|(status, _)| status);
        let phases = phases(&self, trace.as_deref(), ended);
        // Redaction may remove text next to a cut. With four times what is kept, the cut rarely affects the excerpt.
        let start = &self.body[..self.body.len().min(4 * MAX_EXCERPT)];
        let cut_ends = CutEnds { is_end_cut: start.len() < self.body.len(), ..CutEnds::default() };
        let body = || truncate(&secrets.redact_fragment(start, cut_ends), MAX_EXCERPT);
        Evidence {
            phases,
            status,
            headers: trace.map_or_else(Vec::new, |trace| redact_headers(&trace.head.headers, secrets)),
            body: status.map(|_| body()),
            output: self.output.clone(),
            ..Evidence::default()
        }
    }
}

fn phases(observations: &Observations, trace: Option<&Trace>, ended: Duration) -> Phases {
    let Observations { started, resolved, connected, .. } = *observations;
    let us = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let between = |from: Option<Duration>, to: Option<Duration>| Some(us(to?.saturating_sub(from?)));
    let ready = trace.and_then(|trace| trace.ready);
    let is_secure = trace.is_some_and(|trace| trace.is_secure);
    let head = trace.and_then(|trace| trace.status).map(|(_, at)| at);
    // Over TLS the first byte received belongs to the handshake.
    let response_start = if is_secure { head } else { trace.and_then(|trace| trace.first_byte) };
    Phases {
        resolve_us: between(Some(started), resolved),
        connect_us: between(resolved, connected),
        tls_us: between(connected, ready).filter(|_| is_secure),
        first_byte_us: between(ready, response_start),
        rest_us: between(response_start, Some(ended)),
    }
}

/// Names need redaction too: a line without a colon is kept as a name.
fn redact_headers(headers: &[(String, String)], secrets: &Secrets) -> Vec<(String, String)> {
    let shown = |text: &str| truncate(&secrets.redact(text), MAX_HEADER);
    let pair = |(name, value): &(String, String)| {
        let lower = name.to_ascii_lowercase();
        match SECRET_WORDS.iter().filter_map(|word| lower.find(word)).min() {
            Some(_) if is_token(name) => (shown(name), "…".into()),
            Some(at) => (shown(&name[..at]) + "…", "…".into()),
            None => (shown(name), shown(value)),
        }
    };
    headers.iter().map(pair).collect()
}

fn is_token(name: &str) -> bool {
    name.chars().all(|char| char.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(char))
}

/// The beginning of `text`, at most `max` bytes.
fn truncate(text: &str, max: usize) -> String {
    text[..text.floor_char_boundary(max)].to_owned()
}

#[cfg(test)]
mod tests {
    use crate::probe::head::Head;

    use super::*;

    #[test]
    fn secrets_are_redacted_before_anything_is_cut() {
        let sent =
            ["Server: x", "Set-Cookie: sid=1", "x-api-key: k", "X-Echo: a s3cret", "the s3cret", "my cookie by auth"];
        let sent = sent.join("\r\n");
        let head = Head::parse(format!("HTTP/1.1 503 X\r\n{sent}\r\n\r\n").as_bytes()).expect("a head");
        let trace = SharedTrace::new(Duration::from_millis(1), false);
        trace.lock().status = Some((503, Duration::from_millis(3)));
        trace.lock().head = head;
        let body = [vec![b'x'; MAX_EXCERPT - 3], b"s3cret and more".to_vec()].concat();
        let observations = Observations { exchange: Some(trace), body, ..Observations::default() };
        let evidence = observations.into_evidence(Duration::from_millis(4), &Secrets::of(&["s3cret"]));
        let shown: Vec<String> = evidence.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let expected = ["server: x", "set-cookie: …", "x-api-key: …", "x-echo: a …", "the …: ", "my …: …"];
        assert_eq!(shown, expected);
        assert_eq!(evidence.body, Some("x".repeat(MAX_EXCERPT - 3) + "…"));
        assert_eq!(evidence.status, Some(503));
    }

    #[test]
    fn each_completed_phase_is_timed() {
        let ms = Duration::from_millis;
        let trace = |is_secure, ready: Option<u64>, first_byte: Option<u64>, head: Option<u64>| Trace {
            connected: ms(3),
            is_secure,
            ready: ready.map(ms),
            first_byte: first_byte.map(ms),
            status: head.map(|at| (200, ms(at))),
            ..Trace::default()
        };
        let after = |start: u64, connected: Option<u64>, trace: Option<&Trace>| {
            let (started, resolved, connected) = (ms(start), Some(ms(1)), connected.map(ms));
            let observations = Observations { started, resolved, connected, ..Observations::default() };
            let phases = phases(&observations, trace, ms(20));
            phases
                .completed()
                .map(|(name, duration)| format!("{name} {}", duration.as_millis()))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let shown = |connected: Option<u64>, trace: Option<&Trace>| after(0, connected, trace);
        assert_eq!(shown(None, None), "resolve 1");
        assert_eq!(after(1, Some(3), None), "resolve 0, connect 2");
        assert_eq!(shown(Some(3), None), "resolve 1, connect 2");
        assert_eq!(shown(Some(3), Some(&trace(false, Some(3), None, None))), "resolve 1, connect 2");
        let whole = trace(false, Some(3), Some(7), Some(8));
        assert_eq!(shown(Some(3), Some(&whole)), "resolve 1, connect 2, first byte 4, rest 13");
        assert_eq!(shown(Some(3), Some(&trace(true, None, Some(4), None))), "resolve 1, connect 2");
        let whole = trace(true, Some(6), Some(4), Some(9));
        assert_eq!(shown(Some(3), Some(&whole)), "resolve 1, connect 2, TLS 3, first byte 3, rest 11");
    }
}
