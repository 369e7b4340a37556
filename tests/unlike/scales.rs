//! In which scale a picture is looked at, and who says so.

use std::sync::Arc;

use reticle_base::clock::Clock;
use reticle_base::ids::SessionId;
use reticle_domain::frame::Frame;
use reticle_domain::look::ScaleFrom;
use reticle_segment::session::SessionScales;
use reticle_segment::{Options, Segmenter};
use serde_json::{Value, json};

use super::common::{Daemon, wait_for};
use super::pictures::Picture;
use super::{segmenter, write};

/// Nuclei of a diameter in a picture that states this pixel size. Those of the model have 20 pixels
/// at 0.7 µm.
fn nuclei(count: usize, diameter: f64, pixel_size_um: Option<f64>, seed: u64) -> Arc<Frame> {
    drawn(count, diameter, seed).words_of(pixel_size_um)
}

fn drawn(count: usize, diameter: f64, seed: u64) -> Picture {
    let flat = Picture::flat(512, 300.0).noisy(50.0, seed);
    flat.with_nuclei(count, diameter, |k| 800.0 + (k % 7) as f64 * 150.0, seed)
}

#[test]
fn an_implausible_or_absent_size_lets_the_picture_decide() {
    let mut segmenter = segmenter("nuclei");
    let sizes = [None, Some(0.0), Some(2.3e-10), Some(0.0099), Some(20.01), Some(650.0)];
    for size in sizes.into_iter().chain([Some(f64::NAN), Some(-0.65)]) {
        for diameter in [20.0, 40.0] {
            let found = segmenter.segment(&nuclei(30, diameter, size, 1)).unwrap();
            assert_eq!(found.objects.len(), 30, "{size:?}, {diameter} px: {:?}", found.look);
            assert_eq!(found.look.scale_from, ScaleFrom::Picture, "{size:?}, {diameter} px");
            assert_eq!(found.look.size_ratio, None, "nothing is stated to disagree with");
        }
    }
}

#[test]
fn a_plausible_size_stands_and_where_the_picture_disagrees_it_is_said_by_how_much() {
    let mut segmenter = segmenter("nuclei");
    // Nuclei of 14 µm have 14 µm over the pixel size as their diameter.
    for (diameter, size, ratio) in [
        (20.0, 0.7, None),
        (40.0, 0.35, None),
        (30.0, 0.7, None),
        (14.0, 0.7, None),
        (80.0, 0.7, Some(4.0)),
        (60.0, 0.7, Some(3.0)),
        (20.0, 0.175, Some(0.25)),
        (20.0, 0.01, Some(1.0 / 70.0)),
        (40.0, 20.0, Some(57.0)),
    ] {
        let look = segmenter.segment(&nuclei(20, diameter, Some(size), 2)).unwrap().look;
        let expected = reticle_segment::scale::Scale::for_diameter((14.0 / size) as f32, 20.0);
        assert_eq!(look.scale_from, ScaleFrom::Stated, "{diameter} px at {size} µm");
        assert_eq!(look.scale, expected.factor(), "{diameter} px at {size} µm: it stands");
        match (look.size_ratio, ratio) {
            (None, None) => {}
            (Some(seen), Some(true_ratio)) => {
                let off = f64::from(seen) / true_ratio;
                assert!((0.6..1.6).contains(&off), "{diameter} px at {size} µm: {seen}");
                assert!(look.disagreement().is_some());
            }
            (seen, _) => panic!("{diameter} px at {size} µm: {seen:?} for {ratio:?}"),
        }
    }
}

#[test]
fn a_configured_diameter_stands_too() {
    let options = Options { object_diameter_px: Some(20.0), ..Options::default() };
    let mut segmenter = Segmenter::new(&options, Clock::system()).unwrap();
    let look = segmenter.segment(&nuclei(20, 80.0, Some(0.175), 3)).unwrap().look;
    assert_eq!((look.scale_from, look.scale), (ScaleFrom::Configured, 1.0));
    let said = look.disagreement().unwrap();
    assert!(said.contains("larger than the configured diameter"), "{said}");
}

#[test]
fn an_empty_field_disagrees_with_nothing() {
    let mut segmenter = segmenter("nuclei");
    for size in [0.05, 0.7, 10.0] {
        let look = segmenter.segment(&nuclei(0, 20.0, Some(size), 4)).unwrap().look;
        assert_eq!((look.scale_from, look.size_ratio), (ScaleFrom::Stated, None), "{size} µm");
    }
}

/// A well without cells, in which specks of dust lie.
fn dust(seed: u64) -> Picture {
    let flat = Picture::flat(512, 300.0).noisy(50.0, seed);
    flat.with_debris(6, 8.0, 2000.0, seed)
}

#[test]
fn an_empty_well_is_looked_at_in_the_scale_of_its_neighbours() {
    let mut segmenter = segmenter("nuclei");
    let mut scales = SessionScales::default();
    let session = Some(SessionId::from_bytes([1; 16]));
    let mut look = |session, frame: &Arc<Frame>| {
        let found = segmenter.segment_in_session(frame, scales.of(session, frame)).unwrap();
        scales.seen(session, &found);
        (found.look.scale_from, found.look.scale)
    };
    let alone = look(None, &dust(5).words());
    assert_eq!(alone.0, ScaleFrom::Picture, "dust alone has a scale of its own");
    let first = look(session, &nuclei(30, 40.0, None, 6));
    assert_eq!(first.0, ScaleFrom::Picture);
    assert_ne!(first.1, alone.1, "or the test shows nothing");
    let same = (ScaleFrom::Session, first.1);
    for frame in [dust(5).words(), nuclei(0, 20.0, None, 7), nuclei(30, 20.0, None, 8)] {
        assert_eq!(look(session, &frame), same);
    }
    // What is stated of one frame counts for that frame.
    assert_eq!(look(session, &nuclei(30, 20.0, Some(0.7), 9)), (ScaleFrom::Stated, 1.0));
    // Another session begins anew.
    let other = Some(SessionId::from_bytes([2; 16]));
    assert_eq!(look(other, &nuclei(30, 20.0, None, 10)), (ScaleFrom::Picture, 1.0));
}

#[test]
fn a_watched_folder_has_one_scale_and_each_saved_result_says_who_decided() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&format!("folder:{}", folder.path().display()));
    let saved = |name: &str, picture: &Picture| {
        write(&folder.path().join(name), picture);
        wait_for(name, || {
            let frames = daemon.json("/api/v1/frames?limit=10");
            let frames = frames["frames"].as_array().unwrap();
            frames.iter().find(|frame| frame["origin"] == name).cloned()
        })
    };
    let first = saved("a.png", &drawn(30, 40.0, 6));
    assert_eq!(
        (&first["scale_from"], &first["scale"]),
        (&json!("picture"), &json!(0.5)),
        "{first}"
    );
    let dust = saved("b.png", &dust(5));
    assert_eq!((&dust["scale_from"], &dust["scale"]), (&json!("session"), &json!(0.5)), "{dust}");
    let dark = saved("c.png", &drawn(30, 40.0, 7).inverted());
    assert_eq!(dark["unlike"], "dark-on-bright", "{dark}");
    assert_eq!([&first["unlike"], &first["size_ratio"]], [&Value::Null, &Value::Null]);
}
