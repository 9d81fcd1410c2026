#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod address;
mod algorithm;
mod claims;
mod der;
mod encoding;
mod endpoint;
mod issuer;
mod json;
mod jwk;
mod jws;
mod key_changes;
mod memory;
mod own_values;
mod path;
mod permissions;
mod provider;
mod public_key;
mod rejection;
mod secret;
mod shared_keys;
mod slips;
mod verifier;

pub use algorithm::{Algorithm, AlgorithmSet};
pub use claims::{CLAIM_CHECKS, ClaimCheck, Claims, UnjudgedClaims};
pub use endpoint::{Endpoint, HttpHosts};
pub use json::json_string;
pub use jwk::{FetchedKeys, KeySet, MAX_DOCUMENT_BYTES, MAX_FETCHED_BYTES, UnusableKey};
pub use jws::MAX_TOKEN_BYTES;
pub use key_changes::KeyChanges;
pub use memory::is_memory_short;
pub use path::{ClaimPath, array_index, opens};
pub use permissions::{Action, Permissions, permission_claims};
pub use provider::{
    KeySource, MAX_ROW_BYTES, MAX_ROW_NAME_BYTES, PROVIDER_MEMBERS, Provider, ProviderMember,
    ROW_MEMBERS, Remote,
};
pub use rejection::{Code, Rejection, quoted};
pub use verifier::{Unverified, Verifier, authenticate, no_provider_configured, verify_jws};
