//! What the extension creates, what it meets where it is created, and what its packages are made from.

mod catalog;
mod names;
mod release;
