//! One batch, one transaction: everything is copied into temporary tables and merged from there.
//!
//! A row that is there already and says the same is not written again, so that a batch that
//! comes a second time costs the server a comparison. Of two deliveries that differ, the later
//! one holds: times are dated again, a result that was computed again replaces its objects as a
//! whole. What a session only gains stays: its end, and its counters.

use std::pin::pin;
use std::sync::LazyLock;

use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Transaction};

use super::Batch;
use super::connect::STEP;
use super::fault::{Failure, within};
use super::plan::{
    Column, FRAME, FrameRow, OBJECT, Plan, ResultRow, SEGMENTATION, SessionRow, number, uuid,
};
use super::stand;
use crate::sync::standing::Memory;
use reticle_domain::facts::BoxName;
use reticle_domain::look::Unlike;
use reticle_domain::pixel_size::PixelSizeSource;
use reticle_domain::segmentation::ModelRef;

/// The temporary tables, made once for each connection and emptied by every commit. Their types
/// are those of the tables; their columns are those that this program knows.
static STAGE: LazyLock<String> = LazyLock::new(|| {
    let (frame, segmentation, object) = (names(FRAME), names(SEGMENTATION), names(OBJECT));
    format!(
        "CREATE TEMPORARY TABLE incoming_frame ON COMMIT DELETE ROWS AS
             SELECT {frame} FROM reticle.frame WITH NO DATA;
         CREATE TEMPORARY TABLE incoming_segmentation ON COMMIT DELETE ROWS AS
             SELECT 0 AS result, {segmentation} FROM reticle.segmentation WITH NO DATA;
         CREATE TEMPORARY TABLE incoming_object ON COMMIT DELETE ROWS AS
             SELECT 0 AS result, {object} FROM reticle.object WITH NO DATA;"
    )
});

/// From the temporary tables into the real ones. Sent as text and not prepared: a plan that was
/// made while the tables were empty must not be kept for when they are full.
static MERGE: LazyLock<String> = LazyLock::new(|| {
    let frames = upsert("frame", "id", &names(FRAME), &names(&FRAME[1..]), "incoming_frame");
    let results = upsert(
        "segmentation",
        "frame, model",
        &names(SEGMENTATION),
        &names(&SEGMENTATION[2..]),
        "incoming_segmentation",
    );
    let objects = upsert(
        "object",
        "segmentation, label",
        &format!("segmentation, {}", names(OBJECT)),
        &names(&OBJECT[1..]),
        "(SELECT stored.pk AS segmentation, incoming_object.*
          FROM incoming_object
          JOIN incoming_segmentation USING (result)
          JOIN reticle.segmentation AS stored USING (frame, model)) AS found",
    );
    format!(
        "{frames};
         {results};
         DELETE FROM reticle.object AS old
         USING incoming_segmentation
         JOIN reticle.segmentation AS stored USING (frame, model)
         WHERE old.segmentation = stored.pk
           AND old.label > incoming_segmentation.objects;
         {objects};"
    )
});

const BOX: &str =
    "INSERT INTO reticle.box (site, name) VALUES ($1, $2) ON CONFLICT (site, name) DO NOTHING";

const MODELS: &str = "
    INSERT INTO reticle.model (key, name, sha256, parameters, software)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
    ON CONFLICT (key) DO NOTHING";

const SESSION: &str = "
    INSERT INTO reticle.session AS old (
        id, site, box, name, source, channel, operator, pixel_size_um, archive_date,
        started_at, started_recorded_at, started_mono_ns, started_boot,
        ended_at, ended_recorded_at, ended_mono_ns, ended_boot,
        frames_recorded, segmentations_recorded, objects_recorded)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
        $20)
    ON CONFLICT (id) DO UPDATE SET
        site = excluded.site, box = excluded.box, name = excluded.name, source = excluded.source,
        channel = excluded.channel, operator = excluded.operator,
        pixel_size_um = excluded.pixel_size_um, archive_date = excluded.archive_date,
        started_at = excluded.started_at, started_recorded_at = excluded.started_recorded_at,
        started_mono_ns = excluded.started_mono_ns, started_boot = excluded.started_boot,
        ended_at = coalesce(excluded.ended_at, old.ended_at),
        ended_recorded_at = coalesce(excluded.ended_recorded_at, old.ended_recorded_at),
        ended_mono_ns = coalesce(excluded.ended_mono_ns, old.ended_mono_ns),
        ended_boot = coalesce(excluded.ended_boot, old.ended_boot),
        frames_recorded = greatest(excluded.frames_recorded, old.frames_recorded),
        segmentations_recorded =
            greatest(excluded.segmentations_recorded, old.segmentations_recorded),
        objects_recorded = greatest(excluded.objects_recorded, old.objects_recorded)";

/// How many of the rows that were sent are there as they were sent, in what `sync verify` compares.
const COUNT: &str = "
    SELECT (SELECT count(*) FROM reticle.session WHERE id = $1),
           (SELECT count(*) FROM incoming_frame AS sent
            JOIN reticle.frame AS stored ON stored.id = sent.id
             AND stored.session = sent.session AND stored.sha256 = sent.sha256),
           (SELECT count(*) FROM incoming_segmentation AS sent
            JOIN reticle.segmentation AS stored USING (frame, model)
            WHERE stored.labels_sha256 = sent.labels_sha256 AND stored.objects = sent.objects),
           (SELECT count(*) FROM incoming_object AS sent
            JOIN incoming_segmentation USING (result)
            JOIN reticle.segmentation AS result USING (frame, model)
            JOIN reticle.object AS stored
              ON stored.segmentation = result.pk AND stored.label = sent.label)";

/// Makes the connection ready for [`deliver`].
pub(super) async fn stage(client: &Client) -> Result<(), Failure> {
    within(STEP, "make the temporary tables", client.batch_execute(&STAGE)).await
}

/// Writes a batch in one transaction, and returns after its commit.
pub(super) async fn deliver(
    client: &mut Client,
    box_name: &BoxName,
    memory: &Memory,
    batch: &Batch,
) -> Result<(), Failure> {
    let keys: Vec<String> = batch.results.iter().map(|(result, _)| result.model.key()).collect();
    let plan = Plan::of(batch, &keys)?;
    let transaction = within(STEP, "begin", client.transaction()).await?;
    put_box(&transaction, box_name).await?;
    if let Err(failure) = stand::take(&transaction, memory, &batch.claimant).await {
        within(STEP, "roll back", transaction.rollback()).await?;
        if failure.is_conflict() {
            stand::dispute(client, &batch.claimant).await?;
        }
        return Err(failure);
    }
    put_session(&transaction, box_name, &plan.session).await?;
    put_models(&transaction, &plan.models).await?;
    copy_frames(&transaction, &plan.frames).await?;
    copy_results(&transaction, &plan.results).await?;
    copy_objects(&transaction, &plan.results).await?;
    within(STEP, "merge", transaction.batch_execute(&MERGE)).await?;
    count(&transaction, &plan).await?;
    within(STEP, "commit", transaction.commit()).await?;
    memory.has_written();
    Ok(())
}

/// Compares what is in the tables now with what was sent. The commit alone says only that nothing
/// failed: a trigger or a rule can swallow rows without a word.
async fn count(transaction: &Transaction<'_>, plan: &Plan<'_>) -> Result<(), Failure> {
    let session: [&(dyn ToSql + Sync); 1] = [&plan.session.id];
    let found = within(STEP, "count what is there", transaction.query_one(COUNT, &session)).await?;
    let objects: usize = plan.results.iter().map(|result| result.rows.len()).sum();
    let sent = [
        ("session", 1),
        ("frame", plan.frames.len()),
        ("segmentation", plan.results.len()),
        ("object", objects),
    ];
    for (column, (table, sent)) in sent.into_iter().enumerate() {
        let found: i64 = found.get(column);
        if usize::try_from(found) != Ok(sent) {
            return Err(Failure::stop(format!(
                "{sent} rows were sent for the table reticle.{table} and {found} of them are \
                 there: nothing of the delivery was kept; look for triggers, rules and policies \
                 on that table"
            )));
        }
    }
    Ok(())
}

async fn put_box(transaction: &Transaction<'_>, box_name: &BoxName) -> Result<(), Failure> {
    let names = [&box_name.site as &(dyn ToSql + Sync), &box_name.name];
    within(STEP, "write the box", transaction.execute(BOX, &names)).await.map(drop)
}

async fn put_session(
    transaction: &Transaction<'_>,
    box_name: &BoxName,
    row: &SessionRow<'_>,
) -> Result<(), Failure> {
    let (facts, started, ended) = (row.facts, &row.started, row.ended.as_ref());
    within(
        STEP,
        "write the session",
        transaction.execute(
            SESSION,
            &[
                &row.id,
                &box_name.site,
                &box_name.name,
                &facts.name,
                &facts.source,
                &facts.channel,
                &facts.operator,
                &facts.pixel_size_um,
                &row.archive_date,
                &started.at,
                &started.recorded_at,
                &started.mono_ns,
                &started.boot,
                &ended.map(|ended| ended.at),
                &ended.map(|ended| ended.recorded_at),
                &ended.map(|ended| ended.mono_ns),
                &ended.map(|ended| ended.boot),
                &row.frames,
                &row.segmentations,
                &row.objects,
            ],
        ),
    )
    .await
    .map(drop)
}

async fn put_models(
    transaction: &Transaction<'_>,
    models: &[(&str, &ModelRef)],
) -> Result<(), Failure> {
    let column = |part: fn(&ModelRef) -> &str| -> Vec<&str> {
        models.iter().map(|(_, model)| part(model)).collect()
    };
    let keys: Vec<&str> = models.iter().map(|(key, _)| *key).collect();
    within(
        STEP,
        "write the models",
        transaction.execute(
            MODELS,
            &[
                &keys,
                &column(|model| &model.name),
                &column(|model| &model.sha256),
                &column(|model| &model.parameters),
                &column(|model| &model.software),
            ],
        ),
    )
    .await
    .map(drop)
}

async fn copy_frames(
    transaction: &Transaction<'_>,
    frames: &[FrameRow<'_>],
) -> Result<(), Failure> {
    const STEP_NAME: &str = "copy the frames";
    let copy = copy_into("incoming_frame", &names(FRAME));
    let sink = within(STEP, STEP_NAME, transaction.copy_in(&copy)).await?;
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &types(FRAME)));
    for row in frames {
        let (facts, captured) = (row.facts, &row.captured);
        let sha256: &[u8] = &facts.sha256;
        let session = uuid(facts.session.as_bytes());
        within(
            STEP,
            STEP_NAME,
            writer.as_mut().write(&[
                &row.id,
                &session,
                &row.series,
                &row.position,
                &row.sequence,
                &captured.at,
                &captured.recorded_at,
                &captured.mono_ns,
                &captured.boot,
                &row.exposure_us,
                &row.width,
                &row.height,
                &row.bit_depth,
                &sha256,
                &facts.pixel_size_um,
                &facts.place.plate,
                &facts.place.well,
                &row.field,
                &facts.origin,
                &facts.pixel_size_source.map(PixelSizeSource::as_str),
                &facts.pixel_size_note,
            ]),
        )
        .await?;
    }
    within(STEP, STEP_NAME, writer.finish()).await.map(drop)
}

async fn copy_results(
    transaction: &Transaction<'_>,
    results: &[ResultRow<'_>],
) -> Result<(), Failure> {
    const STEP_NAME: &str = "copy the results";
    let copy = copy_into("incoming_segmentation", &format!("result, {}", names(SEGMENTATION)));
    let sink = within(STEP, STEP_NAME, transaction.copy_in(&copy)).await?;
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &numbered(SEGMENTATION)));
    for (row, number) in results.iter().zip(0_i32..) {
        let committed = &row.committed;
        let [normalise_us, network_us, instances_us, measure_us] = &row.timings_us;
        let labels_sha256: &[u8] = &row.facts.labels_sha256;
        let look = row.facts.look.as_ref();
        within(
            STEP,
            STEP_NAME,
            writer.as_mut().write(&[
                &number,
                &row.frame,
                &row.model,
                &row.objects,
                &row.focus,
                normalise_us,
                network_us,
                instances_us,
                measure_us,
                &committed.at,
                &committed.recorded_at,
                &committed.mono_ns,
                &committed.boot,
                &labels_sha256,
                &look.map(|look| look.scale_from.word()),
                &look.map(|look| look.scale),
                &look.and_then(|look| look.size_ratio),
                &look.and_then(|look| look.unlike).map(Unlike::word),
            ]),
        )
        .await?;
    }
    within(STEP, STEP_NAME, writer.finish()).await.map(drop)
}

async fn copy_objects(
    transaction: &Transaction<'_>,
    results: &[ResultRow<'_>],
) -> Result<(), Failure> {
    const STEP_NAME: &str = "copy the objects";
    let copy = copy_into("incoming_object", &format!("result, {}", names(OBJECT)));
    let sink = within(STEP, STEP_NAME, transaction.copy_in(&copy)).await?;
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &numbered(OBJECT)));
    for (result, number_of_result) in results.iter().zip(0_i32..) {
        // One time limit for all objects of a frame: a timer for each would cost more than it.
        let write_all = async {
            for row in &result.rows {
                let facts = row.facts;
                let [bbox_0, bbox_1, bbox_2, bbox_3] = &row.bbox;
                writer
                    .as_mut()
                    .write(&[
                        &number_of_result,
                        &row.label,
                        &row.area,
                        &number(facts.centroid_0),
                        &number(facts.centroid_1),
                        bbox_0,
                        bbox_1,
                        bbox_2,
                        bbox_3,
                        &number(facts.perimeter),
                        &number(facts.eccentricity),
                        &number(facts.solidity),
                        &number(facts.major_axis_length),
                        &number(facts.minor_axis_length),
                        &number(facts.orientation),
                        &number(facts.intensity_mean),
                        &number(facts.intensity_max),
                        &number(facts.intensity_min),
                        &facts.touches_border,
                    ])
                    .await?;
            }
            Ok(())
        };
        within(STEP, STEP_NAME, write_all).await?;
    }
    within(STEP, STEP_NAME, writer.finish()).await.map(drop)
}

fn names(columns: &[Column]) -> String {
    columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

fn types(columns: &[Column]) -> Vec<Type> {
    columns.iter().map(|(_, of)| of.clone()).collect()
}

/// The types with the number of the result before them, which binds objects to their result
/// until the database has given it its pk.
fn numbered(columns: &[Column]) -> Vec<Type> {
    let mut all = vec![Type::INT4];
    all.extend(types(columns));
    all
}

fn copy_into(table: &str, columns: &str) -> String {
    format!("COPY {table} ({columns}) FROM STDIN (FORMAT binary)")
}

/// Inserts, or updates where a row of this key says something else.
fn upsert(table: &str, key: &str, columns: &str, values: &str, from: &str) -> String {
    let of = |row: &str| values.replace(", ", &format!(", {row}."));
    let (old, new) = (format!("old.{}", of("old")), format!("excluded.{}", of("excluded")));
    format!(
        "INSERT INTO reticle.{table} AS old ({columns})
         SELECT {columns} FROM {from} ORDER BY {key}
         ON CONFLICT ({key}) DO UPDATE SET ({values}) = ROW ({new})
         WHERE ({old}) IS DISTINCT FROM ({new})"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_updated_is_what_is_not_the_key() {
        assert_eq!(
            upsert("t", "k", "k, a, b", "a, b", "s")
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" "),
            "INSERT INTO reticle.t AS old (k, a, b) SELECT k, a, b FROM s ORDER BY k \
             ON CONFLICT (k) DO UPDATE SET (a, b) = ROW (excluded.a, excluded.b) \
             WHERE (old.a, old.b) IS DISTINCT FROM (excluded.a, excluded.b)"
        );
    }
}
