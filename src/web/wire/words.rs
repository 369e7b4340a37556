//! Schemas of what is a string in JSON: ids, and words that are one of a few.

use std::borrow::Cow;

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use reticle_base::supervise::Life;
use reticle_base::thread::Policy;
use reticle_domain::{alarm, look, pixel_size};
use reticle_store as store;

/// A name in the document for each kind of id. A field of this schema holds the id as text.
macro_rules! ids {
    ($($(#[doc = $doc:literal])+ $name:ident)+) => {$(
        $(#[doc = $doc])+
        pub(in crate::web) struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                text(concat!($($doc),+)).pattern(Some(UUID)).build().into()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                stringify!($name).into()
            }
        }
    )+};
}

/// A name in the document for each enum of words, with the words that its owner lists. A field of
/// this schema holds one of them.
macro_rules! words {
    ($($(#[doc = $doc:literal])+ $name:ident = $words:expr;)+) => {$(
        $(#[doc = $doc])+
        pub(in crate::web) struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                text(concat!($($doc),+)).enum_values(Some($words)).build().into()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                stringify!($name).into()
            }
        }
    )+};
}

const UUID: &str = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$";

fn text(description: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).description(Some(description.trim()))
}

ids! {
    /// A frame, for ever (UUIDv7).
    FrameId
    /// A session, for ever (UUIDv7).
    SessionId
}

words! {
    /// Why a frame has no file.
    NoFile = store::NoFile::ALL.map(|it| it.word());
    /// Who stated a pixel size.
    PixelSizeSource = pixel_size::PixelSizeSource::RANKED.map(|(_, word, _)| word);
    /// Who said how large objects are, and so in which scale the picture was looked at.
    ScaleFrom = look::ScaleFrom::ALL.map(|it| it.word());
    /// In which way a picture is unlike what its model was trained on.
    Unlike = look::Unlike::ALL.map(|it| it.word());
    /// What is wrong; each has its section in the runbook.
    AlarmKind = alarm::AlarmKind::ALL.map(|it| it.word());
    /// Where something is delivered.
    Destination = [store::Destination::Archive.word(), store::Destination::Central.word(), "broker"];
    /// What happens when a thread dies.
    ThreadPolicy = [Policy::Restart, Policy::EndTheProcess].map(Policy::word);
    /// What a thread is doing: `pauses` says that it died and begins again, `dead` that the process
    /// ends of it.
    ThreadState = [Life::Works, Life::Pauses, Life::Dead, Life::Ended].map(Life::word);
}
