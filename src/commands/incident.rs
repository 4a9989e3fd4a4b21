//! `incident`: what is known of one incident, or a list of all.

use crate::cli::Options;
use crate::clock;
use crate::store::incident_record::IncidentRecord;
use crate::store::{Folder, closed_incidents, incidents};
use crate::view::incident::{self, IncidentView};
use crate::view::pattern::LATELY;

use super::{Code, complain, environment, machine_failed, say, state_folder, status};

pub(super) fn incident(options: &Options, id: Option<&str>, json: bool) -> Result<Code, Code> {
    let (folder, _) = state_folder(options)?;
    let (wall, zone) = (clock::wall(), clock::zone());
    let (mut accounts, damaged) = incidents::records(&folder, wall).map_err(machine_failed)?;
    damaged.iter().for_each(|error| _ = machine_failed(error));
    measure(&mut accounts, &folder);
    let meant = match id {
        None if json => return done(&incident::list_json(&accounts, wall)),
        None => return done(&incident::list(&accounts, wall, zone)),
        Some("last") => accounts.last(),
        Some(id) => accounts.iter().find(|account| account.id == id),
    };
    match (meant, id) {
        (Some(account), _) => one(&folder, account, json),
        (None, Some("last")) if json => done("null"),
        (None, Some("last")) => done("No incident is on record here."),
        (None, id) => {
            let text = format!("no incident `{}` is on record; watchdog incident lists all", id.unwrap_or_default());
            Err(complain(&crate::terminal::escaped(&text), Code::Usage))
        }
    }
}

/// How long what is open has been down only the state knows, whatever the wall clock says.
fn measure(accounts: &mut [IncidentRecord], folder: &Folder) {
    if accounts.iter().all(|account| account.ended.is_some()) {
        return;
    }
    let Ok(status) = status::read(folder) else { return };
    for account in accounts.iter_mut().filter(|account| account.ended.is_none()) {
        let state = status.saved.policy.targets.get(&account.target);
        let open = state.and_then(|state| state.incident.as_ref()).filter(|open| open.id == account.id);
        account.down_ms = open.map(|open| open.downtime(status.at.now).as_ms());
    }
}

fn done(text: &str) -> Result<Code, Code> {
    say(text);
    Ok(Code::Done)
}

fn one(folder: &Folder, account: &IncidentRecord, json: bool) -> Result<Code, Code> {
    let wall = clock::wall();
    let mut past = closed_incidents::read(folder, LATELY, wall).map_err(machine_failed)?;
    past.retain(|closed| closed.target == account.target);
    let saved = status::read(folder).map(|status| status.saved).unwrap_or_default();
    let depends_on = saved.shown.get(&account.target).map(|shown| shown.depends_on.clone()).unwrap_or_default();
    let (path, files) = incidents::files(folder, &account.id);
    let home = environment("HOME").map(std::path::PathBuf::from);
    let incident = IncidentView {
        account,
        past: &past,
        depends_on: &depends_on,
        folder: &path,
        files: &files,
        home: home.as_deref(),
        wall,
        zone: clock::zone(),
    };
    done(&if json { incident.json() } else { incident.text() })
}
