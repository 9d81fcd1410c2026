//! PgBouncer in front of a cluster.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::cluster::{as_owner, tail};
use crate::{Cluster, Connection, free_port, wait_for};

/// A running PgBouncer in front of a cluster. Dropping it stops it.
pub struct Pooler<'c> {
    cluster: &'c Cluster,
    process: Mutex<Child>,
    port: u16,
}

impl Cluster {
    /// Starts PgBouncer in front of the cluster, in this `pool_mode` and with these settings, for
    /// the role `app`.
    pub fn pooler(&self, pool_mode: &str, settings: &[(&str, &str)]) -> Pooler<'_> {
        let port = free_port();
        let (home, name) = (self.home(), format!("pgbouncer.{port}"));
        let mut configuration = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = trust\nauth_file = {name}.users\npool_mode = {pool_mode}\n\
             pidfile = {name}.pid\n",
            self.port()
        );
        for (name, value) in settings {
            configuration.push_str(&format!("{name} = {value}\n"));
        }
        fs::write(home.join(format!("{name}.ini")), configuration).unwrap();
        fs::write(home.join(format!("{name}.users")), "\"app\" \"\"\n").unwrap();
        let process = Mutex::new(pgbouncer(&home, port));
        let pooler = Pooler { cluster: self, process, port };
        wait_for("PgBouncer to answer", || pooler.as_role("app").try_client().is_ok());
        pooler
    }
}

impl Pooler<'_> {
    /// A connection through the pooler, to the database `postgres`.
    pub fn as_role(&self, user: &str) -> Connection {
        Connection::new(self.port, user)
    }

    /// The port on the loopback address.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Starts PgBouncer again if it has died, as a service manager would; whether it had. 1.18.0,
    /// which Debian 12 has, exits now and then when it is to cancel a statement
    /// (<https://github.com/pgbouncer/pgbouncer/issues/822>).
    pub fn revive(&self) -> bool {
        let mut process = self.process.lock().unwrap();
        let died = process.try_wait().is_ok_and(|status| status.is_some());
        if died {
            let _ = fs::remove_file(self.file("pid"));
            *process = pgbouncer(&self.cluster.home(), self.port);
        }
        died
    }

    fn file(&self, ending: &str) -> PathBuf {
        self.cluster.home().join(format!("pgbouncer.{}.{ending}", self.port))
    }
}

impl Drop for Pooler<'_> {
    fn drop(&mut self) {
        let process = self.process.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = process.kill();
        let ended = process.wait();
        // Lest the cluster's guard kills another process that has got the number by then.
        let _ = fs::remove_file(self.file("pid"));
        if std::thread::panicking() {
            let log = fs::read(self.file("log")).unwrap_or_default();
            let log = tail(&String::from_utf8_lossy(&log));
            eprintln!("--- the end of PgBouncer's log; it ended with {ended:?} ---\n{log}");
        }
    }
}

/// Runs the PgBouncer that is configured for that port.
fn pgbouncer(home: &Path, port: u16) -> Child {
    let log = home.join(format!("pgbouncer.{port}.log"));
    let log = fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
    as_owner(Path::new("pgbouncer"), home)
        .arg(format!("pgbouncer.{port}.ini"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run pgbouncer: {error}"))
}
