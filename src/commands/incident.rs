//! `incident`: one incident with its evidence, or a list of all. It must never change a record.

use crate::cli::Options;
use crate::clock;
use crate::store::incident_record::IncidentRecord;
use crate::store::{Folder, closed_incidents, incidents};
use crate::view::incident::{self, IncidentView};
use crate::view::pattern::RECURRENCE_SPAN;

use super::{Code, print, print_error, print_machine_error, read_env, state_folder, status};

pub(super) fn incident(options: &Options, id: Option<&str>, json: bool) -> Result<Code, Code> {
    let (folder, _) = state_folder(options)?;
    let (wall, zone) = (clock::wall(), clock::zone());
    let (mut records, damaged) = incidents::read_records(&folder, wall).map_err(print_machine_error)?;
    damaged.iter().for_each(|error| _ = print_machine_error(error));
    fill_downtimes(&mut records, &folder);
    let record = match id {
        None if json => return print_done(&incident::list_json(&records, wall)),
        None => return print_done(&incident::list(&records, wall, zone)),
        Some("last") => records.last(),
        Some(id) => records.iter().find(|record| record.id == id),
    };
    match (record, id) {
        (Some(record), _) => print_incident(&folder, record, json),
        (None, Some("last")) if json => print_done("null"),
        (None, Some("last")) => print_done("No incidents are on record."),
        (None, id) => {
            let text = format!("no incident `{}` is on record; watchdog incident lists all", id.unwrap_or_default());
            Err(print_error(&crate::terminal::escaped(&text), Code::Usage))
        }
    }
}

/// Sets the downtime of open incidents from the saved state, which measures it on the boot clock: the wall clock may
/// have been set since.
fn fill_downtimes(records: &mut [IncidentRecord], folder: &Folder) {
    if records.iter().all(|record| record.ended.is_some()) {
        return;
    }
    let Ok(status) = status::read(folder) else { return };
    for record in records.iter_mut().filter(|record| record.ended.is_none()) {
        let state = status.saved.policy.targets.get(&record.target);
        let open = state.and_then(|state| state.incident.as_ref()).filter(|open| open.id == record.id);
        record.down_ms = open.map(|open| open.downtime(status.at.now).as_ms());
    }
}

fn print_done(text: &str) -> Result<Code, Code> {
    print(text);
    Ok(Code::Done)
}

fn print_incident(folder: &Folder, record: &IncidentRecord, json: bool) -> Result<Code, Code> {
    let wall = clock::wall();
    let mut past = closed_incidents::read(folder, RECURRENCE_SPAN, wall).map_err(print_machine_error)?;
    past.retain(|closed| closed.target == record.target);
    let saved = status::read(folder).map(|status| status.saved).unwrap_or_default();
    let depends_on = saved.views.get(&record.target).map(|shown| shown.depends_on.clone()).unwrap_or_default();
    let (path, files) = incidents::list_files(folder, &record.id);
    let home = read_env("HOME").map(std::path::PathBuf::from);
    let incident = IncidentView {
        record,
        closed: &past,
        depends_on: &depends_on,
        folder: &path,
        files: &files,
        home: home.as_deref(),
        wall,
        zone: clock::zone(),
    };
    print_done(&if json { incident.json() } else { incident.text() })
}
