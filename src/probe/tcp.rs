//! A look by TCP: the connection comes about, nothing is said.

use super::connect::Place;
use super::deadline::Deadline;
use super::failure::Failure;
use super::resolve::Host;
use super::seen::Seen;

#[derive(Debug)]
pub(super) struct TcpProbe(Place);

impl TcpProbe {
    pub(super) fn new(host: &str, port: u16) -> Self {
        TcpProbe(Place::Net { host: Host::new(host), port })
    }

    pub(super) fn look(&self, deadline: Deadline, seen: &mut Seen) -> Result<String, Failure> {
        self.0.dial(deadline, seen).map(|_| "connected".into())
    }
}
