//! How often PM2 restarted a process by itself, in words. It must never call a few restarts a pattern.

use std::fmt::Write as _;

use crate::outcome::RestartReason;
use crate::store::history::RestartCounts;
use crate::terminal::escaped;

/// From here on, restarts for memory are a leak.
const LEAK: u64 = 3;

/// `PM2 restarted it 12 times in 24 h for memory (500M): it leaks`; none if it restarted nothing. `span`: `in 24 h`.
pub fn describe(counts: &RestartCounts, span: &str) -> Option<String> {
    Some(format!("PM2 restarted it {}", describe_counts(counts, span)?))
}

/// The same without its first words: `12 times in 24 h for memory (500M): it leaks`.
pub fn describe_counts(counts: &RestartCounts, span: &str) -> Option<String> {
    let total: u64 = counts.values().sum();
    let mut parts: Vec<(&RestartReason, u64)> = counts.iter().map(|(reason, count)| (reason, *count)).collect();
    parts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let times = if total == 1 { "once".to_owned() } else { format!("{total} times") };
    let span = if span.is_empty() { String::new() } else { format!(" {span}") };
    let mut text = match parts.as_slice() {
        [] => return None,
        [(reason, _)] => format!("{times}{span} {}", describe_reason(reason)),
        several => {
            let several = several.iter().map(|(reason, count)| format!("{count} {}", describe_reason(reason)));
            format!("{times}{span}: {}", several.collect::<Vec<_>>().join(", "))
        }
    };
    let for_memory: u64 =
        parts.iter().filter(|(reason, _)| matches!(reason, RestartReason::Memory(_))).map(|(_, count)| count).sum();
    if for_memory >= LEAK {
        let mark = if parts.len() == 1 { ':' } else { ';' };
        let _ = write!(text, "{mark} it leaks"); // writing to a String cannot fail
    }
    Some(text)
}

fn describe_reason(reason: &RestartReason) -> String {
    match reason {
        RestartReason::Exit(0) => "after it exited (code 0)".into(),
        RestartReason::Exit(code) => format!("after a crash (exit code {code})"),
        RestartReason::Signal(name) if name == "SIGKILL" => {
            "after a kill (SIGKILL, as by the kernel when memory runs out)".into()
        }
        RestartReason::Signal(name) => format!("after a crash ({})", escaped(name)),
        RestartReason::Memory(limit) => format!("for memory ({})", pm2_size(*limit)),
        RestartReason::Watch => "for a changed file (watch)".into(),
        RestartReason::Other => "for other reasons".into(),
    }
}

/// In the units of `max_memory_restart`: `500M`.
fn pm2_size(bytes: u64) -> String {
    match bytes {
        _ if bytes > 0 && bytes.is_multiple_of(1 << 30) => format!("{}G", bytes >> 30),
        _ if bytes >= 1 << 20 => format!("{}M", bytes >> 20),
        _ => format!("{}K", bytes >> 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_are_told_with_their_reasons() {
        #[track_caller]
        fn check(counts: &[(RestartReason, u64)], expected: Option<&str>) {
            assert_eq!(describe(&counts.iter().cloned().collect(), "in 24 h").as_deref(), expected);
        }
        let memory = RestartReason::Memory(500 << 20);
        check(&[], None);
        check(&[(memory.clone(), 12)], Some("PM2 restarted it 12 times in 24 h for memory (500M): it leaks"));
        check(&[(memory.clone(), 2)], Some("PM2 restarted it 2 times in 24 h for memory (500M)"));
        check(&[(RestartReason::Exit(1), 1)], Some("PM2 restarted it once in 24 h after a crash (exit code 1)"));
        let several = "PM2 restarted it 7 times in 24 h: 4 for memory (1G), 2 after a crash (exit code 7), 1 after a \
                       crash (SIGSEGV); it leaks";
        let crashes = [(RestartReason::Exit(7), 2), (RestartReason::Signal("SIGSEGV".into()), 1)];
        check(&[&crashes[..], &[(RestartReason::Memory(1 << 30), 4)]].concat(), Some(several));
        let rest = [(RestartReason::Exit(0), 3), (RestartReason::Watch, 2), (RestartReason::Other, 1)];
        let text = "PM2 restarted it 6 times in 24 h: 3 after it exited (code 0), 2 for a changed file (watch), 1 for \
                    other reasons";
        check(&rest, Some(text));
    }
}
