//! A look by TCP: the connection comes about, nothing is said.

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

    pub(super) fn probe(&self, deadline: Deadline, seen: &mut Observations) -> Result<String, Failure> {
        self.0.dial(deadline, seen).map(|_| "connected".into())
    }
}
