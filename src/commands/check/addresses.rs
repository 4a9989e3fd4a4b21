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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Method, Secret};
    use crate::outcome::AddressResult;

    fn http(url: &str) -> HttpConfig {
        HttpConfig {
            url: Secret(url.into()),
            shown: url.into(),
            unix_socket: None,
            method: Method::Get,
            headers: Vec::new(),
            status: Vec::new(),
            contains: None,
            json: Vec::new(),
            tls: Tls::Verify,
        }
    }

    fn verdict(class: Option<Class>) -> Verdict {
        match class {
            Some(class) => Verdict::Unhealthy { class, detail: String::new() },
            None => Verdict::Healthy { detail: String::new() },
        }
    }

    #[test]
    fn only_the_ports_that_refused_are_named() {
        #[track_caller]
        fn check(whole: Class, found: &[(&str, Option<Class>)], expected: &[u16]) {
            let probe = Probe::Http(found.iter().map(|(url, _)| http(url)).collect());
            let each = |(url, class): &(&str, Option<Class>)| AddressResult {
                address: (*url).into(),
                verdict: verdict(*class),
                latency_ms: 0,
            };
            let addresses = if found.len() > 1 { found.iter().map(each).collect() } else { Vec::new() };
            let result = ProbeResult { addresses, ..ProbeResult::new(verdict(Some(whole)), Duration::ZERO) };
            assert_eq!(refused_ports(&probe, &result), expected);
        }
        let (local, other, far) = ("http://localhost:5000/", "http://127.0.0.1:5001/", "http://h.example:5002/");
        check(Class::Refused, &[(local, Some(Class::Refused))], &[5_000]);
        check(Class::Status, &[(local, Some(Class::Status))], &[]);
        // Another failure decides the verdict.
        check(Class::Status, &[(local, Some(Class::Status)), (other, Some(Class::Refused))], &[5_001]);
        check(Class::Refused, &[(local, None), (far, Some(Class::Refused)), (other, Some(Class::Refused))], &[5_001]);
    }
}
