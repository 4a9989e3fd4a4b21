//! What a look saw on its way, kept for the case that it ends badly.
//! It must never let a secret through: not one of the configuration, and not what a header's name calls one.

use std::time::Duration;

use crate::config::{CutEnds, Secrets};
use crate::outcome::{Evidence, Phases};

use super::trace::{Trace, Traced};

/// Bytes of a body, or of a command's output, that are kept.
pub(super) const KEPT: usize = 1 << 10;
/// Characters of each header that are kept.
const HEADER: usize = 200;
/// A header with one of these in its name may hold what lets its reader in somewhere.
const PRIVATE: [&str; 10] =
    ["auth", "cookie", "token", "secret", "key", "session", "password", "credential", "csrf", "signature"];

/// What a look has come across so far. Spans are from its start.
#[derive(Debug, Default)]
pub(super) struct Observations {
    pub(super) resolved: Option<Duration>,
    pub(super) connected: Option<Duration>,
    pub(super) exchange: Option<Traced>,
    pub(super) body: Vec<u8>,
    pub(super) output: Option<String>,
}

impl Observations {
    pub(super) fn evidence(self, took: Duration, secrets: &Secrets) -> Evidence {
        let trace = self.exchange.as_ref().map(Traced::lock);
        let status = trace.as_ref().and_then(|trace| trace.head).map(|(status, _)| status);
        let phases = phases(self.resolved, self.connected, trace.as_deref(), took);
        // More than is kept, so that the cut is seldom among what is shown.
        let start = &self.body[..self.body.len().min(4 * KEPT)];
        let ends = CutEnds { is_end_cut: start.len() < self.body.len(), ..CutEnds::default() };
        let body = || cut(&secrets.redact_fragment(start, ends), KEPT);
        Evidence {
            phases,
            status,
            headers: trace.map_or_else(Vec::new, |trace| headers(&trace.answer.headers, secrets)),
            body: status.map(|_| body()),
            output: self.output.clone(),
        }
    }
}

fn phases(resolved: Option<Duration>, connected: Option<Duration>, trace: Option<&Trace>, took: Duration) -> Phases {
    let us = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    let between = |from: Option<Duration>, to: Option<Duration>| Some(us(to?.saturating_sub(from?)));
    let ready = trace.and_then(|trace| trace.ready);
    let secure = trace.is_some_and(|trace| trace.secure);
    let head = trace.and_then(|trace| trace.head).map(|(_, at)| at);
    // Over TLS the first byte of all is one of the handshake.
    let answered = if secure { head } else { trace.and_then(|trace| trace.first_byte) };
    Phases {
        resolve_us: resolved.map(us),
        connect_us: between(resolved, connected),
        tls_us: between(connected, ready).filter(|_| secure),
        first_byte_us: between(ready, answered),
        rest_us: between(answered, Some(took)),
    }
}

/// The names are shown as the answer has them: a header that is none may be all name.
fn headers(headers: &[(String, String)], secrets: &Secrets) -> Vec<(String, String)> {
    let shown = |text: &str| cut(&secrets.redact(text), HEADER);
    let pair = |(name, value): &(String, String)| {
        let lower = name.to_ascii_lowercase();
        match PRIVATE.iter().filter_map(|word| lower.find(word)).min() {
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

/// The beginning of a text, at most so many bytes of it.
pub(super) fn cut(text: &str, most: usize) -> String {
    text[..text.floor_char_boundary(most)].to_owned()
}

#[cfg(test)]
mod tests {
    use crate::probe::head::Head;

    use super::*;

    #[test]
    fn secrets_are_left_out_before_anything_is_cut() {
        let sent =
            ["Server: x", "Set-Cookie: sid=1", "x-api-key: k", "X-Echo: a s3cret", "the s3cret", "my cookie by auth"];
        let sent = sent.join("\r\n");
        let answer = Head::parse(format!("HTTP/1.1 503 X\r\n{sent}\r\n\r\n").as_bytes()).expect("a head");
        let trace = Traced::new(Duration::from_millis(1), false);
        trace.lock().head = Some((503, Duration::from_millis(3)));
        trace.lock().answer = answer;
        let body = [vec![b'x'; KEPT - 3], b"s3cret and more".to_vec()].concat();
        let seen = Observations { exchange: Some(trace), body, ..Observations::default() };
        let evidence = seen.evidence(Duration::from_millis(4), &Secrets::of(&["s3cret"]));
        let shown: Vec<String> = evidence.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let expected = ["server: x", "set-cookie: …", "x-api-key: …", "x-echo: a …", "the …: ", "my …: …"];
        assert_eq!(shown, expected);
        assert_eq!(evidence.body, Some("x".repeat(KEPT - 3) + "…"));
        assert_eq!(evidence.status, Some(503));
    }

    #[test]
    fn each_part_is_timed_as_far_as_it_came() {
        let ms = Duration::from_millis;
        let trace = |secure, ready: Option<u64>, first_byte: Option<u64>, head: Option<u64>| Trace {
            connected: ms(3),
            secure,
            ready: ready.map(ms),
            first_byte: first_byte.map(ms),
            head: head.map(|at| (200, ms(at))),
            ..Trace::default()
        };
        let shown = |connected: Option<u64>, trace: Option<&Trace>| {
            let phases = phases(Some(ms(1)), connected.map(ms), trace, ms(20));
            phases.done().map(|(name, took)| format!("{name} {}", took.as_millis())).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(shown(None, None), "resolve 1");
        assert_eq!(shown(Some(3), None), "resolve 1, connect 2");
        assert_eq!(shown(Some(3), Some(&trace(false, Some(3), None, None))), "resolve 1, connect 2");
        let whole = trace(false, Some(3), Some(7), Some(8));
        assert_eq!(shown(Some(3), Some(&whole)), "resolve 1, connect 2, first byte 4, rest 13");
        assert_eq!(shown(Some(3), Some(&trace(true, None, Some(4), None))), "resolve 1, connect 2");
        let whole = trace(true, Some(6), Some(4), Some(9));
        assert_eq!(shown(Some(3), Some(&whole)), "resolve 1, connect 2, TLS 3, first byte 3, rest 11");
    }
}
