//! The live page in a real browser: what a person sees is what the box does.
//!
//! `RETICLE_SCREENSHOTS=folder` leaves a picture of every state there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use reticle_base::clock::Clock;
use reticle_domain::alarm::{Alarm, AlarmKind};
use reticle_domain::look::{Look, ScaleFrom, Unlike};
use reticle_domain::order::Command;
use reticle_domain::status::{RunState, SaveState, SourceState};
use serde_json::{Value, json};
use tungstenite::Message;

mod browser {
    pub(crate) mod driver;
    pub(crate) mod fake_box;
}
mod common;

use browser::driver::Browser;
use browser::fake_box::FakeBox;
use common::Daemon;

/// Follows `window.__reticle` from repaint to repaint for a number of frames.
const COLLECT: &str = "
    new Promise((done) => {
        const seen = [];
        let last = window.__reticle.shown;
        const look = () => {
            const now = window.__reticle;
            if (now.shown !== last) seen.push(now);
            last = now.shown;
            if (seen.length < WANTED) requestAnimationFrame(look);
            else done(seen);
        };
        requestAnimationFrame(look);
    })";

#[test]
fn image_and_overlay_are_of_one_frame_for_100_frames_beside_a_slow_viewer() {
    let (daemon, mut browser) = (Daemon::start("virtual"), Browser::open(1280, 800));
    let slow = SlowViewer::connect(&format!("ws://{}/api/v1/live", daemon.address()));
    browser.goto(&daemon.url("/"));
    browser.wait("window.__reticle?.shown > 0");
    let seen = browser.eval(&COLLECT.replace("WANTED", "100"));
    let seen = seen.as_array().unwrap();
    assert_eq!(seen.len(), 100);
    for pair in seen.windows(2) {
        let (before, now) = (&pair[0], &pair[1]);
        assert!(now["imageFrame"].is_string());
        assert_eq!(now["imageFrame"], now["overlayFrame"]);
        assert_ne!(now["imageFrame"], before["imageFrame"], "frames advance");
        assert!(now["sequence"].as_u64() > before["sequence"].as_u64(), "and never go back");
    }
    let slowly = slow.leave();
    assert!(slowly.len() >= 2, "the slow viewer saw {slowly:?}");
    assert!(slowly.is_sorted(), "it never goes back either: {slowly:?}");
    assert!(slowly.len() < 100, "it holds nobody back: it saw {} frames", slowly.len());
    let viewed = daemon.json("/api/v1/status");
    eprintln!(
        "capture to screen: {} beside {} slow frames",
        viewed["capture_to_screen"],
        slowly.len()
    );
    assert_eq!(browser.problems(), [""; 0]);
}

#[test]
fn a_daemon_that_hangs_or_dies_is_missed_within_two_seconds() {
    let (daemon, mut browser) = (Daemon::start("virtual"), Browser::open(1280, 800));
    let lost = "document.querySelector('#run').textContent.includes('No connection')";
    browser.goto(&daemon.url("/"));
    browser.wait("window.__reticle?.shown > 2");
    browser.wait_for_text("#run", "Live");

    let pid = i32::try_from(daemon.pid()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
    let signal = |signal| rustix::process::kill_process(pid, signal).unwrap();
    signal(rustix::process::Signal::STOP);
    browser.wait_at_most(2_000, lost);
    signal(rustix::process::Signal::CONT);
    browser.wait_for_text("#run", "Live");

    daemon.kill();
    browser.wait_at_most(2_000, lost);
    browser.wait_for_text("#save", "Unknown");
}

#[test]
fn the_page_says_the_state_of_the_box_in_words() {
    let (page_box, mut browser) = (FakeBox::start(), Browser::open(1280, 800));
    let since = || Clock::system().now().rfc3339();
    browser.goto(&page_box.url("/"));

    browser.wait_for_text("#notice", "Ready");
    browser.shot("first-start");
    page_box.status.update(|status| status.source = SourceState::Opening);
    page_box.status.update(|status| status.run = RunState::Running);
    browser.wait_for_text("#notice", "Opening the virtual microscope");
    page_box.status.update(|status| status.source = SourceState::Ready);
    browser.wait_for_text("#notice", "No frame yet");
    browser.shot("no-frame-yet");

    page_box.run();
    browser.wait("window.__reticle.shown > 40");
    browser.wait_for_text("#run", "Live");
    browser.wait_for_text("#save", "Saved");
    let last = page_box.last().unwrap();
    let near = last.segmentation.labels.count();
    let shown: u32 = browser.text("#count").parse().unwrap();
    assert!(shown.abs_diff(near) < near / 2, "{shown} objects are shown of about {near}");
    browser.wait("Number(document.querySelector('#latency').textContent) > 0");
    assert!(browser.text("#truth").contains("AP 0.93"));
    browser.shot("live");

    page_box.set_focus(0.12);
    browser.wait_for_text(".remark", "Out of focus");
    browser.shot("out-of-focus");
    page_box.set_focus(0.92);

    page_box.set_look(Look { unlike: Some(Unlike::DarkOnBright), ..Look::PLAIN });
    browser.wait_for_text(".remark", "Dark cells on bright?");
    browser.wait_for_text("#doubt", "dark on bright?");
    browser.shot("unlike");
    let stated = Look { scale_from: ScaleFrom::Stated, size_ratio: Some(4.0), ..Look::PLAIN };
    page_box.set_look(stated);
    browser.wait_for_text(".remark", "4.0 times larger than the stated pixel size");
    browser.shot("sizes-disagree");
    page_box.set_look(Look::PLAIN);

    let behind = Arc::new(AtomicBool::new(true));
    let skipping = skip_frames(&page_box, &behind);
    browser.wait_for_text(".remark", "Segmentation is behind");
    browser.shot("behind");
    behind.store(false, Ordering::SeqCst);
    skipping.join().unwrap();

    let reason = "the file system is full; free some room or lower store.frames.max_bytes";
    page_box.status.update(|status| {
        status.save = SaveState::Failing { reason: reason.into(), since: since() };
        status.counters.not_saved = 12;
        status.segment_fps = 10.0;
    });
    browser.wait_for_text("#save", "Not saved: 12");
    browser.wait_for_text("#notice", "free some room");
    browser.shot("not-saved");
    page_box.status.update(|status| status.save = SaveState::Saved);
    browser.wait_for_text("#save", "Saved");

    page_box.set_look(Look { unlike: Some(Unlike::DarkOnBright), ..Look::PLAIN });
    browser.wait_for_text("#doubt", "dark on bright?");
    page_box.hold();
    page_box.status.update(|status| {
        let reason = "the device is gone (ENODEV)".into();
        status.source = SourceState::Lost { reason, since: since() };
        status.capture_fps = 0.0;
    });
    browser.wait_for_text("#run", "No camera");
    browser.wait_for_text("#notice", "ENODEV");
    let greyed = "document.querySelector('canvas').classList.contains('stale')";
    browser.wait(greyed);
    browser.wait_for_text("#age", "ago");
    browser.wait_for_text("#doubt", "dark on bright?");
    browser.shot("camera-lost");

    page_box.status.update(|status| status.source = SourceState::Ready);
    browser.wait_for_text("#run", "No new frame");
    page_box.status.update(|status| status.run = RunState::Paused);
    browser.wait_for_text("#notice", "Paused");
    assert_eq!(browser.eval(greyed), json!(false), "a person paused to look at it");
    browser.shot("paused");
    page_box.status.update(|status| status.run = RunState::Stopped);
    browser.wait_for_text("#notice", "The session has ended");
    browser.shot("stopped");
    page_box.status.update(|status| {
        status.run = RunState::Running;
        status.source = SourceState::Ended;
    });
    browser.wait_for_text("#notice", "All images are done");
    assert_eq!(browser.problems(), [""; 0]);
}

#[test]
fn a_box_that_goes_away_is_missed_within_two_seconds_and_found_again() {
    let (page_box, mut browser) = (FakeBox::start(), Browser::open(1280, 800));
    page_box.run();
    browser.goto(&page_box.url("/"));
    browser.wait("window.__reticle?.shown > 5");
    let address = page_box.stop();
    let lost = "document.querySelector('#run').textContent.includes('No connection')";
    browser.wait_at_most(2_000, lost);
    browser.wait_for_text("#notice", "No connection to the box");
    browser.wait_for_text("#save", "Unknown");
    browser.shot("disconnected");

    let page_box = FakeBox::start_at(address);
    page_box.run();
    browser.wait_for_text("#run", "Live");
    let before = browser.eval("window.__reticle.shown");
    browser.wait(&format!("window.__reticle.shown > {before} + 3"));
    // A refused connection is written to the console by the browser itself; nothing else is.
    let other = |text: &String| !text.contains("WebSocket connection to");
    assert_eq!(browser.problems().into_iter().filter(other).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn keys_and_buttons_do_what_they_say() {
    let (page_box, mut browser) = (FakeBox::start(), Browser::open(1280, 800));
    let soon = Duration::from_secs(5);
    page_box.run();
    browser.goto(&page_box.url("/"));
    browser.wait("window.__reticle?.shown > 5");

    browser.press("Space");
    assert_eq!(page_box.command(soon), Some(Command::Pause));
    page_box.status.update(|status| status.run = RunState::Paused);
    browser.wait_for_text("#run-button:enabled", "Go on");
    browser.press("Space");
    assert_eq!(page_box.command(soon), Some(Command::Start));
    page_box.status.update(|status| status.run = RunState::Running);
    browser.wait_for_text("#run-button:enabled", "Pause");

    let overlay = |browser: &mut Browser| setting(browser, "mode");
    browser.press("o");
    browser.wait("document.querySelector('.key[aria-pressed=false]') !== null");
    assert_eq!(overlay(&mut browser), json!("off"));
    browser.press("o");
    browser.wait("document.querySelector('.key[aria-pressed=true]') !== null");
    assert_eq!(overlay(&mut browser), json!("outlines"));
    browser.press("[");
    browser.wait("JSON.parse(localStorage['reticle.settings']).outlineOpacity === 0.9");
    browser.press("]");
    browser.wait("JSON.parse(localStorage['reticle.settings']).outlineOpacity === 1");

    browser.press("?");
    browser.wait_for_text(".sheet.help", "snapshot");
    browser.shot("help");
    browser.press("Escape");
    browser.wait("document.querySelector('.sheet') === null");

    browser.press("s");
    browser.wait_for_text(".toast", "Snapshot: reticle_");
    browser.wait("document.querySelector('.toast') !== null");
    let saved = browser.downloads();
    assert!(saved.len() == 1 && saved[0].ends_with(".png"), "{saved:?}");

    browser.press("f");
    browser.wait("document.fullscreenElement !== null");
    browser.press("f");
    browser.wait("document.fullscreenElement === null");

    // A scanner's letters are keys too; they must not act.
    browser.scan("P-1042 SO\n");
    browser.wait_for_text(".toast", "Scanned P-1042 SO");
    assert_eq!(page_box.command(Duration::from_millis(300)), None);
    assert_eq!(browser.downloads(), [""; 0]);
    assert_eq!(overlay(&mut browser), json!("outlines"));

    browser.click(".buttons .key:nth-child(4)");
    browser.wait_for_text(".sheet", "End this session?");
    browser.shot("stop");
    assert_eq!(page_box.command(Duration::from_millis(100)), None, "it asks first");
    browser.click("#really-stop");
    assert_eq!(page_box.command(soon), Some(Command::Stop));
    assert_eq!(browser.problems(), [""; 0]);
}

#[test]
fn an_object_is_measured_where_it_is_tapped_and_the_view_follows_the_hand() {
    let (page_box, mut browser) = (FakeBox::start(), Browser::open(1280, 800));
    page_box.run();
    browser.goto(&page_box.url("/"));
    browser.wait("window.__reticle?.shown > 5");
    page_box.hold();
    page_box.status.update(|status| status.run = RunState::Paused);
    browser.wait_for_text("#run", "Paused");
    let last = page_box.last().unwrap();
    let frame = &last.segmentation.frame;
    browser.wait(&format!("window.__reticle.imageFrame === '{}'", frame.id));

    // The first pixel with three of its own label around it, in the lower half.
    let labels = &last.segmentation.labels;
    let width = labels.width() as usize;
    let middle = (labels.labels().len() / 2..labels.labels().len() - 3 * width)
        .find(|&at| {
            let label = labels.labels()[at];
            label != 0 && [at + 3, at + 3 * width].iter().all(|&at| labels.labels()[at] == label)
        })
        .expect("there is an object");
    let label = labels.labels()[middle];
    let at = |browser: &mut Browser, column: f64, row: f64| {
        let place = browser.eval("window.__reticle.view");
        let part = |name: &str| place[name].as_f64().unwrap();
        (part("left") + column * part("scale"), part("top") + row * part("scale"))
    };
    let (column, row) = ((middle % width) as f64 + 1.0, (middle / width) as f64 + 1.0);
    // On a whole pixel of the screen: a wheel event knows no finer place.
    let view = browser.eval("window.__reticle.view");
    let part = |name: &str| view[name].as_f64().unwrap();
    let (x, y) = at(&mut browser, column, row);
    let (x, y) = (x.round(), y.round());
    let (column, row) = ((x - part("left")) / part("scale"), (y - part("top")) / part("scale"));
    browser.tap(x, y);
    browser.wait_for_text(".sheet.object", &format!("Object {label}"));
    browser.wait_for_text(".sheet.object", "Area");
    browser.shot("object");

    let before = browser.eval("window.__reticle.view.scale").as_f64().unwrap();
    browser.wheel(x, y, -600.0);
    browser.wait(&format!("window.__reticle.view.scale > {}", before * 2.0));
    let (zoomed_x, zoomed_y) = at(&mut browser, column, row);
    assert!((zoomed_x - x).abs() < 1.0 && (zoomed_y - y).abs() < 1.0, "zoom is about the cursor");
    browser.shot("zoomed");
    browser.drag([x, y], [x - 100.0, y - 50.0]);
    let (panned_x, panned_y) = at(&mut browser, column, row);
    assert!((panned_x - x + 100.0).abs() < 1.5 && (panned_y - y + 50.0).abs() < 1.5);
    browser.press("1");
    browser.wait("window.__reticle.view.scale * devicePixelRatio === 1");
    browser.press("0");
    browser.wait(&format!("Math.abs(window.__reticle.view.scale - {before}) < 1e-9"));
    assert_eq!(browser.problems(), [""; 0]);
}

#[test]
fn the_box_page_tells_alarms_and_numbers_and_how_old_they_are() {
    let (page_box, mut browser) = (FakeBox::start(), Browser::open(1280, 800));
    page_box.run();
    page_box.measure(Duration::ZERO);
    browser.goto(&page_box.url("/"));
    browser.wait_for_text("#run", "Live");
    browser.wait_for_text("#box", "Box");
    page_box.measure(Duration::ZERO);
    browser.press("b");
    browser.wait_for_text("#alarms", "None.");
    browser.wait_for_text("#machine", "25 GiB free");
    browser.wait_for_text("#machine", "limit 85 °C");
    browser.wait_for_text("#machine", "not told by this machine");
    browser.wait_for_text("#destinations", "nothing waits");
    browser.shot("box");

    let since = Clock::system().now().rfc3339();
    let alarm = |kind, reason: &str| Alarm { kind, since: since.clone(), reason: reason.into() };
    page_box.status.update(|status| {
        status.alarms = vec![
            alarm(AlarmKind::DiskLow, "2.0 GiB are free"),
            alarm(AlarmKind::StageStuck, "segment has been at one frame for 31 s"),
        ];
        status.sync[0].waiting = 1200;
        status.sync[0].reason = Some("publish: not authorised".into());
    });
    browser.wait_for_text("#box", "Act");
    browser.wait_for_text(".alarm:first-child", "Act: A stage is stuck");
    browser.wait_for_text(".alarm:first-child", "Segment has been at one frame for 31 s");
    browser.wait_for_text(".alarm:nth-child(2)", "Look: Disk almost full");
    browser.wait_for_text("#destinations", "1,200 wait");
    browser.wait_for_text("#destinations", "not authorised");
    browser.shot("box-alarms");
    browser.press("Escape");
    browser.wait("document.querySelector('.box-sheet') === null");
    browser.wait_for_text(".remark", "A stage is stuck");

    // Measured, and then not again: greyed, with its age, and never said to be fine.
    page_box.status.update(|status| status.alarms.clear());
    page_box.measure(Duration::from_secs(40));
    browser.wait_for_text("#box", "Look");
    browser.click("#box");
    browser.wait_for_text("#box-stale", "Not measured for 4");
    browser.wait_for_text("#machine .box-row.old", "ago");
    browser.wait_for_text("#alarms", "None known");
    for (width, height, name) in [(800, 480, "box-small"), (390, 844, "box-phone")] {
        browser.resize(width, height);
        browser.goto(&page_box.url("/"));
        browser.wait_for_text("#box", "Look");
        browser.click("#box");
        browser.wait_for_text("#box-stale", "Not measured for");
        let wide = browser.eval(
            "[document.documentElement, document.querySelector('.box-sheet')].some((one) => one.scrollWidth > one.clientWidth)",
        );
        assert_eq!(wide, json!(false), "nothing sticks out on {name}");
        browser.shot(name);
    }

    assert_eq!(browser.problems(), [""; 0]);
    page_box.stop();
    browser.wait_for_text("#box-gone", "No connection");
    browser.wait("document.querySelector('#box').dataset.tone === 'dim'");
}

#[test]
fn every_look_of_the_page_can_be_had() {
    let (page_box, mut browser) = (FakeBox::start(), Browser::open(1280, 800));
    page_box.run();
    browser.goto(&page_box.url("/"));
    browser.wait("window.__reticle?.shown > 40");
    browser.press("v");
    browser.wait_for_text(".sheet", "Opacity");
    browser.shot("view");
    for (word, name) in [("Fills", "fills"), ("Per object", "fills-per-object")] {
        press_in_sheet(&mut browser, word);
        browser.shot(name);
    }
    press_in_sheet(&mut browser, "Outlines");
    browser.press("Escape");
    browser.shot("per-object");
    browser.press("v");
    press_in_sheet(&mut browser, "Light");
    browser.press("Escape");
    browser.wait("document.documentElement.dataset.theme === 'light'");
    browser.shot("light");
    for (width, height, name) in [(1024, 768, "tablet"), (390, 844, "phone"), (1920, 1080, "hd")] {
        browser.resize(width, height);
        browser.goto(&page_box.url("/"));
        browser.wait("window.__reticle?.shown > 15");
        let wide = browser.eval("document.documentElement.scrollWidth > innerWidth");
        assert_eq!(wide, json!(false), "nothing sticks out on a {name}");
        let small = browser.eval(
            "[...document.querySelectorAll('button')].filter((one) => one.getBoundingClientRect().height < 48 || one.getBoundingClientRect().width < 48).length",
        );
        assert_eq!(small, json!(0), "fingers in gloves hit every button on a {name}");
        browser.shot(name);
    }
    assert_eq!(browser.problems(), [""; 0]);
}

fn press_in_sheet(browser: &mut Browser, word: &str) {
    browser.wait_for_text(".sheet", word);
    browser.click(&format!(".sheet .key:has-text(\"{word}\")"));
}

fn setting(browser: &mut Browser, name: &str) -> Value {
    browser.eval(&format!("JSON.parse(localStorage['reticle.settings']).{name}"))
}

/// Counts frames as skipped, as a box does that segments four of ten.
fn skip_frames(page_box: &FakeBox, go_on: &Arc<AtomicBool>) -> thread::JoinHandle<()> {
    let (status, go_on) = (page_box.status.clone(), Arc::clone(go_on));
    thread::spawn(move || {
        while go_on.load(Ordering::SeqCst) {
            status.update(|status| {
                status.counters.skipped += 1;
                status.segment_fps = 4.1;
            });
            thread::sleep(Duration::from_millis(160));
        }
    })
}

/// A viewer that takes more than a second for each frame.
struct SlowViewer {
    leaving: Arc<AtomicBool>,
    thread: thread::JoinHandle<Vec<u64>>,
}

impl SlowViewer {
    fn connect(url: &str) -> Self {
        let (mut socket, _) = tungstenite::connect(url).expect("the live channel is open");
        let leaving = Arc::new(AtomicBool::new(false));
        let left = Arc::clone(&leaving);
        let thread = thread::spawn(move || {
            let mut sequences = Vec::new();
            while !left.load(Ordering::SeqCst) {
                let Message::Binary(bytes) = socket.read().expect("the channel stays open") else {
                    continue;
                };
                let length =
                    u32::from_le_bytes(bytes[..4].try_into().expect("four bytes")) as usize;
                let header: Value =
                    serde_json::from_slice(&bytes[4..4 + length]).expect("a header is JSON");
                sequences.push(header["sequence"].as_u64().expect("a number"));
                thread::sleep(Duration::from_millis(1300));
                let shown = json!({"shown": header["frame"]}).to_string();
                socket.send(Message::Text(shown.into())).expect("the channel stays open");
            }
            sequences
        });
        Self { leaving, thread }
    }

    /// Sequence numbers of the frames it got.
    fn leave(self) -> Vec<u64> {
        self.leaving.store(true, Ordering::SeqCst);
        self.thread.join().expect("the slow viewer is served to its end")
    }
}
