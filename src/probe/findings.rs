//! What one run of a probe found, whichever way it ended. It must never pass on foreign text that is not sanitized, nor
//! a panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::outcome::{AddressResult, Verdict};

use super::deadline::Deadline;
use super::evidence::Observations;
use super::failure::Failure;
use super::sanitize::sanitize;

pub(super) struct Findings {
    pub(super) verdict: Verdict,
    /// When the verdict was known, from the start of the probe. Of several addresses, that of the one which decides the
    /// verdict, like `observations`.
    pub(super) ended: Duration,
    pub(super) observations: Observations,
    /// The address that decides the verdict, if there are several.
    pub(super) address: Option<String>,
    /// What was found at each, if there are several.
    pub(super) addresses: Vec<AddressResult>,
}

impl Findings {
    pub(super) fn of(deadline: Deadline, probe: impl FnOnce(&mut Observations) -> Result<String, Failure>) -> Findings {
        let mut observations = Observations { started: deadline.elapsed(), ..Observations::default() };
        let result = catch_unwind(AssertUnwindSafe(|| probe(&mut observations)));
        let verdict = match result {
            Ok(Ok(detail)) => Verdict::Healthy { detail },
            Ok(Err(Failure::Unhealthy(class, detail))) => Verdict::Unhealthy { class, detail: sanitize(&detail) },
            Ok(Err(Failure::Unknown(detail))) => Verdict::Unknown { detail: sanitize(&detail) },
            Err(_) => Verdict::Unknown { detail: "the probe failed because of a bug in the watchdog".into() },
        };
        Findings { verdict, ended: deadline.elapsed(), observations, address: None, addresses: Vec::new() }
    }

    /// Of a probe that could not be made.
    pub(super) fn unknown(detail: String) -> Findings {
        let (ended, observations) = (Duration::ZERO, Observations::default());
        Findings { verdict: Verdict::Unknown { detail }, ended, observations, address: None, addresses: Vec::new() }
    }

    /// Without the time that its thread took to start.
    pub(super) fn latency(&self) -> Duration {
        self.ended.saturating_sub(self.observations.started)
    }
}
