//! Datums: values in memory of the extension that SQL functions return by pointer, conversions between
//! UTF-8 and the database's encoding, and steps into `jsonb`.

use std::borrow::Cow;
use std::ffi::{CStr, CString, c_char, c_int};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, UnwindSafe};

use pgrx::pg_sys::panic::CaughtError;
use pgrx::pg_sys::{self, Datum};
use session_jwt::array_index;

use super::sqlstate::{is_of_class, packed};

/// The type `text[]`.
pub(crate) const TEXT_ARRAY: pg_sys::Oid = pg_sys::TEXTARRAYOID;

/// A varlena in memory of the extension, aligned for every type of Postgres.
pub(crate) struct Varlena(Box<[u64]>);

/// The address of a value that Postgres passes by reference.
#[derive(Clone, Copy)]
pub(crate) struct Reference(NonZeroUsize);

impl Reference {
    /// A reference to a value whose layout is the one of its type in Postgres.
    pub(crate) fn to<T>(value: &T) -> Self {
        Self(std::ptr::NonNull::from(value).addr())
    }

    #[inline(always)]
    pub(crate) fn datum(self) -> Datum {
        Datum::from(self.0.get())
    }
}

/// The length of a UUID in bytes.
const UUID_LENGTH: usize = 16;

/// A value of one of the types that readers return. It must not move while references to it are in use.
pub(crate) enum Value {
    /// A `text` or a `jsonb`.
    Varlena(Varlena),
    /// A `uuid`.
    Uuid([u8; UUID_LENGTH]),
}

impl Value {
    /// The address of the value, valid as long as `self`.
    pub(crate) fn reference(&self) -> Reference {
        match self {
            Value::Varlena(varlena) => varlena.reference(),
            Value::Uuid(uuid) => Reference::to(uuid),
        }
    }

    /// A copy in the current memory context.
    pub(crate) fn copied(&self) -> Reference {
        // SAFETY: `pg_detoast_datum_copy` copies a plain varlena; a UUID and the memory for its copy
        // have the same length.
        let copy = unsafe {
            match self {
                Value::Varlena(varlena) => {
                    pg_sys::pg_detoast_datum_copy(varlena.datum().cast_mut_ptr()).cast::<u8>()
                }
                Value::Uuid(uuid) => {
                    let copy = pg_sys::palloc(UUID_LENGTH).cast::<u8>();
                    copy.copy_from_nonoverlapping(uuid.as_ptr(), UUID_LENGTH);
                    copy
                }
            }
        };
        NonZeroUsize::new(copy.addr()).map_or_else(|| self.reference(), Reference)
    }

    /// The memory that it takes beside the value itself, in bytes.
    pub(crate) fn size(&self) -> usize {
        match self {
            Value::Varlena(varlena) => varlena.size(),
            Value::Uuid(_) => 0,
        }
    }
}

/// The error where the database's encoding cannot represent a text, or `jsonb` cannot hold a value.
pub(crate) struct Unrepresentable;

unsafe extern "C" {
    // `pgrx` does not have it.
    fn hash_bytes_extended(bytes: *const u8, length: std::ffi::c_int, seed: u64) -> u64;
}

impl Varlena {
    /// A `text`, converted from UTF-8 to the database's encoding.
    pub(crate) fn text(text: &str) -> Result<Self, Unrepresentable> {
        in_server_encoding(text, |bytes| {
            let size = bytes.len() + pg_sys::VARHDRSZ;
            let mut words = vec![0u64; size.div_ceil(8)].into_boxed_slice();
            let start = words.as_mut_ptr().cast::<u8>();
            // SAFETY: the words hold `size` bytes, which are the header and the text after it.
            unsafe {
                pgrx::varlena::set_varsize_4b(start.cast(), size as i32);
                start.add(pg_sys::VARHDRSZ).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            }
            Self(words)
        })
    }

    /// The hash of a `text` as `hashtextextended(…, seed)` computes it in the collation `C`.
    pub(crate) fn hash(&self, seed: i64) -> i64 {
        let bytes = text_datum_bytes(self.datum());
        let length = bytes.len() as std::ffi::c_int;
        // SAFETY: the function reads that many bytes, and nothing else.
        unsafe { hash_bytes_extended(bytes.as_ptr(), length, seed as u64) as i64 }
    }

    /// A `jsonb`, converted by Postgres from JSON in UTF-8.
    pub(crate) fn jsonb(json: &str) -> Result<Self, Unrepresentable> {
        let value = in_server_encoding(&without_escapes(json), |bytes| {
            let json = CString::new(bytes).unwrap_or_default();
            // SAFETY: `jsonb_in` takes a C string and returns a plain varlena in the current memory
            // context, which is freed once it is copied.
            unsafe {
                let datum = pgrx::direct_function_call_as_datum(
                    pg_sys::jsonb_in,
                    &[Some(Datum::from(json.as_ptr()))],
                )?;
                let value = Self::copy_of(Reference(NonZeroUsize::new(datum.value())?));
                pg_sys::pfree(datum.cast_mut_ptr());
                Some(value)
            }
        })?;
        value.ok_or(Unrepresentable)
    }

    /// A copy of a plain varlena, such as a `text` that a function of Postgres returned.
    fn copy_of(value: Reference) -> Self {
        let source = value.datum().cast_mut_ptr::<u8>().cast_const();
        // SAFETY: the header of a varlena has its length, and the words hold as many bytes.
        unsafe {
            let size = pgrx::varlena::varsize_any(source.cast());
            let mut words = vec![0u64; size.div_ceil(8)].into_boxed_slice();
            words.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(source, size);
            Self(words)
        }
    }

    /// The memory that it takes, in bytes.
    pub(crate) fn size(&self) -> usize {
        size_of_val(&*self.0)
    }

    /// The address of the value, valid as long as `self`.
    pub(crate) fn reference(&self) -> Reference {
        Reference(std::ptr::NonNull::from(&*self.0).addr())
    }

    /// The address as a Datum.
    pub(crate) fn datum(&self) -> Datum {
        self.reference().datum()
    }

    /// A copy in the current memory context, which an SQL function returns when the extension frees the
    /// original.
    pub(crate) fn palloced(&self) -> Datum {
        // SAFETY: `pg_detoast_datum_copy` copies a plain varlena.
        unsafe { Datum::from(pg_sys::pg_detoast_datum_copy(self.datum().cast_mut_ptr())) }
    }
}

/// The bytes of a `text` that is neither compressed nor stored elsewhere.
///
/// # Safety
/// The datum is a valid `text`, which outlives the slice.
#[inline(always)]
pub(crate) unsafe fn plain_text<'t>(datum: Datum) -> Option<&'t [u8]> {
    use pgrx::varlena::{varatt_is_1b, varatt_is_1b_e, varatt_is_4b_u, varlena_to_byte_slice};
    let text = datum.cast_mut_ptr::<pg_sys::varlena>().cast_const();
    // SAFETY: the caller passes a valid text, whose header tells how it is stored.
    unsafe {
        let plain = varatt_is_4b_u(text) || (varatt_is_1b(text) && !varatt_is_1b_e(text));
        plain.then(|| varlena_to_byte_slice(text))
    }
}

/// The length of a varlena without its header once it is detoasted. The function does not detoast it.
///
/// # Safety
/// The datum is a valid varlena.
pub(super) unsafe fn raw_size(datum: Datum) -> usize {
    // SAFETY: the caller passes a valid varlena; a TOAST pointer and a compressed value have the size in
    // their header.
    unsafe { pg_sys::toast_raw_datum_size(datum) }.saturating_sub(pg_sys::VARHDRSZ)
}

/// Runs `convert`; None where Postgres raises an error about the value. The conversions and `jsonb_in` hold
/// nothing but memory, so that no subtransaction is needed to clean up. Any other error, such as a lack of
/// memory or a query cancel, is raised again.
fn unless_unfit<T>(convert: impl FnOnce() -> T + UnwindSafe) -> Option<T> {
    pg_sys::PgTryBuilder::new(move || Some(convert()))
        .catch_others(|error| {
            let code = match &error {
                CaughtError::PostgresError(report) => report.sql_error_code() as c_int,
                // A panic, or an error that this extension raised.
                _ => error.rethrow(),
            };
            // Postgres has no conversion between UTF-8 and some encodings (42883). Of an escape in SQL_ASCII, it
            // says that it is not supported (0A000).
            let is_data =
                is_of_class(code, "22000") || [packed("42883"), packed("0A000")].contains(&code);
            if is_data { None } else { error.rethrow() }
        })
        .execute()
}

/// Runs `build` on the text in the database's encoding.
///
/// Some conversions map several characters of UTF-8 to one of the database's encoding: U+00A6 and
/// U+FFE4 are one character in EUC_JP. A text that does not convert back to itself is rejected, so
/// that two users never share one identity.
fn in_server_encoding<T>(text: &str, build: impl Fn(&[u8]) -> T) -> Result<T, Unrepresentable> {
    let build = AssertUnwindSafe(build);
    let built = unless_unfit(move || {
        let Some(converted) = convert(text.as_bytes(), pg_sys::pg_any_to_server) else {
            return Some(build(text.as_bytes()));
        };
        let back = convert(converted, pg_sys::pg_server_to_any)?;
        (back == text.as_bytes()).then(|| build(converted))
    });
    built.flatten().ok_or(Unrepresentable)
}

/// Converts a text between UTF-8 and the database's encoding; None where Postgres returns the same text.
/// The result is a C string in the current memory context.
fn convert<'t>(
    text: &[u8],
    conversion: unsafe fn(*const c_char, c_int, c_int) -> *mut c_char,
) -> Option<&'t [u8]> {
    let start = text.as_ptr().cast::<c_char>();
    // SAFETY: pointer and length are those of the slice; the result is the same pointer or a new C string.
    unsafe {
        let result = conversion(start, text.len() as c_int, pg_sys::pg_enc::PG_UTF8 as c_int);
        (result.cast_const() != start).then(|| CStr::from_ptr(result).to_bytes())
    }
}

/// Replaces the escapes of characters beyond ASCII by the characters, where the database's encoding is
/// neither UTF-8 nor SQL_ASCII. `jsonb_in` converts an escape without a test whether it converts back; the
/// characters are tested with the rest of the text.
fn without_escapes(json: &str) -> Cow<'_, str> {
    // SAFETY: the function reads a static variable.
    let encoding = unsafe { pg_sys::GetDatabaseEncoding() } as u32;
    let as_it_is = [pg_sys::pg_enc::PG_UTF8, pg_sys::pg_enc::PG_SQL_ASCII].contains(&encoding);
    if as_it_is || !json.contains("\\u") {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len());
    let mut rest = json;
    // In JSON, each backslash is in a string and begins an escape.
    while let Some((before, escape)) = rest.split_once('\\') {
        out.push_str(before);
        rest = match escaped_character(escape) {
            Some((character, after)) => {
                out.push(character);
                after
            }
            None => {
                // The character after the backslash belongs to the escape; it may be a backslash too.
                let (first, after) =
                    escape.split_at(escape.chars().next().map_or(0, char::len_utf8));
                out.push('\\');
                out.push_str(first);
                after
            }
        };
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Reads an escape, given the text after its backslash. Returns the character beyond ASCII, and the text
/// after the escape; None where it is another escape, or half of a surrogate pair.
fn escaped_character(escape: &str) -> Option<(char, &str)> {
    fn unit(text: &str) -> Option<(u16, &str)> {
        let (digits, rest) = text.strip_prefix('u')?.split_at_checked(4)?;
        let is_hexadecimal = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let unit = is_hexadecimal.then(|| u16::from_str_radix(digits, 16).ok()).flatten()?;
        Some((unit, rest))
    }
    let (first, rest) = unit(escape)?;
    if first < 0x80 {
        return None;
    }
    if let Some(character) = char::from_u32(first.into()) {
        return Some((character, rest));
    }
    let (second, rest) = unit(rest.strip_prefix('\\')?)?;
    let character = char::decode_utf16([first, second]).next()?.ok()?;
    Some((character, rest))
}

/// A text in the database's encoding; None where the encoding lacks a character.
pub(crate) fn to_server_encoding(text: &str) -> Option<CString> {
    in_server_encoding(text, |bytes| CString::new(bytes).ok()).ok()?
}

/// The `text[]` of an array literal, or with the one element of another text, in the database's encoding.
pub(crate) fn parse_texts(input: &CStr) -> Datum {
    let bytes = input.to_bytes();
    let mut literal = bytes.to_vec();
    if !matches!(bytes.trim_ascii_start().first(), Some(b'{' | b'[')) {
        literal = array_element(bytes);
        literal.insert(0, b'{');
        literal.push(b'}');
    }
    literal.push(0);
    // SAFETY: the literal is a C string, and the function is the input function of arrays.
    unsafe {
        pg_sys::OidInputFunctionCall(
            pg_sys::Oid::from(pg_sys::F_ARRAY_IN),
            literal.as_mut_ptr().cast(),
            pg_sys::TEXTOID,
            -1,
        )
    }
}

/// A text as an element of an array literal.
pub(crate) fn array_element(text: &[u8]) -> Vec<u8> {
    let mut element = vec![b'"'];
    for &byte in text {
        if matches!(byte, b'"' | b'\\') {
            element.push(b'\\');
        }
        element.push(byte);
    }
    element.push(b'"');
    element
}

/// Parses a UUID in the forms that the type `uuid` accepts: 32 hexadecimal digits, a hyphen after any
/// group of four, braces around it all.
pub(crate) fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let text = match text.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}')?,
        None => text,
    };
    let mut uuid = [0; 16];
    let mut rest = text.as_bytes();
    for (place, byte) in uuid.iter_mut().enumerate() {
        let (digits, after) = rest.split_at_checked(2)?;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        *byte = match digits {
            [high, low] => u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()?,
            _ => return None,
        };
        rest = match after.split_first() {
            Some((b'-', after)) if place % 2 == 1 && place < 15 => after,
            _ => after,
        };
    }
    rest.is_empty().then_some(uuid)
}

/// The type in which [`find`] returns a value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A text, as `->>` does.
    Text,
    /// A `jsonb`, as `->` does.
    Jsonb,
}

/// Finds the value at a path within a `jsonb`; None where there is none, and for the JSON value null. The
/// result is a Datum in the current memory context, and a copy in memory of the extension. Where the path
/// goes through a string that holds an object or an array as JSON, it continues in that value.
pub(crate) fn find<'s>(
    value: Reference,
    steps: impl Iterator<Item = &'s str>,
    form: Form,
) -> Option<(Reference, Varlena)> {
    let mut steps = steps.peekable();
    let mut value = value.datum();
    while let Some(step) = steps.next() {
        // The text is null where the step finds nothing or the JSON value null.
        let text = step_into(value, step, Form::Text)?;
        value = match (steps.peek(), form) {
            (None, Form::Text) => text,
            (None, Form::Jsonb) => step_into(value, step, Form::Jsonb)?,
            (Some(_), _) => {
                let inner = step_into(value, step, Form::Jsonb)?;
                if is_container(inner) { inner } else { opened(text)? }
            }
        };
    }
    let found = Reference(NonZeroUsize::new(value.value())?);
    Some((found, Varlena::copy_of(found)))
}

/// The header of the outermost container of a `jsonb`.
fn header(jsonb: Datum) -> u32 {
    // SAFETY: the callers pass a plain `jsonb`, whose first word is the header of its container.
    unsafe {
        pgrx::varlena::vardata_any(jsonb.cast_mut_ptr::<pg_sys::varlena>())
            .cast::<u32>()
            .read_unaligned()
    }
}

/// Whether a `jsonb` is an object or an array.
fn is_container(jsonb: Datum) -> bool {
    header(jsonb) & pg_sys::JB_FSCALAR == 0
}

/// The `jsonb` of the object or array that a text holds as JSON, in the current memory context.
fn opened(text: Datum) -> Option<Datum> {
    let text = from_server_encoding(&text_datum_bytes(text))?;
    if !session_jwt::opens(&text) {
        return None;
    }
    let value = Varlena::jsonb(&text).ok()?;
    Some(value.palloced())
}

/// The value of one step: a member of an object, or an element of an array. None where there is none; in
/// the form of a text, also for the JSON value null.
fn step_into(jsonb: Datum, step: &str, form: Form) -> Option<Datum> {
    let header = header(jsonb);
    // SAFETY: the functions take a jsonb and a text or an int4, and return SQL null where the step finds
    // nothing.
    unsafe {
        if header & pg_sys::JB_FARRAY != 0 && header & pg_sys::JB_FSCALAR == 0 {
            let index = i32::try_from(array_index(step)?).ok()?;
            let function = match form {
                Form::Text => pg_sys::jsonb_array_element_text,
                Form::Jsonb => pg_sys::jsonb_array_element,
            };
            pgrx::direct_function_call_as_datum(function, &[Some(jsonb), Some(Datum::from(index))])
        } else if header & pg_sys::JB_FOBJECT != 0 {
            let name = Varlena::text(step).ok()?;
            let function = match form {
                Form::Text => pg_sys::jsonb_object_field_text,
                Form::Jsonb => pg_sys::jsonb_object_field,
            };
            pgrx::direct_function_call_as_datum(function, &[Some(jsonb), Some(name.datum())])
        } else {
            None
        }
    }
}

/// Converts a text in the database's encoding to UTF-8; None where it is not valid, or does not convert
/// back to itself, so that two names never become one.
pub(crate) fn from_server_encoding(text: &[u8]) -> Option<String> {
    let bytes = AssertUnwindSafe(text);
    unless_unfit(move || {
        let converted = match convert(*bytes, pg_sys::pg_server_to_any) {
            None => *bytes,
            Some(converted) => {
                let back = convert(converted, pg_sys::pg_any_to_server)?;
                (back == *bytes).then_some(converted)?
            }
        };
        std::str::from_utf8(converted).ok().map(str::to_owned)
    })?
}

/// The bytes of a `text` or `json`, detoasted.
pub(super) fn text_datum_bytes(text: Datum) -> Vec<u8> {
    // SAFETY: the callers pass columns and results of these types. Detoasting returns the same pointer or
    // a new copy, which is freed.
    unsafe {
        let stored = text.cast_mut_ptr::<pg_sys::varlena>();
        let plain = pg_sys::pg_detoast_datum_packed(stored);
        let bytes = pgrx::varlena::varlena_to_byte_slice(plain).to_vec();
        if plain != stored {
            pg_sys::pfree(plain.cast());
        }
        bytes
    }
}
