//! Assigns the ids of incidents.
//! It must never assign an id twice: two incidents would share a folder.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Enough for the 50 incident folders on disk and for the latest 450 minutes in which a target went down.
const MAX_IDS: usize = 500;

/// The ids of the latest incidents, the latest last. Of several incidents that began in the same minute, only the
/// highest id is stored. It is stored at all because a clock that is set back, or the end of summer time, shows that
/// minute again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IncidentIds(VecDeque<String>);

impl IncidentIds {
    /// An id for an incident that begins at `stamp` (`1122-0313`), higher than every stored id with that stamp.
    pub(super) fn name(&mut self, stamp: &str) -> String {
        let last = self.0.iter().filter_map(|id| number(id, stamp)).max();
        let id = match last {
            None => stamp.to_owned(),
            Some(last) => format!("{stamp}-{}", last + 1),
        };
        self.0.retain(|id| number(id, stamp).is_none());
        self.remember(id.clone());
        id
    }

    /// Prevents `id` from being assigned to another incident.
    pub fn remember(&mut self, id: String) {
        if self.0.contains(&id) {
            return;
        }
        self.0.push_back(id);
        if self.0.len() > MAX_IDS {
            self.0.pop_front();
        }
    }
}

/// The number of an id among those with `stamp`: 1 for `1122-0313`, 2 for `1122-0313-2`.
fn number(id: &str, stamp: &str) -> Option<u64> {
    match id.strip_prefix(stamp)? {
        "" => Some(1),
        rest => rest.strip_prefix('-')?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_id_is_assigned_twice_however_many_incidents_begin_in_one_minute() {
        let mut ids = IncidentIds::default();
        let mut given: Vec<String> = (0..1_200).map(|_| ids.name("1122-0313")).collect();
        assert_eq!(given[..3], ["1122-0313", "1122-0313-2", "1122-0313-3"]);
        // The clock is set back, then forward again.
        given.extend((0..100).map(|n| ids.name(["1122-0312", "1122-0313", "1122-0314"][n % 3])));
        given.sort();
        given.dedup();
        assert_eq!(given.len(), 1_300);
        assert_eq!(ids.0.len(), 3);
    }

    #[test]
    fn ids_found_on_disk_are_not_assigned_again() {
        let mut ids = IncidentIds::default();
        for id in ["1122-0313-7", "1122-0313-12", "1122-0313-x", "1122-03131", "notes"] {
            ids.remember(id.into());
        }
        assert_eq!(ids.name("1122-0313"), "1122-0313-13");
        assert_eq!(ids.name("1122-0314"), "1122-0314");
    }

    #[test]
    fn the_number_of_stored_ids_is_bounded() {
        let mut ids = IncidentIds::default();
        for minute in 0..2_000 {
            ids.name(&format!("{minute:04}"));
        }
        assert_eq!((ids.0.len(), ids.0.front().map(String::as_str)), (MAX_IDS, Some("1500")));
    }
}
