use super::*;

fn options() -> Options {
    Options { width: Some(384), height: Some(320), seed: 7, ..Options::default() }
}

fn scope(options: &Options) -> (VirtualScope, Clock) {
    let clock = Clock::manual(1_700_000_000_000_000_000);
    (VirtualScope::new(options, clock.clone()).unwrap(), clock)
}

fn take(scope: &mut VirtualScope) -> Option<Frame> {
    match scope.next(Duration::ZERO).unwrap() {
        Event::Frame(frame) => Some(*frame),
        Event::Nothing => None,
        other => panic!("{other:?}"),
    }
}

const BEAT: Duration = Duration::from_millis(200);

#[test]
fn the_same_seed_gives_the_same_pixels_whatever_the_timing() {
    let (mut steady, steady_clock) = scope(&options());
    let (mut hurried, hurried_clock) = scope(&options());
    let mut late = Vec::new();
    for wait in [0, 3, 1, 7, 2] {
        hurried_clock.advance(BEAT * wait);
        late.push(take(&mut hurried).unwrap());
    }
    let mut all = vec![take(&mut steady).unwrap()];
    for _ in 0..13 {
        steady_clock.advance(BEAT);
        all.push(take(&mut steady).unwrap());
    }
    assert_eq!(late.iter().map(|frame| frame.sequence).collect::<Vec<_>>(), [0, 3, 4, 11, 13]);
    for frame in &late {
        let same = &all[usize::try_from(frame.sequence).unwrap()];
        assert_eq!(frame.sha256, same.sha256);
        assert_eq!(frame.truth, same.truth);
        assert_eq!(frame.place, same.place);
        assert_eq!(frame.captured, same.captured);
    }
    let (mut other, _) = scope(&Options { seed: 8, ..options() });
    assert_ne!(take(&mut other).unwrap().sha256, all[0].sha256);
}

#[test]
fn no_two_frames_are_equal_not_even_of_an_empty_well() {
    let (mut scope, clock) = scope(&Options { width: Some(64), height: Some(64), ..options() });
    let mut seen = std::collections::HashSet::new();
    for _ in 0..600 {
        let frame = take(&mut scope).unwrap();
        assert!(seen.insert(frame.sha256), "frame {}", frame.sequence);
        clock.advance(BEAT);
    }
}

#[test]
fn frames_come_on_the_beat_and_who_is_late_misses_some() {
    let (mut scope, clock) = scope(&options());
    let begin = clock.now();
    assert_eq!(take(&mut scope).unwrap().captured, begin);
    assert!(take(&mut scope).is_none());
    clock.advance(BEAT - Duration::from_nanos(1));
    assert!(take(&mut scope).is_none());
    clock.advance(Duration::from_nanos(1));
    assert_eq!(take(&mut scope).unwrap().captured.since(&begin), BEAT);
    clock.advance(BEAT * 3 / 2);
    let on_time = take(&mut scope).unwrap();
    assert_eq!((on_time.sequence, on_time.captured.since(&begin)), (2, BEAT * 2));
    // A consumer that came half a beat late gets the following frame on its time.
    clock.advance(BEAT / 2);
    assert_eq!(take(&mut scope).unwrap().captured.since(&begin), BEAT * 3);
    clock.advance(BEAT * 1_000_000);
    let late = take(&mut scope).unwrap();
    assert_eq!((late.sequence, late.captured.since(&begin)), (1_000_003, BEAT * 1_000_003));
}

#[test]
fn the_beat_does_not_drift_at_an_odd_rate() {
    let pace = Pace { first: 5, begin_ns: 17, fps: 29.97 };
    for sequence in (5..3_000_000).step_by(997) {
        let due = pace.due_ns(sequence);
        assert_eq!(pace.newest(due), sequence);
        assert_eq!(pace.newest(due.saturating_sub(1)), sequence.saturating_sub(1).max(5));
        let exact = 17.0 + (sequence - 5) as f64 / 29.97 * 1e9;
        assert!((due as f64 - exact).abs() < 1.0);
    }
}

#[test]
fn a_pause_leaves_no_gap_in_the_sequence() {
    let (mut scope, clock) = scope(&options());
    assert_eq!(take(&mut scope).unwrap().sequence, 0);
    scope.rest();
    clock.advance(BEAT * 1000);
    let frame = take(&mut scope).unwrap();
    assert_eq!((frame.sequence, frame.captured), (1, clock.now()));
}

#[test]
fn the_true_labels_lie_on_the_bright_pixels() {
    let (mut scope, _) = scope(&Options { width: Some(768), height: Some(768), ..options() });
    // One field each of an untreated, a crowded and a sparse well.
    for sequence in [0, 24, 24 * 9] {
        let frame = scope.expose(sequence);
        let values: Vec<f32> = frame.pixels.iter().map(|&value| f32::from(value)).collect();
        let labels = frame.truth.labels();
        let mean = |inside: bool| {
            let of: Vec<f32> = values
                .iter()
                .zip(labels)
                .filter(|&(_, &label)| (label != 0) == inside)
                .map(|(value, _)| *value)
                .collect();
            of.iter().sum::<f32>() / of.len() as f32
        };
        let (dark, bright) = (mean(false), mean(true));
        let threshold = dark + 0.4 * (bright - dark);
        let (mut both, mut either) = (0_u32, 0_u32);
        for (value, &label) in values.iter().zip(labels) {
            let (seen, is) = (*value > threshold, label != 0);
            both += u32::from(seen && is);
            either += u32::from(seen || is);
        }
        let iou = f64::from(both) / f64::from(either);
        assert!(iou > 0.85, "frame {sequence}: {iou:.3}, {dark:.0} {bright:.0}");
        assert!(frame.truth.is_contiguous());
        assert!(frame.truth.count() >= 3);
    }
}

#[test]
fn wells_differ_in_density_and_the_controls_without_cells_are_empty() {
    let (mut scope, _) = scope(&Options { width: Some(768), height: Some(768), ..options() });
    let mut count = |well: &str| {
        let sequence = (0..u64::from(stage::ALL_FIELDS * stage::FRAMES))
            .find(|&sequence| Stop::at(sequence).well.name() == well)
            .unwrap();
        scope.expose(sequence).truth.count()
    };
    let (untreated, crowded, sparse, empty) =
        (count("A01"), count("A02"), count("A11"), count("A12"));
    assert!(crowded > untreated, "{crowded} against {untreated}");
    assert!(0 < sparse && sparse < untreated / 4, "{sparse} against {untreated}");
    assert_eq!(empty, 0);
}

#[test]
fn noise_grows_with_light_as_photons_do() {
    // Two frames of an empty well differ by noise alone: its variance over the mean signal is
    // the converter's gain, at any exposure (the photon transfer method).
    let empty = u64::from(11 * stage::FIELDS * stage::FRAMES);
    for exposure_us in [200_000, 1_600_000] {
        let (mut scope, _) = scope(&Options { exposure_us: Some(exposure_us), ..options() });
        let (one, other) = (scope.expose(empty), scope.expose(empty + 1));
        assert_eq!(one.truth.count(), 0);
        let pairs = one.pixels.iter().zip(&other.pixels);
        let (mut sum, mut squares) = (0.0, 0.0);
        for (&a, &b) in pairs {
            sum += f64::from(a) + f64::from(b);
            squares += (f64::from(a) - f64::from(b)).powi(2);
        }
        let count = one.pixels.len() as f64;
        let signal = sum / (2.0 * count) - 100.0;
        let variance = squares / (2.0 * count) - (6.0_f64 * 0.5).powi(2);
        let gain = variance / signal;
        assert!((0.47..0.53).contains(&gain), "{gain} grey values an electron");
    }
}

#[test]
fn options_out_of_range_are_refused_by_name() {
    let refusal = |options: Options| match VirtualScope::new(&options, Clock::manual(0)) {
        Err(SourceError::Unusable(why)) => why,
        _ => panic!("{options:?} was taken"),
    };
    assert_eq!(
        refusal(Options { fps: Some(0.0), ..options() }),
        "fps is 0, but the virtual microscope takes 0.001 to 1000 frames a second"
    );
    assert!(refusal(Options { fps: Some(f64::NAN), ..options() }).starts_with("fps is NaN"));
    assert!(refusal(Options { width: Some(10), ..options() }).starts_with("width is 10"));
    assert!(
        refusal(Options { height: None, ..options() }).contains("only one of width and height")
    );
}

#[test]
fn a_frame_says_where_and_how_it_was_taken() {
    let (mut scope, _) = scope(&options());
    let frame = take(&mut scope).unwrap();
    assert_eq!(frame.place.plate.as_deref(), Some("V-0007"));
    assert_eq!(frame.place.well.as_deref(), Some("A01"));
    assert_eq!(frame.place.field, Some(1));
    assert_eq!((frame.width, frame.height, frame.bit_depth), (384, 320, 12));
    assert_eq!(frame.exposure_us, Some(100_000));
    assert_eq!(frame.pixel_size_um, Some(0.65));
    let Pixels::U16(pixels) = &frame.pixels else { panic!("16-bit pixels") };
    assert!(pixels.iter().all(|&value| value < 4096));
    let truth = frame.truth.unwrap();
    assert_eq!((truth.width(), truth.height()), (384, 320));
}

#[test]
fn a_frame_has_as_many_objects_as_were_asked_for_and_they_hide_little_of_each_other() {
    let options = Options { width: Some(512), height: Some(448), ..options() };
    let room = Population::room_for(512.0 * 0.65, 448.0 * 0.65);
    assert!(room > 250, "{room}");
    let mean_area = |objects: u32| {
        let mut scope = scope(&options).0.with_objects(objects).unwrap();
        let truth = scope.expose(0).truth;
        assert_eq!(truth.count(), objects);
        assert_eq!(scope.expose(5).truth, truth, "they stay where they are");
        let covered = truth.labels().iter().filter(|&&label| label != 0).count();
        covered as f64 / f64::from(objects)
    };
    let alone = mean_area(100);
    let crowded = mean_area(u32::try_from(room).unwrap());
    assert!(crowded > 0.85 * alone, "{crowded} pixels of a nucleus are seen, {alone} alone");
    assert_eq!(scope(&options).0.with_objects(0).unwrap().expose(0).truth.count(), 0);
}

#[test]
fn twenty_thousand_objects_fit_into_a_frame_of_4096() {
    assert!(Population::room_for(4096.0 * 0.65, 4096.0 * 0.65) > 20_000);
}

#[test]
fn more_objects_than_fit_side_by_side_are_refused() {
    let options = Options { width: Some(256), height: Some(256), ..options() };
    let Err(SourceError::Unusable(why)) = scope(&options).0.with_objects(1000) else {
        panic!("1000 objects were taken")
    };
    assert_eq!(
        why,
        "1000 objects do not fit side by side in a frame of 256×256 pixels, which holds 85; ask for \
         fewer, or for a larger frame"
    );
}
