//! The body of an upload: read from memory or a file in chunks, at the pace of the throttle, with
//! at most a few chunks in memory, and noticed when the server no longer takes any.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Patience;
use super::throttle::Throttle;

/// Bytes that are taken from the throttle and given to the connection at a time.
const CHUNK: u64 = 1 << 16;

/// Chunks between us and the connection.
const AHEAD: usize = 2;

/// What is sent.
#[derive(Clone)]
pub(super) enum Source {
    /// All of it.
    Bytes(Bytes),
    /// A range of a file.
    File { file: Arc<File>, from: u64, bytes: u64 },
}

impl Source {
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { bytes, .. } => *bytes,
        }
    }

    /// The chunk that begins at `at`; empty at the end.
    async fn chunk(&self, at: u64) -> io::Result<Bytes> {
        let length = CHUNK.min(self.bytes().saturating_sub(at));
        let length = usize::try_from(length).map_err(io::Error::other)?;
        match self {
            Self::Bytes(bytes) => {
                let start = usize::try_from(at).map_err(io::Error::other)?;
                Ok(bytes.slice(start..start + length))
            }
            Self::File { file, from, .. } => {
                let (file, offset) = (Arc::clone(file), from + at);
                let read = tokio::task::spawn_blocking(move || {
                    let mut chunk = vec![0; length];
                    file.read_exact_at(&mut chunk, offset).map(|()| Bytes::from(chunk))
                });
                read.await.map_err(io::Error::other)?
            }
        }
    }
}

/// Why a request came to no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    #[error("the server took no data for {} s", .0.as_secs_f32())]
    Stalled(Duration),
    #[error("no answer within {} s", .0.as_secs_f32())]
    Silent(Duration),
    #[error("what is to be sent cannot be read: {0}")]
    Unreadable(#[from] io::Error),
}

/// Sends `source` as the body of `request` and returns its answer, which may come before all was
/// sent.
pub(super) async fn send<T, F: Future<Output = T>>(
    source: Source,
    throttle: &Throttle,
    patience: Patience,
    request: impl FnOnce(ByteStream) -> F,
) -> Result<T, Unanswered> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let body = Body { receiver, left: source.bytes() };
    let mut answer = pin!(request(ByteStream::new(SdkBody::from_body_1_x(body))));
    let feed = pin!(feed(&source, throttle, patience.progress, sender));
    tokio::select! {
        answer = &mut answer => return Ok(answer),
        fed = feed => fed?,
    }
    timeout(patience.answer, answer).await.map_err(|_elapsed| Unanswered::Silent(patience.answer))
}

async fn feed(
    source: &Source,
    throttle: &Throttle,
    progress: Duration,
    sender: mpsc::Sender<Bytes>,
) -> Result<(), Unanswered> {
    let mut at = 0;
    while at < source.bytes() {
        let chunk = source.chunk(at).await?;
        at += chunk.len() as u64;
        throttle.take(chunk.len() as u64).await;
        match timeout(progress, sender.send(chunk)).await {
            Ok(Ok(())) => {}
            // The request is over; its answer says why.
            Ok(Err(_closed)) => return Ok(()),
            Err(_elapsed) => return Err(Unanswered::Stalled(progress)),
        }
    }
    Ok(())
}

struct Body {
    receiver: mpsc::Receiver<Bytes>,
    left: u64,
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.receiver.poll_recv(context).map(|chunk| {
            // Never an end before the end: the server would have to guess that it is none.
            let Some(chunk) = chunk else { return Some(Err(io::ErrorKind::UnexpectedEof.into())) };
            self.left = self.left.saturating_sub(chunk.len() as u64);
            Some(Ok(Frame::data(chunk)))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reticle_base::clock::Clock;

    fn patience(ms: u64) -> Patience {
        let limit = Duration::from_millis(ms);
        Patience { progress: limit, answer: limit }
    }

    fn unlimited() -> Throttle {
        Throttle::new(0, Clock::system())
    }

    #[tokio::test]
    async fn a_range_of_a_file_arrives_whole_and_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let contents: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
        reticle_base::durable::write(&path, &contents).unwrap();
        let file = Arc::new(File::open(&path).unwrap());
        let source = Source::File { file, from: 100_001, bytes: 700_002 };
        let sent = send(source, &unlimited(), Patience::default(), |body| async move {
            assert_eq!(body.size_hint(), (700_002, Some(700_002)));
            body.collect().await.unwrap().into_bytes()
        })
        .await;
        assert_eq!(sent.unwrap(), contents[100_001..800_003]);
    }

    #[tokio::test]
    async fn a_server_that_takes_nothing_is_noticed() {
        let source = Source::Bytes(Bytes::from(vec![0; 1 << 20]));
        let sent = send(source, &unlimited(), patience(20), |body| async move {
            std::future::pending::<()>().await;
            drop(body);
        })
        .await;
        assert!(matches!(sent, Err(Unanswered::Stalled(_))));
    }

    #[tokio::test]
    async fn an_upload_that_waits_for_the_throttle_is_not_stalled() {
        let source = Source::Bytes(Bytes::from(vec![0; 130_000]));
        // A chunk costs half a second, far more than the patience with the server.
        let throttle = Throttle::new(1, Clock::system());
        let sent = send(source, &throttle, patience(200), |body| async move {
            body.collect().await.unwrap().into_bytes().len()
        })
        .await;
        assert_eq!(sent.unwrap(), 130_000);
    }

    #[tokio::test]
    async fn a_server_that_takes_all_and_never_answers_is_noticed() {
        let source = Source::Bytes(Bytes::from(vec![0; 1 << 20]));
        let sent = send(source, &unlimited(), patience(20), |body| async move {
            body.collect().await.unwrap();
            std::future::pending::<()>().await;
        })
        .await;
        assert!(matches!(sent, Err(Unanswered::Silent(_))));
    }

    #[tokio::test]
    async fn an_answer_before_the_end_ends_the_upload() {
        let source = Source::Bytes(Bytes::from(vec![0; 1 << 20]));
        let sent = send(source, &unlimited(), patience(20), |body| async move {
            drop(body);
            "refused"
        })
        .await;
        assert_eq!(sent.unwrap(), "refused");
    }

    #[tokio::test]
    async fn a_file_that_is_cut_short_ends_in_an_error_and_not_early() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        reticle_base::durable::write(&path, &[1; 100]).unwrap();
        let file = Arc::new(File::open(&path).unwrap());
        let source = Source::File { file, from: 0, bytes: 101 };
        let sent = send(source, &unlimited(), patience(1_000), |body| async move {
            body.collect().await.map(|_| ()).map_err(|error| error.to_string())
        })
        .await;
        assert!(matches!(sent, Err(Unanswered::Unreadable(_)) | Ok(Err(_))));
    }
}
