//! Configures ureq: limits, no proxy, no connection pool, no resolver, and TLS only for https targets.
//! It must never open a connection: `connect` does that beforehand, within the deadline of the probe.

use std::sync::{Arc, Mutex, PoisonError};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{ConnectionDetails, Connector, NextTimeout, Transport};
use ureq::{Agent, Error};

use super::filter::{FilteredTransport, INPUT_SIZE};
use super::transport::SocketTransport;

/// The longest head that ureq parses, in bytes. `filter` passes it a short normalized one, or something that is not
/// HTTP.
const MAX_PARSED_HEAD: usize = 4 << 10;
/// The longest line of a request, and the largest output buffer: ureq needs each line to fit into it.
pub(super) const MAX_REQUEST_LINE: usize = 16 << 10;

type TlsLayer = Box<dyn Connector<SocketTransport, Out = Box<dyn Transport>>>;

#[derive(Debug)]
pub(super) struct Setup {
    config: Config,
    tls: Option<TlsLayer>,
}

impl Setup {
    pub(super) fn plain() -> Self {
        Setup { config: limits().build(), tls: None }
    }

    /// For https. `config` must be built from [`limits`] and holds the TLS settings.
    #[cfg(feature = "tls")]
    pub(super) fn secure(config: Config, tls: impl Connector<SocketTransport, Out = Box<dyn Transport>>) -> Self {
        Setup { config, tls: Some(Box::new(tls)) }
    }

    pub(super) fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// An agent for one request over `transport`. It is cheap to make, so none is kept between probes.
    pub(super) fn agent(self: &Arc<Self>, transport: SocketTransport) -> Agent {
        let connector = PreparedConnector { setup: Arc::clone(self), transport: Mutex::new(Some(transport)) };
        Agent::with_parts(self.config.clone(), connector, NoResolver)
    }
}

/// The limits of every request. A redirect is a response like any other. The transport enforces the deadline.
pub(super) fn limits() -> ureq::config::ConfigBuilder<ureq::typestate::AgentScope> {
    Agent::config_builder()
        .proxy(None)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_idle_connections(0)
        .max_response_header_size(MAX_PARSED_HEAD)
        .input_buffer_size(INPUT_SIZE)
        .output_buffer_size(MAX_REQUEST_LINE)
        .user_agent(concat!("watchdog-agent/", env!("CARGO_PKG_VERSION")))
}

/// Hands the connection that is already open to the one request it was opened for.
#[derive(Debug)]
struct PreparedConnector {
    setup: Arc<Setup>,
    transport: Mutex<Option<SocketTransport>>,
}

impl Connector for PreparedConnector {
    type Out = Box<dyn Transport>;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Self::Out>, Error> {
        let Some(transport) = self.transport.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return Err(Error::ConnectionFailed);
        };
        let (trace, deadline) = (transport.trace(), transport.deadline());
        let transport: Box<dyn Transport> = match &self.setup.tls {
            None => Box::new(transport),
            Some(tls) => tls.connect(details, Some(transport))?.ok_or(Error::ConnectionFailed)?,
        };
        trace.lock().ready = Some(deadline.elapsed());
        Ok(Some(Box::new(FilteredTransport::new(transport, trace))))
    }
}

/// Resolves nothing, because the connection is already open.
#[derive(Debug)]
struct NoResolver;

impl Resolver for NoResolver {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        Ok(self.empty())
    }
}
