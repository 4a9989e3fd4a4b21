//! A look by HTTP: one request over a connection of its own, and whether the answer is the one that is wanted.
//! It must never follow a redirect, keep a connection, or wait for a body that no longer matters.

use std::io::Read;
use std::sync::Arc;

use ureq::http::uri::Scheme;
use ureq::http::{HeaderName, HeaderValue, Method, Request, Uri, header};

use crate::config::{self, Http};
use crate::outcome::Class;

use super::Failure;
use super::classify;
use super::connect::{self, Place};
use super::deadline::Deadline;
use super::judge::Wanted;
use super::resolve::Host;
use super::setup::{self, INPUT, OUTPUT, Setup, Trust};
use super::wire::{Traced, Wire};
use super::words::Size;

/// The longest body that is read, in bytes.
const MAX_BODY: usize = 1 << 20;

/// A target that speaks HTTP.
#[derive(Debug)]
pub(super) struct HttpProbe {
    place: Place,
    request: Request<()>,
    wanted: Wanted,
    /// One, or a second for where the first has no certificates to trust. Never empty.
    setups: Vec<Arc<Setup>>,
}

impl HttpProbe {
    /// Errors say what is wrong with the configuration, without the url and the headers' values.
    pub(super) fn new(http: &Http, trust: &Trust) -> Result<Self, String> {
        let uri: Uri = http.url.0.parse().map_err(|error| format!("the url is not valid: {error}"))?;
        let setups = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => vec![Arc::new(Setup::plain())],
            Some(scheme) if *scheme == Scheme::HTTPS => setup::secure(&http.tls, trust)?,
            _ => return Err("the url begins with neither http:// nor https://".into()),
        };
        let place = match (&http.unix_socket, uri.host()) {
            (Some(path), _) => {
                connect::check_unix(path)?;
                Place::Unix(path.clone())
            }
            (None, Some(host)) if !host.is_empty() => {
                let port = uri.port_u16().unwrap_or(if uri.scheme() == Some(&Scheme::HTTP) { 80 } else { 443 });
                Place::Net { host: Host::new(host), port }
            }
            (None, _) => return Err("the url names no host".into()),
        };
        Ok(HttpProbe { place, request: request(http, uri)?, wanted: Wanted::new(http), setups })
    }

    /// The status, where it is the wanted one and so is the body.
    pub(super) fn look(&self, deadline: Deadline) -> Result<String, Failure> {
        let mut setups = self.setups.iter().peekable();
        loop {
            let setup = setups.next().expect("the last of the setups ends the loop");
            let socket = self.place.dial(deadline)?;
            let trace = Traced::new(deadline.elapsed(), setup.is_secure());
            let wire = Wire::new(socket, deadline, trace.clone(), INPUT, OUTPUT);
            match self.exchange(setup, wire, &trace, deadline) {
                Err(Broken::Exchange(error)) if setups.peek().is_some() && setup::lacks_certificates(&error) => {}
                Err(Broken::Exchange(error)) => {
                    return Err(classify::exchange(&error, &trace.lock(), deadline.budget()));
                }
                Err(Broken::Judged(failure)) => return Err(failure),
                Ok(status) => return Ok(status.to_string()),
            }
        }
    }

    /// Sends the request, judges the status as soon as it is known, then reads the body to its end and judges that.
    fn exchange(&self, setup: &Arc<Setup>, wire: Wire, trace: &Traced, deadline: Deadline) -> Result<u16, Broken> {
        let response = setup.agent(wire).run(self.request.clone())?;
        let status = response.status().as_u16();
        trace.lock().head = Some((status, deadline.elapsed()));
        self.wanted.status(status)?;
        if self.request.method() == Method::HEAD {
            return Ok(status);
        }
        let mut body = Vec::new();
        let most = u64::try_from(MAX_BODY + 1).unwrap_or(u64::MAX);
        let read = response.into_body().into_reader().take(most).read_to_end(&mut body);
        trace.lock().body = body.len();
        read.map_err(ureq::Error::from)?;
        let trace = trace.lock();
        if let Some(fault) = &trace.fault {
            // ureq takes a reset for the end where no length was given.
            return Err(classify::broken(fault, &trace, deadline.budget()).into());
        }
        if body.len() > MAX_BODY {
            return Err(Failure::Target(Class::Body, format!("body of more than {}", Size(MAX_BODY))).into());
        }
        self.wanted.body(&body)?;
        Ok(status)
    }
}

/// What kept an exchange from ending well.
#[derive(Debug)]
enum Broken {
    /// It was not completed.
    Exchange(ureq::Error),
    /// The answer is not the wanted one.
    Judged(Failure),
}

impl From<ureq::Error> for Broken {
    fn from(error: ureq::Error) -> Self {
        Broken::Exchange(error)
    }
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        Broken::Judged(failure)
    }
}

fn request(http: &Http, uri: Uri) -> Result<Request<()>, String> {
    let mut request = Request::new(());
    *request.method_mut() = match http.method {
        config::Method::Get => Method::GET,
        config::Method::Head => Method::HEAD,
    };
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    // The method, the version and the ends of lines go on top.
    if path + 32 > OUTPUT {
        return Err(format!("the url is longer than {}", Size(OUTPUT)));
    }
    *request.uri_mut() = uri;
    for (name, value) in &http.headers {
        let bad = |what: &str| format!("header {name}: {what}");
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad("its name is not one that HTTP allows"))?;
        let text = HeaderValue::from_bytes(value.0.as_bytes());
        let mut text = text.map_err(|_| bad("its value has a control character"))?;
        if name.len() + value.0.len() + 4 > OUTPUT {
            return Err(bad(&format!("it is longer than {}", Size(OUTPUT))));
        }
        text.set_sensitive(true);
        request.headers_mut().append(key, text);
    }
    request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    Ok(request)
}
