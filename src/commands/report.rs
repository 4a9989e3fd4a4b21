//! `report`: uptime, incidents and cures over a span of time. It must never count time without a watchdog as watched.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cli::Options;
use crate::clock;
use crate::store::closed_incidents;
use crate::store::events::{self, EventEntry};
use crate::store::history::{Gap, GapReason};
use crate::time::millis;
use crate::view::report::{Noted, Report};

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
    let mut noted: BTreeMap<String, Noted> = BTreeMap::new();
    for EventEntry { target, kind, .. } in &events {
        if let Some(target) = target {
            noted.entry(target.clone()).or_default().add(kind);
        }
    }
    let report = Report { saved: &saved, closed: &past, noted: &noted, span, at, zone: clock::zone() };
    print(&if json { report.json() } else { report.text() });
    Ok(Code::Done)
}
