//! The lifetime of identities: the end of transactions, `pg_session_jwt.identity_scope`, and the warning
//! about tokens that end unused.

use std::cell::Cell;

use super::{absence, current, request_claims};
use crate::audit;
use crate::pg::backend::{self, BackendLocal};
use crate::pg::error;
use crate::pg::guc_record::{is_set_in_transaction, is_set_locally};
use crate::pg::token::{Standing, timeline};
use crate::roles::token_role;
use crate::settings::{IDENTITY_SCOPE, JWT, JWT_NAME, TRANSACTION_SCOPE};
use crate::statistics::sessions;

/// Ends the identity of the session before `DISCARD ALL` or `RESET ALL`. Where the statement is canceled,
/// Postgres restores the values that it had reset, and PgBouncer gives the connection to the next client all
/// the same. Values of the startup packet stay, as they do without a cancellation. Within a transaction block,
/// the end of the block decides.
pub(crate) fn discard() {
    if backend::in_transaction_block() {
        return;
    }
    if JWT.discard(JWT_NAME) {
        token_role::set(None);
        sessions::clear();
        absence::note_cleared();
        audit::log_cleared();
    }
    absence::note_reset();
    request_claims::discard();
    current::invalidate();
}

/// Applies `identity_scope` to tokens and claims from before the library was loaded. The value that the
/// current transaction has set belongs to this transaction; the values beneath it on the stack belong to
/// earlier ones.
pub(crate) fn start() {
    let ended = if is_set_in_transaction(JWT_NAME) {
        JWT.number().saturating_sub(1)
    } else {
        timeline::last()
    };
    timeline::set_ended(ended);
    scope_changed(IDENTITY_SCOPE.get());
}

/// Applies a new scope.
pub(crate) fn scope_changed(scope: i32) {
    if ends_with_transaction(scope) {
        end_identities(backend::in_transaction());
    }
}

/// Whether the token in force outlives its transaction.
pub(super) fn is_session_wide() -> bool {
    !is_set_locally(JWT_NAME) && !ends_with_transaction(IDENTITY_SCOPE.get())
}

fn ends_with_transaction(scope: i32) -> bool {
    scope == TRANSACTION_SCOPE || IDENTITY_SCOPE.is_lost()
}

/// Ends the identities of transactions that have ended. The values of `request.jwt.claims` have no number,
/// so that their transactions are unknown: all of them end, or with `keep_current`, those that the current
/// transaction has not set. It cannot fail.
fn end_identities(keep_current: bool) {
    // Postgres gives a parallel worker the tokens and claims of its leader.
    if backend::is_parallel_worker() {
        return;
    }
    let ended = timeline::ended();
    if JWT.is_set() && JWT.standing() == Standing::Pending && JWT.number() <= ended {
        ENDED_UNUSED.set(true);
    }
    if JWT.is_set() && JWT.number() <= ended {
        absence::note_transaction_end();
    }
    void_below(ended + 1);
    request_claims::wipe(keep_current);
    current::invalidate();
}

/// Voids every identity that the session has had. It cannot fail.
pub(crate) fn void_identities() {
    void_below(timeline::last());
    request_claims::wipe(false);
    current::invalidate();
}

/// Voids the tokens whose values have a smaller number. It cannot fail.
fn void_below(number: u64) {
    if JWT.void_below(number) {
        token_role::set(None);
        sessions::clear();
    }
}

/// Whether a token has ended before its first use. With the scope `transaction`, a token in the startup
/// packet does.
static ENDED_UNUSED: BackendLocal<Cell<bool>> = BackendLocal::new(Cell::new(false));

/// Warns of a token that has ended before its first use.
pub(super) fn warn_of_ended_token() {
    if ENDED_UNUSED.take() {
        error::warn(
            "the token in the startup packet is not used",
            "pg_session_jwt.identity_scope is transaction: present a token in each transaction.",
        );
    }
}

/// Whether a token was presented outside of a transaction block, and neither a statement nor a reader has
/// followed in its transaction.
static IS_UNUSED: BackendLocal<Cell<bool>> = BackendLocal::new(Cell::new(false));

/// Notes that a token was presented.
pub(super) fn note_presentation() {
    IS_UNUSED.set(!backend::in_transaction_block());
}

/// Notes a statement or a reader, which may use the token. Returns whether it is the first one.
pub(crate) fn note_use() -> bool {
    IS_UNUSED.replace(false)
}

/// Warns of a token that ends with the transaction in which it was presented, where that transaction is no
/// block. The transaction callback calls it before a commit, where neither a statement nor a reader has
/// followed the token.
pub(crate) fn warn_of_unused_token() {
    if !JWT.is_set() {
        return;
    }
    if is_set_locally(JWT_NAME) {
        error::warn_of_no_block(
            "token for the transaction is presented outside of a transaction block",
            "Present it after BEGIN, or send it in one pipeline with the statements that need it. \
             To present a token for the session, omit is_local.",
        );
    } else if ends_with_transaction(IDENTITY_SCOPE.get()) && is_set_in_transaction(JWT_NAME) {
        error::warn_of_no_block(
            "token is presented outside of a transaction block, and ends with its transaction",
            "pg_session_jwt.identity_scope is transaction: present the token after BEGIN, or send \
             it in one pipeline with the statements that need it.",
        );
    }
}

/// Ends identities at the end of a transaction, when the GUCs still have the values of the transaction. It
/// cannot fail.
pub(crate) fn end_transaction() {
    timeline::set_ended(timeline::last());
    note_use();
    if ends_with_transaction(IDENTITY_SCOPE.get()) {
        end_identities(false);
    }
}
