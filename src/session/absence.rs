//! Why a session has no identity: the last event on this connection that has ended one, or has kept one from
//! beginning.

use std::cell::{Cell, RefCell};

use session_jwt::{Rejection, in_words};

use crate::pg::backend::{self, BackendLocal, Timestamp, seconds};

/// The last event after which the session had no identity.
#[derive(Clone, Copy)]
enum Event {
    Cleared,
    EndedWithTransaction,
    Rejected,
}

static LAST: BackendLocal<Cell<Option<(Event, Timestamp)>>> = BackendLocal::new(Cell::new(None));

/// The code and the message of the last rejection. Its detail is not kept: a pooler may have assigned the
/// connection to another client since.
static REJECTION: BackendLocal<RefCell<String>> = BackendLocal::new(RefCell::new(String::new()));

fn note(event: Event) {
    LAST.set(Some((event, backend::now())));
}

/// Notes that the client has cleared the token, or presented an empty one. It cannot fail.
pub(crate) fn note_cleared() {
    note(Event::Cleared);
}

/// Notes a reset of all settings, after which an earlier event does not count. It cannot fail.
pub(super) fn note_reset() {
    if LAST.get().is_some() {
        note(Event::Cleared);
    }
}

/// Notes that a token has ended with its transaction or savepoint. It cannot fail.
pub(crate) fn note_transaction_end() {
    note(Event::EndedWithTransaction);
}

/// Notes that a token was rejected.
pub(super) fn note_rejected(rejection: &Rejection) {
    REJECTION.replace(format!("{}, {}", rejection.code().sqlstate(), rejection.message()));
    note(Event::Rejected);
}

/// The reason, in sentences, why a session without a token has no identity.
pub(super) fn reason() -> String {
    let Some((event, at)) = LAST.get() else {
        return "No token has been presented on this connection.".to_owned();
    };
    let ago = in_words((backend::now() - at) / seconds(1));
    match event {
        Event::Cleared => format!(
            "The token was cleared {ago} ago: the client presented NULL or an empty text, or reset the \
             setting."
        ),
        Event::EndedWithTransaction => format!(
            "The last token ended with its transaction or savepoint {ago} ago. Present a token after \
             BEGIN, in each transaction."
        ),
        Event::Rejected => {
            format!("The last token was rejected {ago} ago: {}.", REJECTION.borrow())
        }
    }
}
