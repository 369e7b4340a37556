//! What a delivery loop drives: an archive, or a central database.

use reticle_base::remedy::Remedy;
use std::sync::Arc;

use super::archive::{Archiving, blocking};
use super::central::{Batch, Central};
use super::standing::{Claimant, Writer};
use super::undelivered::{Undelivered, gone};
use reticle_object_storage::Throttle;
use reticle_store::{Destination, Item, Kind, Reader, Report};

/// One destination.
pub(super) enum Delivering {
    Archive(Box<Archiving>),
    Central(Centralising),
}

impl Delivering {
    pub(super) fn destination(&self) -> Destination {
        match self {
            Self::Archive(_) => Destination::Archive,
            Self::Central(_) => Destination::Central,
        }
    }

    /// Where it is, for people.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Archive(archiving) => archiving.archive.name(),
            Self::Central(centralising) => centralising.central.name(),
        }
    }

    /// After a conflict: sees that the dispute stays noted at the destination. A database notes it
    /// in a transaction of its own, which nobody writes over.
    pub(super) async fn keep_dispute(&self, item: &Item) {
        match self {
            Self::Archive(archiving) => archiving.keep_dispute(item).await,
            Self::Central(_) => {}
        }
    }

    /// Makes one delivery.
    pub(super) async fn deliver(&self, item: &Item) -> Result<Report, Undelivered> {
        match self {
            Self::Archive(archiving) => Box::pin(archiving.deliver(item)).await,
            Self::Central(centralising) => Box::pin(centralising.deliver(item)).await,
        }
    }
}

/// Rows of a part that the database does not have yet: what was committed since the last
/// delivery, or everything when all is wanted again. A row that is there stays as it is.
pub(super) struct Centralising {
    pub(super) central: Arc<Central>,
    pub(super) reader: Reader,
    pub(super) throttle: Throttle,
    pub(super) writer: Writer,
}

/// What is sent, and how far it goes.
struct Rows {
    batch: Batch,
    /// Greatest key in it.
    upto: i64,
    /// Rows of the part, sent before or now.
    total: u64,
}

/// Bytes that a frame and an object take on the wire, roughly: for the bandwidth limit.
const FRAME_BYTES: u64 = 400;
const OBJECT_BYTES: u64 = 200;

impl Rows {
    /// Each row alone, with its key in the store.
    fn singles(&self) -> impl Iterator<Item = (i64, Batch)> {
        let Batch { session, frames, results, claimant } = &self.batch;
        let alone = |frames, results| Batch {
            session: Arc::clone(session),
            frames,
            results,
            claimant: claimant.clone(),
        };
        let of_results = results.iter().map(move |result| {
            let frame = Arc::clone(&result.0.frame);
            (result.0.pk, alone(vec![frame], vec![result.clone()]))
        });
        // The frames of results go with these.
        let frames = if results.is_empty() { frames.as_slice() } else { &[] };
        let of_frames =
            frames.iter().map(move |frame| (frame.pk, alone(vec![Arc::clone(frame)], Vec::new())));
        of_results.chain(of_frames)
    }

    fn bytes(&self) -> u64 {
        let objects: usize = self.batch.results.iter().map(|(_, objects)| objects.len()).sum();
        FRAME_BYTES * (1 + self.batch.frames.len() as u64) + OBJECT_BYTES * objects as u64
    }
}

impl Centralising {
    async fn deliver(&self, item: &Item) -> Result<Report, Undelivered> {
        let rows = self.read(item).await?;
        self.throttle.take_first(rows.bytes()).await;
        match self.central.deliver(&rows.batch).await {
            Ok(()) => {}
            // Which one is at fault shows when they are sent one by one.
            Err(error) if error.remedy == Remedy::GiveUp && item.kind != Kind::Session => {
                for (subject, batch) in rows.singles() {
                    match self.central.deliver(&batch).await {
                        Ok(()) => {}
                        Err(error) if error.remedy == Remedy::GiveUp => {
                            return Err(Undelivered::One { subject, reason: error.to_string() });
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
            }
            Err(error) => return Err(error.into()),
        }
        let (upto, rows) = (rows.upto, rows.total);
        Ok(Report::Done { item: item.pk, upto, rows, receipts: Vec::new() })
    }

    async fn read(&self, item: &Item) -> Result<Rows, Undelivered> {
        let (reader, item, writer) = (self.reader.clone(), item.clone(), self.writer.clone());
        blocking(move || {
            let session = reader.session_facts(item.session)?.ok_or_else(|| gone("its session"))?;
            let claimant = Claimant { identity: reader.identity()?, writer, mark: item.mark };
            let batch = Batch {
                session: Arc::new(session),
                frames: Vec::new(),
                results: Vec::new(),
                claimant,
            };
            let mut rows = Rows { batch, upto: item.wanted, total: 0 };
            let Some(part) = item.part else { return Ok(rows) };
            let series = reader
                .series(item.session)?
                .into_iter()
                .find(|series| series.pk == part.series)
                .ok_or_else(|| gone("its series"))?;
            let positions = series.part_positions(part.part);
            let refused = reader.refused_of(&item)?;
            let wanted = |pk: i64| pk > item.done && !refused.contains(&pk);
            match part.model {
                None => {
                    let frames = reader.frames_of(&series, positions)?;
                    rows.total = frames.len() as u64;
                    rows.upto = frames.iter().map(|frame| frame.pk).max().unwrap_or(item.wanted);
                    rows.batch.frames =
                        frames.into_iter().filter(|frame| wanted(frame.pk)).map(Arc::new).collect();
                }
                Some(model) => {
                    let model = reader.model(model)?.ok_or_else(|| gone("its model"))?;
                    let results = reader.results_of(&series, &model, positions)?;
                    rows.total = results.len() as u64;
                    rows.upto = results.iter().map(|result| result.pk).max().unwrap_or(item.wanted);
                    for result in results.into_iter().filter(|result| wanted(result.pk)) {
                        let objects =
                            reader.objects_of(&result).map_err(Undelivered::reading(result.pk))?;
                        rows.batch.frames.push(Arc::clone(&result.frame));
                        rows.batch.results.push((result, objects));
                    }
                }
            }
            Ok(rows)
        })
        .await
    }
}
