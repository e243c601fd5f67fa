//! Files that are there as a whole or not at all.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use tempfile::NamedTempFile;

/// Writes a file in one step: whoever reads it, even after a crash or a power
/// cut, finds what was there before or what is there now. Only its owner may
/// write it, and, if it is `secret`, read it.
pub(crate) fn write(path: &Path, text: &[u8], secret: bool) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    // Hidden, so that nobody takes it for a service's; made with 0600.
    let mut file = NamedTempFile::with_prefix_in(".brk-", directory)?;
    file.write_all(text)?;
    #[cfg(unix)]
    if !secret {
        use std::os::unix::fs::PermissionsExt;

        file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    }
    file.as_file().sync_all()?;
    file.persist(path)?;
    sync(directory)
}

/// Removes a file, also for after a power cut.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path)?;
    sync(path.parent().unwrap_or(Path::new(".")))
}

/// The names in a directory, onto the disk.
fn sync(directory: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
}
