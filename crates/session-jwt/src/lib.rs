#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod algorithm;
mod claims;
mod conceal;
mod json;
mod jwk;
mod jws;
mod path;
mod provider;
mod rejection;
mod verifier;

pub use algorithm::{Algorithm, AlgorithmSet};
pub use claims::{CLAIM_CHECKS, ClaimCheck, Claims};
pub use conceal::{conceal, has_secrets};
pub use jwk::{KeySet, UnusableKey};
pub use jws::MAX_TOKEN_BYTES;
pub use path::{ClaimPath, array_index};
pub use provider::{PROVIDER_MEMBERS, Provider, ProviderMember};
pub use rejection::{Code, Rejection, quoted};
pub use verifier::{Verifier, verify_jws};
