//! Table of results: one row for each frame that a model segmented, with or without objects.
//!
//! | column | meaning |
//! |---|---|
//! | `frame`, `session`, `model`, `model_name`, `model_sha256` | ids; the model's key, name and checksum |
//! | `objects` | how many |
//! | `focus` | 0 to 1; empty where it could not be told |
//! | `normalise_us` … `measure_us` | where the time went |
//! | `committed_at`, `committed_recorded_at` | when it was saved, as known now, and as the box's clock said then |
//! | `committed_mono_ns`, `committed_boot` | `CLOCK_MONOTONIC` then, and of which boot |
//! | `labels_sha256` | of the label image, in hex: 16 bits a label where there are fewer than 65,536 |
//! | `scale_from`, `scale` | who said how large objects are, and how many times as long an edge was made |
//! | `size_ratio` | objects look so many times as large as stated, where that is more than twice or less than half |
//! | `unlike` | in which way the picture is unlike what the model knows; the last four are empty where no picture was looked at, and not in tables of older versions |

use super::objects::ModelKey;
use super::{Cell, Column, Kind, Table};
use reticle_domain::facts::ResultFacts;
use reticle_domain::look::Unlike;

/// Saved results.
pub struct Results;

impl Table for Results {
    type Row<'a> = (&'a ModelKey, &'a ResultFacts);

    fn columns() -> Vec<Column> {
        vec![
            Column::new("frame", Kind::Text),
            Column::new("session", Kind::Text),
            Column::new("model", Kind::Text),
            Column::new("model_name", Kind::Text),
            Column::new("model_sha256", Kind::Text),
            Column::new("objects", Kind::U32),
            Column::optional("focus", Kind::F64),
            Column::new("normalise_us", Kind::U64),
            Column::new("network_us", Kind::U64),
            Column::new("instances_us", Kind::U64),
            Column::new("measure_us", Kind::U64),
            Column::new("committed_at", Kind::Time),
            Column::new("committed_recorded_at", Kind::Time),
            Column::new("committed_mono_ns", Kind::U64),
            Column::new("committed_boot", Kind::Text),
            Column::new("labels_sha256", Kind::Text),
            Column::optional("scale_from", Kind::Text),
            Column::optional("scale", Kind::F64),
            Column::optional("size_ratio", Kind::F64),
            Column::optional("unlike", Kind::Text),
        ]
    }

    fn cells((model, result): &Self::Row<'_>, put: &mut dyn FnMut(Cell<'_>)) {
        put(Cell::Text(&result.frame.id.to_string()));
        put(Cell::Text(&result.frame.session.to_string()));
        put(Cell::Text(&model.key));
        put(Cell::Text(&model.name));
        put(Cell::Text(&model.sha256));
        put(Cell::U32(result.objects));
        put(Cell::number(result.focus.is_finite().then(|| result.focus.into())));
        put(Cell::U64(result.timings.normalise_us));
        put(Cell::U64(result.timings.network_us));
        put(Cell::U64(result.timings.instances_us));
        put(Cell::U64(result.timings.measure_us));
        put(Cell::Time(result.committed.at_ns));
        put(Cell::Time(result.committed.recorded_ns));
        put(Cell::U64(result.committed.mono_ns));
        put(Cell::Text(&result.committed.boot.to_string()));
        put(Cell::Text(&hex::encode(result.labels_sha256)));
        let look = result.look.as_ref();
        put(Cell::text(look.map(|look| look.scale_from.word())));
        put(Cell::number(look.map(|look| look.scale.into())));
        put(Cell::number(look.and_then(|look| look.size_ratio).map(f64::from)));
        put(Cell::text(look.and_then(|look| look.unlike).map(Unlike::word)));
    }
}
