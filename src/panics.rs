//! Code that is somebody else's, and may panic.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Runs it. Nothing, if it panics: the hook has reported that, and there is nobody
/// else to tell.
#[inline]
pub(crate) fn contain<R>(run: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(returned) => Some(returned),
        Err(panic) => {
            forget(panic);
            None
        }
    }
}

/// Drops what it panicked with, which may panic as well.
#[cold]
#[inline(never)]
fn forget(panic: Box<dyn std::any::Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        mem::forget(again);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_it_panics_with_goes_no_further() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                std::panic::panic_any(Self);
            }
        }
        assert_eq!(contain(|| 1), Some(1));
        assert_eq!(contain(|| panic!("once")), None::<()>);
        assert_eq!(contain(|| std::panic::panic_any(Bomb)), None::<()>);
    }
}
