//! A bucket as archive.
//!
//! What is sent is hashed here first, and the hash goes with it as `x-amz-checksum-sha256`, which
//! is signed: the server refuses what arrives otherwise. SHA-256 and not a CRC, because it is what
//! the store recorded, and servers other than Amazon's have known it the longest. Then the server
//! is asked what it holds (HEAD with checksums), and only its agreement makes a receipt.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ChecksumMode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::Location;
use super::body::{self, Source, Unanswered};
use super::classify::{Failed, refused, unanswered, words};
use super::connect::{self, Keys};
use super::error::StorageError;
use super::part_size::{MULTIPART_FROM, part_bytes};
use super::throttle::Throttle;
use super::{
    Copied, Found, Hashed, Listed, ObjectReceipt, OnState, Patience, Stat, UploadState, changed,
    too_large, unreadable,
};
use reticle_base::address;
use reticle_base::clock::Clock;
use reticle_base::durable;

/// Objects below a prefix of a bucket.
#[derive(Clone)]
pub struct S3Archive {
    pub(super) client: Client,
    pub(super) bucket: String,
    /// Empty, or ends in a slash.
    prefix: String,
    name: String,
    throttle: Throttle,
    pub(super) clock: Clock,
    patience: Patience,
}

impl std::fmt::Debug for S3Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3Archive").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What the server must say that it holds.
pub(super) struct Expected {
    pub(super) bytes: u64,
    pub(super) sha256: [u8; 32],
    /// The checksums, in base64, of which it must give one: the object's own and, of an upload in
    /// parts, that of its parts.
    pub(super) checksums: Vec<String>,
    /// The tag that it gave when it was put; `None` where it gave none or the answer was lost.
    pub(super) etag: Option<String>,
}

impl S3Archive {
    /// The bucket that `options.to` names. `keys` instead of those that would be looked for in
    /// the environment, the AWS configuration files and the machine's role.
    ///
    /// # Errors
    /// Settings that are wrong; the error names the key.
    pub async fn open(
        options: &Location,
        keys: Option<Keys>,
        throttle: Throttle,
        clock: Clock,
    ) -> Result<Self, StorageError> {
        let (bucket, prefix) = bucket_and_prefix(&options.to)?;
        let client = connect::client(options, keys, clock.clone()).await?;
        let name = format!("s3://{bucket}/{prefix}").trim_end_matches('/').to_owned();
        let patience = Patience::default();
        Ok(Self { client, bucket, prefix, name, throttle, clock, patience })
    }

    /// With other limits to a server's silence.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The key as the server has it.
    pub(super) fn full(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    pub(super) async fn put_bytes(
        &self,
        key: &str,
        bytes: Vec<u8>,
    ) -> Result<ObjectReceipt, StorageError> {
        let sha256 = Sha256::digest(&bytes).into();
        self.put_whole(key, Source::Bytes(Bytes::from(bytes)), sha256).await
    }

    pub(super) async fn put_file(
        &self,
        key: &str,
        path: &Path,
        sha256: [u8; 32],
        resume: Option<UploadState>,
        on_state: OnState<'_>,
    ) -> Result<ObjectReceipt, StorageError> {
        let what = self.putting(key);
        let unreadable = |error: &std::io::Error| unreadable(&what, path, error);
        let file = File::open(path).map_err(|error| unreadable(&error))?;
        let bytes = file.metadata().map_err(|error| unreadable(&error))?.len();
        let file = Arc::new(file);
        let part_bytes = part_bytes(bytes);
        let reader = Arc::clone(&file);
        let hashed = tokio::task::spawn_blocking(move || Hashed::read(&*reader, part_bytes))
            .await
            .map_err(std::io::Error::other)
            .and_then(|hashed| hashed)
            .map_err(|error| unreadable(&error))?;
        if hashed.sha256 != sha256 {
            return Err(changed(&what, path));
        }
        if hashed.bytes > MULTIPART_FROM {
            return Box::pin(self.put_parts(key, &file, &hashed, resume, on_state)).await;
        }
        if let Some(state) = resume {
            self.abandon(key, &state.upload_id).await;
            on_state(None);
        }
        self.put_whole(key, Source::File { file, from: 0, bytes: hashed.bytes }, sha256).await
    }

    async fn put_whole(
        &self,
        key: &str,
        source: Source,
        sha256: [u8; 32],
    ) -> Result<ObjectReceipt, StorageError> {
        let bytes = source.bytes();
        let etag = self.put_unasked(key, source, sha256).await?;
        let checksums = vec![BASE64.encode(sha256)];
        self.confirm(key, Expected { bytes, sha256, checksums, etag }).await
    }

    /// Puts, and returns the tag that the server gave it.
    async fn put_unasked(
        &self,
        key: &str,
        source: Source,
        sha256: [u8; 32],
    ) -> Result<Option<String>, StorageError> {
        let request = |body| {
            let request = self.client.put_object().bucket(&self.bucket).key(self.full(key));
            request.body(body).checksum_sha256(BASE64.encode(sha256)).send()
        };
        Ok(self.send(&self.putting(key), source, request).await?.e_tag)
    }

    pub(super) async fn put_note(&self, key: &str, bytes: Vec<u8>) -> Result<(), StorageError> {
        let sha256 = Sha256::digest(&bytes).into();
        self.put_unasked(key, Source::Bytes(Bytes::from(bytes)), sha256).await.map(drop)
    }

    pub(super) async fn stat(&self, key: &str) -> Result<Option<Stat>, StorageError> {
        let what = format!("ask for {key} in {}", self.name);
        let request = self.client.head_object().bucket(&self.bucket).key(self.full(key));
        let request = request.checksum_mode(ChecksumMode::Enabled).send();
        let head = match self.ask(&what, request).await {
            Ok(head) => head,
            Err(failed) if failed.code == "NotFound" => return Ok(None),
            Err(failed) => return Err(failed.into()),
        };
        let bytes = head.content_length.and_then(|bytes| u64::try_from(bytes).ok());
        let etag = head.e_tag.unwrap_or_default().trim_matches('"').to_owned();
        let sha256 = whole(head.checksum_sha256);
        Ok(Some(Stat { bytes: bytes.unwrap_or_default(), etag, sha256 }))
    }

    pub(super) async fn read_back(&self, key: &str) -> Result<Option<Found>, StorageError> {
        let read = self.read(key, u64::MAX, || Ok(tokio::io::sink())).await?;
        Ok(read.map(|(_, copied)| copied.found))
    }

    pub(super) async fn fetch(&self, key: &str, to: &Path) -> Result<Option<Copied>, StorageError> {
        let make = || durable::create(to, durable::Access::Owner).map(tokio::fs::File::from_std);
        Ok(self.read(key, u64::MAX, make).await?.map(|(_, copied)| copied))
    }

    pub(super) async fn get_bytes(
        &self,
        key: &str,
        most: u64,
    ) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.read(key, most, || Ok(Vec::new())).await?.map(|(bytes, _)| bytes))
    }

    /// Reads an object to its end into what `make` makes. Where that is not what the server's
    /// checksum says, it is read once more: two readings that are the same were not damaged on
    /// the way.
    async fn read<W: AsyncWrite + Unpin>(
        &self,
        key: &str,
        most: u64,
        make: impl Fn() -> io::Result<W>,
    ) -> Result<Option<(W, Copied)>, StorageError> {
        let what = format!("read {key} from {}", self.name);
        let mut before = None;
        loop {
            let mut into = make().map_err(|error| StorageError::retry(&what, error))?;
            let Some((found, stated)) = self.read_once(key, &mut into, most).await? else {
                return Ok(None);
            };
            let is_vouched_for = stated.is_none_or(|stated| stated == found.sha256);
            if is_vouched_for || before == Some(found) {
                return Ok(Some((into, Copied { found, is_vouched_for })));
            }
            if before.replace(found).is_some() {
                let why = "it arrives as something else each time: it is changed meanwhile, or \
                           damaged on the way";
                return Err(StorageError::retry(what, why));
            }
        }
    }

    /// What was read, and the hash that the server states.
    async fn read_once(
        &self,
        key: &str,
        into: &mut (impl AsyncWrite + Unpin),
        most: u64,
    ) -> Result<Option<(Found, Option<[u8; 32]>)>, StorageError> {
        let what = format!("read {key} from {}", self.name);
        let request = self.client.get_object().bucket(&self.bucket).key(self.full(key));
        // Asked for by hand: the client would end the reading of what is not as stated, and
        // nobody could ever see what it is.
        let request = request.customize().mutate_request(|request| {
            request.headers_mut().insert("x-amz-checksum-mode", "ENABLED");
        });
        let answer = match self.ask(&what, request.send()).await {
            Ok(answer) => answer,
            Err(failed) if failed.code == "NoSuchKey" => return Ok(None),
            Err(failed) => return Err(failed.into()),
        };
        let stated = whole(answer.checksum_sha256);
        let mut body = answer.body;
        let mut sha256 = Sha256::new();
        let mut bytes = 0;
        loop {
            let progress = self.patience.progress;
            let chunk = timeout(progress, body.next())
                .await
                .map_err(|_elapsed| unanswered(&what, &Unanswered::Silent(progress)))?;
            let Some(chunk) = chunk else { break };
            let chunk = chunk.map_err(|error| StorageError::retry(&what, words(&error)))?;
            sha256.update(&chunk);
            bytes += chunk.len() as u64;
            if bytes > most {
                return Err(too_large(&what, most));
            }
            into.write_all(&chunk).await.map_err(|error| StorageError::retry(&what, error))?;
        }
        into.flush().await.map_err(|error| StorageError::retry(&what, error))?;
        Ok(Some((Found { bytes, sha256: sha256.finalize().into() }, stated)))
    }

    pub(super) async fn list(
        &self,
        prefix: &str,
        each: &mut (dyn FnMut(Listed) + Send),
    ) -> Result<(), StorageError> {
        let what = format!("list {prefix:?} in {}", self.name);
        let mut next = None;
        loop {
            let request = self.client.list_objects_v2().bucket(&self.bucket);
            let request = request.prefix(self.full(prefix)).set_continuation_token(next);
            let page = self.ask(&what, request.send()).await?;
            for object in page.contents.unwrap_or_default() {
                let (Some(key), Some(bytes)) = (object.key, object.size) else { continue };
                let Some(key) = key.strip_prefix(&self.prefix) else { continue };
                each(Listed { key: key.to_owned(), bytes: u64::try_from(bytes).unwrap_or(0) });
            }
            next = page.next_continuation_token;
            if next.is_none() {
                return Ok(());
            }
        }
    }

    /// Asks the server what it holds under the key, and makes a receipt of its agreement.
    pub(super) async fn confirm(
        &self,
        key: &str,
        expected: Expected,
    ) -> Result<ObjectReceipt, StorageError> {
        let what = format!("confirm {key} in {}", self.name);
        let request = self.client.head_object().bucket(&self.bucket).key(self.full(key));
        let request = request.checksum_mode(ChecksumMode::Enabled).send();
        let head = match self.ask(&what, request).await {
            Ok(head) => head,
            Err(failed) if failed.code == "NotFound" => {
                let why = "it was put and is not there; will be put again";
                return Err(StorageError::retry(what, why));
            }
            Err(failed) => return Err(failed.into()),
        };
        let differs = |of: &str, found: &str, expected: &str| {
            let why = format!("its {of} is {found} instead of {expected}; will be put again");
            Err(StorageError::retry(&what, why))
        };
        let bytes = head.content_length.and_then(|bytes| u64::try_from(bytes).ok());
        if bytes != Some(expected.bytes) {
            let found = bytes.map_or("unknown".to_owned(), |bytes| bytes.to_string());
            return differs("size", &found, &expected.bytes.to_string());
        }
        let etag = head.e_tag.unwrap_or_default();
        if let Some(expected) = expected.etag.filter(|expected| *expected != etag) {
            return differs("ETag", &etag, &expected);
        }
        let checksum = match head.checksum_sha256 {
            Some(found) if expected.checksums.contains(&found) => format!("sha256:{found}"),
            // Not every server keeps them, or not of an upload in parts; and one was seen to keep
            // that of the object which this one replaced. What is there decides.
            Some(_) | None => {
                let digits = hex::encode(expected.sha256);
                let found = self.read_back(key).await?;
                let wanted = Found { bytes: expected.bytes, sha256: expected.sha256 };
                if found != Some(wanted) {
                    let found = found.map_or("none".to_owned(), |found| hex::encode(found.sha256));
                    return differs("SHA-256", &found, &digits);
                }
                format!("sha256:{digits} (read back)")
            }
        };
        Ok(ObjectReceipt {
            key: key.to_owned(),
            etag: etag.trim_matches('"').to_owned(),
            bytes: expected.bytes,
            sha256: expected.sha256,
            checksum,
        })
    }

    pub(super) fn putting(&self, key: &str) -> String {
        format!("put {key} into {}", self.name)
    }

    /// A request without a body to speak of.
    pub(super) async fn ask<T, E>(
        &self,
        what: &str,
        request: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<T, Failed>
    where
        E: std::error::Error + ProvideErrorMetadata + 'static,
    {
        let limit = self.patience.answer;
        match timeout(limit, Box::pin(request)).await {
            Ok(answer) => answer.map_err(|error| refused(what, self.clock.now(), &error)),
            Err(_elapsed) => Err(unanswered(what, &Unanswered::Silent(limit)).into()),
        }
    }

    /// A request with a body, at the pace of the throttle.
    pub(super) async fn send<T, E, F>(
        &self,
        what: &str,
        source: Source,
        request: impl FnOnce(ByteStream) -> F,
    ) -> Result<T, Failed>
    where
        E: std::error::Error + ProvideErrorMetadata + 'static,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    {
        let boxed = |body| Box::pin(request(body));
        match body::send(source, &self.throttle, self.patience, boxed).await {
            Ok(answer) => answer.map_err(|error| refused(what, self.clock.now(), &error)),
            Err(error) => Err(unanswered(what, &error).into()),
        }
    }
}

/// `lab` and `box-1/` of `s3://lab/box-1`.
fn bucket_and_prefix(to: &str) -> Result<(String, String), StorageError> {
    let path = to.trim().strip_prefix("s3://").unwrap_or_default();
    let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
    let prefix = prefix.trim_matches('/');
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let sound = !bucket.is_empty()
        && bucket.chars().all(plain)
        && (prefix.is_empty() || super::check_key(prefix).is_ok());
    if !sound {
        let shown = address::shown(to);
        let why = format!(
            "\"{shown}\" names no bucket; write \"s3://BUCKET/PREFIX\" (keys are taken from the \
             environment or a profile, never from the address)"
        );
        return Err(StorageError::stop("sync.archive.to", why));
    }
    let slash = if prefix.is_empty() { "" } else { "/" };
    Ok((bucket.to_owned(), format!("{prefix}{slash}")))
}

/// A checksum of a whole object. That of an upload in parts is of its parts, with their number
/// behind a dash.
fn whole(checksum: Option<String>) -> Option<[u8; 32]> {
    BASE64.decode(checksum?).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_bucket_and_a_prefix() {
        let table = [
            ("s3://lab", "lab", ""),
            ("s3://lab/", "lab", ""),
            ("s3://lab/box-1", "lab", "box-1/"),
            ("s3://lab/a/b/", "lab", "a/b/"),
        ];
        for (to, bucket, prefix) in table {
            let parts = bucket_and_prefix(to).unwrap();
            assert_eq!(parts, (bucket.to_owned(), prefix.to_owned()), "{to}");
        }
        for to in ["s3://", "s3:///a", "s3://la b", "s3://lab/a/../b", "s3://lab//a//b", "lab"] {
            assert!(bucket_and_prefix(to).is_err(), "{to}");
        }
        for to in
            ["s3://AKIA:hush@lab", "s3://AKIA:hu/sh@lab/box", "s3://AKIA:hush", "s3://a:hush @b"]
        {
            let said = bucket_and_prefix(to).unwrap_err().to_string();
            assert!(!said.contains("hu") && said.contains("names no bucket"), "{said}");
        }
    }
}
