//! Asks systemd about a unit, with `systemctl show` and, where that does not tell enough, the journal.
//! It must never wait longer than a deadline for either, and never run a command that changes anything.

use std::io::{Read, Seek};
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::geteuid;

use crate::command::{self, CommandSpec, Leftovers, MAX_OUTPUT, Scope};
use crate::outcome::{Exit, describe_io_error};

use super::conclude::needs_journal;
use super::evidence::{JournalSign, PROPERTIES, UnitEvidence, UnitFacts};
use super::journal;

/// An answer takes 10 ms; a systemd that is being reloaded takes a few seconds.
const TIMEOUT: Duration = Duration::from_secs(10);
/// `BindsTo=` names one or two.
const MAX_BOUND: usize = 4;

/// How to ask about one unit.
pub struct UnitQuery {
    pub unit: String,
    /// Ask the manager of this account, not that of the system.
    pub is_user: bool,
    pub folder: PathBuf,
    /// Variables added to the watchdog's own environment.
    pub env: Vec<(String, String)>,
    /// Closing it ends the query.
    pub scope: Scope,
}

impl UnitQuery {
    /// Takes up to 10 s, and 20 s more for a unit that is bound to others or that systemd knows little of.
    pub fn ask(&self, ran_in_this_boot: bool, rested_before_boot: bool) -> UnitFacts {
        let unit = self.show(&self.unit);
        let names = unit.as_ref().map(|unit| unit.bound_to.as_slice()).unwrap_or_default();
        let bound_to = names.iter().take(MAX_BOUND).map(|name| facts(self.show(name))).collect();
        let mut facts = UnitFacts { bound_to, ran_in_this_boot, rested_before_boot, ..facts(unit) };
        if needs_journal(&facts) {
            facts.journal = self.read_journal();
        }
        facts
    }

    fn show(&self, unit: &str) -> Result<UnitEvidence, String> {
        let manager = self.is_user.then_some("--user");
        let words = ["systemctl"].into_iter().chain(manager).chain(["show", "-p", PROPERTIES, "--", unit]);
        let printed = self.run(words.map(str::to_owned).collect())?;
        UnitEvidence::parse(&printed).ok_or_else(|| "systemctl show printed nothing about it".to_owned())
    }

    fn read_journal(&self) -> JournalSign {
        let owner = self.is_user.then(|| geteuid().as_raw());
        let arguments = journal::arguments(&self.unit, owner);
        let argv = [String::from("journalctl")].into_iter().chain(arguments).collect();
        self.run(argv).map_or(JournalSign::Unreadable, |printed| journal::read(&printed))
    }

    /// What the command printed. Errors: why it could not be run, or the last line that it printed.
    fn run(&self, argv: Vec<String>) -> Result<String, String> {
        let name = argv[0].clone();
        let no_output = |error| format!("cannot capture the output of {name}: {}", describe_io_error(&error));
        let output = command::create_memory_output().map_err(no_output)?;
        let mut kept = output.try_clone().map_err(no_output)?;
        let result = command::run(
            CommandSpec {
                argv,
                folder: self.folder.clone(),
                unset: Vec::new(),
                env: self.env.clone(),
                timeout: TIMEOUT,
                max_output: MAX_OUTPUT,
                stdin: None,
                output,
                scope: self.scope.clone(),
                leftovers: Leftovers::End,
            },
            |_| {},
        );
        let mut bytes = Vec::new();
        kept.rewind().and_then(|()| kept.read_to_end(&mut bytes)).map_err(no_output)?;
        let printed = String::from_utf8_lossy(&bytes).into_owned();
        match result.exit {
            Exit::Exited(0) => Ok(printed),
            Exit::Exited(code) => Err(match printed.lines().rfind(|line| !line.trim().is_empty()) {
                Some(line) => format!("{name}: {}", line.trim()),
                None => format!("{name} exited with {code}"),
            }),
            Exit::Killed(signal) => Err(format!("{name} was killed by signal {signal}")),
            Exit::TimedOut => Err(format!("{name} gave no answer within {} s", TIMEOUT.as_secs())),
            Exit::NotStarted(reason) => Err(reason),
            Exit::Lost => Err(format!("the result of {name} is unknown")),
        }
    }
}

fn facts(unit: Result<UnitEvidence, String>) -> UnitFacts {
    UnitFacts {
        unit,
        bound_to: Vec::new(),
        journal: JournalSign::NotAsked,
        ran_in_this_boot: false,
        rested_before_boot: false,
    }
}
