//! When the user signed in, by the claim `auth_time` (OpenID Connect Core, section 2).

/// Microseconds in a second.
const SECOND: i128 = 1_000_000;

/// The time at which the user signed in, and from when on it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignIn {
    /// `auth_time`, rounded down, in seconds since 1970. A fraction counts against the user: the sign-in
    /// has the greatest possible age.
    at: i64,
    /// `auth_time`, rounded up, less the leeway. An earlier clock sees a sign-in in the future.
    counts_from: i64,
}

impl SignIn {
    /// A sign-in at a time that lies between two whole seconds since 1970, or is both.
    pub(crate) fn new(floor: i64, ceil: i64, leeway: i64) -> Self {
        Self { at: floor, counts_from: ceil.saturating_sub(leeway) }
    }

    /// The time, in seconds since 1970.
    pub(crate) fn time(self) -> i64 {
        self.at
    }

    /// Whether the sign-in is at most as old as the span at `now`, in microseconds since 1970. The leeway
    /// does not lengthen the span. A sign-in beyond the leeway in the future is not within any span. A
    /// sign-in within the leeway has the age zero.
    pub fn is_within(self, span: Span, now: i64) -> bool {
        let now = i128::from(now);
        let age = (now - i128::from(self.at) * SECOND).max(0);
        now >= i128::from(self.counts_from) * SECOND && age <= span.0
    }
}

/// A span of time in microseconds. It may be negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(i128);

impl Span {
    /// A span of months of 30 days, days of 24 hours, and microseconds.
    pub const fn new(months: i32, days: i32, microseconds: i64) -> Self {
        const DAY: i128 = 86_400 * SECOND;
        Self(months as i128 * 30 * DAY + days as i128 * DAY + microseconds as i128)
    }

    /// Whether the span is shorter than zero. No sign-in is within it.
    pub const fn is_negative(self) -> bool {
        self.0 < 0
    }

    /// The whole seconds of the span, at most those of 68 years, which every client can read.
    pub(crate) fn whole_seconds(self) -> i64 {
        self.0.div_euclid(SECOND).clamp(0, i128::from(i32::MAX)) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    const NOW: i64 = 1_700_000_000;
    const MINUTE: Span = Span::new(0, 0, 60_000_000);

    #[test]
    fn ages() {
        for (case, sign_in, span, now, expected) in [
            ("just now", SignIn::new(NOW, NOW, 60), MINUTE, NOW * 1_000_000, true),
            ("at the limit", SignIn::new(NOW - 60, NOW - 60, 60), MINUTE, NOW * 1_000_000, true),
            (
                "a microsecond beyond it",
                SignIn::new(NOW - 60, NOW - 60, 60),
                MINUTE,
                NOW * 1_000_000 + 1,
                false,
            ),
            // 1699999940.9
            ("a fraction", SignIn::new(NOW - 60, NOW - 59, 60), MINUTE, NOW * 1_000_000 + 1, false),
            (
                "ahead within the leeway",
                SignIn::new(NOW + 60, NOW + 60, 60),
                MINUTE,
                NOW * 1_000_000,
                true,
            ),
            (
                "a microsecond too far ahead",
                SignIn::new(NOW + 60, NOW + 60, 60),
                MINUTE,
                NOW * 1_000_000 - 1,
                false,
            ),
            (
                "a fraction too far ahead",
                SignIn::new(NOW + 60, NOW + 61, 60),
                MINUTE,
                NOW * 1_000_000,
                false,
            ),
            (
                "ahead, with a span of zero",
                SignIn::new(NOW + 1, NOW + 1, 60),
                Span::new(0, 0, 0),
                NOW * 1_000_000,
                true,
            ),
            (
                "ahead, with a negative span",
                SignIn::new(NOW + 10, NOW + 10, 60),
                Span::new(0, 0, -1),
                NOW * 1_000_000,
                false,
            ),
            (
                "a month of 30 days",
                SignIn::new(NOW - 30 * 86_400, NOW - 30 * 86_400, 0),
                Span::new(1, 0, 0),
                NOW * 1_000_000,
                true,
            ),
            (
                "not of 31",
                SignIn::new(NOW - 30 * 86_400 - 1, NOW - 30 * 86_400 - 1, 0),
                Span::new(1, 0, 0),
                NOW * 1_000_000,
                false,
            ),
            (
                "infinity",
                SignIn::new(-62_135_596_800, -62_135_596_800, 0),
                Span::new(i32::MAX, i32::MAX, i64::MAX),
                i64::MAX,
                true,
            ),
            (
                "infinity, ahead",
                SignIn::new(NOW + 61, NOW + 61, 60),
                Span::new(i32::MAX, i32::MAX, i64::MAX),
                NOW * 1_000_000,
                false,
            ),
            (
                "minus infinity",
                SignIn::new(NOW, NOW, 60),
                Span::new(i32::MIN, i32::MIN, i64::MIN),
                NOW * 1_000_000,
                false,
            ),
        ] {
            assert_eq!(sign_in.is_within(span, now), expected, "{case}");
        }
    }

    #[test]
    fn seconds_are_whole_and_readable() {
        for (span, seconds) in [
            (Span::new(0, 0, 300_000_000), 300),
            (Span::new(0, 0, 1_999_999), 1),
            (Span::new(0, 0, 999_999), 0),
            (Span::new(0, 1, -1), 86_399),
            (Span::new(i32::MAX, i32::MAX, i64::MAX), 2_147_483_647),
        ] {
            assert_eq!(span.whole_seconds(), seconds, "{span:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 2_000,
            rng_seed: RngSeed::Fixed(1),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// Time only takes away: a sign-in that counts now, and did not before, was in the future. A longer
        /// span allows what a shorter one does.
        #[test]
        fn sign_ins_grow_old(
            at in -2_000i64..2_000, leeway in 0i64..100, now in -3_000i64..3_000,
            later in 0i64..3_000, span in -100i64..3_000, longer in 0i64..1_000,
        ) {
            let micros = |seconds: i64| seconds * 1_000_000;
            let sign_in = SignIn::new(at, at, leeway);
            let within = |span: i64, now: i64| sign_in.is_within(Span::new(0, 0, micros(span)), micros(now));
            prop_assert_eq!(
                within(span, now),
                span >= 0 && now >= at - leeway && now - at <= span
            );
            if now >= at - leeway && !within(span, now) {
                prop_assert!(!within(span, now + later));
            }
            if within(span, now) {
                prop_assert!(within(span + longer, now));
            }
        }
    }
}
