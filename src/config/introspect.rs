//! Field names of a settings struct in the order of the code.
//!
//! Neither the JSON schema nor a TOML table keeps that order, but serde's derived code tells
//! it: the names are handed to `deserialize_struct` before any value is asked for.

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// The fields of `T`, first to last; none where `T` is no struct.
pub(super) fn fields<T: Deserialize<'static>>() -> &'static [&'static str] {
    let mut found: &'static [&'static str] = &[];
    // It always ends in an error: there is no value to give.
    drop(T::deserialize(Listener { found: &mut found }));
    found
}

struct Listener<'a> {
    found: &'a mut &'static [&'static str],
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Told(String);

impl Error for Told {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

impl<'de> Deserializer<'de> for Listener<'_> {
    type Error = Told;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Told> {
        *self.found = fields;
        Err(Told::custom("the fields are known now"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Told> {
        Err(Told::custom("not a struct"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        option unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier
        ignored_any
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn fields_come_in_the_order_of_the_code() {
        #[derive(serde::Deserialize)]
        #[expect(dead_code, reason = "only its field names matter")]
        struct Some {
            zebra: u8,
            ant: u8,
        }
        assert_eq!(super::fields::<Some>(), ["zebra", "ant"]);
        assert!(super::fields::<u8>().is_empty());
    }
}
