//! How ureq is set up: its limits, no proxy, no pool, no resolver of its own, and TLS for those only that ask for it.
//! It must never open a connection: that is done before ureq comes into it, within the look's own deadline.

use std::sync::{Arc, Mutex, PoisonError};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{ConnectionDetails, Connector, NextTimeout, Transport};
use ureq::{Agent, Error};

use super::filter::{Filtered, INPUT};
use super::transport::SocketTransport;

/// What ureq sees of a head is short; only what is no answer of HTTP at all reaches it as it came.
const MAX_HEADERS: usize = 4 << 10;
/// Every line of a request must fit into the buffer for it, which is no larger than that.
pub(super) const LONGEST_LINE: usize = 16 << 10;

type Layer = Box<dyn Connector<SocketTransport, Out = Box<dyn Transport>>>;

#[derive(Debug)]
pub(super) struct Setup {
    config: Config,
    layer: Option<Layer>,
}

impl Setup {
    pub(super) fn plain() -> Self {
        Setup { config: limits().build(), layer: None }
    }

    /// For requests over TLS, which `config`, made from [`limits`], has the particulars of.
    #[cfg(feature = "tls")]
    pub(super) fn secure(config: Config, layer: impl Connector<SocketTransport, Out = Box<dyn Transport>>) -> Self {
        Setup { config, layer: Some(Box::new(layer)) }
    }

    pub(super) fn is_secure(&self) -> bool {
        self.layer.is_some()
    }

    /// An agent for one request over `wire`. There is little to it, so nothing of it is kept between looks.
    pub(super) fn agent(self: &Arc<Self>, wire: SocketTransport) -> Agent {
        let handover = Handover { setup: Arc::clone(self), wire: Mutex::new(Some(wire)) };
        Agent::with_parts(self.config.clone(), handover, NoLookUp)
    }
}

/// The limits of every request. A redirect is an answer like any other; the deadline is the wire's.
pub(super) fn limits() -> ureq::config::ConfigBuilder<ureq::typestate::AgentScope> {
    Agent::config_builder()
        .proxy(None)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_idle_connections(0)
        .max_response_header_size(MAX_HEADERS)
        .input_buffer_size(INPUT)
        .output_buffer_size(LONGEST_LINE)
        .user_agent(concat!("watchdog-agent/", env!("CARGO_PKG_VERSION")))
}

/// Gives the connection that was made beforehand to the one request it was made for.
#[derive(Debug)]
struct Handover {
    setup: Arc<Setup>,
    wire: Mutex<Option<SocketTransport>>,
}

impl Connector for Handover {
    type Out = Box<dyn Transport>;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Self::Out>, Error> {
        let Some(wire) = self.wire.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return Err(Error::ConnectionFailed);
        };
        let (trace, deadline) = (wire.trace(), wire.deadline());
        let transport: Box<dyn Transport> = match &self.setup.layer {
            None => Box::new(wire),
            Some(layer) => layer.connect(details, Some(wire))?.ok_or(Error::ConnectionFailed)?,
        };
        trace.lock().ready = Some(deadline.elapsed());
        Ok(Some(Box::new(Filtered::new(transport, trace))))
    }
}

/// The name was looked up before ureq comes into it.
#[derive(Debug)]
struct NoLookUp;

impl Resolver for NoLookUp {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        Ok(self.empty())
    }
}
