//! The bucket: everything in it is listed and downloaded past the proxy; the tables, the label
//! images and the manifests are read, and together they say what the archive holds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use arrow_array::cast::AsArray as _;
use arrow_array::types::UInt64Type;
use arrow_array::{Array as _, ArrayRef, RecordBatch};
use arrow_schema::DataType;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::shard;
use crate::agree::{Bucket, Content, Held, Place};

/// Columns of the table of frames.
const FRAME: &str = "frame";
const POSITION: &str = "position";
const SHA256: &str = "sha256";

#[derive(Deserialize)]
struct Manifest {
    session: Session,
    series: Vec<Series>,
    objects: Vec<Entry>,
}

#[derive(Deserialize)]
struct Session {
    id: String,
}

#[derive(Deserialize)]
struct Series {
    number: u32,
    /// Frames, height, width.
    shape: [u64; 3],
    part_frames: u64,
}

#[derive(Deserialize)]
struct Entry {
    key: String,
    bytes: u64,
    sha256: String,
    kind: String,
    rows: Option<u64>,
}

/// A client of the server itself.
pub(crate) fn client(endpoint: &str, id: &str, secret: &str) -> Client {
    let http = aws_smithy_http_client::Builder::new().build_http();
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http)
        .endpoint_url(endpoint)
        .region(Region::from_static("us-east-1"))
        .credentials_provider(Credentials::new(id, secret, None, None, "bench"))
        .retry_config(RetryConfig::disabled())
        .force_path_style(true)
        .build();
    Client::from_conf(config)
}

/// What the archive below `prefix` holds, and all keys of the bucket (those elsewhere under
/// their full names, so that no manifest accounts for them).
pub(crate) async fn archive(
    client: &Client,
    bucket: &str,
    prefix: &str,
) -> anyhow::Result<(Place, Bucket)> {
    read(&Box::pin(download(client, bucket, prefix)).await?)
}

/// The same of an archive that is a folder.
pub(crate) fn folder(root: &Path) -> anyhow::Result<(Place, Bucket)> {
    let mut objects = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                let key = entry.path().strip_prefix(root)?.display().to_string();
                objects.insert(key, fs::read(entry.path())?.into());
            }
        }
    }
    read(&objects)
}

fn read(objects: &BTreeMap<String, Bytes>) -> anyhow::Result<(Place, Bucket)> {
    let mut place = Place {
        name: "the archive",
        results: Vec::new(),
        sessions: Vec::new(),
        frames: Vec::new(),
    };
    let mut manifests = BTreeSet::new();
    let mut named = Vec::new();
    for (key, bytes) in objects.iter().filter(|(key, _)| is_manifest(key)) {
        let manifest: Manifest = serde_json::from_slice(bytes).with_context(|| key.clone())?;
        let session = &manifest.session.id;
        ensure!(*key == format!("sessions/{session}/manifest.json"), "{key} is of {session}");
        manifests.insert(key.clone());
        place.sessions.push(session.clone());
        read_session(&manifest, objects, &mut place).with_context(|| format!("read {key}"))?;
        named.extend(manifest.objects.into_iter().map(
            |Entry { key: object, bytes, sha256, .. }| {
                (key.clone(), object, Content { bytes, sha256 })
            },
        ));
    }
    let objects = objects.iter().map(|(key, bytes)| {
        let sha256 = hex::encode(Sha256::digest(bytes));
        (key.clone(), Content { bytes: bytes.len() as u64, sha256 })
    });
    Ok((place, Bucket { objects: objects.collect(), manifests, named }))
}

fn is_manifest(key: &str) -> bool {
    key.starts_with("sessions/") && key.ends_with("/manifest.json")
}

async fn download(
    client: &Client,
    bucket: &str,
    prefix: &str,
) -> anyhow::Result<BTreeMap<String, Bytes>> {
    let mut objects = BTreeMap::new();
    let mut pages = client.list_objects_v2().bucket(bucket).into_paginator().send();
    while let Some(page) = pages.next().await {
        for object in page.context("list the bucket")?.contents() {
            let key = object.key().context("a listed object has a key")?;
            let answer = client.get_object().bucket(bucket).key(key).send().await;
            let body = answer.with_context(|| format!("get {key}"))?.body.collect().await;
            let body = body.with_context(|| format!("read {key}"))?.into_bytes();
            let short = key.strip_prefix(prefix).and_then(|key| key.strip_prefix('/'));
            objects.insert(short.unwrap_or(key).to_owned(), body);
        }
    }
    Ok(objects)
}

/// Adds the frames and results of one session, from what its manifest names.
fn read_session(
    manifest: &Manifest,
    objects: &BTreeMap<String, Bytes>,
    place: &mut Place,
) -> anyhow::Result<()> {
    let session = &manifest.session.id;
    // (series, place in it) → the frame and the hash of its pixels.
    let mut frames: BTreeMap<(u32, u64), (String, String)> = BTreeMap::new();
    // (frame, model) → objects in the tables.
    let mut rows: BTreeMap<(String, String), u64> = BTreeMap::new();
    // An object that is named and not there is found by whoever compares the keys.
    let present =
        || manifest.objects.iter().filter_map(|entry| Some((entry, objects.get(&entry.key)?)));

    for (entry, bytes) in present().filter(|(entry, _)| entry.kind == "frames-table") {
        let number = part_name(&entry.key, session)?.0;
        let mut count = 0;
        for batch in table(bytes).with_context(|| entry.key.clone())? {
            let (ids, hashes) = (column_of_texts(&batch, FRAME)?, column_of_texts(&batch, SHA256)?);
            for ((id, hash), position) in
                ids.into_iter().zip(hashes).zip(numbers(&batch, POSITION)?)
            {
                count += 1;
                place.frames.push((id.clone(), hash.clone()));
                let before = frames.insert((number, position), (id, hash));
                ensure!(before.is_none(), "{}: two frames at {position}", entry.key);
            }
        }
        ensure!(entry.rows == Some(count), "{} has {count} rows", entry.key);
    }
    for (entry, bytes) in present().filter(|(entry, _)| entry.kind == "objects-table") {
        let model = part_name(&entry.key, session)?.1.to_owned();
        let mut count = 0;
        for batch in table(bytes).with_context(|| entry.key.clone())? {
            for frame in column_of_texts(&batch, FRAME)? {
                count += 1;
                *rows.entry((frame, model.clone())).or_default() += 1;
            }
        }
        ensure!(entry.rows == Some(count), "{} has {count} rows", entry.key);
    }
    for (entry, bytes) in present().filter(|(entry, _)| entry.kind == "label-shard") {
        let (number, model, part) = shard_name(&entry.key, session)?;
        let series = manifest.series.iter().find(|series| series.number == number);
        let series = series.with_context(|| format!("no series for {}", entry.key))?;
        let [_, height, width] = series.shape;
        let (part_frames, pixels) =
            (usize::try_from(series.part_frames)?, usize::try_from(height * width)?);
        let images = shard::labels(bytes, part_frames, pixels);
        for image in images.with_context(|| entry.key.clone())? {
            let at = (number, part * series.part_frames + image.position);
            let (frame, sha256) = frames
                .get(&at)
                .with_context(|| format!("{}: no frame at {}", entry.key, at.1))?
                .clone();
            let rows = rows.remove(&(frame.clone(), model.to_owned())).unwrap_or(0);
            place.results.push(Held {
                frame,
                session: session.clone(),
                model: model.to_owned(),
                sha256,
                labels_sha256: image.sha256,
                objects: image.objects,
                rows,
            });
        }
    }
    if let Some(((frame, model), count)) = rows.pop_first() {
        bail!("{count} objects of {model} in frame {frame}, which has no label image of it");
    }
    Ok(())
}

/// Series and, of a table of objects, model:
/// `…/<session>-<series>-<part>.parquet`, `…/<session>-<series>-<model>-<part>.parquet`.
fn part_name<'a>(key: &'a str, session: &str) -> anyhow::Result<(u32, &'a str)> {
    let name = key.rsplit_once('/').map_or(key, |(_, name)| name);
    let rest = name.strip_prefix(session).and_then(|rest| rest.strip_prefix('-'));
    let parts = rest.and_then(|rest| {
        let (rest, _part) = rest.strip_suffix(".parquet")?.rsplit_once('-')?;
        let (series, model) = rest.split_once('-').unwrap_or((rest, ""));
        Some((series.parse().ok()?, model))
    });
    parts.with_context(|| format!("{key} is no part of session {session}"))
}

/// Series, model and part of
/// `sessions/<session>/series-<n>.ome.zarr/labels/<model>/0/c/<part>/0/0`.
fn shard_name<'a>(key: &'a str, session: &str) -> anyhow::Result<(u32, &'a str, u64)> {
    let names: Vec<&str> = key.split('/').collect();
    let ["sessions", of, series, "labels", model, "0", "c", part, "0", "0"] = names[..] else {
        bail!("{key} is no label shard")
    };
    ensure!(of == session, "{key} is not of session {session}");
    let series = series.strip_prefix("series-").and_then(|name| name.strip_suffix(".ome.zarr"));
    Ok((series.context("no series")?.parse()?, model, part.parse()?))
}

pub(super) fn table(bytes: &Bytes) -> anyhow::Result<Vec<RecordBatch>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes.clone())?.build()?;
    Ok(reader.collect::<Result<_, _>>()?)
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> anyhow::Result<&'a ArrayRef> {
    let column = batch.column_by_name(name).with_context(|| {
        format!("no column {name} in {:?}", batch.schema().fields().iter().collect::<Vec<_>>())
    })?;
    ensure!(column.null_count() == 0, "column {name} has no value in some row");
    Ok(column)
}

/// A column of texts, or of bytes, which come as hex.
pub(super) fn column_of_texts(batch: &RecordBatch, name: &str) -> anyhow::Result<Vec<String>> {
    let column = column(batch, name)?;
    Ok(match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().iter().flatten().map(str::to_owned).collect(),
        DataType::Dictionary(..) => {
            let dictionary = column.as_any_dictionary();
            let values = dictionary.values().as_string::<i32>();
            let keys = dictionary.normalized_keys();
            keys.into_iter().map(|key| values.value(key).to_owned()).collect()
        }
        DataType::FixedSizeBinary(_) => {
            column.as_fixed_size_binary().iter().flatten().map(hex::encode).collect()
        }
        other => bail!("column {name} is {other}, not text"),
    })
}

fn numbers(batch: &RecordBatch, name: &str) -> anyhow::Result<Vec<u64>> {
    let column = column(batch, name)?;
    let numbers = column.as_primitive_opt::<UInt64Type>();
    Ok(numbers.with_context(|| format!("column {name} is not u64"))?.values().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_say_of_which_part_they_are() {
        let session = "01a21181-f039-7037-b1cf-77977ae7362d";
        let frames = format!("frames/box=box-1/date=2026-05-04/{session}-2-00012.parquet");
        assert_eq!(part_name(&frames, session).unwrap(), (2, ""));
        let objects =
            format!("objects/box=b/date=2026-05-04/{session}-0-nuclei-0123456789ab-00003.parquet");
        assert_eq!(part_name(&objects, session).unwrap(), (0, "nuclei-0123456789ab"));
        assert!(part_name("frames/other-0-00000.parquet", session).is_err());
        let labels = format!("sessions/{session}/series-1.ome.zarr/labels/nuclei-01/0/c/7/0/0");
        assert_eq!(shard_name(&labels, session).unwrap(), (1, "nuclei-01", 7));
        assert!(shard_name(&labels, "another").is_err());
    }
}
