#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod address;
mod algorithm;
mod check;
mod claim_checks;
mod claims;
mod der;
mod document;
mod draft;
mod duration;
mod encoding;
mod endpoint;
mod foreign_path;
mod inspection;
mod issuer;
mod json;
mod jwk;
mod jws;
mod key_changes;
mod key_choice;
mod key_set;
mod member_values;
mod members;
mod memory;
mod not_a_token;
mod own_values;
mod path;
mod permissions;
mod provider;
mod provider_document;
mod public_key;
mod rejection;
mod repetitions;
mod secret;
mod shared_keys;
mod signature_digest;
mod slips;
mod token_names;
mod vendors;
mod verifier;

pub use algorithm::{Algorithm, AlgorithmSet};
pub use check::Check;
pub use claim_checks::{CLAIM_CHECKS, ClaimCheck};
pub use claims::{Claims, UnjudgedClaims};
pub use document::MAX_DOCUMENT_BYTES;
pub use duration::in_words;
pub use endpoint::{Endpoint, HttpHosts};
pub use inspection::{Candidates, Inspected, Inspection, MAX_INSPECTED_BYTES, Outcome, inspect};
pub use json::json_string;
pub use jws::MAX_TOKEN_BYTES;
pub use key_changes::KeyChanges;
pub use key_set::{FetchedKeys, KeySet, MAX_FETCHED_BYTES, UnusableKey};
pub use members::{PROVIDER_MEMBERS, ProviderMember, ROW_MEMBERS};
pub use memory::is_memory_short;
pub use path::{ClaimPath, array_index, opens};
pub use permissions::{Action, Permissions, permission_claims};
pub use provider::{KeySource, Provider, Remote};
pub use provider_document::{MAX_ROW_BYTES, MAX_ROW_NAME_BYTES};
pub use rejection::{Code, Rejection, quoted};
pub use repetitions::{Repeated, Repetitions};
pub use signature_digest::SignatureDigest;
pub use token_names::TokenNames;
pub use verifier::{
    MOST_COUNTED, Unverified, Verifier, authenticate, no_provider_configured, verify_jws,
};
