//! What a caller sent, read field by field: each is known, and of its kind.

use std::{collections::BTreeSet, fmt, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

use super::refusal::Refusal;

/// Whether a text reads as it is written, wherever it is shown: it has no
/// control characters, none that separate lines, and none that reverse what
/// comes after them.
pub(super) fn is_one_line(text: &str) -> bool {
    let hides = |character| matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !text.chars().any(|character| character.is_control() || hides(character))
}

/// Refuses an object that has a field twice: one of the two would go unheard.
fn unique(body: &[u8]) -> Result<(), serde_json::Error> {
    serde_json::from_slice(body).map(|Unique| ())
}

/// JSON in which no object has a field twice.
struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            map.next_value::<Self>()?;
            if seen.contains(&key) {
                let shown: String = key.chars().take(80).collect();
                return Err(de::Error::custom(format_args!(
                    "the body has the field {shown:?} twice"
                )));
            }
            seen.insert(key);
        }
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Self, A::Error> {
        while let Some(Self) = all.next_element()? {}
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }
}

/// The fields of a JSON object that nobody has asked for yet.
pub(super) struct Fields {
    all: Map<String, Value>,
    /// The name of what holds them, with a dot, or nothing.
    prefix: &'static str,
    known: Vec<&'static str>,
}

impl Fields {
    /// Reads a body that must be an object.
    pub(super) fn of_body(body: &[u8]) -> Result<Self, Refusal> {
        match serde_json::from_slice(body).and_then(|all| unique(body).map(|()| all)) {
            Ok(Value::Object(all)) => Ok(Self::of(all, "")),
            Ok(_) => Err(Refusal::malformed("the body must be a JSON object")),
            Err(error) if error.is_data() => Err(Refusal::malformed(error.to_string())),
            Err(error) => Err(Refusal::malformed(format!("the body is not JSON: {error}"))),
        }
    }

    pub(super) fn of(all: Map<String, Value>, prefix: &'static str) -> Self {
        Self { all, prefix, known: Vec::new() }
    }

    /// Takes a field out; one that is `null` is absent.
    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.all.remove(name).filter(|value| !value.is_null())
    }

    fn invalid(&self, name: &str, expected: &str) -> Refusal {
        Refusal::invalid(&format!("{}{name}", self.prefix), expected)
    }

    /// One of these words.
    pub(super) fn word(
        &mut self,
        name: &'static str,
        words: &[&'static str],
    ) -> Result<&'static str, Refusal> {
        let said = self.take(name);
        let said = said.as_ref().and_then(Value::as_str);
        let found = words.iter().find(|word| said == Some(word));
        found.copied().ok_or_else(|| self.invalid(name, &format!("must be {}", OneOf(words))))
    }

    /// Why: what stands in the event, for whoever looks later.
    pub(super) fn reason(&mut self) -> Result<String, Refusal> {
        const LONGEST: usize = 500;
        let said = self.take("reason");
        let said = said.as_ref().and_then(Value::as_str).map(str::trim).unwrap_or_default();
        if !(1..=LONGEST).contains(&said.chars().count()) {
            return Err(self.invalid("reason", "is needed: 1 to 500 characters that say why"));
        }
        if !is_one_line(said) {
            let expected = "must be one line, without control characters, line separators and \
                            marks that turn the direction of the text";
            return Err(self.invalid("reason", expected));
        }
        Ok(said.to_owned())
    }

    /// A whole number from zero up, if it is there.
    pub(super) fn number(&mut self, name: &'static str) -> Result<Option<u64>, Refusal> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let number = value.as_u64();
        let invalid = || self.invalid(name, "must be a whole number from 0 to 2^64 - 1");
        number.map(Some).ok_or_else(invalid)
    }

    /// How long an override is to hold: `None` until it is cleared.
    pub(super) fn expires_in(&mut self) -> Result<Option<Duration>, Refusal> {
        const HOUR: Duration = Duration::from_secs(60 * 60);
        const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);
        let name = "expires_in";
        let expected = "must be a time from \"1s\" to \"366d\", as \"30m\" or \"1h 30m\", \
                        or \"until_cleared\"";
        let duration = match self.take(name) {
            None => return Ok(Some(HOUR)),
            Some(Value::String(said)) if said == "until_cleared" => return Ok(None),
            Some(Value::String(said)) => humantime::parse_duration(&said).ok(),
            Some(_) => None,
        };
        match duration {
            Some(time) if (Duration::from_secs(1)..=LONGEST).contains(&time) => Ok(Some(time)),
            _ => Err(self.invalid(name, expected)),
        }
    }

    /// A list of texts, if it is there.
    pub(super) fn texts(&mut self, name: &'static str) -> Result<Option<Vec<String>>, Refusal> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let texts = value.as_array().and_then(|all| all.iter().map(text).collect());
        texts.map(Some).ok_or_else(|| self.invalid(name, "must be a list of strings"))
    }

    /// A list, if it is there, each of which is read so.
    pub(super) fn list<T>(
        &mut self,
        name: &'static str,
        read: impl Fn(Value) -> Result<T, Refusal>,
    ) -> Result<Option<Vec<T>>, Refusal> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Array(all)) => {
                all.into_iter().map(read).collect::<Result<_, _>>().map(Some)
            }
            Some(_) => Err(self.invalid(name, "must be a list")),
        }
    }

    /// A text, if it is there.
    pub(super) fn text(&mut self, name: &'static str) -> Result<Option<String>, Refusal> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.invalid(name, "must be a string")),
        }
    }

    /// An object, if it is there, whose fields are named behind `prefix`.
    pub(super) fn object(
        &mut self,
        name: &'static str,
        prefix: &'static str,
    ) -> Result<Option<Self>, Refusal> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(all)) => Ok(Some(Self::of(all, prefix))),
            Some(_) => Err(self.invalid(name, "must be an object")),
        }
    }

    /// What nobody has asked for.
    pub(super) fn rest(self) -> Map<String, Value> {
        self.all
    }

    /// Refuses what nobody has asked for: a misspelt `if_generation` would be
    /// a wish that goes unheard.
    pub(super) fn finish(self) -> Result<(), Refusal> {
        match self.all.keys().next() {
            None => Ok(()),
            Some(unknown) => {
                let shown: String = unknown.chars().take(80).collect();
                let expected = format!("is not known here; known are {}", OneOf(&self.known));
                Err(Refusal::invalid(&format!("{}{shown}", self.prefix), &expected))
            }
        }
    }
}

/// The parameters of a query that nobody has asked for yet.
pub(super) struct Query {
    all: Vec<(String, String)>,
    known: Vec<&'static str>,
}

impl Query {
    pub(super) fn of(query: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        Self { all: pairs.into_owned().collect(), known: Vec::new() }
    }

    /// A parameter, if it is there, and once.
    pub(super) fn text(&mut self, name: &'static str) -> Result<Option<String>, Refusal> {
        self.known.push(name);
        let place = |all: &[(String, String)]| all.iter().position(|(known, _)| known == name);
        let Some(first) = place(&self.all) else { return Ok(None) };
        let (_, value) = self.all.remove(first);
        match place(&self.all) {
            None => Ok(Some(value)),
            Some(_) => Err(Refusal::invalid(name, "must be there once")),
        }
    }

    /// A whole number, if it is there.
    pub(super) fn number(&mut self, name: &'static str, most: u64) -> Result<Option<u64>, Refusal> {
        let Some(value) = self.text(name)? else { return Ok(None) };
        let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        match value.parse() {
            Ok(number) if digits && number <= most => Ok(Some(number)),
            _ => Err(Refusal::invalid(name, &format!("must be a whole number from 0 to {most}"))),
        }
    }

    /// One of these words, if it is there.
    pub(super) fn word(
        &mut self,
        name: &'static str,
        words: &[&'static str],
    ) -> Result<Option<&'static str>, Refusal> {
        let Some(value) = self.text(name)? else { return Ok(None) };
        match words.iter().find(|word| value == **word) {
            Some(word) => Ok(Some(word)),
            None => Err(Refusal::invalid(name, &format!("must be {}", OneOf(words)))),
        }
    }

    pub(super) fn finish(self) -> Result<(), Refusal> {
        match self.all.first() {
            None => Ok(()),
            Some((unknown, _)) => {
                let shown: String = unknown.chars().take(80).collect();
                let expected = format!("is not known here; known are {}", OneOf(&self.known));
                Err(Refusal::invalid(&shown, &expected))
            }
        }
    }
}

/// `a, b or c`.
pub(super) struct OneOf<'a>(pub(super) &'a [&'static str]);

impl fmt::Display for OneOf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.0.iter().enumerate() {
            let separator = match index {
                0 => "",
                _ if index + 1 == self.0.len() => " or ",
                _ => ", ",
            };
            write!(f, "{separator}{word}")?;
        }
        Ok(())
    }
}
