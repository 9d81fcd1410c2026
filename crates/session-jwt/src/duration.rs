//! Durations in messages.

/// A duration in seconds as words, in its largest unit: `45 seconds`, `10 minutes`, `3 hours`, `2 days`. A unit
/// is used from two of it on, and the rest is dropped.
pub fn in_words(seconds: i64) -> String {
    let seconds = seconds.unsigned_abs();
    let units = [(86_400, "days"), (3_600, "hours"), (60, "minutes")];
    match units.into_iter().find(|(size, _)| seconds >= 2 * size) {
        Some((size, unit)) => format!("{} {unit}", seconds / size),
        None if seconds == 1 => "1 second".to_owned(),
        None => format!("{seconds} seconds"),
    }
}

#[cfg(test)]
mod tests {
    use super::in_words;

    #[test]
    fn the_largest_unit_is_used() {
        for (seconds, words) in [
            (0, "0 seconds"),
            (1, "1 second"),
            (119, "119 seconds"),
            (120, "2 minutes"),
            (7_199, "119 minutes"),
            (7_200, "2 hours"),
            (172_799, "47 hours"),
            (172_800, "2 days"),
            (-600, "10 minutes"),
            (i64::MIN, "106751991167300 days"),
        ] {
            assert_eq!(in_words(seconds), words, "{seconds}");
        }
    }
}
