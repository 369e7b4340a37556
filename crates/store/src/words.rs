//! Enums that the database holds as words.

/// An enum that the database holds as a word.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($values:tt)+ }) => {
        reticle_base::words! { $(#[$doc])* $name { $($values)+ } }

        impl rusqlite::ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
                Ok(self.word().into())
            }
        }

        impl rusqlite::types::FromSql for $name {
            fn column_result(
                value: rusqlite::types::ValueRef<'_>,
            ) -> rusqlite::types::FromSqlResult<Self> {
                Self::of_word(value.as_str()?).ok_or(rusqlite::types::FromSqlError::InvalidType)
            }
        }
    };
}

pub(crate) use words;
