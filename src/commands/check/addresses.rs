//! The addresses of an http probe as `check` shows them: one on the target's own line, several on a line each.
//! It must never show a credential or a query.

use crate::config::{HttpConfig, Probe, Tls};
use crate::outcome::{Class, ProbeResult, Verdict};
use crate::terminal::escaped;
use crate::view::addresses::describe_result;

const INSECURE: &str = "certificates are not checked (tls: insecure)";

/// What is probed, for the target's own line.
pub(super) fn describe_probe(probe: &Probe) -> String {
    match probe {
        Probe::Http(addresses) if addresses.len() > 1 => {
            format!("{} addresses, which must all be healthy", addresses.len())
        }
        probe => escaped(&probe.to_string()).into_owned(),
    }
}

/// The lines about addresses below the target's own; `result` is none if nothing was probed.
pub(super) fn describe_each(probe: &Probe, result: Option<&ProbeResult>) -> Vec<String> {
    let Probe::Http(addresses) = probe else { return Vec::new() };
    let insecure = |http: &HttpConfig| (http.tls == Tls::Insecure).then_some(INSECURE);
    if let [http] = addresses.as_slice() {
        return insecure(http).into_iter().map(|text| format!("              {text}")).collect();
    }
    let results = result.map_or(&[][..], |result| &result.addresses);
    let line = |(index, http): (usize, &HttpConfig)| {
        let label = if index == 0 { "addresses" } else { "" };
        let found = results.get(index).map(|found| format!("   {}", describe_result(found))).unwrap_or_default();
        let insecure = insecure(http).map(|text| format!("; {text}")).unwrap_or_default();
        format!("  {label:<10}  {}{found}{insecure}", escaped(&http.to_string()))
    };
    addresses.iter().enumerate().map(line).collect()
}

/// The ports of this machine that refused a connection.
pub(super) fn refused_ports(probe: &Probe, result: &ProbeResult) -> Vec<u16> {
    let is_refused = |verdict: &Verdict| verdict.class() == Some(Class::Refused);
    match probe {
        Probe::Http(addresses) if addresses.len() > 1 => {
            let pairs = addresses.iter().zip(&result.addresses).filter(|(_, found)| is_refused(&found.verdict));
            pairs.filter_map(|(http, _)| http.local_port()).collect()
        }
        probe if is_refused(&result.verdict) => probe.local_ports(),
        _ => Vec::new(),
    }
}
