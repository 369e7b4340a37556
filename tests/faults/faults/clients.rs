//! Clients that take what the daemon has: descriptors, memory, patience.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use tokio::net::TcpSocket;
use tokio::runtime::Runtime;

use crate::bench::Bench;
use crate::common::{PATIENCE, wait_at_most, wait_for};
use crate::places;

/// Descriptors that the daemon may have in the round in which others take them.
const DESCRIPTORS: usize = 64;

/// Connections that are held then: some times as many.
const CONNECTIONS: usize = 300;

/// Connections whose requests never end.
const SLOW: usize = 40;

/// Connections that ask for pictures and read none.
const UNREAD: usize = 6;

/// Frames that must be recorded, and results saved, while the others are there.
const FRAMES: u64 = 15;

/// How soon a header that does not end is cut: 5 s are promised, on a quiet machine.
const CUT: Duration = Duration::from_secs(12);

/// Connections are held that the daemon cannot all take: frames go on, with their pixels.
pub(super) fn descriptors(bench: &mut Bench) {
    bench.end_or_kill();
    bench.go_through(&["prlimit", &format!("--nofile={DESCRIPTORS}")]);
    bench.ledger.wait_for_more();
    let before = Recorded::of(bench);
    let others = Others::new(bench);
    let held = others.connect(CONNECTIONS, b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\n");
    // As many as the kernel takes for a daemon that is slow to fetch them.
    assert!(held.len() > DESCRIPTORS, "only {} could connect", held.len());
    before.must_go_on(bench);
    // Some of them are refused, or there are no descriptors left: they were too many.
    let closed = held.iter().filter(|connection| is_closed(connection)).count();
    let open = std::fs::read_dir(format!("/proc/{}/fd", bench.daemon().pid()));
    let open = open.map(Iterator::count).unwrap_or_default();
    eprintln!(
        "  {} connections: {closed} closed by the daemon, which has {open} descriptors",
        held.len()
    );
    assert!(closed > 0 || open + 4 >= DESCRIPTORS, "they were not too many");
    bench.pause();
    before.must_go_on(bench);
    drop(held);
    wait_for("the page to answer again", || bench.status());
    bench.ledger.wait_for_more();
    before.must_have_its_pixels(bench);
    bench.end_or_kill();
    bench.go();
}

/// Headers that never end, pictures that are never read: frames go on, and the headers are cut.
pub(super) fn slow_clients(bench: &mut Bench) {
    let before = Recorded::of(bench);
    let others = Others::new(bench);
    let mut slow = others.connect(SLOW, b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\n");
    let unread = others.connect(UNREAD, b"GET /streams/mjpeg HTTP/1.1\r\nHost: localhost\r\n\r\n");
    // A header of a megabyte.
    let mut large = others.connect(1, b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\n");
    for connection in &mut large {
        // It may be cut in the middle, which is as well.
        connection.write_all(format!("X-Long: {}", "a".repeat(1 << 20)).as_bytes()).ok();
    }
    assert!(!slow.is_empty() && !unread.is_empty(), "nobody could connect");
    before.must_go_on(bench);
    let all = slow.len();
    let cut = wait_at_most(CUT, || {
        // Another byte of a header from time to time. A failure says that it was cut.
        slow.retain_mut(|connection| connection.write_all(b"X").is_ok() && !is_closed(connection));
        slow.is_empty().then_some(())
    });
    assert!(cut.is_some(), "{} of {all} headers that never end are not cut in {CUT:?}", slow.len());
    eprintln!("  {all} headers that never end were cut");
    before.must_go_on(bench);
    drop((unread, large));
    wait_for("the page to answer", || bench.status());
    bench.ledger.wait_for_more();
}

/// Others, at addresses of their own: what is done to them is not done to the ledger.
struct Others {
    runtime: Runtime,
    daemon: SocketAddr,
}

impl Others {
    fn new(bench: &Bench) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let daemon = bench.daemon().address().parse().expect("the daemon's address is numbers");
        Self { runtime: runtime.expect("a runtime can be made"), daemon }
    }

    /// So many connections (or as many as are taken), from a few addresses, each with this for a
    /// beginning.
    fn connect(&self, count: usize, beginning: &[u8]) -> Vec<TcpStream> {
        let connect = |number: usize| -> io::Result<TcpStream> {
            let socket = TcpSocket::new_v4()?;
            let last = u8::try_from(2 + number % 8).expect("it is below 10");
            socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)))?;
            let connected = async {
                let connected = socket.connect(self.daemon);
                tokio::time::timeout(Duration::from_millis(500), connected).await
            };
            let stream = self.runtime.block_on(connected).map_err(io::Error::other)??;
            let mut stream = stream.into_std()?;
            // Neither reads nor writes wait for the daemon: it may never answer.
            stream.set_nonblocking(true)?;
            // It may be refused at once: that is what is to be seen later.
            stream.write_all(beginning).ok();
            Ok(stream)
        };
        (0..count).map_while(|number| connect(number).ok()).collect()
    }
}

/// Whether the other end has closed it. What it answers first is read and dropped.
fn is_closed(mut connection: &TcpStream) -> bool {
    loop {
        match connection.read(&mut [0; 4096]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

/// What the box's database has, read from outside: the page may not answer meanwhile.
struct Recorded {
    frames: u64,
    results: u64,
}

impl Recorded {
    fn of(bench: &Bench) -> Self {
        let now = wait_at_most(PATIENCE, || places::recorded(&bench.database()).ok());
        let (frames, results) = now.expect("the database can be read");
        Self { frames, results }
    }

    /// Frames are recorded and results saved.
    fn must_go_on(&self, bench: &Bench) {
        let now = Self::of(bench);
        let on = wait_at_most(PATIENCE, || {
            let Self { frames, results } = Self::of(bench);
            (frames > now.frames + FRAMES && results > now.results + FRAMES / 3).then_some(())
        });
        if on.is_none() {
            let Self { frames, results } = Self::of(bench);
            panic!(
                "in {PATIENCE:?} {} frames are recorded and {} results saved while others are \
                 connected; the log:\n{}",
                frames - now.frames,
                results - now.results,
                bench.daemon().log()
            );
        }
    }

    /// No frame since then is without its pixels because they could not be written.
    fn must_have_its_pixels(&self, bench: &Bench) {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let db = Connection::open_with_flags(bench.database(), flags).unwrap();
        let without: i64 = db
            .query_row(
                "SELECT count(*) FROM frame WHERE no_file = 'write_failed'
                 AND pk IN (SELECT pk FROM frame ORDER BY pk LIMIT -1 OFFSET ?1)",
                [self.frames.cast_signed()],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(without, 0, "frames that are for ever without pixels");
    }
}
