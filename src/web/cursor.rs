//! Cursors of lists: where a reader is, and in which epoch of the store.
//!
//! After a restore the store may give the same place in the order of commits to another result. A
//! reader that went on from its old place would miss what is there now, so each cursor carries its
//! epoch, and one of an older epoch is refused. A cursor is a text that clients do not take apart:
//! none can forget its epoch.

use std::fmt;
use std::str::FromStr;

use super::problem::Problem;
use reticle_base::ids::EpochId;

/// Behind which result the next part of a list begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    epoch: EpochId,
    place: u64,
}

impl Cursor {
    /// Behind the result with this place in the order of commits; 0 is before the first.
    pub(super) fn new(epoch: EpochId, place: u64) -> Self {
        Self { epoch, place }
    }

    /// Reads a cursor of this epoch, and gives its place.
    ///
    /// # Errors
    /// 400 for what is no cursor, 409 for one of another epoch.
    pub(super) fn read(text: &str, epoch: EpochId) -> Result<u64, Problem> {
        let cursor: Self = text.parse().map_err(|NoCursor| {
            Problem::bad_request(format!(
                "`{text}` is no cursor; give `next` of an earlier answer, as it was"
            ))
        })?;
        if cursor.epoch != epoch {
            return Err(Problem::old_cursor(
                "since this cursor was given, the store was restored from a backup or read back \
                 from its archive, so that results may stand in another order now: start again \
                 without `after`, and tell by their ids which you have",
            ));
        }
        Ok(cursor.place)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", hex::encode(self.epoch.as_bytes()), self.place)
    }
}

/// That a text is no cursor.
#[derive(Debug)]
pub(super) struct NoCursor;

impl FromStr for Cursor {
    type Err = NoCursor;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (epoch, place) = text.split_once('-').ok_or(NoCursor)?;
        let mut bytes = [0; 16];
        hex::decode_to_slice(epoch, &mut bytes).map_err(|_wrong| NoCursor)?;
        let place = place.parse().map_err(|_wrong| NoCursor)?;
        Ok(Self { epoch: EpochId::from_bytes(bytes), place })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_in_its_own_epoch_alone() {
        let (now, before) = (EpochId::new(), EpochId::new());
        let text = Cursor::new(now, 42).to_string();
        assert_eq!(Cursor::read(&text, now).unwrap(), 42);
        let old = Cursor::read(&text, before).unwrap_err();
        assert!(format!("{old:?}").contains("old-cursor"), "{old:?}");
        for wrong in ["", "42", "x-42", &text.replace("-42", "-"), &text.replace("-42", "--1")] {
            let problem = Cursor::read(wrong, now).unwrap_err();
            assert!(format!("{problem:?}").contains("bad-request"), "{wrong}: {problem:?}");
        }
    }
}
