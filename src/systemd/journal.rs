//! What the journal says about the end of a unit. It must never read more than the unit's last lines in this boot.

use serde::Deserialize;

use super::evidence::JournalSign;

/// systemd's catalogue: a unit was stopped.
const STOPPED: &str = "9d1aaa27d60140bd96365438aad20286";
/// A unit was started, could not be started, or ended by itself, without an error or with one.
const OTHERS: [&str; 4] = [
    "39f53479d3a045ac8e11786248231fbf",
    "be02cf6855d2428ba40df7e9d022f03d",
    "7ad2d189f7e94e70a38c781354912448",
    "d9b373ed55a64feb8242e02dbe79a49c",
];

#[derive(Deserialize)]
#[serde(rename_all = "UPPERCASE")]
struct Line {
    message_id: Option<String>,
    job_type: Option<String>,
}

/// The arguments of journalctl that print the last line that tells of a start or an end. `owner`: of the manager, if it
/// is a user's.
pub(super) fn arguments(unit: &str, owner: Option<u32>) -> Vec<String> {
    let fixed = ["-q", "-b", "-o", "json", "--output-fields=MESSAGE_ID,JOB_TYPE", "-n", "1"];
    let manager = match owner {
        None => ["_PID=1".to_owned(), format!("UNIT={unit}")],
        Some(uid) => [format!("_UID={uid}"), format!("USER_UNIT={unit}")],
    };
    let ids = [STOPPED].into_iter().chain(OTHERS).map(|id| format!("MESSAGE_ID={id}"));
    fixed.into_iter().map(str::to_owned).chain(manager).chain(ids).collect()
}

pub(super) fn read(printed: &str) -> JournalSign {
    // Its hints, such as that it is not allowed to read, are no JSON.
    let line = printed.lines().rev().find_map(|line| serde_json::from_str::<Line>(line).ok());
    match line {
        Some(Line { message_id: Some(id), job_type: Some(job) }) if id == STOPPED && job == "stop" => {
            JournalSign::Stopped
        }
        Some(_) => JournalSign::Other,
        None => JournalSign::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_tells_an_order_from_an_end() {
        #[track_caller]
        fn check(printed: &str, expected: JournalSign) {
            assert_eq!(read(printed), expected, "{printed}");
        }
        let of = |id: &str, job: &str| format!(r#"{{"__CURSOR":"s=1","MESSAGE_ID":"{id}"{job}}}"#);
        check(&of(STOPPED, r#","JOB_TYPE":"stop""#), JournalSign::Stopped);
        // Between the two halves of a restart, ordered or by Restart=.
        check(&of(STOPPED, r#","JOB_TYPE":"restart""#), JournalSign::Other);
        check(&of(OTHERS[0], r#","JOB_TYPE":"start""#), JournalSign::Other);
        check(&of(OTHERS[2], ""), JournalSign::Other);
        check("", JournalSign::Nothing);
        check("-- No entries --\n", JournalSign::Nothing);
        check("Hint: You are currently not seeing messages from other users.\n", JournalSign::Nothing);
    }
}
