//! `report`: uptime, incidents and cures over a span of time. It must never count time without a watchdog as watched.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cli::Options;
use crate::clock;
use crate::policy::OrderedBy;
use crate::store::closed_incidents;
use crate::store::events::{self, EventEntry, EventKind};
use crate::store::history::{Gap, GapReason};
use crate::time::millis;
use crate::view::report::Report;

use super::{Code, print, print_machine_error, state_folder, status};

pub(super) fn report(options: &Options, span: Duration, json: bool) -> Result<Code, Code> {
    let (folder, _) = state_folder(options)?;
    let status = status::read(&folder).map_err(print_machine_error)?;
    let at = status.at;
    let past = closed_incidents::read(&folder, span, at.wall).map_err(print_machine_error)?;
    let is_running = status.presence().is_watching();
    let mut saved = status.saved;
    if let Some(age) = saved.age(at.now).filter(|_| !is_running) {
        let from = at.wall.offset_by(-millis(age));
        let why = if saved.stopped { GapReason::Stopped } else { GapReason::Ended };
        saved.gaps.note(Gap { from, to: at.wall, why });
    }
    let events = events::read(&folder, Some(at.wall.offset_by(-millis(span)))).map_err(print_machine_error)?;
    let ordered = count_ordered(events);
    let report = Report { saved: &saved, closed: &past, ordered: &ordered, span, at, zone: clock::zone() };
    print(&if json { report.json() } else { report.text() });
    Ok(Code::Done)
}

/// By target: the attempts that the operator ordered. Of an attempt with several commands, the first counts.
fn count_ordered(events: Vec<EventEntry>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let mut latest = BTreeMap::new();
    for EventEntry { target, kind, .. } in events {
        let (Some(target), EventKind::Restart { attempt, rung, by: Some(OrderedBy::Operator), .. }) = (target, kind)
        else {
            continue;
        };
        let before = latest.insert(target.clone(), (attempt, rung));
        let continues = before.is_some_and(|(number, earlier)| number == attempt && rung > earlier);
        *counts.entry(target).or_default() += usize::from(!continues);
    }
    counts
}
