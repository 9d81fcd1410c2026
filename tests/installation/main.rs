//! What the extension creates, and what it meets where it is created.

mod catalog;
mod names;
