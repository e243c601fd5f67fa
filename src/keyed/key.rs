//! What a circuit is found by: a text taken from the request.

use std::{borrow::Cow, fmt};

/// The key of a request, or that it has none.
///
/// Made with `into()` from text, whole numbers, and an `Option` of either.
/// Looking up a circuit by it allocates nothing; a key's first call copies it.
///
/// ```
/// use tower_breaker::Key;
///
/// assert_eq!(Key::from("api.example.com").as_str(), Some("api.example.com"));
/// assert_eq!(Key::from(42_u64).as_str(), Some("42"));
/// assert_eq!(Key::from(None::<&str>).as_str(), None);
/// ```
#[derive(Clone)]
pub struct Key<'a>(Repr<'a>);

#[derive(Clone)]
enum Repr<'a> {
    None,
    Text(Cow<'a, str>),
    Number(Digits),
}

/// A number in writing, without a place on the heap.
#[derive(Clone, Copy)]
struct Digits {
    from: u8,
    bytes: [u8; Digits::MOST],
}

impl Key<'_> {
    /// No key: the call goes by the group's shared circuit.
    pub const NONE: Self = Key(Repr::None);

    /// The key as text, if there is one.
    #[inline]
    pub fn as_str(&self) -> Option<&str> {
        match &self.0 {
            Repr::None => None,
            Repr::Text(text) => Some(text),
            Repr::Number(digits) => digits.as_str(),
        }
    }
}

impl Digits {
    const MOST: usize = 20;

    fn new(mut number: u64) -> Self {
        let mut bytes = [b'0'; Self::MOST];
        let mut from = Self::MOST;
        loop {
            from -= 1;
            // A digit, so it fits.
            bytes[from] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                // At most 20.
                return Self { from: from as u8, bytes };
            }
        }
    }

    fn as_str(&self) -> Option<&str> {
        str_of(&self.bytes[usize::from(self.from)..])
    }
}

/// Digits are always text.
fn str_of(digits: &[u8]) -> Option<&str> {
    std::str::from_utf8(digits).ok()
}

impl<'a> From<&'a str> for Key<'a> {
    #[inline]
    fn from(text: &'a str) -> Self {
        Self(Repr::Text(Cow::Borrowed(text)))
    }
}

impl<'a> From<&'a String> for Key<'a> {
    fn from(text: &'a String) -> Self {
        Self(Repr::Text(Cow::Borrowed(text)))
    }
}

impl From<String> for Key<'_> {
    fn from(text: String) -> Self {
        Self(Repr::Text(Cow::Owned(text)))
    }
}

impl<'a> From<Cow<'a, str>> for Key<'a> {
    fn from(text: Cow<'a, str>) -> Self {
        Self(Repr::Text(text))
    }
}

macro_rules! from_number {
    ($($number:ty)*) => {$(
        impl From<$number> for Key<'_> {
            fn from(number: $number) -> Self {
                Self(Repr::Number(Digits::new(number.into())))
            }
        }
    )*};
}

from_number!(u8 u16 u32 u64);

impl From<usize> for Key<'_> {
    fn from(number: usize) -> Self {
        // No wider than 64 bits on any platform there is.
        Self(Repr::Number(Digits::new(number as u64)))
    }
}

impl<'a, T: Into<Key<'a>>> From<Option<T>> for Key<'a> {
    fn from(key: Option<T>) -> Self {
        key.map_or(Self(Repr::None), Into::into)
    }
}

impl fmt::Debug for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_str() {
            Some(text) => write!(f, "Key({text:?})"),
            None => f.write_str("Key::NONE"),
        }
    }
}

/// Takes the key from a request.
///
/// A closure will do, given to
/// [`KeyedCircuitBreakerLayer::new`](crate::KeyedCircuitBreakerLayer::new). For
/// HTTP there are `ByHost`, `ByRoute` and `ByHeader`.
///
/// ```
/// use tower_breaker::{Key, KeyOf};
///
/// struct Query { shard: u32 }
///
/// #[derive(Clone)]
/// struct ByShard;
///
/// impl KeyOf<Query> for ByShard {
///     fn key_of<'a>(&self, query: &'a Query) -> Key<'a> {
///         query.shard.into()
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` finds no key in a request of type `{Request}`",
    note = "give `KeyedCircuitBreakerLayer::new` a closure that does: \
            `|request: &{Request}| request.….into()`"
)]
pub trait KeyOf<Request> {
    /// The key, borrowed from the request where it can be.
    fn key_of<'a>(&self, request: &'a Request) -> Key<'a>;
}

/// A closure that takes the key from a request; made by
/// [`KeyedCircuitBreakerLayer::new`](crate::KeyedCircuitBreakerLayer::new).
#[derive(Clone, Copy)]
pub struct KeyFn<F>(pub(super) F);

impl<F, Request> KeyOf<Request> for KeyFn<F>
where
    F: Fn(&Request) -> Key<'_>,
{
    #[inline]
    fn key_of<'a>(&self, request: &'a Request) -> Key<'a> {
        (self.0)(request)
    }
}

impl<F> fmt::Debug for KeyFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyFn<{}>", std::any::type_name::<F>())
    }
}
