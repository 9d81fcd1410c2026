//! An identity: the claims of a verified token or of `request.jwt.claims`, and the Datums that readers
//! return for them. [`Identity`] has claims whose times are not judged; [`ValidIdentity`] has claims that
//! were valid when it was put in force.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use session_jwt::{ClaimPath, Claims, Code, Grant, Rejection, UnjudgedClaims, Words};

use crate::pg::backend::{self, Timestamp};
use crate::pg::datum::{
    self, Form, Unrepresentable, Value, Varlena, from_server_encoding, parse_uuid,
};
use crate::pg::function::Answer;
use crate::pg::token::timeline;
use crate::providers::{self, Trust};
use crate::revocations;

/// Calls a macro with the table of the readers without an argument. Each line has the name of the reader,
/// the symbol of the SQL function, and the function that finds the value. A new reader is one line here and
/// one in the install script.
macro_rules! readers {
    ($callback:ident) => {
        $callback! {
            UserId pg_session_jwt_user_id |claims, _| text(claims.user_id());
            Uid pg_session_jwt_uid |claims, _| Ok(uuid(claims.user_id()));
            Claims pg_session_jwt_session |_, _| Ok(Slot::Claims);
            Role pg_session_jwt_role |claims, _| text(claims.role());
            Email pg_session_jwt_email |claims, _| text(claims.email());
            Organization pg_session_jwt_organization |claims, jsonb| Ok(organization(claims, jsonb));
            OrganizationId pg_session_jwt_organization_id
                |claims, _| Ok(uuid(claims.organization_id()));
        }
    };
}
pub(crate) use readers;

macro_rules! define_readers {
    ($($reader:ident $symbol:ident $find:expr;)+) => {
        /// A reader without an argument.
        #[derive(Clone, Copy)]
        pub(crate) enum Reader {
            $($reader),+
        }

        impl Reader {
            pub(crate) const ALL: [Reader; [$(Reader::$reader),+].len()] = [$(Reader::$reader),+];

            /// The functions that find the values, in the order of the readers.
            const FINDERS: [Finder; Reader::ALL.len()] = [$($find),+];
        }
    };
}
readers!(define_readers);

/// Finds the value of a reader in claims, of which it gets the `jsonb` too.
type Finder = fn(&Claims, &Varlena) -> Result<Slot, Unrepresentable>;

/// The value of a reader.
enum Slot {
    /// The `jsonb` of the claims.
    Claims,
    Own(Option<Value>),
}

fn text(text: Option<&str>) -> Result<Slot, Unrepresentable> {
    let text = text.map(Varlena::text).transpose()?;
    Ok(Slot::Own(text.map(Value::Varlena)))
}

fn uuid(text: Option<&str>) -> Slot {
    Slot::Own(text.and_then(parse_uuid).map(Value::Uuid))
}

fn organization(claims: &Claims, jsonb: &Varlena) -> Slot {
    let path = [Claims::ORGANIZATION].into_iter();
    let found =
        claims.has_organization().then(|| datum::find(jsonb.reference(), path, Form::Jsonb));
    Slot::Own(found.flatten().map(|(_, copy)| Value::Varlena(copy)))
}

/// A reader with an argument.
#[derive(Clone, Copy)]
pub(crate) enum Lookup {
    /// `auth.claim(path)`, text
    Claim,
    /// `auth.claim_jsonb(path)`, jsonb
    ClaimJsonb,
    /// `auth.session_variable(name)`, text
    SessionVariable,
}

/// Claims, and the Datums that readers return for them. Datums refer to its values, so it is allocated once
/// and never moves, and it is kept until Postgres cannot refer to its values any more.
pub(crate) struct Identity {
    /// The place on the timeline. No other identity has the same.
    number: u64,
    claims: UnjudgedClaims,
    jsonb: Value,
    slots: [Slot; Reader::ALL.len()],
    found: RefCell<FoundValues>,
    /// The provider that the claims were verified for; None for `request.jwt.claims`.
    trust: Option<Trust>,
    /// The last epoch in which no revocation covered the token; 0 where none was looked up.
    unrevoked: Cell<u64>,
}

impl Identity {
    /// # Errors
    /// Where the database's encoding or `jsonb` cannot hold a claim.
    pub(crate) fn new(claims: UnjudgedClaims, trust: Option<Trust>) -> Result<Rc<Self>, Rejection> {
        let build = || -> Result<_, Unrepresentable> {
            let claims = claims.unjudged();
            let jsonb = Varlena::jsonb(claims.json())?;
            let mut slots = Reader::ALL.map(|_| Slot::Own(None));
            for (slot, find) in slots.iter_mut().zip(Reader::FINDERS) {
                *slot = find(claims, &jsonb)?;
            }
            Ok((Value::Varlena(jsonb), slots))
        };
        let (jsonb, slots) = build().map_err(|Unrepresentable| unrepresentable())?;
        let (number, found) = (timeline::next(), RefCell::default());
        let unrevoked = Cell::new(0);
        Ok(Rc::new(Self { number, claims, jsonb, slots, found, trust, unrevoked }))
    }

    /// The claims, where their times allow the presentation of the token at `now`, in seconds since 1970.
    pub(crate) fn judge_presentation(&self, now: i64) -> Result<&Claims, Rejection> {
        self.claims.judge_presentation(now)
    }

    /// The identity to put in force, where its claims are valid at `now`, in seconds since 1970.
    pub(crate) fn judge(self: Rc<Self>, now: i64) -> Result<ValidIdentity, Rejection> {
        self.claims.judge(now)?;
        Ok(ValidIdentity(self))
    }

    /// Rejects claims that are revoked in the given epoch of the revocations, at `now`, in seconds since 1970.
    pub(super) fn check_revocation(&self, epoch: u64, now: i64) -> Result<(), Rejection> {
        if self.unrevoked.get() >= epoch {
            return Ok(());
        }
        let current = revocations::epoch();
        revocations::check(self.claims(), now)?;
        self.unrevoked.set(current);
        Ok(())
    }

    /// Whether no revocation covered it in the current epoch of the revocations. Only then is the next revocation
    /// noticed.
    pub(super) fn is_unrevoked(&self) -> bool {
        self.unrevoked.get() >= revocations::epoch()
    }

    /// The place on the timeline.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The claims, whose times are not judged.
    pub(super) fn claims(&self) -> &Claims {
        self.claims.unjudged()
    }

    /// The value that a reader returns.
    fn value(&self, reader: Reader) -> Option<&Value> {
        match self.slots.get(reader as usize)? {
            Slot::Claims => Some(&self.jsonb),
            Slot::Own(value) => value.as_ref(),
        }
    }

    /// The value that a reader with an argument returns; the argument is in the database's encoding. Where
    /// `can_lend` is true and there is room, the identity keeps the value, and the answer points to it.
    /// Otherwise the value is in the current memory context.
    fn look_up(
        &self,
        lookup: Lookup,
        argument: &[u8],
        can_lend: bool,
    ) -> Result<Answer, Rejection> {
        let answer = |value, is_lasting| Answer { owner: self.number, value, is_lasting };
        if can_lend && let Some(value) = self.found.borrow_mut().by(lookup).get(argument) {
            return Ok(answer(value.as_ref().map(Varlena::reference), true));
        }
        let text = from_server_encoding(argument).ok_or_else(|| {
            Rejection::new(Code::Configuration, "name of a claim cannot be converted to UTF-8")
        })?;
        let (path, form) = match lookup {
            Lookup::Claim => (Some(ClaimPath::parse(&text)?), Form::Text),
            Lookup::ClaimJsonb => (Some(ClaimPath::parse(&text)?), Form::Jsonb),
            Lookup::SessionVariable => (self.claims.unjudged().session_variable(&text), Form::Text),
        };
        let found = path.and_then(|path| datum::find(self.jsonb.reference(), path.steps(), form));
        let (value, copy) = found.unzip();
        let mut found = self.found.borrow_mut();
        let size = argument.len() + copy.as_ref().map_or(0, Varlena::size) + FoundValues::OVERHEAD;
        if !can_lend || found.size + size > self.found_limit() {
            return Ok(answer(value, false));
        }
        found.size += size;
        let value = copy.as_ref().map(Varlena::reference);
        found.by(lookup).insert(argument.into(), copy);
        Ok(answer(value, true))
    }

    /// Whether the claims grant a word, which is in the database's encoding. Where there is room, the identity
    /// keeps the words of its kind.
    fn grants(&self, grant: Grant, word: &[u8]) -> bool {
        let Some(word) = from_server_encoding(word) else {
            return false;
        };
        let mut found = self.found.borrow_mut();
        if let Some(Some(words)) = found.words.get(grant as usize) {
            return words.has(&word);
        }
        let words = self.claims.unjudged().words(grant);
        let is_granted = words.has(&word);
        if found.size + words.size() <= self.found_limit()
            && let Some(place) = found.words.get_mut(grant as usize)
        {
            let size = words.size();
            *place = Some(words);
            found.size += size;
        }
        is_granted
    }

    /// The first moment at which the identity is not valid any more.
    pub(crate) fn expires_at(&self) -> Timestamp {
        let expires =
            self.claims.unjudged().valid_until().map_or(Timestamp::MAX, backend::from_unix);
        self.trust.as_ref().map_or(expires, |trust| expires.min(trust.ends()))
    }

    /// Whether its provider still has the keys with which the token was verified.
    pub(crate) fn is_current(&self) -> bool {
        self.trust.as_ref().is_none_or(|trust| providers::is_current(trust, self.issuer()))
    }

    /// Has other backends find the signature of the token, which is accepted, at `now`, in seconds since 1970.
    pub(super) fn share_signature(&self, now: i64) {
        if let Some(signature) = self.trust.as_ref().and_then(Trust::signature) {
            signature.share(|| self.claims().valid_until(), now);
        }
    }

    /// The memory that it takes at most, in bytes, roughly.
    pub(crate) fn size(&self) -> usize {
        let values = self.slots.iter().map(|slot| match slot {
            Slot::Own(Some(value)) => value.size(),
            _ => 0,
        });
        let claims = self.claims.unjudged().json().len() + self.jsonb.size();
        let permissions = self.claims.unjudged().permissions().size();
        1024 + claims + values.sum::<usize>() + permissions + self.found_limit()
    }

    /// The name of the provider.
    pub(super) fn provider(&self) -> &str {
        self.claims.unjudged().provider()
    }

    fn issuer(&self) -> Option<&str> {
        self.claims.unjudged().issuer()
    }

    /// The limit of the memory for the values that readers with an argument have found, in bytes.
    fn found_limit(&self) -> usize {
        512 + self.claims.unjudged().json().len()
    }
}

/// An identity whose claims were valid when it was put in force. Readers use it until it expires.
#[derive(Clone)]
pub(crate) struct ValidIdentity(Rc<Identity>);

impl ValidIdentity {
    pub(crate) fn number(&self) -> u64 {
        self.0.number
    }

    pub(crate) fn claims(&self) -> &Claims {
        self.0.claims.unjudged()
    }

    /// Rejects claims that are revoked in the given epoch of the revocations, at `now`, in seconds since 1970.
    pub(super) fn check_revocation(&self, epoch: u64, now: i64) -> Result<(), Rejection> {
        self.0.check_revocation(epoch, now)
    }

    /// Whether no revocation covered it in the current epoch of the revocations.
    pub(super) fn is_unrevoked(&self) -> bool {
        self.0.is_unrevoked()
    }

    /// The value that a reader returns.
    pub(crate) fn value(&self, reader: Reader) -> Option<&Value> {
        self.0.value(reader)
    }

    /// The value that a reader with an argument returns. `can_lend` permits a pointer to a value that the
    /// identity keeps.
    pub(crate) fn look_up(
        &self,
        lookup: Lookup,
        argument: &[u8],
        can_lend: bool,
    ) -> Result<Answer, Rejection> {
        self.0.look_up(lookup, argument, can_lend)
    }

    /// Whether the claims grant a word, which is in the database's encoding.
    pub(crate) fn grants(&self, grant: Grant, word: &[u8]) -> bool {
        self.0.grants(grant, word)
    }

    /// The first moment at which the identity is not valid any more.
    pub(crate) fn expires_at(&self) -> Timestamp {
        self.0.expires_at()
    }

    /// The memory that it takes at most, in bytes, roughly.
    pub(crate) fn size(&self) -> usize {
        self.0.size()
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

/// The values that readers with an argument have found, by the argument in the database's encoding.
#[derive(Default)]
struct FoundValues {
    claims: ValuesByArgument,
    claims_jsonb: ValuesByArgument,
    session_variables: ValuesByArgument,
    /// The words that the claims grant, by their kind.
    words: [Option<Words>; Grant::ALL.len()],
    /// The memory that they take, in bytes, roughly.
    size: usize,
}

type ValuesByArgument = HashMap<Box<[u8]>, Option<Varlena>>;

impl FoundValues {
    /// The memory of an entry beside its argument and its value, in bytes, roughly.
    const OVERHEAD: usize = 64;

    fn by(&mut self, lookup: Lookup) -> &mut ValuesByArgument {
        match lookup {
            Lookup::Claim => &mut self.claims,
            Lookup::ClaimJsonb => &mut self.claims_jsonb,
            Lookup::SessionVariable => &mut self.session_variables,
        }
    }
}

/// The error where the database's encoding or `jsonb` cannot hold a claim.
pub(crate) fn unrepresentable() -> Rejection {
    Rejection::new(Code::Claim, "claim cannot be converted to jsonb").with_detail(
        "The database's encoding lacks a character, or a value is not within the limits of jsonb.",
    )
}
