//! The word to stop, from one to many.

use tokio::sync::watch;

/// Hears of the stop. Clones hear the same.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

/// Says it. Dropping it says it too: who waits for a stop must not wait for
/// one that can't come any more.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

impl Stop {
    /// The two ends.
    pub fn new() -> (Stopper, Stop) {
        let (sender, receiver) = watch::channel(false);
        (Stopper(sender), Stop(receiver))
    }

    /// Whether the word has been given.
    pub fn is_told(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Waits for the word, or returns at once if it has been given.
    pub async fn told(&mut self) {
        // An error is a stopper that was dropped.
        let _ = self.0.wait_for(|told| *told).await;
    }
}

impl Stopper {
    /// Gives the word to all.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}
