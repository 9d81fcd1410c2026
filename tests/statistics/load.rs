//! Readers beside writers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use harness::{Preload, Site, run, token_of};

use super::fixture::*;

/// A reader of `auth.sessions` never sees a mixture of two identities, while sessions change between short and long
/// ones. User id and issuer of each identity are the same text.
#[test]
fn a_reader_sees_no_mixture_of_identities() {
    let site = Site::start(Preload::Shared, &[]);
    let mut monitor = monitor(&site.cluster);
    let texts = ["s".to_owned(), "m".repeat(120), "L".repeat(255)];
    let tokens: Vec<String> = texts.iter().map(|text| token_of(&site.key, text, text)).collect();
    let presentations: String =
        tokens.iter().map(|token| format!("PERFORM auth.jwt_session_init('{token}'); ")).collect();
    let write = format!("DO $$ BEGIN FOR n IN 1..2000 LOOP {presentations} END LOOP; END $$");
    let has_ended = AtomicBool::new(false);
    let (mut reads, mut seen, mut mixtures) = (0, std::collections::BTreeSet::new(), Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut client = site.client();
                while !has_ended.load(Ordering::Relaxed) {
                    run(&mut client, &write);
                }
            });
        }
        let until = Instant::now() + Duration::from_secs(8);
        while Instant::now() < until {
            let rows = monitor.query("SELECT user_id, issuer FROM auth.sessions", &[]).unwrap();
            for row in rows {
                let [user, issuer] =
                    [0, 1].map(|place| row.get::<_, Option<String>>(place).unwrap_or_default());
                reads += 1;
                if user != issuer || !texts.contains(&user) {
                    mixtures.push((user, issuer));
                } else {
                    seen.insert(user.len());
                }
            }
        }
        has_ended.store(true, Ordering::Relaxed);
    });
    assert!(mixtures.is_empty(), "{} of {reads}: {:?}", mixtures.len(), mixtures.first());
    assert_eq!(seen.len(), texts.len(), "each identity was seen: {seen:?}");
    assert!(reads > 1000, "{reads} reads");
}
