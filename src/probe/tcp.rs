//! The TCP probe: healthy when a connection is established. It must never send or read a byte.

use super::connect::Endpoint;
use super::deadline::Deadline;
use super::evidence::Observations;
use super::failure::Failure;
use super::resolve::Host;

#[derive(Debug)]
pub(super) struct TcpProbe(Endpoint);

impl TcpProbe {
    pub(super) fn new(host: &str, port: u16) -> Self {
        TcpProbe(Endpoint::Net { host: Host::new(host), port })
    }

    pub(super) fn probe(&self, deadline: Deadline, observations: &mut Observations) -> Result<String, Failure> {
        self.0.connect(deadline, observations).map(|_| "connected".into())
    }
}
