//! What was found at each address of a target that has several, in words.
//! It must never say of one address what was found at another.

use std::time::Duration;

use crate::outcome::{AddressResult, Verdict};
use crate::policy::LastProbe;
use crate::terminal::escaped;
use crate::time::Latency;

/// Of the addresses that fail, in a note. `incident` and the JSON of `status` have all of them.
const MAX_NAMED: usize = 3;

/// `200 in 3 ms`, `refused by [::1]:5001 (under 1 ms)`
pub fn describe_result(result: &AddressResult) -> String {
    let latency = Latency(Duration::from_millis(result.latency_ms));
    let detail = escaped(result.verdict.detail());
    match &result.verdict {
        Verdict::Healthy { .. } => format!("{detail} in {latency}"),
        Verdict::Unhealthy { class, .. } => format!("{} ({latency})", class.with_detail(&detail)),
        Verdict::Unknown { .. } => format!("unknown: {detail}"),
    }
}

/// A line for each address.
pub fn list(results: &[AddressResult]) -> Vec<String> {
    results.iter().map(|result| format!("{}: {}", escaped(&result.address), describe_result(result))).collect()
}

/// `2 of 3 addresses fail: http://localhost:5001/health, http://localhost:5002/health`; `None` if none does.
pub fn describe_failing(probe: &LastProbe) -> Option<String> {
    let failing: Vec<&str> = failing(probe).map(|result| result.address.as_str()).collect();
    let verb = match failing.len() {
        0 => return None,
        1 => "fails",
        _ => "fail",
    };
    let (first, others) = failing.split_at(failing.len().min(MAX_NAMED));
    let more = if others.is_empty() { String::new() } else { format!(" and {} more", others.len()) };
    let named = escaped(&first.join(", ")).into_owned() + &more;
    Some(format!("{} of {} addresses {verb}: {named}", failing.len(), probe.addresses.len()))
}

/// What failed, without the address that the detail of a probe of several addresses begins with.
pub fn short_detail(probe: &LastProbe) -> &str {
    // The first of its class, because the order of the configuration decides among those.
    let decisive = failing(probe).find(|result| result.verdict.class() == probe.verdict.class());
    decisive.map_or_else(|| probe.verdict.detail(), |result| result.verdict.detail())
}

fn failing(probe: &LastProbe) -> impl Iterator<Item = &AddressResult> {
    probe.addresses.iter().filter(|result| result.verdict.class().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Class;
    use crate::time::BootTime;

    fn result(address: &str, verdict: Verdict) -> AddressResult {
        AddressResult { address: format!("http://h/{address}"), verdict, latency_ms: 3 }
    }

    fn failed(class: Class, detail: &str) -> Verdict {
        Verdict::Unhealthy { class, detail: detail.into() }
    }

    fn probe(verdict: Verdict, addresses: Vec<AddressResult>) -> LastProbe {
        LastProbe { at: BootTime::from_ms(0), verdict, latency_ms: 3, addresses }
    }

    #[test]
    fn each_address_has_its_own_result() {
        let results = [
            result("a", Verdict::Healthy { detail: "200".into() }),
            result("b", failed(Class::Timeout, "no byte for \u{1b}[2J10 s")),
            result("c", failed(Class::Status, "status 503")),
            result("d", Verdict::Unknown { detail: "too many open files".into() }),
        ];
        let expected = [
            "http://h/a: 200 in 3 ms",
            "http://h/b: timeout; no byte for \\u{1b}[2J10 s (3 ms)",
            "http://h/c: status 503 (3 ms)",
            "http://h/d: unknown: too many open files",
        ];
        assert_eq!(list(&results), expected);
    }

    #[test]
    fn the_failing_addresses_are_named_and_the_decisive_one_gives_the_detail() {
        let healthy = || Verdict::Healthy { detail: "200".into() };
        let one = probe(failed(Class::Status, "status 503"), Vec::new());
        assert_eq!((describe_failing(&one), short_detail(&one)), (None, "status 503"));
        let first = result("a", failed(Class::Dns, "no such name"));
        let second = result("b", failed(Class::Status, "status 503"));
        let third = result("c", failed(Class::Status, "status 500"));
        let decided = failed(Class::Status, "http://h/b: status 503");
        let all = probe(decided.clone(), vec![first, second.clone(), third]);
        let named = "3 of 3 addresses fail: http://h/a, http://h/b, http://h/c";
        assert_eq!((describe_failing(&all).as_deref(), short_detail(&all)), (Some(named), "status 503"));
        let many = (0..5).map(|_| second.clone()).collect();
        let named = "5 of 5 addresses fail: http://h/b, http://h/b, http://h/b and 2 more";
        assert_eq!(describe_failing(&probe(decided.clone(), many)).as_deref(), Some(named));
        let single = probe(decided, vec![result("a", healthy()), second]);
        assert_eq!(describe_failing(&single).as_deref(), Some("1 of 2 addresses fails: http://h/b"));
        let well = probe(Verdict::Healthy { detail: "200 from all 2".into() }, vec![result("a", healthy())]);
        assert_eq!((describe_failing(&well), short_detail(&well)), (None, "200 from all 2"));
    }
}
