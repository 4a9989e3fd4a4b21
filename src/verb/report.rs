//! `report`: how it went over the last weeks.

use std::time::Duration;

use crate::cli::Options;
use crate::clock;
use crate::store::history::{Absence, Gap};
use crate::store::past;
use crate::time::millis;
use crate::view::report::Report;

use super::{Code, complain, say, state_folder, status};

pub(super) fn report(options: &Options, span: Duration, json: bool) -> Code {
    let folder = match state_folder(options) {
        Ok((folder, _)) => folder,
        Err(code) => return code,
    };
    let status = match status::read(&folder) {
        Ok(status) => status,
        Err(error) => return complain(&error.to_string(), Code::Machine),
    };
    let at = status.at;
    let past = match past::read(&folder, span, at.wall) {
        Ok(past) => past,
        Err(error) => return complain(&error.to_string(), Code::Machine),
    };
    let is_at_work = status.watch().is_at_work();
    let mut saved = status.saved;
    if let Some(age) = saved.age(at.now).filter(|_| !is_at_work) {
        let from = at.wall.shifted(-millis(age));
        let why = if saved.stopped { Absence::Stopped } else { Absence::Ended };
        saved.gaps.note(Gap { from, to: at.wall, why });
    }
    let report = Report { saved: &saved, past: &past, span, at, zone: clock::zone() };
    say(&if json { report.json() } else { report.text() });
    Code::Done
}
