//! The kinds of faults, and in which order a run meets them.

use std::collections::BTreeMap;
use std::fmt;

use rand::Rng as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $word:literal,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Kind {
            $($(#[$doc])* $kind,)*
        }

        impl Kind {
            pub(crate) const ALL: &[Self] = &[$(Self::$kind,)*];

            /// As it stands in the summary.
            pub(crate) fn word(self) -> &'static str {
                match self {
                    $(Self::$kind => $word,)*
                }
            }
        }
    };
}

kinds! {
    /// `kill -9` of the daemon at a random moment.
    Kill = "kill",
    /// SIGSTOP, a while, SIGCONT.
    Stop = "stop",
    /// Another program takes the last byte of the data folder's file system.
    FullDisk = "full-disk",
    /// A page of the database is damaged while the daemon is dead; then a copy is put back.
    Damage = "damaged-database",
    /// The wall clock jumps by days, and back past where it was.
    Clock = "clock",
    /// The database goes back to an older copy of itself.
    RestoreOld = "restore-old",
    /// Bytes of a saved label image or frame file change while the daemon is dead.
    Rot = "rot",
    /// A second daemon runs on a copy of the data folder, under the same name.
    Clone = "clone",
    /// The data folder, or the database's log, is removed under the running daemon.
    Unlinked = "unlinked",
    /// Another database takes the place of the one that the running daemon writes.
    ReplacedDb = "replaced-db",
    /// Others hold more connections than the daemon has descriptors.
    Descriptors = "descriptors",
    /// Others send their requests byte by byte, and take no answers.
    SlowClients = "slow-clients",
    /// The watched folder has an image that costs the process its life.
    PoisonImage = "poison-image",
    /// The watched folder has a small file with very many pages.
    PageBomb = "page-bomb",
    /// The archive answers 500.
    S3Error = "s3-500",
    /// The archive answers 503 `SlowDown` with `Retry-After`.
    S3SlowDown = "s3-503",
    /// The archive takes requests and never answers.
    S3Hang = "s3-hang",
    /// The archive closes the connection in the middle of a body.
    S3Cut = "s3-cut",
    /// The archive has the object and its answer is lost.
    S3LostAnswer = "s3-lost-answer",
    /// The archive answers with another checksum than that of what was sent.
    S3Checksum = "s3-checksum",
    /// The daemon has a wrong secret key.
    S3Credentials = "s3-credentials",
    /// The archive's server is killed, and started again.
    S3Restart = "s3-restart",
    /// PostgreSQL is stopped in immediate mode, and started again.
    PgRestart = "pg-restart",
    /// All of PostgreSQL's connections are taken by others.
    PgConnections = "pg-connections",
    /// The database takes no writes.
    PgReadOnly = "pg-read-only",
    /// The network to PostgreSQL is cut.
    PgCut = "pg-cut",
    /// The network to PostgreSQL is slow.
    PgSlow = "pg-slow",
    /// A trigger in PostgreSQL drops rows without an error.
    SwallowedRows = "swallowed-rows",
    /// Commands of the broker come again, late, or for ever.
    BrokerReplay = "broker-replay",
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// All kinds of a run, shuffled anew each time all of them were drawn: random in order, and
/// each as often as the others.
pub(crate) struct Deck {
    kinds: Vec<Kind>,
    left: Vec<Kind>,
}

impl Deck {
    pub(crate) fn new(kinds: Vec<Kind>) -> Self {
        assert!(!kinds.is_empty(), "a bench without faults shows nothing");
        Self { kinds, left: Vec::new() }
    }

    pub(crate) fn draw(&mut self, random: &mut ChaCha8Rng) -> Kind {
        if self.left.is_empty() {
            self.left = self.kinds.clone();
            self.left.shuffle(random);
        }
        self.left.pop().expect("filled above, and never made empty")
    }
}

/// How often each kind was shown to have hit.
#[derive(Default)]
pub(crate) struct Fired(BTreeMap<Kind, u64>);

impl Fired {
    pub(crate) fn count(&mut self, kind: Kind) {
        *self.0.entry(kind).or_default() += 1;
    }

    /// Those of `kinds` that never did.
    pub(crate) fn missing(&self, kinds: &[Kind]) -> Vec<Kind> {
        kinds.iter().copied().filter(|kind| !self.0.contains_key(kind)).collect()
    }
}

impl fmt::Display for Fired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<String> =
            self.0.iter().map(|(kind, count)| format!("{kind}={count}")).collect();
        f.write_str(&counts.join(", "))
    }
}

/// True in one of `n` cases.
pub(crate) fn one_in(random: &mut ChaCha8Rng, n: u32) -> bool {
    random.random_ratio(1, n)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn each_kind_is_drawn_once_before_any_is_drawn_again() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut deck = Deck::new(Kind::ALL.to_vec());
        let mut orders = Vec::new();
        for _ in 0..3 {
            let mut fired = Fired::default();
            let drawn: Vec<Kind> = Kind::ALL.iter().map(|_| deck.draw(&mut random)).collect();
            drawn.iter().for_each(|kind| fired.count(*kind));
            assert_eq!(fired.missing(Kind::ALL), []);
            assert!(fired.to_string().starts_with("kill=1, stop=1, "), "{fired}");
            orders.push(drawn);
        }
        assert_ne!(orders[0], orders[1]);
    }

    #[test]
    fn a_kind_that_never_hit_is_named() {
        let mut fired = Fired::default();
        fired.count(Kind::Stop);
        assert_eq!(fired.missing(&[Kind::Kill, Kind::Stop]), [Kind::Kill]);
    }
}
