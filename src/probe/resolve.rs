//! Resolves a host to its addresses; `localhost` and literal addresses need neither the resolver nor a thread.
//! It must never wait beyond the deadline, nor start a lookup while the previous one hangs.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use crate::outcome::{Class, describe_io_error};
use crate::time::HumanDuration;

use super::bounded_task::{BoundedTask, TaskError};
use super::classify::class_of;
use super::deadline::Deadline;
use super::failure::Failure;

/// Name service modules such as LDAP and mDNS run inside the lookup and need stack. Untouched stack costs no memory.
const RESOLVER_STACK: usize = 1 << 20;

#[derive(Debug)]
pub(super) enum Host {
    Localhost,
    Address(IpAddr),
    Name { name: String, resolver: BoundedTask },
}

impl Host {
    /// `text` is a name or an address, the latter with or without brackets.
    pub(super) fn new(text: &str) -> Self {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse() {
            return Host::Address(address);
        }
        if bare.strip_suffix('.').unwrap_or(bare).eq_ignore_ascii_case("localhost") {
            return Host::Localhost;
        }
        Host::Name { name: bare.into(), resolver: BoundedTask::new("resolver", RESOLVER_STACK) }
    }

    /// The addresses to connect to, in the order to try them; at least one.
    pub(super) fn addresses(&self, port: u16, deadline: Deadline) -> Result<Vec<SocketAddr>, Failure> {
        match self {
            Host::Localhost => {
                let both = [IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::LOCALHOST)];
                Ok(both.map(|address| SocketAddr::new(address, port)).to_vec())
            }
            Host::Address(address) => Ok(vec![SocketAddr::new(*address, port)]),
            Host::Name { name, resolver } => {
                let endpoint = (name.clone(), port);
                let result = resolver.run(deadline, move || endpoint.to_socket_addrs().map(Vec::from_iter));
                interpret(name, result, deadline)
            }
        }
    }
}

/// Turns the resolver's answer, or its silence, into addresses or a failure.
fn interpret(
    name: &str,
    result: Result<io::Result<Vec<SocketAddr>>, TaskError>,
    deadline: Deadline,
) -> Result<Vec<SocketAddr>, Failure> {
    let dns = |detail: String| Err(Failure::Unhealthy(Class::Dns, detail));
    let error = match result {
        Ok(Ok(addresses)) if addresses.is_empty() => return dns(format!("{name} has no address")),
        Ok(Ok(addresses)) => return Ok(addresses),
        Ok(Err(error)) => error,
        Err(TaskError::TimedOut) => {
            return dns(format!("no answer from the resolver in {}", HumanDuration(deadline.budget())));
        }
        Err(TaskError::StillRunning) => return dns("the resolver still hangs from an earlier probe".into()),
        Err(TaskError::Failed(reason)) => return Err(Failure::Unknown(format!("cannot resolve {name}: {reason}"))),
    };
    let is_local = error.raw_os_error().is_some() && class_of(&error).is_none();
    // Without a free descriptor the resolver reports "no such name" although it could not ask; opening a pipe shows
    // whether descriptors have run out.
    let local_fault = if is_local {
        Some(describe_io_error(&error))
    } else {
        io::pipe().err().map(|error| describe_io_error(&error))
    };
    match local_fault {
        Some(fault) => Err(Failure::Unknown(format!("cannot resolve {name}: {fault}"))),
        None => dns(format!("{name} does not resolve: {}", resolver_error(&error))),
    }
}

/// The resolver's message without the prefix that std puts before it.
fn resolver_error(error: &io::Error) -> String {
    let text = error.to_string();
    text.strip_prefix("failed to lookup address information: ").unwrap_or(&text).to_lowercase()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[track_caller]
    fn check(host: &str, expected: &[&str]) {
        let host = Host::new(host);
        assert!(!matches!(host, Host::Name { .. }), "{host:?}");
        // No time remains, and none is needed.
        let found = host.addresses(80, Deadline::after(Duration::ZERO)).expect("addresses");
        assert_eq!(found.iter().map(SocketAddr::to_string).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn localhost_and_addresses_need_no_resolver() {
        check("localhost", &["[::1]:80", "127.0.0.1:80"]);
        check("LocalHost.", &["[::1]:80", "127.0.0.1:80"]);
        check("192.0.2.7", &["192.0.2.7:80"]);
        check("::1", &["[::1]:80"]);
        check("[2001:db8::7]", &["[2001:db8::7]:80"]);
        assert!(matches!(Host::new("localhost.example"), Host::Name { .. }));
    }

    #[test]
    fn no_second_lookup_starts_while_the_first_hangs() {
        let host = Host::new("host.example");
        let Host::Name { resolver, .. } = &host else { panic!("{host:?}") };
        let (release, blocked) = mpsc::channel::<()>();
        let hung = resolver.run(Deadline::after(Duration::from_millis(20)), move || blocked.recv().is_err());
        assert!(hung.is_err());
        let found = host.addresses(80, Deadline::after(LONG));
        let detail = "the resolver still hangs from an earlier probe";
        assert_eq!(found, Err(Failure::Unhealthy(Class::Dns, detail.into())));
        drop(release);
    }

    #[track_caller]
    fn check_interpret(result: Result<io::Result<Vec<SocketAddr>>, TaskError>, expected: Failure) {
        assert_eq!(interpret("host.example", result, Deadline::after(Duration::from_secs(10))), Err(expected));
    }

    #[test]
    fn each_answer_of_the_resolver_and_its_silence_has_its_own_failure() {
        let dns = |detail: &str| Failure::Unhealthy(Class::Dns, detail.into());
        let unknown = |detail: &str| Failure::Unknown(detail.into());
        let no_such_name = io::Error::other("failed to lookup address information: Name or service not known");
        check_interpret(Ok(Err(no_such_name)), dns("host.example does not resolve: name or service not known"));
        check_interpret(Ok(Ok(vec![])), dns("host.example has no address"));
        check_interpret(Err(TaskError::TimedOut), dns("no answer from the resolver in 10 s"));
        let full = io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error());
        check_interpret(Ok(Err(full)), unknown("cannot resolve host.example: too many open files"));
        check_interpret(Err(TaskError::Failed("no thread".into())), unknown("cannot resolve host.example: no thread"));
    }
}
