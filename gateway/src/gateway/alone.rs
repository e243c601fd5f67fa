//! One gateway for each state directory: two would each write over what the
//! other has saved.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process,
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use crate::config::{NO_LINK, hand_over};

/// A state directory of one's own, until it is dropped or the process ends,
/// however that comes.
#[derive(Debug)]
pub struct Alone(#[expect(dead_code, reason = "the lock is the file's")] Option<File>);

impl Alone {
    /// Takes a state directory, which has to be there. Where nothing can be
    /// written or locked nobody else can either: then it goes on with a warning.
    ///
    /// # Errors
    ///
    /// If another gateway has it.
    pub fn with(state: &Path) -> io::Result<Self> {
        let path = state.join("lock");
        let cant = |error: &dyn std::fmt::Display| {
            tracing::warn!("{} can't be locked against a second gateway: {error}", path.display());
            Ok(Self(None))
        };
        let open = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags(NO_LINK)
            .open(&path);
        let mut file = match open {
            Ok(file) => file,
            Err(error) => return cant(&error),
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut process = String::new();
                let _ = file.read_to_string(&mut process);
                return Err(io::Error::other(format!(
                    "another gateway runs with the state in {} (process {}); end it, or give \
                     this one another `admin.state`",
                    state.display(),
                    process.trim(),
                )));
            }
            Err(error) => return cant(&error),
        }
        // For whoever comes after root, and for whoever comes second. That they
        // lack it does no harm.
        let _ = hand_over(&file, state);
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", process::id()));
        Ok(Self(Some(file)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_one_gateways_until_that_ends() {
        let state = tempfile::tempdir().unwrap();
        let first = Alone::with(state.path()).unwrap();
        let error = Alone::with(state.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("(process {})", process::id())), "{error}");
        drop(first);
        Alone::with(state.path()).unwrap();
    }
}
