//! Clusters that the tests of a process share.

use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::{Cluster, Preload};

/// What a test needs before it begins: a cluster, and what was put into it.
pub trait Fixture {
    /// The cluster.
    fn cluster(&self) -> &Cluster;
}

/// A fixture for each way of loading, started by the first test that asks for it. The guard of the
/// cluster stops it when the process ends.
///
/// Tests that share a cluster use roles, databases and tables of their own, for their order is not
/// defined.
pub struct Shared<T> {
    start: fn(Preload) -> T,
    fixtures: [OnceLock<Mutex<T>>; Preload::ALL.len()],
}

/// A shared fixture that one test has to itself, until it drops this.
pub struct Turn<T: Fixture + 'static>(MutexGuard<'static, T>);

impl<T> Shared<T> {
    /// Fixtures that this function starts.
    pub const fn new(start: fn(Preload) -> T) -> Self {
        Self { start, fixtures: [const { OnceLock::new() }; Preload::ALL.len()] }
    }
}

impl<T: Fixture> Shared<T> {
    /// The fixture for this way of loading; waits until no other test uses it.
    pub fn turn(&'static self, preload: Preload) -> Turn<T> {
        let fixture = &self.fixtures[preload as usize];
        let fixture = fixture.get_or_init(|| Mutex::new((self.start)(preload)));
        // A test that failed has released it, too.
        Turn(fixture.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<T: Fixture> Deref for Turn<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Fixture> Drop for Turn<T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.cluster().print_log();
        } else {
            self.cluster().assert_no_faults();
        }
    }
}

/// A test for each way of loading, for each of these functions. They take a fixture, which
/// `$shared` has.
#[macro_export]
macro_rules! test_each_preload {
    ($shared:path: $($topic:ident),+ $(,)?) => {
        $(
            mod $topic {
                #[test]
                fn preloaded_by_the_server() {
                    super::$topic(&$shared.turn($crate::Preload::Shared));
                }

                #[test]
                fn preloaded_by_each_session() {
                    super::$topic(&$shared.turn($crate::Preload::Session));
                }

                #[test]
                fn loaded_by_the_first_call() {
                    super::$topic(&$shared.turn($crate::Preload::Neither));
                }
            }
        )+
    };
}
