//! Identifiers: UUIDv7, so that they sort by the time they were made.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash,
            serde::Serialize, serde::Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id, later than every id this process made before.
            #[expect(clippy::new_without_default, reason = "an id is never a default value")]
            #[expect(clippy::disallowed_methods, reason = "this is where ids are made")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// The sixteen bytes, as the database holds them.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// From the sixteen bytes of [`Self::as_bytes`].
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

id!(
    /// Names one frame, on every box, for ever.
    FrameId
);
impl FrameId {
    /// The id that is greater by `steps`: of the same time, for frames that one event brought, as
    /// the pages of a file. Made again of the same id, it is the same again.
    #[must_use]
    pub fn later_by(self, steps: u64) -> Self {
        // Version and variant stand above the lowest 62 bits, which are random: no carry leaves
        // them except by an accident of one in 2^30 and more.
        const FREE: u128 = (1 << 62) - 1;
        let value = self.0.as_u128();
        let low = (value & FREE).wrapping_add(u128::from(steps)) & FREE;
        Self(Uuid::from_u128(value & !FREE | low))
    }
}
id!(
    /// Names one acquisition: a plate or slide imaged in one go.
    SessionId
);
id!(
    /// Names one store: the database of one box, for as long as it lives.
    StoreId
);
id!(
    /// Names the time between two restores of a store.
    EpochId
);
id!(
    /// Names one thing that happened, for ever.
    EventId
);
