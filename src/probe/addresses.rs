//! Several addresses of one target, probed side by side under the probe's one deadline, and the verdict on all of them.
//! It must never let one address delay another, nor outlast the deadline of the probe.
//!
//! The target is healthy if all addresses are. One that is unhealthy proves that the target is, whatever the others
//! are; one that is unknown makes it unknown only if no other is unhealthy. Of several that are unhealthy, one decides
//! the class, the detail and the evidence: the first in the order of the configuration whose class a restart may cure,
//! else the first. Which of them failed first in time depends on the machine's load, so it does not matter.

use std::io;
use std::thread;

use crate::config::{HttpConfig, Secrets, address_names};
use crate::outcome::{AddressResult, Class, Verdict, describe_io_error};
use crate::time::millis;

use super::PROBE_STACK;
use super::deadline::Deadline;
use super::findings::Findings;
use super::http::HttpProbe;
use super::tls::Trust;

pub(super) struct Addresses(Vec<NamedProbe>);

struct NamedProbe {
    name: String,
    probe: HttpProbe,
}

impl Addresses {
    /// Errors: what is wrong with the configuration of one of them, without secrets.
    pub(super) fn new(addresses: &[HttpConfig], secrets: &Secrets, trust: &Trust) -> Result<Self, String> {
        let named = addresses.iter().zip(address_names(addresses)).map(|(http, name)| {
            let probe = HttpProbe::new(http, secrets, trust).map_err(|error| format!("{name}: {error}"))?;
            Ok(NamedProbe { name, probe })
        });
        named.collect::<Result<_, String>>().map(Addresses)
    }

    /// Probes all of them. `curable` are the classes of failures that a restart may cure.
    pub(super) fn probe(&self, deadline: Deadline, curable: &[Class]) -> Findings {
        let probe =
            |named: &NamedProbe| Findings::of(deadline, |observations| named.probe.probe(deadline, observations));
        let found = run_side_by_side(&self.0, PROBE_STACK, probe);
        let no_thread =
            |error: io::Error| Findings::unknown(format!("cannot start a thread: {}", describe_io_error(&error)));
        let mut found: Vec<Findings> = found.into_iter().map(|found| found.unwrap_or_else(no_thread)).collect();
        let results: Vec<AddressResult> = self.0.iter().zip(&found).map(|(named, found)| named.result(found)).collect();
        let (decisive, verdict) = combine(&results, curable);
        let Findings { ended, observations, .. } = found.swap_remove(decisive);
        let address = Some(self.0[decisive].name.clone());
        Findings { verdict, ended, observations, address, addresses: results }
    }
}

impl NamedProbe {
    fn result(&self, found: &Findings) -> AddressResult {
        let latency_ms = u64::try_from(millis(found.latency())).unwrap_or(0);
        AddressResult { address: self.name.clone(), verdict: found.verdict.clone(), latency_ms }
    }
}

/// Runs `work` on all items at the same time, and returns when it has ended for each: for the first on this thread, for
/// each other on one of its own. Errors: no thread could be started for this item.
fn run_side_by_side<T: Sync, R: Send>(items: &[T], stack: usize, work: impl Fn(&T) -> R + Sync) -> Vec<io::Result<R>> {
    let Some((first, others)) = items.split_first() else { return Vec::new() };
    thread::scope(|scope| {
        let work = &work;
        let start = |item| {
            let thread = thread::Builder::new().name("probe".into()).stack_size(stack);
            thread.spawn_scoped(scope, move || work(item))
        };
        let started: Vec<_> = others.iter().map(start).collect();
        let first = Ok(work(first));
        let panicked = |_| io::Error::other("its thread panicked");
        let others = started.into_iter().map(|thread| thread.and_then(|thread| thread.join().map_err(panicked)));
        [first].into_iter().chain(others).collect()
    })
}

/// The verdict on all addresses, of which there is at least one, and the index of the one that decides it.
fn combine(results: &[AddressResult], curable: &[Class]) -> (usize, Verdict) {
    let position = |is_wanted: &dyn Fn(&Verdict) -> bool| results.iter().position(|result| is_wanted(&result.verdict));
    let is_curable = |verdict: &Verdict| verdict.class().is_some_and(|class| curable.contains(&class));
    let decisive = position(&is_curable)
        .or_else(|| position(&|verdict| verdict.class().is_some()))
        .or_else(|| position(&|verdict| !verdict.is_healthy()));
    let Some(decisive) = decisive else { return (0, Verdict::Healthy { detail: describe_healthy(results) }) };
    let AddressResult { address, verdict, .. } = &results[decisive];
    let detail = format!("{address}: {}", verdict.detail());
    let verdict = match verdict.class() {
        Some(class) => Verdict::Unhealthy { class, detail },
        None => Verdict::Unknown { detail },
    };
    (decisive, verdict)
}

/// `200 from all 3`, `200, 204 from all 3`
fn describe_healthy(results: &[AddressResult]) -> String {
    let mut details: Vec<&str> = Vec::new();
    for result in results {
        if !details.contains(&result.verdict.detail()) {
            details.push(result.verdict.detail());
        }
    }
    format!("{} from all {}", details.join(", "), results.len())
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    fn result(address: &str, verdict: &str) -> AddressResult {
        let (word, detail) = verdict.split_once(' ').unwrap_or((verdict, ""));
        let detail = detail.to_owned();
        let verdict = match word {
            "healthy" => Verdict::Healthy { detail },
            "unknown" => Verdict::Unknown { detail },
            class => Verdict::Unhealthy { class: class.parse().expect("a class"), detail },
        };
        AddressResult { address: address.into(), verdict, latency_ms: 3 }
    }

    #[test]
    fn all_must_be_healthy_and_the_order_of_the_list_decides_which_failure_counts() {
        let curable = [Class::Refused, Class::Timeout, Class::Status];
        #[track_caller]
        fn check(curable: &[Class], verdicts: [&str; 3], expected: &str, decisive: usize) {
            let results: Vec<AddressResult> =
                ["a", "b", "c"].iter().zip(verdicts).map(|(address, verdict)| result(address, verdict)).collect();
            let (index, verdict) = combine(&results, curable);
            let word = verdict.class().map_or_else(|| verdict.as_str(), Class::as_str);
            assert_eq!((format!("{word} {}", verdict.detail()).as_str(), index), (expected, decisive), "{verdicts:?}");
        }
        let (ok, unknown, refused, hung) = ("healthy 200", "unknown no fd", "refused by x", "timeout no byte");
        check(&curable, [ok, ok, ok], "healthy 200 from all 3", 0);
        check(&curable, [ok, "healthy 204", ok], "healthy 200, 204 from all 3", 0);
        check(&curable, [ok, ok, refused], "refused c: by x", 2);
        check(&curable, [hung, refused, ok], "timeout a: no byte", 0);
        check(&curable, [refused, hung, ok], "refused a: by x", 0);
        check(&curable, [unknown, ok, ok], "unknown a: no fd", 0);
        check(&curable, [ok, unknown, "unknown x"], "unknown b: no fd", 1);
        check(&curable, [unknown, ok, refused], "refused c: by x", 2);
        check(&curable, [refused, unknown, unknown], "refused a: by x", 0);
        // A restart may cure only one of the two.
        check(&curable, ["dns no such name", refused, ok], "refused b: by x", 1);
        check(&curable, ["dns no such name", "tls expired", ok], "dns a: no such name", 0);
        check(&curable, [ok, "tls expired", "dns no such name"], "tls b: expired", 1);
        check(&curable, [unknown, "tls expired", ok], "tls b: expired", 1);
        check(&[], [unknown, hung, refused], "timeout b: no byte", 1);
    }

    #[test]
    fn the_work_on_all_items_is_done_at_the_same_time() {
        let together = Barrier::new(3);
        let found = run_side_by_side(&[1, 2, 3], 64 << 10, |number| {
            // Ends only once all three are here.
            together.wait();
            number * 2
        });
        assert_eq!(found.into_iter().map(|found| found.expect("a thread")).collect::<Vec<_>>(), [2, 4, 6]);
        assert!(run_side_by_side(&[0; 0], 64 << 10, |number| *number).is_empty());
    }

    #[test]
    fn without_another_thread_only_the_first_item_has_a_result() {
        // No machine has enough address space for such a stack.
        let found = run_side_by_side(&[1, 2, 3], 1 << 55, |number| *number);
        assert_eq!(found.into_iter().map(Result::ok).collect::<Vec<_>>(), [Some(1), None, None]);
    }
}
