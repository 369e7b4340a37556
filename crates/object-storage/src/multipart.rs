//! Large objects in parts, so that a cut in the middle costs one part and not all.
//!
//! 1. An upload is begun; the caller keeps its [`UploadState`].
//! 2. Parts are sent one after the other, each with its checksum; after each the caller is told.
//! 3. The upload is completed, which makes the object appear; the caller forgets the state.
//! 4. What the server then holds is confirmed.
//!
//! Killed between 1 and 3: the next attempt asks the server which parts it has and sends the
//! rest. Killed after 3, or the answer lost: the server no longer knows the upload; the object is
//! confirmed, and sent again only if that fails.

use std::fs::File;
use std::sync::Arc;

use aws_sdk_s3::types::{
    ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart, Part as ListedPart,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256};
use tracing::{info, warn};

use super::body::Source;
use super::classify::Failed;
use super::error::StorageError;
use super::part_size::part_bytes;
use super::s3::{Expected, S3Archive};
use super::{Hashed, ObjectReceipt, OnState, UploadState, UploadedPart};
use reticle_base::remedy::Remedy;

/// A file on its way in parts.
struct Upload<'a> {
    key: &'a str,
    file: &'a Arc<File>,
    hashed: &'a Hashed,
}

impl Upload<'_> {
    /// The part with this number: where it begins, its size, its checksum.
    fn part(&self, number: u32, part_bytes: u64) -> Option<(u64, u64, String)> {
        let index = number.checked_sub(1)?;
        let sha256 = self.hashed.parts.get(usize::try_from(index).ok()?)?;
        let from = u64::from(index) * part_bytes;
        let bytes = part_bytes.min(self.hashed.bytes.checked_sub(from)?);
        Some((from, bytes, BASE64.encode(sha256)))
    }

    /// Whether `state` is of this file. What is in it was written by us, but maybe long ago.
    fn fits(&self, state: &UploadState) -> bool {
        let is_ours = |(index, part): (usize, &UploadedPart)| {
            usize::try_from(part.number) == Ok(index + 1)
                && self
                    .part(part.number, state.part_bytes)
                    .is_some_and(|(_, _, checksum)| checksum == part.checksum)
        };
        state.sha256 == hex::encode(self.hashed.sha256)
            && state.part_bytes == part_bytes(self.hashed.bytes)
            && state.parts.iter().enumerate().all(is_ours)
    }

    fn expected(&self, etag: Option<String>) -> Expected {
        let Hashed { bytes, sha256, parts } = self.hashed;
        let whole = BASE64.encode(sha256);
        let checksums = vec![composite(parts), whole];
        Expected { bytes: *bytes, sha256: *sha256, checksums, etag }
    }
}

/// What S3 answers as the checksum of an object in parts: the hash of the parts' hashes, and
/// their number.
fn composite(parts: &[[u8; 32]]) -> String {
    let hash = Sha256::digest(parts.as_flattened());
    format!("{}-{}", BASE64.encode(hash), parts.len())
}

impl S3Archive {
    pub(super) async fn put_parts(
        &self,
        key: &str,
        file: &Arc<File>,
        hashed: &Hashed,
        resume: Option<UploadState>,
        on_state: OnState<'_>,
    ) -> Result<ObjectReceipt, StorageError> {
        let upload = Upload { key, file, hashed };
        if let Some(state) = resume {
            // Without a part there is nothing to gain, and a server that no longer knows the upload
            // may say so only by a cut in the middle of the first.
            if upload.fits(&state) && !state.parts.is_empty() {
                match self.resume(&upload, state.clone(), on_state).await {
                    Ok(receipt) => return Ok(receipt),
                    Err(failed) if !is_over(&failed) => return Err(failed.into()),
                    Err(failed) => {
                        let error = failed.error;
                        info!(%error, key, "the upload cannot go on; starting over");
                    }
                }
                // It may be over because it was completed, and only the answer was lost.
                match self.confirm(key, upload.expected(None)).await {
                    Ok(receipt) => {
                        on_state(None);
                        return Ok(receipt);
                    }
                    Err(error) => info!(%error, key, "it was not completed either"),
                }
            }
            self.abandon(key, &state.upload_id).await;
            on_state(None);
        }
        let state = self.begin(&upload).await?;
        on_state(Some(&state));
        Ok(self.go_on(&upload, state, on_state).await?)
    }

    async fn begin(&self, upload: &Upload<'_>) -> Result<UploadState, StorageError> {
        let what = self.putting(upload.key);
        let request = self.client.create_multipart_upload().bucket(&self.bucket);
        let request = request.key(self.full(upload.key));
        let request = request.checksum_algorithm(ChecksumAlgorithm::Sha256).send();
        let upload_id = self.ask(&what, request).await?.upload_id;
        let upload_id = upload_id.ok_or_else(|| {
            StorageError::stop(what, "the server begins an upload without naming it; is it S3?")
        })?;
        Ok(UploadState {
            upload_id,
            sha256: hex::encode(upload.hashed.sha256),
            part_bytes: part_bytes(upload.hashed.bytes),
            parts: Vec::new(),
        })
    }

    async fn resume(
        &self,
        upload: &Upload<'_>,
        mut state: UploadState,
        on_state: OnState<'_>,
    ) -> Result<ObjectReceipt, Failed> {
        match self.parts_of(upload.key, &state.upload_id).await {
            Ok(listed) => {
                // Parts are numbered without gaps, so that what follows a lost one is sent again.
                let kept = state.parts.iter().take_while(|part| {
                    let ours = upload.part(part.number, state.part_bytes);
                    ours.is_some_and(|(_, bytes, _)| {
                        listed.iter().any(|listed| agrees(listed, part, bytes))
                    })
                });
                let kept = kept.count();
                if kept == 0 {
                    // Some servers list the parts of an upload that they never heard of: none.
                    let why = "the server has none of the parts that it acknowledged";
                    let error = StorageError::retry(self.putting(upload.key), why);
                    return Err(Failed { code: "NoSuchUpload".to_owned(), error });
                }
                state.parts.truncate(kept);
            }
            // A server, or a right, without the listing: what was acknowledged is believed, and
            // the confirmation at the end tells.
            Err(failed) if failed.error.remedy != Remedy::Retry => {}
            Err(failed) => return Err(failed),
        }
        self.go_on(upload, state, on_state).await
    }

    /// Sends what `state` lacks, completes the upload and confirms the object.
    async fn go_on(
        &self,
        upload: &Upload<'_>,
        mut state: UploadState,
        on_state: OnState<'_>,
    ) -> Result<ObjectReceipt, Failed> {
        let what = self.putting(upload.key);
        let mut number = u32::try_from(state.parts.len()).unwrap_or(u32::MAX);
        loop {
            number = number.saturating_add(1);
            let Some((from, bytes, checksum)) = upload.part(number, state.part_bytes) else {
                break;
            };
            let source = Source::File { file: Arc::clone(upload.file), from, bytes };
            let request = |body| {
                let request = self.client.upload_part().bucket(&self.bucket);
                let request = request.key(self.full(upload.key)).upload_id(&state.upload_id);
                let request = request.part_number(number.cast_signed()).body(body);
                request.checksum_sha256(&checksum).send()
            };
            let answer = self.send(&what, source, request).await?;
            let etag = answer.e_tag.unwrap_or_default();
            state.parts.push(UploadedPart { number, etag, checksum });
            on_state(Some(&state));
        }
        let request = self.client.complete_multipart_upload().bucket(&self.bucket);
        let request = request.key(self.full(upload.key)).upload_id(&state.upload_id);
        let request = request.multipart_upload(completed(&state.parts)).send();
        let etag = self.ask(&what, request).await?.e_tag;
        on_state(None);
        Ok(self.confirm(upload.key, upload.expected(etag)).await?)
    }

    async fn parts_of(&self, key: &str, upload_id: &str) -> Result<Vec<ListedPart>, Failed> {
        let what = format!("list the parts of {key} in {}", self.name());
        let mut parts = Vec::new();
        let mut next = None;
        loop {
            let request = self.client.list_parts().bucket(&self.bucket).key(self.full(key));
            let request = request.upload_id(upload_id).set_part_number_marker(next);
            let page = self.ask(&what, request.send()).await?;
            parts.extend(page.parts.unwrap_or_default());
            next = page.next_part_number_marker.filter(|_| page.is_truncated == Some(true));
            if next.is_none() {
                return Ok(parts);
            }
        }
    }

    /// Lets the server forget an upload that will not be completed. Where that fails the parts
    /// stay, unseen, until a rule of the bucket removes them: no reason not to go on.
    pub(super) async fn abandon(&self, key: &str, upload_id: &str) {
        let what = format!("abandon an upload of {key} in {}", self.name());
        let request = self.client.abort_multipart_upload().bucket(&self.bucket);
        let request = request.key(self.full(key)).upload_id(upload_id).send();
        match self.ask(&what, request).await {
            Ok(_) => {}
            Err(failed) if failed.code == "NoSuchUpload" => {}
            Err(Failed { error, .. }) => warn!(%error, key, "parts of an upload may be left"),
        }
    }
}

fn completed(parts: &[UploadedPart]) -> CompletedMultipartUpload {
    let parts = parts.iter().map(|part| {
        CompletedPart::builder()
            .part_number(part.number.cast_signed())
            .e_tag(&part.etag)
            .checksum_sha256(&part.checksum)
            .build()
    });
    CompletedMultipartUpload::builder().set_parts(Some(parts.collect())).build()
}

/// Whether the server has the part as it acknowledged it. Some list no tags or checksums.
fn agrees(listed: &ListedPart, part: &UploadedPart, bytes: u64) -> bool {
    let or_unsaid = |said: Option<&str>, known: &str| said.is_none_or(|said| said == known);
    listed.part_number == Some(part.number.cast_signed())
        && listed.size.and_then(|size| u64::try_from(size).ok()) == Some(bytes)
        && or_unsaid(listed.e_tag(), &part.etag)
        && or_unsaid(listed.checksum_sha256(), &part.checksum)
}

/// Whether an upload that was to be resumed has no future. Servers say it in many ways, from
/// `NoSuchUpload` to `AccessDenied`; if it is a lack of rights, the new upload will say so too.
fn is_over(failed: &Failed) -> bool {
    let of_the_upload = ["NoSuchUpload", "InvalidPart", "InvalidPartOrder", "EntityTooSmall"];
    failed.error.remedy != Remedy::Retry || of_the_upload.contains(&failed.code.as_str())
}

#[cfg(test)]
mod tests {
    use super::super::part_size::PART;
    use super::*;

    fn hashed(bytes: u64) -> Hashed {
        let parts = (0..bytes.div_ceil(part_bytes(bytes)))
            .map(|part| Sha256::digest(part.to_le_bytes()).into())
            .collect();
        Hashed { bytes, sha256: [7; 32], parts }
    }

    fn state(upload: &Upload<'_>, parts: u32) -> UploadState {
        let part_bytes = part_bytes(upload.hashed.bytes);
        let parts = (1..=parts).map(|number| {
            let (_, _, checksum) = upload.part(number, part_bytes).unwrap();
            UploadedPart { number, etag: format!("\"{number}\""), checksum }
        });
        UploadState {
            upload_id: "u".to_owned(),
            sha256: hex::encode([7; 32]),
            part_bytes,
            parts: parts.collect(),
        }
    }

    #[test]
    fn the_parts_make_the_file() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let hashed = hashed((20 << 20) + 5);
        let upload = Upload { key: "k", file: &file, hashed: &hashed };
        let parts: Vec<_> = (1..=4).map_while(|number| upload.part(number, PART)).collect();
        let ranges: Vec<_> = parts.iter().map(|(from, bytes, _)| (*from, *bytes)).collect();
        assert_eq!(ranges, [(0, PART), (PART, PART), (2 * PART, (4 << 20) + 5)]);
        assert!(upload.part(0, PART).is_none());
    }

    #[test]
    fn a_state_of_another_file_or_with_other_parts_does_not_fit() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let hashed = hashed(20 << 20);
        let upload = Upload { key: "k", file: &file, hashed: &hashed };
        let good = state(&upload, 2);
        assert!(upload.fits(&good));
        assert!(upload.fits(&state(&upload, 3)));
        let other = UploadState { sha256: hex::encode([8; 32]), ..good.clone() };
        assert!(!upload.fits(&other));
        let coarser = UploadState { part_bytes: 16 << 20, ..good.clone() };
        assert!(!upload.fits(&coarser));
        let mut gap = good.clone();
        gap.parts.remove(0);
        assert!(!upload.fits(&gap));
        let mut changed = good;
        changed.parts[1].checksum = "other".to_owned();
        assert!(!upload.fits(&changed));
    }

    #[test]
    fn a_part_agrees_where_the_server_says_nothing_else() {
        let part = UploadedPart { number: 2, etag: "\"e\"".into(), checksum: "c".into() };
        let listed = || ListedPart::builder().part_number(2).size(5);
        assert!(agrees(&listed().build(), &part, 5));
        assert!(agrees(&listed().e_tag("\"e\"").checksum_sha256("c").build(), &part, 5));
        assert!(!agrees(&listed().e_tag("\"f\"").build(), &part, 5));
        assert!(!agrees(&listed().checksum_sha256("d").build(), &part, 5));
        assert!(!agrees(&listed().build(), &part, 6));
        assert!(!agrees(&listed().part_number(3).build(), &part, 5));
    }

    #[test]
    fn the_checksum_of_parts_is_the_hash_of_their_hashes() {
        let parts = [Sha256::digest(b"a").into(), Sha256::digest(b"b").into()];
        // Computed with Python's hashlib and base64.
        assert_eq!(composite(&parts), "5aAf7hTg7VxIcU8iGA8lrYNltT+XefedxKPX6Tlj+Uo=-2");
    }
}
