//! Where a process of PM2's listens, if not where it is probed. It must never name a port that only another process
//! listens on.

use crate::pm2::{listening_ports, own_listening_ports};
use crate::process::identify_living;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listening {
    pid: u32,
    ports: Vec<u16>,
    /// In cluster mode the daemon holds the ports of all its processes in that mode.
    is_daemons: bool,
}

impl Listening {
    /// `daemon`: the daemon's pid if the process runs in cluster mode. `None` if none of the processes lives.
    pub(super) fn observe(pids: &[u32], daemon: Option<u32>) -> Option<Listening> {
        let living: Vec<_> = pids.iter().filter_map(|pid| identify_living(*pid)).collect();
        let pid = living.first()?.pid;
        let mut ports: Vec<u16> = living.into_iter().flat_map(listening_ports).collect();
        let is_daemons = ports.is_empty() && daemon.is_some();
        if let Some(daemon) = daemon.filter(|_| is_daemons) {
            ports = own_listening_ports(daemon);
        }
        ports.sort_unstable();
        ports.dedup();
        Some(Listening { pid, ports, is_daemons })
    }

    /// What to know where the `probed` ports refuse connections, and whether it is a problem of the configuration.
    pub(super) fn describe_other_ports(&self, name: &str, probed: &[u16]) -> Vec<(String, bool)> {
        let mut found: Vec<_> = probed.iter().filter_map(|port| self.describe_other_port(name, *port)).collect();
        // Of a process that listens nowhere, the same is said for each port.
        found.dedup();
        found
    }

    fn describe_other_port(&self, name: &str, probed: u16) -> Option<(String, bool)> {
        let Listening { pid, ports, is_daemons } = self;
        let names: Vec<String> = ports.iter().map(u16::to_string).collect();
        let word = if ports.len() == 1 { "port" } else { "ports" };
        match names.as_slice() {
            [] => Some((format!("{name} (pid {pid}) listens on no port"), false)),
            _ if ports.contains(&probed) => None,
            names if *is_daemons => {
                let names = names.join(", ");
                let text = format!("port {probed} refuses; the processes in cluster mode listen on {word} {names}");
                Some((format!("{text}. Fix: the port of {name} in its address"), true))
            }
            names => {
                let text = format!("{name} (pid {pid}) listens on {word} {}, not on {probed}", names.join(", "));
                Some((format!("{text}. Fix: the port in its address"), true))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn another_port_is_named() {
        #[track_caller]
        fn check(ports: &[u16], is_daemons: bool, expected: Option<(&str, bool)>) {
            let listening = Listening { pid: 7, ports: ports.to_vec(), is_daemons };
            let found = listening.describe_other_port("api", 5_000);
            assert_eq!(found.as_ref().map(|(text, is_problem)| (&**text, *is_problem)), expected);
        }
        check(&[], false, Some(("api (pid 7) listens on no port", false)));
        check(&[5_000], false, None);
        let other = "api (pid 7) listens on port 3000, not on 5000. Fix: the port in its address";
        check(&[3_000], false, Some((other, true)));
        let several = "api (pid 7) listens on ports 3000, 9229, not on 5000. Fix: the port in its address";
        check(&[3_000, 9_229], false, Some((several, true)));
        let cluster = "port 5000 refuses; the processes in cluster mode listen on port 3000. Fix: the port of api in \
                       its address";
        check(&[3_000], true, Some((cluster, true)));

        let listening = |ports: &[u16]| Listening { pid: 7, ports: ports.to_vec(), is_daemons: false };
        let found = listening(&[3_000, 5_001]).describe_other_ports("api", &[5_000, 5_001, 5_002]);
        let named: Vec<&str> = found.iter().filter_map(|(text, _)| text.split(", not on ").nth(1)).collect();
        assert_eq!(named, ["5000. Fix: the port in its address", "5002. Fix: the port in its address"]);
        assert_eq!(listening(&[]).describe_other_ports("api", &[5_000, 5_001]).len(), 1);
    }

    #[test]
    fn the_ports_of_a_living_process_are_observed() {
        let server = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = server.local_addr().expect("it has one").port();
        let own = std::process::id();
        let found = Listening::observe(&[u32::MAX, own], None).expect("this process lives");
        assert!(found.ports.contains(&port) && found.pid == own, "{found:?}");
        assert_eq!(Listening::observe(&[u32::MAX], Some(own)), None);
    }
}
