//! The sessions that have an identity, for `auth.sessions`.
//!
//! Each backend has an entry, which only this backend writes. A reader compares the count of changes before and
//! after it reads, as readers of `pg_stat_activity` do, so that it sees no mixture of two identities.

use std::cell::Cell;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, Ordering, fence};
use std::time::Duration;

use session_jwt::Rejection;

use crate::pg::backend::{self, BackendLocal, Timestamp};
use crate::pg::function::Row;
use crate::pg::relation::{self, Oid};
use crate::pg::shmem::{Area, SharedText};
use crate::pg::{compat, role, worker};

/// A place for each process that can have an identity.
static ENTRIES: Area<Entry> = Area::new(c"pg_session_jwt sessions");

/// The entry of a backend.
#[derive(Default)]
#[repr(align(64))]
struct Entry {
    /// Counts the changes. It is odd while the backend writes.
    changes: AtomicU32,
    /// 0 while the session has no identity.
    pid: AtomicI32,
    database: AtomicU32,
    login_role: AtomicU32,
    role: AtomicU32,
    since: AtomicI64,
    expires: AtomicI64,
    user_id: SharedText,
    issuer: SharedText,
}

/// An identity as other sessions see it.
pub(crate) struct Shown<'c> {
    pub(crate) user_id: Option<&'c str>,
    pub(crate) issuer: Option<&'c str>,
    /// The role by token; invalid where the token names none.
    pub(crate) role: Oid,
    pub(crate) since: Timestamp,
    /// The maximum for an identity that does not expire.
    pub(crate) expires: Timestamp,
}

/// What the identity in the entry of this backend comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The numbers of the token's value and of its identity.
    Token { value: u64, identity: u64 },
    /// The number of the identity of `request.jwt.claims`.
    RequestClaims { identity: u64 },
}

/// What this backend knows of its entry.
struct Own {
    origin: Cell<Option<Origin>>,
    /// Whether the process ends. Another one may get its place.
    has_ended: Cell<bool>,
}

static OWN: BackendLocal<Own> =
    BackendLocal::new(Own { origin: Cell::new(None), has_ended: Cell::new(false) });

pub(super) fn request_memory() {
    ENTRIES.request(backend::most_backends());
}

pub(super) fn lay_out_memory() {
    ENTRIES.lay_out();
}

/// The origin of the identity that the entry shows; None where it shows none.
pub(crate) fn origin() -> Option<Origin> {
    OWN.origin.get()
}

/// Shows an identity. It cannot fail, and does nothing in a parallel worker, which has the identity of its leader.
pub(crate) fn show(origin: Origin, shown: &Shown<'_>) {
    if let Some(entry) = own_entry() {
        entry.change(|| {
            let oids = [
                (&entry.database, backend::database()),
                (&entry.login_role, role::login()),
                (&entry.role, shown.role),
            ];
            for (field, oid) in oids {
                field.store(oid.to_u32(), Ordering::Relaxed);
            }
            entry.since.store(shown.since, Ordering::Relaxed);
            entry.expires.store(shown.expires, Ordering::Relaxed);
            entry.user_id.write(shown.user_id);
            entry.issuer.write(shown.issuer);
            entry.pid.store(backend::pid(), Ordering::Relaxed);
        });
        OWN.origin.set(Some(origin));
    }
}

/// Shows that the session has no identity. It cannot fail.
pub(crate) fn clear() {
    if OWN.origin.take().is_some()
        && let Some(entry) = own_entry()
    {
        entry.change(|| entry.pid.store(0, Ordering::Relaxed));
    }
}

/// The same where the identity came from `request.jwt.claims`. It cannot fail.
pub(crate) fn clear_request_claims() {
    if matches!(origin(), Some(Origin::RequestClaims { .. })) {
        clear();
    }
}

/// Gives the entry up, before the process ends. It cannot fail.
pub(crate) fn end_process() {
    clear();
    OWN.has_ended.set(true);
}

fn own_entry() -> Option<&'static Entry> {
    if OWN.has_ended.get() || backend::is_parallel_worker() {
        return None;
    }
    ENTRIES.slots().get(compat::backend_slot()?)
}

impl Entry {
    /// Runs `write`, which changes the fields and cannot fail.
    fn change(&self, write: impl FnOnce()) {
        let before = self.changes.load(Ordering::Relaxed);
        self.changes.store(before.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        write();
        self.changes.store(before.wrapping_add(2), Ordering::Release);
    }

    /// Reads the fields, as soon as the backend does not write.
    fn read(&self) -> Fields {
        /// So many attempts are made without a pause.
        const ATTEMPTS: u32 = 1000;
        for attempt in 1.. {
            let before = self.changes.load(Ordering::Acquire);
            if before.is_multiple_of(2) {
                let fields = self.read_once();
                fence(Ordering::Acquire);
                if self.changes.load(Ordering::Relaxed) == before {
                    return fields;
                }
            }
            if attempt % ATTEMPTS == 0 {
                // The system has stopped the backend while it writes. A cancellation ends the wait.
                worker::sleep(Duration::from_millis(1));
            } else {
                std::hint::spin_loop();
            }
        }
        self.read_once()
    }

    fn read_once(&self) -> Fields {
        let oid = |field: &AtomicU32| Oid::from(field.load(Ordering::Relaxed));
        Fields {
            pid: self.pid.load(Ordering::Relaxed),
            database: oid(&self.database),
            login_role: oid(&self.login_role),
            role: oid(&self.role),
            since: self.since.load(Ordering::Relaxed),
            expires: self.expires.load(Ordering::Relaxed),
            user_id: self.user_id.read(),
            issuer: self.issuer.read(),
        }
    }
}

/// The fields of an entry at one time.
struct Fields {
    pid: i32,
    database: Oid,
    login_role: Oid,
    role: Oid,
    since: Timestamp,
    expires: Timestamp,
    user_id: Option<String>,
    issuer: Option<String>,
}

/// The rows of `auth.sessions`.
pub(crate) fn rows() -> Result<Vec<Row>, Rejection> {
    let entries = ENTRIES.required()?;
    let is_used = |entry: &&Entry| entry.pid.load(Ordering::Relaxed) != 0;
    let fields = entries.iter().filter(is_used).map(Entry::read).filter(|fields| fields.pid != 0);
    Ok(fields.map(Fields::row).collect())
}

impl Fields {
    /// pid, database, login_role, user_id, issuer, role, since, expires
    fn row(self) -> Row {
        vec![
            Some(self.pid.to_string()),
            relation::database_name(self.database),
            role::display_name(self.login_role),
            self.user_id,
            self.issuer,
            role::display_name(self.role),
            Some(backend::format_time(self.since)),
            (self.expires != Timestamp::MAX).then(|| backend::format_time(self.expires)),
        ]
    }
}
