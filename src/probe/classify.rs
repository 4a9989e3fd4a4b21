//! Turns errors and timings into a failure class and a short description. Pure.
//! It must never blame the target for a fault of this machine.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use rustix::io::Errno;

use crate::outcome::{Class, describe_io_error};
use crate::time::HumanDuration;

use super::failure::Failure;
use super::sanitize::{ByteSize, FineDuration, join_list};
use super::trace::Trace;

/// The class of a network error; `None` for a fault of this machine, which proves nothing about the target.
pub(super) fn class_of(error: &io::Error) -> Option<Class> {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    match error.kind() {
        _ if errno == Some(Errno::AFNOSUPPORT) => Some(Class::Refused),
        ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            Some(Class::Refused)
        }
        // A path that does not lead to a socket.
        ErrorKind::NotFound | ErrorKind::NotADirectory => Some(Class::Refused),
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => Some(Class::Reset),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Some(Class::Timeout),
        _ => None,
    }
}

#[derive(Debug)]
pub(super) struct ConnectionAttempt {
    pub(super) address: SocketAddr,
    pub(super) error: io::Error,
    pub(super) duration: Duration,
}

/// The failure if no address accepted the connection.
pub(super) fn connect_failure(attempts: &[ConnectionAttempt]) -> Failure {
    if let Some(local) = attempts.iter().find(|attempt| class_of(&attempt.error).is_none()) {
        return Failure::Unknown(format!("cannot connect to {}: {}", local.address, describe_io_error(&local.error)));
    }
    let mut found = None;
    let mut parts = Vec::new();
    // A silent address says more than one that refuses: something listens there and does not answer.
    for class in [Class::Timeout, Class::Reset, Class::Refused] {
        let of_class: Vec<&ConnectionAttempt> =
            attempts.iter().filter(|attempt| class_of(&attempt.error) == Some(class)).collect();
        if of_class.is_empty() {
            continue;
        }
        found.get_or_insert(class);
        let (refused, others): (Vec<&ConnectionAttempt>, Vec<&ConnectionAttempt>) =
            of_class.iter().partition(|attempt| attempt.error.kind() == ErrorKind::ConnectionRefused);
        let names = |of: &[&ConnectionAttempt]| {
            join_list(&of.iter().map(|attempt| attempt.address.to_string()).collect::<Vec<_>>())
        };
        if !refused.is_empty() {
            parts.push(format!("refused by {}", names(&refused)));
        }
        if let Some(longest) = others.iter().map(|attempt| attempt.duration).max() {
            parts.push(match class {
                Class::Timeout => format!("no answer from {} in {}", names(&others), FineDuration(longest)),
                Class::Reset => format!("reset by {}", names(&others)),
                _ => format!("{} cannot be reached", names(&others)),
            });
        }
    }
    Failure::Unhealthy(found.unwrap_or(Class::Refused), parts.join("; "))
}

/// The failure if a Unix socket did not accept the connection.
pub(super) fn unix_connect_failure(error: &io::Error) -> Failure {
    match class_of(error) {
        None => Failure::Unknown(format!("cannot connect to the socket: {}", describe_io_error(error))),
        Some(Class::Timeout) => Failure::Unhealthy(Class::Timeout, "the socket's connection queue stayed full".into()),
        Some(class) if error.kind() == ErrorKind::ConnectionRefused => Failure::Unhealthy(class, "refused".into()),
        Some(class) => Failure::Unhealthy(class, "no such socket".into()),
    }
}

/// The failure if a connection brought no complete response; `now` is the time since the start of the probe.
pub(super) fn exchange_failure(error: &ureq::Error, trace: &Trace, now: Duration) -> Failure {
    if let Some(error) = &trace.read_error {
        return io_failure(error, trace, now);
    }
    let protocol = |detail: String| Failure::Unhealthy(Class::Protocol, detail);
    match error {
        ureq::Error::Io(error) if error.kind() == ErrorKind::UnexpectedEof => truncation(trace),
        ureq::Error::Io(error) if error.kind() == ErrorKind::InvalidData => tls_failure(&error.to_string()),
        ureq::Error::Io(error) => io_failure(error, trace, now),
        // The only error that quotes the URL, which may contain a secret.
        ureq::Error::BadUri(_) => Failure::Unknown("cannot send the request: invalid URL".into()),
        _ if trace.ready.is_none() => Failure::Unknown(format!("cannot send the request: {error}")),
        ureq::Error::LargeResponseHeader(_, most) if trace.status.is_none() => {
            protocol(format!("headers longer than {}", ByteSize(*most as u64)))
        }
        ureq::Error::LargeResponseHeader(_, most) => {
            protocol(format!("malformed body: a line longer than {}", ByteSize(*most as u64)))
        }
        ureq::Error::Protocol(error) if trace.status.is_none() => {
            let text = error.to_string();
            protocol(format!("not HTTP: {}", text.strip_prefix("http parse fail: ").unwrap_or(&text)))
        }
        ureq::Error::Protocol(error) => protocol(format!("malformed body: {error}")),
        // The stream ended in the middle of a line of a chunked body.
        ureq::Error::BodyStalled => truncation(trace),
        error => protocol(error.to_string()),
    }
}

/// A read error behind a body that seems complete: without a length, ureq takes a reset for the end of the body.
pub(super) fn hidden_failure(trace: &Trace, now: Duration) -> Option<Failure> {
    trace.read_error.as_ref().map(|error| io_failure(error, trace, now))
}

fn io_failure(error: &io::Error, trace: &Trace, now: Duration) -> Failure {
    match class_of(error) {
        None => Failure::Unknown(format!("cannot read or write: {}", describe_io_error(error))),
        Some(Class::Timeout) => Failure::Unhealthy(Class::Timeout, describe_stall(trace, now)),
        Some(Class::Reset) => Failure::Unhealthy(Class::Reset, format!("connection reset {}", describe_stage(trace))),
        Some(class) => Failure::Unhealthy(class, describe_io_error(error)),
    }
}

fn truncation(trace: &Trace) -> Failure {
    match trace {
        Trace { ready: None, .. } => Failure::Unhealthy(Class::Tls, "closed during the TLS handshake".into()),
        Trace { first_byte: None, .. } => Failure::Unhealthy(Class::Protocol, "closed without an answer".into()),
        _ => Failure::Unhealthy(Class::Protocol, format!("cut short {}", describe_stage(trace))),
    }
}

fn describe_stage(trace: &Trace) -> String {
    match trace {
        Trace { ready: None, .. } => "during the TLS handshake".into(),
        Trace { first_byte: None, .. } => "before the first byte".into(),
        Trace { status: None, .. } => "before the headers were complete".into(),
        Trace { status: Some((status, _)), body_bytes, .. } => {
            format!("in the body of a {status}, after {}", ByteSize(*body_bytes as u64))
        }
    }
}

fn describe_stall(trace: &Trace, now: Duration) -> String {
    let connected = FineDuration(trace.connected);
    let since = |point: Duration| FineDuration(now.saturating_sub(point));
    match trace {
        Trace { first_byte: None, .. } => {
            format!("connected in {connected}, then no byte for {}", since(trace.connected))
        }
        Trace { ready: None, .. } => {
            format!("connected in {connected}, TLS handshake not complete {} later", since(trace.connected))
        }
        Trace { ready: Some(ready), is_secure: true, status: None, .. } => {
            format!("TLS handshake done after {}, headers not complete {} later", FineDuration(*ready), since(*ready))
        }
        Trace { first_byte: Some(first), status: None, .. } => {
            format!("first byte after {}, headers not complete {} later", FineDuration(*first), since(*first))
        }
        Trace { status: Some((status, at)), body_bytes, .. } => {
            format!(
                "{status} after {}, body not complete {} later ({})",
                FineDuration(*at),
                since(*at),
                ByteSize(*body_bytes as u64)
            )
        }
    }
}

/// Describes an error of the TLS library, in shorter words where it has a common cause.
fn tls_failure(text: &str) -> Failure {
    let text = text.strip_prefix("invalid peer certificate: ").unwrap_or(text);
    let duration_before = |unit: &str| {
        let seconds = text.rsplit_once(unit).and_then(|(start, _)| start.rsplit_once('('))?.1;
        seconds.trim().parse().ok().map(|seconds| HumanDuration(Duration::from_secs(seconds)))
    };
    let detail = if let Some(ago) = duration_before("seconds ago)") {
        format!("certificate expired {ago} ago")
    } else if let Some(ahead) = duration_before("seconds in future)") {
        format!("certificate not valid for another {ahead}")
    } else if text.contains("UnknownIssuer") {
        "certificate from an untrusted issuer".into()
    } else if text.contains("CaUsedAsEndEntity") {
        "certificate is a CA certificate (CA:TRUE), not a server certificate".into()
    } else if text.contains("InvalidContentType") {
        "the server does not speak TLS".into()
    } else {
        text.into()
    };
    Failure::Unhealthy(Class::Tls, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(errno: Errno, expected: Option<Class>) {
        assert_eq!(class_of(&io::Error::from(errno)), expected, "{errno}");
    }

    #[test]
    fn errors_have_a_class_or_are_ours() {
        check(Errno::CONNREFUSED, Some(Class::Refused));
        check(Errno::HOSTUNREACH, Some(Class::Refused));
        check(Errno::NETUNREACH, Some(Class::Refused));
        check(Errno::AFNOSUPPORT, Some(Class::Refused));
        check(Errno::NOENT, Some(Class::Refused));
        check(Errno::CONNRESET, Some(Class::Reset));
        check(Errno::CONNABORTED, Some(Class::Reset));
        check(Errno::PIPE, Some(Class::Reset));
        check(Errno::TIMEDOUT, Some(Class::Timeout));
        check(Errno::MFILE, None);
        check(Errno::NFILE, None);
        check(Errno::NOMEM, None);
        check(Errno::NOBUFS, None);
        check(Errno::ADDRNOTAVAIL, None);
        check(Errno::PERM, None);
        check(Errno::ACCESS, None);
        check(Errno::IO, None);
    }

    #[track_caller]
    fn check_connect_failure(attempts: &[(&str, Errno)], expected: Failure) {
        let attempt = |(address, errno): &(&str, Errno)| ConnectionAttempt {
            address: address.parse().expect("an address"),
            error: io::Error::from(*errno),
            duration: Duration::from_secs(5),
        };
        assert_eq!(connect_failure(&attempts.iter().map(attempt).collect::<Vec<_>>()), expected);
    }

    #[test]
    fn several_addresses_make_one_failure() {
        let target = |class, detail: &str| Failure::Unhealthy(class, detail.into());
        let (six, four) = ("[::1]:80", "127.0.0.1:80");
        check_connect_failure(&[(four, Errno::CONNREFUSED)], target(Class::Refused, "refused by 127.0.0.1:80"));
        check_connect_failure(
            &[(six, Errno::CONNREFUSED), (four, Errno::CONNREFUSED)],
            target(Class::Refused, "refused by [::1]:80 and 127.0.0.1:80"),
        );
        check_connect_failure(
            &[(six, Errno::NETUNREACH), (four, Errno::CONNREFUSED)],
            target(Class::Refused, "refused by 127.0.0.1:80; [::1]:80 cannot be reached"),
        );
        check_connect_failure(
            &[(six, Errno::CONNREFUSED), (four, Errno::TIMEDOUT)],
            target(Class::Timeout, "no answer from 127.0.0.1:80 in 5 s; refused by [::1]:80"),
        );
        check_connect_failure(
            &[(six, Errno::CONNRESET), (four, Errno::CONNREFUSED)],
            target(Class::Reset, "reset by [::1]:80; refused by 127.0.0.1:80"),
        );
        // One refusal proves nothing if the other address could not be tried because no local port was free.
        check_connect_failure(
            &[(six, Errno::CONNREFUSED), (four, Errno::ADDRNOTAVAIL)],
            Failure::Unknown("cannot connect to 127.0.0.1:80: cannot assign requested address".into()),
        );
    }

    #[track_caller]
    fn check_tls(text: &str, expected: &str) {
        assert_eq!(tls_failure(text), Failure::Unhealthy(Class::Tls, expected.into()));
    }

    #[test]
    fn common_tls_errors_have_short_descriptions() {
        let expired = "invalid peer certificate: certificate expired: verification time 9 (UNIX), but certificate is \
                       not valid after 1 (259200 seconds ago)";
        check_tls(expired, "certificate expired 3 days ago");
        let ahead = "invalid peer certificate: certificate not valid yet: verification time 1 (UNIX), but certificate \
                     is not valid before 9 (7200 seconds in future)";
        check_tls(ahead, "certificate not valid for another 2 h");
        check_tls("invalid peer certificate: UnknownIssuer", "certificate from an untrusted issuer");
        check_tls("received corrupt message of type InvalidContentType", "the server does not speak TLS");
        check_tls("invalid peer certificate: BadEncoding", "BadEncoding");
        check_tls("(many seconds ago)", "(many seconds ago)");
    }

    #[test]
    fn an_error_before_the_request_is_not_the_targets_fault() {
        let error = ureq::Error::BadUri("s3cret".into());
        let failure = exchange_failure(&error, &Trace::default(), Duration::from_secs(10));
        assert_eq!(failure, Failure::Unknown("cannot send the request: invalid URL".into()));
    }
}
