//! Proves, stops and continues the processes of a target for a drill. It must never signal a process that is not
//! proven, nor stop one unless the saved state says so: the next watchdog continues what it finds there.

use std::time::Duration;

use crate::config::{Probe, RUNG_TIMEOUT};
use crate::logging::about;
use crate::outcome::describe_io_error;
use crate::pm2;
use crate::policy::{DrillEvent, Event};
use crate::process::{self, Process};

use super::Agent;
use super::message::Message;
use super::pm2::{INSPECTION_JOB, INSPECTION_TIMEOUT, pm2_job_spec};

impl Agent {
    pub(super) fn prove_processes(&mut self, target: String, id: String) {
        let repair = self.target(&target).map_or(Duration::ZERO, |target| target.longest_repair());
        let proven = move |target: String, processes: Result<Vec<Process>, String>| {
            let processes = processes.map(|all| all.into_iter().map(|one| (one.pid, one.started)).collect());
            Message::Event(Event::Drill { target, event: DrillEvent::Proven { id: id.clone(), processes, repair } })
        };
        // The command says so before it orders the drill, unless its configuration is newer than this one.
        let has_own_probe = self.target(&target).is_some_and(|target| !matches!(target.probe, Probe::Pm2(_)));
        let Some(job) = self.pm2_job(&target, RUNG_TIMEOUT).filter(|_| has_own_probe) else {
            let why = "the running watchdog does not watch it with pm2 and another probe".to_owned();
            let _ = self.post.send(proven(target, Err(why))); // cannot fail: the loop holds the receiver
            return;
        };
        let failed = proven(target.clone(), Err("PM2 could not be inspected in time".to_owned()));
        let spec = pm2_job_spec(INSPECTION_JOB, &job, INSPECTION_TIMEOUT, Box::new(|_| failed));
        self.jobs.spawn(spec, move |context| {
            let job = job.with_scope_of(context);
            proven(target, pm2::prove_running(&job.managed, &job.inspect()))
        });
    }

    /// Called once the state is saved that names these processes.
    pub(super) fn stop_processes(&mut self, target: String, id: String, processes: &[(u32, u64)]) {
        let running = self.policy.target(&target).and_then(|state| state.drills.running.as_ref());
        if running.is_none_or(|drill| drill.id != id) {
            return;
        }
        let stop = |(pid, started): &(u32, u64)| match process::suspend(Process { pid: *pid, started: *started }) {
            Ok(true) => None,
            Ok(false) => Some(format!("pid {pid} has ended meanwhile")),
            Err(error) => Some(format!("pid {pid} cannot be stopped: {}", describe_io_error(&error))),
        };
        let error = processes.iter().find_map(stop);
        let event = DrillEvent::Stopped { id, error };
        // Cannot fail: the loop holds the receiver.
        let _ = self.post.send(Message::Event(Event::Drill { target, event }));
    }

    /// A process that has ended meanwhile, as after its repair, needs nothing.
    pub(super) fn continue_processes(&self, target: &str, processes: &[(u32, u64)]) {
        for (pid, started) in processes {
            if let Err(error) = process::resume(Process { pid: *pid, started: *started }) {
                let why = describe_io_error(&error);
                log::error!(target: &about(target), "pid {pid} cannot be continued: {why}. Fix: kill -CONT {pid}");
            }
        }
    }
}
