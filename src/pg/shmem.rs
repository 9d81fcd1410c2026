//! Named areas in shared memory, of a size that is fixed when the server starts.
//!
//! The postmaster requests and lays out the areas where `shared_preload_libraries` loads the library. After a
//! crash of a backend it lays them out again. Elsewhere an area has no slots. A slot consists of atomics, and no
//! process holds a lock on it.

use std::cell::Cell;
use std::ffi::CStr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use pgrx::pg_sys;
use session_jwt::{Code, Rejection};

use super::backend::BackendLocal;

/// An area of slots of one type. The memory of all processes is a copy of the postmaster's, so that the area is at
/// the same address in each of them.
pub(crate) struct Area<T: 'static> {
    name: &'static CStr,
    /// The number of slots that was requested.
    length: BackendLocal<Cell<usize>>,
    start: BackendLocal<Cell<*mut T>>,
}

impl<T: Sync + Default> Area<T> {
    /// The alignment of areas, and the most that the size of one is rounded up by, in bytes.
    const ALIGNMENT: usize = 128;

    pub(crate) const fn new(name: &'static CStr) -> Self {
        const {
            assert!(align_of::<T>() <= Self::ALIGNMENT, "Postgres aligns areas to cache lines");
            assert!(!std::mem::needs_drop::<T>(), "a slot owns no memory of a process");
        }
        Self {
            name,
            length: BackendLocal::new(Cell::new(0)),
            start: BackendLocal::new(Cell::new(std::ptr::null_mut())),
        }
    }

    /// Requests memory for so many slots. `shmem_request_hook` calls it.
    pub(crate) fn request(&self, length: usize) {
        self.length.set(length);
        if length == 0 {
            return;
        }
        // SAFETY: the hook permits the call, which adds to a static variable.
        unsafe { pg_sys::RequestAddinShmemSpace(self.size() + Self::ALIGNMENT) };
    }

    /// Gives each slot its default value. `shmem_startup_hook` calls it.
    pub(crate) fn lay_out(&self) {
        if self.length.get() == 0 {
            return;
        }
        let mut is_found = false;
        // SAFETY: the name is a static C string. Postgres returns memory of this size, aligned to cache lines,
        // which no other process uses yet.
        unsafe {
            let start = pg_sys::ShmemInitStruct(self.name.as_ptr(), self.size(), &mut is_found);
            let start = start.cast::<T>();
            if !is_found {
                for place in 0..self.length.get() {
                    start.add(place).write(T::default());
                }
            }
            self.start.set(start);
        }
    }

    /// The slots; none where none were requested, or the server has not preloaded the library.
    pub(crate) fn slots(&self) -> &'static [T] {
        let start = self.start.get();
        if start.is_null() {
            return &[];
        }
        // SAFETY: `lay_out` has initialized as many slots, and shared memory stays in place as long as the process
        // lives. A slot changes only by its atomics, because other references to it are shared ones.
        unsafe { std::slice::from_raw_parts(start, self.length.get()) }
    }

    /// The slots, for a function that needs them.
    ///
    /// # Errors
    /// Where the server has not preloaded the library.
    pub(crate) fn required(&self) -> Result<&'static [T], Rejection> {
        let slots = self.slots();
        if slots.is_empty() {
            return Err(Rejection::new(
                Code::Prerequisite,
                "pg_session_jwt must be loaded via shared_preload_libraries",
            )
            .with_detail(
                "The function needs shared memory, which the server reserves when it starts.",
            )
            .with_hint("Add pg_session_jwt to shared_preload_libraries, and restart the server."));
        }
        Ok(slots)
    }

    fn size(&self) -> usize {
        self.length.get() * size_of::<T>()
    }
}

/// The longest text that a [`SharedText`] keeps, in bytes. A longer one is cut on a character boundary.
pub(crate) const LONGEST_TEXT: usize = 255;

/// A text in shared memory. A reader that runs beside a writer gets a mixture of texts, and has to find that out by
/// other means.
#[derive(Default)]
pub(crate) struct SharedText {
    /// The length plus 1; 0 for no text.
    length: AtomicU32,
    words: [AtomicU64; LONGEST_TEXT.div_ceil(WORD)],
}

const WORD: usize = size_of::<u64>();

impl SharedText {
    /// The part of a text that is kept.
    pub(crate) fn kept(text: &str) -> &str {
        text.get(..text.floor_char_boundary(LONGEST_TEXT)).unwrap_or(text)
    }

    pub(crate) fn write(&self, text: Option<&str>) {
        let text = text.map(Self::kept);
        let length = text.map_or(0, |text| text.len() as u32 + 1);
        self.length.store(length, Ordering::Relaxed);
        for (word, chunk) in self.words.iter().zip(text.unwrap_or_default().as_bytes().chunks(WORD))
        {
            let mut bytes = [0; WORD];
            for (byte, from) in bytes.iter_mut().zip(chunk) {
                *byte = *from;
            }
            word.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
        }
    }

    pub(crate) fn read(&self) -> Option<String> {
        let length = self.length.load(Ordering::Relaxed).checked_sub(1)? as usize;
        let words = self.words.iter().map(|word| word.load(Ordering::Relaxed).to_ne_bytes());
        let bytes: Vec<u8> = words.flatten().take(length).collect();
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}
