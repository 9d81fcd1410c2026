//! A client that decides itself which message goes over the wire when: pipelines, cancel requests,
//! connections that end in the middle. Postgres' protocol 3.0, text format, no authentication.

use std::io::{self, BufReader, Error, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::Connection;

/// A connection. Messages are queued, and go out together with the next `sync`.
pub struct Wire {
    stream: BufReader<TcpStream>,
    queued: Vec<u8>,
    key: [u8; 8],
    port: u16,
    status: u8,
    notices: Vec<Fields>,
    received: Option<Vec<u8>>,
}

/// The rows of one statement.
pub type Rows = Vec<Vec<Option<String>>>;

/// An error or a notice, as the server sent it.
#[derive(Clone, Debug)]
pub struct Fields(Vec<(u8, String)>);

impl Fields {
    /// The field of that type, such as `C` for the SQLSTATE.
    pub fn get(&self, kind: u8) -> Option<&str> {
        self.0.iter().find(|(found, _)| *found == kind).map(|(_, text)| text.as_str())
    }

    /// The SQLSTATE.
    pub fn sqlstate(&self) -> &str {
        self.get(b'C').unwrap_or_default()
    }
}

/// What one statement came to: its rows, or the error.
pub type Answer = Result<Rows, Fields>;

/// The values of a statement's rows one after the other, `nobody` for NULL; or the SQLSTATE.
pub fn values(answer: &Answer) -> Vec<&str> {
    match answer {
        Ok(rows) => {
            rows.iter().flatten().map(|value| value.as_deref().unwrap_or("nobody")).collect()
        }
        Err(fields) => vec![fields.sqlstate()],
    }
}

impl Wire {
    /// Connects; the error is the server's refusal, or the socket's.
    pub fn connect(connection: &Connection) -> io::Result<Self> {
        let port = connection.port();
        let socket = TcpStream::connect(("127.0.0.1", port))?;
        socket.set_nodelay(true)?;
        // Longer than anything takes: a test that hangs says where.
        socket.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut wire = Self {
            stream: BufReader::new(socket),
            queued: Vec::new(),
            key: [0; 8],
            port,
            status: b'I',
            notices: Vec::new(),
            received: None,
        };
        let mut body = 196_608u32.to_be_bytes().to_vec();
        for (name, value) in connection.parameters() {
            body.extend([name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
        }
        body.push(0);
        wire.queued.extend(length(&body));
        wire.queued.extend(body);
        match wire.answers()?.pop() {
            Some(Err(fields)) => Err(Error::other(format!("{fields:?}"))),
            _ => Ok(wire),
        }
    }

    /// Queues a statement of the extended protocol, without a name.
    pub fn statement(&mut self, sql: &str, parameters: &[&str]) {
        self.prepare("", sql);
        self.execute("", parameters);
    }

    /// Queues the preparation of a statement under a name.
    pub fn prepare(&mut self, name: &str, sql: &str) {
        self.message(b'P', &[name.as_bytes(), b"\0", sql.as_bytes(), b"\0\0\0"].concat());
    }

    /// Queues the execution of what was prepared under a name.
    pub fn execute(&mut self, name: &str, parameters: &[&str]) {
        self.bind("", name, parameters);
        self.continue_portal("", 0);
    }

    /// Queues the making of a portal from what was prepared under a name.
    pub fn bind(&mut self, portal: &str, name: &str, parameters: &[&str]) {
        let mut bind = [portal.as_bytes(), b"\0", name.as_bytes(), b"\0\0\0"].concat();
        bind.extend((parameters.len() as u16).to_be_bytes());
        for parameter in parameters {
            bind.extend((parameter.len() as u32).to_be_bytes());
            bind.extend(parameter.as_bytes());
        }
        bind.extend([0, 0]);
        self.message(b'B', &bind);
    }

    /// Queues the execution of a portal, for so many rows; 0 for all.
    pub fn continue_portal(&mut self, portal: &str, rows: u32) {
        self.message(b'E', &[portal.as_bytes(), b"\0", &rows.to_be_bytes()].concat());
    }

    /// Calls a function without arguments in the fast path.
    pub fn call(&mut self, function: u32) -> io::Result<Vec<Answer>> {
        self.message(b'F', &[&function.to_be_bytes()[..], &[0; 6]].concat());
        self.answers()
    }

    /// Sends what is queued, and a `Sync`; returns what each statement came to. Those after an
    /// error are skipped by the server.
    pub fn sync(&mut self) -> io::Result<Vec<Answer>> {
        self.message(b'S', b"");
        self.answers()
    }

    /// Sends one message of the simple protocol; returns what its statements came to.
    pub fn query(&mut self, sql: &str) -> io::Result<Vec<Answer>> {
        self.message(b'Q', &[sql.as_bytes(), b"\0"].concat());
        self.answers()
    }

    /// The same for one statement, in the extended protocol.
    pub fn ask(&mut self, sql: &str, parameters: &[&str]) -> io::Result<Answer> {
        self.statement(sql, parameters);
        Ok(self.sync()?.pop().unwrap_or_else(|| Ok(Vec::new())))
    }

    /// The values that one statement returns, joined by spaces, `nobody` for NULL; or the SQLSTATE.
    pub fn answer(&mut self, sql: &str, parameters: &[&str]) -> String {
        values(&self.ask(sql, parameters).unwrap()).join(" ")
    }

    /// Runs statements in one message; the SQLSTATE of the first that fails.
    pub fn run(&mut self, sql: &str) -> String {
        let answers = self.query(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        let failed = answers.into_iter().find_map(Answer::err);
        failed.map_or_else(|| crate::SUCCESS.to_owned(), |fields| fields.sqlstate().to_owned())
    }

    /// Presents a token for the session, or for the transaction; the SQLSTATE.
    pub fn present(&mut self, token: &str, is_local: bool) -> String {
        let present = format!("SELECT auth.jwt_session_init($1, {is_local})");
        let refused = self.ask(&present, &[token]).unwrap().err();
        refused.map_or_else(|| crate::SUCCESS.to_owned(), |fields| fields.sqlstate().to_owned())
    }

    /// The user, or the SQLSTATE.
    pub fn user(&mut self) -> String {
        self.answer("SELECT auth.user_id()", &[])
    }

    /// How many notices with this message have come since the last question.
    pub fn count_notices(&mut self, message: &str) -> usize {
        self.notices().iter().filter(|notice| notice.get(b'M') == Some(message)).count()
    }

    /// Sends what is queued without waiting for an answer.
    pub fn flush(&mut self) -> io::Result<()> {
        let queued = std::mem::take(&mut self.queued);
        self.stream.get_mut().write_all(&queued)
    }

    /// Sends what is queued, and a `Sync`, without waiting for an answer.
    pub fn send(&mut self) -> io::Result<()> {
        self.message(b'S', b"");
        self.flush()
    }

    /// Waits for the answers to what was flushed, to the end of one `Sync`.
    pub fn answers(&mut self) -> io::Result<Vec<Answer>> {
        self.flush()?;
        let mut answers = Vec::new();
        let mut rows = Vec::new();
        loop {
            let (kind, body) = self.receive()?;
            match kind {
                b'D' => rows.push(row(&body)?),
                b'C' | b'I' | b's' => answers.push(Ok(std::mem::take(&mut rows))),
                b'E' => {
                    rows.clear();
                    let fields = fields(&body);
                    // The server says good-bye, and not that it is ready.
                    if fields.get(b'V').is_some_and(|severity| severity == "FATAL") {
                        return Err(Error::new(
                            ErrorKind::ConnectionAborted,
                            format!("{fields:?}"),
                        ));
                    }
                    answers.push(Err(fields));
                }
                // What a function returns: as a value of a row, with its length before it.
                b'V' => answers.push(Ok(vec![row(&[&[0, 1], &body[..]].concat())?])),
                b'N' => self.notices.push(fields(&body)),
                b'K' => self.key.copy_from_slice(body.get(..8).unwrap_or(&[0; 8])),
                b'Z' => {
                    self.status = body.first().copied().unwrap_or_default();
                    return Ok(answers);
                }
                b'R' if body != [0, 0, 0, 0] => {
                    return Err(Error::other("a password is asked for"));
                }
                _ => {}
            }
        }
    }

    /// Whether a transaction block is open: `I` idle, `T` in one, `E` in one that has failed.
    pub fn status(&self) -> char {
        char::from(self.status)
    }

    /// The notices since the last time.
    pub fn notices(&mut self) -> Vec<Fields> {
        std::mem::take(&mut self.notices)
    }

    /// From now on, keeps everything that the server sends; returns what there was.
    pub fn record(&mut self) -> Vec<u8> {
        self.received.replace(Vec::new()).unwrap_or_default()
    }

    /// What asks the server, on a connection of its own, to cancel the running statement.
    pub fn canceller(&self) -> impl Fn() -> io::Result<()> + Send + 'static {
        let (port, key) = (self.port, self.key);
        move || {
            let mut socket = TcpStream::connect(("127.0.0.1", port))?;
            let code = 80_877_102u32.to_be_bytes();
            socket.write_all(&[&16u32.to_be_bytes()[..], &code, &key].concat())?;
            // The server closes it once the request has been passed on.
            socket.read_to_end(&mut Vec::new()).map(drop)
        }
    }

    fn message(&mut self, kind: u8, body: &[u8]) {
        self.queued.push(kind);
        self.queued.extend(length(body));
        self.queued.extend(body);
    }

    fn receive(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.stream.read_exact(&mut head)?;
        let [kind, length @ ..] = head;
        let size = u32::from_be_bytes(length).checked_sub(4).ok_or(ErrorKind::InvalidData)?;
        let mut body = vec![0; size as usize];
        self.stream.read_exact(&mut body)?;
        if let Some(received) = &mut self.received {
            received.push(kind);
            received.extend(&body);
        }
        Ok((kind, body))
    }
}

/// The length that goes before a message's body, and counts itself.
fn length(body: &[u8]) -> [u8; 4] {
    (body.len() as u32 + 4).to_be_bytes()
}

fn fields(body: &[u8]) -> Fields {
    let parts = body.split(|byte| *byte == 0).filter_map(|part| part.split_first());
    Fields(parts.map(|(kind, text)| (*kind, String::from_utf8_lossy(text).into_owned())).collect())
}

fn row(body: &[u8]) -> io::Result<Vec<Option<String>>> {
    let mut rest = body;
    let mut take = |size: usize| {
        let (taken, after) = rest.split_at_checked(size).ok_or(ErrorKind::InvalidData)?;
        rest = after;
        Ok::<_, Error>(taken)
    };
    let count = take(2)?.iter().fold(0, |sum, byte| sum << 8 | u16::from(*byte));
    (0..count)
        .map(|_| {
            let size = take(4)?.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
            match size {
                u32::MAX => Ok(None),
                _ => Ok(Some(String::from_utf8_lossy(take(size as usize)?).into_owned())),
            }
        })
        .collect()
}
