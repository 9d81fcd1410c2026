//! Clients of the library that applications use, and what they ask in most tests.

use postgres::error::DbError;
use postgres::{Client, NoTls, SimpleQueryMessage};

/// How to connect: who, to which database, with which startup options.
#[derive(Clone)]
pub struct Connection {
    port: u16,
    user: String,
    database: String,
    options: Vec<(String, String)>,
}

impl Connection {
    /// A connection to the database `postgres` behind this port, as this role.
    pub(crate) fn new(port: u16, user: &str) -> Self {
        Self { port, user: user.to_owned(), database: "postgres".to_owned(), options: Vec::new() }
    }

    /// The same as another role.
    pub fn user(mut self, user: &str) -> Self {
        self.user = user.to_owned();
        self
    }

    /// The same to another database.
    pub fn database(mut self, database: &str) -> Self {
        self.database = database.to_owned();
        self
    }

    /// The same with a setting in the startup packet's options.
    pub fn option(mut self, name: &str, value: &str) -> Self {
        self.options.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Connects.
    pub fn client(self) -> Client {
        self.try_client().unwrap_or_else(|error| panic!("cannot connect: {error:?}"))
    }

    /// Connects, or says why not.
    pub fn try_client(self) -> Result<Client, postgres::Error> {
        self.configuration().connect(NoTls)
    }

    /// The client library's configuration for this connection.
    pub fn configuration(&self) -> postgres::Config {
        let mut configuration = postgres::Config::new();
        configuration.host("127.0.0.1").port(self.port);
        configuration.user(&self.user).dbname(&self.database);
        if !self.options.is_empty() {
            configuration.options(&self.option_string());
        }
        configuration
    }

    /// The port on the loopback address.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The parameters of the startup packet.
    pub(crate) fn parameters(&self) -> Vec<(&str, String)> {
        let mut parameters = vec![("user", self.user.clone()), ("database", self.database.clone())];
        if !self.options.is_empty() {
            parameters.push(("options", self.option_string()));
        }
        parameters
    }

    /// The settings as Postgres' command line has them, which the startup packet carries.
    fn option_string(&self) -> String {
        let options = self.options.iter().map(|(name, value)| {
            // Within the option string, backslashes keep spaces and backslashes.
            let value = value.replace('\\', "\\\\").replace(' ', "\\ ");
            format!("-c {name}={value}")
        });
        options.collect::<Vec<String>>().join(" ")
    }
}

/// The SQLSTATE of an error from the server.
pub fn sqlstate<T>(outcome: Result<T, postgres::Error>) -> String {
    match outcome {
        Ok(_) => crate::SUCCESS.to_owned(),
        Err(error) => match error.code() {
            Some(code) => code.code().to_owned(),
            None => panic!("an error that is not the server's: {error:?}"),
        },
    }
}

/// Presents a token for the session; the SQLSTATE.
pub fn present(client: &mut Client, token: &str) -> String {
    sqlstate(client.execute("SELECT auth.jwt_session_init($1)", &[&token]))
}

/// Presents a token for the transaction; the SQLSTATE.
pub fn present_locally(client: &mut Client, token: &str) -> String {
    sqlstate(client.execute("SELECT auth.jwt_session_init($1, true)", &[&token]))
}

/// Who the session is.
pub fn user(client: &mut Client) -> Option<String> {
    text(client, "SELECT auth.user_id()")
}

/// Runs statements that must succeed.
pub fn run(client: &mut Client, sql: &str) {
    client.batch_execute(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

/// What one query of one row and one column returns; the type must be text.
pub fn text(client: &mut Client, query: &str) -> Option<String> {
    client.query_one(query, &[]).unwrap_or_else(|error| panic!("{query}: {error:?}")).get(0)
}

/// The server's error.
pub fn db_error<T>(outcome: Result<T, postgres::Error>) -> DbError {
    let error = outcome.err().expect("an error");
    error.as_db_error().unwrap_or_else(|| panic!("not the server's: {error:?}")).clone()
}

/// The process id of the session's backend.
pub fn backend_pid(client: &mut Client) -> i32 {
    client.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0)
}

/// What statements in one message of the simple protocol come to.
#[derive(Default)]
pub struct Reply {
    /// Their rows, one after the other.
    pub rows: Vec<Vec<Option<String>>>,
    /// How many rows the last one has returned or touched.
    pub touched: u64,
    /// Whether any returns rows.
    pub returns_rows: bool,
}

impl Reply {
    /// The rows, their columns joined by this; `-` for NULL.
    pub fn lines(&self, separator: &str) -> Vec<String> {
        let lines = self.rows.iter().map(|row| {
            let columns = row.iter().map(|value| value.as_deref().unwrap_or("-"));
            columns.collect::<Vec<_>>().join(separator)
        });
        lines.collect()
    }
}

/// Sends statements in one message of the simple protocol; the SQLSTATE where one fails.
pub fn send(client: &mut Client, sql: &str) -> Result<Reply, String> {
    let messages = match client.simple_query(sql) {
        Ok(messages) => messages,
        error => return Err(sqlstate(error)),
    };
    let mut reply = Reply::default();
    for message in messages {
        match message {
            SimpleQueryMessage::Row(row) => {
                let columns = (0..row.len()).map(|column| row.get(column).map(str::to_owned));
                reply.rows.push(columns.collect());
            }
            SimpleQueryMessage::RowDescription(_) => reply.returns_rows = true,
            SimpleQueryMessage::CommandComplete(count) => reply.touched = count,
            _ => {}
        }
    }
    Ok(reply)
}
