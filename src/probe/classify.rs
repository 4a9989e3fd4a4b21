//! From what went wrong to its class and its words. Pure: it is given errors and times, and judges.
//! It must never blame the target for what is this machine's own trouble.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use rustix::io::Errno;

use crate::outcome::{Class, describe_io_error};
use crate::time::HumanDuration;

use super::failure::Failure;
use super::sanitize::{ByteSize, FineDuration, list};
use super::trace::Trace;

/// The class that an error of the network is of; `None` for our own trouble, which says nothing about the target.
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
    pub(super) took: Duration,
}

/// What it means that none of the addresses took the connection.
pub(super) fn dial(tries: &[ConnectionAttempt]) -> Failure {
    if let Some(own) = tries.iter().find(|attempt| class_of(&attempt.error).is_none()) {
        return Failure::Ours(format!("cannot connect to {}: {}", own.address, describe_io_error(&own.error)));
    }
    let mut found = None;
    let mut parts = Vec::new();
    // A silent address says more than one that refuses: whatever listens there is alive and does not answer.
    for class in [Class::Timeout, Class::Reset, Class::Refused] {
        let of_class: Vec<&ConnectionAttempt> =
            tries.iter().filter(|attempt| class_of(&attempt.error) == Some(class)).collect();
        if of_class.is_empty() {
            continue;
        }
        found.get_or_insert(class);
        let (refused, others): (Vec<&ConnectionAttempt>, Vec<&ConnectionAttempt>) =
            of_class.iter().partition(|attempt| attempt.error.kind() == ErrorKind::ConnectionRefused);
        let names =
            |of: &[&ConnectionAttempt]| list(&of.iter().map(|attempt| attempt.address.to_string()).collect::<Vec<_>>());
        if !refused.is_empty() {
            parts.push(format!("refused by {}", names(&refused)));
        }
        if let Some(longest) = others.iter().map(|attempt| attempt.took).max() {
            parts.push(match class {
                Class::Timeout => format!("no answer from {} in {}", names(&others), FineDuration(longest)),
                Class::Reset => format!("reset by {}", names(&others)),
                _ => format!("{} cannot be reached", names(&others)),
            });
        }
    }
    Failure::Target(found.unwrap_or(Class::Refused), parts.join("; "))
}

/// What it means that a socket in the file system did not take the connection.
pub(super) fn unix_dial(error: &io::Error) -> Failure {
    match class_of(error) {
        None => Failure::Ours(format!("cannot connect to the socket: {}", describe_io_error(error))),
        Some(Class::Timeout) => Failure::Target(Class::Timeout, "the socket's queue of connections stayed full".into()),
        Some(class) if error.kind() == ErrorKind::ConnectionRefused => Failure::Target(class, "refused".into()),
        Some(class) => Failure::Target(class, "no such socket".into()),
    }
}

/// What it means that no complete answer came over a connection; `now` is how long the look has taken.
pub(super) fn exchange(error: &ureq::Error, trace: &Trace, now: Duration) -> Failure {
    if let Some(fault) = &trace.fault {
        return broken(fault, trace, now);
    }
    let protocol = |detail: String| Failure::Target(Class::Protocol, detail);
    match error {
        ureq::Error::Io(error) if error.kind() == ErrorKind::UnexpectedEof => cut_short(trace),
        ureq::Error::Io(error) if error.kind() == ErrorKind::InvalidData => tls(&error.to_string()),
        ureq::Error::Io(error) => broken(error, trace, now),
        // The only error that repeats the url, which may have a secret in it.
        ureq::Error::BadUri(_) => Failure::Ours("cannot make the request: the url is not valid".into()),
        _ if trace.ready.is_none() => Failure::Ours(format!("cannot make the request: {error}")),
        ureq::Error::LargeResponseHeader(_, most) if trace.head.is_none() => {
            protocol(format!("headers longer than {}", ByteSize(*most as u64)))
        }
        ureq::Error::LargeResponseHeader(_, most) => {
            protocol(format!("broken body: a line longer than {}", ByteSize(*most as u64)))
        }
        ureq::Error::Protocol(error) if trace.head.is_none() => {
            let text = error.to_string();
            protocol(format!("not HTTP: {}", text.strip_prefix("http parse fail: ").unwrap_or(&text)))
        }
        ureq::Error::Protocol(error) => protocol(format!("broken body: {error}")),
        // The end came in the middle of a line of a chunked body.
        ureq::Error::BodyStalled => cut_short(trace),
        error => protocol(error.to_string()),
    }
}

/// What a body that seems complete hides: ureq takes a reset for its end where no length was given.
pub(super) fn hidden_fault(trace: &Trace, now: Duration) -> Option<Failure> {
    trace.fault.as_ref().map(|fault| broken(fault, trace, now))
}

fn broken(fault: &io::Error, trace: &Trace, now: Duration) -> Failure {
    match class_of(fault) {
        None => Failure::Ours(format!("cannot read or write: {}", describe_io_error(fault))),
        Some(Class::Timeout) => Failure::Target(Class::Timeout, stalled(trace, now)),
        Some(Class::Reset) => Failure::Target(Class::Reset, format!("connection reset {}", stage(trace))),
        Some(class) => Failure::Target(class, describe_io_error(fault)),
    }
}

fn cut_short(trace: &Trace) -> Failure {
    match trace {
        Trace { ready: None, .. } => Failure::Target(Class::Tls, "closed in the middle of the TLS handshake".into()),
        Trace { first_byte: None, .. } => Failure::Target(Class::Protocol, "closed without an answer".into()),
        _ => Failure::Target(Class::Protocol, format!("cut short {}", stage(trace))),
    }
}

fn stage(trace: &Trace) -> String {
    match trace {
        Trace { ready: None, .. } => "in the middle of the TLS handshake".into(),
        Trace { first_byte: None, .. } => "before the first byte".into(),
        Trace { head: None, .. } => "before the headers were complete".into(),
        Trace { head: Some((status, _)), body, .. } => {
            format!("in the body of a {status}, after {}", ByteSize(*body as u64))
        }
    }
}

fn stalled(trace: &Trace, now: Duration) -> String {
    let connected = FineDuration(trace.connected);
    let since = |point: Duration| FineDuration(now.saturating_sub(point));
    match trace {
        Trace { first_byte: None, .. } => {
            format!("connected in {connected}, then no byte for {}", since(trace.connected))
        }
        Trace { ready: None, .. } => {
            format!("connected in {connected}, TLS handshake not done {} later", since(trace.connected))
        }
        Trace { ready: Some(ready), secure: true, head: None, .. } => {
            format!("TLS handshake done after {}, headers not complete {} later", FineDuration(*ready), since(*ready))
        }
        Trace { first_byte: Some(first), head: None, .. } => {
            format!("first byte after {}, headers not complete {} later", FineDuration(*first), since(*first))
        }
        Trace { head: Some((status, at)), body, .. } => {
            format!(
                "{status} after {}, body not complete {} later ({})",
                FineDuration(*at),
                since(*at),
                ByteSize(*body as u64)
            )
        }
    }
}

/// What the TLS library found wrong, in its words or shorter ones.
pub(super) fn tls(text: &str) -> Failure {
    let text = text.strip_prefix("invalid peer certificate: ").unwrap_or(text);
    let span = |unit: &str| {
        let seconds = text.rsplit_once(unit).and_then(|(start, _)| start.rsplit_once('('))?.1;
        seconds.trim().parse().ok().map(|seconds| HumanDuration(Duration::from_secs(seconds)))
    };
    let detail = if let Some(ago) = span("seconds ago)") {
        format!("certificate expired {ago} ago")
    } else if let Some(ahead) = span("seconds in future)") {
        format!("certificate not valid for another {ahead}")
    } else if text.contains("UnknownIssuer") {
        "certificate from an issuer that is not trusted".into()
    } else if text.contains("CaUsedAsEndEntity") {
        "certificate is an authority's own (CA:TRUE), not a server's".into()
    } else if text.contains("InvalidContentType") {
        "the server does not speak TLS".into()
    } else {
        text.into()
    };
    Failure::Target(Class::Tls, detail)
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
    fn check_dial(tries: &[(&str, Errno)], expected: Failure) {
        let attempt = |(address, errno): &(&str, Errno)| ConnectionAttempt {
            address: address.parse().expect("an address"),
            error: io::Error::from(*errno),
            took: Duration::from_secs(5),
        };
        assert_eq!(dial(&tries.iter().map(attempt).collect::<Vec<_>>()), expected);
    }

    #[test]
    fn several_addresses_make_one_failure() {
        let target = |class, detail: &str| Failure::Target(class, detail.into());
        let (six, four) = ("[::1]:80", "127.0.0.1:80");
        check_dial(&[(four, Errno::CONNREFUSED)], target(Class::Refused, "refused by 127.0.0.1:80"));
        check_dial(
            &[(six, Errno::CONNREFUSED), (four, Errno::CONNREFUSED)],
            target(Class::Refused, "refused by [::1]:80 and 127.0.0.1:80"),
        );
        check_dial(
            &[(six, Errno::NETUNREACH), (four, Errno::CONNREFUSED)],
            target(Class::Refused, "refused by 127.0.0.1:80; [::1]:80 cannot be reached"),
        );
        check_dial(
            &[(six, Errno::CONNREFUSED), (four, Errno::TIMEDOUT)],
            target(Class::Timeout, "no answer from 127.0.0.1:80 in 5 s; refused by [::1]:80"),
        );
        check_dial(
            &[(six, Errno::CONNRESET), (four, Errno::CONNREFUSED)],
            target(Class::Reset, "reset by [::1]:80; refused by 127.0.0.1:80"),
        );
        // One refusal proves nothing while the other address could not be tried for want of ports.
        check_dial(
            &[(six, Errno::CONNREFUSED), (four, Errno::ADDRNOTAVAIL)],
            Failure::Ours("cannot connect to 127.0.0.1:80: cannot assign requested address".into()),
        );
    }

    #[track_caller]
    fn check_tls(text: &str, expected: &str) {
        assert_eq!(tls(text), Failure::Target(Class::Tls, expected.into()));
    }

    #[test]
    fn tls_faults_are_said_shortly() {
        let expired = "invalid peer certificate: certificate expired: verification time 9 (UNIX), but certificate is \
                       not valid after 1 (259200 seconds ago)";
        check_tls(expired, "certificate expired 3 days ago");
        let ahead = "invalid peer certificate: certificate not valid yet: verification time 1 (UNIX), but certificate \
                     is not valid before 9 (7200 seconds in future)";
        check_tls(ahead, "certificate not valid for another 2 h");
        check_tls("invalid peer certificate: UnknownIssuer", "certificate from an issuer that is not trusted");
        check_tls("received corrupt message of type InvalidContentType", "the server does not speak TLS");
        check_tls("invalid peer certificate: BadEncoding", "BadEncoding");
        check_tls("(many seconds ago)", "(many seconds ago)");
    }

    #[test]
    fn an_error_before_the_request_is_ours() {
        let error = ureq::Error::BadUri("s3cret".into());
        let failure = exchange(&error, &Trace::default(), Duration::from_secs(10));
        assert_eq!(failure, Failure::Ours("cannot make the request: the url is not valid".into()));
    }
}
