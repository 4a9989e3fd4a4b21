//! From a host to its addresses. `localhost` and addresses need neither the resolver nor a thread.
//! It must never wait longer than the deadline, and never start a look-up while the last one hangs.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use crate::outcome::{Class, describe_io_error};
use crate::time::HumanDuration;

use super::bounded_task::{BoundedTask, TaskError};
use super::classify::class_of;
use super::deadline::Deadline;
use super::failure::Failure;

/// Name services run inside of the look-up (LDAP, multicast), so its thread gets ample stack; untouched, it costs none.
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

    /// Where to connect to, in the order in which to try; at least one.
    pub(super) fn addresses(&self, port: u16, deadline: Deadline) -> Result<Vec<SocketAddr>, Failure> {
        match self {
            Host::Localhost => {
                let both = [IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::LOCALHOST)];
                Ok(both.map(|address| SocketAddr::new(address, port)).to_vec())
            }
            Host::Address(address) => Ok(vec![SocketAddr::new(*address, port)]),
            Host::Name { name, resolver } => {
                let wanted = (name.clone(), port);
                let found = resolver.run(deadline, move || wanted.to_socket_addrs().map(Vec::from_iter));
                answer(name, found, deadline)
            }
        }
    }
}

/// What the resolver's answer, or its silence, means.
fn answer(
    name: &str,
    found: Result<io::Result<Vec<SocketAddr>>, TaskError>,
    deadline: Deadline,
) -> Result<Vec<SocketAddr>, Failure> {
    let dns = |detail: String| Err(Failure::Target(Class::Dns, detail));
    let error = match found {
        Ok(Ok(addresses)) if addresses.is_empty() => return dns(format!("{name} has no address")),
        Ok(Ok(addresses)) => return Ok(addresses),
        Ok(Err(error)) => error,
        Err(TaskError::Late) => {
            return dns(format!("no answer from the resolver in {}", HumanDuration(deadline.budget())));
        }
        Err(TaskError::Hanging) => return dns("the resolver still hangs since an earlier look".into()),
        Err(TaskError::Ours(trouble)) => return Err(Failure::Ours(format!("cannot look up {name}: {trouble}"))),
    };
    let own = error.raw_os_error().is_some() && class_of(&error).is_none();
    // Without a free descriptor the resolver says "no such name" where it means "I could not ask".
    let trouble =
        if own { Some(describe_io_error(&error)) } else { io::pipe().err().map(|error| describe_io_error(&error)) };
    match trouble {
        Some(trouble) => Err(Failure::Ours(format!("cannot look up {name}: {trouble}"))),
        None => dns(format!("{name} does not resolve: {}", reason(&error))),
    }
}

/// The resolver's own words without the words around them that are always the same.
fn reason(error: &io::Error) -> String {
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
        // No time is left, and none is needed.
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
    fn a_resolver_that_hangs_is_asked_once() {
        let host = Host::new("host.example");
        let Host::Name { resolver, .. } = &host else { panic!("{host:?}") };
        let (release, hold) = mpsc::channel::<()>();
        let hung = resolver.run(Deadline::after(Duration::from_millis(20)), move || hold.recv().is_err());
        assert!(hung.is_err());
        let found = host.addresses(80, Deadline::after(LONG));
        let detail = "the resolver still hangs since an earlier look";
        assert_eq!(found, Err(Failure::Target(Class::Dns, detail.into())));
        drop(release);
    }

    #[track_caller]
    fn check_answer(found: Result<io::Result<Vec<SocketAddr>>, TaskError>, expected: Failure) {
        assert_eq!(answer("host.example", found, Deadline::after(Duration::from_secs(10))), Err(expected));
    }

    #[test]
    fn the_resolvers_answers_and_silence_are_told_apart() {
        let dns = |detail: &str| Failure::Target(Class::Dns, detail.into());
        let ours = |detail: &str| Failure::Ours(detail.into());
        let unknown = io::Error::other("failed to lookup address information: Name or service not known");
        check_answer(Ok(Err(unknown)), dns("host.example does not resolve: name or service not known"));
        check_answer(Ok(Ok(vec![])), dns("host.example has no address"));
        check_answer(Err(TaskError::Late), dns("no answer from the resolver in 10 s"));
        let full = io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error());
        check_answer(Ok(Err(full)), ours("cannot look up host.example: too many open files"));
        check_answer(Err(TaskError::Ours("no thread".into())), ours("cannot look up host.example: no thread"));
    }
}
