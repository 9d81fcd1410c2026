//! Who the session is: from the token setting to values that readers return as they are.
//!
//! The setting is the one place where the token lives, so Postgres' own rules decide about scope,
//! rollback and parallel workers. Its assign hook marks what is here as stale; the next read
//! resolves it: through the tokens verified before, else by verifying anew. What has been resolved
//! stays until the setting, the keys or the clock say otherwise.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;

use session_jwt::{Action, ClaimPath, Claims, Code, MAX_TOKEN_BYTES, Rejection};

use crate::audit;
use crate::cache::TokenCache;
use crate::pg::datum::{
    self, Form, Reference, Unrepresentable, Varlena, from_server_encoding, parse_uuid,
};
use crate::pg::function::{Answer, Permit};
use crate::pg::guc::{self, ForeignAssignHook, ForeignVariable, Passed, Source, Standing};
use crate::pg::plan::{self, TokenNumber};
use crate::pg::relation::{self, Name, Oid};
use crate::pg::role::{self, Role};
use crate::pg::statement::{self, Kind};
use crate::pg::{self, BackendLocal, Timestamp, error, secrets};
use crate::providers::{self, Trust};
use crate::settings::{
    self, IDENTITY_SCOPE, JWT, JWT_NAME, TOKEN_CACHE_SIZE, TRANSACTION_SCOPE, TRUST_REQUEST_CLAIMS,
};

/// The values that readers return.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value {
    /// `auth.user_id()`, text
    UserId,
    /// `auth.uid()`, uuid
    Uid,
    /// `auth.session()`, jsonb
    Claims,
    /// `auth.role()`, text
    Role,
    /// `auth.email()`, text
    Email,
    /// `auth.organization()`, jsonb
    Organization,
    /// `auth.organization_id()`, uuid
    OrganizationId,
}

impl Value {
    const ALL: [Value; 7] = [
        Value::UserId,
        Value::Uid,
        Value::Claims,
        Value::Role,
        Value::Email,
        Value::Organization,
        Value::OrganizationId,
    ];

    /// A copy in the current memory context.
    fn copied(self, reference: Reference) -> Reference {
        match self {
            Value::Uid | Value::OrganizationId => reference.copied_uuid(),
            _ => reference.copied_varlena(),
        }
    }
}

/// How readers with an argument read it, and what they return.
#[derive(Clone, Copy)]
pub(crate) enum Reading {
    /// `auth.claim(path)`, text
    Claim,
    /// `auth.claim_jsonb(path)`, jsonb
    ClaimJsonb,
    /// `auth.session_variable(name)`, text
    SessionVariable,
}

/// Someone whose claims are believed, with the values that readers return. It never moves and is
/// kept until nothing that Postgres does can still refer to its values.
struct Identity {
    /// No other identity has it or has had it.
    number: u64,
    claims: Claims,
    user_id: Option<Varlena>,
    uid: Option<[u8; 16]>,
    jsonb: Varlena,
    role: Option<Varlena>,
    email: Option<Varlena>,
    organization: Option<Varlena>,
    organization_id: Option<[u8; 16]>,
    found: RefCell<Found>,
    /// None where nobody was asked to verify the claims.
    trust: Option<Trust>,
}

/// What readers with an argument have found in an identity's claims, by the argument in the
/// database's encoding. All together it takes hardly more memory than the claims themselves.
#[derive(Default)]
struct Found {
    claims: FoundBy,
    claims_jsonb: FoundBy,
    session_variables: FoundBy,
    size: usize,
}

type FoundBy = HashMap<Box<[u8]>, Option<Varlena>>;

impl Found {
    fn by(&mut self, reading: Reading) -> &mut FoundBy {
        match reading {
            Reading::Claim => &mut self.claims,
            Reading::ClaimJsonb => &mut self.claims_jsonb,
            Reading::SessionVariable => &mut self.session_variables,
        }
    }

    /// What an entry takes beside path and value, roughly, in bytes.
    const OVERHEAD: usize = 64;
}

/// The number of nobody.
const NOBODY: u64 = 0;

/// The number that was given last.
static LAST_NUMBER: BackendLocal<Cell<u64>> = BackendLocal::new(Cell::new(NOBODY));

impl Identity {
    fn new(claims: Claims, trust: Option<Trust>) -> Result<Rc<Self>, Rejection> {
        let text = |value: Option<&str>| value.map(Varlena::text).transpose();
        let build = || -> Result<_, Unrepresentable> {
            Ok((
                text(claims.user_id())?,
                Varlena::jsonb(claims.json())?,
                text(claims.role())?,
                text(claims.email())?,
            ))
        };
        let (user_id, jsonb, role, email) = build().map_err(|Unrepresentable| unrepresentable())?;
        let uid = claims.user_id().and_then(parse_uuid);
        let organization_id = claims.organization_id().and_then(parse_uuid);
        let organization = claims.has_organization().then(|| {
            datum::find(jsonb.reference(), [Claims::ORGANIZATION].into_iter(), Form::Jsonb)
        });
        let organization = organization.flatten().map(|(_, copy)| copy);
        let number = LAST_NUMBER.get() + 1;
        LAST_NUMBER.set(number);
        let found = RefCell::default();
        Ok(Rc::new(Self {
            number,
            claims,
            user_id,
            uid,
            jsonb,
            role,
            email,
            organization,
            organization_id,
            found,
            trust,
        }))
    }

    /// The most memory that what readers with an argument have found may take, in bytes.
    fn most_found(&self) -> usize {
        512 + self.claims.json().len()
    }

    /// The memory that it takes at most, roughly, in bytes.
    fn size(&self) -> usize {
        let organization = self.organization.as_ref().map_or(0, Varlena::size);
        let permissions = self.claims.permissions().size();
        let claims = self.claims.json().len() + self.jsonb.size();
        1024 + claims + organization + permissions + self.most_found()
    }

    fn value(&self, value: Value) -> Option<Reference> {
        match value {
            Value::UserId => self.user_id.as_ref().map(Varlena::reference),
            Value::Uid => self.uid.as_ref().map(Reference::to),
            Value::Claims => Some(self.jsonb.reference()),
            Value::Role => self.role.as_ref().map(Varlena::reference),
            Value::Email => self.email.as_ref().map(Varlena::reference),
            Value::Organization => self.organization.as_ref().map(Varlena::reference),
            Value::OrganizationId => self.organization_id.as_ref().map(Reference::to),
        }
    }

    /// What a reader with an argument returns. It lasts as the other values do where those are lent
    /// and there is room to remember it, and else belongs to the current memory context.
    fn read(&self, reading: Reading, argument: &[u8], lends: bool) -> Result<Answer, Rejection> {
        let answer = |value, lasting| Answer { owner: self.number, value, lasting };
        if lends && let Some(value) = self.found.borrow_mut().by(reading).get(argument) {
            return Ok(answer(value.as_ref().map(Varlena::reference), true));
        }
        let text = from_server_encoding(argument).ok_or_else(|| {
            Rejection::new(Code::Configuration, "name of a claim cannot be converted to UTF-8")
        })?;
        let (path, form) = match reading {
            Reading::Claim => (Some(ClaimPath::parse(&text)?), Form::Text),
            Reading::ClaimJsonb => (Some(ClaimPath::parse(&text)?), Form::Jsonb),
            Reading::SessionVariable => (self.claims.session_variable(&text), Form::Text),
        };
        let found = path.and_then(|path| datum::find(self.jsonb.reference(), path.steps(), form));
        let (value, copy) = found.unzip();
        let mut found = self.found.borrow_mut();
        let size = argument.len() + copy.as_ref().map_or(0, Varlena::size) + Found::OVERHEAD;
        if !lends || found.size + size > self.most_found() {
            return Ok(answer(value, false));
        }
        found.size += size;
        let value = copy.as_ref().map(Varlena::reference);
        found.by(reading).insert(argument.into(), copy);
        Ok(answer(value, true))
    }

    /// The first moment at which it is no longer valid.
    fn expires_at(&self) -> Timestamp {
        let expires = self.claims.valid_until().map_or(Timestamp::MAX, pg::from_unix);
        self.trust.as_ref().map_or(expires, |trust| expires.min(trust.ends()))
    }

    /// Whether its provider would vouch for it now, with the same keys.
    fn is_current(&self) -> bool {
        self.trust.as_ref().is_none_or(|trust| providers::is_current(trust, self.claims.issuer()))
    }
}

/// What readers look at: valid for statements that begin before `ready_until`, and before
/// `believed_until` for as long as changes of `request.jwt.claims` are told of.
struct Ready {
    ready_until: Cell<Timestamp>,
    believed_until: Cell<Timestamp>,
    /// The number of the identity.
    owner: Cell<u64>,
    user_id: Cell<Option<Reference>>,
    uid: Cell<Option<Reference>>,
    claims: Cell<Option<Reference>>,
    role: Cell<Option<Reference>>,
    email: Cell<Option<Reference>>,
    organization: Cell<Option<Reference>>,
    organization_id: Cell<Option<Reference>>,
}

impl Ready {
    #[inline(always)]
    const fn slot(&self, value: Value) -> &Cell<Option<Reference>> {
        match value {
            Value::UserId => &self.user_id,
            Value::Uid => &self.uid,
            Value::Claims => &self.claims,
            Value::Role => &self.role,
            Value::Email => &self.email,
            Value::Organization => &self.organization,
            Value::OrganizationId => &self.organization_id,
        }
    }
}

/// No statement begins before this, so nothing is ready.
const STALE: Timestamp = Timestamp::MIN;

static READY: BackendLocal<Ready> = BackendLocal::new(Ready {
    ready_until: Cell::new(STALE),
    believed_until: Cell::new(STALE),
    owner: Cell::new(NOBODY),
    user_id: Cell::new(None),
    uid: Cell::new(None),
    claims: Cell::new(None),
    role: Cell::new(None),
    email: Cell::new(None),
    organization: Cell::new(None),
    organization_id: Cell::new(None),
});

/// The slow half of the state. No borrow of it is held across a call into Postgres.
#[derive(Default)]
struct State {
    current: Option<Rc<Identity>>,
    /// Whether readers return pointers to the values of the current identity, instead of copies.
    lends: bool,
    /// Earlier identities to whose values the running transaction may still hold pointers.
    retired: Vec<Rc<Identity>>,
    /// The memory that they take, in bytes.
    retired_size: usize,
    /// Whose each value of the token setting is, by its number, so that a value that comes back
    /// into force is not verified again. The numbers rise; some are of values that are gone.
    presented: Vec<(u64, Rc<Identity>)>,
    /// How many there may be before those of values that are gone are dropped.
    presented_limit: usize,
    /// Tokens verified before.
    cache: TokenCache<Identity>,
    /// Numbers tokens.
    hasher: RandomState,
    /// The last `request.jwt.claims` that was read, and what it said.
    trusted: Option<(Box<[u8]>, Rc<Identity>)>,
    /// The last `jti` that each provider with `monotonic_jti` has presented here.
    last_jti: HashMap<String, i64>,
    warned_of_request_claims: bool,
    /// Why the value of the token setting with that number was rejected when it was first used.
    rejected: Option<(u64, Rejection)>,
}

static STATE: BackendLocal<RefCell<Option<State>>> = BackendLocal::new(RefCell::new(None));

/// What PostgREST and its like set for each request.
static REQUEST_CLAIMS: ForeignVariable = ForeignVariable::new(c"request.jwt.claims");
const CLAIMS_CHANGED: ForeignAssignHook = guc::foreign_assign_hook!(forget);

/// Counts the values given to the token setting.
static GENERATION: BackendLocal<Cell<u64>> = BackendLocal::new(Cell::new(0));
/// The count when the last transaction ended.
static ENDED: BackendLocal<Cell<u64>> = BackendLocal::new(Cell::new(0));
/// Whether a token was taken away that nobody had looked at, as that of the startup packet is
/// where identities end with their transaction.
static UNUSED: BackendLocal<Cell<bool>> = BackendLocal::new(Cell::new(false));
/// Whether `request.jwt.claims` have been believed at any time in this session.
static TRUSTED: BackendLocal<Cell<bool>> = BackendLocal::new(Cell::new(false));

fn with_state<T>(body: impl FnOnce(&mut State) -> T) -> T {
    body(STATE.borrow_mut().get_or_insert_default())
}

/// Runs the registration of settings. Tokens that come up in it, set before the library was
/// there, are verified at their first use.
pub(crate) fn while_loading(register: impl FnOnce()) {
    let _loading = settings::Loading::begin();
    register();
    // The value that was set in the transaction that loads the library belongs to it, but not what
    // lies beneath.
    let current = u64::from(guc::is_set_in_transaction(JWT_NAME));
    ENDED.set(GENERATION.get().saturating_sub(current));
    scope_changed(IDENTITY_SCOPE.get());
}

/// Does something at the end of a block, however it ends.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Marks what readers look at as stale. It may run during a rollback and cannot fail.
pub(crate) fn forget() {
    READY.ready_until.set(STALE);
    READY.believed_until.set(STALE);
}

/// The assign hook of the token setting. Rollbacks and ends of transactions are not told of: then
/// nothing is left but to mark things as stale.
pub(crate) fn token_changed(cleared: bool) {
    forget();
    if cleared && pg::in_transaction() && !pg::restoring_worker() {
        audit::cleared();
    }
}

/// The assign hook of the setting that says how long identities last, told the new value.
pub(crate) fn scope_changed(scope: i32) {
    if ends_with_transaction(scope) {
        end_identities(pg::in_transaction());
    }
}

/// The assign hook of the setting that says whether claims are believed, told the new value.
pub(crate) fn trust_changed(trust: bool) {
    forget();
    if trust {
        TRUSTED.set(true);
        scope_changed(IDENTITY_SCOPE.get());
    }
}

fn ends_with_transaction(scope: i32) -> bool {
    scope == TRANSACTION_SCOPE || IDENTITY_SCOPE.is_lost()
}

/// Takes away the tokens that were presented before the end of the last transaction, and claims:
/// all, or those of `earlier_only`. It cannot fail.
fn end_identities(earlier_only: bool) {
    // A worker has what its leader has.
    if pg::is_parallel_worker() {
        return;
    }
    let ended = ENDED.get();
    let unused = JWT.with(|token| !token.is_empty()) && JWT.standing() == Standing::Pending;
    if unused && JWT.generation() <= ended {
        UNUSED.set(true);
    }
    JWT.revoke_below(ended + 1);
    if TRUSTED.get() {
        REQUEST_CLAIMS.wipe(earlier_only);
    }
    forget();
}

/// Warns of a token that ends with the transaction in which it was presented, where that transaction is no
/// block and nothing has come after the token. It is called before the commit.
pub(crate) fn warn_of_unused_token() {
    if !statement::note_use() || JWT.with(|token| token.is_empty()) {
        return;
    }
    if guc::is_set_locally(JWT_NAME) {
        error::warn_of_no_block(
            "token for the transaction is presented outside of a transaction block",
            "Present it after BEGIN, or send it in one pipeline with the statements that need it. \
             To present a token for the session, omit is_local.",
        );
    } else if ends_with_transaction(IDENTITY_SCOPE.get()) && guc::is_set_in_transaction(JWT_NAME) {
        error::warn_of_no_block(
            "token is presented outside of a transaction block, and ends with its transaction",
            "pg_session_jwt.identity_scope is transaction: present the token after BEGIN, or send \
             it in one pipeline with the statements that need it.",
        );
    }
}

/// A transaction has ended, but settings are still as they were within it. What it could refer to
/// may go, unless a procedure that has just committed still holds values. Without a token, the
/// next transaction looks around anew.
pub(crate) fn end_transaction() {
    ENDED.set(GENERATION.get());
    statement::note_use();
    if ends_with_transaction(IDENTITY_SCOPE.get()) {
        end_identities(false);
    }
    role::end_transaction();
    plan::end_transaction();
    if let Ok(mut state) = STATE.try_borrow_mut()
        && let Some(state) = state.as_mut()
    {
        if !pg::within_portal() {
            state.retired.clear();
            state.retired_size = 0;
        }
        if state.current.is_none() {
            forget();
        }
    }
}

#[inline(always)]
fn is_ready() -> bool {
    let statement_start = pg::statement_start();
    statement_start < READY.ready_until.get() || is_believed(statement_start)
}

/// Whether believed claims are ready. It cannot fail.
#[cold]
#[inline(never)]
fn is_believed(statement_start: Timestamp) -> bool {
    statement_start < READY.believed_until.get() && REQUEST_CLAIMS.is_watched(CLAIMS_CHANGED)
}

/// A reader's value, where it is known without further ado.
#[inline(always)]
pub(crate) fn ready(value: Value) -> Option<Option<Reference>> {
    is_ready().then(|| READY.slot(value).get())
}

/// The number of the session's identity, where it is known without further ado.
#[inline(always)]
pub(crate) fn owner() -> Option<u64> {
    is_ready().then(|| READY.owner.get())
}

/// What a reader with an argument, which is in the database's encoding, returns.
pub(crate) fn read(reading: Reading, argument: &[u8]) -> Result<Answer, Rejection> {
    if !is_ready() {
        resolve()?;
    }
    match with_state(|state| state.current.clone().map(|identity| (identity, state.lends))) {
        Some((identity, lends)) => identity.read(reading, argument, lends),
        None => Ok(Answer { owner: NOBODY, value: None, lasting: true }),
    }
}

/// A reader's value, found out.
pub(crate) fn resolved(value: Value) -> Result<Option<Reference>, Rejection> {
    resolve()?;
    let Some((identity, lends)) =
        with_state(|state| state.current.clone().map(|identity| (identity, state.lends)))
    else {
        return Ok(None);
    };
    let reference = identity.value(value);
    Ok(if lends { reference } else { reference.map(|reference| value.copied(reference)) })
}

/// The check hook of the token setting. Within a transaction a token is verified at once, and a
/// refused one takes every identity with it that the session had; elsewhere, it is verified at
/// its first use.
pub(crate) fn present(token: &[u8], source: Source) -> Result<Passed, Rejection> {
    let generation = GENERATION.get() + 1;
    GENERATION.set(generation);
    let number = token_number(token);
    let passed = |mark| Passed { generation, token: number, mark, role: None };
    if token.is_empty() {
        return Ok(passed(None));
    }
    match source {
        // What the leader has put before the token is there already.
        Source::Worker => Ok(passed(None)),
        Source::Startup => Ok(passed(Some(Standing::Pending))),
        Source::Stored | Source::Test => {
            let detail = "Whatever is stored for a database, a role or a function, all can read.";
            Err(Rejection::new(Code::Configuration, "a token cannot be stored in a setting")
                .with_detail(detail)
                .with_hint("Present the token in the session that it is for."))
        }
        // Not the client's doing, so it takes nothing away.
        Source::Session if pg::in_security_restricted_operation() => Err(Rejection::new(
            Code::Configuration,
            "a token cannot be presented within a security-restricted operation",
        )),
        Source::Session if settings::is_loading() || !pg::in_transaction() => {
            Ok(passed(Some(Standing::Pending)))
        }
        Source::Session => {
            secrets::conceal_statement();
            let accepted = Cell::new(false);
            let _otherwise = OnDrop(|| {
                if !accepted.get() {
                    revoke();
                }
            });
            let identity = settings::check_locks().and_then(|()| verified(token, generation));
            let admitted = identity.and_then(|identity| {
                let role = admit(&identity.claims, number)?;
                Ok((identity, role))
            });
            let (identity, role) = admitted.inspect_err(audit::refused)?;
            pg::memory::check();
            audit::accepted(&identity.claims);
            accepted.set(true);
            statement::note_presentation();
            Ok(Passed { role, ..passed(Some(Standing::Admitted)) })
        }
    }
}

/// A number that the same token has whenever it is presented in this session, and another one hardly ever:
/// a hash with a random key. 0 stands for no token.
fn token_number(token: &[u8]) -> TokenNumber {
    if token.is_empty() { 0 } else { with_state(|state| state.hasher.hash_one(token)).max(1) }
}

/// Takes away every identity that the session was given until now. It cannot fail.
pub(crate) fn revoke() {
    JWT.revoke_below(GENERATION.get());
    if TRUSTED.get() {
        REQUEST_CLAIMS.wipe(false);
    }
    forget();
}

/// The checks that belong to the moment at which a token is presented, and are not repeated. Returns
/// the role that the session is to take.
fn admit(claims: &Claims, token: TokenNumber) -> Result<Option<Role>, Rejection> {
    check_times(claims)?;
    let role = claims.database_role().map(role::find).transpose()?;
    plan::check_presentation(role.as_ref(), token)?;
    if let Some(sequence) = claims.sequence() {
        admit_sequence(claims, sequence)?;
    }
    Ok(role)
}

/// Refuses a `jti` that is not above the last one.
fn admit_sequence(claims: &Claims, sequence: i64) -> Result<(), Rejection> {
    with_state(|state| {
        match state.last_jti.get(claims.provider()) {
            Some(last) if sequence <= *last => {
                return Err(Rejection::new(Code::Replayed, "token has been used before")
                    .with_detail(format!(
                        "Its jti is {sequence}; this session has seen {last} already."
                    ))
                    .with_hint("Present a token with a higher jti."));
            }
            _ => state.last_jti.insert(claims.provider().to_owned(), sequence),
        };
        Ok(())
    })
}

/// The same in a parallel worker, for a token that its leader has not looked at yet. What `jti` the
/// session has seen, only the leader knows.
fn admit_in_worker(claims: &Claims) -> Result<(), Rejection> {
    check_times(claims)?;
    match claims.sequence() {
        None => Ok(()),
        Some(_) => Err(Rejection::new(Code::Replayed, "token has not been presented yet")
            .with_detail("A parallel worker cannot tell whether its jti has been used before.")
            .with_hint("Have the session read its identity once before.")),
    }
}

fn check_times(claims: &Claims) -> Result<(), Rejection> {
    let now = pg::to_unix(pg::now());
    claims.check_not_before(now)?;
    claims.check_expiry(now)
}

/// Everything about the token with that number but its times, remembered from an earlier time where
/// possible.
fn verified(token: &[u8], generation: u64) -> Result<Rc<Identity>, Rejection> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(too_long("token is too long"));
    }
    if let Some(identity) = with_state(|state| state.known(token, generation))
        && identity.is_current()
    {
        return Ok(identity);
    }
    let text = std::str::from_utf8(token).map_err(|_| {
        Rejection::new(Code::Malformed, "token is not base64url")
            .with_detail("It has a byte that is not ASCII.")
    })?;
    let (claims, trust) = verify(text)?;
    let identity = Identity::new(claims, Some(trust))?;
    error::debug("token signature verified");
    with_state(|state| {
        state.cache.put(token, &identity, identity.size(), TOKEN_CACHE_SIZE.get());
        // Whoever it was before counts no more.
        state.presented.retain(|(number, _)| *number != generation);
        state.hold(generation, &identity);
    });
    Ok(identity)
}

/// Verifies a token, but for its times. Where that reads newer keys of a provider, readers verify the
/// session's identity again.
fn verify(token: &str) -> Result<(Claims, Trust), Rejection> {
    let epoch = providers::epoch();
    let outcome = providers::verify(token);
    if providers::epoch() != epoch {
        forget();
    }
    outcome
}

/// Said before anything is copied that a client may make as long as it likes.
fn too_long(message: &'static str) -> Rejection {
    Rejection::new(Code::Malformed, message)
        .with_detail(format!("The limit is {MAX_TOKEN_BYTES} bytes."))
}

impl State {
    /// Whose the token was when it was verified before.
    fn known(&mut self, token: &[u8], generation: u64) -> Option<Rc<Identity>> {
        let presented = self.presented.iter().rev().find(|(number, _)| *number == generation);
        if let Some((_, identity)) = presented {
            return Some(Rc::clone(identity));
        }
        let identity = self.cache.get(token, TOKEN_CACHE_SIZE.get())?;
        self.hold(generation, &identity);
        Some(identity)
    }

    /// Keeps the identity for as long as its value may be in force, within bounds: one that was
    /// dropped is verified again.
    fn hold(&mut self, generation: u64, identity: &Rc<Identity>) {
        const FEW: usize = 16;
        /// In bytes.
        const MOST: usize = 512 * 1024;
        if self.presented.len() >= self.presented_limit.max(FEW) {
            let live = JWT.live_generations(JWT_NAME);
            let mut left = MOST;
            let mut kept = Vec::new();
            // The latest first.
            for (number, identity) in self.presented.drain(..).rev() {
                if live.contains(&number)
                    && let Some(rest) = left.checked_sub(identity.size())
                {
                    left = rest;
                    kept.push((number, identity));
                }
            }
            kept.reverse();
            self.presented = kept;
            self.presented_limit = 2 * self.presented.len();
        }
        self.presented.push((generation, Rc::clone(identity)));
    }

    /// Makes the identity the current one. Pointers to the values of the one before may be held until
    /// the transaction ends: it is kept until then. Once such identities take too much memory, readers
    /// return copies, and identities are freed as soon as they are replaced.
    fn replace(&mut self, identity: Option<Rc<Identity>>) {
        /// In bytes.
        const MOST_RETIRED: usize = 256 * 1024;
        let is_same = match (&self.current, &identity) {
            (Some(current), Some(identity)) => Rc::ptr_eq(current, identity),
            _ => false,
        };
        if !is_same {
            let before = std::mem::replace(&mut self.current, identity);
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

/// What is done before each statement is rewritten, outside of parallel workers. The token of the
/// startup packet is looked at, for it may name a role; so is one that was rejected, for its key or its
/// time may have come. Where it is rejected, readers say why.
pub(crate) fn prepare() {
    let is_unsettled =
        || JWT.with(|token| !token.is_empty()) && JWT.standing() != Standing::Admitted;
    if is_unsettled() && plan::is_idle() && pg::in_transaction() {
        let _ = resolve_at(Moment::BetweenStatements);
    }
    role::set(JWT.role());
    role::settle_waiting();
}

/// Whether a statement of this kind may go on: the role of a token that has expired, or that nobody
/// vouches for any more, is as good as refused. What does not need it goes on without it.
pub(crate) fn vouch(kind: Kind) -> Result<(), Rejection> {
    if role::settle_waiting() && kind == Kind::Plan {
        return Err(role::changed());
    }
    if !role::is_there() || is_ready() && !role::is_suspended() {
        return Ok(());
    }
    let vouched = resolve().and_then(|()| {
        let current = with_state(|state| state.current.clone());
        role::confirm(current.as_ref().and_then(|identity| identity.claims.database_role()))
    });
    let has_changed = role::suspend(vouched.is_err());
    match vouched {
        Err(rejection) if kind != Kind::Free => Err(rejection),
        Ok(()) if has_changed && kind == Kind::Plan => Err(role::changed()),
        _ => Ok(()),
    }
}

/// When an identity is resolved.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// Before a statement is rewritten: its policies can be chosen for the token's role.
    BetweenStatements,
    /// Within a statement, whose policies have been chosen.
    WithinStatement,
}

/// Finds out who the session is, for the current statement and as long as nothing changes.
fn resolve() -> Result<(), Rejection> {
    resolve_at(Moment::WithinStatement)
}

fn resolve_at(moment: Moment) -> Result<(), Rejection> {
    forget();
    if moment == Moment::WithinStatement {
        statement::note_use();
    }
    settings::check_locks()?;
    plan::check_reader()?;
    let epoch = providers::epoch();
    let token = JWT.with(|token| token.get(..=MAX_TOKEN_BYTES).unwrap_or(token).to_vec());
    if token.is_empty() {
        return resolve_without_token();
    }
    let standing = JWT.standing();
    if standing == Standing::Refused && moment == Moment::WithinStatement {
        return Err(why_rejected(&token));
    }
    let outcome = verified(&token, JWT.generation()).and_then(|identity| {
        match standing {
            Standing::Admitted => {}
            _ if pg::is_parallel_worker() => admit_in_worker(&identity.claims)?,
            _ => JWT.set_role(admit(&identity.claims, JWT.token())?),
        }
        Ok(identity)
    });
    match (standing, &outcome) {
        (Standing::Admitted, _) => {}
        (_, Ok(identity)) => {
            audit::accepted(&identity.claims);
            JWT.set_standing(Standing::Admitted);
        }
        (_, Err(rejection)) => {
            if standing == Standing::Pending {
                audit::refused(rejection);
                JWT.set_standing(Standing::Refused);
            }
            let rejected = (JWT.generation(), rejection.clone());
            with_state(|state| state.rejected = Some(rejected));
        }
    }
    let identity = outcome?;
    identity.claims.check_expiry(pg::to_unix(pg::statement_start()))?;
    let until = identity.expires_at();
    // Had anything changed meanwhile, the next read looks again; so it does where values are copied.
    if install(Some(identity)) && epoch == providers::epoch() {
        READY.ready_until.set(until);
    }
    Ok(())
}

/// Why a token was rejected that no statement has presented. It stays rejected until the next statement
/// is rewritten, whatever has become of the reason.
fn why_rejected(token: &[u8]) -> Rejection {
    let generation = JWT.generation();
    let known = with_state(|state| {
        let rejected = state.rejected.as_ref().filter(|(number, _)| *number == generation);
        rejected.map(|(_, rejection)| rejection.clone())
    });
    // A parallel worker's leader knows the reason, the worker does not.
    let again =
        || verified(token, generation).and_then(|identity| admit_in_worker(&identity.claims));
    known.unwrap_or_else(|| match again() {
        Err(rejection) => rejection,
        Ok(()) => Rejection::new(Code::Claim, "token was rejected before the statement")
            .with_hint("Present the token again."),
    })
}

/// Whether `request.jwt.claims` are believed where there is no token.
fn is_trusting() -> bool {
    TRUST_REQUEST_CLAIMS.get() && !TRUST_REQUEST_CLAIMS.is_lost()
}

fn resolve_without_token() -> Result<(), Rejection> {
    if UNUSED.take() {
        error::warn(
            "the token in the startup packet is not used",
            "pg_session_jwt.identity_scope is transaction: present a token in each transaction.",
        );
    }
    if is_trusting() {
        let watched = REQUEST_CLAIMS.watch(CLAIMS_CHANGED);
        let claims = REQUEST_CLAIMS.with(|value| match value.len() {
            0..=MAX_TOKEN_BYTES => Ok(value.to_vec()),
            _ => Err(too_long("request.jwt.claims is too long")),
        });
        let identity = match claims.transpose()? {
            Some(claims) if !claims.is_empty() => Some(trusted(&claims)?),
            _ => None,
        };
        if let Some(identity) = &identity {
            let now = pg::to_unix(pg::statement_start());
            identity.claims.check_expiry(now).map_err(of_request_claims)?;
        }
        let until = identity.as_ref().map_or(Timestamp::MAX, |identity| identity.expires_at());
        let lends = install(identity);
        // Where no hook tells when the setting changes, every read looks at it.
        if watched && lends {
            READY.believed_until.set(until);
        }
        return Ok(());
    }
    let ignored = REQUEST_CLAIMS.with(|value| !value.is_empty()).unwrap_or(false);
    if ignored
        && !pg::is_parallel_worker()
        && !with_state(|state| std::mem::replace(&mut state.warned_of_request_claims, true))
    {
        error::warn(
            "request.jwt.claims is ignored",
            "Whoever can run SQL can set it. Present a token, or have a superuser set \
             pg_session_jwt.trust_request_claims.",
        );
    }
    install(None);
    READY.ready_until.set(Timestamp::MAX);
    Ok(())
}

/// A refusal that speaks of a token, though nobody has presented one.
fn of_request_claims(rejection: Rejection) -> Rejection {
    let (message, detail) = (rejection.message(), rejection.detail().unwrap_or_default());
    Rejection::new(rejection.code(), "request.jwt.claims is refused")
        .with_detail(format!("As for a token: {message}. {detail}"))
}

fn trusted(text: &[u8]) -> Result<Rc<Identity>, Rejection> {
    let known = with_state(|state| {
        let (known, identity) = state.trusted.as_ref()?;
        (**known == *text).then(|| Rc::clone(identity))
    });
    if let Some(identity) = known {
        return Ok(identity);
    }
    let json = from_server_encoding(text).ok_or_else(|| {
        Rejection::new(Code::Malformed, "request.jwt.claims is malformed")
            .with_detail("It cannot be converted to UTF-8.")
    })?;
    let claims = Claims::trusted(&json).map_err(of_request_claims)?;
    let identity = Identity::new(claims, None)?;
    error::debug("request.jwt.claims have been read");
    with_state(|state| state.trusted = Some((text.into(), Rc::clone(&identity))));
    Ok(identity)
}

/// Shows readers this identity, or nobody, once the caller says until when, and keeps the one before
/// while its values may be referred to. Returns whether values are lent, so that they can be ready.
fn install(identity: Option<Rc<Identity>>) -> bool {
    for value in Value::ALL {
        let reference = identity.as_ref().and_then(|identity| identity.value(value));
        READY.slot(value).set(reference);
    }
    READY.owner.set(identity.as_ref().map_or(NOBODY, |identity| identity.number));
    with_state(|state| {
        state.replace(identity);
        state.lends
    })
}

/// Verifies a token, its times included, and returns its claims as jsonb; installs nothing.
pub(crate) fn claims_of(token: &[u8]) -> Result<Varlena, Rejection> {
    secrets::conceal_statement();
    if token.len() > MAX_TOKEN_BYTES {
        return Err(too_long("token is too long"));
    }
    let text = String::from_utf8_lossy(token);
    let (claims, _) = verify(&text)?;
    check_times(&claims)?;
    Varlena::jsonb(claims.json()).map_err(|Unrepresentable| unrepresentable())
}

pub(crate) fn unrepresentable() -> Rejection {
    Rejection::new(Code::Claim, "claim cannot be held by jsonb")
        .with_detail("The database's encoding lacks a character, or jsonb a value.")
}

/// The number of the session's identity and that of the names of relations, where the former is known
/// without further ado.
#[inline(always)]
pub(crate) fn owner_and_names() -> Option<(u64, u64)> {
    is_ready().then(|| (READY.owner.get(), relation::names()))
}

/// Whether the token allows the action of that name, which is in the database's encoding, on a table;
/// for None, on the database as a whole.
pub(crate) fn allows(action: &[u8], table: Option<Oid>) -> Result<Permit, Rejection> {
    let action = Action::expect(&from_server_encoding(action).unwrap_or_default())?;
    let identity = current()?;
    // Before they are read: what changes meanwhile counts.
    let names = relation::names();
    let allowed = identity.as_ref().is_some_and(|identity| {
        let permissions = identity.claims.permissions();
        let Some(table) = table else {
            return permissions.allows(action, None);
        };
        match Name::of(table) {
            Some(Name::Known { schema, name }) => {
                permissions.allows(action, Some((&schema, &name)))
            }
            Some(Name::Unrepresentable) => permissions.allows(action, None),
            None => false,
        }
    });
    Ok(Permit { owner: identity.map_or(NOBODY, |identity| identity.number), names, allowed })
}

/// Refuses what the token does not allow on the table of that schema and name, which need not be there;
/// for None, on the database as a whole.
pub(crate) fn demand(action: Action, table: Option<(&str, &str)>) -> Result<(), Rejection> {
    let identity = current()?;
    if identity.as_ref().is_some_and(|identity| identity.claims.permissions().allows(action, table))
    {
        return Ok(());
    }
    let target = match table {
        Some((schema, name)) => {
            format!("the table {}.{}", session_jwt::quoted(schema), session_jwt::quoted(name))
        }
        None => "the database as a whole".to_owned(),
    };
    let whose =
        if identity.is_some() { "the session's token does not" } else { "no token is there to" };
    Err(Rejection::new(Code::Forbidden, "token does not allow this").with_detail(format!(
        "The statement needs {} on {target}, which {whose} grant.",
        action.name()
    )))
}

/// Who the session is.
fn current() -> Result<Option<Rc<Identity>>, Rejection> {
    if !is_ready() {
        resolve()?;
    }
    Ok(with_state(|state| state.current.clone()))
}
