//! Files that are there as a whole or not at all.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
    time::Duration,
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
    let mut file = NamedTempFile::with_prefix_in(PREFIX, directory)?;
    file.write_all(text)?;
    #[cfg(unix)]
    if !secret {
        use std::os::unix::fs::PermissionsExt;

        file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    }
    if secret {
        hand_over(file.as_file(), directory)?;
    }
    file.as_file().sync_all()?;
    file.persist(path)?;
    sync(directory)
}

/// A flag to open a file by: not if it is a link.
pub(crate) const NO_LINK: i32 = rustix::fs::OFlags::NOFOLLOW.bits() as i32;

/// Gives a file that root has made to whom its directory belongs: the gateway
/// may run as somebody else, who has to read it. Not to be reached by a link: whoever
/// has the directory may have put one there, to a file that is not his.
pub(crate) fn hand_over(file: &File, directory: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, fchown};

        let (made, place) = (file.metadata()?, fs::metadata(directory)?);
        let (uid, gid) = (place.uid(), place.gid());
        if made.uid() == 0 && made.nlink() == 1 && uid != 0 {
            return fchown(file, Some(uid), Some(gid)).map_err(|error| {
                let message = format!("it can't be given to user {uid}, who has the directory");
                io::Error::new(error.kind(), format!("{message}: {error}"))
            });
        }
    }
    Ok(())
}

const PREFIX: &str = ".brk-";

/// Removes what writers left who were killed half-way. One that is writing now
/// is not that old.
pub(crate) fn sweep(directory: &Path) -> io::Result<()> {
    const OLD: Duration = Duration::from_secs(60 * 60);
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let age = || entry.metadata()?.modified().map(|at| at.elapsed().unwrap_or_default());
        if is_ours && age()? > OLD {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn what_a_killed_writer_left_goes_in_time() {
        let directory = tempfile::tempdir().unwrap();
        let make = |name: &str, at: SystemTime| {
            let file = File::create_new(directory.path().join(name)).unwrap();
            file.set_modified(at).unwrap();
        };
        let long_ago = SystemTime::UNIX_EPOCH;
        make(".brk-old", long_ago);
        make("orders.toml", long_ago);
        make(".other", long_ago);
        write(&directory.path().join("new.toml"), b"new", false).unwrap();
        let now = fs::metadata(directory.path().join("new.toml")).unwrap().modified().unwrap();
        make(".brk-new", now);
        sweep(directory.path()).unwrap();
        let names = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, [".brk-new", ".other", "new.toml", "orders.toml"]);
    }
}
