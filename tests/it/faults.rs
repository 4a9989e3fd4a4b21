//! Servers that misbehave on the network in one chosen way, which can change while they run. They use real loopback
//! sockets with ports from the system, and leave nothing behind when dropped.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

/// How often a waiting server checks whether it must stop.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

#[derive(Clone, Debug)]
pub(crate) enum Behaviour {
    /// Reads a request, writes these bytes and closes normally.
    Answer(Vec<u8>),
    /// Reads a request; then, for each step, waits and writes the bytes; closes normally.
    Slow(Vec<(Duration, Vec<u8>)>),
    /// Reads and never answers.
    Silent,
    /// Resets the connection right after accepting it.
    ResetAtOnce,
    /// Reads a request, writes these bytes and, after leaving them time to arrive, resets the connection.
    Reset(Vec<u8>),
    /// Closes normally without a byte: its own side first, because closing with unread bytes would send a reset.
    CloseAtOnce,
    /// Reads a request, writes the first bytes, then the second ones repeatedly, with this pause in between.
    Drip(Vec<u8>, Vec<u8>, Duration),
    /// The same without a pause.
    Flood(Vec<u8>, Vec<u8>),
}

impl Behaviour {
    /// A complete answer with this status, such as `200 OK`, and body.
    pub(crate) fn answer(status: &str, body: &str) -> Behaviour {
        Behaviour::Answer(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes())
    }

    /// Answers with these bytes unchanged.
    pub(crate) fn raw(bytes: &str) -> Behaviour {
        Behaviour::Answer(bytes.as_bytes().to_vec())
    }
}

/// A certificate and its key in PEM.
#[cfg(feature = "tls")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct TlsIdentity(pub(crate) &'static str, pub(crate) &'static str);

/// The state shared by the server's threads and the test.
struct State {
    behaviour: Mutex<Behaviour>,
    requests: Mutex<Vec<(Instant, String)>>,
    stopping: AtomicBool,
    tls: Option<Arc<rustls::ServerConfig>>,
}

/// A running server, stopped when dropped.
pub(crate) struct Server {
    address: Option<SocketAddr>,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on a free port of 127.0.0.1.
    pub(crate) fn start(behaviour: Behaviour) -> Server {
        Server::bind((Ipv4Addr::LOCALHOST, 0), behaviour).expect("a free port")
    }

    /// Listens on this address.
    pub(crate) fn bind(address: impl Into<SocketAddr>, behaviour: Behaviour) -> io::Result<Server> {
        Server::tcp(address.into(), State::new(behaviour, None))
    }

    /// Listens on a free port of 127.0.0.1 with TLS.
    #[cfg(feature = "tls")]
    pub(crate) fn start_tls(identity: TlsIdentity, behaviour: Behaviour) -> Server {
        let state = State::new(behaviour, Some(tls(identity)));
        Server::tcp((Ipv4Addr::LOCALHOST, 0).into(), state).expect("a free port")
    }

    /// Listens on a Unix socket.
    pub(crate) fn start_unix(path: &Path, behaviour: Behaviour) -> Server {
        let listener = UnixListener::bind(path).expect("a path for the socket");
        listener.set_nonblocking(true).expect("a socket that does not block");
        Server::spawn(None, State::new(behaviour, None), move || {
            // A TcpStream is only a descriptor to read from and write to.
            listener.accept().map(|(stream, _)| TcpStream::from(OwnedFd::from(stream)))
        })
    }

    /// Changes the behaviour for new connections; open ones continue as they were.
    pub(crate) fn set_behaviour(&self, behaviour: Behaviour) {
        *self.state.behaviour.lock().unwrap_or_else(PoisonError::into_inner) = behaviour;
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.expect("a server on TCP").port()
    }

    /// The requests received, oldest first.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.timed_requests().into_iter().map(|(_, request)| request).collect()
    }

    /// The same with the times at which they arrived.
    pub(crate) fn timed_requests(&self) -> Vec<(Instant, String)> {
        self.state.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn tcp(address: SocketAddr, state: State) -> io::Result<Server> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        Ok(Server::spawn(Some(address), state, move || listener.accept().map(|(stream, _)| stream)))
    }

    fn spawn(
        address: Option<SocketAddr>,
        state: State,
        mut accept: impl FnMut() -> io::Result<TcpStream> + Send + 'static,
    ) -> Server {
        let state = Arc::new(state);
        let thread_state = Arc::clone(&state);
        let thread = thread::spawn(move || {
            let mut open: Vec<JoinHandle<()>> = Vec::new();
            while !thread_state.stopping.load(Ordering::Acquire) {
                let Ok(stream) = accept() else {
                    thread::sleep(POLL_INTERVAL);
                    continue;
                };
                open.retain(|connection| !connection.is_finished());
                let state = Arc::clone(&thread_state);
                open.push(thread::spawn(move || {
                    // The client may disconnect at any moment; most tests are about that.
                    let _ = state.serve(stream);
                }));
            }
            for connection in open {
                connection.join().expect("the server does not panic");
            }
        });
        Server { address, state, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.state.stopping.store(true, Ordering::Release);
        if let Some(address) = self.address {
            // This only wakes the accepting thread; if it fails, the thread has ended already.
            let _ = TcpStream::connect(address);
        }
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "the server panicked");
        }
    }
}

impl State {
    fn new(behaviour: Behaviour, tls: Option<Arc<rustls::ServerConfig>>) -> State {
        State { behaviour: Mutex::new(behaviour), requests: Mutex::default(), stopping: AtomicBool::new(false), tls }
    }

    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        let behaviour = self.behaviour.lock().unwrap_or_else(PoisonError::into_inner).clone();
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(POLL_INTERVAL))?;
        stream.set_write_timeout(Some(POLL_INTERVAL))?;
        match behaviour {
            Behaviour::ResetAtOnce => return reset(&stream),
            Behaviour::CloseAtOnce => {
                stream.shutdown(Shutdown::Write)?;
                while self.read(&mut &stream, &mut [0; 1024])? > 0 {}
                return Ok(());
            }
            _ => {}
        }
        let plain = stream.try_clone()?;
        let Some(tls) = &self.tls else { return self.respond(stream, &plain, behaviour) };
        let session = rustls::ServerConnection::new(Arc::clone(tls)).map_err(io::Error::other)?;
        self.respond(rustls::StreamOwned::new(session, stream), &plain, behaviour)
    }

    fn respond(&self, mut stream: impl Read + Write, plain: &TcpStream, behaviour: Behaviour) -> io::Result<()> {
        self.read_request(&mut stream)?;
        match behaviour {
            Behaviour::ResetAtOnce | Behaviour::CloseAtOnce => {}
            Behaviour::Silent => while self.read(&mut stream, &mut [0; 1024])? > 0 {},
            Behaviour::Answer(bytes) => self.write(&mut stream, &bytes)?,
            Behaviour::Slow(steps) => {
                for (pause, bytes) in steps {
                    self.pause(pause)?;
                    self.write(&mut stream, &bytes)?;
                }
            }
            Behaviour::Reset(bytes) => {
                self.write(&mut stream, &bytes)?;
                self.pause(POLL_INTERVAL * 10)?;
                return reset(plain);
            }
            Behaviour::Drip(first, again, pause) => {
                self.write(&mut stream, &first)?;
                loop {
                    self.pause(pause)?;
                    self.write(&mut stream, &again)?;
                }
            }
            Behaviour::Flood(first, again) => {
                self.write(&mut stream, &first)?;
                loop {
                    self.write(&mut stream, &again)?;
                }
            }
        }
        stream.flush()
    }

    /// Reads a request with its body, or one piece of data that is not HTTP.
    fn read_request(&self, stream: &mut impl Read) -> io::Result<()> {
        let mut request = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let length = self.read(stream, &mut buffer)?;
            request.extend_from_slice(&buffer[..length]);
            let is_http = request.first().is_some_and(u8::is_ascii_alphabetic);
            if length == 0 || !is_http || is_complete(&request) {
                break;
            }
        }
        let text = String::from_utf8_lossy(&request).into_owned();
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), text));
        Ok(())
    }

    fn read(&self, stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
        self.retry(|| stream.read(buffer))
    }

    fn write(&self, stream: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let length = self.retry(|| stream.write(bytes))?;
            bytes = &bytes[length..];
        }
        Ok(())
    }

    fn pause(&self, duration: Duration) -> io::Result<()> {
        let mut left = duration;
        while !left.is_zero() {
            let slice = left.min(POLL_INTERVAL);
            self.retry(|| {
                thread::sleep(slice);
                Ok(0)
            })?;
            left -= slice;
        }
        Ok(())
    }

    /// Repeats a step that timed out until the server must stop.
    fn retry(&self, mut step: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
        loop {
            if self.stopping.load(Ordering::Acquire) {
                return Err(ErrorKind::Interrupted.into());
            }
            match step() {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                result => return result,
            }
        }
    }
}

/// Whether a request is complete, including the body that its headers announce.
fn is_complete(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, _)) = text.split_once("\r\n\r\n") else { return false };
    let headers = head.lines().filter_map(|line| line.split_once(':'));
    let length = headers
        .filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .find_map(|(_, value)| value.trim().parse::<usize>().ok());
    request.len() >= head.len() + 4 + length.unwrap_or(0)
}

/// Makes closing send a reset.
fn reset(stream: &TcpStream) -> io::Result<()> {
    Ok(sockopt::set_socket_linger(stream, Some(Duration::ZERO))?)
}

#[cfg(feature = "tls")]
fn tls(TlsIdentity(certificate, key): TlsIdentity) -> Arc<rustls::ServerConfig> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<_, _>>();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the versions of TLS")
        .with_no_client_auth()
        .with_single_cert(chain.expect("a certificate"), key.expect("a key"))
        .expect("a certificate and its key");
    Arc::new(config)
}

/// A port on which no process listens: it is bound, so that no other process can use it.
pub(crate) struct ClosedPort {
    _socket: OwnedFd,
    port: u16,
}

impl ClosedPort {
    /// Reserves a free port of 127.0.0.1.
    pub(crate) fn new() -> ClosedPort {
        let (socket, address) = bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        ClosedPort { _socket: socket, port: address.port() }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

/// An address whose accept queue is full, so that the kernel ignores further connections.
pub(crate) struct BlackHole {
    _listener: OwnedFd,
    _queue: Vec<TcpStream>,
    port: u16,
}

impl BlackHole {
    /// Fills the queue on a free port of this address.
    pub(crate) fn bind(address: impl Into<IpAddr>) -> io::Result<BlackHole> {
        let (listener, address) = bind((address.into(), 0))?;
        rustix::net::listen(&listener, 0)?;
        let mut queue = Vec::new();
        while queue.len() < 64 {
            match TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
                Ok(stream) => queue.push(stream),
                Err(_) => return Ok(BlackHole { _listener: listener, _queue: queue, port: address.port() }),
            }
        }
        Err(io::Error::other("the queue does not fill"))
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

fn bind(address: impl Into<SocketAddr>) -> io::Result<(OwnedFd, SocketAddr)> {
    let address = address.into();
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &address)?;
    let address = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
    Ok((socket, address))
}
