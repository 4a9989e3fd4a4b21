//! The jobs that ask systemd about a target's unit before anything is decided against it.
//! It must never act on a unit: only the operator's restart commands do.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::command::Scope;
use crate::config::{Config, UnitConfig};
use crate::logging::about;
use crate::outcome::Inspection;
use crate::policy::Event;
use crate::systemd::{UnitQuery, UnitState, conclude, describe};
use crate::time::BootTime;

use super::Agent;
use super::message::Message;
use super::pool::{JobContext, JobSpec};

/// Up to three questions, each with its own deadline; the policy waits 45 s.
const TIMEOUT: Duration = Duration::from_secs(40);

/// By target: what the latest inspection found of its unit.
#[derive(Default)]
pub(super) struct UnitFindings(BTreeMap<String, String>);

/// The question about one target's unit, with what the watchdog itself knows of it.
pub(super) struct UnitQuestion {
    query: UnitQuery,
    ran_in_this_boot: bool,
    rested_before_boot: bool,
}

impl UnitQuestion {
    pub(super) fn with_scope_of(mut self, context: &JobContext) -> UnitQuestion {
        self.query.scope = context.scope();
        self
    }

    /// The conclusion, and the finding as a sentence.
    pub(super) fn ask(&self) -> (UnitState, String) {
        let facts = self.query.ask(self.ran_in_this_boot, self.rested_before_boot);
        let state = conclude(&facts);
        let text = describe(&self.query.unit, &facts, &state);
        (state, text)
    }
}

/// How to ask about this unit.
pub fn unit_query(config: &Config, unit: &UnitConfig) -> UnitQuery {
    let env = config.env.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect();
    let (folder, scope) = (config.folder.clone(), Scope::default());
    UnitQuery { unit: unit.name.clone(), is_user: unit.is_user, folder, env, scope }
}

impl Agent {
    /// `None` if the target or its `unit` is no longer in the configuration.
    pub(super) fn unit_question(&self, target: &str) -> Option<UnitQuestion> {
        let unit = self.target(target)?.unit.as_ref()?;
        let state = self.policy.target(target);
        Some(UnitQuestion {
            query: unit_query(&self.config, unit),
            ran_in_this_boot: state.and_then(|state| state.last_healthy).is_some_and(|at| at >= BootTime::BOOT),
            rested_before_boot: state.is_some_and(|state| state.rested_before_boot),
        })
    }

    /// Asks PM2, else systemd, whether a target is deliberately at rest.
    pub(super) fn inspect_target(&mut self, target: String) {
        let has_pm2 = self.target(&target).is_some_and(|target| target.pm2.is_some());
        match self.unit_question(&target).filter(|_| !has_pm2) {
            Some(question) => self.inspect_unit(target, question),
            None => self.inspect_pm2(target),
        }
    }

    fn inspect_unit(&mut self, target: String, question: UnitQuestion) {
        let nothing = Message::UnitInspected { target: target.clone(), found: None };
        let job = JobSpec {
            name: "systemd inspection",
            subject: target.clone(),
            variant: question.query.unit.clone(),
            timeout: TIMEOUT,
            outlives_watchdog: false,
            on_failure: Box::new(|_| nothing),
        };
        self.jobs.spawn(job, move |context| {
            let found = question.with_scope_of(context).ask();
            Message::UnitInspected { target, found: Some(found) }
        });
    }

    pub(super) fn unit_inspected(&mut self, target: String, found: Option<(UnitState, String)>) {
        let mut inspection = Inspection::Failed { is_deaf: false, is_listed: false };
        if let Some((state, text)) = found {
            inspection = state.inspection();
            // While it is at rest, the same is found again and again.
            let is_new = self.units.0.get(&target) != Some(&text);
            let level = if is_new { log::Level::Info } else { log::Level::Debug };
            log::log!(target: &about(&target), level, "{text}");
            self.units.0.insert(target.clone(), text);
        }
        self.step(Event::Inspected { target, inspection, pm2: None });
    }

    /// When a target goes down: saves what was found of its unit.
    pub(super) fn save_unit_finding(&mut self, target: &str, incident: &str) {
        if let Some(text) = self.units.0.remove(target) {
            self.incidents.amend(target, incident, &self.journal, |incident| incident.unit = Some(text));
        }
    }
}
