//! Facts of an event, by name: a signal and what became of it, a status. Thousands of events a second are told, so the names
//! and words that this program knows itself are not copied.

use std::{borrow::Cow, fmt, ops::Deref};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
};
use serde_json::Value;

/// In the order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts(Vec<(Cow<'static, str>, Fact)>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    Word(Cow<'static, str>),
    /// Anything but a string.
    Other(Value),
}

impl Facts {
    /// Names that are the same are a mistake of the caller.
    pub fn new<const N: usize>(mut facts: [(&'static str, Fact); N]) -> Self {
        facts.sort_by_key(|(name, _)| *name);
        debug_assert!(
            facts.is_sorted_by(|(a, _), (b, _)| a < b),
            "the same name twice: {facts:?}"
        );
        Self(facts.map(|(name, fact)| (Cow::Borrowed(name), fact)).into())
    }

    pub fn get(&self, name: &str) -> Option<&Fact> {
        self.iter()
            .find(|(known, _)| *known == name)
            .map(|(_, fact)| fact)
    }

    /// A copy of one; `null` where there is none.
    pub fn value(&self, name: &str) -> Value {
        match self.get(name) {
            None => Value::Null,
            Some(Fact::Word(text)) => text.deref().into(),
            Some(Fact::Other(value)) => value.clone(),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Fact)> {
        self.0.iter().map(|(name, fact)| (name.deref(), fact))
    }
}

impl Fact {
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Word(text) => Some(text),
            Self::Other(_) => None,
        }
    }
}

impl From<&'static str> for Fact {
    fn from(word: &'static str) -> Self {
        Self::Word(Cow::Borrowed(word))
    }
}

impl From<Cow<'static, str>> for Fact {
    fn from(word: Cow<'static, str>) -> Self {
        Self::Word(word)
    }
}

impl From<Value> for Fact {
    fn from(value: Value) -> Self {
        match value {
            Value::String(text) => Self::Word(Cow::Owned(text)),
            other => Self::Other(other),
        }
    }
}

/// Of an object; anything else has no facts.
impl From<Value> for Facts {
    fn from(value: Value) -> Self {
        let Value::Object(facts) = value else {
            return Self::default();
        };
        facts
            .into_iter()
            .map(|(name, value)| (Cow::Owned(name), value.into()))
            .collect()
    }
}

impl FromIterator<(Cow<'static, str>, Fact)> for Facts {
    fn from_iter<I: IntoIterator<Item = (Cow<'static, str>, Fact)>>(facts: I) -> Self {
        let mut facts: Vec<_> = facts.into_iter().collect();
        facts.sort_by(|(a, _), (b, _)| a.cmp(b));
        facts.dedup_by(|(a, _), (b, _)| a == b);
        Self(facts)
    }
}

impl Serialize for Fact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Word(text) => serializer.serialize_str(text),
            Self::Other(value) => value.serialize(serializer),
        }
    }
}

impl Serialize for Facts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Facts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Facts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of facts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Facts, A::Error> {
                let mut facts = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    facts.push((Cow::Owned(name), value.into()));
                }
                Ok(facts.into_iter().collect())
            }
        }

        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn facts_are_the_same_object_however_they_were_made() {
        let made = Facts::new([
            ("signal", "HUP".into()),
            ("code", Cow::<str>::Owned("7".to_owned()).into()),
            ("count", json!(3).into()),
        ]);
        let text = serde_json::to_string(&made).unwrap();
        assert_eq!(text, r#"{"code":"7","count":3,"signal":"HUP"}"#);
        assert_eq!(serde_json::from_str::<Facts>(&text).unwrap(), made);
        assert_eq!(
            Facts::from(json!({ "signal": "HUP", "count": 3, "code": "7" })),
            made
        );
        assert_eq!(made.value("signal"), "HUP");
        assert_eq!(made.value("count"), 3);
        assert_eq!(made.value("absent"), Value::Null);
    }
}
