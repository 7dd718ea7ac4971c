//! A handle by which another thread (the one that hears signals) ends an attempt at once.
//!
//! A wait cannot be told to stop, but what it waits for can be taken away: whoever starts one registers how
//! (a socket is shut down, a channel is filled), and [`Interrupt::trip`] does it. What was registered is
//! forgotten with its owner. Nothing here fails.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// How to end one wait. The owner of the wait keeps it; the interrupt only remembers it.
pub(crate) type Ending = Arc<dyn Fn() + Send + Sync>;

/// Cloneable; all clones are one. Once tripped it stays so.
#[derive(Clone, Default)]
pub struct Interrupt(Arc<State>);

#[derive(Default)]
struct State {
    tripped: AtomicBool,
    /// No attempt is begun any more; those that run may end in their own time.
    winding_down: AtomicBool,
    endings: Mutex<Vec<Weak<dyn Fn() + Send + Sync>>>,
}

impl Interrupt {
    /// Ends every attempt that runs under this handle, and those that start later.
    pub fn trip(&self) {
        self.0.tripped.store(true, Ordering::SeqCst);
        for ending in self.endings().iter().filter_map(Weak::upgrade) {
            ending();
        }
    }

    /// Lets the attempts that run come to their end, and none begin.
    pub fn wind_down(&self) {
        self.0.winding_down.store(true, Ordering::SeqCst);
    }

    /// Whether no attempt is to be begun any more.
    pub fn is_winding_down(&self) -> bool {
        self.0.winding_down.load(Ordering::SeqCst) || self.is_tripped()
    }

    /// Whether somebody has tripped it.
    pub fn is_tripped(&self) -> bool {
        self.0.tripped.load(Ordering::SeqCst)
    }

    /// Remembers how to end a wait for as long as its owner keeps `ending`; runs it now if already tripped.
    pub(crate) fn register(&self, ending: &Ending) {
        let mut endings = self.endings();
        endings.retain(|old| old.strong_count() > 0);
        endings.push(Arc::downgrade(ending));
        drop(endings);
        if self.is_tripped() {
            ending();
        }
    }

    /// A thread that panicked while it held the lock has left a list that is still good.
    fn endings(&self) -> std::sync::MutexGuard<'_, Vec<Weak<dyn Fn() + Send + Sync>>> {
        self.0.endings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Interrupt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Interrupt").field(&self.is_tripped()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    fn counting() -> (Arc<AtomicUsize>, Ending) {
        let count = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&count);
        let ending = move || {
            seen.fetch_add(1, Ordering::SeqCst);
        };
        (count, Arc::new(ending))
    }

    #[test]
    fn every_wait_under_the_handle_ends_and_those_that_start_later_too() {
        let interrupt = Interrupt::default();
        let (early, early_ending) = counting();
        let (late, late_ending) = counting();
        interrupt.register(&early_ending);
        interrupt.clone().trip();
        interrupt.register(&late_ending);
        assert!(interrupt.is_tripped());
        assert_eq!((early.load(Ordering::SeqCst), late.load(Ordering::SeqCst)), (1, 1));
    }

    #[test]
    fn a_wait_that_is_over_is_forgotten() {
        let interrupt = Interrupt::default();
        let (count, ending) = counting();
        interrupt.register(&ending);
        drop(ending);
        interrupt.trip();
        assert_eq!(count.load(Ordering::SeqCst), 0);
    }
}
