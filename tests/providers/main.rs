//! Providers: the table of them, and the keys that are fetched from them.

mod added;
mod changes;
mod lookup;
mod plain_http;
mod privileges;
mod rotation;
mod rows;
mod standby;
mod table;
