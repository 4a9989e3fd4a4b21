//! Finds which processes of the watchdog's account listen on which TCP ports. It must never count a process that only
//! has a connection.

use std::collections::BTreeSet;
use std::fs;

use crate::process::{self, Process};

#[derive(Debug, PartialEq, Eq)]
struct Listener {
    port: u16,
    inode: u64,
}

/// The TCP ports that a process or one of its descendants listens on.
pub fn listening_ports(process: Process) -> Vec<u16> {
    let Ok(family) = process::process_tree(process.pid) else { return Vec::new() };
    if !process::is_alive(process) {
        return Vec::new();
    }
    ports_held_by(family)
}

/// The TCP ports that the process itself listens on; of a daemon, those of its processes in cluster mode.
pub fn own_listening_ports(pid: u32) -> Vec<u16> {
    ports_held_by(vec![pid])
}

fn ports_held_by(pids: Vec<u32>) -> Vec<u16> {
    let held: BTreeSet<u64> = pids.into_iter().flat_map(open_sockets).collect();
    let ports = read_listeners().into_iter().filter(|listener| held.contains(&listener.inode));
    ports.map(|listener| listener.port).collect::<BTreeSet<u16>>().into_iter().collect()
}

/// The pid and title of a process of the watchdog's account that listens on this port.
pub fn find_listener(port: u16) -> Option<(u32, String)> {
    let pid = find_listeners(port, process::own_pids().ok()?).into_iter().next()?;
    Some((pid, process::command_line(pid)?))
}

pub(super) fn find_listeners(port: u16, pids: impl Iterator<Item = u32>) -> Vec<u32> {
    let inodes: BTreeSet<u64> = listeners_on(port).map(|listener| listener.inode).collect();
    if inodes.is_empty() {
        return Vec::new();
    }
    pids.filter(|pid| open_sockets(*pid).any(|inode| inodes.contains(&inode))).collect()
}

pub(super) fn is_free(port: u16) -> bool {
    listeners_on(port).next().is_none()
}

fn listeners_on(port: u16) -> impl Iterator<Item = Listener> {
    read_listeners().into_iter().filter(move |listener| listener.port == port)
}

fn read_listeners() -> Vec<Listener> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().filter_map(|table| fs::read_to_string(table).ok());
    tables.flat_map(|table| table.lines().filter_map(parse_line).collect::<Vec<_>>()).collect()
}

/// A line of proc_net_tcp(5): field 2 is the local address with the port in hexadecimal, field 4 the state (0A is
/// LISTEN), field 10 the inode.
fn parse_line(line: &str) -> Option<Listener> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (_, port) = fields.next()?.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    if fields.nth(1)? != "0A" {
        return None;
    }
    let inode = fields.nth(5)?.parse().ok()?;
    Some(Listener { port, inode })
}

/// The inodes of the sockets that a process has open; none if its descriptors cannot be read.
fn open_sockets(pid: u32) -> impl Iterator<Item = u64> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    open.filter_map(|entry| {
        let target = fs::read_link(entry.path()).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: Option<(u16, u64)>) {
        assert_eq!(parse_line(line), expected.map(|(port, inode)| Listener { port, inode }), "{line}");
    }

    #[test]
    fn only_listening_sockets_are_read() {
        let rest = "00000000:00000000 00:00000000 00000000  1000        0 43211 1 0000000000000000 100 0 0 10 0";
        check(&format!("   0: 0100007F:1388 00000000:0000 0A {rest}"), Some((5_000, 43_211)));
        check(&format!("  10: 00000000000000000000000001000000:1388 0:0000 0A {rest}"), Some((5_000, 43_211)));
        check(&format!("   1: 0100007F:1388 0100007F:C350 01 {rest}"), None);
        check("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode", None);
        check("   0: 0100007F:1388 00000000:0000 0A 0:0 0:0 0 1000 0", None);
        check("", None);
    }
}
