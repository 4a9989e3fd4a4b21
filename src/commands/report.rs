//! `report`: how it went over the last weeks.

use std::time::Duration;

use crate::cli::Options;
use crate::clock;
use crate::store::closed_incidents;
use crate::store::history::{Absence, Gap};
use crate::time::millis;
use crate::view::report::Report;

use super::{Code, machine_failed, say, state_folder, status};

pub(super) fn report(options: &Options, span: Duration, json: bool) -> Result<Code, Code> {
    let (folder, _) = state_folder(options)?;
    let status = status::read(&folder).map_err(machine_failed)?;
    let at = status.at;
    let past = closed_incidents::read(&folder, span, at.wall).map_err(machine_failed)?;
    let is_at_work = status.watch().is_at_work();
    let mut saved = status.saved;
    if let Some(age) = saved.age(at.now).filter(|_| !is_at_work) {
        let from = at.wall.offset_by(-millis(age));
        let why = if saved.stopped { Absence::Stopped } else { Absence::Ended };
        saved.gaps.note(Gap { from, to: at.wall, why });
    }
    let report = Report { saved: &saved, past: &past, span, at, zone: clock::zone() };
    say(&if json { report.json() } else { report.text() });
    Ok(Code::Done)
}
