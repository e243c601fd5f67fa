//! A table of keys, of which each is known or refused with the nearest one
//! that is.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, Visitor};

/// The settings of one table.
pub(super) trait Table: Default {
    /// The setting that the table is for; empty for the outermost.
    const SETTING: &'static str;
    const KEYS: &'static [&'static str];

    type Built;

    /// Takes the value of a key, which comes once.
    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        key: &'static str,
        from: &mut A,
    ) -> Result<(), A::Error>;

    /// What they make together.
    fn build<E: de::Error>(self) -> Result<Self::Built, E>;
}

/// Reads a [`Table`].
pub(super) struct Object<T>(T);

impl<T: Table> Object<T> {
    pub(super) fn new() -> Self {
        Self(T::default())
    }
}

/// A key that has to be there.
pub(super) fn required<T, E: de::Error>(value: Option<T>, key: &str) -> Result<T, E> {
    value.ok_or_else(|| E::custom(format_args!("the key `{key}` is missing")))
}

/// A key there is not; the nearest there is is told.
fn unknown<E: de::Error>(table: &str, key: &str, known: &[&str]) -> E {
    const NEAR: f64 = 0.75;
    let dot = if table.is_empty() { "" } else { "." };
    let likenesses = known.iter().map(|known| (strsim::jaro_winkler(key, known), known));
    match likenesses.max_by(|(one, _), (other, _)| one.total_cmp(other)) {
        Some((likeness, nearest)) if likeness > NEAR => E::custom(format_args!(
            "unknown key `{table}{dot}{key}`, did you mean `{table}{dot}{nearest}`?"
        )),
        _ => E::custom(format_args!(
            "unknown key `{table}{dot}{key}`, there are `{}`",
            known.join("`, `")
        )),
    }
}

impl<'de, T: Table> DeserializeSeed<'de> for Object<T> {
    type Value = T::Built;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<T::Built, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de, T: Table> Visitor<'de> for Object<T> {
    type Value = T::Built;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match T::SETTING {
            "" => f.write_str("the settings of a circuit by name"),
            setting => write!(f, "{setting} to have the keys `{}`", T::KEYS.join("`, `")),
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut from: A) -> Result<T::Built, A::Error> {
        let mut seen = Vec::new();
        while let Some(key) = from.next_key_seed(Key { table: T::SETTING, known: T::KEYS })? {
            if seen.contains(&key) {
                return Err(de::Error::custom(format_args!("the key `{key}` is there twice")));
            }
            seen.push(key);
            self.0.read(key, &mut from)?;
        }
        self.0.build()
    }
}

/// One of the known keys.
struct Key {
    table: &'static str,
    known: &'static [&'static str],
}

impl<'de> DeserializeSeed<'de> for Key {
    type Value = &'static str;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<&'static str, D::Error> {
        from.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Key {
    type Value = &'static str;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a setting")
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<&'static str, E> {
        let known = self.known.iter().find(|known| **known == word);
        known.copied().ok_or_else(|| unknown(self.table, word, self.known))
    }
}
