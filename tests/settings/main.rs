//! Who may change which setting, whom a session then believes, and what nobody gets to see.
//!
//! Everything is asked of clusters that load the library in each of the three ways, by clients
//! that are ordinary roles, roles with `GRANT SET ON PARAMETER`, or superusers. What a statement
//! returns counts less than its effect: whose token is accepted afterwards, and who
//! `auth.user_id()` then says it is.

mod audit;
mod configuration;
mod documents;
mod log;
mod site;
mod superusers;
mod token;
