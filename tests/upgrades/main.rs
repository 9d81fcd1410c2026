//! Updates of the extension, from other extensions and to other servers.

mod catalog;
mod library;
mod neon;
mod servers;
mod supabase;
mod versions;
