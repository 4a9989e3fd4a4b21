//! Why a probe did not find its target healthy. It only carries the reason; `classify` decides it.

use crate::outcome::Class;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The target is at fault. The detail may quote the target and is not sanitized yet.
    Unhealthy(Class, String),
    /// The watchdog or its machine is at fault, so the probe proves nothing about the target.
    Unknown(String),
}
