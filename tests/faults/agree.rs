//! Whether the ledger, the store, the archive and the database agree, to the last row.
//!
//! Pure: it is given what each of them was found to hold. The ledger says what must be there;
//! the store says what may be there; the two remote places must hold exactly what the store
//! holds, each thing once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

/// One acknowledged result, as the API told it. Hashes are in hex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Noted {
    pub(crate) frame: String,
    pub(crate) session: String,
    pub(crate) sha256: String,
    pub(crate) labels_sha256: String,
    pub(crate) objects: u64,
}

/// One result as a place holds it. Hashes are in hex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) frame: String,
    pub(crate) session: String,
    /// Key of the model, as `nuclei-0123456789ab`.
    pub(crate) model: String,
    pub(crate) sha256: String,
    pub(crate) labels_sha256: String,
    /// Objects that the result says it has.
    pub(crate) objects: u64,
    /// Objects that are there.
    pub(crate) rows: u64,
}

/// What one place was found to hold, in the order in which it gave it; twice is twice.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) name: &'static str,
    pub(crate) results: Vec<Held>,
    pub(crate) sessions: Vec<String>,
    /// All recorded frames with the SHA-256 of their pixels, whether segmented or not.
    pub(crate) frames: Vec<(String, String)>,
}

/// Size and SHA-256 (hex) of an object of the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

/// The bucket, key by key, and what its manifests say of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bucket {
    /// Everything that is there.
    pub(crate) objects: BTreeMap<String, Content>,
    /// Keys of the manifests. Each is accounted for by its session, which the places compare.
    pub(crate) manifests: BTreeSet<String>,
    /// Key of a manifest, and an object that it names.
    pub(crate) named: Vec<(String, String, Content)>,
}

impl Bucket {
    /// Leaves out what a twin that was thrown away put there before it could say what that is:
    /// `sync adopt` named these sessions.
    pub(crate) fn leave_out<'a>(&mut self, sessions: impl Iterator<Item = &'a String>) {
        for session in sessions {
            if !self.manifests.iter().any(|key| key.contains(session)) {
                self.objects.retain(|key, _| !key.contains(session));
            }
        }
    }
}

/// Under this boxes say who delivers, and find out whether they may: no results.
const OF_THE_BOXES: &str = ".reticle/";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// It is not there, or not as it was acknowledged.
    Lost,
    /// It is there more than once.
    Doubled,
    /// It is there and nothing accounts for it.
    Orphan,
    /// The archive knew more of it once than later. Found by [`crate::memory`].
    Overwritten,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) fault: Fault,
    pub(crate) what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.fault, self.what)
    }
}

/// Everything that does not agree.
pub(crate) fn disagreements(
    ledger: &[Noted],
    store: &Place,
    copies: &[&Place],
    bucket: &Bucket,
) -> Vec<Finding> {
    let mut findings = Findings::default();
    findings.ledger(ledger, store);
    findings.inside(store);
    for copy in copies {
        findings.ledger(ledger, copy);
        findings.inside(copy);
        findings.same(store, copy);
    }
    findings.bucket(bucket);
    findings.0
}

/// How many findings there are of each kind, as it stands in the last line of a run.
pub(crate) fn summary(findings: &[Finding]) -> String {
    let counts = [
        (Fault::Lost, "lost"),
        (Fault::Doubled, "doubled"),
        (Fault::Orphan, "orphans"),
        (Fault::Overwritten, "overwritten"),
    ];
    let counts = counts.map(|(fault, word)| {
        let count = findings.iter().filter(|finding| finding.fault == fault).count();
        format!("{count} {word}")
    });
    counts.join(", ")
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, fault: Fault, what: String) {
        self.0.push(Finding { fault, what });
    }

    /// Each noted frame is in the place, as it was noted.
    fn ledger(&mut self, ledger: &[Noted], place: &Place) {
        let mut noted = BTreeSet::new();
        let held = by_frame(place);
        for note in ledger {
            let Noted { frame, .. } = note;
            if !noted.insert(frame) {
                self.add(Fault::Doubled, format!("frame {frame} was acknowledged twice"));
            }
            let results = held.get(frame.as_str()).map_or(&[][..], Vec::as_slice);
            if results.is_empty() {
                self.add(
                    Fault::Lost,
                    format!("frame {frame}, acknowledged, not in {}", place.name),
                );
            } else if !results.iter().any(|held| is_as_noted(held, note)) {
                let what = format!(
                    "frame {frame} was acknowledged as {note:?}; {} has {results:?}",
                    place.name
                );
                self.add(Fault::Lost, what);
            }
        }
    }

    /// Nothing is twice in the place, and each result has the objects that it says it has.
    fn inside(&mut self, place: &Place) {
        let mut results = BTreeSet::new();
        for Held { frame, model, objects, rows, .. } in &place.results {
            if !results.insert((frame, model)) {
                let what = format!("the result of {model} for frame {frame} in {}", place.name);
                self.add(Fault::Doubled, what);
            }
            if rows != objects {
                let fault = if rows < objects { Fault::Lost } else { Fault::Doubled };
                let what =
                    format!("frame {frame} has {objects} objects, {} has {rows}", place.name);
                self.add(fault, what);
            }
        }
        let mut sessions = BTreeSet::new();
        for session in place.sessions.iter().filter(|session| !sessions.insert(*session)) {
            self.add(Fault::Doubled, format!("session {session} in {}", place.name));
        }
        let mut frames = BTreeSet::new();
        for (frame, _) in &place.frames {
            if !frames.insert(frame) {
                self.add(Fault::Doubled, format!("frame {frame} in {}", place.name));
            }
        }
    }

    /// The copy has the same results and frames as the store, and no other session. (One without
    /// frames, of a daemon that died at once, need not have left the box.)
    fn same(&mut self, store: &Place, copy: &Place) {
        let (ours, theirs) = (by_name(store), by_name(copy));
        for (name, held) in &ours {
            match theirs.get(name) {
                None => self.add(Fault::Lost, format!("{held:?} is not in {}", copy.name)),
                Some(other) if other != held => {
                    self.add(Fault::Lost, format!("{held:?} is {other:?} in {}", copy.name));
                }
                Some(_) => {}
            }
        }
        for (_, other) in theirs.iter().filter(|(name, _)| !ours.contains_key(*name)) {
            self.add(Fault::Orphan, format!("{other:?} in {}", copy.name));
        }
        for session in copy.sessions.iter().filter(|session| !store.sessions.contains(session)) {
            self.add(Fault::Orphan, format!("session {session} in {}", copy.name));
        }
        let ours: BTreeSet<_> = store.frames.iter().collect();
        let theirs: BTreeSet<_> = copy.frames.iter().collect();
        for (frame, sha256) in ours.difference(&theirs) {
            let what = format!("frame {frame} with the pixels {sha256} is not in {}", copy.name);
            self.add(Fault::Lost, what);
        }
        for (frame, sha256) in theirs.difference(&ours) {
            let what = format!("frame {frame} with the pixels {sha256} in {}", copy.name);
            self.add(Fault::Orphan, what);
        }
    }

    /// What the manifests name is there, whole, named once; nothing else is there.
    fn bucket(&mut self, bucket: &Bucket) {
        let mut named = BTreeSet::new();
        for (manifest, key, content) in &bucket.named {
            if !named.insert(key) {
                self.add(Fault::Doubled, format!("{key} is named again by {manifest}"));
            }
            match bucket.objects.get(key) {
                None => self.add(Fault::Lost, format!("{key}, named by {manifest}")),
                Some(found) if found != content => {
                    let what = format!("{manifest} says {key} is {content:?}; it is {found:?}");
                    self.add(Fault::Lost, what);
                }
                Some(_) => {}
            }
        }
        for key in bucket.objects.keys() {
            let accounted = named.contains(key)
                || bucket.manifests.contains(key)
                || key.starts_with(OF_THE_BOXES);
            if !accounted {
                self.add(Fault::Orphan, format!("no manifest names {key}"));
            }
        }
    }
}

fn is_as_noted(held: &Held, noted: &Noted) -> bool {
    held.session == noted.session
        && held.sha256 == noted.sha256
        && held.labels_sha256 == noted.labels_sha256
        && held.objects == noted.objects
}

fn by_frame(place: &Place) -> BTreeMap<&str, Vec<&Held>> {
    let mut map: BTreeMap<&str, Vec<&Held>> = BTreeMap::new();
    for held in &place.results {
        map.entry(&held.frame).or_default().push(held);
    }
    map
}

fn by_name(place: &Place) -> BTreeMap<(&str, &str), &Held> {
    place.results.iter().map(|held| ((&*held.frame, &*held.model), held)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(number: u64) -> Held {
        Held {
            frame: format!("frame-{number}"),
            session: "session-1".to_owned(),
            model: "nuclei-0123456789ab".to_owned(),
            sha256: format!("pixels-{number}"),
            labels_sha256: format!("labels-{number}"),
            objects: number,
            rows: number,
        }
    }

    fn place(name: &'static str) -> Place {
        let results: Vec<Held> = (1..=5).map(held).collect();
        // Frame 6 was captured and never segmented.
        let frames = (1..=6).map(|n| (format!("frame-{n}"), format!("pixels-{n}"))).collect();
        Place { name, results, sessions: vec!["session-1".to_owned()], frames }
    }

    fn content(number: u64) -> Content {
        Content { bytes: number, sha256: format!("object-{number}") }
    }

    fn bucket() -> Bucket {
        let manifest = "sessions/session-1/manifest.json".to_owned();
        let mut objects: BTreeMap<_, _> =
            (1..=3).map(|n| (format!("objects/{n}.parquet"), content(n))).collect();
        let named =
            objects.iter().map(|(key, content)| (manifest.clone(), key.clone(), content.clone()));
        let named = named.collect();
        objects.insert(manifest.clone(), content(10));
        objects.insert(".reticle/probe".to_owned(), content(11));
        Bucket { objects, manifests: BTreeSet::from([manifest]), named }
    }

    struct World {
        ledger: Vec<Noted>,
        store: Place,
        archive: Place,
        central: Place,
        bucket: Bucket,
    }

    impl World {
        /// All agree; the ledger has not seen the last result.
        fn sound() -> Self {
            let ledger = (1..=4).map(held).map(|held| Noted {
                frame: held.frame,
                session: held.session,
                sha256: held.sha256,
                labels_sha256: held.labels_sha256,
                objects: held.objects,
            });
            Self {
                ledger: ledger.collect(),
                store: place("the store"),
                archive: place("the archive"),
                central: place("the database"),
                bucket: bucket(),
            }
        }

        #[track_caller]
        fn expect(&self, faults: &[Fault], words: &str) {
            let copies = [&self.archive, &self.central];
            let findings = disagreements(&self.ledger, &self.store, &copies, &self.bucket);
            let mut found: Vec<Fault> = findings.iter().map(|finding| finding.fault).collect();
            found.sort_unstable();
            assert_eq!(found, faults, "{findings:#?}");
            let named = findings.iter().all(|finding| finding.what.contains(words));
            assert!(named, "{words} is not in {findings:#?}");
        }
    }

    #[test]
    fn places_that_agree_have_no_finding() {
        World::sound().expect(&[], "");
    }

    #[test]
    fn the_summary_counts_each_kind_of_finding() {
        let finding = |fault| Finding { fault, what: String::new() };
        assert_eq!(summary(&[]), "0 lost, 0 doubled, 0 orphans, 0 overwritten");
        let findings = [Fault::Overwritten, Fault::Lost, Fault::Overwritten].map(finding);
        assert_eq!(summary(&findings), "1 lost, 0 doubled, 0 orphans, 2 overwritten");
    }

    #[test]
    fn a_planted_loss_is_found_in_each_place() {
        let mut world = World::sound();
        world.central.results.remove(2);
        // Once as broken promise, once as difference from the store.
        world.expect(&[Fault::Lost, Fault::Lost], "frame-3");

        let mut world = World::sound();
        world.archive.results.remove(4);
        world.expect(&[Fault::Lost], "frame-5");

        // The store lost it and the copies did not: they hold what nothing accounts for.
        let mut world = World::sound();
        world.store.results.remove(0);
        world.expect(&[Fault::Lost, Fault::Orphan, Fault::Orphan], "frame-1");

        // Lost everywhere: only the ledger knows.
        let mut world = World::sound();
        for place in [&mut world.store, &mut world.archive, &mut world.central] {
            place.results.remove(3);
        }
        world.expect(&[Fault::Lost; 3], "frame-4");
    }

    #[test]
    fn an_unsegmented_frame_that_is_lost_is_found() {
        let mut world = World::sound();
        world.central.frames.remove(5);
        world.expect(&[Fault::Lost], "frame-6");
    }

    #[test]
    fn a_planted_double_is_found() {
        let mut world = World::sound();
        world.archive.results.push(held(2));
        world.expect(&[Fault::Doubled], "frame-2");

        let mut world = World::sound();
        world.central.results[4].rows = 10;
        // The store has 5 of them: the two do not agree either.
        world.expect(&[Fault::Lost, Fault::Doubled], "frame-5");

        let mut world = World::sound();
        world.central.frames.push(("frame-6".into(), "pixels-6".into()));
        world.expect(&[Fault::Doubled], "frame-6");

        let mut world = World::sound();
        world.archive.sessions.push("session-1".into());
        world.expect(&[Fault::Doubled], "session-1");

        let mut world = World::sound();
        world.ledger.push(world.ledger[0].clone());
        world.expect(&[Fault::Doubled; 3], "frame-1");

        let mut world = World::sound();
        let again = world.bucket.named[0].clone();
        world.bucket.named.push(again);
        world.expect(&[Fault::Doubled], "objects/1.parquet");
    }

    #[test]
    fn a_planted_orphan_is_found() {
        let mut world = World::sound();
        world.bucket.objects.insert("frames/old.parquet".into(), content(20));
        world.expect(&[Fault::Orphan], "frames/old.parquet");

        let mut world = World::sound();
        world.central.results.push(held(9));
        world.expect(&[Fault::Orphan], "frame-9");

        // No manifest, although it is called like one; and one of a session that never was.
        let mut world = World::sound();
        world.bucket.objects.insert("sessions/session-2/manifest.json".into(), content(21));
        world.expect(&[Fault::Orphan], "session-2");

        let mut world = World::sound();
        world.central.sessions.push("session-3".into());
        world.expect(&[Fault::Orphan], "session-3");
    }

    #[test]
    fn another_content_under_the_same_name_is_a_loss() {
        for (what, change) in [
            ("labels", (|held: &mut Held| held.labels_sha256 = "other".into()) as fn(&mut Held)),
            ("pixels", |held| held.sha256 = "other".into()),
            ("session", |held| held.session = "other".into()),
        ] {
            let mut world = World::sound();
            change(&mut world.central.results[0]);
            world.expect(&[Fault::Lost, Fault::Lost], "frame-1");
            let mut world = World::sound();
            change(&mut world.archive.results[4]);
            world.expect(&[Fault::Lost], what);
        }
        let mut world = World::sound();
        world.bucket.objects.insert("objects/2.parquet".into(), content(30));
        world.expect(&[Fault::Lost], "objects/2.parquet");
        let mut world = World::sound();
        world.bucket.objects.remove("objects/3.parquet");
        world.expect(&[Fault::Lost], "objects/3.parquet");
    }
}
