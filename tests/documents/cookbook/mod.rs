//! The recipes of `docs/cookbook.md`, as they stand there, against clients that send hostile SQL.
//!
//! A recipe runs in a database of its own, as `author`, an ordinary role. Clients are `app`, which
//! owns nothing, with somebody's token, without one, or with one that has expired.

mod changes;
mod groups;
mod objects;
mod recipe;
mod tenants;
mod users;

use recipe::COOKBOOK;

#[test]
fn every_recipe_is_tested() {
    let tests = concat!(
        include_str!("changes.rs"),
        include_str!("groups.rs"),
        include_str!("objects.rs"),
        include_str!("tenants.rs"),
        include_str!("users.rs"),
    );
    let headings: Vec<&str> =
        COOKBOOK.split("\n## ").skip(1).filter_map(|section| section.lines().next()).collect();
    assert!(!headings.is_empty(), "!headings.is_empty");
    for heading in headings {
        assert!(tests.contains(&format!("Recipe::follow(\"{heading}\")")), "{heading}");
    }
}
