//! Clusters that the tests of a process share.

use std::ops::Deref;
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::{Cluster, Preload};

/// What a test needs before it begins: a cluster, and what was put into it.
pub trait Fixture {
    /// The cluster.
    fn cluster(&self) -> &Cluster;
}

/// A fixture for each way of loading, started by the first test that asks for it. The guard of the
/// cluster stops it when the process ends.
///
/// The order of tests is not defined. A test that stores something uses roles, databases and tables of its
/// own, or takes it back.
pub struct Shared<T> {
    start: fn(Preload) -> T,
    fixtures: [OnceLock<RwLock<T>>; Preload::ALL.len()],
}

/// A shared fixture, for as long as a test uses it.
pub struct Loan<T: Fixture, L: Deref<Target = T>>(L);

impl<T> Shared<T> {
    /// Fixtures that this function starts.
    pub const fn new(start: fn(Preload) -> T) -> Self {
        Self { start, fixtures: [const { OnceLock::new() }; Preload::ALL.len()] }
    }

    fn fixture(&'static self, preload: Preload) -> &'static RwLock<T> {
        self.fixtures[preload as usize].get_or_init(|| RwLock::new((self.start)(preload)))
    }
}

impl<T: Fixture> Shared<T> {
    /// The fixture for this way of loading, when no other test uses it.
    pub fn alone(&'static self, preload: Preload) -> Loan<T, RwLockWriteGuard<'static, T>> {
        // A test that has failed has released it, too.
        Loan(self.fixture(preload).write().unwrap_or_else(PoisonError::into_inner))
    }

    /// The same together with others, for a test that none of them can disturb.
    pub fn beside_others(&'static self, preload: Preload) -> Loan<T, RwLockReadGuard<'static, T>> {
        Loan(self.fixture(preload).read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<T: Fixture, L: Deref<Target = T>> Deref for Loan<T, L> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Fixture, L: Deref<Target = T>> Drop for Loan<T, L> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.cluster().print_log();
        } else {
            self.cluster().assert_no_faults();
        }
    }
}

/// A test for each way of loading, for each of these functions. They take a way of loading; or, where
/// fixtures are named before a colon, one of those.
#[macro_export]
macro_rules! test_each_preload {
    ($shared:path: $($topic:ident),+ $(,)?) => {
        $crate::test_each_preload!(@ (&$shared.alone) $($topic)+);
    };
    ($($topic:ident),+ $(,)?) => {
        $crate::test_each_preload!(@ () $($topic)+);
    };
    (@ $fixture:tt $($topic:ident)+) => {
        $(
            mod $topic {
                #[test]
                fn preloaded_by_the_server() {
                    $crate::test_each_preload!(@call $fixture $topic Shared);
                }

                #[test]
                fn preloaded_by_each_session() {
                    $crate::test_each_preload!(@call $fixture $topic Session);
                }

                #[test]
                fn loaded_by_the_first_call() {
                    $crate::test_each_preload!(@call $fixture $topic Neither);
                }
            }
        )+
    };
    (@call () $topic:ident $preload:ident) => {
        super::$topic($crate::Preload::$preload)
    };
    (@call (& $($fixture:tt)+) $topic:ident $preload:ident) => {
        super::$topic(&$($fixture)+($crate::Preload::$preload))
    };
}
