//! An identity provider on the loopback address: a web server that publishes keys, and that
//! misbehaves when it is told to. One request per connection.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mint::Key;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;

use crate::{free_port, now};

/// Where the keys are.
const KEYS: &str = "/jwks.json";

/// Where the discovery document is.
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// A running provider. Dropping it stops it and removes its folder.
pub struct Idp {
    folder: PathBuf,
    ca_file: PathBuf,
    port: u16,
    shared: Arc<Shared>,
    running: Mutex<Option<Running>>,
}

/// What the server does with every request.
#[derive(Clone, Debug, PartialEq)]
pub enum Behaviour {
    /// It answers.
    Serve,
    /// It answers with this status.
    Status(u16),
    /// It answers after this time.
    Slow(Duration),
    /// It accepts the connection and does nothing.
    Hang,
    /// It sends the header and half of the body.
    HangMidBody,
    /// It sends the body a byte at a time, ten in a second.
    Drip,
    /// It redirects to this location.
    Redirect(String),
    /// It answers with 300 KiB without saying how many there are.
    Oversized,
    /// It answers with these headers, too. With an `ETag` or a `Last-Modified` among them, it
    /// answers that nothing has changed where a request has the same.
    Headers(Vec<(String, String)>),
}

/// What the server shows of itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Certificate {
    /// One for `localhost` and 127.0.0.1, from the authority in [`Idp::ca_file`].
    Good,
    /// The same, but expired.
    Expired,
    /// One for another host.
    WrongHost,
    /// One from another authority.
    OtherCa,
}

struct Shared {
    /// The configuration for each certificate; none for plain HTTP.
    tls: Vec<(Certificate, Arc<ServerConfig>)>,
    state: Mutex<State>,
}

struct State {
    documents: HashMap<String, Vec<u8>>,
    redirects: HashMap<String, String>,
    behaviour: Behaviour,
    certificate: Certificate,
    requests: Vec<Received>,
}

/// A request.
#[derive(Clone, Default)]
struct Received {
    head: String,
}

struct Running {
    stopped: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Idp {
    /// Starts a provider with a certificate, without keys.
    pub fn start() -> Self {
        Self::start_with(true)
    }

    /// Starts one that speaks plain HTTP.
    pub fn start_plain() -> Self {
        Self::start_with(false)
    }

    fn start_with(https: bool) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("pg_session_jwt.idp.{}.{count}.{}", std::process::id(), now());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).expect("a temporary folder");
        // The server that reads it runs as somebody else.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        let (authority, ca_pem) = authority("the provider's authority");
        let ca_file = folder.join("ca.pem");
        fs::write(&ca_file, ca_pem).unwrap();
        fs::set_permissions(&ca_file, fs::Permissions::from_mode(0o644)).unwrap();
        let tls = if https { configurations(&authority) } else { Vec::new() };
        let state = State {
            documents: HashMap::new(),
            redirects: HashMap::new(),
            behaviour: Behaviour::Serve,
            certificate: Certificate::Good,
            requests: Vec::new(),
        };
        let shared = Arc::new(Shared { tls, state: Mutex::new(state) });
        let running = Mutex::new(None);
        let idp = Self { folder, ca_file, port: free_port(), shared, running };
        let document = json!({"issuer": idp.issuer(), "jwks_uri": idp.jwks_url()});
        idp.set_body(DISCOVERY, document.to_string());
        idp.set_keys(&[]);
        idp.restart();
        idp
    }

    /// The issuer, which is where the provider is.
    pub fn issuer(&self) -> String {
        let scheme = if self.shared.tls.is_empty() { "http" } else { "https" };
        format!("{scheme}://localhost:{}", self.port)
    }

    /// The URL of the keys.
    pub fn jwks_url(&self) -> String {
        self.issuer() + KEYS
    }

    /// The authority that the provider's certificate comes from, as PEM.
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// A folder that everybody can read.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Publishes these keys and no others.
    pub fn set_keys(&self, keys: &[&Key]) {
        let keys: Vec<_> = keys.iter().map(|key| key.public_jwk()).collect();
        self.set_body(KEYS, json!({ "keys": keys }).to_string());
    }

    /// Answers requests for this path with this.
    pub fn set_body(&self, path: &str, body: impl Into<Vec<u8>>) {
        self.state(|state| state.documents.insert(path.to_owned(), body.into()));
    }

    /// Redirects requests for this path.
    pub fn set_redirect(&self, path: &str, location: &str) {
        self.state(|state| state.redirects.insert(path.to_owned(), location.to_owned()));
    }

    /// What to do from now on.
    pub fn behave(&self, behaviour: Behaviour) {
        self.state(|state| state.behaviour = behaviour);
    }

    /// Which certificate to show from now on.
    pub fn use_certificate(&self, certificate: Certificate) {
        self.state(|state| state.certificate = certificate);
    }

    /// How many requests there were, connections that were left hanging among them.
    pub fn requests(&self) -> usize {
        self.state(|state| state.requests.len())
    }

    /// How many requests for this path there were.
    pub fn requests_for(&self, path: &str) -> usize {
        self.state(|state| state.requests.iter().filter(|seen| seen.path() == path).count())
    }

    /// How many requests asked only for what has changed.
    pub fn conditional_requests(&self) -> usize {
        self.state(|state| state.requests.iter().filter(|seen| seen.is_conditional()).count())
    }

    /// A header of the last request.
    pub fn last_header(&self, name: &str) -> Option<String> {
        self.state(|state| Some(state.requests.last()?.header(name)?.to_owned()))
    }

    /// Stops listening; connections are refused then.
    pub fn stop(&self) {
        let running = self.running.lock().unwrap().take();
        if let Some(Running { stopped, thread }) = running {
            stopped.store(true, Ordering::Relaxed);
            let _ = thread.join();
        }
    }

    /// Listens again, on the same port.
    pub fn restart(&self) {
        self.stop();
        let listener = TcpListener::bind(("127.0.0.1", self.port)).expect("the port is free");
        listener.set_nonblocking(true).unwrap();
        let (shared, stopped) = (self.shared.clone(), Arc::new(AtomicBool::new(false)));
        let until = stopped.clone();
        let thread = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                let Ok((socket, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(2));
                    continue;
                };
                let (shared, until) = (shared.clone(), until.clone());
                // A client that has gone is no concern of the server's.
                std::thread::spawn(move || shared.serve(socket, &until).is_ok());
            }
        });
        *self.running.lock().unwrap() = Some(Running { stopped, thread });
    }

    fn state<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.shared.state.lock().unwrap())
    }
}

impl Drop for Idp {
    fn drop(&mut self) {
        self.stop();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Shared {
    /// Answers one request.
    fn serve(&self, mut socket: TcpStream, stopped: &AtomicBool) -> io::Result<()> {
        let (behaviour, certificate) = {
            let mut state = self.state.lock().unwrap();
            if state.behaviour == Behaviour::Hang {
                state.requests.push(Received::default());
            }
            (state.behaviour.clone(), state.certificate)
        };
        if behaviour == Behaviour::Hang {
            pause(Duration::MAX, stopped);
            return Ok(());
        }
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.set_write_timeout(Some(Duration::from_secs(5)))?;
        let tls = self.tls.iter().find(|(name, _)| *name == certificate);
        let Some((_, configuration)) = tls else {
            return self.answer(&mut socket, &behaviour, stopped);
        };
        let connection = ServerConnection::new(configuration.clone()).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, socket);
        self.answer(&mut stream, &behaviour, stopped)?;
        stream.conn.send_close_notify();
        stream.flush()
    }

    fn answer(
        &self,
        stream: &mut (impl Read + Write),
        behaviour: &Behaviour,
        stopped: &AtomicBool,
    ) -> io::Result<()> {
        let request = Received::read(stream)?;
        let (document, redirect) = {
            let mut state = self.state.lock().unwrap();
            state.requests.push(request.clone());
            let redirect = state.redirects.get(request.path()).cloned();
            (state.documents.get(request.path()).cloned(), redirect)
        };
        let mut status = if document.is_some() { 200 } else { 404 };
        let mut body = document.unwrap_or_else(|| b"there is nothing here".to_vec());
        let mut headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
        let mut redirect_to = redirect;
        match behaviour {
            Behaviour::Serve | Behaviour::Hang | Behaviour::HangMidBody | Behaviour::Drip => {}
            Behaviour::Status(other) => status = *other,
            Behaviour::Slow(time) => pause(*time, stopped),
            Behaviour::Redirect(location) => redirect_to = Some(location.clone()),
            Behaviour::Oversized => body = vec![b' '; 300 * 1024],
            Behaviour::Headers(more) => {
                headers.extend_from_slice(more);
                if more.iter().any(|(name, value)| request.knows(name, value)) {
                    status = 304;
                    body.clear();
                }
            }
        }
        if let Some(location) = redirect_to {
            status = 302;
            headers.push(("Location".to_owned(), location));
        }
        if *behaviour != Behaviour::Oversized {
            headers.push(("Content-Length".to_owned(), body.len().to_string()));
        }
        let mut head = format!("HTTP/1.1 {status} Status\r\nConnection: close\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all((head + "\r\n").as_bytes())?;
        if *behaviour == Behaviour::HangMidBody {
            stream.write_all(&body[..body.len() / 2])?;
            stream.flush()?;
            pause(Duration::MAX, stopped);
            return Ok(());
        }
        if *behaviour == Behaviour::Drip {
            for byte in body.chunks(1).take_while(|_| !stopped.load(Ordering::Relaxed)) {
                stream.write_all(byte)?;
                stream.flush()?;
                pause(Duration::from_millis(100), stopped);
            }
            return Ok(());
        }
        stream.write_all(&body)?;
        stream.flush()
    }
}

impl Received {
    fn read(stream: &mut impl Read) -> io::Result<Self> {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") && head.len() < 65_536 {
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
            if !head[0].is_ascii_alphabetic() {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        Ok(Self { head: String::from_utf8_lossy(&head).into_owned() })
    }

    /// The path, without the query.
    fn path(&self) -> &str {
        let target = self.head.split(' ').nth(1).unwrap_or_default();
        target.split('?').next().unwrap_or_default()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    fn is_conditional(&self) -> bool {
        self.header("If-None-Match").or(self.header("If-Modified-Since")).is_some()
    }

    /// Whether the client has what this header of the answer stands for.
    fn knows(&self, name: &str, value: &str) -> bool {
        let condition = match name.to_ascii_lowercase().as_str() {
            "etag" => "If-None-Match",
            "last-modified" => "If-Modified-Since",
            _ => return false,
        };
        self.header(condition) == Some(value)
    }
}

/// Waits, but for a server that has stopped, and a minute at most.
fn pause(time: Duration, stopped: &AtomicBool) {
    let (started, time) = (Instant::now(), time.min(Duration::from_secs(60)));
    while started.elapsed() < time && !stopped.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An authority, and its certificate as PEM.
fn authority(name: &str) -> (Issuer<'static, KeyPair>, String) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}

/// What the server needs to show each of its certificates.
fn configurations(ours: &Issuer<KeyPair>) -> Vec<(Certificate, Arc<ServerConfig>)> {
    use Certificate::*;
    let (other, _) = authority("another authority");
    let all = [Good, Expired, WrongHost, OtherCa].into_iter().map(|certificate| {
        let hosts = match certificate {
            WrongHost => vec!["elsewhere.example".to_owned()],
            _ => vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
        };
        let mut params = CertificateParams::new(hosts).unwrap();
        if certificate == Expired {
            params.not_after = date_time_ymd(2001, 1, 1);
        }
        let issuer = if certificate == OtherCa { &other } else { ours };
        let key = KeyPair::generate().unwrap();
        let chain = vec![params.signed_by(&key, issuer).unwrap().der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let configuration = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        (certificate, Arc::new(configuration))
    });
    all.collect()
}
