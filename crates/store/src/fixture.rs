//! Made-up cells and frames for this module's tests.

use std::sync::Arc;

use reticle_base::clock::Clock;
use reticle_base::ids::SessionId;
use reticle_domain::frame::{Frame, Pixels, Place, Shot};
use reticle_domain::label_image::LabelImage;
use reticle_domain::look::{Look, ScaleFrom, Unlike};
use reticle_domain::object::Object;
use reticle_domain::pixel_size::PixelSizeSource;
use reticle_domain::segmentation::{ModelRef, Segmentation, Timings};
use reticle_domain::session::Session;

/// Ellipses of about the size of nuclei, some touching, none hidden.
#[expect(clippy::disallowed_methods, reason = "made-up objects are no results")]
pub(crate) fn cells(width: u32, height: u32, count: u32, seed: u64) -> LabelImage {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = |below: f64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 53) as f64 * below
    };
    let radius =
        0.45 * (f64::from(width) * f64::from(height) / f64::from(count.max(1))).sqrt() / 1.6;
    let mut labels = vec![0; (width * height) as usize];
    for label in 1..=count {
        let (y, x) = (random(f64::from(height)), random(f64::from(width)));
        let (a, b) = (radius * (0.7 + random(0.6)), radius * (0.6 + random(0.5)));
        let turn = random(std::f64::consts::PI);
        for row in 0..height {
            for column in 0..width {
                let (dy, dx) = (f64::from(row) - y, f64::from(column) - x);
                if dy.abs() > 2.0 * radius || dx.abs() > 2.0 * radius {
                    continue;
                }
                let u = (dx * turn.cos() + dy * turn.sin()) / a;
                let v = (dy * turn.cos() - dx * turn.sin()) / b;
                let slot = &mut labels[(row * width + column) as usize];
                if u * u + v * v < 1.0 && *slot == 0 {
                    *slot = label;
                }
            }
        }
    }
    LabelImage::new(width, height, labels).unwrap().relabelled()
}

pub(crate) fn session(clock: &Clock) -> Session {
    Session {
        id: SessionId::new(),
        name: "plate 7".into(),
        source: "virtual".into(),
        channel: Some("DAPI".into()),
        operator: None,
        pixel_size_um: Some(0.65),
        started: clock.now(),
    }
}

pub(crate) fn frame(clock: &Clock, sequence: u64, width: u32, height: u32) -> Arc<Frame> {
    let pixels = (0..width * height)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 20) as u16 ^ sequence as u16)
        .collect();
    let shot = Shot {
        sequence,
        captured: clock.now(),
        exposure_us: Some(10_000),
        width,
        height,
        bit_depth: 16,
        pixels: Pixels::U16(pixels),
        pixel_size_um: Some(0.65),
        pixel_size_source: Some(PixelSizeSource::OmeXml),
        pixel_size_note: Some("the resolution tag says 0.325 µm".into()),
        place: Place { plate: Some("P1".into()), well: Some("C07".into()), field: Some(3) },
        origin: None,
        truth: None,
    };
    Arc::new(shot.into_frame().unwrap())
}

pub(crate) fn model() -> Arc<ModelRef> {
    Arc::new(ModelRef {
        name: "nuclei".into(),
        sha256: "ab".repeat(32),
        parameters: "{\"threshold\":0.5}".into(),
        software: "0.1.0".into(),
    })
}

pub(crate) fn segmentation(frame: &Arc<Frame>, count: u32) -> Segmentation {
    let labels = cells(frame.width, frame.height, count, frame.sequence + 1);
    let objects = super::blobs::areas(&labels).into_iter().zip(1..).map(|(area, label)| Object {
        label,
        area,
        centroid_0: 1.5,
        centroid_1: 2.5,
        bbox_0: 0,
        bbox_1: 0,
        bbox_2: 4,
        bbox_3: 5,
        perimeter: 11.25,
        eccentricity: 0.5,
        solidity: 0.9,
        major_axis_length: 5.0,
        minor_axis_length: 4.0,
        orientation: -0.25,
        intensity_mean: 300.125,
        intensity_max: 400.0,
        intensity_min: 200.0,
        touches_border: label == 1,
    });
    Segmentation {
        frame: Arc::clone(frame),
        model: model(),
        objects: Arc::new(objects.collect()),
        labels: Arc::new(labels),
        focus: 0.75,
        look: Look {
            scale_from: ScaleFrom::Stated,
            scale: 0.5,
            size_ratio: Some(2.5),
            unlike: Some(Unlike::DarkOnBright),
        },
        timings: Timings { normalise_us: 1, network_us: 2, instances_us: 3, measure_us: 4 },
    }
}

/// A store whose writer is called directly, without its thread.
pub(crate) struct Bench {
    pub(crate) clock: Clock,
    pub(crate) session: Session,
    pub(crate) writer: super::writer::Writer,
    pub(crate) recovery: super::Recovery,
    pub(crate) outcomes: Vec<super::Outcome>,
}

/// Pixel edge of the frames that a [`Bench`] takes.
pub(crate) const EDGE: u32 = 64;

impl Bench {
    pub(crate) fn open(options: &super::Options) -> Self {
        let clock = Clock::system();
        let (store, recovery) = super::Store::open(options, clock.clone()).unwrap();
        Self::begin(store, recovery, clock)
    }

    /// As [`Bench::open`], with destinations.
    pub(crate) fn delivering(options: &super::Options, deliveries: super::Deliveries) -> Self {
        let clock = Clock::system();
        let (mut store, recovery) = super::Store::open(options, clock.clone()).unwrap();
        store.deliver_to(deliveries).unwrap();
        Self::begin(store, recovery, clock)
    }

    fn begin(store: super::Store, recovery: super::Recovery, clock: Clock) -> Self {
        let session = session(&clock);
        let mut bench = Self { clock, session, writer: store.0, recovery, outcomes: Vec::new() };
        let open = super::Job::Open(bench.session.clone());
        bench.work(vec![open]);
        bench
    }

    /// From here on the store and its frames live by this clock.
    pub(crate) fn use_clock(&mut self, clock: Clock) {
        self.writer.clock = clock.clone();
        self.clock = clock;
    }

    /// Everything that may be claimed for a destination, full parts or not.
    pub(crate) fn claim(&mut self, destination: super::Destination) -> Vec<super::Item> {
        let claim = super::Claim {
            destination,
            limit: 100,
            lease: std::time::Duration::from_secs(3600),
            max_delay: std::time::Duration::ZERO,
            drain: true,
        };
        match self.writer.ask(super::Ask::Claim(claim)).unwrap() {
            super::Answer::Claimed(items) => items,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn report(&mut self, report: super::Report) {
        let answer = self.writer.ask(super::Ask::Report(report)).unwrap();
        assert_eq!(answer, super::Answer::Written);
    }

    /// Reports an item as delivered up to what it wanted, with one receipt.
    pub(crate) fn deliver(&mut self, item: &super::Item) {
        let receipt = super::Receipt {
            place: "file:/archive".into(),
            key: format!("object-{}", item.pk),
            bytes: 10,
            sha256: [7; 32],
            etag: "tag".into(),
            checksum: "sha256:07".into(),
            rows: 1,
        };
        let receipts =
            if item.destination == super::Destination::Archive { vec![receipt] } else { vec![] };
        let upto = item.wanted;
        self.report(super::Report::Done { item: item.pk, upto, rows: 1, receipts });
    }

    pub(crate) fn work(&mut self, jobs: Vec<super::Job>) {
        let outcomes = &mut self.outcomes;
        self.writer.work(jobs, &mut |outcome| outcomes.push(outcome));
    }

    pub(crate) fn keep(&self, frame: &Arc<Frame>) -> super::Job {
        super::Job::Keep { session: self.session.id, frame: Arc::clone(frame) }
    }

    pub(crate) fn commit(&self, segmentation: &Segmentation) -> super::Job {
        let segmentation = segmentation.clone();
        super::Job::Commit { session: self.session.id, segmentation }
    }

    /// Takes a frame and keeps it; with a result of `cells` objects if there are any.
    pub(crate) fn take(&mut self, sequence: u64, cells: u32) -> Segmentation {
        let frame = frame(&self.clock, sequence, EDGE, EDGE);
        let answer = segmentation(&frame, cells);
        let mut jobs = vec![self.keep(&frame)];
        if cells > 0 {
            jobs.push(self.commit(&answer));
        }
        self.work(jobs);
        answer
    }

    pub(crate) fn reader(&self) -> super::Reader {
        super::Reader::of(&self.writer.folder, self.writer.reach.clone())
    }

    /// Closes the store in order; what was reported.
    pub(crate) fn close(self) -> Vec<super::Outcome> {
        let mut outcomes = self.outcomes;
        self.writer.close(&mut |outcome| outcomes.push(outcome));
        outcomes
    }
}

/// An archive that is to have the pixels too, and a database.
pub(crate) fn deliveries() -> super::Deliveries {
    super::Deliveries {
        archive: Some("file:/archive".into()),
        pixels: super::Keep::All,
        central: Some("postgresql://lab/db".into()),
    }
}

/// The same, but without pixels for the archive.
pub(crate) fn without_pixels() -> super::Deliveries {
    super::Deliveries { pixels: super::Keep::None, ..deliveries() }
}

/// Options for a folder, with everything kept.
pub(crate) fn options(folder: &std::path::Path) -> super::Options {
    let frames = super::FrameRetention { min_free_bytes: 0, ..Default::default() };
    super::Options { folder: folder.to_owned(), max_bytes: 0, frames }
}
