//! Who may come in: two tokens, each in a file of its own in the state
//! directory.
//!
//! The files are looked at with each request, and every few seconds for each
//! stream, so that a token which is replaced lets nobody in any more.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use http::{header::AUTHORIZATION, request::Parts};
use sha2::{Digest, Sha256};
use tower_breaker::AdminIdentity;

use crate::config::hand_over;

/// How many random bytes a token is of.
const BYTES: usize = 24;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// May look and steer.
    Operator,
    /// May look.
    Viewer,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Viewer => "viewer",
        }
    }

    fn identity(self) -> AdminIdentity {
        match self {
            Self::Operator => AdminIdentity::operator(self.name()),
            Self::Viewer => AdminIdentity::viewer(self.name()),
        }
    }
}

/// Where a token is kept.
pub fn path(state: &Path, role: Role) -> PathBuf {
    state.join(format!("{}.token", role.name()))
}

/// The token that is there, or a new one.
///
/// # Errors
///
/// If it can't be read or written, others could read it, or it is none.
pub fn read_or_make(path: &Path) -> Result<String, String> {
    match read(path) {
        Ok(token) => Ok(token),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path, false),
        Err(error) => Err(format!("the token in {} can't be used: {error}", path.display())),
    }
}

/// Puts a new one in its place.
///
/// # Errors
///
/// If it can't be written.
pub fn rotate(path: &Path) -> Result<String, String> {
    make(path, true)
}

/// Whole or not at all: nobody ever reads a half, nor before it is theirs alone.
fn make(path: &Path, may_replace: bool) -> Result<String, String> {
    let fail = |error: &dyn std::fmt::Display| {
        format!("the token can't be kept in {}: {error}", path.display())
    };
    let token = random().map_err(|error| fail(&error))?;
    let directory = path.parent().unwrap_or(Path::new("."));
    // What is there already keeps its mode.
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|e| fail(&e))?;
    let mut draft = tempfile::Builder::new()
        .prefix(".token")
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(directory)
        .map_err(|error| fail(&error))?;
    writeln!(draft, "{token}").map_err(|error| fail(&error))?;
    hand_over(draft.as_file(), directory).map_err(|error| fail(&error))?;
    draft.as_file().sync_all().map_err(|error| fail(&error))?;
    if may_replace {
        draft.persist(path).map_err(|error| fail(&error.error))?;
        return Ok(token);
    }
    match draft.persist_noclobber(path) {
        Ok(_) => Ok(token),
        // Somebody else was quicker; theirs is the token.
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
            read(path).map_err(|error| fail(&error))
        }
        Err(error) => Err(fail(&error.error)),
    }
}

/// From the operating system, in hexadecimal digits.
fn random() -> io::Result<String> {
    let mut bytes = [0; BYTES];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A token that is its owner's alone.
fn read(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mode = file.metadata()?.mode() & 0o777;
    if mode & 0o077 != 0 {
        let message = format!("its mode is {mode:03o}, so others may read it; make it 600");
        return Err(io::Error::other(message));
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let token = text.trim();
    let is_right = (16..=512).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic());
    if is_right {
        return Ok(token.to_owned());
    }
    Err(io::Error::other("it must hold 16 to 512 visible characters on one line"))
}

/// The tokens as they are in the files, for whoever asks.
#[derive(Clone, Debug)]
pub struct Tokens(Arc<[Watched; 2]>);

#[derive(Debug)]
struct Watched {
    role: Role,
    path: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// What the file was known by.
    print: Option<Print>,
    /// Of the token. What is compared says nothing of its characters.
    hash: Option<[u8; 32]>,
}

/// Another for another file at the same path, and for another content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Print {
    device: u64,
    inode: u64,
    changed: (i64, i64),
    size: u64,
    mode: u32,
}

impl Tokens {
    /// Makes those that are not there.
    ///
    /// # Errors
    ///
    /// If there can't be both: nothing is listened on without them.
    pub fn of(state: &Path) -> Result<Self, String> {
        let watched = |role| {
            let path = path(state, role);
            read_or_make(&path)?;
            Ok::<_, String>(Watched { role, path, known: Mutex::default() })
        };
        let both = [watched(Role::Operator)?, watched(Role::Viewer)?];
        Ok(Self(Arc::new(both)))
    }

    /// Who sends this, by the one bearer token there is.
    pub fn identify(&self, parts: &Parts) -> Option<AdminIdentity> {
        let mut all = parts.headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (all.next(), all.next()) else { return None };
        let (scheme, token) = value.as_bytes().split_at_checked("bearer ".len())?;
        let hash: [u8; 32] = Sha256::digest(token).into();
        let is_bearer = scheme.eq_ignore_ascii_case(b"bearer ");
        let known = self.0.iter().find(|watched| watched.hash() == Some(hash))?;
        is_bearer.then(|| known.role.identity())
    }
}

impl Watched {
    /// Of the token that the file holds now: none if it holds none, or others
    /// may read it.
    fn hash(&self) -> Option<[u8; 32]> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let print = fs::metadata(&self.path).ok().map(|data| Print {
            device: data.dev(),
            inode: data.ino(),
            changed: (data.ctime(), data.ctime_nsec()),
            size: data.size(),
            mode: data.mode(),
        });
        if print.is_none() || known.print != print {
            let token = read(&self.path).ok();
            let hash = token.map(|token| Sha256::digest(token.as_bytes()).into());
            *known = Known { print, hash };
        }
        known.hash
    }
}
