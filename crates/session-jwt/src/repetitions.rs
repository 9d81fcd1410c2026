//! Repetitions of an event, which a log counts instead of writing a line for each.

/// An event that goes on is written again after this time, in seconds.
const INTERVAL: i64 = 60;

/// The last event, and how often it was repeated since it was written.
#[derive(Debug, Default)]
pub struct Repetitions {
    last: Option<Last>,
}

#[derive(Debug)]
struct Last {
    event: String,
    written_at: i64,
    count: u64,
}

/// An event that was repeated, with the number of repetitions.
pub type Repeated = (String, u64);

impl Repetitions {
    /// No event yet.
    pub const fn new() -> Self {
        Self { last: None }
    }

    /// Counts an event at a time in seconds, if it repeats the last one within a minute of its line: None. Otherwise the
    /// event is to be written, after the repetitions of the last one, if there were any.
    pub fn count(&mut self, event: &str, now: i64) -> Option<Option<Repeated>> {
        if let Some(last) = &mut self.last
            && last.event == event
            && now - last.written_at < INTERVAL
        {
            last.count += 1;
            return None;
        }
        let before = self.end();
        self.last = Some(Last { event: event.to_owned(), written_at: now, count: 0 });
        Some(before)
    }

    /// Ends the repetitions: the last event with their number, if there were any. The same event is a new one then.
    pub fn end(&mut self) -> Option<Repeated> {
        let last = self.last.take()?;
        (last.count > 0).then_some((last.event, last.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_written_again_after_a_minute() {
        let mut repetitions = Repetitions::new();
        let repeated = |count| Some(Some(("a".to_owned(), count)));
        for (now, expected, label) in [
            (1000, Some(None), "the first"),
            (1000, None, "at once"),
            (1059, None, "within the minute"),
            (1060, repeated(2), "after a minute"),
            (1119, None, "within a minute of the second line"),
            (1300, repeated(1), "long after"),
            (1360, Some(None), "without repetitions"),
        ] {
            assert_eq!(repetitions.count("a", now), expected, "{label}");
        }
    }

    #[test]
    fn another_event_ends_the_repetitions() {
        let mut repetitions = Repetitions::new();
        assert_eq!(repetitions.count("a", 0), Some(None), "a");
        assert_eq!(repetitions.count("b", 0), Some(None), "b");
        assert_eq!(repetitions.count("b", 1), None, "b again");
        assert_eq!(repetitions.count("a", 2), Some(Some(("b".to_owned(), 1))), "a after b");
        assert_eq!(repetitions.end(), None, "without repetitions");
        assert_eq!(repetitions.count("a", 3), Some(None), "after the end");
        assert_eq!(repetitions.count("a", 4), None, "a again");
        assert_eq!(repetitions.end(), Some(("a".to_owned(), 1)), "at the end");
        assert_eq!(repetitions.end(), None, "once");
    }
}
