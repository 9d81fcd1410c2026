//! The identity in force, and the Datums that readers return as they are.

use std::cell::{Cell, RefCell};
use std::ffi::c_int;

use session_jwt::{Rejection, SignIn, Span};

use super::identity::{Lookup, Reader, ValidIdentity};
use crate::pg::backend::{self, BackendLocal, Timestamp};
use crate::pg::datum::{Reference, Value};
use crate::pg::function::Answer;
use crate::revocations;
use crate::settings::REQUEST_CLAIMS;

/// The owner of values where there is no identity. No identity has this number.
pub(crate) const NO_OWNER: u64 = 0;

/// No statement starts before this time.
const STALE: Timestamp = Timestamp::MIN;

/// The values that readers return without further checks. The values of a token are for statements that
/// start before `ready_until`. The values of `request.jwt.claims` are for statements that start before
/// `trusted_until`, as long as an assign hook reports changes of that GUC.
///
/// The start of a statement does not change while the executor runs. So it is compared once, where the outermost
/// run of the executor begins, and readers in the run look at `is_ready_in_run`. Other readers compare it
/// themselves: those in expressions of utility statements, in parameters, and in fast-path calls.
struct Ready {
    /// Whether an executor runs in a statement that started before `ready_until`.
    is_ready_in_run: Cell<bool>,
    run: Cell<Option<Run>>,
    /// Those of the run that was the last outermost one.
    last_revocations: Cell<u64>,
    ready_until: Cell<Timestamp>,
    trusted_until: Cell<Timestamp>,
    /// Counts the invalidations.
    invalidations: Cell<u64>,
    /// Whether the role of the token was confirmed after the last invalidation.
    is_role_confirmed: Cell<bool>,
    /// The number of the identity.
    owner: Cell<u64>,
    /// When the user signed in. It is judged at each read.
    sign_in: Cell<Option<SignIn>>,
    values: [Cell<Option<Reference>>; Reader::ALL.len()],
}

/// The outermost run of the executor.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Run {
    statement_start: Timestamp,
    /// The nest level of the subtransaction whose abort ends the run.
    level: c_int,
    /// The epoch of the revocations when the run began.
    revocations: u64,
}

static READY: BackendLocal<Ready> = BackendLocal::new(Ready {
    is_ready_in_run: Cell::new(false),
    run: Cell::new(None),
    last_revocations: Cell::new(0),
    ready_until: Cell::new(STALE),
    trusted_until: Cell::new(STALE),
    invalidations: Cell::new(0),
    is_role_confirmed: Cell::new(false),
    owner: Cell::new(NO_OWNER),
    sign_in: Cell::new(None),
    values: [const { Cell::new(None) }; _],
});

impl Ready {
    #[inline(always)]
    fn value(&self, reader: Reader) -> Option<Reference> {
        self.values.get(reader as usize).and_then(Cell::get)
    }
}

/// The identity in force, and those before it.
#[derive(Default)]
struct Current {
    identity: Option<ValidIdentity>,
    /// Whether readers return pointers to the values of the identity; otherwise they return copies.
    lends: bool,
    /// Earlier identities to whose values the transaction may still hold pointers.
    retired: Vec<ValidIdentity>,
    /// The memory that the retired identities take, in bytes.
    retired_size: usize,
}

static CURRENT: BackendLocal<RefCell<Option<Current>>> = BackendLocal::new(RefCell::new(None));

/// `body` calls no function of Postgres that can raise an error, so that the borrow ends with this
/// function.
fn with_current<T>(body: impl FnOnce(&mut Current) -> T) -> T {
    body(CURRENT.borrow_mut().get_or_insert_default())
}

/// Makes the next reader resolve the identity again, and the next statement confirm the role of the token. It
/// may run during a rollback and cannot fail.
pub(crate) fn invalidate() {
    READY.is_ready_in_run.set(false);
    READY.ready_until.set(STALE);
    READY.trusted_until.set(STALE);
    READY.is_role_confirmed.set(false);
    READY.invalidations.set(READY.invalidations.get() + 1);
}

/// The epoch of the revocations that an identity has to stand: the current one, or the one at the beginning of the
/// outermost run of the executor.
pub(crate) fn revocations_to_stand() -> u64 {
    let now = revocations::epoch();
    READY.run.get().filter(|_| is_in_run()).map_or(now, |run| run.revocations)
}

/// The number of invalidations.
pub(crate) fn invalidations() -> u64 {
    READY.invalidations.get()
}

/// Whether the values are ready for the current statement.
#[inline(always)]
pub(crate) fn is_ready() -> bool {
    READY.is_ready_in_run.get() || is_ready_by_time()
}

#[inline(always)]
fn is_ready_by_time() -> bool {
    let statement_start = backend::statement_start();
    statement_start < READY.ready_until.get() || is_trusted(statement_start)
}

#[cold]
#[inline(never)]
fn is_trusted(statement_start: Timestamp) -> bool {
    statement_start < READY.trusted_until.get() && REQUEST_CLAIMS.is_hooked()
}

/// The value of a reader; None where the values are not ready.
#[inline(always)]
pub(crate) fn ready(reader: Reader) -> Option<Option<Reference>> {
    is_ready().then(|| READY.value(reader))
}

/// The number of the identity; None where the values are not ready.
#[inline(always)]
pub(crate) fn owner() -> Option<u64> {
    is_ready().then(|| READY.owner.get())
}

/// Whether the user signed in within a span before the start of the statement; None where the values are not
/// ready.
#[inline(always)]
pub(crate) fn signed_in_within(span: Span) -> Option<bool> {
    is_ready().then(|| {
        let now = backend::to_unix_microseconds(backend::statement_start());
        READY.sign_in.get().is_some_and(|sign_in| sign_in.is_within(span, now))
    })
}

/// The identity in force, once it is resolved.
pub(crate) fn identity() -> Option<ValidIdentity> {
    with_current(|current| current.identity.clone())
}

/// The value of a reader, once the identity is resolved.
pub(crate) fn value(reader: Reader) -> Option<Reference> {
    let (identity, lends) =
        with_current(|current| current.identity.clone().map(|identity| (identity, current.lends)))?;
    let value = identity.value(reader)?;
    Some(if lends { value.reference() } else { Value::copied(value) })
}

/// The value of a reader with an argument, once the identity is resolved.
pub(crate) fn look_up(lookup: Lookup, argument: &[u8]) -> Result<Answer, Rejection> {
    match with_current(|current| current.identity.clone().map(|identity| (identity, current.lends)))
    {
        Some((identity, lends)) => identity.look_up(lookup, argument, lends),
        None => Ok(Answer { owner: NO_OWNER, value: None, is_lasting: true }),
    }
}

/// Puts an identity, or none, in force. Returns whether readers may return pointers to its values. Only
/// then may the caller make the values ready, by [`set_ready`] or [`set_trusted`].
pub(crate) fn install(identity: Option<ValidIdentity>) -> bool {
    for (reader, slot) in Reader::ALL.into_iter().zip(&READY.values) {
        let value = identity.as_ref().and_then(|identity| identity.value(reader));
        slot.set(value.map(Value::reference));
    }
    READY.owner.set(identity.as_ref().map_or(NO_OWNER, |identity| identity.number()));
    READY.sign_in.set(identity.as_ref().and_then(|identity| identity.claims().sign_in()));
    with_current(|current| {
        current.replace(identity);
        current.lends
    })
}

/// Makes the values ready for statements that start before `until`.
pub(crate) fn set_ready(until: Timestamp) {
    READY.ready_until.set(until);
    set_ready_in_run();
}

/// Makes the values ready for the rest of the run of the executor: a revocation may cover them by now, which binds the
/// next statement.
pub(crate) fn set_ready_for_run(until: Timestamp) {
    set_ready(until);
    READY.ready_until.set(STALE);
}

fn set_ready_in_run() {
    let run = READY.run.get();
    let is_ready = run.is_some_and(|run| run.statement_start < READY.ready_until.get());
    READY.is_ready_in_run.set(is_ready);
}

/// Whether the executor runs a plan of this statement.
pub(crate) fn is_in_run() -> bool {
    // Where a run of an earlier statement has failed unnoticed, it counts no more.
    READY.run.get().is_some_and(|run| run.statement_start == backend::statement_start())
}

/// Notes that the executor runs a plan. Returns whether it is the outermost run, which [`leave_run`] ends.
pub(crate) fn enter_run() -> bool {
    let is_nested = is_in_run();
    if !is_nested {
        READY.run.set(Some(Run {
            statement_start: backend::statement_start(),
            level: backend::nest_level(),
            revocations: revocations::epoch(),
        }));
        set_ready_in_run();
    }
    !is_nested
}

/// Notes that a run that has ended goes on, with triggers. Returns whether it is the outermost run.
pub(crate) fn reenter_run() -> bool {
    let revocations = READY.last_revocations.get();
    let is_outermost = enter_run();
    if is_outermost && let Some(run) = READY.run.get() {
        READY.run.set(Some(Run { revocations, ..run }));
    }
    is_outermost
}

/// Notes that no executor runs. It cannot fail.
pub(crate) fn leave_run() {
    if let Some(run) = READY.run.get() {
        READY.last_revocations.set(run.revocations);
    }
    READY.run.set(None);
    READY.is_ready_in_run.set(false);
}

/// Notes the abort of a subtransaction, which ends the runs in it. It cannot fail.
pub(crate) fn abort_subtransaction() {
    if READY.run.get().is_some_and(|run| run.level >= backend::nest_level()) {
        leave_run();
    }
}

/// Makes the values ready for statements that start before `until`, as long as `request.jwt.claims` has its
/// assign hook.
pub(crate) fn set_trusted(until: Timestamp) {
    READY.trusted_until.set(until);
}

/// Notes that the role of the token was confirmed, unless there are more invalidations than `known` by now:
/// Postgres accepts some while the catalogs are read.
pub(crate) fn set_role_confirmed(known: u64) {
    if invalidations() == known {
        READY.is_role_confirmed.set(true);
    }
}

/// Whether the values are ready, and the role of the token was confirmed for them. A reader that resolves the
/// identity again within a statement does not confirm the role.
#[inline(always)]
pub(crate) fn is_role_confirmed() -> bool {
    READY.is_role_confirmed.get() && is_ready()
}

/// Frees the retired identities at the end of a transaction, unless a procedure that has just committed may
/// hold their values. Where there is no identity, the next transaction resolves again. It cannot fail.
pub(crate) fn end_transaction() {
    leave_run();
    if let Ok(mut current) = CURRENT.try_borrow_mut()
        && let Some(current) = current.as_mut()
    {
        if !backend::within_portal() {
            current.retired.clear();
            current.retired_size = 0;
        }
        if current.identity.is_none() {
            invalidate();
        }
    }
}

impl Current {
    /// Replaces the identity. The transaction may hold pointers to the values of the earlier one, which is
    /// therefore kept until the transaction ends. Once such identities take too much memory, readers return
    /// copies, and an identity is freed when it is replaced.
    fn replace(&mut self, identity: Option<ValidIdentity>) {
        /// In bytes.
        const MOST_RETIRED: usize = 256 * 1024;
        let is_same = match (&self.identity, &identity) {
            (Some(current), Some(identity)) => current.is_same(identity),
            _ => false,
        };
        if !is_same {
            let before = std::mem::replace(&mut self.identity, identity);
            if let Some(before) = before.filter(|_| self.lends) {
                self.retired_size += before.size();
                self.retired.push(before);
            }
        }
        if !is_same || !self.lends {
            self.lends = self.retired_size <= MOST_RETIRED;
        }
    }
}
