//! A server that misbehaves on the wire in one chosen way, and can change its ways while it runs.
//! Real sockets on the loopback, ports from the system, nothing left behind when it is dropped.

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

/// How often a server that waits looks up whether it is to end.
const BREATH: Duration = Duration::from_millis(10);

/// What a server does with a connection.
#[derive(Clone, Debug)]
pub(crate) enum Ways {
    /// Reads a request, writes these bytes and closes in order.
    Answer(Vec<u8>),
    /// Reads a request, waits, writes the bytes, and so on to the last; then closes in order.
    Slow(Vec<(Duration, Vec<u8>)>),
    /// Reads what comes and says nothing.
    Silent,
    /// Resets the connection as soon as it is there.
    ResetAtOnce,
    /// Reads a request, writes these bytes and, once they have had time to arrive, resets the connection.
    Reset(Vec<u8>),
    /// Closes in order before anything was said: its side first, for a close over unread bytes would be a reset.
    CloseAtOnce,
    /// Reads a request, writes the first bytes, then the second, again and again, with this pause between.
    Drip(Vec<u8>, Vec<u8>, Duration),
    /// The same as fast as it goes.
    Flood(Vec<u8>, Vec<u8>),
}

impl Ways {
    /// A whole answer with this status line's end, such as `200 OK`, and body.
    pub(crate) fn answer(status: &str, body: &str) -> Ways {
        Ways::Answer(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes())
    }

    /// These bytes as they are.
    pub(crate) fn raw(bytes: &str) -> Ways {
        Ways::Answer(bytes.as_bytes().to_vec())
    }
}

/// A certificate and its key, in PEM.
#[cfg(feature = "tls")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity(pub(crate) &'static str, pub(crate) &'static str);

/// What the server's threads share with whoever steers it.
struct Shared {
    ways: Mutex<Ways>,
    requests: Mutex<Vec<(Instant, String)>>,
    end: AtomicBool,
    tls: Option<Arc<rustls::ServerConfig>>,
}

/// A running server. It ends when dropped.
pub(crate) struct Server {
    address: Option<SocketAddr>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on a free port of 127.0.0.1.
    pub(crate) fn start(ways: Ways) -> Server {
        Server::on((Ipv4Addr::LOCALHOST, 0), ways).expect("a free port")
    }

    /// Listens where it is told to.
    pub(crate) fn on(address: impl Into<SocketAddr>, ways: Ways) -> io::Result<Server> {
        Server::tcp(address.into(), Shared::new(ways, None))
    }

    /// Listens on a free port of 127.0.0.1 and speaks TLS.
    #[cfg(feature = "tls")]
    pub(crate) fn secure(identity: Identity, ways: Ways) -> Server {
        let shared = Shared::new(ways, Some(tls(identity)));
        Server::tcp((Ipv4Addr::LOCALHOST, 0).into(), shared).expect("a free port")
    }

    /// Listens on a socket in the file system.
    pub(crate) fn unix(path: &Path, ways: Ways) -> Server {
        let listener = UnixListener::bind(path).expect("a path for the socket");
        listener.set_nonblocking(true).expect("a socket that does not block");
        Server::run(None, Shared::new(ways, None), move || {
            // A TcpStream is no more than a descriptor to read from and write to.
            listener.accept().map(|(stream, _)| TcpStream::from(OwnedFd::from(stream)))
        })
    }

    /// From now on it behaves like this; connections that are open go on as they were.
    pub(crate) fn turn(&self, ways: Ways) {
        *self.shared.ways.lock().unwrap_or_else(PoisonError::into_inner) = ways;
    }

    /// The port it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.address.expect("a server on TCP").port()
    }

    /// Each first piece of what a client said, oldest first.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.arrivals().into_iter().map(|(_, request)| request).collect()
    }

    /// The same with the moments at which they had arrived.
    pub(crate) fn arrivals(&self) -> Vec<(Instant, String)> {
        self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn tcp(address: SocketAddr, shared: Shared) -> io::Result<Server> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        Ok(Server::run(Some(address), shared, move || listener.accept().map(|(stream, _)| stream)))
    }

    fn run(
        address: Option<SocketAddr>,
        shared: Shared,
        mut accept: impl FnMut() -> io::Result<TcpStream> + Send + 'static,
    ) -> Server {
        let shared = Arc::new(shared);
        let theirs = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let mut open: Vec<JoinHandle<()>> = Vec::new();
            while !theirs.end.load(Ordering::Acquire) {
                let Ok(stream) = accept() else {
                    thread::sleep(BREATH);
                    continue;
                };
                open.retain(|connection| !connection.is_finished());
                let shared = Arc::clone(&theirs);
                open.push(thread::spawn(move || {
                    // The client may leave at any moment: that is what most of the tests are about.
                    let _ = shared.serve(stream);
                }));
            }
            for connection in open {
                connection.join().expect("the server does not panic");
            }
        });
        Server { address, shared, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::Release);
        if let Some(address) = self.address {
            // Only to end its wait; where that fails it has ended already.
            let _ = TcpStream::connect(address);
        }
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "the server panicked");
        }
    }
}

impl Shared {
    fn new(ways: Ways, tls: Option<Arc<rustls::ServerConfig>>) -> Shared {
        Shared { ways: Mutex::new(ways), requests: Mutex::default(), end: AtomicBool::new(false), tls }
    }

    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        let ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner).clone();
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(BREATH))?;
        stream.set_write_timeout(Some(BREATH))?;
        match ways {
            Ways::ResetAtOnce => return reset(&stream),
            Ways::CloseAtOnce => {
                stream.shutdown(Shutdown::Write)?;
                while self.read(&mut &stream, &mut [0; 1024])? > 0 {}
                return Ok(());
            }
            _ => {}
        }
        let plain = stream.try_clone()?;
        let Some(tls) = &self.tls else { return self.behave(stream, &plain, ways) };
        let session = rustls::ServerConnection::new(Arc::clone(tls)).map_err(io::Error::other)?;
        self.behave(rustls::StreamOwned::new(session, stream), &plain, ways)
    }

    fn behave(&self, mut stream: impl Read + Write, plain: &TcpStream, ways: Ways) -> io::Result<()> {
        self.listen(&mut stream)?;
        match ways {
            Ways::ResetAtOnce | Ways::CloseAtOnce => {}
            Ways::Silent => while self.read(&mut stream, &mut [0; 1024])? > 0 {},
            Ways::Answer(bytes) => self.write(&mut stream, &bytes)?,
            Ways::Slow(steps) => {
                for (pause, bytes) in steps {
                    self.pause(pause)?;
                    self.write(&mut stream, &bytes)?;
                }
            }
            Ways::Reset(bytes) => {
                self.write(&mut stream, &bytes)?;
                self.pause(BREATH * 10)?;
                return reset(plain);
            }
            Ways::Drip(first, again, pause) => {
                self.write(&mut stream, &first)?;
                loop {
                    self.pause(pause)?;
                    self.write(&mut stream, &again)?;
                }
            }
            Ways::Flood(first, again) => {
                self.write(&mut stream, &first)?;
                loop {
                    self.write(&mut stream, &again)?;
                }
            }
        }
        stream.flush()
    }

    /// Reads a request with its body, or one piece of what is no HTTP.
    fn listen(&self, stream: &mut impl Read) -> io::Result<()> {
        let mut request = Vec::new();
        let mut piece = [0; 4096];
        loop {
            let length = self.read(stream, &mut piece)?;
            request.extend_from_slice(&piece[..length]);
            let is_http = request.first().is_some_and(u8::is_ascii_alphabetic);
            if length == 0 || !is_http || is_whole(&request) {
                break;
            }
        }
        let text = String::from_utf8_lossy(&request).into_owned();
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), text));
        Ok(())
    }

    fn read(&self, stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
        self.patiently(|| stream.read(buffer))
    }

    fn write(&self, stream: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let length = self.patiently(|| stream.write(bytes))?;
            bytes = &bytes[length..];
        }
        Ok(())
    }

    fn pause(&self, span: Duration) -> io::Result<()> {
        let mut left = span;
        while !left.is_zero() {
            let nap = left.min(BREATH);
            self.patiently(|| {
                thread::sleep(nap);
                Ok(0)
            })?;
            left -= nap;
        }
        Ok(())
    }

    /// Tries again for as long as the server is to run.
    fn patiently(&self, mut step: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
        loop {
            if self.end.load(Ordering::Acquire) {
                return Err(ErrorKind::Interrupted.into());
            }
            match step() {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                result => return result,
            }
        }
    }
}

/// Whether a request is there to the end of the body that its headers announce.
fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, _)) = text.split_once("\r\n\r\n") else { return false };
    let lengths = head.lines().filter_map(|line| line.split_once(':'));
    let length = lengths
        .filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .find_map(|(_, value)| value.trim().parse::<usize>().ok());
    request.len() >= head.len() + 4 + length.unwrap_or(0)
}

/// Closes in a way that the peer gets to know as "connection reset".
fn reset(stream: &TcpStream) -> io::Result<()> {
    Ok(sockopt::set_socket_linger(stream, Some(Duration::ZERO))?)
}

#[cfg(feature = "tls")]
fn tls(Identity(certificate, key): Identity) -> Arc<rustls::ServerConfig> {
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

/// An address where nobody listens: bound, so that nobody else can, but not listening.
pub(crate) struct Closed {
    _socket: OwnedFd,
    port: u16,
}

impl Closed {
    /// Takes a free port of 127.0.0.1.
    pub(crate) fn new() -> Closed {
        let (socket, address) = bound((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        Closed { _socket: socket, port: address.port() }
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

/// An address whose queue of connections is full, so that the kernel answers no further one.
pub(crate) struct BlackHole {
    _listener: OwnedFd,
    _queue: Vec<TcpStream>,
    port: u16,
}

impl BlackHole {
    /// Takes a free port of this address.
    pub(crate) fn on(address: impl Into<IpAddr>) -> io::Result<BlackHole> {
        let (listener, address) = bound((address.into(), 0))?;
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

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

fn bound(address: impl Into<SocketAddr>) -> io::Result<(OwnedFd, SocketAddr)> {
    let address = address.into();
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &address)?;
    let address = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
    Ok((socket, address))
}
