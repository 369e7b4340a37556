//! A proxy for HTTP that breaks what goes through it, as networks and servers do.
//!
//! Each connection carries one request (`Connection: close` both ways), so that a fault hits one
//! request and nothing else. The requests that a fault is meant for are named by a piece of their
//! first line, as `"PUT /lab/a"` or `"partNumber=2"`; the rest passes. What is forwarded is
//! otherwise left as it is: the host is signed, and the server takes any.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// What is done to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    Pass,
    /// It is read and answered with this status, as S3 does, and not forwarded. `retry_after` is
    /// in seconds.
    Status { code: u16, retry_after: Option<u32> },
    /// It is read and never answered.
    Hang,
    /// Both connections are closed after so many bytes of its body; where it has none, after so
    /// many bytes of the answer's body.
    CloseMidBody { after: u64 },
    /// It is forwarded, and checksums and tags in the head of the answer are altered.
    CorruptChecksum,
    /// It is forwarded, and the first byte of the answer's body altered, differently each time.
    CorruptBody,
    /// It and its answer are forwarded with so many bytes a second.
    Slow { bytes_per_s: u64 },
    /// The connection is closed at once.
    Refuse,
    /// It is forwarded, and the connection closed instead of the answer.
    LoseAnswer,
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Status { .. } => "status",
            Self::Hang => "hang",
            Self::CloseMidBody { .. } => "close mid body",
            Self::CorruptChecksum => "corrupt checksum",
            Self::CorruptBody => "corrupt body",
            Self::Slow { .. } => "slow",
            Self::Refuse => "refuse",
            Self::LoseAnswer => "lose answer",
        }
    }
}

/// A running proxy. Ends when it goes out of scope.
pub(crate) struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: SocketAddr,
    state: Mutex<State>,
    ended: AtomicBool,
}

#[derive(Default)]
struct State {
    /// The first whose text is in a request's first line applies to it.
    rules: Vec<(String, Fault)>,
    fired: BTreeMap<&'static str, u64>,
    requests: Vec<String>,
    body_bytes: u64,
}

impl FaultProxy {
    /// Begins to forward to a port of loopback.
    pub(crate) fn start(upstream: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            upstream: SocketAddr::from((Ipv4Addr::LOCALHOST, upstream)),
            state: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if accepting.ended.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                // Whatever goes wrong with a connection is what its client is to see.
                thread::spawn(move || drop(shared.serve(client)));
            }
        });
        Self { address, shared }
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on `fault` is done to requests with `text` in their first line ("" is in all),
    /// before the rules that were there.
    pub(crate) fn set(&self, text: &str, fault: Fault) {
        self.shared.state().rules.insert(0, (text.to_owned(), fault));
    }

    /// From now on everything passes.
    pub(crate) fn clear(&self) {
        self.shared.state().rules.clear();
    }

    /// How often a fault of this kind was done so far, whatever its numbers.
    pub(crate) fn fired(&self, fault: Fault) -> u64 {
        self.shared.state().fired.get(fault.name()).copied().unwrap_or(0)
    }

    /// The first lines of all requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.shared.state().requests.clone()
    }

    /// Bytes of request bodies that came in so far.
    pub(crate) fn body_bytes(&self) -> u64 {
        self.shared.state().body_bytes
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for connections.
        drop(TcpStream::connect(self.address));
    }
}

/// The head of a request or an answer.
struct Head {
    first: String,
    fields: Vec<(String, String)>,
}

impl Head {
    /// Reads up to the empty line; `None` where the connection was closed before it began.
    fn read(from: &mut impl io::BufRead) -> io::Result<Option<Self>> {
        let mut first = String::new();
        if from.read_line(&mut first)? == 0 {
            return Ok(None);
        }
        let mut fields = Vec::new();
        loop {
            let mut line = String::new();
            from.read_line(&mut line)?;
            let line = line.trim_end();
            if line.is_empty() {
                return Ok(Some(Self { first: first.trim_end().to_owned(), fields }));
            }
            let (name, value) = line.split_once(':').ok_or(io::ErrorKind::InvalidData)?;
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// With the connection's own fields replaced, so that it carries this and nothing more.
    fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let mut text = format!("{}\r\n", self.first);
        for (name, value) in &self.fields {
            if !matches!(name.as_str(), "connection" | "keep-alive") {
                text.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        text.push_str("connection: close\r\n\r\n");
        to.write_all(text.as_bytes())
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which fault a request with this first line gets. Counts it.
    fn fault_of(&self, first: &str) -> Fault {
        let mut state = self.state();
        let rule = state.rules.iter().find(|(text, _)| first.contains(text.as_str()));
        let fault = rule.map_or(Fault::Pass, |(_, fault)| *fault);
        *state.fired.entry(fault.name()).or_default() += 1;
        state.requests.push(first.to_owned());
        fault
    }

    fn serve(&self, client: TcpStream) -> io::Result<()> {
        let mut reader = BufReader::new(client.try_clone()?);
        let Some(head) = Head::read(&mut reader)? else { return Ok(()) };
        let fault = self.fault_of(&head.first);
        let length: u64 = head.get("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
        if head.get("transfer-encoding").is_some() {
            // Nothing that is tested sends one; forwarding it wrongly would test something else.
            return Err(io::ErrorKind::Unsupported.into());
        }
        let mut body = Counting { inner: reader.take(length), shared: self };
        match fault {
            Fault::Refuse => client.shutdown(Shutdown::Both),
            Fault::Status { code, retry_after } => {
                io::copy(&mut body, &mut io::sink())?;
                refuse(&client, &head, code, retry_after)
            }
            Fault::Hang => {
                io::copy(&mut body, &mut io::sink())?;
                self.wait_for_the_end_of(&client)
            }
            Fault::CloseMidBody { after } if length > 0 => {
                let server = self.forward(&head, &mut body.take(after), u64::MAX)?;
                server.shutdown(Shutdown::Both)?;
                client.shutdown(Shutdown::Both)
            }
            Fault::LoseAnswer => {
                let mut server = self.forward(&head, &mut body, u64::MAX)?;
                io::copy(&mut server, &mut io::sink())?;
                client.shutdown(Shutdown::Both)
            }
            Fault::Pass | Fault::CorruptChecksum | Fault::CorruptBody | Fault::Slow { .. } => {
                self.relay(client, &head, &mut body, fault, u64::MAX)
            }
            Fault::CloseMidBody { after } => self.relay(client, &head, &mut body, fault, after),
        }
    }

    /// Sends a request on and returns the connection that its answer will come from.
    fn forward(
        &self,
        head: &Head,
        body: &mut impl Read,
        bytes_per_s: u64,
    ) -> io::Result<TcpStream> {
        let mut server = TcpStream::connect(self.upstream)?;
        head.write(&mut server)?;
        copy_slowly(body, &mut server, bytes_per_s)?;
        Ok(server)
    }

    /// Sends a request on and its answer back, the first `at_most` bytes of its body.
    fn relay(
        &self,
        mut client: TcpStream,
        head: &Head,
        body: &mut impl Read,
        fault: Fault,
        at_most: u64,
    ) -> io::Result<()> {
        let pace = match fault {
            Fault::Slow { bytes_per_s } => bytes_per_s,
            _ => u64::MAX,
        };
        let server = self.forward(head, body, pace)?;
        let mut reader = BufReader::new(server);
        let answer = Head::read(&mut reader)?;
        let Some(mut answer) = answer else { return client.shutdown(Shutdown::Both) };
        if fault == Fault::CorruptChecksum {
            for (name, value) in &mut answer.fields {
                // Tags of confirmations only: altered alike twice, one would agree with itself.
                let tag = name == "etag" && head.first.starts_with("HEAD");
                if tag || name.starts_with("x-amz-checksum-") {
                    *value = altered(value);
                }
            }
        }
        answer.write(&mut client)?;
        if fault == Fault::CorruptBody {
            let mut first = [0];
            reader.read_exact(&mut first)?;
            let times = self.state().fired.get(fault.name()).copied().unwrap_or(0);
            let change = u8::try_from(times % 255).expect("it is below 255") + 1;
            client.write_all(&[first[0] ^ change])?;
        }
        copy_slowly(&mut reader.take(at_most), &mut client, pace)?;
        client.shutdown(Shutdown::Both)
    }

    /// Returns when the client has gone, or the proxy.
    fn wait_for_the_end_of(&self, mut client: &TcpStream) -> io::Result<()> {
        client.set_read_timeout(Some(Duration::from_millis(50)))?;
        while !self.ended.load(Ordering::SeqCst) {
            match client.read(&mut [0; 64]) {
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) => {}
                Ok(read) if read > 0 => {}
                _ => return Ok(()),
            }
        }
        Ok(())
    }
}

/// Counts what is read of request bodies.
struct Counting<'a, R> {
    inner: R,
    shared: &'a Shared,
}

impl<R: Read> Read for Counting<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.shared.state().body_bytes += read as u64;
        Ok(read)
    }
}

/// With another first letter or digit, so that it stays well-formed.
fn altered(value: &str) -> String {
    let mut altered = value.to_owned();
    if let Some((at, c)) = value.char_indices().find(|(_, c)| c.is_ascii_alphanumeric()) {
        altered.replace_range(at..=at, if c == 'a' { "b" } else { "a" });
    }
    altered
}

/// Answers as S3 does when it has had enough.
fn refuse(
    mut client: &TcpStream,
    request: &Head,
    code: u16,
    retry_after: Option<u32>,
) -> io::Result<()> {
    let name = if code == 503 { "SlowDown" } else { "InternalError" };
    let text = format!("<?xml version=\"1.0\"?><Error><Code>{name}</Code></Error>");
    let mut answer = Head {
        first: format!("HTTP/1.1 {code} {name}"),
        fields: vec![
            ("content-type".to_owned(), "application/xml".to_owned()),
            ("content-length".to_owned(), text.len().to_string()),
        ],
    };
    if let Some(seconds) = retry_after {
        answer.fields.push(("retry-after".to_owned(), seconds.to_string()));
    }
    answer.write(&mut client)?;
    if !request.first.starts_with("HEAD") {
        client.write_all(text.as_bytes())?;
    }
    client.shutdown(Shutdown::Both)
}

fn copy_slowly(from: &mut impl Read, to: &mut impl Write, bytes_per_s: u64) -> io::Result<()> {
    if bytes_per_s == u64::MAX {
        return io::copy(from, to).map(drop);
    }
    // Ten times a second a tenth of a second's worth.
    let mut chunk = vec![0; usize::try_from(bytes_per_s / 10).unwrap_or(1).max(1)];
    loop {
        let read = from.read(&mut chunk)?;
        let Some(chunk) = chunk.get(..read).filter(|chunk| !chunk.is_empty()) else {
            return Ok(());
        };
        to.write_all(chunk)?;
        thread::sleep(Duration::from_millis(100));
    }
}
