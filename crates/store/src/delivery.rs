//! What is delivered, where, and what became of it: the words of the outbox, which the store and those
//! who deliver share.

use std::time::Duration;

use crate::words::words;
use reticle_base::ids::SessionId;

words! {
    /// Where something is delivered.
    Destination {
        /// Object storage or a folder.
        Archive = "archive",
        /// The lab's PostgreSQL.
        Central = "central",
    }
}

words! {
    /// What a delivery carries.
    Kind {
        /// Name, begin and end of a session, and the shapes of its arrays.
        Session = "session",
        /// Frames of one part.
        Frames = "frames",
        /// Results of one model in one part.
        Results = "results",
        /// Pixels of one part.
        Pixels = "pixels",
    }
}

/// Which part of which series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PartRef {
    /// Key of the series.
    pub series: i64,
    /// Number of the part in it, from 0.
    pub part: u64,
    /// Key of the model, for results.
    pub model: Option<i64>,
}

/// A delivery that was claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its key.
    pub pk: i64,
    /// Where to.
    pub destination: Destination,
    /// What.
    pub kind: Kind,
    /// Of which session.
    pub session: SessionId,
    /// Of which part; `None` for a session.
    pub part: Option<PartRef>,
    /// Greatest key that belonged to it when it was claimed.
    pub requested: i64,
    /// Greatest key that a receipt covers.
    pub delivered: i64,
    /// Failed deliveries in a row.
    pub attempts: u32,
    /// An upload in parts that was begun, as [`Report::Progress`] gave it.
    pub progress: Option<String>,
    /// The destination's high-water mark: deliveries that this store has claimed for it, with
    /// this one. It was committed with the claim, so whoever knows a greater one is not this store.
    pub mark: i64,
}

/// Which deliveries to claim.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Where to.
    pub destination: Destination,
    /// How many at most.
    pub limit: u32,
    /// How long nobody else may have them.
    pub lease: Duration,
    /// Parts that are not full are delivered after this long.
    pub max_delay: Duration,
    /// Deliver all there is, full or not.
    pub drain: bool,
}

/// That a destination has something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Where: bucket, folder or database.
    pub location: String,
    /// Under which key.
    pub key: String,
    /// How many bytes.
    pub bytes: u64,
    /// SHA-256 of them.
    pub sha256: [u8; 32],
    /// What the destination calls this content.
    pub etag: String,
    /// What was read back and compared.
    pub checksum: String,
    /// Rows in it: frames, results or objects.
    pub rows: u64,
}

/// What became of a claimed delivery.
#[derive(Clone, Debug)]
pub enum Report {
    /// It is there.
    Delivered {
        /// Which.
        item: i64,
        /// Greatest key that was delivered.
        upto: i64,
        /// Rows that were delivered.
        rows: u64,
        /// What the destination answered. Empty for a database: its commit is the receipt.
        receipts: Vec<Receipt>,
    },
    /// It was not taken, and may be later.
    Failed {
        /// Which.
        item: i64,
        /// How long to wait.
        wait: Duration,
        /// Why.
        reason: String,
    },
    /// One frame or result of it can never be taken. The others can, at once.
    Refused {
        /// Which delivery.
        item: i64,
        /// Key of the frame, or of the result.
        subject: i64,
        /// Why.
        reason: String,
    },
    /// It can never be taken as a whole.
    Quarantined {
        /// Which.
        item: i64,
        /// Why.
        reason: String,
    },
    /// The destination knows more than this store. Nothing is claimed for it in this epoch any more.
    Conflict {
        /// Which delivery found it.
        item: i64,
        /// What was found, and what to do.
        reason: String,
        /// The mark that the destination has; 0 where it is not greater.
        high_water: i64,
    },
    /// How far an upload in parts has come; `None` when it is over.
    Progress {
        /// Which delivery.
        item: i64,
        /// To be given back with the next claim.
        progress: Option<String>,
    },
}

/// Where things are delivered, by the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deliveries {
    /// Name of the archive's place, as `s3://lab/box-1`.
    pub archive: Option<String>,
    /// Which kept frames the archive gets with their pixels.
    pub pixels: crate::options::Keep,
    /// Name of the database's place.
    pub central: Option<String>,
}

impl Deliveries {
    /// The places, by destination.
    pub(crate) fn locations(&self) -> impl Iterator<Item = (Destination, &str)> {
        let archive = self.archive.as_deref().map(|location| (Destination::Archive, location));
        let central = self.central.as_deref().map(|location| (Destination::Central, location));
        archive.into_iter().chain(central)
    }
}
