//! Carries out what the policy has decided: first on disk, then told, then done.

use log::Level;

use crate::clock;
use crate::policy::{Action, Event, Record};
use crate::store::events::{Entry, Kind, Outcome};
use crate::time::{ClockReading, Timestamp, Wall, millis};
use crate::view::story::Telling;

use super::jobs::Order;
use super::keep::Course;
use super::{Agent, Mode};

impl Agent {
    /// Nothing is done that is not on disk, as far as the disk lets us, and nothing once the folder is another's.
    pub(super) fn carry_out(&mut self, actions: Vec<Action>) {
        let mut records = Vec::new();
        let mut rest = Vec::new();
        let mut tells = Vec::new();
        let mut wants_answer = false;
        for action in actions {
            match action {
                Action::Record { target, record } => records.push((target.unwrap_or_default(), record)),
                Action::Save => wants_answer = true,
                Action::Tell { target, tell } => tells.push((target, tell)),
                action => rest.push(action),
            }
        }
        let was_ok = self.disk.is_ok();
        if wants_answer || !records.is_empty() || !tells.is_empty() {
            let now = (clock::now(), clock::wall());
            tells.iter().for_each(|(target, tell)| self.write_down(target, tell, now));
            let entries: Vec<Entry> = records.iter().map(|(target, record)| self.entry(target, record, now)).collect();
            self.keep_entries(&entries);
            // Saved with the events, so that what is counted and what is recorded agree after a crash too.
            records.iter().for_each(|(target, record)| self.count(target, record));
            self.save(true);
            if self.is_displaced() {
                return;
            }
            records.iter().for_each(|(target, record)| self.tell(target, record, now));
            self.account_for(&records, entries);
        }
        for action in rest {
            self.act(action);
        }
        self.send();
        if wants_answer || was_ok != self.disk.is_ok() {
            self.step(Event::Saved { ok: self.disk.is_ok() });
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Look { target, number } => self.look(target, number),
            Action::Ask { target, gate } => self.ask(target, gate),
            Action::Inspect { target } => self.inspect(target),
            Action::Weigh { target } => self.check_reset(target),
            Action::Diagnose { target, incident } => self.diagnose(target, incident),
            Action::Run { target, attempt, rung, incident, failures } => {
                self.run_command(Order { target, attempt, rung, incident, failures });
            }
            Action::Adopt { target, process, rung, since } => self.adopt(target, process, rung, since),
            Action::Tell { .. } | Action::Record { .. } | Action::Save => unreachable!("carried out before"),
        }
    }

    pub(super) fn command_of(&self, target: &str, record: &Record) -> String {
        let rung = match record {
            Record::Restart { rung, .. } | Record::RestartDone { rung, .. } | Record::WouldRestart { rung, .. } => {
                *rung
            }
            _ => return String::new(),
        };
        self.command_at(target, rung).unwrap_or_default()
    }

    fn tell(&mut self, target: &str, record: &Record, now: (Timestamp, Wall)) {
        let configured = self.target(target);
        let said = match record {
            Record::RestartDone { incident, attempt, rung, .. } => self.last_words(incident, *attempt, *rung),
            _ => None,
        };
        let telling = Telling {
            target,
            command: &self.command_of(target, record),
            said: said.as_deref(),
            depends_on: configured.map_or(&[][..], |target| &target.limits.depends_on),
            interval: configured.map(|target| target.limits.interval).filter(|_| self.mode == Mode::Daemon),
            at: ClockReading { now: now.0, wall: now.1 },
            zone: self.zone,
        };
        let (level, line) = telling.line(record);
        log::log!(level, "{line}");
        let is_paused = self.policy.target(target).is_some_and(|state| state.pauses.until().is_some());
        if is_news(record, level) && !is_paused {
            self.say(target, course(record), &about(record), &line);
        }
    }

    fn entry(&self, target: &str, record: &Record, (now, wall): (Timestamp, Wall)) -> Entry {
        let on_wall = |at: Timestamp| wall.shifted(at.as_ms().saturating_sub(now.as_ms()));
        let run = self.command_of(target, record);
        let from_one = |rung: usize| u32::try_from(rung + 1).unwrap_or(u32::MAX);
        let ms = |span| u64::try_from(millis(span)).unwrap_or(0);
        let kind = match record.clone() {
            Record::Failing { class, detail, .. } => Kind::Failing { class, detail },
            Record::Down { failures, class, detail, incident, .. } => Kind::Down { failures, class, detail, incident },
            Record::Restart { attempt, rung, incident, .. } => {
                Kind::Restart { attempt, rung: from_one(rung), run, incident }
            }
            Record::RestartDone { attempt, rung, ending, took, incident, .. } => {
                let (rung, outcome) = (from_one(rung), Outcome::from(&ending));
                Kind::RestartDone { attempt, rung, outcome, took_ms: ms(took), incident }
            }
            Record::WouldRestart { attempt, rung, incident } => {
                Kind::WouldRestart { attempt, rung: from_one(rung), run, incident }
            }
            Record::HeldBack { why, until, .. } => Kind::HeldBack { why, until: until.map(on_wall) },
            Record::Up { incident, down, attempts, .. } => Kind::Up { incident, down_ms: down.as_ms(), attempts },
            Record::Rested { why, incident } => Kind::Rested { why, incident },
            Record::Woke { why } => Kind::Woke { why },
            Record::Warn { about, detail } => Kind::Warn { about, detail },
            Record::Paused { until } => Kind::Paused { until: on_wall(until) },
            Record::Resumed { until } => Kind::Resumed { until: Some(on_wall(until)) },
            Record::Stalled { gap } => Kind::Stalled { gap_ms: ms(gap) },
        };
        Entry { at: wall, target: (!target.is_empty()).then(|| target.to_string()), kind }
    }

    /// An event of the watchdog itself.
    pub(super) fn record_own(&mut self, kind: Kind) {
        self.keep_entries(&[Entry { at: clock::wall(), target: None, kind }]);
        self.save(true);
    }
}

/// What the news is about, whatever else it says.
fn about(record: &Record) -> String {
    match record {
        Record::HeldBack { why, .. } => format!("held back: {}", why.as_str()),
        Record::Warn { about, .. } => format!("warned: {about:?}"),
        _ => format!("{:?}", std::mem::discriminant(record)),
    }
}

fn course(record: &Record) -> Course {
    match record {
        Record::Failing { .. } | Record::Down { .. } | Record::HeldBack { .. } => Course::Outage,
        Record::Restart { .. } | Record::RestartDone { .. } | Record::WouldRestart { .. } => Course::Outage,
        Record::Up { .. } | Record::Rested { .. } => Course::Recovery,
        Record::Woke { .. } | Record::Warn { .. } | Record::Stalled { .. } => Course::Other,
        Record::Paused { .. } | Record::Resumed { .. } => Course::Other,
    }
}

/// What cron's mail is for: a target goes down, is restarted, comes back, or waits for a new reason; and warnings.
fn is_news(record: &Record, level: Level) -> bool {
    match record {
        Record::Failing { .. } | Record::Paused { .. } | Record::Resumed { .. } | Record::Stalled { .. } => false,
        // Whoever put it to rest knows; that an outage ends with it is news.
        Record::Rested { incident, .. } => incident.is_some(),
        Record::Woke { .. } => false,
        Record::Down { .. } | Record::Up { .. } | Record::HeldBack { .. } | Record::Warn { .. } => true,
        Record::Restart { .. } | Record::WouldRestart { .. } => true,
        Record::RestartDone { .. } => level < Level::Info,
    }
}
